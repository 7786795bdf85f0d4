"""The kernels in vectors: whole batches through the blocks of `light`, `moments`, `rings` and `blocks`.

Only `apbatch.camera.kernels.batch` imports this module: it falls back to `plain` where this one cannot be used.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning_rule import Cleaning
from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.camera.halo_columns import CLEANINGS
from apbatch.camera.kernels.blocks import BLOCK as COLUMNS
from apbatch.camera.kernels.blocks import transpose, weighted_sum
from apbatch.camera.kernels.decorators import kernel
from apbatch.camera.kernels.interface import Images, Mask
from apbatch.camera.kernels.light import BLOCK, Tables, Workspace, clean_block, lit_block, tables_of, workspace
from apbatch.camera.kernels.moments import ROWS, parametrise_block, put_columns
from apbatch.camera.kernels.rings import halo_batch
from apbatch.camera.kernels.vector import LANES, PIXELS
from apbatch.camera.parameters import FLAT


def clean(
    images: Images, picture: Images, boundary: Images, cleaning: Cleaning, camera: CameraGeometry, mask: Mask
) -> None:
    """Tell which pixels the rule of two levels keeps; see `Kernels.clean`."""
    _clean_batch(
        images,
        _rows(picture),
        _rows(boundary),
        cleaning.min_neighbours,
        cleaning.keep_isolated,
        tables_of(camera),
        mask,
        workspace(camera),
    )


def _rows(level: Images) -> Images:
    """Return levels as rows that can be read `PIXELS` at a time, or fewer at the end of a camera."""
    return level if level.shape[1] > 1 else level.repeat(PIXELS, axis=1)


def parametrise(images: Images, mask: Mask, camera: CameraGeometry, source: tuple[float, float], table: Floats) -> None:
    """Compute the image parameters of the pixels with light; see `Kernels.parametrise`."""
    _parametrise_batch(
        images,
        mask,
        tables_of(camera),
        FLAT * float(camera.pitch) ** 2,
        float(source[0]),
        float(source[1]),
        table,
        workspace(camera),
    )


def clean_and_parametrise(
    images: Images,
    picture: Images,
    boundary: Images,
    cleaning: Cleaning,
    camera: CameraGeometry,
    source: tuple[float, float],
    mask: Mask,
    table: Floats,
) -> None:
    """Do both in one pass over the pixels; see `Kernels.clean` and see `Kernels.parametrise`."""
    _clean_and_parametrise_batch(
        images,
        _rows(picture),
        _rows(boundary),
        cleaning.min_neighbours,
        cleaning.keep_isolated,
        tables_of(camera),
        FLAT * float(camera.pitch) ** 2,
        float(source[0]),
        float(source[1]),
        mask,
        table,
        workspace(camera),
    )


def apply_map(
    images: Images,
    mask: Mask | None,
    start: Ints,
    pixel: Ints,
    weight: npt.NDArray[np.float32],
    grids: npt.NDArray[np.float32],
) -> None:
    """Apply a sparse map from pixels to cells; see `Kernels.apply_map`."""
    keep = np.ones((1, 1), np.bool_) if mask is None else mask
    _apply_map_batch(images, keep, mask is not None, start, pixel, weight, grids)


def halo(images: Images, camera: CameraGeometry, source: tuple[float, float], table: Floats) -> None:
    """Compute the halo parameters; see `Kernels.halo`."""
    picture, boundary = (
        np.array(levels, np.float32)[:, None]
        for levels in zip(*((cleaning.picture, cleaning.boundary) for cleaning in CLEANINGS), strict=True)
    )
    rest = -camera.n_pixels % LANES
    halo_batch(
        images,
        _rows(picture),
        _rows(boundary),
        tables_of(camera),
        np.pad(camera.x, (0, rest), constant_values=np.nan),
        np.pad(camera.y, (0, rest), constant_values=np.nan),
        float(camera.pitch),
        float(source[0]),
        float(source[1]),
        table,
        workspace(camera),
    )


@kernel
def _clean_batch(
    images: Images,
    picture: Images,
    boundary: Images,
    min_neighbours: int,
    keep_isolated: bool,
    tables: Tables,
    mask: Mask,
    space: Workspace,
) -> None:
    for first in range(0, len(images), BLOCK):
        last = min(first + BLOCK, len(images))
        clean_block(images, first, last, picture, boundary, min_neighbours, keep_isolated, tables, mask, space)


@kernel
def _parametrise_batch(
    images: Images,
    mask: Mask,
    tables: Tables,
    flat: float,
    source_x: float,
    source_y: float,
    out: Floats,
    space: Workspace,
) -> None:
    table = np.zeros((ROWS, BLOCK))
    for first in range(0, len(images), BLOCK):
        last = min(first + BLOCK, len(images))
        lit_block(images, first, last, mask, tables, space)
        parametrise_block(space.lists, last - first, flat, source_x, source_y, table)
        put_columns(table, out, first, last)


@kernel
def _clean_and_parametrise_batch(
    images: Images,
    picture: Images,
    boundary: Images,
    min_neighbours: int,
    keep_isolated: bool,
    tables: Tables,
    flat: float,
    source_x: float,
    source_y: float,
    mask: Mask,
    out: Floats,
    space: Workspace,
) -> None:
    table = np.zeros((ROWS, BLOCK))
    for first in range(0, len(images), BLOCK):
        last = min(first + BLOCK, len(images))
        clean_block(images, first, last, picture, boundary, min_neighbours, keep_isolated, tables, mask, space)
        parametrise_block(space.lists, last - first, flat, source_x, source_y, table)
        put_columns(table, out, first, last)


@kernel
def _apply_map_batch(
    images: npt.NDArray[np.float32],
    keep: npt.NDArray[np.bool_],
    masked: bool,
    start: Ints,
    pixel: Ints,
    weight: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Apply the map to blocks of images: pixels side by side in memory become images side by side, and back."""
    n_images, n_pixels = images.shape
    n_cells = out.shape[1]
    zero = np.float32(0)
    blocks = np.zeros(((n_pixels + COLUMNS - 1) // COLUMNS * COLUMNS, COLUMNS), np.float32)
    one = np.zeros((COLUMNS, COLUMNS), np.float32)
    for first in range(0, n_images, COLUMNS):
        size = min(COLUMNS, n_images - first)
        for p in range(0, n_pixels, COLUMNS):
            width = min(COLUMNS, n_pixels - p)
            for i in range(size):
                row = images[first + i]
                if width == COLUMNS:  # said apart, so that the loop has a fixed length and becomes vector code
                    for j in range(COLUMNS):
                        value = row[p + j]
                        one[i, j] = value if value == value else zero
                    if masked:
                        for j in range(COLUMNS):
                            one[i, j] = one[i, j] if keep[first + i, p + j] else zero
                else:
                    for j in range(width):
                        value = row[p + j]
                        present = value == value and (not masked or keep[first + i, p + j])
                        one[i, j] = value if present else zero
            transpose(one, 0, 0, blocks, p, 0)
        for c in range(0, n_cells, COLUMNS):
            width = min(COLUMNS, n_cells - c)
            if start[c] == start[c + width]:
                one[:] = zero
            else:
                for j in range(width):
                    weighted_sum(blocks, pixel, weight, start[c + j], start[c + j + 1], one, j)
            if width == COLUMNS and size == COLUMNS:
                transpose(one, 0, 0, out, first, c)
                continue
            for i in range(size):
                for j in range(width):
                    out[first + i, c + j] = one[j, i]
