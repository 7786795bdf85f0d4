"""Kernel cases: cleaning and image parameters of whole batches, against ctapipe and against reading the images once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.calibration import calibration_group
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.camera.cleaning import Cleaning
from apbatch.camera.geometry import CameraGeometry, Floats, camera_from_positions
from apbatch.camera.halo import CLEANINGS, halo
from apbatch.camera.hillas import clean_and_parametrise, hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import VerificationError

APBATCH, CTAPIPE, SUM = "apbatch", "ctapipe", "numpy.sum"
#: What the chain does to each image, whether halo parameters are wanted or not.
CHAIN = "without and with cleaning"
Images = npt.NDArray[np.float32]

#: Images with the same seed are the same images: runs can be compared.
SEED = 2018
#: How many images of each round are compared one by one with ctapipe's results.
_COMPARED = 50


@dataclass(frozen=True)
class Scene:
    """Camera, cleaning and kind of images of one operation.

    Attributes
    ----------
    noise : float
        Standard deviation of the night sky's light in a pixel, p.e.
    smallest : float
        Sizes follow a power law with index -2 from here to 20,000 p.e.
    length, width : float
        Medians of the r.m.s. along and across the axis at 500 p.e., deg.
    """

    camera: CameraGeometry
    cleaning: Cleaning
    noise: float
    smallest: float
    length: float
    width: float


def scenes() -> list[Scene]:
    """Return what is measured: the camera of TAIGA-IACT01, and one of 1,855 pixels as the LST has.

    The images of the first have about as many pixels after cleaning as the TAIGA collaboration's Monte Carlo.
    """
    return [
        Scene(camera_named("TAIGA-IACT01"), Cleaning("tailcuts", 14, 7), 2.0, 220.0, 0.42, 0.22),
        Scene(camera_of_modules(265, 0.1), Cleaning("tailcuts", 8, 4), 1.3, 150.0, 0.3, 0.12),
    ]


def camera_of_modules(modules: int, pitch: float) -> CameraGeometry:
    """Return a camera of round modules of seven hexagonal pixels, numbered module by module from the middle on."""
    steps = np.arange(-30, 31)
    m, n = (grid.ravel() for grid in np.meshgrid(steps, steps))
    q, r = 2 * m - n, m + 3 * n  # centres of modules: the lattice of index 7
    x, y = _places(q, r, pitch)
    nearest = np.lexsort((y, x, np.round(np.hypot(x, y), 9)))[:modules]
    petals = np.array([(0, 0), (1, -1), (0, -1), (-1, 0), (-1, 1), (0, 1), (1, 0)])
    q = (q[nearest][:, None] + petals[:, 0]).ravel()
    r = (r[nearest][:, None] + petals[:, 1]).ravel()
    return camera_from_positions(f"{7 * modules} pixels", *_places(q, r, pitch))


def _places(q: Any, r: Any, pitch: float) -> tuple[Floats, Floats]:
    return pitch * (q + r / 2), pitch * np.sqrt(0.75) * r


def shower_images(scene: Scene, number: int, seed: int = SEED) -> Images:
    """Return images as showers make them: ellipses that point about to the middle, with photon statistics, and noise.

    Parameters
    ----------
    scene : Scene
        Camera, cleaning and noise.
    number : int
        How many images.
    seed : int

    Returns
    -------
    ndarray of float32, shape (number, n_pixels)
    """
    camera, draw = scene.camera, np.random.default_rng(seed)
    images = draw.normal(0, scene.noise, (number, camera.n_pixels))
    largest = 0.8 * np.hypot(camera.x, camera.y).max()
    least, most = 1 / scene.smallest, 1 / 20_000.0
    for image in images:
        size = 1 / (least + draw.random() * (most - least))
        distance, direction = largest * np.sqrt(draw.random()), draw.uniform(0, 2 * np.pi)
        axis = direction + draw.normal(0, 0.3)
        growth = np.exp(draw.normal(0, 0.25, 2)) * (size / 500) ** 0.12
        length, width = scene.length * growth[0], scene.width * growth[1]
        dx, dy = camera.x - distance * np.cos(direction), camera.y - distance * np.sin(direction)
        along, across = dx * np.cos(axis) + dy * np.sin(axis), dy * np.cos(axis) - dx * np.sin(axis)
        density = np.exp(-0.5 * ((along / length) ** 2 + (across / width) ** 2)) / (2 * np.pi * length * width)
        image += draw.poisson(size * density * np.sqrt(0.75) * camera.pitch**2)
    return images.astype(np.float32)


def kernel_groups(setting: Setting) -> Iterator[Group]:
    """Yield the groups of the kernels suite; everything runs on one core."""
    _pin(setting)
    yield calibration_group(setting)
    ctapipe = _ctapipe(setting)
    for scene in scenes():
        images = shower_images(scene, setting.size.images)
        operation = Operation(
            "kernels",
            f"clean and parametrise, {scene.camera.n_pixels} pixels",
            f"{len(images)} simulated images, {scene.cleaning.name}, then Hillas parameters. apbatch: one call, mask "
            "and all parameters. ctapipe: tailcuts_clean and hillas_parameters, image by image. numpy.sum: over the "
            "same float32 numbers.",
            "images/s",
            float(len(images)),
            SUM,
            CTAPIPE,
            "cpu",
        )
        cases: list[Case] = [_Fused(operation, scene, images, ctapipe), _Sum(operation, images)]
        if ctapipe is not None:
            cases.append(_Ctapipe(operation, scene, images, ctapipe))
        yield Group(operation, cases)
        around = Operation(
            "kernels",
            f"halo parameters, {scene.camera.n_pixels} pixels",
            f"The same images. apbatch: parameters after {len(CLEANINGS)} cleanings, and of rings around the ellipse, "
            "in one call. The peer: the parameters of all pixels, then cleaning and the parameters of what is kept, "
            "which the chain computes of every image.",
            "images/s",
            float(len(images)),
            SUM,
            CHAIN,
            "cpu",
        )
        yield Group(around, [_Halo(around, scene, images), _Sum(around, images), _Chain(around, scene, images)])


def _pin(setting: Setting) -> None:
    """Stay on one core, so that no library works with more threads than one."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    setting.at_end.callback(os.sched_setaffinity, 0, cores)


