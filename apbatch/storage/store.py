"""The one interface to every place where bytes are kept.

fsspec gives reading, listing and renaming; what it lacks is here: a write that is hashed on the way, verified
after close and only then visible under its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, ClassVar


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a store knows of one file or folder."""

    path: str
    size: int
    is_directory: bool
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Checksums:
    """Checksums of a byte stream.

    Attributes
    ----------
    blake3 : str
        Hexadecimal BLAKE3 digest, the project's identity of content.
    adler32 : str
        Eight hexadecimal digits, as grid storage has them.
    size : int
        Bytes.
    """

    blake3: str
    adler32: str
    size: int


class Publication(ABC):
    """A file being written beside its final name; leaving the context publishes it, an exception discards it."""

    #: Known after the context was left without exception.
    checksums: Checksums

    @abstractmethod
    def write(self, block: bytes | memoryview) -> None:
        """Append `block` and hash it."""


class Store(ABC):
    """A place for files under a root URL; paths are relative to the root, ``/``-separated."""

    #: What the catalogue calls a replica here: ``local``, ``hdfs``, ``webhdfs``, ``afs``.
    kind: ClassVar[str]

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def url_of(self, path: str) -> str:
        """Return the full URL of `path`."""
        return f"{self.url}/{path.lstrip('/')}"

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open a file for reading, seekable.

        Raises
        ------
        NotFoundError, ServerError
        """

    @abstractmethod
    def info(self, path: str) -> FileInfo | None:
        """Return what is known of `path`, or None if nothing is there."""

    @abstractmethod
    def entries(self, path: str = "") -> Iterator[FileInfo]:
        """Yield the entries of a folder, names sorted."""

    @abstractmethod
    def publish(self, path: str) -> AbstractContextManager[Publication]:
        """Write a file so that it appears whole and verified, or not at all; replaces an older file.

        Raises
        ------
        VerificationError
            If what was read back after close is not what was written.
        ServerError
        """

    @abstractmethod
    def checksums(self, path: str) -> Checksums:
        """Read a file through and return its checksums."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing there is no error."""

    def block_hosts(self, path: str) -> list[list[str]]:
        """Return the hosts of each block of a file, for locality; empty where the store has no blocks."""
        return []


def open_store(url: str) -> Store:
    """Return the store at `url`: ``file:///…``, ``afs:///mount/…``, ``hdfs://host:port/…``, ``webhdfs://host:port/…``.

    Raises
    ------
    UsageError
        If the scheme is unknown.
    MissingSoftwareError
        If the client library of that scheme is not installed.
    """
    from apbatch.storage.backends import backend_for  # the back-ends import this module

    return backend_for(url)
