"""What may be wrong with real images: more night sky, dead pixels, wrong gains, a turned camera. Pure functions.

Each takes images of shape (n_images, n_pixels) in p.e. and gives new ones; the same seed gives the same images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.dl.networks.night_sky import sky_light

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Disturbance:
    """One way to disturb images, at one strength.

    Attributes
    ----------
    kind, label : str
        What it is, and its strength in words.
    strength : float
    apply : callable
        Images and their camera to disturbed images.
    """

    kind: str
    label: str
    strength: float
    apply: Callable[[Pixels, CameraGeometry], Pixels]


def night_sky(images: Pixels, camera: CameraGeometry, added: float, seed: int = 1) -> Pixels:
    """Add light of the night sky, mean `added` p.e. a pixel and image, its mean taken off as a pedestal would.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    camera : CameraGeometry
    added : float
        Mean light added to each pixel, p.e.
    seed : int
    """
    return np.asarray(images + sky_light(images.shape, added, np.random.default_rng([seed, 1])), np.float32)


def dead_pixels(images: Pixels, camera: CameraGeometry, share: float, seed: int = 1) -> Pixels:
    """Switch off a share of the pixels, the same in all images: NaN, no measurement.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    camera : CameraGeometry
    share : float
        Share of the pixels, 0…1.
    seed : int
    """
    random = np.random.default_rng([seed, 2])
    dead = random.permutation(camera.n_pixels)[: round(share * camera.n_pixels)]
    disturbed = images.copy()
    disturbed[:, dead] = np.nan
    return disturbed


def gain_errors(images: Pixels, camera: CameraGeometry, spread: float, seed: int = 1) -> Pixels:
    """Multiply every pixel by a factor of its own, the same in all images, of this relative spread around 1.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    camera : CameraGeometry
    spread : float
        Standard deviation of the factors; none is below 0.05.
    seed : int
    """
    factors = np.random.default_rng([seed, 3]).normal(1, spread, camera.n_pixels)
    return np.asarray(images * np.maximum(factors, 0.05), np.float32)


def light_scale(images: Pixels, camera: CameraGeometry, factor: float, seed: int = 1) -> Pixels:
    """Multiply everything by one factor: a mirror or an atmosphere that is not the simulated one.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    camera : CameraGeometry
    factor : float
    seed : int
        Not used; every disturbance takes one.
    """
    return np.asarray(images * factor, np.float32)


def rotation(images: Pixels, camera: CameraGeometry, degrees: float, seed: int = 1) -> Pixels:
    """Turn images around the pixel nearest to the middle of the camera.

    Every pixel takes the value of the one nearest to where it came from, so nothing is smoothed: interpolation would
    widen images by a good part of a pixel and so be another disturbance. What came from outside is dark. By 60
    degrees, where the lattice maps onto itself, pixels only move.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    camera : CameraGeometry
    degrees : float
        Angle, deg.
    seed : int
        Not used; every disturbance takes one.
    """
    middle = int(np.argmin(np.hypot(camera.x - camera.x.mean(), camera.y - camera.y.mean())))
    x, y = camera.x - camera.x[middle], camera.y - camera.y[middle]
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    away = np.hypot((x * cosine + y * sine)[:, None] - x, (y * cosine - x * sine)[:, None] - y)
    source = away.argmin(axis=1)
    turned = np.nan_to_num(images)[:, source]
    turned[:, away.min(axis=1) > 0.7 * camera.pitch] = 0
    return np.asarray(turned, np.float32)


def standard_disturbances() -> list[Disturbance]:
    """Return the list of the study's report."""

    def series(kind: str, how: Callable[..., Pixels], unit: str, strengths: tuple[float, ...]) -> list[Disturbance]:
        return [
            Disturbance(kind, f"{strength:g} {unit}".strip(), strength, _with(how, strength)) for strength in strengths
        ]

    return [
        *series("night sky added", night_sky, "p.e. a pixel", (0.5, 1.6, 4.0)),
        *series("dead pixels", dead_pixels, "of all", (0.01, 0.05, 0.1)),
        *series("gain errors", gain_errors, "relative", (0.05, 0.15, 0.3)),
        *series("light scale", light_scale, "times", (0.8, 0.9, 1.1, 1.2)),
        *series("camera turned", rotation, "deg", (10, 30, 60)),
    ]


def _with(how: Callable[..., Pixels], strength: float) -> Callable[[Pixels, CameraGeometry], Pixels]:
    return lambda images, camera: how(images, camera, strength)


def onto_camera(images: Pixels, source: CameraGeometry, target: CameraGeometry) -> Pixels:
    """Put images of one camera onto the pixels of another at the same place in the sky, as a test of another domain.

    The light of a pixel goes to the nearest pixel of the target, if one is within its pitch; target pixels that
    nothing falls on have no measurement (NaN).

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels of the source)
        p.e.
    source, target : CameraGeometry
    """
    away = np.hypot(source.x[:, None] - target.x, source.y[:, None] - target.y)
    nearest = away.argmin(axis=1)
    use = away.min(axis=1) < max(source.pitch, target.pitch) * 0.6
    moved = np.zeros((len(images), target.n_pixels), np.float32)
    np.add.at(moved.T, nearest[use], np.nan_to_num(images[:, use]).T)
    hit = np.bincount(nearest[use], minlength=target.n_pixels) > 0
    moved[:, ~hit] = np.nan
    return moved