def _ctapipe(setting: Setting) -> Any:
    try:
        import ctapipe.image
        import ctapipe.instrument

        return ctapipe
    except ImportError as error:
        setting.left_out[CTAPIPE] = f"not installed ({error}): pip install 'apbatch[test]'"
        return None


class _Fused(Case):
    """One call for all; proof: masks and parameters of some images are those of ctapipe, or sums of the pixels kept."""

    def __init__(self, operation: Operation, scene: Scene, images: Images, ctapipe: Any) -> None:
        super().__init__(operation, APBATCH, images.nbytes)
        self._scene, self._images, self._ctapipe = scene, images, ctapipe
        self._mask = np.empty(images.shape, np.bool_)
        self._result: dict[str, Floats] = {}

    def run(self) -> None:
        _, self._result = clean_and_parametrise(self._images, self._scene.camera, self._scene.cleaning, out=self._mask)

    def check(self) -> None:
        size = np.where(self._mask, self._images, 0).sum(axis=1, dtype=np.float64)
        if not np.allclose(self._result["size"], size, rtol=1e-6) or not self._mask.any(axis=1).mean() > 0.9:
            raise VerificationError("sizes are not the sums of the pixels kept")
        if self._ctapipe is None:
            return
        for row in np.linspace(0, len(self._images) - 1, _COMPARED).astype(int):
            mask, theirs = _by_ctapipe(self._ctapipe, self._scene, self._images[row])
            if not np.array_equal(mask, self._mask[row]):
                raise VerificationError("the mask is not ctapipe's", where=f"image {row}")
            if theirs is None or mask.sum() < 4:
                continue
            ours = [self._result[name][row] for name in ("size", "cog_x", "cog_y", "length", "width")]
            expected = [
                theirs.intensity,
                *(getattr(theirs, name).value for name in ("fov_lon", "fov_lat", "length", "width")),
            ]
            if not np.allclose(ours, expected, rtol=1e-5, atol=1e-9):
                raise VerificationError("parameters are not ctapipe's", where=f"image {row}")


