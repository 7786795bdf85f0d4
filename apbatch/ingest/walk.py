"""The files of a site, found without changing anything: links are not followed, devices and pipes never opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from apbatch.errors import NotFoundError
from apbatch.ingest.patterns import encode_path
from apbatch.ingest.sites import Site
from apbatch.storage.names import is_part

#: What macOS writes beside a file on other systems' disks: its attributes, under the file's own extension.
_APPLE_DOUBLE = b"._"


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
        """Tell whether a file lies in a folder that could not be listed."""
        return any(folder == "" or source.startswith(folder + "/") for folder in self.unreadable)


def _is_none_of_the_site(name: bytes) -> bool:
    return name.startswith(_APPLE_DOUBLE) or is_part(os.fsdecode(name))


def walk(site: Site, report: WalkReport) -> Iterator[Entry]:
    """Yield the plain files of a site that its patterns want, folder by folder, names sorted.

    Raises
    ------
    NotFoundError
        If the root vanishes.
    """
    root = os.fsencode(site.root)
    todo: list[bytes] = [b""]
    seen: set[tuple[int, int]] = set()  # a folder can be mounted again within itself
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:  # noqa: PTH118  bytes: names need not be UTF-8
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise NotFoundError(f"the root can't be listed: {error.strerror}", where=site.root) from error
            report.unreadable[encode_path(folder)] = error.strerror or str(error)
            continue
        folders: list[bytes] = []
        for entry in found:
            relative = os.path.join(folder, entry.name) if folder else entry.name  # noqa: PTH118
            source = encode_path(relative)
            try:
                if entry.is_symlink():
                    report.skipped += 1
                elif entry.is_dir(follow_symlinks=False):
                    if site.avoids(source):
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if (status.st_dev, status.st_ino) not in seen:
                        seen.add((status.st_dev, status.st_ino))
                        folders.append(relative)
                elif (
                    not entry.is_file(follow_symlinks=False)
                    or is_part(os.fsdecode(entry.name))
                    or entry.name.startswith(_APPLE_DOUBLE)
                ):
                    report.skipped += 1
                elif site.wants(source):
                    status = entry.stat(follow_symlinks=False)
                    yield Entry(source, entry.path, status.st_size, time_of_change(status))
            except FileNotFoundError:
                continue  # gone since the folder was listed
            except OSError as error:
                report.unreadable[source] = error.strerror or str(error)
        todo += reversed(folders)
