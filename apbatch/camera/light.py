"""The pixels with light of a block of images, as lists: what moments are made of.

Few pixels of an image have light. They are written one after the other, image by image, with amplitude and place, so
that everything after the cleaning walks over short contiguous arrays.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.camera.kernel import apart, inner
from apbatch.camera.vector import (
    LANES,
    PIXELS,
    append_at_least,
    append_positive,
    bits_set,
    fetch_ahead,
    lowest_bit,
    one_by_one,
)

Bits = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.uint32]
#: A number whose width and sign matter to numba, and of which mypy knows nothing.
Number = Any

#: Images in a block: their lists stay in the processor's cache until their moments are made.
BLOCK = 32


class Tables(NamedTuple):
    """A camera as kernels want it.

    Attributes
    ----------
    neighbours : ndarray of uint32, shape (n_pixels, any)
        Padded with `n_pixels`.
    before, after : ndarray of uint32, shape (n_pixels, any)
        The neighbours that come earlier and later in reading order: by rows, and in a row by columns; padded so too.
    x, y : ndarray of float64, shape (n_pixels,)
        deg.
    edge : ndarray of float64, shape (n_pixels,)
        1 at the edge of the camera, 0 elsewhere.
    """

    neighbours: Numbers
    before: Numbers
    after: Numbers
    x: Floats
    y: Floats
    edge: Floats


class Lists(NamedTuple):
    """Pixels with light of up to `BLOCK` images.

    Attributes
    ----------
    start : ndarray of int64, shape (BLOCK + 1,)
        Where an image's pixels begin; a multiple of `LANES`. What is left of the last `LANES` has weight 0.
    pixels : ndarray of int64, shape (BLOCK,)
        Pixels with light of each image.
    pixel : ndarray of uint32
        Numbers of the pixels.
    weight : ndarray of float64
        Amplitudes, p.e.
    x, y : ndarray of float64
        Places, deg.
    islands : ndarray of float64, shape (BLOCK,)
        Groups of neighbouring pixels with light.
    at_edge : ndarray of float64, shape (BLOCK,)
        Light in edge pixels, p.e.
    """

    start: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.int64]
    pixel: Numbers
    weight: Floats
    x: Floats
    y: Floats
    islands: Floats
    at_edge: Floats


class Scratch(NamedTuple):
    """Memory for the work on one image: `bit` and `state` are all 0 between images."""

    found: Numbers
    bit: Bits
    before: Bits
    after: Bits
    state: npt.NDArray[np.uint8]
    todo: Numbers


_tables: WeakKeyDictionary[CameraGeometry, Tables] = WeakKeyDictionary()


def tables_of(camera: CameraGeometry) -> Tables:
    """Return the tables of a camera; they are made once."""
    if camera not in _tables:
        n_pixels = camera.n_pixels
        neighbours = np.where(camera.neighbours < 0, n_pixels, camera.neighbours)
        order = np.append(np.lexsort((camera.q, camera.r)).argsort(), n_pixels)
        earlier = order[neighbours] < order[:n_pixels, None]
        _tables[camera] = Tables(
            neighbours.astype(np.uint32, order="C"),
            _only(neighbours, earlier, n_pixels),
            _only(neighbours, ~earlier, n_pixels),
            np.array(camera.x, np.float64, order="C"),
            np.array(camera.y, np.float64, order="C"),
            camera.edge.astype(np.float64),
        )
    return _tables[camera]


def _only(neighbours: Ints, which: npt.NDArray[np.bool_], padding: int) -> Numbers:
    """Return some of the neighbours, those that are padding last, in no more columns than needed."""
    which = which & (neighbours < padding)
    left = np.sort(np.where(which, neighbours, padding), axis=1)
    return np.ascontiguousarray(left[:, : max(1, int(which.sum(axis=1).max()))], np.uint32)


class Workspace(NamedTuple):
    """Memory that a thread keeps for cameras of one number of pixels.

    To give it back and ask for it again for each batch costs more than the work that is done in it.
    """

    lists: Lists
    scratch: Scratch


_kept = threading.local()


def workspace(n_pixels: int) -> Workspace:
    """Return this thread's memory for cameras of so many pixels."""
    known: dict[int, Workspace] = _kept.__dict__.setdefault("workspaces", {})
    if n_pixels not in known:
        if len(known) >= 4:
            known.clear()
        known[n_pixels] = _new_workspace(n_pixels)
    return known[n_pixels]


