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

from apbatch.camera.geometry import CameraGeometry, Floats
from apbatch.camera.kernels.board import Board, Sets, board_of, count_islands, keep, new_sets, take_both
from apbatch.camera.kernels.decorators import inner, subroutine
from apbatch.camera.kernels.vector import (
    LANES,
    PIXELS,
    append_at_least,
    append_positive,
    one_by_one,
    to_line,
    write_past_cache,
)

#: A number whose width and sign matter to numba, and of which mypy knows nothing.
Number = Any

#: Images in a block: their lists stay in the processor's cache until their moments are made.
BLOCK = 32
#: Bits of a multiple of `LANES`.
_WHOLE = np.uint64(2**64 - LANES)


class Tables(NamedTuple):
    """A camera as kernels want it.

    Attributes
    ----------
    board : Board
    x, y : ndarray of float64, shape (n_pixels,)
        deg.
    edge : ndarray of float64, shape (n_pixels,)
        1 at the edge of the camera, 0 elsewhere.
    """

    board: Board
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
    weight : ndarray of float64
        Amplitudes, p.e.
    x, y : ndarray of float64
        Places, deg.
    edge : ndarray of float64
        1 of pixels at the edge of the camera, else 0.
    islands : ndarray of float64, shape (BLOCK,)
        Groups of neighbouring pixels with light.
    """

    start: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.int64]
    weight: Floats
    x: Floats
    y: Floats
    edge: Floats
    islands: Floats


class Workspace(NamedTuple):
    """Memory that a thread keeps for a camera.

    To give it back and ask for it again for each batch costs more than the work that is done in it.

    Attributes
    ----------
    pixels : ndarray of uint16
        Pixels that reach a level, image by image.
    begin : ndarray of int64, shape (BLOCK + 1,)
        Where each image's begin.
    rows : ndarray of bool
        Masks of eight images.
    """

    lists: Lists
    sets: Sets
    pixels: npt.NDArray[np.uint16]
    begin: npt.NDArray[np.int64]
    rows: npt.NDArray[np.bool_]


_tables: WeakKeyDictionary[CameraGeometry, Tables] = WeakKeyDictionary()


def tables_of(camera: CameraGeometry) -> Tables:
    """Return the tables of a camera; they are made once."""
    if camera not in _tables:
        _tables[camera] = Tables(
            board_of(camera),
            np.array(camera.x, np.float64, order="C"),
            np.array(camera.y, np.float64, order="C"),
            camera.edge.astype(np.float64),
        )
    return _tables[camera]


_local = threading.local()


def workspace(camera: CameraGeometry) -> Workspace:
    """Return this thread's memory for work on images of a camera."""
    workspaces: WeakKeyDictionary[CameraGeometry, Workspace] = _local.__dict__.setdefault(
        "workspaces", WeakKeyDictionary()
    )
    if camera not in workspaces:
        if len(workspaces) >= 4:
            workspaces.clear()
        workspaces[camera] = _new_workspace(camera.n_pixels, tables_of(camera).board)
    return workspaces[camera]


