"""The merged tree as a file system of fsspec: ``apbatch:///taiga/…`` in pandas, pyarrow, DuckDB, dask."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, BinaryIO

from apbatch.client.client import connect
from apbatch.index.files import Entry
from apbatch.storage.filesystem import ReadOnlyFileSystem


class TreeFileSystem(ReadOnlyFileSystem):
    """The merged tree to be read, as ``apbatch:///PATH``: what the guard shows, in blocks that are verified.

    Parameters
    ----------
    catalogue : str, optional
        URL of a catalogue or of a server; by default what the settings say.
    token : str, optional
        For a server; by default what ``$APBATCH_TOKEN`` holds.
    **options : object
        Of fsspec.

    Raises
    ------
    UsageError, ServerError
        If the catalogue can't be opened.
    """

    protocol = "apbatch"

    def __init__(self, catalogue: str | None = None, token: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._client = connect(catalogue, token)
        weakref.finalize(self, self._client.close)

    def _entry(self, path: str) -> dict[str, Any] | None:
        entry = self._client.entry(path)
        return None if entry is None else _described(path, entry)

    def _entries(self, path: str) -> Iterator[dict[str, Any]]:
        folder = path.rstrip("/")
        for entry in self._client.tree(folder):
            yield _described(f"{folder}/{entry.name}", entry)

    def _stream(self, path: str) -> BinaryIO:
        return self._client.open(path)


def _described(path: str, entry: Entry) -> dict[str, Any]:
    """Return what fsspec knows of an entry; a new content is seen by its checksum."""
    info = {"name": path, "size": entry.size, "type": "file", "mtime": entry.mtime_ns / 1e9}
    return info | ({"checksum": entry.checksum} if entry.kind == "file" else {"type": "directory"})