def _new_workspace(n_pixels: int) -> Workspace:
    room = BLOCK * (n_pixels + LANES) + PIXELS  # a block fits into it, whatever its pixels
    lists = Lists(
        start=np.zeros(BLOCK + 1, np.int64),
        pixels=np.zeros(BLOCK, np.int64),
        pixel=np.zeros(room, np.uint32),
        weight=np.zeros(room, np.float64),
        x=np.zeros(room, np.float64),
        y=np.zeros(room, np.float64),
        islands=np.zeros(BLOCK, np.float64),
        at_edge=np.zeros(BLOCK, np.float64),
    )
    scratch = Scratch(
        found=np.zeros(n_pixels + PIXELS, np.uint32),
        bit=np.zeros(n_pixels + 1, np.uint64),
        before=np.zeros(64, np.uint64),
        after=np.zeros(64, np.uint64),
        state=np.zeros(n_pixels + 1, np.uint8),
        todo=np.zeros(n_pixels + LANES, np.uint32),
    )
    return Workspace(lists, scratch)


@inner
def clean_block(
    images: npt.NDArray[np.float32],
    first: int,
    last: int,
    picture: npt.NDArray[np.float32],
    boundary: npt.NDArray[np.float32],
    min_neighbours: int,
    keep_isolated: bool,
    tables: Tables,
    mask: npt.NDArray[np.bool_],
    lists: Lists,
    scratch: Scratch,
) -> None:
    """Clean the images `first` to `last` with two levels: set their masks and make their lists.

    `picture` and `boundary` have one row, or one an image; rows are longer than an image by 16 or more.
    """
    n_pixels = images.shape[1]
    flat, flat_mask = images.reshape(-1), mask.reshape(-1)
    upper, lower = picture.reshape(-1), boundary.reshape(-1)
    step = boundary.shape[1] if boundary.shape[0] > 1 else 0
    whole = n_pixels // PIXELS * PIXELS
    found = scratch.found
    place = 0
    for i in range(first, last):
        lists.start[i - first] = place
        begin, level = np.uint64(i * n_pixels), np.uint64(i * step)
        for p in range(n_pixels):
            flat_mask[begin + np.uint64(p)] = False
        count = 0
        for p in range(0, whole, PIXELS):
            fetch_ahead(flat, (i + 1) * n_pixels + p)
            count += append_at_least(flat, i * n_pixels + p, lower, i * step + p, p, found, count)
        for p in range(whole, n_pixels):
            if flat[begin + np.uint64(p)] >= lower[level + np.uint64(p)]:
                found[count] = p
                count += 1
        if count <= 64:
            kept = _clean_few(
                flat, begin, count, upper, level, min_neighbours, keep_isolated, tables, flat_mask, lists, i - first,
                place, scratch,
            )  # fmt: skip
        else:
            kept = _clean_many(
                flat, begin, count, upper, level, min_neighbours, keep_isolated, tables, flat_mask, lists, i - first,
                place, scratch,
            )  # fmt: skip
        place = _pad(lists, place, kept)
        lists.pixels[i - first] = kept
    lists.start[last - first] = place


