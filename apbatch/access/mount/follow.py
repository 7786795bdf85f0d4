"""Which names of the merged tree changed, read from the feed."""

from __future__ import annotations

from collections.abc import Iterator

from apbatch.access.mount.door import Door
from apbatch.access.mount.nodes import shown_name
from apbatch.index.changes import Change, ChangeKind, StaleReaderError

_OF_FILES = (ChangeKind.NEW, ChangeKind.CHANGED, ChangeKind.GONE)


class Follower:
    """Reads the feed from now on.

    Parameters
    ----------
    guard : Door
        Changes of what it does not show are passed over.
    """

    def __init__(self, guard: Door) -> None:
        self._guard, self._since = guard, guard.revision()

    def changed(self) -> list[tuple[str, bytes]]:
        """Return folder and shown name of what changed since the last call, each once."""
        names: dict[tuple[str, bytes], None] = {}
        while True:
            try:
                changes, since = self._guard.changes_read(self._since)
            except StaleReaderError:  # away for a month: what is believed has long ended
                self._since = self._guard.revision()
                return list(names)
            if since == self._since:
                return list(names)
            self._since = since
            for change in changes:
                if change.kind in _OF_FILES:
                    names.update(dict.fromkeys(_names_of(change)))
            gone = {_place_of(change).rpartition("/")[0] for change in changes if change.kind is ChangeKind.GONE}
            names.update(dict.fromkeys(self._folders_gone(gone)))

    def _folders_gone(self, folders: set[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the folders that went with their last file; who is in another one must not lose it."""
        visited: set[str] = set()
        for folder in folders:
            while folder and folder not in visited and self._guard.entry(folder) is None:
                visited.add(folder)
                folder, _, name = folder.rpartition("/")
                yield folder, shown_name(name)


def _place_of(change: Change) -> str:
    return change.record.place if change.record is not None else change.key


def _names_of(change: Change) -> Iterator[tuple[str, bytes]]:
    """Yield the names under which a file is shown."""
    folder, _, name = _place_of(change).rpartition("/")
    yield folder, shown_name(name)
    if change.record is not None:  # places in conflict
        yield folder, shown_name(f"{name}@{change.record.site}")
