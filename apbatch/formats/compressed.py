"""Compressed files as streams: gzip, zstandard and bzip2, in bounded memory, whatever the file holds.

What is cut or corrupt ends the content early and is described by `Decompressed.fault`. All that can be decompressed
before the fault is delivered: where only the checksum at the end is wrong, the whole content.
"""

from __future__ import annotations

import bz2
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Protocol

from apbatch.errors import MissingSoftwareError
from apbatch.formats.text.lines import Line, Problems, lines_of

_SUFFIXES = (".gz", ".zst", ".zstd", ".bz2")
_GZIP, _ZSTD, _BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh"
_BLOCK = 1 << 18
#: First bytes of a content by which its format is told.
_HEAD = 4096
#: Nothing that an instrument wrote shrinks so much; what expands more than this is made to fill a memory or a disk.
MOST_EXPANSION = 400
#: So much may expand at any rate: a short file of nothing is no attack.
_FREE = 64 << 20
#: Largest window of a zstandard frame: more would be memory that the file asks for.
_ZSTD_WINDOW = 128 << 20
#: Bytes of a zstandard frame that are given at once: a block of 128 kB may take four, so this much makes 64 MB at most.
_ZSTD_PIECE = 2048
#: Sizes of the pieces in which data are given again to find all that comes before a fault.
_APPROACHES = (1024, 1)
_SMALL = 64