def _new_workspace(n_pixels: int, board: Board) -> Workspace:
    room = BLOCK * (n_pixels + LANES) + PIXELS  # a block fits into it, whatever its pixels
    lists = Lists(
        start=np.zeros(BLOCK + 1, np.int64),
        pixels=np.zeros(BLOCK, np.int64),
        weight=np.zeros(room, np.float64),
        x=np.zeros(room, np.float64),
        y=np.zeros(room, np.float64),
        edge=np.zeros(room, np.float64),
        islands=np.zeros(BLOCK, np.float64),
    )
    pixels = np.zeros(BLOCK * n_pixels + PIXELS, np.uint16)
    return Workspace(
        lists, new_sets(board), pixels, np.zeros(BLOCK + 1, np.int64), np.zeros(LANES * n_pixels, np.bool_)
    )


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
    space: Workspace,
) -> None:
    """Clean the images `first` to `last` with two levels: set their masks and make their lists.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    first, last : int
        Images of the block, at most `BLOCK`.
    picture, boundary : ndarray of float32, shape (1 or n_images, n_pixels) or (1, PIXELS)
        Levels, p.e., of each pixel, or of all.
    min_neighbours : int
        Neighbours of the picture that a pixel of the picture needs.
    keep_isolated : bool
        Whether a pixel of the picture stays without any neighbour.
    tables : Tables
        Of the camera.
    mask : ndarray of bool, shape (n_images, n_pixels)
        Gets the rows of the block.
    space : Workspace
        Gets the lists of pixels with light.
    """
    n_pixels = images.shape[1]
    flat, flat_mask = images.reshape(-1), mask.reshape(-1)
    upper, lower = picture.reshape(-1), boundary.reshape(-1)
    step = boundary.shape[1] if boundary.shape[0] > 1 else 0
    each = int(boundary.shape[1] == n_pixels)
    # All images are searched first, one stream for the memory, and each candidate is looked at again after.
    _search(flat, first, last, n_pixels, lower, step, each, space.pixels, space.begin)
    place: Number = np.uint64(0)
    for group in range(first, last, LANES):
        until = min(group + LANES, last)
        for i in range(group, until):
            _mark(flat, i * n_pixels, upper, i * step, each, i - first, tables, space)
            take_both(space.sets.marks, tables.board.begin + i - group, space.sets.reach, space.sets.core)
        for lane in range(until - group, LANES):  # no image, no marks
            take_both(space.sets.marks, tables.board.begin + lane, space.sets.reach, space.sets.core)
        keep(space.sets, tables.board, min_neighbours, keep_isolated)
        for i in range(group, until):
            place = _list_kept(flat, i * n_pixels, i - first, i - group, place, tables, space)
        _write_out(space.rows, flat_mask, group * n_pixels, (until - group) * n_pixels)
        count_islands(space.sets, tables.board, space.lists.islands, group - first)
    space.lists.start[last - first] = np.int64(place)


@subroutine
def _search(
    images: npt.NDArray[np.float32],
    first: int,
    last: int,
    n_pixels: int,
    boundary: npt.NDArray[np.float32],
    step: int,
    each: int,
    pixels: npt.NDArray[np.uint16],
    begin: npt.NDArray[np.int64],
) -> None:
    """List the pixels of images that reach the boundary level; alone, it has all registers for its loop."""
    whole = n_pixels // PIXELS * PIXELS
    count = 0
    for i in range(first, last):
        start, level = i * n_pixels, i * step
        for p in range(0, whole, PIXELS):
            count += append_at_least(images, start + p, PIXELS, boundary, level + each * p, p, pixels, count)
        if whole < n_pixels:
            p, left = whole, n_pixels - whole
            count += append_at_least(images, start + p, left, boundary, level + each * p, p, pixels, count)
        begin[i - first + 1] = count


@inner
def _mark(
    images: npt.NDArray[np.float32],
    start: int,
    picture: npt.NDArray[np.float32],
    level: int,
    each: int,
    i: int,
    tables: Tables,
    space: Workspace,
) -> None:
    """Mark the candidates of an image on the board: 1, and 2 for those at the picture level."""
    for k in range(np.uint64(space.begin[i]), np.uint64(space.begin[i + 1])):
        one_by_one()
        p = np.uint64(space.pixels[k])
        bright = np.uint8(images[np.uint64(start) + p] >= picture[np.uint64(level) + np.uint64(each) * p])
        space.sets.marks[tables.board.place[p]] = np.uint8(1) | bright << np.uint8(1)


@inner
def _list_kept(
    images: npt.NDArray[np.float32], start: int, i: int, lane: int, place: Number, tables: Tables, space: Workspace
) -> Number:
    """Make the mask and the list of an image of the pixels kept; return where the next list begins."""
    lists, kept, rows, one, none = space.lists, space.sets.kept, space.rows, np.uint64(1), np.uint64(0)
    n_pixels = len(tables.x)
    row, words = np.uint64(lane * n_pixels), np.uint64(tables.board.begin + lane)
    for k in range(np.uint64(n_pixels)):
        rows[row + k] = False
    origin = place
    lists.start[i] = np.int64(origin)
    for k in range(np.uint64(space.begin[i]), np.uint64(space.begin[i + 1])):
        one_by_one()
        p = np.uint64(space.pixels[k])
        where = np.uint64(tables.board.place[p])
        word, bit = words + (where >> np.uint64(6)) * np.uint64(LANES), where & np.uint64(63)
        is_kept = kept[word] >> bit & one
        rows[row + p] = is_kept != none
        value = np.float64(images[np.uint64(start) + p])
        if value == np.inf:  # a kept pixel of infinite amplitude has no light that could be summed
            kept[word] &= ~(one << bit)
            is_kept = none
        _put(lists, place, p, value, tables)
        place += is_kept
    lists.pixels[i] = np.int64(place - origin)
    return _pad(lists, place)


