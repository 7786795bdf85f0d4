"""The files of a site, listed without changing anything: links are not followed, devices and pipes never opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from apbatch.errors import NotFoundError
from apbatch.ingest.patterns import UNSAFE, decode_path, encode_path
from apbatch.ingest.site import Site
from apbatch.storage.names import is_part

#: What macOS writes beside a file on other systems' disks: its attributes, under the file's own extension.
_APPLE_DOUBLE = "._"
#: Files of a stretch of the listing, some more at most.
_STRETCH = 10_000
#: Folders deeper than this are opened by their paths: each open one costs a descriptor.
_DEEP = 100
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """A plain file of a site.

    Attributes
    ----------
    source : str
        Path below the root, as `encode_path` writes it.
    path : bytes
        Path in the file system.
    """

    source: str
    path: bytes
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Stretch:
    """Plain files in the order of the listing, as columns: an object for each would cost more than to list it."""

    sources: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    mtimes_ns: list[int] = field(default_factory=list)


#: Latest time of change, ns since 1970, that 64 bits hold: a later one, after 2262, counts as this one.
LATEST_NS = (1 << 63) - 1


def time_of_change(status: os.stat_result) -> int:
    """Return when a file changed, in ns since 1970, within 64 bits."""
    return max(min(status.st_mtime_ns, LATEST_NS), -LATEST_NS)


@dataclass
class WalkReport:
    """What a walk passed over.

    Attributes
    ----------
    unreadable : dict
        Reason by folder that could not be listed; ``""`` is the root.
    skipped : int
        Links, pipes, sockets, devices, files that a store is just writing, and macOS's ``._*`` beside other files.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    skipped: int = 0

    def covers(self, source: str) -> bool:
        """Tell whether a file could not be looked at, or lies in a folder that could not be listed."""
        if not self.unreadable:
            return False
        while source:
            if source in self.unreadable:
                return True
            source = source.rpartition("/")[0]
        return "" in self.unreadable


def is_passed_over(name: str) -> bool:
    """Tell whether a name is none of a site's files: one that a store is just writing, or macOS's."""
    return name[0] == "." and (name.startswith(_APPLE_DOUBLE) or is_part(name))


@dataclass(slots=True)
class _Folder:
    """A folder whose entries are being listed.

    Attributes
    ----------
    names : list of tuple
        Name as the listing writes it, with ``/`` at the end of a folder's, and as the system has it; last one first.
    """

    source: str
    path: str
    descriptor: int
    identity: tuple[int, int]
    names: list[tuple[str, str]]


def walk(site: Site, report: WalkReport, below: str = "") -> Iterator[Stretch]:
    """Yield the plain files of a site that its patterns want, ordered by the bytes of their sources.

    In memory are the names of the folders on the way to the present file, and one stretch.

    Parameters
    ----------
    site : Site
    report : WalkReport
        Takes what is passed over.
    below : str
        A folder of the site: only what is in it.

    Raises
    ------
    NotFoundError
        If the root vanishes.
    """
    return _Walk(site, report).files(below.strip("/"))


class _Walk:
    def __init__(self, site: Site, report: WalkReport) -> None:
        self._site, self._report = site, report
        self._open: list[_Folder] = []

    def files(self, below: str) -> Iterator[Stretch]:
        stretch = Stretch()
        start = os.fsdecode(self._site.local_path(below)) if below else self._site.root
        inside = Path(start).relative_to(self._site.root)
        if Path(start).resolve() != Path(self._site.root).resolve() / inside:
            return  # a link took the place of a folder
        try:
            self._enter(f"{below}/" if below else "", start, None)
            while self._open:
                if not self._advance(stretch):
                    self._leave()
                if len(stretch.sources) >= _STRETCH:
                    yield stretch
                    stretch = Stretch()
            if stretch.sources:
                yield stretch
        finally:
            while self._open:
                self._leave()

    def _advance(self, stretch: Stretch) -> bool:
        """List the files of the innermost folder up to its next folder, which is entered; False at its end."""
        folder, site = self._open[-1], self._site
        names, prefix, wants_all = folder.names, folder.source, site.wants_all
        sources, sizes, mtimes_ns = stretch.sources, stretch.sizes, stretch.mtimes_ns
        at = folder.descriptor if folder.descriptor >= 0 else None
        base = "" if at is not None else f"{folder.path}/"
        stat = os.stat
        for _ in range(_STRETCH):
            if not names:
                return False
            key, name = names.pop()
            source = prefix + key
            if key[-1] == "/":
                if wants_all or not site.avoids(source[:-1]):
                    self._enter(source, f"{folder.path}/{name}", f"{base}{name}", at)
                return True
            if not wants_all and not site.wants(source):
                continue
            try:
                status = stat(base + name, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone since the folder was listed
            except OSError as error:
                self._report.unreadable[source] = error.strerror or str(error)
                continue
            mtime_ns = status.st_mtime_ns
            sources.append(source)
            sizes.append(status.st_size)
            mtimes_ns.append(mtime_ns if -LATEST_NS <= mtime_ns <= LATEST_NS else time_of_change(status))
        return True

    def _enter(self, source: str, path: str, name: str | None, at: int | None = None) -> None:
        """List the names of a folder."""
        descriptor = -1
        try:
            descriptor = os.open(name or path, _FOLDER_FLAGS if name else _FOLDER_FLAGS & ~os.O_NOFOLLOW, dir_fd=at)
            status = os.fstat(descriptor)
            identity = (status.st_dev, status.st_ino)
            if any(folder.identity == identity for folder in self._open):
                self._report.skipped += 1  # mounted again within itself
                os.close(descriptor)
                return
            names = self._names(descriptor)
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            if not source:
                raise NotFoundError(f"the root can't be listed: {error.strerror}", where=self._site.root) from error
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                self._report.unreadable[source[:-1]] = error.strerror or str(error)
            return
        if len(self._open) > _DEEP:
            os.close(descriptor)
            descriptor = -1
        self._open.append(_Folder(source, path, descriptor, identity, names))

    def _names(self, descriptor: int) -> list[tuple[str, str]]:
        names: list[tuple[str, str]] = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_file(follow_symlinks=False):
                    if name[0] == "." and is_passed_over(name):
                        self._report.skipped += 1
                    else:
                        names.append((name, name))
                elif entry.is_dir(follow_symlinks=False):
                    names.append((f"{name}/", name))
                else:
                    self._report.skipped += 1
        if UNSAFE.search("".join([name for _, name in names])):
            names = [(encode_path(os.fsencode(key)), name) for key, name in names]
        names.sort(reverse=True)
        return names

    def _leave(self) -> None:
        folder = self._open.pop()
        if folder.descriptor >= 0:
            os.close(folder.descriptor)


def entry_at(site: Site, source: str) -> Entry | None:
    """Return a plain file of a site by its source; None if there is none, or the site does not want it.

    Raises
    ------
    OSError
        If it can't be looked at.
    """
    name = source.rpartition("/")[2]
    if is_passed_over(os.fsdecode(decode_path(name))) or not (site.wants_all or site.wants(source)):
        return None
    path = site.local_path(source)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if (status.st_mode & 0o170000) != 0o100000:
        return None
    return Entry(source, path, status.st_size, time_of_change(status))
