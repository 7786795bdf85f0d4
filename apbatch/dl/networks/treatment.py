"""What a method sees of an event: which cleaning, which square grid, how much more sky, which planes beside the image.

``none`` and ``standard`` are cleanings on the axial grid, ``soft:bilinear`` names another grid. ``none@2`` is the
uncleaned image under a sky brighter by 2 p.e. a pixel (`apbatch.dl.networks.night_sky`), ``none+time`` the image and
its arrival times, ``none+partners`` the image and those of other telescopes (`apbatch.dl.networks.planes`). A blind set
of images keeps the camera's pixels, so that every treatment is made from the same events.
"""

from __future__ import annotations

import math
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
#: Planes that a network may see beside the image: arrival times; the images of other telescopes.
TIME, PARTNERS = "time", "partners"
PLANES = (TIME, PARTNERS)
#: Begin the parts of a treatment's name.
_SKY, _PLANE, _GRID = "@", "+", ":"


@dataclass(frozen=True)
class Treatment:
    """A cleaning and a grid by their names, the sky added (p.e. a pixel), and planes beside the image."""

    cleaning: str
    grid: str = "axial"
    sky: float = 0.0
    planes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in specifications and tables."""
        grid = "" if self.grid == "axial" else f"{_GRID}{self.grid}"
        return "".join([self.images, *(f"{_PLANE}{plane}" for plane in self.planes), grid])

    @property
    def images(self) -> str:
        """The name of the images alone: what methods without grid and further planes see of the same events."""
        return f"{self.cleaning}{_SKY}{self.sky:g}" if self.sky else self.cleaning


def treatment_named(name: str) -> Treatment:
    """Return the treatment of this name.

    Raises
    ------
    UsageError
        If there is no such cleaning, grid or plane, with the nearest; if the sky is no number above 0; or if sky and
        planes are asked for together or of cleaned images, which nothing here makes.
    """
    head, _, grid = name.partition(_GRID)
    head, *planes = head.split(_PLANE)
    cleaning, at, level = head.partition(_SKY)
    words = [(cleaning, list(CLEANINGS), "cleaning"), (grid or "axial", list(METHODS), "grid")]
    for word, choices, what in words + [(plane, list(PLANES), "plane") for plane in planes]:
        if word not in choices:
            raise UsageError(
                f"unknown {what} '{word}' in the treatment '{name}'",
                nearest=nearest_word(word, choices),
                remedy=f"a {what} is one of {', '.join(choices)}",
            )
    sky = _level_of(level, name) if at else 0.0
    if len(set(planes)) < len(planes) or (planes and (sky or cleaning != NONE)):
        raise UsageError(
            f"no such planes in the treatment '{name}'", remedy="each once, on uncleaned images under the usual sky"
        )
    return Treatment(cleaning, grid or "axial", sky, tuple(plane for plane in PLANES if plane in planes))


def check_images_alone(treatment: Treatment, where: str) -> None:
    """Raise a UsageError if a treatment has planes beside the image: who scores images has nothing else.

    Parameters
    ----------
    treatment : Treatment
    where : str
        The network or study that is to score.
    """
    if treatment.planes:
        raise UsageError(
            f"scores of '{treatment.name}' want more than images: {', '.join(treatment.planes)}",
            where=where,
            remedy="score with a treatment of images alone",
        )


def is_plain(name: str) -> bool:
    """Tell whether a treatment is a cleaning on the axial grid under the usual sky, and nothing else.

    As `images_of`, it takes names that are not known as well: scores may be of any program.
    """
    return not set(name) & {_SKY, _PLANE, _GRID}


def has_axial_grid(name: str) -> bool:
    """Tell whether a treatment's name names no grid, and so means the axial one."""
    return _GRID not in name


def images_of(name: str) -> str:
    """Return a treatment's name without grid and planes: what other methods see of the same images."""
    return name.partition(_GRID)[0].partition(_PLANE)[0]


def planes_of(name: str) -> list[str]:
    """Return the planes beside the image in a treatment's name."""
    return name.partition(_GRID)[0].split(_PLANE)[1:]


def cleaning_of(name: str) -> str:
    """Return the cleaning of a treatment's name."""
    return images_of(name).partition(_SKY)[0]


def sky_of(name: str) -> float:
    """Return the sky that a treatment adds, p.e. a pixel."""
    try:
        return float(images_of(name).partition(_SKY)[2])
    except ValueError:
        return 0.0


def _level_of(text: str, name: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not 0 < level < 1000:
        raise UsageError(
            f"the sky '{text}' of the treatment '{name}' is no number of p.e. above 0", remedy="such as none@2"
        )
    return level


def cleaned(images: Pixels, camera: CameraGeometry, cleaning: str) -> npt.NDArray[np.bool_] | None:
    """Return the pixels that a cleaning keeps, shape (n_images, n_pixels); None if all are kept.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    camera : CameraGeometry
    cleaning : str
        A treatment's name; only its cleaning matters.
    """
    rule = CLEANINGS[treatment_named(cleaning).cleaning]
    return None if rule is None else clean(images, camera, rule)


def grids(images: Pixels, camera: CameraGeometry, treatment: Treatment) -> Pixels:
    """Return what a network sees of images alone, shape (n_images, rows, cols), p.e.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e., with all the sky that they are to have.
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
        A treatment's name; only its cleaning matters.
    """
    columns = hillas(images, camera, cleaned(images, camera, cleaning))
    return columns | halo(images, camera) if treatment_named(cleaning).cleaning == NONE else columns


def grid_shape(camera: CameraGeometry, treatment: Treatment) -> tuple[int, int]:
    """Return rows and columns of a treatment's grid."""
    grid = grid_of(camera, treatment.grid)
    return grid.rows, grid.cols
