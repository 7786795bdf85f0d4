"""One event as JSON for the page: pixels, the cleaned image, its ellipse, the grid beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apbatch.access.event_image import EventImage, image_of_event
from apbatch.access.guard import Guard
from apbatch.access.opening import Files
from apbatch.camera.cleaning import clean, cleaning_named
from apbatch.camera.grid import to_grid
from apbatch.camera.hillas import hillas
from apbatch.errors import ApbatchError, NotFoundError

#: Parameters that the ellipse and the table beside the image show.
_SHOWN = ("size", "cog_x", "cog_y", "length", "width", "psi", "distance", "alpha", "skewness", "n_pixels", "n_islands")


def display(
    door: Guard, files: Files | None, key: tuple[str, int, int, int], rows: Sequence[dict[str, Any]], cleaning: str
) -> dict[str, Any]:
    """Return what an event looked like.

    Parameters
    ----------
    door : Guard
    files : Files, optional
        Opens entries of the merged tree.
    key : tuple
        Experiment, run, event, telescope.
    rows : sequence of dict
        The event as the store of events has it, one row a cleaning.
    cleaning : str
        Name of a cleaning.

    Raises
    ------
    NotFoundError, UsageError
        If there is no such cleaning.
    """
    rule = cleaning_named(cleaning)
    try:
        image = image_of_event(door, files, key, rows)
    except NotFoundError as error:
        return {"image": None, "reason": error.what}
    return {"image": described_image(image, rule)}


def described_image(image: EventImage, rule: Any) -> dict[str, Any]:
    """Return an image, and what a cleaning makes of it, as JSON."""
    camera = image.camera
    pixels = image.pixels[None, :]
    times = None if image.times is None else image.times[None, :]
    cleaned: dict[str, Any]
    try:
        mask = clean(pixels, camera, rule, peak_time=times)
        cleaned = {"name": rule.name, "mask": np.flatnonzero(mask[0]).tolist()}
        cleaned["parameters"] = _parameters(hillas(pixels, camera, mask))
    except ApbatchError as error:
        mask = np.zeros(pixels.shape, np.bool_)
        cleaned = {"name": rule.name, "mask": [], "parameters": None, "reason": error.what}
    grid = to_grid(pixels, camera)[0]
    return {
        "camera": camera.name,
        "lattice": camera.lattice,
        "pitch": camera.pitch,
        "x": np.round(camera.x, 5).tolist(),
        "y": np.round(camera.y, 5).tolist(),
        "values": _numbers(image.pixels),
        "times": None if image.times is None else _numbers(image.times),
        "unit": "pe",
        "all": {"name": "none", "parameters": _parameters(hillas(pixels, camera))},
        "cleaned": cleaned,
        "grid": {
            "rows": grid.shape[0],
            "columns": grid.shape[1],
            "values": _numbers(grid.ravel()),
            "cleaned": _numbers(to_grid(pixels, camera, mask)[0].ravel()),
        },
    }


def _numbers(values: Any) -> list[float | None]:
    return [round(float(value), 3) if np.isfinite(value) else None for value in values]


def _parameters(columns: dict[str, Any]) -> dict[str, float | None]:
    return {
        name: float(columns[name][0]) if np.isfinite(columns[name][0]) else None for name in _SHOWN if name in columns
    }
