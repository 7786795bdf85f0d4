"""Blocks: the unit in which bytes move, are kept and are verified. A file is cut every 2 MiB from its beginning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blake3 import blake3

from apbatch.errors import VerificationError
from apbatch.index.contents import BLOCK, Content


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a range that lies in one block.

    Attributes
    ----------
    block : int
        Number of the block in the file.
    start, stop : int
        Bytes within the block.
    """

    block: int
    start: int
    stop: int


def pieces(offset: int, length: int, size: int) -> Iterator[Piece]:
    """Yield the pieces of a range of a file, in order.

    Parameters
    ----------
    offset, length : int
        Bytes; the range is cut at the end of the file.
    size : int
        Bytes of the file.
    """
    end = min(offset + length, size)
    while offset < end:
        block, start = divmod(offset, BLOCK)
        stop = min(BLOCK, start + end - offset)
        yield Piece(block, start, stop)
        offset += stop - start


def block_count(size: int) -> int:
    """Return the number of blocks of a file of `size` bytes."""
    return -(-size // BLOCK)


def block_length(size: int, block: int) -> int:
    """Return the bytes of a block of a file of `size` bytes."""
    return max(0, min(BLOCK, size - block * BLOCK))


@dataclass(frozen=True, slots=True)
class Digests:
    """What the blocks of one content must be.

    Attributes
    ----------
    checksum : str
        BLAKE3 of the whole content, hexadecimal.
    size : int
        Bytes.
    blocks : bytes
        BLAKE3 (32 bytes) of each block, one after the other.
    """

    checksum: str
    size: int
    blocks: bytes

    @classmethod
    def of(cls, checksum: str, size: int, content: Content | None) -> Digests | None:
        """Return the digests of a registered content; None if its blocks' hashes are not there, or can't be right.

        A content of one block needs none: its checksum is that of the block.

        Parameters
        ----------
        checksum : str
            BLAKE3, hexadecimal.
        size : int
            Bytes.
        content : Content, optional
            The hashes that the catalogue has.
        """
        if 0 < size <= BLOCK:
            return cls(checksum, size, bytes.fromhex(checksum))
        if size == 0:
            return cls(checksum, 0, b"")
        if content is None or content.checksum != checksum or content.size != size or content.flaw() is not None:
            return None
        return cls(checksum, size, content.blocks)

    def check(self, block: int, data: bytes) -> None:
        """Compare a block with its digest.

        Raises
        ------
        VerificationError
            If it is not the block.
        """
        if len(data) != block_length(self.size, block):
            raise VerificationError(f"block {block} has {len(data)} bytes, not {block_length(self.size, block)}")
        if blake3(data).digest() != self.blocks[32 * block : 32 * block + 32]:
            raise VerificationError(f"the bytes of block {block} are not those that were registered")
