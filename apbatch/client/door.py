"""The merged tree of a catalogue behind a server, for a mount: names and records by REST, bytes by ranges, verified.

The server decides what may be seen and read; hashes of blocks come from it, so that a cache or a proxy that gives other
bytes is noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from apbatch.access.sources import Source
from apbatch.client.remote import RemoteTransport, entry_of
from apbatch.client.remote_ranges import RemoteRanges
from apbatch.errors import AccessError, NotFoundError, UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.catalogue import PAGE
from apbatch.index.changes import Change, ChangeKind, StaleReaderError
from apbatch.index.contents import Content
from apbatch.index.files import Entry, EntryPage, FileRecord, Replica
from apbatch.storage.store import Ranges
from apbatch.storage.transfer import SourceChangedError

#: Names under which files were opened last.
_OPENED = 10_000


class ServerDoor:
    """What a server shows; see `apbatch.access.mount.door.Door`. Threads share it.

    Parameters
    ----------
    server : RemoteTransport
    """

    def __init__(self, server: RemoteTransport) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._since: int | None = None
        self._from_start: str | None = None
        self._names: dict[str, str] = {}  # in the merged tree, by key

    def entry(self, path: str) -> Entry | None:
        """Return what is seen under a path."""
        return self._server.entry(path)

    def entries(self, folder: str, cursor: str | None = None, limit: int = PAGE) -> EntryPage:
        """Return some entries of a folder; see `Catalogue.entries`."""
        page = self._server.json("/entries", folder=folder, cursor=cursor, limit=limit)
        return EntryPage([entry_of(item) for item in page["items"]], page["cursor"])

    def sources(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry."""
        return self._about(path)[0]

    def readable(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry, if their bytes may be read."""
        records, readable = self._about(path)
        if not readable:
            raise NotFoundError("no such file, or it may not be read", where=path)
        return records

    def content(self, checksum: str) -> Content | None:
        """Return the hashes of a content; None if they are not kept."""
        return self._server.content(checksum)

    def replicas(self, paths: Iterable[str]) -> dict[str, list[Replica]]:
        """Return none: where the bytes come from is the server's affair."""
        return {path: [] for path in paths}

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute that a query may name."""
        return self._server.attributes(False)

    def rows(self, query: str, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Yield attributes of the files that match."""
        for batch in self._server.batches(query, list(columns), None, False):
            yield from batch.to_pylist()

    def matching(self, query: str) -> Iterator[FileRecord]:
        """Yield the files that match a query."""
        return self._server.select(query)

    def revision(self) -> int:
        """Return the revision of the last change that is seen."""
        with self._lock:
            if self._since is None:
                self._since = self._newest()
                self._from_start = None if self._since else "true"
            while True:
                page = self._server.json("/changes", since=self._since, limit=PAGE, from_start=self._from_start)
                if page["since"] == self._since:
                    return self._since
                self._since = int(page["since"])

    def _newest(self) -> int:
        """Return a revision that was reached already: a server does not tell how far its feed goes beyond."""
        try:
            items = self._server.json("/files", q="order by revision desc", columns="revision", limit=1)["items"]
        except AccessError:
            raise
        except UsageError:  # a catalogue that can't order by it: then the feed is read from its beginning, once
            return 0
        return int(items[0]["revision"]) if items else 0

    def changes_read(self, since: int, limit: int = PAGE, *, from_start: bool = False) -> tuple[list[Change], int]:
        """Return the next changes, and the revision from which those after them follow; see `Catalogue.changes`.

        Raises
        ------
        StaleReaderError
            If the server does not remember what changed since then.
        """
        start = "true" if from_start else None
        try:
            page = self._server.json("/changes", since=since, limit=limit, from_start=start)
        except AccessError:
            raise
        except UsageError as error:
            raise StaleReaderError(error.what, where=self._server.name) from None
        changes = [
            Change(
                item["revision"],
                ChangeKind(item["kind"]),
                item["key"],
                item["detail"],
                None if item["record"] is None else self._server.record(item["record"]),
            )
            for item in page["items"]
        ]
        return changes, int(page["since"])

    def source(self, record: FileRecord) -> Source:
        """Return where the bytes of a file are: at the server."""
        path = self._names.get(record.path, record.place)
        return Source(
            f"server {self._server.name}",
            f"{self._server.name} {path}",
            lambda: _ServerRanges(self._server, path, record),
        )

    def _about(self, path: str) -> tuple[list[FileRecord], bool]:
        try:
            about = self._server.json("/file", path=path)
        except NotFoundError:
            return [], False
        records = [self._server.record(item) for item in about["sources"]]
        for record in records:
            self._names[record.path] = path
        while len(self._names) > _OPENED:
            self._names.pop(next(iter(self._names)), None)
        return records, bool(about["readable"])


class _ServerRanges(Ranges):
    """A file that a server gives, in one version."""

    def __init__(self, server: RemoteTransport, path: str, record: FileRecord) -> None:
        self._file = RemoteRanges(server, path)
        self.size = self._file.size
        if record.checksum and self._file.tag != f'"{record.checksum}"':
            raise SourceChangedError("this is another file by now", where=path)

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, cut at the end of the file."""
        end = min(offset + length, self.size)
        return self._file.fetch(offset, end) if end > offset else b""

    def close(self) -> None:
        """Nothing: connections belong to the server's client."""
