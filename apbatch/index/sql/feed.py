"""The feed of changes, and copies, whose coming and going it tells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apbatch.index.catalogue import PAGE
from apbatch.index.changes import KEEP_DAYS, Change, ChangeKind, stale_reader
from apbatch.index.files import Replica, State
from apbatch.index.records import is_text
from apbatch.index.sql.base import BATCH, blocks
from apbatch.index.sql.database import Session
from apbatch.index.sql.digests import SqlDigests
from apbatch.index.sql.rows import as_typed


class SqlFeed(SqlDigests):
    """Changes and replicas."""

    def changes(self, since: int, limit: int = PAGE, *, from_start: bool = False) -> list[Change]:
        """Return the next changes after a revision; see `Catalogue.changes`.

        Rows of files, replicas and descriptions carry the revision of their last change, so that only removals need a
        table of their own. All are read in one transaction, which sees one state.
        """
        bound = [since, limit]
        with self._db.read() as session:
            horizon = int(session.value("SELECT value FROM counter WHERE name = 'horizon'"))
            if 0 < since < horizon and not from_start:
                raise stale_reader(since, horizon)
            files = session.rows(
                f"SELECT {self._columns}, {self._version} FROM file f WHERE f.revision > ? ORDER BY f.revision LIMIT ?",
                bound,
            )
            changes = []
            for record, row in zip(self._records(session, files), files, strict=True):
                kind = ChangeKind.NEW if row[20] > since else ChangeKind.CHANGED
                kind = ChangeKind.GONE if record.state is State.MISSING else kind
                changes.append(Change(record.revision, kind, record.path, record=record))
            replicas = session.rows(
                "SELECT r.revision, f.path, r.url FROM replica r JOIN file f ON f.id = r.id WHERE r.revision > ? "
                "ORDER BY r.revision LIMIT ?",
                bound,
            )
            changes += [Change(revision, ChangeKind.REPLICA_ADDED, path, url) for revision, path, url in replicas]
            rows = session.rows(
                "SELECT revision, kind, name, '' FROM description WHERE revision > ? ORDER BY revision LIMIT ?", bound
            )
            rows += session.rows(
                "SELECT revision, kind, key, detail FROM change WHERE revision > ? ORDER BY revision LIMIT ?", bound
            )
            changes += [Change(revision, ChangeKind(kind), key, detail) for revision, kind, key, detail in rows]
        changes.sort(key=lambda change: change.revision)
        return changes[:limit]

    def _forget_removals(self, session: Session) -> None:
        """Forget what was removed long ago, and up to which revision the feed is no longer complete."""
        old = f"at < {self._db.now} - {KEEP_DAYS * 86_400}"
        last = session.value(f"SELECT MAX(revision) FROM change WHERE {old}")
        if last is not None:
            session.run(f"DELETE FROM change WHERE {old}")
            session.run("UPDATE counter SET value = ? WHERE name = 'horizon' AND value < ?", (last, last))

    # replicas

    def add_replicas(self, replicas: Iterable[Replica]) -> int:
        """Record (or renew) replicas by path and URL; see `Catalogue.add_replicas`."""
        added = 0
        for block in blocks(replicas, BATCH):
            by_key = {(replica.path, replica.url): replica for replica in block if is_text(replica.path)}
            with self._db.write() as session:
                ids = self._ids(session, [path for path, _ in by_key])
                additions = [(ids[path], replica) for (path, _), replica in by_key.items() if path in ids]
                first = self._take(session, len(additions)) + 1
                self._drop_replicas(session, [(id, replica.url) for id, replica in additions])
                session.load(
                    "replica",
                    ("id", "url", "kind", "checksum", "verified", "revision"),
                    [
                        (id, one.url, one.kind, one.checksum, self._db.plain(one.verified), revision)
                        for revision, (id, one) in enumerate(additions, first)
                    ],
                )
            added += len(additions)
        return added

    def replicas(self, paths: Iterable[str]) -> dict[str, list[Replica]]:
        """Return the replicas of files, by path."""
        by_path: dict[str, list[Replica]] = {}
        for block in blocks(paths, 1000):
            by_path.update({path: [] for path in block})
            with self._db.read() as session:
                rows = session.rows(
                    f"SELECT f.path, r.url, r.kind, r.checksum, r.verified FROM {self._db.texts} "
                    f"JOIN file f ON {self._db.same('f.path', 'item.value')} JOIN replica r ON r.id = f.id",
                    [self._db.bound([path for path in dict.fromkeys(block) if is_text(path)])],
                )
            for path, url, kind, checksum, verified in rows:
                by_path[path].append(Replica(path, url, kind, checksum, as_typed("time", verified)))
        for many in by_path.values():
            many.sort(key=lambda replica: replica.url)
        return by_path

    def remove_replicas(self, replicas: Iterable[tuple[str, str]]) -> int:
        """Forget replicas by path and URL."""
        removed = 0
        for block in blocks(replicas, BATCH):
            there = self.replicas([path for path, _ in block])
            present = {(path, one.url) for path, many in there.items() for one in many}
            keys = [key for key in dict.fromkeys(block) if key in present]
            if keys:
                with self._db.write() as session:
                    ids = self._ids(session, [path for path, _ in keys])
                    keys = [key for key in keys if key[0] in ids]
                    self._drop_replicas(session, [(ids[path], url) for path, url in keys])
                    self._note(session, ChangeKind.REPLICA_REMOVED, keys)
            removed += len(keys)
        return removed

    def _drop_replicas(self, session: Session, keys: Sequence[tuple[int, str]]) -> None:
        session.many("DELETE FROM replica WHERE id = ? AND url = ?", keys)

    def _ids(self, session: Session, paths: Sequence[str]) -> dict[str, int]:
        rows = session.rows(
            f"SELECT f.path, f.id FROM {self._db.texts} JOIN file f ON {self._db.same('f.path', 'item.value')}",
            [self._db.bound(list(dict.fromkeys(paths)))],
        )
        return dict(rows)  # type: ignore[arg-type]
