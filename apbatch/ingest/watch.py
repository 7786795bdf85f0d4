"""Changes at a site reach the catalogue by themselves: at once where the system tells, by listings anyhow."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from asyncinotify import Inotify, Mask, Watch

from apbatch.errors import NotFoundError, UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.index.leases import Keeper, LeaseHeldError, LeaseLostError, leased
from apbatch.ingest.patterns import encode_path
from apbatch.ingest.remote.feed import PERIOD_S, follower_of
from apbatch.ingest.scan import THREADS, SiteIngest, declare, lease_name
from apbatch.ingest.site import Site
from apbatch.ingest.sites import check_root, publish_site
from apbatch.progress import say

#: A whole listing is made this often, seconds, unless the caller says otherwise.
EVERY_S = 600.0
#: Changes are gathered until nothing came for so long, but not longer than that, seconds.
_QUIET_S, _GATHERED_S = 0.3, 2.0
#: More changed files than this at once are left to a whole listing.
_MANY = 10_000
_WAIT_S = 1.0
#: Who waits for another process's lease tries so often, seconds.
_LEASE_S = 2.0
_MASK = (
    Mask.CREATE | Mask.CLOSE_WRITE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.DELETE | Mask.ATTRIB
    | Mask.ONLYDIR | Mask.DONT_FOLLOW | Mask.EXCL_UNLINK
)  # fmt: skip
#: File systems on other machines, whose changes the system does not tell of.
_REMOTE = {"nfs", "nfs4", "afs", "cifs", "smb3", "lustre", "ceph", "beegfs", "gpfs", "fuse.sshfs", "9p"}


@dataclass
class Changed:
    """What the system told of.

    Attributes
    ----------
    files, folders : set of str
        Sources of files to be looked at, of folders to be listed with all in them.
    lost : bool
        Whether changes were lost or too many came: only a whole listing helps.
    """

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    lost: bool = False

    def __bool__(self) -> bool:
        return self.lost or bool(self.files) or bool(self.folders)


class FolderEvents:
    """The system's news of a site's folders (inotify); to be closed."""

    def __init__(self, site: Site) -> None:
        self._site, self._root = site, Path(site.root)
        self._inotify = Inotify(cache_size=200, sync_timeout=0)
        self._watches: dict[Path, Watch] = {}
        self.unwatched = 0
        self.add(self._root)

    @property
    def folders(self) -> int:
        """How many folders are watched."""
        return len(self._watches)

    def add(self, folder: Path) -> None:
        """Watch a folder and all below it, each before its own folders are looked for, so that none is missed."""
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            inside = encode_path(os.fsencode(folder.relative_to(self._root)))
            if inside != "." and self._site.avoids(inside):
                continue
            try:
                self._watches[folder] = self._inotify.add_watch(folder, _MASK)
            except OSError as error:
                self.unwatched += error.errno == errno.ENOSPC
                continue
            with suppress(OSError), os.scandir(folder) as entries:
                waiting += [folder / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def _drop(self, folder: Path) -> None:
        """Stop watching a folder that went elsewhere, with all below it: it would be told under its old name."""
        for path in [path for path in self._watches if path == folder or folder in path.parents]:
            with suppress(OSError):
                self._inotify.rm_watch(self._watches.pop(path))

    def pending(self) -> bool:
        """Tell whether there is news."""
        return bool(select.select([self._inotify.fd], [], [], 0)[0])

    def wait(self, timeout_s: float) -> bool:
        """Wait for news; tell whether there is any."""
        return bool(select.select([self._inotify.fd], [], [], timeout_s)[0])

    def gather(self) -> Changed:
        """Return what changed, after a moment of quiet."""
        changed = Changed()
        until = time.monotonic() + _GATHERED_S
        while self.wait(_QUIET_S) and time.monotonic() < until:
            while self.pending() and not changed.lost:
                event = self._inotify.sync_get()
                if event is None:
                    break
                if Mask.Q_OVERFLOW in event.mask or len(changed.files) + len(changed.folders) > _MANY:
                    changed.lost = True
                elif event.path is not None and event.name is not None:
                    self._note(event.path, event.mask, changed)
            if changed.lost:
                break
        return changed

    def _note(self, path: Path, mask: Mask, changed: Changed) -> None:
        source = encode_path(os.fsencode(path.relative_to(self._root)))
        if Mask.ISDIR not in mask:
            changed.files.add(source)
        elif mask & (Mask.CREATE | Mask.MOVED_TO):
            self.add(path)
            changed.folders.add(source)
        elif mask & (Mask.DELETE | Mask.MOVED_FROM):
            self._drop(path)
            changed.folders.add(source)

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()


def watch(
    site: Site,
    catalogue: Catalogue,
    stop: threading.Event,
    *,
    every_s: float = EVERY_S,
    threads: int = THREADS,
    list_only: bool = False,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Keep the catalogue at what a site holds, until told to stop; while another process ingests the site, wait.

    Parameters
    ----------
    site : Site
    catalogue : Catalogue
        Used by the calling thread alone.
    stop : threading.Event
    every_s : float
        A whole listing is made this often: the system's news is an addition, since file systems on other machines send
        none and the system may lose some. Of a site that is elsewhere the agent tells all.
    threads : int
        How many files are read at the same time.
    list_only : bool
        List names, sizes and times, read nothing.
    after : callable
        Called after each time that something was done.

    Raises
    ------
    NotFoundError, UsageError
        If the root can't be listed at the beginning; later such a site is waited for.
    """
    check_root(site)
    holder = ""
    while not stop.is_set():
        try:
            with leased(catalogue, lease_name(site.name)) as keeper:
                holder = ""
                _watch(site, catalogue, stop, keeper, every_s, threads, list_only, after)
                return
        except LeaseHeldError as error:
            if error.lease.holder != holder:
                say(f"{site.name}: {error.what}; waiting for its end")
            holder = error.lease.holder
        except LeaseLostError as error:
            say(f"{site.name}: {error.what}")
        stop.wait(_LEASE_S)


