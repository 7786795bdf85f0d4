"""What one reading of a file tells: its format, all hashes of its content, and what its reader makes of it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from apbatch.errors import ApbatchError, FormatError
from apbatch.formats.compressed import kind_of, plain
from apbatch.formats.reader import Metadata, Reader, candidates, readers, recognise
from apbatch.formats.text.lines import Problem
from apbatch.index.contents import Content
from apbatch.ingest.opening import open_plain
from apbatch.ingest.reading.content_hashing import ContentHasher
from apbatch.ingest.walk import Entry, time_of_change
from apbatch.storage.hashing import READ_BYTES

#: Format of a file that nobody has read yet, and of a damaged one of which nobody can tell what it was.
UNKNOWN = "unknown"
#: Format of a file that no reader knows.
OTHER = "other"
_BUFFER = 1 << 20
#: Programs that undo a compression.
_UNPACK = {"gzip": "gunzip", "zstandard": "unzstd", "bzip2": "bunzip2"}


class FileChangedError(Exception):
    """The file changed while it was read."""


@dataclass(frozen=True, slots=True)
class Description:
    """What is in a file.

    Attributes
    ----------
    format : str
        Name of its format; `OTHER` for a file of no known one.
    content : Content
        All hashes of its content.
    metadata : Metadata, optional
        None if it can't be read.
    failure : ApbatchError, optional
        Why it can't be read.
    """

    format: str
    content: Content
    metadata: Metadata | None = None
    failure: ApbatchError | None = None


Describer = Callable[[Entry, bytes, "str | None"], Description]


class _HashedStream(io.RawIOBase):
    """A file that is hashed while it is read; what a reader left out is hashed at the end."""

    def __init__(self, file: io.FileIO) -> None:
        self._file, self._hasher, self._hashed = file, ContentHasher(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        start = self._file.tell()
        count = self._file.readinto(buffer) or 0
        if start <= self._hashed < start + count:
            self._hasher.update(memoryview(buffer)[self._hashed - start : count])
            self._hashed = start + count
        return count

    def content(self) -> Content:
        """Read what was left out, and return the hashes of the whole file."""
        self.seek(self._hashed)
        block = bytearray(READ_BYTES)
        while self.readinto(block):
            pass
        return self._hasher.result()

    def close(self) -> None:
        self._hasher.close()
        super().close()


def describe(entry: Entry, root: bytes, known_format: str | None, elsewhere: Describer | None = None) -> Description:
    """Read a file of a site once, and say what is in it.

    Parameters
    ----------
    entry : Entry
    root : bytes
        The site's.
    known_format : str, optional
        Format as which the file is registered: it must not silently turn into no known file.
    elsewhere : callable, optional
        Does the same for a file that is to be read in another process; by default all are read in this one.

    Raises
    ------
    FileChangedError
        If size or time of change are not those of `entry`, before or after.
    OSError
        If it can't be read.
    """
    with os.fdopen(open_plain(entry.path, root), "rb", buffering=0) as file:
        _check_unchanged(file, entry)
        head = os.pread(file.fileno(), max(reader.head_bytes for reader in readers().values()), 0)
        if elsewhere is not None and _is_isolated(entry.source, head, known_format):
            return elsewhere(entry, root, known_format)
        with closing(_HashedStream(file)) as stream:
            buffered = io.BufferedReader(stream, _BUFFER)  # it would close the stream when it goes
            format, metadata, failure = _read(buffered, entry.source, head, known_format)
            content = stream.content()
        _check_unchanged(file, entry)
        if content.size != entry.size:
            raise FileChangedError
    return Description(format, content, metadata, failure)


def content_of(entry: Entry, root: bytes) -> Content:
    """Return the hashes of a file, which no reader looks into.

    Raises
    ------
    FileChangedError
    OSError
    """
    with os.fdopen(open_plain(entry.path, root), "rb", buffering=0) as file:
        with closing(_HashedStream(file)) as stream:
            content = stream.content()
        _check_unchanged(file, entry)
    return content


def may_be_known(entry: Entry, root: bytes) -> bool:
    """Tell from a file's name and first bytes whether a reader may know it, or it is a damaged file of one.

    Raises
    ------
    OSError
        If it can't be read.
    """
    with os.fdopen(open_plain(entry.path, root), "rb", buffering=0) as file:
        head = os.pread(file.fileno(), max(reader.head_bytes for reader in readers().values()), 0)
    return bool(candidates(entry.source, head)) or kind_of(head) is not None


def _check_unchanged(file: io.FileIO, entry: Entry) -> None:
    status = os.fstat(file.fileno())
    if (status.st_size, time_of_change(status)) != (entry.size, entry.mtime_ns):
        raise FileChangedError


def _is_isolated(name: str, head: bytes, known_format: str | None) -> bool:
    previous = readers().get(known_format or "")
    possible = candidates(name, head) or ([previous] if previous is not None else [])
    return any(reader.isolated(head) for reader in possible)


def _read(
    stream: Any, name: str, head: bytes, known_format: str | None
) -> tuple[str, Metadata | None, ApbatchError | None]:
    """Return format, metadata, and what is wrong."""
    damage: FormatError | None = None
    notes: tuple[Problem, ...] = ()
    try:
        reader = recognise(name, head, stream)
        if reader is None:
            damage, notes = _look_into_compressed(stream, name, head)
    except FormatError as error:
        reader, damage = None, error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a plug-in must not end the ingest of all other files
        raise OSError(f"a reader failed to look at it: {type(error).__name__}: {error}") from error
    previous = readers().get(known_format or "")
    if reader is not None or previous is None:
        if reader is None:
            if known_format is not None:
                damage = FormatError(f"no reader of {known_format} is installed", where=name)
            return (
                (known_format or UNKNOWN, None, damage)
                if damage is not None
                else (OTHER, Metadata(problems=notes), None)
            )
        metadata, failure = _metadata(reader, stream, name)
        if metadata is not None and (others := _others_within(reader, stream, name, head)):
            left_out = Problem(0, f"it also holds what {' and '.join(others)} would read, which is left out")
            metadata = replace(metadata, problems=(left_out, *metadata.problems))
        return reader.name, metadata, failure
    stream.seek(0)
    metadata, failure = _metadata(previous, stream, name)
    if metadata is None:
        reason = damage or failure
        failure = FormatError(f"no longer recognised as {previous.name}: {reason}")
    return previous.name, metadata, failure


def _metadata(reader: Reader, stream: Any, name: str) -> tuple[Metadata | None, ApbatchError | None]:
    stream.seek(0)
    try:
        return reader.metadata(stream, name), None
    except ApbatchError as error:
        return None, error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # hostile content finds the holes of a plug-in; the rest must go on
        return None, FormatError(f"the reader failed: {type(error).__name__}: {error}", where=name)


def _others_within(reader: Reader, stream: Any, name: str, head: bytes) -> list[str]:
    """Return the other formats of a file that holds several, such as tables of two experiments in one of HDF5."""
    others = []
    for other in candidates(name, head) if reader.seeks else []:
        stream.seek(0)
        try:
            if other is not reader and other.confirm(stream, name):
                others.append(other.name)
        except (OSError, MemoryError):
            raise
        except Exception:  # the one that reads the file told what is damaged, and a plug-in must not end the ingest
            continue
    return others


def _look_into_compressed(stream: Any, name: str, head: bytes) -> tuple[FormatError | None, tuple[Problem, ...]]:
    """Return what is wrong with a compressed file whose first bytes can't be had, and what there is to say of another.

    A format whose files are read from anywhere, such as HDF5, can't be read compressed: that is said.
    """
    kind = kind_of(head)
    if kind is None:
        return None, ()
    stream.seek(0)
    content, decompression = plain(stream)
    start = content.read(max(reader.head_bytes for reader in readers().values()))
    if decompression is not None and decompression.fault is not None and not start.strip(b"\0"):
        what = f"a damaged {kind} file: {decompression.fault}"
        return FormatError(what, where=name, remedy="copy the file again"), ()
    formats = [reader.name for reader in candidates(name, start) if reader.seeks]
    if not formats or kind_of(start) is not None:
        return None, ()
    what = f"compressed by {kind}: a file of {' or '.join(formats)} is read only unpacked ({_UNPACK[kind]})"
    return None, (Problem(0, what),)
