"""Damage to files, drawn from a seed: what disks, networks and hasty scripts do to them, and counts that lie."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from apbatch.errors import FormatError
from apbatch.formats.reader import ImageReader, Reader, recognise
from apbatch.formats.text.lines import Problems

Random = np.random.Generator
_LIES = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 10**10, 2**62, 2**63 - 1, 2**64 - 1)


def _place(random: Random, size: int) -> int:
    """Return a place; every second one is near the start or the end, where formats keep their counts."""
    edge = min(size, 6000)
    match int(random.integers(4)):
        case 0:
            return int(random.integers(edge))
        case 1:
            return size - 1 - int(random.integers(edge))
    return int(random.integers(size))


def _flip_bit(content: bytearray, random: Random) -> None:
    content[_place(random, len(content))] ^= 1 << int(random.integers(8))


def _change_bytes(content: bytearray, random: Random) -> None:
    for _ in range(int(random.integers(2, 30))):
        content[_place(random, len(content))] = int(random.integers(256))


def _cut(content: bytearray, random: Random) -> None:
    del content[_place(random, len(content)) :]


def _insert(content: bytearray, random: Random) -> None:
    at = _place(random, len(content))
    content[at:at] = random.bytes(int(random.integers(1, 300)))


def _lose(content: bytearray, random: Random) -> None:
    at = _place(random, len(content))
    del content[at : at + int(random.integers(1, 5000))]


def _blank(content: bytearray, random: Random) -> None:
    at, length = _place(random, len(content)), int(random.integers(1, 5000))
    content[at : at + length] = bytes(len(content[at : at + length]))


def _lie(content: bytearray, random: Random) -> None:
    width, order = int(random.choice([2, 4, 8])), str(random.choice(["little", "big"]))
    value = _LIES[int(random.integers(len(_LIES)))] % (1 << 8 * width)
    at = min(_place(random, len(content)) // width * width, max(len(content) - width, 0))
    content[at : at + width] = value.to_bytes(width, "big" if order == "big" else "little")


def _lie_about_a_count(content: bytearray, random: Random) -> None:
    """Change a word that holds a small number: a count or a length more often than not."""
    width = int(random.choice([4, 8]))
    for _ in range(50):
        at = min(_place(random, len(content)), max(len(content) - width, 0))
        word = bytes(content[at : at + width])
        if len(word) == width and 0 < struct.unpack("<I" if width == 4 else "<Q", word)[0] < 100_000:
            content[at : at + width] = (_LIES[int(random.integers(len(_LIES)))] % (1 << 8 * width)).to_bytes(
                width, "little"
            )
            return


KINDS: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip_bit,
    _change_bytes,
    _cut,
    _insert,
    _lose,
    _blank,
    _lie,
    _lie_about_a_count,
)


def damaged(content: bytes, random: Random) -> tuple[str, bytes]:
    """Return the name of a kind of damage and the content with it."""
    kind = KINDS[int(random.integers(len(KINDS)))]
    changed = bytearray(content)
    kind(changed, random)
    return kind.__name__.strip("_"), bytes(changed)


@dataclass(frozen=True)
class Reading:
    """What a file gave: None where it was refused."""

    format: str | None
    events: int | None
    images: int | None
    seconds: float


def read_all(name: str, content: bytes, images: bool = True) -> Reading:
    """Do with a file all that readers can; errors but `FormatError` leave this function.

    Parameters
    ----------
    name : str
        As which the file is recognised.
    content : bytes
    images : bool
        Whether to read images and truth as well as metadata.
    """
    started = time.monotonic()
    reader: Reader | None = None
    events = count = None
    try:
        reader = recognise(name, content[:4096], io.BytesIO(content))
        if reader is None:
            return Reading(None, None, None, time.monotonic() - started)
        events = reader.metadata(io.BytesIO(content), name).events
    except FormatError:
        pass
    if reader is not None:
        with suppress(FormatError):
            reader.spans(io.BytesIO(content), name, 100_000)
        with suppress(FormatError):
            for rows in reader.events(io.BytesIO(content), name):
                rows.validate(full=True)
    if isinstance(reader, ImageReader) and images:
        count, problems = 0, Problems()
        try:
            for batch in reader.images(io.BytesIO(content), name, 256, problems=problems):
                count += batch.num_rows
        except FormatError:
            count = count or None
        try:
            for _ in reader.truth(io.BytesIO(content), name):
                pass
        except FormatError:
            pass
    return Reading(reader.name if reader is not None else None, events, count, time.monotonic() - started)
