"""Hashes by content: one row for each content, whoever holds it, so that any copy is verified by the same table."""

from __future__ import annotations

from dataclasses import dataclass

#: Length of a block that a mount verifies, bytes.
BLOCK = 2 * 2**20
#: Lengths of the pieces whose SHA-1 CernVM-FS names, bytes.
SMALL_PIECE, LARGE_PIECE = BLOCK, 24 * 2**20
_BLAKE3, _SHA1 = 32, 20


@dataclass(frozen=True, slots=True)
class Content:
    """The hashes of one content; digests are concatenated, in order, the last of a shorter block or piece.

    Attributes
    ----------
    checksum : str
        BLAKE3 of the whole, hexadecimal: the key.
    size : int
        Bytes.
    adler32 : str
        Adler-32 of the whole, as in `FileRecord`.
    blocks : bytes
        BLAKE3 (32 bytes each) of each 2 MiB.
    small_pieces, large_pieces : bytes
        SHA-1 (20 bytes each) of each 2 MiB and of each 24 MiB.
    """

    checksum: str
    size: int
    adler32: str
    blocks: bytes
    small_pieces: bytes
    large_pieces: bytes

    def block(self, number: int) -> bytes:
        """Return the BLAKE3 of a block.

        Raises
        ------
        IndexError
            If the content has no such block.
        """
        if not 0 <= number < len(self.blocks) // _BLAKE3:
            raise IndexError(f"block {number} of {len(self.blocks) // _BLAKE3}")
        return self.blocks[number * _BLAKE3 : (number + 1) * _BLAKE3]

    def flaw(self) -> str | None:
        """Return what can't be right, or None."""
        if len(self.checksum) != 2 * _BLAKE3 or not all(char in "0123456789abcdef" for char in self.checksum):
            return f"'{self.checksum[:80]}' is not a BLAKE3 in hexadecimal"
        for name, digests, length, size in (
            ("blocks", self.blocks, _BLAKE3, BLOCK),
            ("small_pieces", self.small_pieces, _SHA1, SMALL_PIECE),
            ("large_pieces", self.large_pieces, _SHA1, LARGE_PIECE),
        ):
            if len(digests) != length * -(-self.size // size):
                return f"{len(digests)} bytes of {name} don't fit a size of {self.size} bytes"
        return None
