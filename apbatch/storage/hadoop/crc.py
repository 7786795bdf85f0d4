"""HDFS's checksum of a whole file, computed on the side of the writer.

The DataNodes keep a CRC32C of every 512 bytes. ``MD5-of-MD5-of-CRC32C`` is, for each block of the file, the MD5 of
its big-endian CRCs; these digests in a row, padded with zeros to the next power of two (at least 32 bytes), MD5.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from typing import Any

from google_crc32c import value as crc32c

_KNOWN = re.compile(r"^MD5-of-\d+MD5-of-512CRC32C$")


def stored_checksum(answer: Mapping[str, Any]) -> str | None:
    """Return the checksum in an answer of WebHDFS to GETFILECHECKSUM, as `FileChecksum` has it; None of another kind.

    Parameters
    ----------
    answer : Mapping
        Its ``FileChecksum``.
    """
    if not _KNOWN.match(answer["algorithm"]):
        return None
    text: str = answer["bytes"]
    return text[24:56]  # behind bytes per CRC (4) and CRCs per block (8)


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
        content = self._rest + data if self._rest else bytes(data)
        whole = len(content) - len(content) % self._chunk
        start = 0
        while start < whole:
            end = min(whole, start + self._block_size - self._in_block)
            self._add(content, start, end)
            start = end
        self._rest = content[whole:]

    def _add(self, content: bytes, start: int, end: int) -> None:
        """Add bytes of one block of the file."""
        chunk = self._chunk
        crcs = [crc32c(content[at : at + chunk]) for at in range(start, end, chunk)]
        self._crcs += struct.pack(f">{len(crcs)}I", *crcs)
        self._in_block += end - start
        if self._in_block == self._block_size:
            self._end_block()

    def _end_block(self) -> None:
        self._digests.append(hashlib.md5(self._crcs, usedforsecurity=False).digest())
        self._crcs.clear()
        self._in_block = 0

    def hexdigest(self) -> str:
        """End the file and return its checksum; give it no more bytes after that."""
        if self._rest:
            self._add(self._rest, 0, len(self._rest))
            self._rest = b""
        if self._in_block:
            self._end_block()
        row = b"".join(self._digests)
        length = max(32, 1 << (len(row) - 1).bit_length()) if row else 32
        return hashlib.md5(row.ljust(length, b"\0"), usedforsecurity=False).hexdigest()
