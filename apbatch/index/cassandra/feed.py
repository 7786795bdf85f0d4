"""The feed of changes, and copies, whose coming and going it tells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from apbatch.index.attributes import COMMON
from apbatch.index.cassandra.base import BATCH, CassandraBase, blocks
from apbatch.index.cassandra.batches import Write, insertion, write_whole
from apbatch.index.cassandra.revisions import BUCKET
from apbatch.index.cassandra.rows import to_record
from apbatch.index.cassandra.session import ALL
from apbatch.index.catalogue import PAGE
from apbatch.index.changes import KEEP_DAYS, Change, ChangeKind, stale_reader
from apbatch.index.files import Replica, State
from apbatch.index.records import from_plain, is_text, to_plain

#: A removal expires some days after readers from before it are sent back.
_REMOVAL_S = (KEEP_DAYS + 2) * 86_400
_ROWS_A_READ = 500


class CassandraFeed(CassandraBase):
    """Changes and replicas."""

    def revision(self) -> int:
        """Return the revision before which nothing more will be written."""
        return self._revisions.settled() - 1

    def changes(self, since: int, limit: int = PAGE, *, from_start: bool = False) -> list[Change]:
        """Return the next changes after a revision, up to where no writer is under way; see `Catalogue.changes`."""
        horizon = self._horizon() if since > 0 and not from_start else 0
        if 0 < since < horizon:
            raise stale_reader(since, horizon)
        end = self._revisions.settled()
        cql = "SELECT revision, path, kind, detail FROM change WHERE bucket = ? AND revision > ? AND revision < ?"
        declared = self.attributes()
        changes: list[Change] = []
        for bucket in range((since + 1) // BUCKET, (end - 1) // BUCKET + 1):
            for part in blocks(self._session.run(cql, bucket, since, end), _ROWS_A_READ):
                of_files = [row["path"] for row in part if row["kind"] is None]
                current = {row["path"]: row for row in self._look_up(of_files, "*")}
                for row in part:
                    revision, path = row["revision"], row["path"]
                    if row["kind"] is not None:
                        changes.append(Change(revision, ChangeKind(row["kind"]), path, row["detail"] or ""))
                    elif path in current and current[path]["revision"] == revision:
                        record = to_record(current[path], declared)
                        first = current[path]["first_revision"] or revision
                        kind = ChangeKind.NEW if first > since else ChangeKind.CHANGED
                        kind = ChangeKind.GONE if record.state is State.MISSING else kind
                        changes.append(Change(revision, kind, path, record=record))
                    if len(changes) == limit:
                        return changes
        return changes

    def _horizon(self) -> int:
        """Return the last revision of a removal that is no longer remembered."""
        today = datetime.fromtimestamp(self._session.now_ms() / 1000, UTC).date()
        cql = "SELECT revision FROM removal WHERE catalogue = ? AND day < ? LIMIT 1"
        rows = self._session.do(cql, ALL, today - timedelta(days=KEEP_DAYS))
        return rows[0]["revision"] if rows else 0

    def _tell(self, revision: int, path: str, kind: ChangeKind | None = None, detail: str = "") -> Write:
        """Return what tells one change; one of a file has no kind."""
        row = {"bucket": revision // BUCKET, "revision": revision, "path": path}
        if kind is not None:
            row |= {"kind": kind.value, "detail": detail}
        return insertion(self._session, "change", row)

    def _tell_removals(self, first: int, changes: Sequence[tuple[str, ChangeKind, str]]) -> list[Write]:
        """Return what tells removals, by key, kind and detail, from a revision on."""
        cql = f"INSERT INTO change (bucket, revision, path, kind, detail) VALUES (?, ?, ?, ?, ?) USING TTL {_REMOVAL_S}"
        statement = self._session.prepare(cql)
        writes: list[Write] = [
            (statement, (revision // BUCKET, revision, key, kind.value, detail))
            for revision, (key, kind, detail) in enumerate(changes, first)
        ]
        return writes

    def _date_removals(self, last: int) -> None:
        """Note the day of removals up to a revision; before they are written, so that none goes without."""
        today = datetime.fromtimestamp(self._session.now_ms() / 1000, UTC).date()
        self._session.do("INSERT INTO removal (catalogue, day, revision) VALUES (?, ?, ?)", ALL, today, last)

    def _untell(self, revision: int) -> Write:
        """Return what takes a change out of the feed that another one replaces."""
        statement = self._session.prepare("DELETE FROM change WHERE bucket = ? AND revision = ?")
        return statement, (revision // BUCKET, revision)

    # replicas

    def add_replicas(self, replicas: Iterable[Replica]) -> int:
        """Record (or renew) replicas by path and URL; see `Catalogue.add_replicas`."""
        added = 0
        for block in blocks(replicas, BATCH):
            by_key = {(replica.path, replica.url): replica for replica in block if is_text(replica.path)}
            paths = {row["path"] for row in self._look_up((path for path, _ in by_key), "path, site")}
            additions = [replica for replica in by_key.values() if replica.path in paths]
            if not additions:
                continue
            old = {(row["path"], row["url"]): row["revision"] for row in self._replica_rows(paths)}
            with self._revisions.block(len(additions)) as first:
                groups = []
                for revision, one in enumerate(additions, first):
                    row = {
                        "path": one.path,
                        "url": one.url,
                        "kind": one.kind,
                        "checksum": one.checksum,
                        "verified": to_plain(one.verified),
                        "revision": revision,
                    }
                    group = [
                        insertion(self._session, "replica", row),
                        self._tell(revision, one.path, ChangeKind.REPLICA_ADDED, one.url),
                    ]
                    before = old.get((one.path, one.url))
                    groups.append(group if before is None else [*group, self._untell(before)])
                write_whole(self._session, groups)
            added += len(additions)
        return added

    def replicas(self, paths: Iterable[str]) -> dict[str, list[Replica]]:
        """Return the replicas of files, by path, each list by URL."""
        time_type = COMMON["time_start"]
        replicas: dict[str, list[Replica]] = {}
        for block in blocks(paths, BATCH):
            replicas.update({path: [] for path in block})
            for row in self._replica_rows(dict.fromkeys(block)):
                verified = from_plain(time_type, row["verified"])
                replicas[row["path"]].append(Replica(row["path"], row["url"], row["kind"], row["checksum"], verified))
        return replicas

    def _replica_rows(self, paths: Iterable[str]) -> list[dict[str, Any]]:
        statement = self._session.prepare("SELECT * FROM replica WHERE path = ?")
        reads = [(statement, (path,)) for path in paths if path and is_text(path)]
        return [row for rows in self._session.concurrently(reads) for row in rows]

    def remove_replicas(self, replicas: Iterable[tuple[str, str]]) -> int:
        """Forget replicas by path and URL; return how many there were."""
        removed = 0
        drop = self._session.prepare("DELETE FROM replica WHERE path = ? AND url = ?")
        for block in blocks(replicas, BATCH):
            present = {(row["path"], row["url"]): row["revision"] for row in self._replica_rows({p for p, _ in block})}
            removals = [key for key in dict.fromkeys(block) if key in present]
            if not removals:
                continue
            with self._revisions.block(len(removals)) as first:
                self._date_removals(first + len(removals) - 1)
                entries = self._tell_removals(
                    first, [(path, ChangeKind.REPLICA_REMOVED, url) for path, url in removals]
                )
                groups: list[list[Write]] = []
                for key, tell in zip(removals, entries, strict=True):
                    groups.append([(drop, key), tell])
                    if present[key] is not None:
                        groups[-1].append(self._untell(present[key]))
                write_whole(self._session, groups)
            removed += len(removals)
        return removed
