"""A camera's geometry as JSON, embedded in the schema of its images, so that nobody else has to know the camera."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from apbatch.camera.geometry import CameraGeometry, Ints, camera_from_positions, neighbours_of
from apbatch.errors import FormatError

#: Positions of telescopes by number: x (to the north), y (to the west), z, in m.
Telescopes = Mapping[int, tuple[float, float, float]]

_LATTICES = ("hexagonal", "square")
#: A larger description is no camera's: 11,328 pixels take half a megabyte.
_LARGEST = 16 << 20
#: Cells of the lattice around the pixels: more, for each pixel, and most of the camera would be holes.
_CELLS_A_PIXEL = 100
_REMEDY = "the file was damaged, or written by another program"


def geometry_json(camera: CameraGeometry, telescopes: Telescopes | None = None) -> str:
    """Describe a camera: positions in deg, lattice, focal length in m, and where its telescopes stand."""
    text = _camera_json(camera)
    if not telescopes:
        return text
    places = {str(number): list(place) for number, place in sorted(telescopes.items())}
    return text[:-1] + ',"telescopes":' + json.dumps(places, separators=(",", ":")) + "}"


@lru_cache(maxsize=64)
def _camera_json(camera: CameraGeometry) -> str:
    content: dict[str, Any] = {
        "lattice": camera.lattice,
        "focal_length": camera.focal_length,
        "pitch": camera.pitch,
        **{name: getattr(camera, name).tolist() for name in ("x", "y", "q", "r")},
    }
    if camera.cluster.any():
        content["cluster"] = camera.cluster.tolist()
    if not np.array_equal(camera.number, np.arange(camera.n_pixels)):
        content["number"] = camera.number.tolist()
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=64)
def camera_from_json(name: str, text: bytes) -> CameraGeometry:
    """Return the camera that `geometry_json` described.

    Raises
    ------
    FormatError
        If it is no description of a camera.
    """
    content = _object(name, text)
    x, y = (_numbers(content, key, name) for key in ("x", "y"))
    cluster, number = (_whole(content, key, name) if key in content else None for key in ("cluster", "number"))
    focal_length = content.get("focal_length")
    if focal_length is not None and not _positive(focal_length):
        raise _bad(name, "focal_length must be a positive number of metres")
    lattice = content.get("lattice")
    if lattice not in _LATTICES:
        raise _bad(name, f"lattice must be one of {', '.join(_LATTICES)}")
    optional = [column for column in (cluster, number) if column is not None]
    if "q" not in content and "r" not in content:
        if any(len(column) != len(x) for column in optional):
            raise _bad(name, "columns of different lengths")
        return camera_from_positions(
            name, x, y, cluster=cluster, number=number, lattice=lattice, focal_length=focal_length
        )
    q, r = (_whole(content, key, name) for key in ("q", "r"))
    if len(x) < 3 or any(len(column) != len(x) for column in (y, q, r, *optional)):
        raise _bad(name, "columns of different lengths, or of fewer than three pixels")
    pitch = content.get("pitch", 0)
    if not _positive(pitch):
        raise _bad(name, "pitch must be a positive number of degrees")
    if min(q.min(), r.min()) < 0 or (q.max() + 1.0) * (r.max() + 1.0) > _CELLS_A_PIXEL * len(x):
        raise _bad(name, "q and r are no coordinates of a lattice")
    if len(np.unique(np.column_stack([q, r]), axis=0)) < len(x):
        raise _bad(name, "two pixels lie on the same place")
    return CameraGeometry(
        name=name,
        x=x,
        y=y,
        pitch=float(pitch),
        neighbours=neighbours_of(q, r, lattice),
        q=q,
        r=r,
        cluster=np.zeros(len(x), np.int64) if cluster is None else cluster,
        number=np.arange(len(x)) if number is None else number,
        lattice=lattice,
        focal_length=focal_length,
    )


def telescopes_from_json(name: str, text: bytes) -> dict[int, tuple[float, float, float]]:
    """Return the positions of telescopes in a description, m; empty where it has none.

    Raises
    ------
    FormatError
    """
    content = _object(name, text).get("telescopes", {})
    places = {}
    try:
        for number, (x, y, z) in content.items():
            places[int(number)] = (float(x), float(y), float(z))
    except (AttributeError, TypeError, ValueError) as error:
        raise _bad(name, "telescopes must be three coordinates by number") from error
    if not all(map(math.isfinite, (value for place in places.values() for value in place))):
        raise _bad(name, "telescopes must have finite coordinates")
    return places


def _object(name: str, text: bytes) -> dict[str, Any]:
    if len(text) > _LARGEST:
        raise _bad(name, f"a description of {len(text)} bytes")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(name, f"not JSON: {str(error)[:100]}") from error
    if not isinstance(content, dict):
        raise _bad(name, "not a JSON object")
    return content


def _numbers(content: dict[str, Any], key: str, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        column = np.array(content[key], np.float64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _bad(name, f"{key} must be a list of numbers") from error
    if column.ndim != 1 or not np.isfinite(column).all():
        raise _bad(name, f"{key} must be a list of finite numbers")
    return column


def _whole(content: dict[str, Any], key: str, name: str) -> Ints:
    column = _numbers(content, key, name)
    if not (np.abs(column) < 1 << 40).all() or not (column == np.rint(column)).all():
        raise _bad(name, f"{key} must be whole numbers")
    return column.astype(np.int64)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _bad(name: str, what: str) -> FormatError:
    return FormatError(f"no usable geometry of camera '{name}' in the schema: {what}", remedy=_REMEDY)
