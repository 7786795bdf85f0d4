"""The interface to every place where bytes are kept: `ReadableStore` where they can be read, `Store` where written too.

Reading, listing and renaming are what the back-ends' clients give. What they lack is here: a write that is hashed on
the way, verified after close and only then visible under its name.
"""

from __future__ import annotations

import io
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from apbatch.errors import ServerError, UsageError


class RefusedError(ServerError):
    """The server answered, and its answer is no (permission, quota, space): trying again at once is of no use."""


class StoreRefusedError(RefusedError):
    """The refusal concerns every file of the store (safe mode, quota or permission of its root): stop at once."""


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
    #: Set by the writer if what was written is wrong: then nobody goes on with it.
    spoiled = False

    @abstractmethod
    def write(self, block: bytes | memoryview, *, stays: bool = False) -> None:
        """Append `block` and hash it.

        Parameters
        ----------
        block : bytes or memoryview
        stays : bool
            Whether the block stays as it is until the next call here: then it may be hashed while the next is read.
        """

    @abstractmethod
    def so_far(self) -> Checksums:
        """Return the checksums of what was written until now, to be compared before the context is left.

        Of a file that was taken up they are not those of nothing at the beginning: its size says where to go on.
        """


class Ranges(ABC):
    """One open file, read by ranges; several threads may read it at the same time.

    Attributes
    ----------
    size : int
        Bytes of the file when it was opened.
    timed : bool
        Whether every `read` ends within a limit of its own, whatever the server does.
    """

    size: int
    timed: ClassVar[bool] = False

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, cut at the end of the file and nowhere else.

        Raises
        ------
        NotFoundError
            If the file went meanwhile.
        ServerError
            If the range can't be had whole.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what is open."""

    def __enter__(self) -> Ranges:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class StreamRanges(Ranges):
    """Ranges of a seekable stream; one thread reads at a time."""

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self._stream, self._where, self._turn = stream, where, threading.Lock()
        self.size = stream.seek(0, io.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, cut at the end of the file.

        Raises
        ------
        ServerError
        """
        count = max(0, min(length, self.size - offset))
        with self._turn:
            self._stream.seek(offset)
            data = self._stream.read(count)
        if len(data) != count:
            raise ServerError(f"the file ends at byte {offset + len(data)} of {self.size}", where=self._where)
        return data

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class ReadableStore(ABC):
    """A place whose files can be read, under a root URL; paths are relative to the root, ``/``-separated."""

    #: What the catalogue calls a replica here: ``local``, ``hdfs``, ``webhdfs``, ``afs``, ``http``.
    kind: ClassVar[str]

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def url_of(self, path: str) -> str:
        """Return the full URL of `path`, as Spark and Hadoop take it: nothing in it is percent-quoted for the web."""
        return f"{self.url}/{path.lstrip('/')}"

    def path_of(self, url: str) -> str:
        """Return the path below the root of a URL that `url_of` made.

        Raises
        ------
        UsageError
            If the URL is not in this store.
        """
        if not url.startswith(f"{self.url}/"):
            raise UsageError(f"not in the store {self.url}", where=url)
        return url[len(self.url) + 1 :]

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
    def checksums(self, path: str) -> Checksums:
        """Read a file through and return its checksums."""

    def ranges(self, path: str) -> Ranges:
        """Open a file that is read by ranges.

        Raises
        ------
        NotFoundError, ServerError
        """
        return StreamRanges(self.open(path), self.url_of(path))


class Store(ReadableStore):
    """A place whose files can be read and written."""

    def resolved(self, path: str) -> str:
        """Return what identifies a file or folder behind links: equal for all its names in this kind of store."""
        return self.url_of(path)

    @abstractmethod
    def publish(self, path: str, content: str = "", settled: bool = True) -> AbstractContextManager[Publication]:
        """Write a file so that it appears whole and verified, or not at all; replaces an older file.

        Parameters
        ----------
        path : str
        content : str
            BLAKE3 that the file will have. What an earlier writer of the same left is then taken up where the store
            can append: it is read and hashed first, so that the checksums are those of the whole file as ever. The
            writer compares them.
        settled : bool
            Whether the name must outlast a power cut when this ends; who writes many files may `settle` them together.

        Raises
        ------
        VerificationError
            If what was read back after close is not what was written.
        ServerError
        """

    def settle(self, paths: Iterable[str]) -> None:
        """Have the names of published files outlast a power cut; nothing to do where a server keeps them.

        Raises
        ------
        ServerError
        """

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing there is no error."""

    @abstractmethod
    def rename(self, path: str, to: str) -> None:
        """Give a file, or a folder with all in it, another name in the same folder, in one step.

        An older file of that name is replaced; a folder there is an error.
        """

    def block_hosts(self, path: str) -> list[list[str]]:
        """Return the hosts of each block of a file, for locality; empty where the store has no blocks."""
        return []
