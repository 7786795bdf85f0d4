"""The self-check of the vector kernels: drawn images, computed by them and by the plain ones.

The images are drawn and not a user's: of these, any may lie where the rounding of a sum decides (a pixel exactly on the
border of a ring, an axis exactly upright), and then both results are right. Drawn ones do not, have every kind of
pixel, and are the same in every process.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning_rule import Cleaning
from apbatch.camera.geometry import CameraGeometry, camera_from_positions
from apbatch.camera.halo_columns import HALO
from apbatch.camera.kernels.interface import Images, Kernels, Mask
from apbatch.camera.parameters import PARAMETERS
from apbatch.errors import VerificationError

#: How far parameters may be from each other, relative or absolute (deg, p.e., numbers). Masks and grids are equal.
TOLERANCE = 1e-6
_SEED = 2018
#: Images: a whole block of the vector kernels, a group of eight and a part of one.
_IMAGES = 43
_SOURCE = (0.7, -0.4)
_FEW, _ALONE = Cleaning("tailcuts", 8, 4, 2), Cleaning("sigma", 3, 1.5, keep_isolated=True)

Result = npt.NDArray[np.bool_] | npt.NDArray[np.float32] | npt.NDArray[np.float64]


def verify(name: str, kernels: Kernels, reference: Kernels) -> None:
    """Compare a function of some kernels with the same of others.

    Parameters
    ----------
    name : str
        Of a function of `Kernels`.
    kernels, reference : Kernels

    Raises
    ------
    VerificationError
        If a mask or a grid differs, or a parameter by more than `TOLERANCE`.
    """
    for ours, theirs in zip(_results(name, kernels), _results(name, reference), strict=True):
        if ours.dtype == np.float64:
            same = np.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        else:
            same = np.array_equal(ours, theirs, equal_nan=ours.dtype == np.float32)
        if not same:
            raise VerificationError(f"results of '{name}' are not those of the plain kernels")


def _results(name: str, kernels: Kernels) -> list[Result]:
    """Return what a function gives for the drawn images."""
    camera, images = _scene()
    masks = [np.empty(images.shape, np.bool_) for _ in range(2)]
    tables = [np.full((len(PARAMETERS), len(images)), np.nan) for _ in range(2)]
    same = [np.full((1, 1), level, np.float32) for level in (_FEW.picture, _FEW.boundary)]
    unit = np.linspace(1.1, 3.3, images.size, dtype=np.float32).reshape(images.shape)
    each = [level * unit for level in (np.float32(_ALONE.picture), np.float32(_ALONE.boundary))]
    row = [level[:1] for level in each]
    match name:
        case "clean":
            kernels.clean(images, same[0], same[1], _FEW, camera, masks[0])
            kernels.clean(images, each[0], each[1], _ALONE, camera, masks[1])
            return [*masks]
        case "parametrise":
            kernels.parametrise(images, np.ones((1, camera.n_pixels), np.bool_), camera, _SOURCE, tables[0])
            kernels.parametrise(images, images > 5, camera, _SOURCE, tables[1])
            return [*tables]
        case "clean_and_parametrise":
            kernels.clean_and_parametrise(images, same[0], same[1], _FEW, camera, _SOURCE, masks[0], tables[0])
            kernels.clean_and_parametrise(images, row[0], row[1], _ALONE, camera, _SOURCE, masks[1], tables[1])
            return [*masks, *tables]
        case "apply_map":
            return [*_grids(kernels, images, images > 5)]
        case "halo":
            table = np.full((len(HALO), len(images)), np.nan)
            kernels.halo(images, camera, _SOURCE, table)
            return [table]
    raise ValueError(name)


@cache
def _scene() -> tuple[CameraGeometry, Images]:
    """Return a camera whose rows are longer than a word of 64 pixels, and images on it, some of them odd."""
    q, r = (axis.ravel() for axis in np.meshgrid(np.arange(70), np.arange(5)))
    camera = camera_from_positions("self-check", 0.5 * (q + r / 2), 0.5 * np.sqrt(0.75) * r, lattice="hexagonal")
    rng = np.random.default_rng(_SEED)
    images = rng.normal(1, 3, (_IMAGES, camera.n_pixels))
    for image in images:
        dx, dy = camera.x - rng.uniform(0, 36), camera.y - rng.uniform(0, 2)
        image += rng.uniform(10, 200) * np.exp(-0.5 * ((dx / 1.5) ** 2 + (dy / 0.7) ** 2))
    images[3] = 0
    images[11] += 20  # everything bright
    images[12, ::3] = np.nan
    images[13, [5, 200]] = np.inf
    images[14] = np.nan
    return camera, images.astype(np.float32)


def _grids(kernels: Kernels, images: Images, mask: Mask) -> list[npt.NDArray[np.float32]]:
    """Apply a drawn map, of up to four terms a cell and a stretch of empty cells, with and without a mask."""
    rng = np.random.default_rng(_SEED)
    entries = rng.integers(0, 5, 90)
    entries[40:64] = 0
    start = np.concatenate(([0], np.cumsum(entries)))
    pixel = rng.integers(0, images.shape[1], start[-1])
    weight = rng.uniform(0, 1, start[-1]).astype(np.float32)
    grids = [np.empty((len(images), len(entries)), np.float32) for _ in range(2)]
    for keep, cells in zip((None, mask), grids, strict=True):
        kernels.apply_map(images, keep, start, pixel, weight, cells)
    return grids
