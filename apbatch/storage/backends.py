"""Which store a URL means."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from apbatch.config import absolute_path
from apbatch.errors import UsageError, nearest_word
from apbatch.storage.pool import StorePool
from apbatch.storage.store import ReadableStore, Store

#: Schemes of stores that can only be read, and of all.
READ_ONLY = ("http", "https")
SCHEMES = ("file", "afs", "hdfs", "webhdfs", *READ_ONLY)


def local_path(place: str) -> Path:
    """Return the path of a file or folder that the system can open, given as a path or as ``file:///PATH``.

    Raises
    ------
    UsageError
        For any other URL: taken as a path it would make a folder named ``hdfs:`` here.
    """
    scheme, separator, rest = place.partition("://")
    if not separator:
        return absolute_path(place, Path.cwd())
    if scheme != "file" or not rest.startswith("/"):
        raise UsageError("a path or a mount is wanted here", where=place, remedy="give PATH or file:///PATH")
    return absolute_path(rest, Path.cwd())


def split_url(url: str) -> tuple[str, str]:
    """Split a URL into the root of its file system (``file:///``, ``hdfs://host:port``) and the path below.

    Raises
    ------
    UsageError
        If it is no URL of a store.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise UsageError(
            f"'{url}' is no URL of a store", remedy="write file:///FOLDER, afs:///FOLDER or hdfs://HOST:PORT/FOLDER"
        )
    if scheme not in SCHEMES:
        raise UsageError(
            f"unknown kind of store '{scheme}'",
            where=url,
            nearest=nearest_word(scheme, SCHEMES),
            remedy=f"known are {', '.join(SCHEMES)}",
        )
    authority, _, path = rest.partition("/")
    if scheme in ("file", "afs"):
        if authority:
            raise UsageError(
                "a path needs three slashes and starts at the root", where=url, remedy=f"write {scheme}:///{rest}"
            )
        return f"{scheme}://", path
    if not authority:
        raise UsageError("the server's address is missing", where=url, remedy=f"write {scheme}://HOST:PORT/FOLDER")
    if scheme in READ_ONLY and ("@" in authority or "?" in url or "#" in url):
        raise UsageError("the URL of a store has no user, no query and no fragment in it", where=f"{scheme}://…")
    try:
        _ = urlsplit(f"{scheme}://{authority}").port
    except ValueError as error:
        raise UsageError(f"'{authority}' is no HOST:PORT", where=url) from error
    return f"{scheme}://{authority}", path


def open_store(url: str) -> Store:
    """Return the store at `url`: ``file:///…``, ``afs:///mount/…``, ``hdfs://host:port/…``, ``webhdfs://host:port/…``.

    Raises
    ------
    UsageError
        If the scheme is unknown, or files there can only be read.
    MissingSoftwareError
        If the client library of that scheme is not installed.
    """
    # `file://` alone is what `split_url` makes of the root folder.
    root, path = (url, "") if url in ("file://", "afs://") else split_url(url)
    if root == "file://":
        from apbatch.storage.local import LocalStore

        return LocalStore(f"{root}/{path}" if path else root, Path("/") / path)
    if root == "afs://":
        from apbatch.storage.afs import AfsStore

        return AfsStore(f"{root}/{path}" if path else root, Path("/") / path)
    if root.startswith("http"):
        raise UsageError("files there can only be read", where=url, remedy="write to a path, afs:// or hdfs://")
    if root.startswith("hdfs:"):
        from apbatch.storage.hadoop.hdfs import HdfsStore

        return HdfsStore(f"{root}/{path}")
    from apbatch.storage.hadoop.webhdfs import WebHdfsStore

    return WebHdfsStore(f"{root}/{path}")


def open_readable(url: str) -> ReadableStore:
    """Return the store at `url`, for reading: one that `open_store` knows, or ``http://…``, ``https://…``.

    Raises
    ------
    UsageError
        If the scheme is unknown.
    MissingSoftwareError
        If the client library of that scheme is not installed.
    """
    if url.startswith(tuple(f"{scheme}://" for scheme in READ_ONLY)):
        split_url(url)
        from apbatch.storage.http import HttpStore

        return HttpStore(url)
    return open_store(url)


#: Stores that this process reads from, each opened once.
_pool = StorePool(open_readable)


def store_of(url: str) -> tuple[ReadableStore, str]:
    """Return the store that holds the file at a full URL, and the file's path in it; stores are opened once.

    Raises
    ------
    UsageError, MissingSoftwareError
    """
    store = _pool.at(split_url(url)[0])
    return store, store.path_of(url)


def open_url(url: str) -> BinaryIO:
    """Open the file at a full URL (of a replica, or of a file in place) for reading, seekable.

    Raises
    ------
    UsageError, NotFoundError, ServerError
    """
    store, path = store_of(url)
    return store.open(path)
