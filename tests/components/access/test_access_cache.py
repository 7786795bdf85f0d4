"""The cache of blocks: shared, bounded, never wrong, and no reader fails by it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from apbatch.access.blocks import Digests, block_count, block_length, pieces
from apbatch.access.cache import BlockCache
from apbatch.errors import VerificationError
from apbatch.index.contents import BLOCK, Content
from tests.waits import until

BLOCKS = [random.Random(number).randbytes(BLOCK if number < 3 else 1000) for number in range(4)]
WHOLE = b"".join(BLOCKS)
CHECKSUM = blake3(WHOLE).hexdigest()
DIGESTS = Digests(CHECKSUM, len(WHOLE), b"".join(blake3(block).digest() for block in BLOCKS))


@given(st.integers(0, 3 * BLOCK), st.integers(0, 3 * BLOCK), st.integers(0, 3 * BLOCK))
def test_pieces_of_a_range_cover_it_once(offset: int, length: int, size: int) -> None:
    covered = offset
    for piece in pieces(offset, length, size):
        assert piece.block * BLOCK + piece.start == covered
        assert 0 <= piece.start < piece.stop <= block_length(size, piece.block)
        covered += piece.stop - piece.start
    assert covered == max(offset, min(offset + length, size))


def test_the_last_block_is_the_rest() -> None:
    assert (block_count(len(WHOLE)), block_length(len(WHOLE), 3)) == (4, 1000)
    assert (block_count(0), block_count(1), block_count(BLOCK), block_count(BLOCK + 1)) == (0, 1, 1, 2)


def test_a_wrong_byte_or_length_is_no_block() -> None:
    DIGESTS.check(3, BLOCKS[3])
    for wrong in (BLOCKS[3][:-1], b"\0" + BLOCKS[3][1:], BLOCKS[2]):
        with pytest.raises(VerificationError):
            DIGESTS.check(3, wrong)


def test_a_content_of_one_block_needs_no_table() -> None:
    digests = Digests.of(blake3(BLOCKS[3]).hexdigest(), 1000, None)
    assert digests is not None
    digests.check(0, BLOCKS[3])
    assert Digests.of(CHECKSUM, len(WHOLE), None) is None
    assert Digests.of(CHECKSUM, len(WHOLE), Content(CHECKSUM, len(WHOLE), "", DIGESTS.blocks[:-32], b"", b"")) is None


def test_what_was_put_is_there(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path)
    cache.put(DIGESTS, 1, BLOCKS[1])
    assert cache.get(DIGESTS, 1) == BLOCKS[1]
    assert cache.get(DIGESTS, 0) is None
    assert cache.usage() == BLOCK


@pytest.mark.parametrize("change", [b"", b"\0", BLOCKS[3][:500], BLOCKS[3] + b"x"])
def test_a_damaged_block_is_dropped(tmp_path: Path, change: bytes) -> None:
    cache = BlockCache(tmp_path)
    cache.put(DIGESTS, 3, BLOCKS[3])
    (file,) = (path for path in tmp_path.rglob("*.3") if path.is_file())
    file.write_bytes(change)
    assert cache.get(DIGESTS, 3) is None
    assert not file.exists()


def test_the_blocks_used_longest_ago_go_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, limit=int(2.5 * BLOCK))
    cache.put(DIGESTS, 0, BLOCKS[0])
    cache.put(DIGESTS, 1, BLOCKS[1])
    hour_ago = time.time() - 3600
    for file in tmp_path.glob("??/*"):
        os.utime(file, (hour_ago, hour_ago))
    assert cache.get(DIGESTS, 0) is not None  # used now
    cache.put(DIGESTS, 2, BLOCKS[2])
    assert cache.get(DIGESTS, 1) is None
    assert cache.get(DIGESTS, 0) is not None
    assert cache.get(DIGESTS, 2) is not None
    assert cache.usage() <= cache.limit


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path)
    cache.put(DIGESTS, 1, BLOCKS[1])
    folder = next(tmp_path.glob("??"))
    old, young = folder / f".{CHECKSUM}.2.1-aa.part", folder / f".{CHECKSUM}.2.1-bb.part"
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (1, 1))
    cache.trim()
    assert (old.exists(), young.exists()) == (False, True)


def test_a_writer_killed_at_any_moment_leaves_whole_blocks_or_none(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from apbatch.access.cache import BlockCache
        from tests.components.access.test_access_cache import BLOCKS, DIGESTS
        cache = BlockCache(Path(sys.argv[1]))
        print("go", flush=True)
        while True:
            for number in range(4):
                cache.put(DIGESTS, number, BLOCKS[number])
    """)
    root = Path(__file__).parents[3]
    for delay in (0.0, 0.01, 0.03):
        writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=root, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        cache = BlockCache(tmp_path)
        for file in tmp_path.glob("??/[!.]*"):
            assert file.read_bytes() == BLOCKS[int(file.suffix[1:])]
        for number in range(4):
            assert cache.get(DIGESTS, number) in (None, BLOCKS[number])


def test_one_process_at_a_time_fetches_a_block(tmp_path: Path) -> None:
    one, other = BlockCache(tmp_path), BlockCache(tmp_path)
    order: list[str] = []

    def wait() -> None:
        with other.fetching(DIGESTS, 0):
            order.append("other" if other.get(DIGESTS, 0) else "too early")

    with one.fetching(DIGESTS, 0):
        waiter = threading.Thread(target=wait)
        waiter.start()
        with other.fetching(DIGESTS, 1):  # another block does not wait
            order.append("another block")
        one.put(DIGESTS, 0, BLOCKS[0])
        order.append("one")
    waiter.join()
    assert order == ["another block", "one", "other"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_full_disk_only_means_that_blocks_are_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(tmp_path)], check=True)
    try:
        cache = BlockCache(tmp_path)
        for number in range(3):
            cache.put(DIGESTS, number, BLOCKS[number])
        assert "not kept for now" in capsys.readouterr().err
        assert [cache.get(DIGESTS, number) for number in range(3)][2] is None
        assert 0 < cache.usage() <= 2 * BLOCK
        assert not list(tmp_path.rglob("*.part"))
        cache._rest_until = 0.0
        cache.put(DIGESTS, 3, BLOCKS[3])
        assert cache.get(DIGESTS, 3) == BLOCKS[3]
    finally:
        until(lambda: subprocess.run(["umount", str(tmp_path)], check=False).returncode == 0)


def test_a_cache_that_can_not_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = BlockCache(tmp_path / "file" / "cache")
    with cache.fetching(DIGESTS, 0):
        cache.put(DIGESTS, 0, BLOCKS[0])
    assert cache.get(DIGESTS, 0) is None
    assert cache.usage() == 0