class _Halo(Case):
    """One call for all; proof: sizes are those of cleaning by itself, and rings are in most images."""

    def __init__(self, operation: Operation, scene: Scene, images: Images) -> None:
        super().__init__(operation, APBATCH, images.nbytes)
        self._scene, self._images = scene, images
        self._columns: dict[str, Floats] = {}

    def run(self) -> None:
        self._columns = halo(self._images, self._scene.camera)

    def check(self) -> None:
        for rule in CLEANINGS:
            _, alone = clean_and_parametrise(self._images, self._scene.camera, rule)
            if not np.array_equal(self._columns[f"size_{rule.picture:g}"], alone["size"]):
                raise VerificationError(f"sizes are not those of the cleaning {rule.name}")
        if not np.isfinite(self._columns["ring_1_along_light"]).mean() > 0.9:
            raise VerificationError("images have no rings")


class _Chain(Case):
    """Two calls; proof: sizes are sums of pixels."""

    def __init__(self, operation: Operation, scene: Scene, images: Images) -> None:
        super().__init__(operation, CHAIN, images.nbytes)
        self._scene, self._images = scene, images
        self._mask = np.empty(images.shape, np.bool_)
        self._sizes: list[Floats] = []

    def run(self) -> None:
        whole = hillas(self._images, self._scene.camera)
        _, parameters = clean_and_parametrise(self._images, self._scene.camera, self._scene.cleaning, out=self._mask)
        self._sizes = [whole["size"], parameters["size"]]

    def check(self) -> None:
        for keep, size in zip((self._images > 0, self._mask), self._sizes, strict=True):
            if not np.allclose(size, np.where(keep, self._images, 0).sum(axis=1, dtype=np.float64), rtol=1e-6):
                raise VerificationError("sizes are not the sums of the pixels kept")


class _Sum(Case):
    """Read every pixel once; proof: the sum is right."""

    def __init__(self, operation: Operation, images: Images) -> None:
        super().__init__(operation, SUM, images.nbytes)
        self._images, self._result = images, 0.0

    def run(self) -> None:
        self._result = float(np.sum(self._images))

    def check(self) -> None:
        expected = self._images.sum(dtype=np.float64)
        if not np.isclose(self._result, expected, rtol=1e-3):
            raise VerificationError(f"the sum is {self._result}, not {expected}")


class _Ctapipe(Case):
    """Image by image; proof: as many images have parameters as have pixels."""

    def __init__(self, operation: Operation, scene: Scene, images: Images, ctapipe: Any) -> None:
        super().__init__(operation, CTAPIPE, images.nbytes)
        self._scene, self._images, self._ctapipe = scene, images, ctapipe
        self._n_measured = 0

    def run(self) -> None:
        self._n_measured = sum(_by_ctapipe(self._ctapipe, self._scene, image)[1] is not None for image in self._images)

    def check(self) -> None:
        if not 0.9 * len(self._images) < self._n_measured <= len(self._images):
            raise VerificationError(f"{self._n_measured} of {len(self._images)} images have parameters")


_geometries: dict[str, Any] = {}


def _by_ctapipe(ctapipe: Any, scene: Scene, image: Images) -> tuple[npt.NDArray[np.bool_], Any]:
    """Clean one image and parametrise what is left, if anything is."""
    geometry = _geometries.get(scene.camera.name)
    if geometry is None:
        import astropy.units as u

        camera = scene.camera
        area = np.full(camera.n_pixels, np.sqrt(0.75) * camera.pitch**2)
        geometry = _geometries[camera.name] = ctapipe.instrument.CameraGeometry(
            camera.name, np.arange(camera.n_pixels), camera.x * u.deg, camera.y * u.deg, area * u.deg**2, "hexagonal"
        )
    mask = ctapipe.image.tailcuts_clean(geometry, image, scene.cleaning.picture, scene.cleaning.boundary)
    return mask, ctapipe.image.hillas_parameters(geometry[mask], image[mask]) if mask.any() else None
