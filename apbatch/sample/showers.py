"""Drawn showers: ellipses of light in a camera. Not physics, but light, noise and truth that belong together."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Photo-electrons of a shower of 1 TeV, and their power law with energy.
_PE_PER_TEV, _POWER = 300.0, 0.9
#: Of a core from the telescope along each axis, m.
_FARTHEST_M = 200.0


@dataclass(frozen=True, eq=False)
class Showers:
    """Showers and their images.

    Attributes
    ----------
    energy : ndarray of shape (n,)
        TeV.
    source_x, source_y : ndarray of shape (n,)
        Direction in the camera, deg.
    core_x, core_y : ndarray of shape (n,)
        m, from the telescope.
    h_first : ndarray of shape (n,)
        Height of the first interaction, m above sea level.
    photons : ndarray of int64, shape (n, n_pixels)
        Photo-electrons without noise of electronics.
    """

    energy: Floats
    source_x: Floats
    source_y: Floats
    core_x: Floats
    core_y: Floats
    h_first: Floats
    photons: Ints


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the random numbers of one part of the sample: they depend on nothing but the seed and its name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def draw_showers(camera: CameraGeometry, count: int, random: np.random.Generator, background: float = 0.0) -> Showers:
    """Draw showers and the light that each leaves in a camera.

    Parameters
    ----------
    camera : CameraGeometry
    count : int
    random : numpy.random.Generator
    background : float
        Mean light of the night sky in a pixel, photo-electrons.
    """
    energy = np.round(10 ** random.uniform(0.0, 1.5, count), 4)
    radius = float(np.hypot(camera.x, camera.y).max())
    source = np.round(random.uniform(-0.1, 0.1, (2, count)) * radius, 4)
    core = np.round(random.uniform(-_FARTHEST_M, _FARTHEST_M, (2, count)), 2)
    return Showers(
        energy=energy,
        source_x=source[0],
        source_y=source[1],
        core_x=core[0],
        core_y=core[1],
        h_first=np.round(random.uniform(12_000.0, 30_000.0, count), 1),
        photons=draw_light(camera, energy, source, core, random, background),
    )


def draw_light(
    camera: CameraGeometry,
    energy: Floats,
    source: Floats,
    core: Floats,
    random: np.random.Generator,
    background: float = 0.0,
) -> Ints:
    """Draw the light of showers in a camera: ellipses whose long axis goes through the source, towards the core.

    Parameters
    ----------
    camera : CameraGeometry
    energy : ndarray of shape (n,)
        TeV.
    source : ndarray of shape (2, n)
        Direction in the camera, deg.
    core : ndarray of shape (2, n)
        m, from the telescope.
    random, background
        As in `draw_showers`.

    Returns
    -------
    ndarray of int64, shape (n, n_pixels)
        Photo-electrons.
    """
    radius = float(np.hypot(camera.x, camera.y).max())
    angle = np.arctan2(core[1], core[0])
    distance = np.hypot(core[0], core[1]) / (1.5 * _FARTHEST_M) * 0.55 * radius
    width = camera.pitch * random.uniform(0.8, 1.3, len(energy))
    length = width * random.uniform(1.5, 2.5, len(energy))
    dx = camera.x - (source[0] + distance * np.cos(angle))[:, None]
    dy = camera.y - (source[1] + distance * np.sin(angle))[:, None]
    along = dx * np.cos(angle)[:, None] + dy * np.sin(angle)[:, None]
    across = dy * np.cos(angle)[:, None] - dx * np.sin(angle)[:, None]
    light = np.exp(-0.5 * (along / length[:, None]) ** 2 - 0.5 * (across / width[:, None]) ** 2)
    light *= (_PE_PER_TEV * energy**_POWER / light.sum(axis=1))[:, None]
    return np.asarray(random.poisson(light + background), np.int64)
