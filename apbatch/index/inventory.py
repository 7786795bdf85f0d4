"""Catalogue and stores compared, both ways: what is registered but not there, and what is there but not registered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from apbatch.index.catalogue import Catalogue
from apbatch.index.files import VISIBLE, FileRecord
from apbatch.index.places import parent_of
from apbatch.storage.store import Store


@dataclass(frozen=True, slots=True)
class Fault:
    """One disagreement.

    Attributes
    ----------
    where : str
        URL, path or place.
    what : str
        What is wrong.
    """

    where: str
    what: str


def check_catalogue(catalogue: Catalogue) -> Iterator[Fault]:
    """Yield what is wrong in a catalogue itself: damage, and files that feed, tree and look-up do not show alike."""
    yield from (Fault("catalogue", what) for what in catalogue.damage())
    for records in _pages(catalogue):
        present = catalogue.get_many(record.path for record in records)
        for record in records:
            if record.path not in present:
                yield Fault(record.path, "in the feed of changes, but not found by its path")
            elif record.state in VISIBLE and not any(
                record.path in {file.path for file in catalogue.sources(name)}
                for name in (record.place, f"{record.place}@{record.site}", *_conflicting(catalogue, record))
            ):
                yield Fault(record.path, "not in the merged tree")


def _conflicting(catalogue: Catalogue, record: FileRecord) -> Iterator[str]:
    """Yield the names near a file's place, for a conflict in which another site gave the name."""
    folder = parent_of(record.place)
    cursor: str | None = None
    while True:
        page = catalogue.entries(folder, cursor)
        for entry in page.entries:
            if f"{folder}/{entry.name}".startswith(f"{record.place}@"):
                yield f"{folder}/{entry.name}"
        if (cursor := page.cursor) is None:
            return


def compare_with_store(catalogue: Catalogue, store: Store, *, read: bool = False) -> Iterator[Fault]:
    """Yield the disagreements of a catalogue and a store; the URLs of its replicas are held in memory.

    Parameters
    ----------
    catalogue : Catalogue
    store : Store
    read : bool
        Read every replica and compare its checksum; else length alone is compared.
    """
    root = store.url.rstrip("/") + "/"
    registered: set[int] = set()
    tops: set[str] = set()
    for records in _pages(catalogue):
        by_path = {record.path: record for record in records}
        for path, replicas in catalogue.replicas(by_path).items():
            tops.add(path.split("/")[1])
            for replica in replicas:
                if not replica.url.startswith(root):
                    continue
                inside = store.path_of(replica.url)
                registered.add(hash(inside))
                tops.add(inside.split("/")[0])
                if (what := _fault(store, inside, by_path[path], replica.checksum, read)) is not None:
                    yield Fault(replica.url, what)
    for top in sorted(tops):
        info = store.info(top)
        if info is not None and info.is_directory:
            for inside in _files(store, top):
                if hash(inside) not in registered:
                    yield Fault(store.url_of(inside), "in the store, but not registered as a replica")


def _fault(store: Store, inside: str, record: FileRecord, checksum: str, read: bool) -> str | None:
    info = store.info(inside)
    if info is None:
        return "registered as a replica, but not in the store"
    if record.checksum == checksum and info.size != record.size:
        return f"{info.size} bytes instead of {record.size}"
    if read and (there := store.checksums(inside).blake3) != checksum:
        return f"content {there[:16]}… instead of {checksum[:16]}…"
    if record.checksum != checksum:
        return "a copy of an older content of the file"
    return None


def _pages(catalogue: Catalogue) -> Iterator[list[FileRecord]]:
    since = 0
    while page := catalogue.changes(since, from_start=True):
        yield [change.record for change in page if change.record is not None]
        since = page[-1].revision


def _files(store: Store, folder: str) -> Iterator[str]:
    folders = [folder]
    while folders:
        for entry in store.entries(folders.pop()):
            if entry.is_directory:
                folders.append(entry.path)
            else:
                yield entry.path
