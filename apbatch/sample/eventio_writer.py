"""Objects of EventIO, the container of CORSIKA's IACT output and of sim_telarray, as bytes.

A header of three words (type and version, identity, length) comes before the content; at the top of a file a mark comes
before the header. Reference: K. Bernloehr, "The eventio data format", and the readers of the package eventio, which
are what the sample is checked with.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.formats.eventio_objects import MARK

_NESTED, _LONGEST = 1 << 30, 1 << 30


def part(kind: int, identity: int, content: bytes, version: int = 0, *, nested: bool = False) -> bytes:
    """Return an object that lies within another one; `nested`: its content is nothing but objects.

    Parameters
    ----------
    kind : int
        Type of the object.
    identity : int
        Its number.
    content : bytes
    version : int
    nested : bool
        Whether the content is nothing but objects.
    """
    if len(content) >= _LONGEST:
        raise ValueError(f"{len(content)} bytes need an extended header")
    length = len(content) | (_NESTED if nested else 0)
    return struct.pack("<III", kind | version << 20, identity & 0xFFFFFFFF, length) + content


def top(kind: int, identity: int, content: bytes, version: int = 0, *, nested: bool = False) -> bytes:
    """Return an object at the top of a file.

    Parameters
    ----------
    kind : int
        Type of the object.
    identity : int
        Its number.
    content : bytes
    version : int
    nested : bool
        Whether the content is nothing but objects.
    """
    return MARK + part(kind, identity, content, version, nested=nested)


def floats(values: npt.ArrayLike) -> bytes:
    """Return numbers as float32, one after the other."""
    return np.asarray(values, "<f4").tobytes()


def string(text: bytes) -> bytes:
    """Return a string behind its length of two bytes."""
    return struct.pack("<h", len(text)) + text


def count(value: int) -> bytes:
    """Return a number without sign in as few bytes as it needs."""
    if value < 0x80:
        return bytes([value])
    if value < 0x4000:
        return bytes([0x80 | value >> 8, value & 0xFF])
    if value < 0x200000:
        return bytes([0xC0 | value >> 16, value >> 8 & 0xFF, value & 0xFF])
    raise ValueError(f"{value} does not fit in three bytes")


def signed_count(value: int) -> bytes:
    """Return a number with its sign in as few bytes as it needs."""
    return count(2 * value if value >= 0 else -2 * value - 1)


def differences(values: Sequence[int]) -> bytes:
    """Return numbers as the steps from each to the next."""
    steps = np.diff(np.asarray(values, np.int64), prepend=0)
    return b"".join(signed_count(int(step)) for step in steps)


def metadata(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the content of an object of named values."""
    content = list(items)
    pieces: list[Any] = [count(len(content))]
    for key, value in content:
        pieces += [count(len(key)), key, count(len(value)), value]
    return b"".join(pieces)