@inner
def _write_out(rows: npt.NDArray[np.bool_], mask: npt.NDArray[np.bool_], begin: int, size: int) -> None:
    """Copy masks to where they belong, whole lines of the cache past it."""
    whole = min(size, to_line(mask, begin))
    for k in range(np.uint64(whole)):
        mask[np.uint64(begin) + k] = rows[k]
    while whole + 64 <= size:
        write_past_cache(mask, begin + whole, rows, whole)
        whole += 64
    for k in range(np.uint64(whole), np.uint64(size)):
        mask[np.uint64(begin) + k] = rows[k]


@inner
def _put(lists: Lists, place: Number, pixel: Number, value: Number, tables: Tables) -> None:
    """Write a pixel at `place`."""
    lists.weight[place] = value
    lists.x[place] = tables.x[pixel]
    lists.y[place] = tables.y[pixel]
    lists.edge[place] = tables.edge[pixel]


@inner
def lit_block(
    images: npt.NDArray[np.float32],
    first: int,
    last: int,
    mask: npt.NDArray[np.bool_],
    tables: Tables,
    space: Workspace,
) -> None:
    """Make the lists of the images `first` to `last`: pixels that the mask keeps, of finite amplitude above 0.

    `mask` has one row, or one an image.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    first, last : int
        Images of the block, at most `BLOCK`.
    mask : ndarray of bool, shape (1 or n_images, n_pixels)
    tables : Tables
        Of the camera.
    space : Workspace
        Gets the lists of pixels with light.
    """
    lists, sets, pixels, board = space.lists, space.sets, space.pixels, tables.board
    n_pixels = images.shape[1]
    flat, keeps = images.reshape(-1), mask.reshape(-1)
    step = n_pixels if mask.shape[0] > 1 else 0
    whole = n_pixels // PIXELS * PIXELS
    place: Number = np.uint64(0)
    for group in range(first, last, LANES):
        until = min(group + LANES, last)
        for i in range(group, until):
            count, start, row = 0, i * n_pixels, i * step
            for p in range(0, whole, PIXELS):
                count += append_positive(flat, start + p, PIXELS, keeps, row + p, p, pixels, count)
            if whole < n_pixels:
                p = whole
                count += append_positive(flat, start + p, n_pixels - p, keeps, row + p, p, pixels, count)
            lists.start[i - first], lists.pixels[i - first] = np.int64(place), count
            for k in range(np.uint64(count)):
                one_by_one()
                pixel = np.uint64(pixels[k])
                sets.marks[board.place[pixel]] = np.uint8(1)
                _put(lists, place, pixel, np.float64(flat[np.uint64(start) + pixel]), tables)
                place += np.uint64(1)
            place = _pad(lists, place)
            take_both(sets.marks, board.begin + i - group, sets.kept, sets.core)
        for lane in range(until - group, LANES):
            take_both(sets.marks, board.begin + lane, sets.kept, sets.core)
        count_islands(sets, board, lists.islands, group - first)
    lists.start[last - first] = np.int64(place)


@inner
def _pad(lists: Lists, end: Number) -> Number:
    """Fill the last `LANES` of an image with weight 0; return where the next image begins."""
    for k in range(np.uint64(LANES)):
        lists.weight[end + k] = 0.0
        lists.x[end + k] = 0.0
        lists.y[end + k] = 0.0
        lists.edge[end + k] = 0.0
    return (end + np.uint64(LANES - 1)) & _WHOLE
