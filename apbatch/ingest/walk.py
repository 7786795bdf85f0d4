"""The files of a site, listed without changing anything: links are not followed, devices and pipes never opened."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from apbatch.errors import NotFoundError
from apbatch.ingest.patterns import decode_path, encode_path
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

    def part(self, start: int, end: int) -> Stretch:
        """Return the files from one place on to before another one."""
        if start == 0 and end == len(self.sources):
            return self
        return Stretch(self.sources[start:end], self.sizes[start:end], self.mtimes_ns[start:end])

    def extend(self, other: Stretch) -> None:
        """Add the files that follow."""
        self.sources += other.sources
        self.sizes += other.sizes
        self.mtimes_ns += other.mtimes_ns


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
    """A folder whose entries are being listed, in the order of their names, a folder's with ``/`` at its end.

    Attributes
    ----------
    files, folders : list of str
        Names as the listing writes them.
    names : dict
        Name as the system has it, of those that the listing writes otherwise.
    file, folder : int
        How many of each were listed.
    """

    source: str
    path: str
    descriptor: int
    identity: tuple[int, int]
    files: list[str]
    folders: list[str]
    names: dict[str, str]
    file: int = 0
    folder: int = 0


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
        folder = self._open[-1]
        following = folder.folders[folder.folder] if folder.folder < len(folder.folders) else None
        end = len(folder.files) if following is None else bisect_left(folder.files, following, folder.file)
        if folder.file < end:
            start, folder.file = folder.file, min(end, folder.file + _STRETCH)
            self._list(folder, folder.files[start : folder.file], stretch)
            return True
        if following is None:
            return False
        folder.folder += 1
        source = folder.source + following
        if self._site.wants_all or not self._site.avoids(source[:-1]):
            name = folder.names.get(following, following[:-1])
            at = folder.descriptor if folder.descriptor >= 0 else None
            path = f"{folder.path}/{name}"
            self._enter(source, path, path if at is None else name, at)
        return True

    def _list(self, folder: _Folder, keys: list[str], stretch: Stretch) -> None:
        """Look at files of a folder."""
        at = folder.descriptor if folder.descriptor >= 0 else None
        prefix, stat = folder.source, os.stat
        sources = [prefix + key for key in keys]
        if not self._site.wants_all:
            indices = [n for n, source in enumerate(sources) if self._site.wants(source)]
            sources, keys = [sources[n] for n in indices], [keys[n] for n in indices]
        names = [folder.names.get(key, key) for key in keys] if folder.names else keys
        if at is None:
            names = [f"{folder.path}/{name}" for name in names]
        try:
            status = [stat(name, dir_fd=at, follow_symlinks=False) for name in names]
        except OSError:  # of some file: one by one
            sources, status = self._look_at_each(sources, names, at)
        if not status:
            return
        mtimes_ns = [one.st_mtime_ns for one in status]
        if not -LATEST_NS <= min(mtimes_ns) <= max(mtimes_ns) <= LATEST_NS:
            mtimes_ns = [time_of_change(one) for one in status]
        stretch.sources += sources
        stretch.sizes += [one.st_size for one in status]
        stretch.mtimes_ns += mtimes_ns

    def _look_at_each(
        self, sources: list[str], names: list[str], at: int | None
    ) -> tuple[list[str], list[os.stat_result]]:
        present, results = [], []
        for source, name in zip(sources, names, strict=True):
            try:
                status = os.stat(name, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone since the folder was listed
            except OSError as error:
                self._report.unreadable[source] = error.strerror or str(error)
                continue
            present.append(source)
            results.append(status)
        return present, results

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
            entries = self._entries(descriptor)
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
        self._open.append(_Folder(source, path, descriptor, identity, *entries))

    def _entries(self, descriptor: int) -> tuple[list[str], list[str], dict[str, str]]:
        """Return the sorted names of files and folders, and the system's own of those written otherwise."""
        files: list[str] = []
        folders: list[str] = []
        with os.scandir(descriptor) as entries:
            while part := list(islice(entries, _STRETCH)):
                names = [entry.name for entry in part if entry.is_file(follow_symlinks=False)]
                files += names
                if len(names) < len(part):
                    others = [entry for entry in part if not entry.is_file(follow_symlinks=False)]
                    inner = [f"{entry.name}/" for entry in others if entry.is_dir(follow_symlinks=False)]
                    folders += inner
                    self._report.skipped += len(others) - len(inner)
        files.sort()
        start, end = bisect_left(files, "."), bisect_left(files, "/")
        if start < end:
            files[start:end] = [name for name in files[start:end] if not is_passed_over(name)]
            self._report.skipped += end - start - (bisect_left(files, "/") - start)
        renamed: dict[str, str] = {}
        together = "".join(chain(files, (key[:-1] for key in folders)))
        if not together.isprintable() or "%" in together:  # else nothing is to be written otherwise
            renamed = {encode_path(os.fsencode(key)): key.removesuffix("/") for key in (*files, *folders)}
            files, folders = ([encode_path(os.fsencode(key)) for key in keys] for keys in (files, folders))
            files.sort()
        folders.sort()
        return files, folders, renamed

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
