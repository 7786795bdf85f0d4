"""Compressed files as streams: gzip, zstandard and bzip2, in bounded memory, whatever the file holds.

What is cut or corrupt ends the stream early and says so in `fault`: what was decompressed before it is still good.
"""

from __future__ import annotations

import bz2
import io
import zlib
from typing import Any, BinaryIO

from apbatch.errors import MissingSoftwareError

_GZIP, _ZSTD, _BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh"
_BLOCK = 1 << 18
#: Nothing that an instrument wrote shrinks so much; what expands more than this is made to fill a memory or a disk.
MOST_EXPANSION = 400
#: So much may expand at any rate: a short file of nothing is no attack.
_FREE = 64 << 20
#: Largest window of a zstandard frame: more would be memory that the file asks for.
_ZSTD_WINDOW = 128 << 20


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
        self._machine: Any = None
        self._pending = b""
        self.fault: str | None = None
        self.compressed_bytes = self.expanded_bytes = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as one step of decompression goes."""
        view = memoryview(buffer).cast("B")
        while self.fault is None:
            if not self._pending and not self._needs_no_input():
                self._pending = self._stream.read(_BLOCK)
                self.compressed_bytes += len(self._pending)
                if not self._pending:
                    if self._machine is not None:
                        self.fault = f"the {self._kind} data end early"
                    return 0
            try:
                content = self._step(len(view))
            except MissingSoftwareError:
                raise
            except Exception as error:  # each library has errors of its own
                self.fault = f"the {self._kind} data are corrupt: {str(error)[:100]}"
                return 0
            self.expanded_bytes += len(content)
            if self.expanded_bytes > max(_FREE, MOST_EXPANSION * self.compressed_bytes):
                self.fault = f"the {self._kind} data expand more than {MOST_EXPANSION} times"
                return 0
            if content:
                view[: len(content)] = content
                return len(content)
        return 0

    def _needs_no_input(self) -> bool:
        return self._machine is not None and not getattr(self._machine, "needs_input", True)

    def _step(self, most: int) -> bytes:
        if self._machine is None:
            if self._expects_padding():
                self._pending = b""
                return b""
            self._machine = _machine(self._kind)
        content: bytes = self._machine.decompress(self._pending, most)
        # zlib keeps input for us, bz2 and zstandard keep it themselves.
        self._pending = getattr(self._machine, "unconsumed_tail", b"")
        if self._machine.eof:
            self._pending = self._machine.unused_data  # the next member or frame
            self._machine = None
        return content

    def _expects_padding(self) -> bool:
        """Tell whether nothing but zeros follows a member: tapes and some writers fill up blocks."""
        return self.expanded_bytes > 0 and not self._pending.strip(b"\0")


class _Zstd:
    """A zstandard frame with the interface of bz2: output in bounded pieces."""

    #: A block of 128 kB may take four bytes, so this much input makes 64 MB at most.
    _PIECE = 2048

    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise MissingSoftwareError(
                "zstandard files need the package zstandard", remedy="pip install 'apbatch[images]'"
            ) from error
        self._machine = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        self._input = self._output = memoryview(b"")

    def decompress(self, data: bytes, most: int) -> bytes:
        """Give `data` to the frame and take up to `most` bytes from it."""
        if data:
            self._input = memoryview(data)
        while not self._output and self._input and not self._machine.eof:
            piece, self._input = self._input[: self._PIECE], self._input[self._PIECE :]
            self._output = memoryview(self._machine.decompress(piece))
        content, self._output = self._output[:most], self._output[most:]
        return bytes(content)

    @property
    def needs_input(self) -> bool:
        """Whether all that was given has been used up."""
        return not self._output and not self._input

    @property
    def eof(self) -> bool:
        """Whether the frame is complete and taken."""
        return bool(self._machine.eof) and not self._output

    @property
    def unused_data(self) -> bytes:
        """What follows the frame."""
        return bytes(self._machine.unused_data) + bytes(self._input)


def _machine(kind: str) -> Any:
    if kind == "gzip":
        return zlib.decompressobj(wbits=31)
    return bz2.BZ2Decompressor() if kind == "bzip2" else _Zstd()


def kind_of(head: bytes) -> str | None:
    """Return how a file is compressed by its first bytes; None if it is not."""
    kinds = ((_GZIP, "gzip"), (_ZSTD, "zstandard"), (_BZIP2, "bzip2"))
    return next((kind for magic, kind in kinds if head.startswith(magic)), None)


def plain_head(head: bytes, size: int = 4096) -> bytes:
    """Return the first bytes of the content of a file, of which the first bytes are given, compressed or not."""
    kind = kind_of(head)
    if kind is None:
        return head[:size]
    try:
        return io.BufferedReader(Decompressed(io.BytesIO(head), kind), size).read(size)
    except MissingSoftwareError:
        return b""


def plain(stream: BinaryIO) -> tuple[BinaryIO, Decompressed | None]:
    """Return the content of a stream that may be compressed, and, if it is, the decompression, which knows its fault.

    Parameters
    ----------
    stream : BinaryIO
        At its start; needs only `read`.
    """
    head = stream.read(4)
    kind = kind_of(head)
    if kind is None and stream.seekable():
        stream.seek(-len(head), io.SEEK_CUR)
        return stream, None
    whole = io.BufferedReader(_Chained(head, stream), _BLOCK)
    if kind is None:
        return whole, None
    machine = Decompressed(whole, kind)
    return io.BufferedReader(machine, _BLOCK), machine


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
