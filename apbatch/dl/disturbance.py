"""What may be wrong with real images: more night sky, dead pixels, wrong gains, a turned camera. Pure functions.

Each takes images of shape (n_images, n_pixels) in p.e. and gives new ones; the same seed gives the same images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry

Pixels = npt.NDArray[np.float32]
#: Relative width of the charge of one photo-electron, as in the simulation's detector.
_SINGLE_PE = 0.45


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
    """Add light of the night sky, mean `added` p.e. a pixel and image, its mean taken off as a pedestal would."""
    random = np.random.default_rng([seed, 1])
    photons = random.poisson(added, images.shape)
    charge = photons + _SINGLE_PE * np.sqrt(photons) * random.standard_normal(images.shape, np.float32)
    return np.asarray(images + (charge - added), np.float32)


def dead_pixels(images: Pixels, camera: CameraGeometry, share: float, seed: int = 1) -> Pixels:
    """Switch off a share of the pixels, the same in all images: NaN, no measurement."""
    random = np.random.default_rng([seed, 2])
    dead = random.permutation(camera.n_pixels)[: round(share * camera.n_pixels)]
    disturbed = images.copy()
    disturbed[:, dead] = np.nan
    return disturbed


def gain_errors(images: Pixels, camera: CameraGeometry, spread: float, seed: int = 1) -> Pixels:
    """Multiply every pixel by a factor of its own, the same in all images, of this relative spread around 1."""
    factors = np.random.default_rng([seed, 3]).normal(1, spread, camera.n_pixels)
    return np.asarray(images * np.maximum(factors, 0.05), np.float32)


def light_scale(images: Pixels, camera: CameraGeometry, factor: float, seed: int = 1) -> Pixels:
    """Multiply everything by one factor: a mirror or an atmosphere that is not the simulated one."""
    return np.asarray(images * factor, np.float32)


def rotation(images: Pixels, camera: CameraGeometry, degrees: float, seed: int = 1) -> Pixels:
    """Turn images around the middle of the camera.

    The light of a pixel is shared among the three pixels around the place that it turns to, by barycentric
    coordinates on the lattice; what would leave the camera is lost. By 60 degrees, where the lattice maps onto
    itself, pixels only move; by other angles the noise is smoothed a little.
    """
    design = np.column_stack([camera.q, camera.r, np.ones(camera.n_pixels)])
    solution, *_ = np.linalg.lstsq(design, np.column_stack([camera.x, camera.y]), rcond=None)
    basis, origin = solution[:2], solution[2]
    # The middle of the turn is the lattice point nearest to the camera's middle, so that 60 degrees are exact.
    start = np.rint(([camera.x.mean(), camera.y.mean()] - origin) @ np.linalg.inv(basis))
    middle = start @ basis + origin
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    places = (np.column_stack([camera.x, camera.y]) - middle) @ turn + middle
    axial = (places - origin) @ np.linalg.inv(basis)
    floor = np.floor(axial + 1e-9)
    u, v = np.clip(axial - floor, 0, 1).T
    lower = u + v <= 1
    corners = [
        (np.where(lower, 0, 1), np.where(lower, 0, 1), np.where(lower, 1 - u - v, u + v - 1)),
        (1, 0, np.where(lower, u, 1 - v)),
        (0, 1, np.where(lower, v, 1 - u)),
    ]
    board = {(int(q), int(r)): p for p, (q, r) in enumerate(zip(camera.q, camera.r, strict=True))}
    known = np.nan_to_num(images)
    turned = np.zeros_like(images)
    for dq, dr, weight in corners:
        cells = zip(floor[:, 0] + dq, floor[:, 1] + dr, strict=True)
        target = np.array([board.get((int(q), int(r)), -1) for q, r in cells])
        use = (target >= 0) & (weight > 1e-9)
        np.add.at(turned.T, target[use], (known[:, use] * weight[use].astype(np.float32)).T)
    return turned


def standard_disturbances() -> list[Disturbance]:
    """Return the list of the study's report."""

    def made(kind: str, how: Callable[..., Pixels], unit: str, strengths: tuple[float, ...]) -> list[Disturbance]:
        return [
            Disturbance(kind, f"{strength:g} {unit}".strip(), strength, _with(how, strength)) for strength in strengths
        ]

    return [
        *made("night sky added", night_sky, "p.e. a pixel", (0.5, 1.6, 4.0)),
        *made("dead pixels", dead_pixels, "of all", (0.01, 0.05, 0.1)),
        *made("gain errors", gain_errors, "relative", (0.05, 0.15, 0.3)),
        *made("light scale", light_scale, "times", (0.8, 0.9, 1.1, 1.2)),
        *made("camera turned", rotation, "deg", (10, 30, 60)),
    ]


def _with(how: Callable[..., Pixels], strength: float) -> Callable[[Pixels, CameraGeometry], Pixels]:
    return lambda images, camera: how(images, camera, strength)


def onto_camera(images: Pixels, source: CameraGeometry, target: CameraGeometry) -> Pixels:
    """Put images of one camera onto the pixels of another at the same place in the sky, as a test of another domain.

    The light of a pixel goes to the nearest pixel of the target, if one is within its pitch; target pixels that
    nothing falls on have no measurement (NaN).
    """
    away = np.hypot(source.x[:, None] - target.x, source.y[:, None] - target.y)
    nearest = away.argmin(axis=1)
    use = away.min(axis=1) < max(source.pitch, target.pitch) * 0.6
    moved = np.zeros((len(images), target.n_pixels), np.float32)
    np.add.at(moved.T, nearest[use], np.nan_to_num(images[:, use]).T)
    hit = np.bincount(nearest[use], minlength=target.n_pixels) > 0
    moved[:, ~hit] = np.nan
    return moved