class _Machine(Protocol):
    """One member (gzip, bzip2) or frame (zstandard), with the interface of `bz2.BZ2Decompressor`."""

    @property
    def needs_input(self) -> bool: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Decompressed(io.RawIOBase):
    """The content of a compressed stream, which is read once from start to end.

    Attributes
    ----------
    fault : str, optional
        Why the content ended before its end.
    compressed_bytes : int
        Read so far: about where the fault is.
    """

    def __init__(self, stream: BinaryIO, kind: str) -> None:
        self._stream, self._kind = stream, kind
        self._piece = _ZSTD_PIECE if kind == "zstandard" else _BLOCK
        self._machine: _Machine | None = None
        #: Where the member began, in compressed bytes, and how much of its content was delivered.
        self._start = self._delivered = 0
        self._pending = self._salvaged = b""
        self._error: str | None = None
        self.fault: str | None = None
        self.compressed_bytes = self.expanded_bytes = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def note_fault(self, problems: Problems) -> None:
        """Add a problem if the content ended before its end; call it when all was read."""
        if self.fault is not None:
            problems.add(self.compressed_bytes, f"{self.fault}; what came before it is read")

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as one step of decompression goes."""
        view = memoryview(buffer).cast("B")
        while self.fault is None:
            if self._salvaged:
                content, self._salvaged = self._salvaged[: len(view)], self._salvaged[len(view) :]
            elif self._error is not None:
                self.fault = self._error
                break
            elif self._at_end():
                break
            else:
                content = self._step(len(view))
            self.expanded_bytes += len(content)
            if self.expanded_bytes > max(_FREE, MOST_EXPANSION * self.compressed_bytes):
                self.fault = f"the {self._kind} data expand more than {MOST_EXPANSION} times"
            elif content:
                view[: len(content)] = content
                return len(content)
        return 0

    def _at_end(self) -> bool:
        """Read what comes next, if that is wanted; tell whether the content ends here, properly or not."""
        if self._pending or (self._machine is not None and not self._machine.needs_input):
            return False
        self._pending = self._stream.read(_BLOCK)
        self.compressed_bytes += len(self._pending)
        if not self._pending and self._machine is not None:
            self.fault = f"the {self._kind} data end early"
        return not self._pending

    def _step(self, most: int) -> bytes:
        if self._machine is None:
            if self.expanded_bytes > 0 and not self._pending.strip(b"\0"):
                self._pending = b""  # tapes and some writers fill up blocks with zeros
                return b""
            self._machine = _machine(self._kind)
            self._start, self._delivered = self.compressed_bytes - len(self._pending), 0
        part = b""
        if self._machine.needs_input:
            part, self._pending = self._pending[: self._piece], self._pending[self._piece :]
        try:
            content = self._machine.decompress(part, most)
        except Exception as error:  # each library has errors of its own
            self._error = f"the {self._kind} data are corrupt: {str(error)[:100]}"
            self._salvage()
            return b""
        self._delivered += len(content)
        if self._machine.eof:
            self._pending, self._machine = self._machine.unused_data + self._pending, None  # the next member or frame
        return content

    def _salvage(self) -> None:
        """Find what the step that failed would have delivered before the fault.

        The libraries drop it. So the member is decompressed again, in ever smaller pieces where it fails.
        """
        if not self._stream.seekable():
            return
        here, salvaged, good = self._stream.tell(), bytearray(), 0
        for size in _APPROACHES:
            machine, length, position = _machine(self._kind), 0, 0
            self._stream.seek(here - self.compressed_bytes + self._start)
            try:
                while not machine.eof:
                    step = min(self._piece, good - position) if position < good else size
                    piece = self._stream.read(step)
                    if not piece:
                        break
                    while True:
                        content = machine.decompress(piece, _SMALL if size == 1 and position >= good else _BLOCK)
                        new = length + len(content) - self._delivered - len(salvaged)
                        salvaged += content[-new:] if new > 0 else b""
                        length, piece, position = length + len(content), b"", position + len(piece)
                        if machine.eof or machine.needs_input:
                            break
                    good = max(good, position)
            except Exception:
                pass
        self._stream.seek(here)
        self._salvaged = bytes(salvaged)


class _Gzip:
    """A gzip member."""

    def __init__(self) -> None:
        self._machine = zlib.decompressobj(wbits=31)
        self._full = False

    def decompress(self, data: bytes, most: int) -> bytes:
        """Give `data` to the member and take up to `most` bytes from it."""
        content = self._machine.decompress(self._machine.unconsumed_tail + data, most)
        self._full = len(content) == most  # there may be more, though all of the input is taken
        return content

    @property
    def needs_input(self) -> bool:
        """Whether all that was given has been used up."""
        return not self._full and not self._machine.unconsumed_tail and not self._machine.eof

    @property
    def eof(self) -> bool:
        """Whether the member is complete and taken."""
        return self._machine.eof

    @property
    def unused_data(self) -> bytes:
        """What follows the member."""
        return self._machine.unused_data


class _Zstd:
    """A zstandard frame: output in bounded pieces."""

    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise MissingSoftwareError(
                "zstandard files need the package zstandard", remedy="pip install 'apbatch[images]'"
            ) from error
        self._machine = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        self._output = memoryview(b"")

    def decompress(self, data: bytes, most: int) -> bytes:
        """Give `data` to the frame, which must have used up what it had, and take up to `most` bytes from it."""
        if data:
            self._output = memoryview(self._machine.decompress(data))
        content, self._output = self._output[:most], self._output[most:]
        return bytes(content)

    @property
    def needs_input(self) -> bool:
        """Whether all that was given has been used up."""
        return not self._output

    @property
    def eof(self) -> bool:
        """Whether the frame is complete and taken."""
        return bool(self._machine.eof) and not self._output

    @property
    def unused_data(self) -> bytes:
        """What follows the frame."""
        return bytes(self._machine.unused_data)


def _machine(kind: str) -> _Machine:
    if kind == "gzip":
        return _Gzip()
    return bz2.BZ2Decompressor() if kind == "bzip2" else _Zstd()


def kind_of(head: bytes) -> str | None:
    """Return how a file is compressed by its first bytes; None if it is not."""
    kinds = ((_GZIP, "gzip"), (_ZSTD, "zstandard"), (_BZIP2, "bzip2"))
    return next((kind for magic, kind in kinds if head.startswith(magic)), None)


def plain_name(name: str) -> str:
    """Return the name of a file in lower case, without its folders and without what says that it is compressed.

    Parameters
    ----------
    name : str
        Name or path of the file.
    """
    path = PurePosixPath(name.lower())
    return path.stem if path.suffix in _SUFFIXES else path.name


def plain_head(head: bytes, size: int = _HEAD) -> bytes:
    """Return the first bytes of the content of a file, of which the first bytes are given, compressed or not."""
    kind = kind_of(head)
    if kind is None:
        return head[:size]
    try:
        return io.BufferedReader(Decompressed(io.BytesIO(head), kind), size).read(size)
    except MissingSoftwareError:
        return b""


def may_fit(head: bytes, fits: Callable[[bytes], bool]) -> bool:
    """Tell from the first bytes of a file, compressed or not, whether its content may be what `fits` knows.

    Parameters
    ----------
    head : bytes
        First bytes of the file. Where they hold too little of a compressed content (a block of zstandard or bzip2 is
        larger), the answer is yes, and `content_fits` decides.
    fits : callable
        Tells it from the first bytes of the content.
    """
    content = plain_head(head, _HEAD)
    if kind_of(head) is not None and len(content) < _HEAD <= len(head):
        return True
    return fits(content)


def content_fits(stream: BinaryIO, fits: Callable[[bytes], bool]) -> bool:
    """Tell whether the content of a file, compressed or not, is what `fits` knows by its first bytes.

    Parameters
    ----------
    stream : BinaryIO
        At its start.
    fits : callable
        Tells it from the first bytes of the content.
    """
    try:
        return fits(plain(stream)[0].read(_HEAD))
    except MissingSoftwareError:
        return False


def plain(stream: BinaryIO) -> tuple[BinaryIO, Decompressed | None]:
    """Return the content of a stream that may be compressed, and, if it is, the decompression, which knows its fault.

    Parameters
    ----------
    stream : BinaryIO
        At its start; needs only `read`.
    """
    head = stream.read(4)
    kind = kind_of(head)
    if stream.seekable():
        stream.seek(-len(head), io.SEEK_CUR)
        whole = stream
    else:
        whole = io.BufferedReader(_Chained(head, stream), _BLOCK)
    if kind is None:
        return whole, None
    machine = Decompressed(whole, kind)
    return io.BufferedReader(machine, _BLOCK), machine


def plain_lines(stream: BinaryIO, problems: Problems, *, whole: bool = False) -> Iterator[Line]:
    """Yield the lines of a text that may be compressed; see `apbatch.formats.text.lines.lines_of`.

    Parameters
    ----------
    stream : BinaryIO
        At its start; needs only `read`.
    problems : Problems
        Takes lines that were passed over, and why compressed data ended early.
    whole : bool
        Pass over a last line without its end.
    """
    content, decompression = plain(stream)
    yield from lines_of(content, problems, whole=whole)
    if decompression is not None:
        decompression.note_fault(problems)


class _Chained(io.RawIOBase):
    """A stream of which the first bytes were read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self._head[: len(view)] if self._head else self._rest.read(len(view))
        self._head = self._head[len(view) :]
        view[: len(content)] = content
        return len(content)