@inner
def _clean_few(
    images: npt.NDArray[np.float32],
    begin: Number,
    count: int,
    picture: npt.NDArray[np.float32],
    level: Number,
    min_neighbours: int,
    keep_isolated: bool,
    tables: Tables,
    mask: npt.NDArray[np.bool_],
    lists: Lists,
    i: int,
    place: Number,
    scratch: Scratch,
) -> Number:
    """Clean an image of which at most 64 pixels reach the boundary level: sets of them are the bits of one number."""
    found, bit, before, after = scratch.found, scratch.bit, scratch.before, scratch.after
    one, none = np.uint64(1), np.uint64(0)
    core = none
    for k in range(count):
        one_by_one()
        p = np.uint64(found[k])
        bit[p] = one << np.uint64(k)
        core |= np.uint64(images[begin + p] >= picture[level + p]) << np.uint64(k)
    if min_neighbours > 0 and not keep_isolated:
        bright = core
        for k in range(count):
            one_by_one()
            around = _joined(bit, tables.before, found[k]) | _joined(bit, tables.after, found[k])
            enough = np.uint64(bits_set(around & bright) >= min_neighbours)
            core &= ~((enough ^ one) << np.uint64(k))
    alone = np.uint64(keep_isolated)
    lit = none
    at_edge = 0.0
    origin = place
    for k in range(count):
        one_by_one()
        p = np.uint64(found[k])
        before[k] = _joined(bit, tables.before, p)
        after[k] = _joined(bit, tables.after, p)
        around = before[k] | after[k]
        is_core = core >> np.uint64(k) & one
        keep = np.uint64(around & core != none) | is_core & (np.uint64(around != none) | alone)
        mask[begin + p] = keep != none
        value = np.float64(images[begin + p])
        keep &= np.uint64(value < np.inf)  # a kept pixel of infinite amplitude has no light that could be summed
        lit |= keep << np.uint64(k)
        share = value * tables.edge[p]
        at_edge += share if keep != none else 0.0
        _put(lists, place, p, value, tables)
        place += np.int64(keep)
    for k in range(0, count, 8):
        one_by_one()
        for j in range(8):  # some more than needed: what is 0 stays 0
            bit[found[k + j]] = none
    lists.at_edge[i] = at_edge
    lists.islands[i] = _count_islands(lit, count, before, after)
    return place - origin


@inner
def _put(lists: Lists, place: int, pixel: Number, value: Number, tables: Tables) -> None:
    """Write a pixel at `place`."""
    lists.pixel[place] = pixel
    lists.weight[place] = value
    lists.x[place] = tables.x[pixel]
    lists.y[place] = tables.y[pixel]


@inner
def _joined(bits: Number, neighbours: Numbers, pixel: Number) -> Number:
    """Join what a table of bits holds for the neighbours of a pixel."""
    if neighbours.shape[1] == 3:
        return bits[neighbours[pixel, 0]] | bits[neighbours[pixel, 1]] | bits[neighbours[pixel, 2]]
    joined = bits[neighbours[pixel, 0]]
    for j in range(1, neighbours.shape[1]):
        one_by_one()
        joined |= bits[neighbours[pixel, j]]
    return joined


@inner
def _count_islands(lit: Number, count: int, before: Bits, after: Bits) -> float:
    """Count groups of neighbours in a set of pixels.

    From any pixel one comes to the first of its island by going to earlier neighbours as long as there is one. So if
    only one pixel of the set has no earlier neighbour in it, or only one no later one, the set is one island.
    """
    one, none = np.uint64(1), np.uint64(0)
    firsts: Number = 0
    lasts: Number = 0
    for k in range(count):
        one_by_one()
        is_lit = np.int64(lit >> np.uint64(k) & one)
        firsts += is_lit & np.int64(before[k] & lit == none)
        lasts += is_lit & np.int64(after[k] & lit == none)
    if firsts <= 1 or lasts <= 1:
        return float(min(firsts, lasts))
    islands = 0
    rest = lit
    while rest != none:
        islands += 1
        front = rest & (~rest + one)
        rest ^= front
        while front != none:
            k = lowest_bit(front)
            front &= front - one
            reached = (before[k] | after[k]) & rest
            rest ^= reached
            front |= reached
    return float(islands)


@apart
def _clean_many(
    images: npt.NDArray[np.float32],
    begin: Number,
    count: int,
    picture: npt.NDArray[np.float32],
    level: Number,
    min_neighbours: int,
    keep_isolated: bool,
    tables: Tables,
    mask: npt.NDArray[np.bool_],
    lists: Lists,
    i: int,
    place: Number,
    scratch: Scratch,
) -> Number:
    """Clean an image with any number of pixels at the boundary level: as `_clean_few`, with a byte a pixel."""
    found, state = scratch.found, scratch.state
    reaches, bright, core = np.uint8(1), np.uint8(2), np.uint8(4)
    for k in range(count):
        one_by_one()
        p = np.uint64(found[k])
        state[p] = reaches | (np.uint8(images[begin + p] >= picture[level + p]) * (bright | core))
    if min_neighbours > 0 and not keep_isolated:
        neighbours = tables.neighbours
        for k in range(count):
            one_by_one()
            p = np.uint64(found[k])
            number: Number = 0
            for j in range(neighbours.shape[1]):
                number += np.int64((state[neighbours[p, j]] >> 1) & 1)
            if number < min_neighbours:
                state[p] &= ~core
    alone = np.uint8(keep_isolated)
    at_edge = 0.0
    origin = place
    for k in range(count):
        one_by_one()
        p = np.uint64(found[k])
        around = _joined(state, tables.before, p) | _joined(state, tables.after, p)
        is_core = np.uint8((state[p] & core) != 0)
        keep = np.uint8((around & core) != 0) | (is_core & (np.uint8((around & reaches) != 0) | alone))
        mask[begin + p] = keep != 0
        value = np.float64(images[begin + p])
        keep &= np.uint8(value < np.inf)
        share = value * tables.edge[p]
        at_edge += share if keep != 0 else 0.0
        _put(lists, place, p, value, tables)
        place += np.int64(keep)
    for k in range(count):
        one_by_one()
        state[found[k]] = 0
    lists.at_edge[i] = at_edge
    lists.islands[i] = _count_islands_of_list(lists.pixel, origin, place, tables, scratch)
    return place - origin


