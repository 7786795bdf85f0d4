"""HDFS's checksum of a whole file, computed on the side of the writer.

The DataNodes keep a CRC32C of every 512 bytes. ``MD5-of-MD5-of-CRC32C`` is, for each block of the file, the MD5 of
its big-endian CRCs; these digests in a row, padded with zeros to the next power of two (at least 32 bytes), MD5.
"""

from __future__ import annotations

import hashlib

from google_crc32c import value as crc32c


class FileChecksum:
    """The HDFS checksum of the bytes given so far.

    Parameters
    ----------
    block_size : int
        Size of the file's HDFS blocks in bytes, a multiple of `chunk`.
    chunk : int
        Bytes in each CRC.
    """

    def __init__(self, block_size: int, chunk: int = 512) -> None:
        self._block_size, self._chunk = block_size, chunk
        self._rest = b""
        self._in_block = 0
        self._crcs = bytearray()
        self._digests: list[bytes] = []

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        view = memoryview(self._rest + bytes(data))
        whole = len(view) - len(view) % self._chunk
        for start in range(0, whole, self._chunk):
            self._add(bytes(view[start : start + self._chunk]))
        self._rest = bytes(view[whole:])

    def _add(self, chunk: bytes) -> None:
        self._crcs += crc32c(chunk).to_bytes(4, "big")
        self._in_block += len(chunk)
        if self._in_block == self._block_size:
            self._end_block()

    def _end_block(self) -> None:
        self._digests.append(hashlib.md5(self._crcs, usedforsecurity=False).digest())
        self._crcs.clear()
        self._in_block = 0

    def hexdigest(self) -> str:
        """End the file and return its checksum; give it no more bytes after that."""
        if self._rest:
            self._add(self._rest)
            self._rest = b""
        if self._in_block:
            self._end_block()
        row = b"".join(self._digests)
        length = max(32, 1 << (len(row) - 1).bit_length()) if row else 32
        return hashlib.md5(row.ljust(length, b"\0"), usedforsecurity=False).hexdigest()
