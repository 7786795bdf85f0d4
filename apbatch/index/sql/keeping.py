"""What else hosts share: hashes by content, leases, descriptions of sites, policies."""

from __future__ import annotations

from collections.abc import Iterable

from apbatch.errors import UsageError
from apbatch.index.changes import ChangeKind
from apbatch.index.contents import Content
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.index.leases import Lease, held_by, lost
from apbatch.index.records import is_text
from apbatch.index.sql.base import BATCH, blocks
from apbatch.index.sql.files import SqlFiles


class SqlKeeping(SqlFiles):
    """Contents, leases, descriptions."""

    # contents

    def put_contents(self, contents: Iterable[Content]) -> None:
        """Keep hashes by content."""
        for block in blocks(contents, BATCH):
            for content in block:
                if flaw := content.flaw():
                    raise UsageError(flaw, where=content.checksum[:80])
            rows = [(c.checksum, c.size, c.adler32, c.blocks, c.small_pieces, c.large_pieces) for c in block]
            with self._db.write() as session:
                session.many(
                    "INSERT INTO content (checksum, size, adler32, blocks, small_pieces, large_pieces) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (checksum) DO NOTHING",
                    rows,
                )

    def contents(self, checksums: Iterable[str]) -> dict[str, Content]:
        """Return the hashes of contents by BLAKE3."""
        contents = {}
        for block in blocks(checksums, 100):
            with self._db.read() as session:
                rows = session.rows(
                    "SELECT c.checksum, c.size, c.adler32, c.blocks, c.small_pieces, c.large_pieces "
                    f"FROM {self._db.texts} JOIN content c ON c.checksum = item.value",
                    [self._db.bound([checksum for checksum in block if is_text(checksum)])],
                )
            contents.update({row[0]: Content(*row[:3], *map(bytes, row[3:])) for row in rows})
        return contents

    def has_contents(self, checksums: Iterable[str]) -> set[str]:
        """Return which contents have their hashes here."""
        hashes: set[str] = set()
        for block in blocks(checksums, 1000):
            with self._db.read() as session:
                rows = session.rows(
                    f"SELECT c.checksum FROM {self._db.texts} JOIN content c ON c.checksum = item.value",
                    [self._db.bound([checksum for checksum in block if is_text(checksum)])],
                )
            hashes.update(row[0] for row in rows)
        return hashes

    # leases

    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Take a lease; see `Catalogue.acquire`."""
        with self._db.write() as session:
            now, clock = self._db.clock(session)
            holders = session.rows(
                "SELECT holder, token FROM lease WHERE name = ? AND clock = ? AND expires > ?", (name, clock, now)
            )
            if holders:
                raise held_by(name, *holders[0])
            token = session.value("UPDATE counter SET value = value + 1 WHERE name = 'lease' RETURNING value")
            session.run("DELETE FROM lease WHERE name = ?", (name,))
            session.run(
                "INSERT INTO lease (name, holder, token, expires, clock) VALUES (?, ?, ?, ?, ?)",
                (name, holder, token, now + ttl_s, clock),
            )
        return Lease(name, holder, token, ttl_s)

    def renew(self, lease: Lease) -> None:
        """Begin a lease's time anew; one that ran out is still good if nobody else took it."""
        with self._db.write() as session:
            now, clock = self._db.clock(session)
            statement = "UPDATE lease SET expires = ?, clock = ? WHERE name = ? AND token = ?"
            if not session.run(statement, (now + lease.ttl_s, clock, lease.name, lease.token)):
                raise lost(lease)

    def release(self, lease: Lease) -> None:
        """Give a lease back."""
        with self._db.write() as session:
            session.run("DELETE FROM lease WHERE name = ? AND token = ?", (lease.name, lease.token))

    # descriptions

    def put_description(self, description: Description) -> None:
        """Insert or replace a description; a site's preference settles the conflicts anew."""
        with self._db.write() as session:
            key = (description.kind.value, description.name)
            preferred = session.rows("SELECT preferred FROM description WHERE kind = ? AND name = ?", key)
            session.run("DELETE FROM description WHERE kind = ? AND name = ?", key)
            revision = self._take(session, 1) + 1
            session.run(
                "INSERT INTO description (kind, name, text, preferred, revision) VALUES (?, ?, ?, ?, ?)",
                (*key, description.text, description.preferred, revision),
            )
            if description.preferred != bool(preferred and preferred[0][0]):
                self._settle_all(session)

    def descriptions(self, kind: DescriptionKind) -> list[Description]:
        """Return all descriptions of a kind, by name."""
        with self._db.read() as session:
            rows = session.rows(
                "SELECT name, text, preferred, revision FROM description WHERE kind = ? ORDER BY name", (kind.value,)
            )
        return [Description(kind, name, text, bool(preferred), revision) for name, text, preferred, revision in rows]

    def remove_description(self, kind: DescriptionKind, name: str) -> None:
        """Forget a description."""
        with self._db.write() as session:
            if session.run("DELETE FROM description WHERE kind = ? AND name = ?", (kind.value, name)):
                self._note(session, ChangeKind(kind.value), [(name, "removed")])
                self._settle_all(session)
