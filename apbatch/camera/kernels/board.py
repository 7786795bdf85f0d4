"""The board of a camera: sets of pixels as bits, in which all neighbours are found by shifts.

Pixels have places on the board row by row, as they lie on the lattice; between rows one place is free. A set of pixels
is a string of bits, one a place, in words of 64; sets of eight images lie side by side, word by word. The neighbours of
all pixels of a set are then the set shifted by 1, by a row, and on hexagons by a row less 1, either way: the work
depends on the camera and not on how many pixels there are, and knows no branch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.kernels.decorators import inner, subroutine
from apbatch.camera.kernels.neighbours import Numbers
from apbatch.camera.kernels.vector import LANES, lowest_bit
from apbatch.camera.kernels.words import bits_of, clear_bytes, ones, put_words, spread_word, words

Bits = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

_ONE, _LAST, _ALL = np.uint64(1), np.uint64(63), np.uint64(2**64 - 1)


class Board(NamedTuple):
    """Where a camera's pixels lie on its board.

    Attributes
    ----------
    place : ndarray of uint32, shape (n_pixels,)
        Place of each pixel.
    begin, end : int
        The words that hold pixels are those from index `begin` up to `end` of an array of sets, in steps of `LANES`;
        before and behind them there is room for a row and more, which is empty.
    row : int
        Places from a pixel to the one above it.
    slant : uint64
        All bits on hexagons, which have a second neighbour above, one place earlier; else 0.
    up_words, up_bits, down_words, down_bits : int, uint64
        How far the shifts by rows go. Up, on hexagons, goes to the earlier of the two neighbours.
    """

    place: Numbers
    begin: int
    end: int
    row: int
    slant: np.uint64
    up_words: int
    up_bits: np.uint64
    down_words: int
    down_bits: np.uint64


class Sets(NamedTuple):
    """Memory for sets of pixels of eight images.

    Attributes
    ----------
    marks : ndarray of uint8
        A byte a place of one image; all 0 between images.
    reach, core, kept : ndarray of uint64
        Pixels at the boundary level, in the picture, with light.
    joined, joined_core : ndarray of uint64
        Scratch.
    starts, ends, parent : ndarray of int32
        Rows of neighbouring pixels, and which of them belong together.
    """

    marks: Bytes
    reach: Bits
    core: Bits
    kept: Bits
    joined: Bits
    joined_core: Bits
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    parent: npt.NDArray[np.int32]


def board_of(camera: CameraGeometry) -> Board:
    """Lay a camera's pixels out on a board."""
    column, row = camera.q - camera.q.min(), camera.r - camera.r.min()
    length = int(column.max()) + 2
    hexagonal = camera.lattice == "hexagonal"
    place = row * length + column
    up, down = length - hexagonal, length
    margin = length // 64 + 2
    return Board(
        place.astype(np.uint32),
        margin * LANES,
        (margin + int(place.max()) // 64 + 1) * LANES,
        length,
        _ALL if hexagonal else np.uint64(0),
        up // 64 * LANES,
        np.uint64(up % 64),
        down // 64 * LANES,
        np.uint64(down % 64),
    )


def new_sets(board: Board) -> Sets:
    """Return memory for work on a board."""
    room = board.end + board.begin
    reach, core, kept, joined, joined_core = (np.zeros(room, np.uint64) for _ in range(5))
    size = (board.end - board.begin) // LANES  # words of an image; of every other bit a run may begin
    starts, ends, parent = (np.zeros(size * 32 + 1, np.int32) for _ in range(3))
    marks = np.zeros(size * 64, np.uint8)
    return Sets(marks, reach, core, kept, joined, joined_core, starts, ends, parent)


@inner
def take_both(marks: Bytes, lane: int, one: Bits, other: Bits) -> None:
    """Gather the marks 1 and 2 of an image into its words of two sets, and take them away.

    Parameters
    ----------
    marks : ndarray of uint8
        Marks of an image, one a place of the board.
    lane : int
        Number of the image among eight, 0 to 7.
    one, other : ndarray of uint64
        Sets that get the places with mark 1 and with mark 2.
    """
    for k in range(len(marks) // 64):
        one[np.uint64(lane + k * LANES)] = bits_of(marks, k * 64, 1)
        other[np.uint64(lane + k * LANES)] = bits_of(marks, k * 64, 2)
        clear_bytes(marks, k * 64)


@inner
def join(bits: Bits, board: Board, joined: Bits) -> None:
    """Set `joined` to what `earlier` and `later` shift by a row: on hexagons each pixel, and the place behind it.

    Parameters
    ----------
    bits : ndarray of uint64
        A set of pixels of eight images.
    board : Board
    joined : ndarray of uint64
        The result, as long as `bits`.
    """
    for k in range(board.begin, board.end, LANES):
        here = words(bits, k)
        behind = (here << _ONE) | (words(bits, k - LANES) >> _LAST)
        put_words(joined, k, here | (behind & board.slant))


@inner
def later(bits: Bits, joined: Bits, k: int, board: Board) -> Any:
    """Return the words at `k` of the pixels that are later neighbours of some of a set.

    Parameters
    ----------
    bits, joined : ndarray of uint64
        A set, and what `join` made of it.
    k : int
        Where the words begin.
    board : Board
    """
    up = k - board.up_words
    one = (words(bits, k) << _ONE) | (words(bits, k - LANES) >> _LAST)
    above = (words(joined, up) << board.up_bits) | ((words(joined, up - LANES) >> _ONE) >> (_LAST - board.up_bits))
    return one | above


@inner
def earlier(bits: Bits, joined: Bits, k: int, board: Board) -> Any:
    """Return the words at `k` of the pixels that are earlier neighbours of some of a set.

    Parameters
    ----------
    bits, joined : ndarray of uint64
        A set, and what `join` made of it.
    k : int
        Where the words begin.
    board : Board
    """
    down = k + board.down_words
    one = (words(bits, k) >> _ONE) | (words(bits, k + LANES) << _LAST)
    low, high = words(joined, down), words(joined, down + LANES)
    return one | (low >> board.down_bits) | ((high << _ONE) << (_LAST - board.down_bits))


@inner
def keep(sets: Sets, board: Board, min_neighbours: int, keep_isolated: bool) -> None:
    """Apply the rule of two levels: set `sets.kept`.

    Pixels of the picture with enough such neighbours are its core. A core pixel stays beside a pixel at the boundary
    level, or at all; a pixel at the boundary level stays beside a core pixel.

    Parameters
    ----------
    sets : Sets
        `core` and `reach` of eight images; `kept` is set, `core` may lose pixels.
    board : Board
    min_neighbours : int
        Neighbours of the picture that a pixel of the picture needs.
    keep_isolated : bool
        Whether a core pixel stays without any neighbour at the boundary level.
    """
    if min_neighbours > 0 and not keep_isolated:
        _drop_few(sets, board, min_neighbours)
    join(sets.reach, board, sets.joined)
    join(sets.core, board, sets.joined_core)
    alone = spread_word(np.uint64(0) - np.uint64(keep_isolated))
    for k in range(board.begin, board.end, LANES):
        by_core = later(sets.core, sets.joined_core, k, board) | earlier(sets.core, sets.joined_core, k, board)
        by_any = later(sets.reach, sets.joined, k, board) | earlier(sets.reach, sets.joined, k, board)
        put_words(sets.kept, k, (words(sets.reach, k) & by_core) | (words(sets.core, k) & (by_any | alone)))


@subroutine
def _drop_few(sets: Sets, board: Board, least: int) -> None:
    """Take pixels with fewer than `least` neighbours of the core out of it; counts are numbers of three bits."""
    core, kept = sets.core, sets.kept
    row, slant = board.row, board.row - 1
    for k in range(board.begin, board.end, LANES):
        low = middle = high = spread_word(np.uint64(0))
        for step in (1, -1, row, -row, slant, -slant):
            one = _shifted(core, k, step)
            if step in (slant, -slant):
                one = one & board.slant
            carry = low & one
            low = low ^ one
            high = high | (middle & carry)
            middle = middle ^ carry
        more, equal = spread_word(np.uint64(0)), spread_word(_ALL)
        for bit, digit in ((4, high), (2, middle), (1, low)):
            target = spread_word(_ALL if least & bit else np.uint64(0))
            more = more | (equal & digit & (target ^ _ALL))
            equal = equal & (digit ^ target ^ _ALL)
        put_words(kept, k, words(core, k) & (more | equal))
    for k in range(board.begin, board.end, LANES):
        put_words(core, k, words(kept, k))


@inner
def _shifted(bits: Bits, k: int, step: int) -> Any:
    """Return the words at `k` of a set shifted by some places, upwards or downwards."""
    from_word, by = k - step // 64 * LANES, np.uint64(step % 64)
    return (words(bits, from_word) << by) | ((words(bits, from_word - LANES) >> _ONE) >> (_LAST - by))


@inner
def count_islands(sets: Sets, board: Board, islands: npt.NDArray[np.float64], begin: int) -> None:
    """Count the groups of neighbours in `sets.kept`, into the eight elements of `islands` from `begin` on.

    From any pixel one comes to the first of its island by going to earlier neighbours as long as there is one. So if
    only one pixel has no earlier neighbour, or only one no later one, there is one island.

    Parameters
    ----------
    sets : Sets
        Of eight images.
    board : Board
    islands : ndarray of float64
        Gets the numbers of islands.
    begin : int
        Where the eight elements begin.
    """
    kept, joined = sets.kept, sets.joined
    join(kept, board, joined)
    firsts = lasts = spread_word(np.uint64(0))
    for k in range(board.begin, board.end, LANES):
        here = words(kept, k)
        firsts = firsts + ones(here & (later(kept, joined, k, board) ^ _ALL))
        lasts = lasts + ones(here & (earlier(kept, joined, k, board) ^ _ALL))
    put_words(joined, 0, firsts)
    put_words(joined, LANES, lasts)
    for lane in range(LANES):
        most = min(joined[lane], joined[LANES + lane])
        islands[begin + lane] = most if most < 2 else _islands_of(sets, board, lane)
    put_words(joined, 0, spread_word(np.uint64(0)))
    put_words(joined, LANES, spread_word(np.uint64(0)))


@subroutine
def _islands_of(sets: Sets, board: Board, lane: int) -> int:
    """Count the islands of one image: join its runs of pixels in a row with those of the next row that touch them.

    Runs are in the order of the board, and so are those shifted by a row: both are walked through once, side by side.
    """
    kept, starts, ends, parent = sets.kept, sets.starts, sets.ends, sets.parent
    runs, ended = 0, 0
    for word in range((board.end - board.begin) // LANES):
        k = board.begin + word * LANES + lane
        here = kept[k]
        if here == 0:
            continue
        begins = here & ~(here << _ONE | kept[k - LANES] >> _LAST)
        while begins != 0:
            starts[runs] = word * 64 + np.int64(lowest_bit(begins))
            parent[runs] = runs
            begins &= begins - _ONE
            runs += 1
        finishes = here & ~(here >> _ONE | kept[k + LANES] << _LAST)
        while finishes != 0:
            ends[ended] = word * 64 + np.int64(lowest_bit(finishes))
            finishes &= finishes - _ONE
            ended += 1
    islands: Any = runs
    row, first = board.row, board.row - np.int64(board.slant & _ONE)
    below, above = 0, 0
    while above < runs and below < runs:
        last = ends[below] + row
        if last < starts[above]:
            below += 1
        elif ends[above] < starts[below] + first:
            above += 1
        else:
            one, other = _root(parent, below), _root(parent, above)
            islands -= np.int64(one != other)
            parent[max(one, other)] = min(one, other)
            if last < ends[above]:
                below += 1
            else:
                above += 1
    return int(islands)


@inner
def _root(parent: npt.NDArray[np.int32], run: int) -> int:
    while parent[run] != run:
        run = parent[run]
    return run