def _watch(
    site: Site,
    catalogue: Catalogue,
    stop: threading.Event,
    keeper: Keeper,
    every_s: float,
    threads: int,
    list_only: bool,
    after: Callable[[], None],
) -> None:
    """Watch under a lease, until told to stop or the lease is lost."""
    if site.is_remote:
        publish_site(catalogue, site)
        say(f"following {site.name}: its agent at {site.root} is asked every {PERIOD_S:g} s")
        follower_of(site, catalogue, keeper.keep).follow(stop, after)
        return
    declare(site, catalogue)
    events = FolderEvents(site)
    say(f"watching {site.name}: {_how(site, events)}; a whole listing every {every_s:g} s")
    try:
        due = time.monotonic()
        changed = Changed()
        while not stop.is_set():
            work = SiteIngest(site, catalogue, keeper, threads)
            whole = changed.lost or time.monotonic() >= due
            if whole:
                try:
                    work.list_all()
                except (LeaseHeldError, LeaseLostError):
                    raise
                except (NotFoundError, UsageError) as error:
                    say(f"{site.name}: {error}")
                due = time.monotonic() + every_s  # from its end: reading gets its turn, however long it took
            elif changed:
                work.list_some(changed.folders, changed.files)
            if not list_only:
                work.complete(retry=whole, stop=partial(_is_called, stop, events, due))
            done = work.finish()
            if done.listed or done.registered or done.changed or done.missing or done.archived:
                say(
                    f"{site.name}: {done.listed} listed, {done.registered} registered, {done.changed} changed, "
                    f"{done.missing} missing, {done.archived} archived"
                )
            after()
            changed = Changed()
            while not stop.is_set() and time.monotonic() < due:
                keeper.keep()
                if events.wait(min(_WAIT_S, max(0.0, due - time.monotonic()))):
                    changed = events.gather()
                    break
    finally:
        events.close()


def _is_called(stop: threading.Event, events: FolderEvents, due: float) -> bool:
    """Tell whether something else is to be done than to read files."""
    return stop.is_set() or events.pending() or time.monotonic() > due


def _how(site: Site, events: FolderEvents) -> str:
    kind = _file_system(site.root)
    if kind in _REMOTE:
        return f"{kind} tells nothing of what other machines change"
    text = f"{events.folders} folders tell of changes at once"
    return f"{text}, {events.unwatched} do not (fs.inotify.max_user_watches)" if events.unwatched else text


def _file_system(root: str) -> str:
    """Return the kind of file system that a folder is on."""
    path, kind, longest = os.path.realpath(root), "", -1
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines():
            _, mount, name, *_ = line.split(" ")
            inside = path == mount or path.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) > longest:
                kind, longest = name, len(mount)
    return kind
