"""Files in place at their sites: opened for reading only, never through a link."""

from __future__ import annotations

import io
import os
import stat
from typing import BinaryIO, cast
from urllib.parse import quote

from apbatch.errors import ApbatchError, NotFoundError, UsageError
from apbatch.index.contents import BLOCK
from apbatch.index.files import FileRecord
from apbatch.ingest.remote.client import AgentRanges, agent_at
from apbatch.ingest.site import Site
from apbatch.ingest.sites import load_site
from apbatch.storage.range_stream import RangeStream
from apbatch.storage.tokens import show_below


def site_of(record: FileRecord) -> Site:
    """Return the site that holds a file.

    Raises
    ------
    NotFoundError
        If it is not known here.
    """
    return load_site(record.site)


def source_url(record: FileRecord) -> str:
    """Return the URL of a file in place at its site; requests for one at an agent carry this process's token.

    Raises
    ------
    NotFoundError
    """
    site = site_of(record)
    if site.is_remote:
        show_below(site.root)
        return f"{site.root}/f{quote(record.place)}"
    return site.url_of(record.source)


def open_source(record: FileRecord, site: Site | None = None) -> BinaryIO:
    """Open a file in place at its site, for reading only; from an agent its blocks are fetched as they are read.

    Parameters
    ----------
    record : FileRecord
    site : Site, optional
        Its site, where that is not known by name here.

    Raises
    ------
    NotFoundError
        If the site or the file is gone.
    UsageError
        If it is no plain file, or outside of the root, or must not be read.
    """
    site = site or site_of(record)
    if site.is_remote:
        return cast(BinaryIO, io.BufferedReader(RangeStream(AgentRanges(agent_at(site.root), record)), BLOCK))
    path = site.local_path(record.source)
    try:
        return os.fdopen(open_plain(path, os.fsencode(site.root)), "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            "the file is gone", where=os.fsdecode(path), remedy=f"apbatch ingest {site.name} notes what changed"
        ) from error
    except OSError as error:
        raise UsageError(f"can't be read: {error.strerror}", where=os.fsdecode(path)) from error


def ingest_remedy(record: FileRecord) -> str:
    """Return the command that registers a file as it is now.

    An ingest reads only files whose size or time of change differ; content that changed under both needs ``--again``.
    """
    try:
        status = os.lstat(site_of(record).local_path(record.source))
        unnoticed = (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)
    except (ApbatchError, OSError):
        unnoticed = False
    return f"apbatch ingest {record.site}{' --again' if unnoticed else ''} registers what is there now"


def open_plain(path: bytes, root: bytes) -> int:
    """Open a plain file read-only, leaving its access time alone where possible; return the descriptor.

    No component below the root may be a link, so that nothing outside is ever read; what is no plain file is never
    waited for.

    Raises
    ------
    OSError
    """
    parent = os.path.dirname(path)  # noqa: PTH120  bytes
    folder = os.path.realpath(parent)
    # Where no component is a link, the root needs no look of its own.
    if (folder != parent or not _is_in(folder, root)) and not _is_in(folder, os.path.realpath(root)):
        raise PermissionError(1, "it is outside of the site's root")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # only the owner may leave the access time alone
        descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PermissionError(1, "it is not a plain file")
    return descriptor


def _is_in(folder: bytes, root: bytes) -> bool:
    return folder == root or folder.startswith(root.rstrip(b"/") + b"/")
