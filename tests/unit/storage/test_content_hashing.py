"""All hashes of a content from one reading, compared with hashlib, zlib and b3sum's own function, piece by piece."""

from __future__ import annotations

import hashlib
import random
import threading
import zlib

import pytest
from blake3 import blake3

from apbatch.index.contents import BLOCK, LARGE_PIECE, SMALL_PIECE
from apbatch.ingest.reading.content_hashing import ContentHasher


def cut(content: bytes, length: int) -> list[bytes]:
    return [content[start : start + length] for start in range(0, len(content), length)]


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 9_000_001, LARGE_PIECE, LARGE_PIECE + 5])
def test_hashes_are_those_of_the_whole_and_of_each_piece(size: int) -> None:
    draw = random.Random(size)
    content = draw.randbytes(size)
    hasher = ContentHasher()
    buffer = bytearray(3_000_000)
    at = 0
    while at < size:  # one buffer, filled anew: what waits for the thread must be a copy
        many = min(draw.randrange(1, len(buffer)), size - at)
        buffer[:many] = content[at : at + many]
        hasher.update(memoryview(buffer)[:many])
        at += many
    found = hasher.result()
    assert (found.size, found.checksum) == (size, blake3(content).hexdigest())
    assert found.adler32 == f"{zlib.adler32(content):08x}"
    assert found.blocks == b"".join(blake3(block).digest() for block in cut(content, BLOCK))
    assert found.small_pieces == b"".join(hashlib.sha1(piece).digest() for piece in cut(content, SMALL_PIECE))
    assert found.large_pieces == b"".join(hashlib.sha1(piece).digest() for piece in cut(content, LARGE_PIECE))
    assert found.flaw() is None


def test_a_hasher_that_is_closed_leaves_no_thread() -> None:
    before = threading.active_count()
    hasher = ContentHasher()
    for _ in range(10):
        hasher.update(bytes(2_000_000))
    assert threading.active_count() == before + 1
    hasher.close()
    assert threading.active_count() == before
