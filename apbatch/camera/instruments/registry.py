"""The cameras that are known by name."""

from __future__ import annotations

from functools import cache

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.fact import NAME as FACT
from apbatch.camera.instruments.fact import fact
from apbatch.camera.instruments.magic import NAME as MAGIC
from apbatch.camera.instruments.magic import magic
from apbatch.camera.instruments.taiga import IACT01, IACT02, iact01, iact01_2017, iact02
from apbatch.errors import NotFoundError, nearest_word

_CAMERAS = {FACT: fact, MAGIC: magic, IACT01: iact01, f"{IACT01}-2017": iact01_2017, IACT02: iact02}


def cameras() -> list[str]:
    """Return the names of the known cameras, sorted."""
    return sorted(_CAMERAS)


@cache
def camera_named(name: str) -> CameraGeometry:
    """Return the camera with this name.

    Parameters
    ----------
    name : str
        One of `cameras`.

    Raises
    ------
    NotFoundError
        With the nearest known name.

    Examples
    --------
    >>> camera_named("TAIGA-IACT01").n_pixels
    560
    """
    if name not in _CAMERAS:
        raise NotFoundError(
            f"there is no camera '{name}'",
            nearest=nearest_word(name, cameras()),
            remedy=f"known cameras: {', '.join(cameras())}",
        )
    return _CAMERAS[name]()
