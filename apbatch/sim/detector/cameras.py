"""The camera of a detector: one that is known by name, or one read from a file."""

from __future__ import annotations

from pathlib import Path

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.files import camera_from_camgeom, camera_from_table
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import NotFoundError
from apbatch.sim.settings import DetectorModel


def camera_of(detector: DetectorModel) -> CameraGeometry:
    """Return the camera of a detector.

    Raises
    ------
    NotFoundError, FormatError, UsageError
        If there is no such camera, or its pixels are not hexagonal.
    """
    path = Path(detector.camera)
    if not (path.suffix or len(path.parts) > 1):
        return camera_named(detector.camera)
    if not path.is_file():
        raise NotFoundError("no such camera file", where=str(path), remedy="name a known camera or a file")
    if ".fits" in path.suffixes:
        return camera_from_camgeom(path, focal_length=detector.focal_length)
    return camera_from_table(path)
