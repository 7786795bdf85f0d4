"""What else hosts share: hashes by content, leases, descriptions of sites, policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from apbatch.errors import UsageError
from apbatch.index.cassandra.base import BATCH, blocks
from apbatch.index.cassandra.batches import insertion, write_whole
from apbatch.index.cassandra.lock import Locks
from apbatch.index.cassandra.writing import CassandraWriting
from apbatch.index.changes import ChangeKind
from apbatch.index.contents import Content
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.index.leases import Lease
from apbatch.index.records import is_text

_LONGEST_KEY = 1000


class CassandraKeeping(CassandraWriting):
    """Contents, leases, descriptions."""

    # contents

    def put_contents(self, contents: Iterable[Content]) -> None:
        """Keep hashes by content."""
        for block in blocks(contents, BATCH):
            for content in block:
                if flaw := content.flaw():
                    raise UsageError(flaw, where=content.checksum[:80])
            names = ("checksum", "size", "adler32", "blocks", "small_pieces", "large_pieces")
            rows = ({name: getattr(content, name) for name in names} for content in block)
            self._session.write([insertion(self._session, "content", row) for row in rows])

    def contents(self, checksums: Iterable[str]) -> dict[str, Content]:
        """Return the hashes of contents by BLAKE3."""
        columns = "checksum, size, adler32, blocks, small_pieces, large_pieces"
        return {row["checksum"]: Content(**row) for row in self._contents(columns, checksums)}

    def has_contents(self, checksums: Iterable[str]) -> set[str]:
        """Return which contents have their hashes here."""
        return {row["checksum"] for row in self._contents("checksum", checksums)}

    def _contents(self, columns: str, checksums: Iterable[str]) -> Iterator[dict[str, Any]]:
        statement = self._session.prepare(f"SELECT {columns} FROM content WHERE checksum = ?")
        for block in blocks(checksums, BATCH):
            reads = [
                (statement, (one,)) for one in dict.fromkeys(block) if one and len(one) < _LONGEST_KEY and is_text(one)
            ]
            for rows in self._session.concurrently(reads):
                yield from rows

    # leases

    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Take a lease; see `Catalogue.acquire`."""
        return Locks(self._session).acquire(name, holder, ttl_s)

    def renew(self, lease: Lease) -> None:
        """Begin a lease's time anew; one that ran out is still good if nobody else took it."""
        Locks(self._session).renew(lease)

    def release(self, lease: Lease) -> None:
        """Give a lease back."""
        Locks(self._session).release(lease)

    # descriptions

    def put_description(self, description: Description) -> None:
        """Insert or replace a description; a site's preference settles the conflicts anew."""
        kind, name = description.kind, description.name
        before = {one.name: one for one in self.descriptions(kind)}.get(name)
        with self._revisions.block(1) as revision:
            row = {
                "kind": kind.value,
                "name": name,
                "text": description.text,
                "preferred": description.preferred,
                "revision": revision,
            }
            writes = [insertion(self._session, "description", row), self._tell(revision, name, ChangeKind(kind.value))]
            if before is not None:
                writes.append(self._untell(before.revision))
            write_whole(self._session, [writes])
        if description.preferred != (before is not None and before.preferred):
            self._settle_all()

    def descriptions(self, kind: DescriptionKind) -> list[Description]:
        """Return all descriptions of a kind, by name."""
        rows = self._session.run("SELECT * FROM description WHERE kind = ?", kind.value)
        return [Description(kind, row["name"], row["text"], bool(row["preferred"]), row["revision"]) for row in rows]

    def remove_description(self, kind: DescriptionKind, name: str) -> None:
        """Forget a description; the files of a site stay."""
        before = {one.name: one for one in self.descriptions(kind)}.get(name)
        if before is None:
            return
        drop = self._session.prepare("DELETE FROM description WHERE kind = ? AND name = ?")
        with self._revisions.block(1) as revision:
            self._date_removals(revision)
            entries = self._tell_removals(revision, [(name, ChangeKind(kind.value), "removed")])
            write_whole(self._session, [[(drop, (kind.value, name)), self._untell(before.revision), *entries]])
        self._settle_all()
