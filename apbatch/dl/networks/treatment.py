"""How images are prepared for a network: which cleaning, and which square grid. One name for both.

``none`` and ``standard`` are cleanings on the axial grid, ``soft:bilinear`` names another grid. A blind set of images
keeps the camera's pixels, so that every treatment is made from the same events; a set of grids has two of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning import NONE, PRESETS, Cleaning, clean
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.grid import METHODS, grid_of, to_grid
from apbatch.camera.halo import halo
from apbatch.camera.hillas import hillas
from apbatch.errors import UsageError, nearest_word

Pixels = npt.NDArray[np.float32]
#: Cleanings of the study by name: picture and boundary threshold in p.e.
CLEANINGS: dict[str, Cleaning | None] = {"none": None, **PRESETS}


@dataclass(frozen=True)
class Treatment:
    """A cleaning and a grid by their names."""

    cleaning: str
    grid: str = "axial"

    @property
    def name(self) -> str:
        """What it is called in specifications and tables."""
        return self.cleaning if self.grid == "axial" else f"{self.cleaning}:{self.grid}"


def treatment_named(name: str) -> Treatment:
    """Return the treatment of this name.

    Raises
    ------
    UsageError
        If there is no such cleaning or grid, with the nearest.
    """
    cleaning, _, grid = name.partition(":")
    for word, words, what in ((cleaning, list(CLEANINGS), "cleaning"), (grid or "axial", list(METHODS), "grid")):
        if word not in words:
            raise UsageError(
                f"unknown {what} '{word}' in the treatment '{name}'",
                nearest=nearest_word(word, words),
                remedy=f"a {what} is one of {', '.join(words)}",
            )
    return Treatment(cleaning, grid or "axial")


def cleaned(images: Pixels, camera: CameraGeometry, cleaning: str) -> npt.NDArray[np.bool_] | None:
    """Return the pixels that a cleaning keeps, shape (n_images, n_pixels); None if all are kept.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    camera : CameraGeometry
    cleaning : str
        A treatment's name; its grid does not matter.
    """
    rule = CLEANINGS[treatment_named(cleaning).cleaning]
    return None if rule is None else clean(images, camera, rule)


def grids(images: Pixels, camera: CameraGeometry, treatment: Treatment) -> Pixels:
    """Return what a network sees, shape (n_images, rows, cols), p.e.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    camera : CameraGeometry
    treatment : Treatment
    """
    return to_grid(images, camera, cleaned(images, camera, treatment.cleaning), treatment.grid)


def parameters(images: Pixels, camera: CameraGeometry, cleaning: str) -> dict[str, npt.NDArray[np.float64]]:
    """Return image parameters after a cleaning, of uncleaned images those of the halo as well; shape (n_images,).

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    camera : CameraGeometry
    cleaning : str
        A treatment's name; its grid does not matter.
    """
    columns = hillas(images, camera, cleaned(images, camera, cleaning))
    return columns | halo(images, camera) if cleaning == NONE else columns


def grid_shape(camera: CameraGeometry, treatment: Treatment) -> tuple[int, int]:
    """Return rows and columns of a treatment's grid."""
    grid = grid_of(camera, treatment.grid)
    return grid.rows, grid.cols
