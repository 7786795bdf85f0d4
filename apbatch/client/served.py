"""A catalogue and its events behind a server, as jobs select from them; and the URLs at which the server gives files.

A selected file is read from the server, whatever its site: for a job that is a replica, of the kind `KIND`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from urllib.parse import quote, unquote

import pyarrow as pa

from apbatch.client.remote import RemoteTransport
from apbatch.formats.reader import Attribute
from apbatch.index.events.columns import EVENT_COLUMNS, EVENT_KEYS, POINTER, arrow_type
from apbatch.index.files import FileRecord, Replica
from apbatch.index.query import Query, written

#: Kind of the replicas that a server stands for.
KIND = "http"
_CONTENT = "/api/v1/content?path="


def content_url(server: str, path: str) -> str:
    """Return the URL at which a server gives the bytes of a file of the merged tree.

    Parameters
    ----------
    server : str
        Its address.
    path : str
        In the merged tree.
    """
    return f"{server}{_CONTENT}{quote(path)}"


def place_at_server(url: str) -> tuple[str, str] | None:
    """Return the server's address and the path in the merged tree of what `content_url` made; None of any other URL."""
    server, marker, path = url.partition(_CONTENT)
    return (server, unquote(path)) if marker else None


class ServedFiles:
    """The files that a server shows, to be selected.

    Parameters
    ----------
    server : RemoteTransport
    """

    def __init__(self, server: RemoteTransport) -> None:
        self._server = server
        self._records: dict[str, FileRecord] = {}
        self._names: dict[str, str] | None = None

    def attributes(self) -> dict[str, Attribute]:
        """Return what queries of files may name."""
        return self._server.attributes(False)

    def select(self, query: Query) -> Iterator[FileRecord]:
        """Yield the files that match, those that the token's policy shows."""
        for record in self._server.select(written(query)):
            self._records[record.path] = record
            yield record

    def replicas(self, paths: Iterable[str]) -> dict[str, list[Replica]]:
        """Return the one replica of each selected file: the server."""
        now = datetime.now(UTC)
        replicas = {}
        for path in paths:
            record = self._records[path]
            url = content_url(self._server.name, self._name(record))
            replicas[path] = [Replica(path, url, KIND, record.checksum, now)]
        return replicas

    def _name(self, record: FileRecord) -> str:
        """Return the name of a file in the merged tree: its place, unless sites disagree about what is there."""
        if self._names is None:
            self._names, cursor = {}, None
            while True:
                conflicts, cursor = self._server.conflicts(cursor)
                for one in conflicts:
                    self._names |= one.entries
                if cursor is None:
                    break
        return self._names.get(record.path, record.place)


class ServedEvents:
    """The events that a server shows, to be selected: by their keys, since it does not tell where images lie.

    Parameters
    ----------
    server : RemoteTransport
    """

    def __init__(self, server: RemoteTransport) -> None:
        self._server = server

    def attributes(self) -> dict[str, Attribute]:
        """Return what queries of events may name."""
        return self._server.attributes(True)

    def select(self, where: Query, columns: Iterable[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield keys of the events that match, in their order; pointers to images are null."""
        for batch in self._server.batches(written(where), list(EVENT_KEYS), None, True):
            nulls = [pa.nulls(batch.num_rows, arrow_type(EVENT_COLUMNS[name])) for name in POINTER]
            keys = [batch.column(name) for name in EVENT_KEYS]
            yield pa.RecordBatch.from_arrays([*keys, *nulls], names=[*EVENT_KEYS, *POINTER])
