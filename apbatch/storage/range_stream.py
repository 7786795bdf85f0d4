"""A file-like object over what is read by ranges."""

from __future__ import annotations

import io
from typing import Any, Protocol

from apbatch.storage.hashing import READ_BYTES


class ByRanges(Protocol):
    """Something of a known size that is read by ranges, such as `apbatch.storage.store.Ranges`."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, cut at the end."""

    def close(self) -> None:
        """Release what is open."""


class SizedStream(io.RawIOBase):
    """A raw stream of a known size that can be sought.

    Parameters
    ----------
    size : int
        Bytes in all.
    """

    def __init__(self, size: int) -> None:
        self._size, self._position = size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return the position, bytes from the beginning."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; a ValueError before the beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position


class RangeStream(SizedStream):
    """A raw stream over what is read by ranges, which it closes.

    Parameters
    ----------
    ranges : ByRanges
    """

    def __init__(self, ranges: ByRanges) -> None:
        super().__init__(ranges.size)
        self._ranges = ranges

    def readinto(self, buffer: Any) -> int:
        """Read at most `READ_BYTES` into a buffer; return how many bytes there were, 0 at the end."""
        data = self._ranges.read(self._position, min(len(buffer), READ_BYTES))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the stream and what it reads from."""
        if not self.closed:
            self._ranges.close()
        super().close()
