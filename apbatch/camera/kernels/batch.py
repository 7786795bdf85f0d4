"""The one door to the kernels on batches: the vector kernels where they can be trusted, the plain ones elsewhere.

The vector kernels stand on interfaces of numba that any of its versions may change. When a process first uses one of
them it is compared with the plain one (`selfcheck`). If it cannot be imported or compiled, or gives something else, the
plain kernels compute everything from there on, and one warning says so.
"""

from __future__ import annotations

import logging
import os
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning_rule import Cleaning
from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.camera.kernels import plain
from apbatch.camera.kernels.interface import Images, Kernels, Mask
from apbatch.camera.kernels.neighbours import refuse_large
from apbatch.camera.kernels.selfcheck import verify
from apbatch.errors import VerificationError

#: With this variable of the environment set to ``plain``, a process uses the plain kernels.
VARIABLE = "APBATCH_KERNELS"
#: What brings the vector kernels back.
REMEDY = "install the versions of numba and llvmlite in constraints/all.txt"
_FUNCTIONS = ("clean", "parametrise", "clean_and_parametrise", "apply_map", "halo")

_log = logging.getLogger(__name__)
_vectorised: Kernels | None = None
#: Why there are no vector kernels.
_refusal: Exception | None = None
try:
    from apbatch.camera.kernels import vectorised

    _vectorised = vectorised
except Exception as error:  # whatever another numba raises when types and operations are registered
    _refusal = error

#: The kernels that this process uses for a function, from its first call on.
_choice: dict[str, Kernels] = {}


def obstacle() -> str | None:
    """Return why a process like this uses the plain kernels; None if every vector kernel passes its self-check here."""
    if _asks_for_plain():
        return f"{VARIABLE}=plain"
    try:
        for name in _FUNCTIONS:
            _verified(name)
    except Exception as error:  # as in `_kernels_for`
        return _reason(error)
    return None


def versions() -> str:
    """Return the versions of what the vector kernels stand on."""
    return f"numba {_version('numba')}, llvmlite {_version('llvmlite')}"


def _asks_for_plain() -> bool:
    return os.environ.get(VARIABLE) == "plain"


def _kernels_for(name: str) -> Kernels:
    """Return the kernels of a function; its first call in a process decides."""
    if name not in _choice:
        if _asks_for_plain():
            return plain
        try:
            _choice.setdefault(name, _verified(name))
        except Exception as error:  # whatever another numba raises when it compiles, or what `verify` does
            _fall_back(error)
    return _choice[name]


def _verified(name: str) -> Kernels:
    if _vectorised is None:
        raise _refusal or ImportError("no vector kernels")
    verify(name, _vectorised, plain)
    return _vectorised


def _fall_back(error: Exception) -> None:
    """Choose the plain kernels for everything, so that results of one process fit together, and say why, once."""
    is_first = plain not in _choice.values()
    for name in _FUNCTIONS:
        _choice[name] = plain
    if is_first:
        _log.warning(
            "the vector kernels can't be used with %s (%s); the plain kernels give the same results more slowly; "
            "remedy: %s",
            versions(),
            _reason(error),
            REMEDY,
        )


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, VerificationError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def clean(
    images: Images, picture: Images, boundary: Images, cleaning: Cleaning, camera: CameraGeometry, mask: Mask
) -> None:
    """Tell which pixels the rule of two levels keeps; see `Kernels.clean`.

    Raises
    ------
    UsageError
        If the camera has too many pixels.
    """
    refuse_large(camera)
    _kernels_for("clean").clean(images, picture, boundary, cleaning, camera, mask)


def parametrise(images: Images, mask: Mask, camera: CameraGeometry, source: tuple[float, float], table: Floats) -> None:
    """Compute the image parameters of the pixels with light; see `Kernels.parametrise`.

    Raises
    ------
    UsageError
        If the camera has too many pixels.
    """
    refuse_large(camera)
    _kernels_for("parametrise").parametrise(images, mask, camera, source, table)


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
    """Do both in one pass over the pixels; see `Kernels.clean` and see `Kernels.parametrise`.

    Raises
    ------
    UsageError
        If the camera has too many pixels.
    """
    refuse_large(camera)
    kernels = _kernels_for("clean_and_parametrise")
    kernels.clean_and_parametrise(images, picture, boundary, cleaning, camera, source, mask, table)


def apply_map(
    images: Images,
    mask: Mask | None,
    start: Ints,
    pixel: Ints,
    weight: npt.NDArray[np.float32],
    grids: npt.NDArray[np.float32],
) -> None:
    """Apply a sparse map from pixels to cells; see `Kernels.apply_map`."""
    _kernels_for("apply_map").apply_map(images, mask, start, pixel, weight, grids)


def halo(images: Images, camera: CameraGeometry, source: tuple[float, float], table: Floats) -> None:
    """Compute the halo parameters; see `Kernels.halo`.

    Raises
    ------
    UsageError
        If the camera has too many pixels.
    """
    refuse_large(camera)
    _kernels_for("halo").halo(images, camera, source, table)
