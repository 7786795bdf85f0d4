"""What a mount asks: a catalogue here, behind the guard, or one behind a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from apbatch.access.reader import Readable
from apbatch.formats.reader import Attribute
from apbatch.index.catalogue import PAGE
from apbatch.index.changes import Change
from apbatch.index.files import Entry, EntryPage, FileRecord


class Door(Readable, Protocol):
    """The methods of `Guard` that a mount needs, with the same meaning."""

    def entry(self, path: str) -> Entry | None:
        """Return what is seen under a path of the merged tree, or None."""

    def entries(self, folder: str, cursor: str | None = None, limit: int = PAGE) -> EntryPage:
        """Return some entries of a folder; see `Catalogue.entries`."""

    def sources(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry that are seen."""

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute that a query of files may name."""

    def rows(self, query: str, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Yield attributes of the files that match a query, given as text."""

    def revision(self) -> int:
        """Return the revision of the last change."""

    def changes_read(self, since: int, limit: int = PAGE, *, from_start: bool = False) -> tuple[list[Change], int]:
        """Return the next changes, and the revision from which to go on; see `Catalogue.changes`."""
