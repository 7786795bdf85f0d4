"""Boosted trees on halo parameters: the rival that an analysis of uncleaned images has to beat.

Moments of all pixels are mostly night sky. A careful analysis of the last generation cleans an image in several ways
and counts what lies around it, so its trees are given that: the features of `apbatch.dl.judging.rivals` after each of
the cleanings of `apbatch.camera.halo`, and its rings. Where networks see the images of other telescopes as well, so do
these trees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.camera.halo import CLEANINGS, HALO
from apbatch.errors import UsageError

#: Name of the method in tables.
HALO_TREES = "halo-trees"
#: Begins the names of columns of another telescope's image, with its number.
_PARTNER = "partner{number}_"
_RINGS = tuple(name for name in HALO if name.startswith("ring_"))


def with_partners(
    columns: Mapping[str, npt.NDArray[Any]], partners: Iterable[Mapping[str, npt.NDArray[Any]]]
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of images and, under names of their own, those of other telescopes' images of the showers.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (n_images,)
    partners : iterable of mapping
        Columns of the same names, the nearest telescope first; NaN where a shower has no such telescope.
    """
    beside = {
        f"{_PARTNER.format(number=number)}{name}": values
        for number, partner in enumerate(partners, start=1)
        for name, values in partner.items()
    }
    return {**columns, **beside}


def telescopes_of(columns: Mapping[str, npt.NDArray[Any]]) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """Yield the columns of each telescope under their plain names: the image's own, then those of its partners."""
    yield columns
    for number in count(1):
        start = _PARTNER.format(number=number)
        partner = {name.removeprefix(start): values for name, values in columns.items() if name.startswith(start)}
        if not partner:
            return
        yield partner


def split_by_cleaning(columns: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, npt.NDArray[Any]]]:
    """Return the image parameters after each cleaning, under their plain names.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (n_images,)
        Columns of `apbatch.camera.halo.halo`; others are passed over.

    Raises
    ------
    UsageError
        If one is missing.
    """
    missing = [name for name in HALO if name not in columns]
    if missing:
        raise UsageError(
            f"there is no halo parameter '{missing[0]}'",
            remedy="apbatch.camera.halo.halo computes them of uncleaned images",
        )
    endings = [f"_{rule.picture:g}" for rule in CLEANINGS]
    return [
        {name.removesuffix(ending): columns[name] for name in HALO if name.endswith(ending) and name not in _RINGS}
        for ending in endings
    ]


def rings(columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Return the columns of rings, shape (n_images, n_columns), and the mean light of a pixel in each part."""
    plain = [np.asarray(columns[name], np.float64) for name in _RINGS]
    lights = [name for name in _RINGS if name.endswith("_light")]
    means = [columns[name] / np.maximum(columns[f"{name.removesuffix('light')}pixels"], 1) for name in lights]
    return np.column_stack([*plain, *means])