@apart
def _count_islands_of_list(pixels: Numbers, begin: int, end: int, tables: Tables, scratch: Scratch) -> float:
    """Count groups of neighbours in a list of pixels; as `_count_islands`."""
    state, todo, neighbours = scratch.state, scratch.todo, tables.neighbours
    for k in range(begin, end):
        one_by_one()
        state[pixels[k]] = 1
    firsts: Number = 0
    lasts: Number = 0
    for k in range(begin, end):
        one_by_one()
        firsts += np.int64(_joined(state, tables.before, pixels[k]) == 0)
        lasts += np.int64(_joined(state, tables.after, pixels[k]) == 0)
    if firsts <= 1 or lasts <= 1:
        for k in range(begin, end):
            one_by_one()
            state[pixels[k]] = 0
        return float(min(firsts, lasts))
    islands = 0
    for k in range(begin, end):
        one_by_one()
        if state[pixels[k]] == 0:
            continue
        islands += 1
        state[pixels[k]] = 0
        todo[0] = pixels[k]
        done = 0
        waiting: Number = 1
        while done < waiting:
            p = todo[done]
            done += 1
            for j in range(neighbours.shape[1]):
                one_by_one()
                n = neighbours[p, j]
                todo[waiting] = n
                waiting += np.int64(state[n])
                state[n] = 0
    return float(islands)


@inner
def lit_block(
    images: npt.NDArray[np.float32],
    first: int,
    last: int,
    mask: npt.NDArray[np.bool_],
    tables: Tables,
    lists: Lists,
    scratch: Scratch,
) -> None:
    """Make the lists of the images `first` to `last`: pixels that the mask keeps, of finite amplitude above 0.

    `mask` has one row, or one an image.
    """
    n_pixels = images.shape[1]
    flat, keep = images.reshape(-1), mask.reshape(-1)
    step = n_pixels if mask.shape[0] > 1 else 0
    whole = n_pixels // PIXELS * PIXELS
    found = lists.pixel
    place = 0
    for i in range(first, last):
        lists.start[i - first] = place
        begin = np.uint64(i * n_pixels)
        end = place
        for p in range(0, whole, PIXELS):
            fetch_ahead(flat, (i + 1) * n_pixels + p)
            end += append_positive(flat, i * n_pixels + p, keep, i * step + p, p, found, end)
        for p in range(whole, n_pixels):
            value = flat[begin + np.uint64(p)]
            if keep[i * step + p] and value > 0.0 and value < np.inf:
                found[end] = p
                end += 1
        at_edge = 0.0
        for k in range(place, end):
            one_by_one()
            pixel = np.uint64(found[k])
            amplitude = np.float64(flat[begin + pixel])
            at_edge += amplitude * tables.edge[pixel]
            _put(lists, k, pixel, amplitude, tables)
        lists.at_edge[i - first] = at_edge
        lists.islands[i - first] = _count_islands_of_list(found, place, end, tables, scratch)
        lists.pixels[i - first] = end - place
        place = _pad(lists, place, end - place)
    lists.start[last - first] = place


@inner
def _pad(lists: Lists, place: int, count: int) -> int:
    """Fill the last `LANES` of an image with weight 0; return where the next image begins."""
    end = place + count
    for k in range(LANES):
        lists.weight[end + k] = 0.0
        lists.x[end + k] = 0.0
        lists.y[end + k] = 0.0
    return place + (count + LANES - 1) // LANES * LANES
