"""The words by which a cleaning is asked for: the same on the command line, in job descriptions and in Python.

``cleaning`` is a preset (``soft``), a name as it stands in tables (``tailcuts-14-7``) or a method (``sigma``); the
other words refine it. Levels say by their unit what they are: ``14 pe``, ``4 sigma``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast, get_args

from apbatch.camera.cleaning_rule import PRESETS, Cleaning, Method, cleaning_named
from apbatch.errors import NotFoundError, UsageError, nearest_word
from apbatch.units import parse_quantity

METHODS: tuple[str, ...] = get_args(Method)
#: Every word and what it means, for help texts.
WORDS = {
    "cleaning": f"{', '.join(PRESETS)}, a name such as tailcuts-14-7, or a method: {', '.join(METHODS)}",
    "picture": "level of pixels of the picture, such as '14 pe' or '4 sigma' (of each pixel's noise)",
    "boundary": "level of pixels beside them, such as '7 pe' or '2 sigma'",
    "min_neighbours": "how many neighbours of a picture pixel must be in the picture",
    "keep_isolated": "keep picture pixels that stand alone",
    "time_limit": "drop pixels without a kept neighbour within this time, such as '5 ns'",
    "time_neighbours": "how many such neighbours a pixel needs (default: 1)",
    "largest_island": "keep the largest island only",
}
SIGMA = "sigma"


def level(text: str | float) -> tuple[float, str | None]:
    """Read a level: its number, and its unit, ``pe`` or ``sigma``, if it has one.

    Raises
    ------
    UsageError
        If it is no number or of another unit.
    """
    if not isinstance(text, str):
        return parse_quantity(text, "pe"), None
    number, _, unit = text.strip().partition(" ")
    if text.strip().endswith(SIGMA):
        return parse_quantity(text.strip().removesuffix(SIGMA), SIGMA), SIGMA
    try:
        return parse_quantity(text, "pe"), "pe" if unit or not _is_number(number) else None
    except UsageError as error:
        error.nearest = error.nearest or nearest_word(unit, ("pe", SIGMA))
        raise


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def cleaning_of(
    cleaning: str | None = None,
    *,
    picture: str | float | None = None,
    boundary: str | float | None = None,
    min_neighbours: int | None = None,
    keep_isolated: bool | None = None,
    time_limit: str | float | None = None,
    time_neighbours: int | None = None,
    largest_island: bool | None = None,
) -> Cleaning:
    """Return the cleaning that these words ask for; without any, ``standard``.

    >>> cleaning_of("soft", largest_island=True).name
    'tailcuts-7-3.5-largest'
    >>> cleaning_of(picture="4 sigma", boundary="2 sigma").name
    'sigma-4-2'

    Parameters
    ----------
    cleaning : str, optional
        Preset, name or method. Without it, levels in sigma or a time limit tell the method.
    picture, boundary : str or float, optional
        With a unit, or plain numbers in the method's unit (p.e. unless it is ``sigma``).
    time_limit : str or float, optional
        Plain numbers are ns.
    min_neighbours, keep_isolated, time_neighbours, largest_island
        As of `Cleaning`.

    Raises
    ------
    NotFoundError
        If there is no such cleaning, with the nearest.
    UsageError
        If units do not fit, levels are missing, or the cleaning makes no sense.
    """
    read = {name: level(text) for name, text in (("picture", picture), ("boundary", boundary)) if text is not None}
    limit = None if time_limit is None else parse_quantity(time_limit, "ns")
    units = {unit for _, unit in read.values() if unit is not None}
    if len(units) > 1:
        raise UsageError("one level is in p.e., the other in sigma", remedy="give both in the same unit")
    preset: Cleaning | None = None
    if cleaning is None:
        method = "sigma" if SIGMA in units else "time-neighbours" if limit is not None else "tailcuts"
    elif cleaning in METHODS:
        method = cleaning
    else:
        preset = _named(cleaning)
        method = "time-neighbours" if preset.method == "tailcuts" and limit is not None else preset.method
    level_unit = SIGMA if method == "sigma" else "pe"
    if units - {level_unit}:
        raise UsageError(
            f"levels of the cleaning '{cleaning or method}' are in {level_unit}, not in {units.pop()}",
            remedy="cleaning: sigma for multiples of each pixel's noise" if level_unit == "pe" else "such as 4 sigma",
        )
    if preset is None and method == "sigma" and len(read) < 2:
        raise UsageError("a cleaning by sigma needs both levels", remedy="picture: 4 sigma, boundary: 2 sigma")
    start = preset or PRESETS["standard"]
    numbers = {name: number for name, (number, _) in read.items()}
    options = {
        "min_neighbours": min_neighbours,
        "keep_isolated": keep_isolated,
        "time_limit": limit,
        "time_neighbours": time_neighbours,
        "largest_island": largest_island,
    }
    changes = {**numbers, **{name: value for name, value in options.items() if value is not None}}
    if changes.get("time_neighbours") is not None and (limit or start.time_limit) is None:
        raise UsageError("neighbours in time need a time limit", remedy="time_limit: 5 ns")
    return replace(start, method=cast(Method, method), **cast(dict[str, Any], changes))


def _named(name: str) -> Cleaning:
    try:
        return cleaning_named(name)
    except NotFoundError as error:
        raise NotFoundError(
            f"there is no cleaning '{name}'",
            nearest=nearest_word(name, [*PRESETS, *METHODS]) or error.nearest,
            remedy=f"known are {', '.join((*PRESETS, *METHODS))}, and names such as tailcuts-14-7",
        ) from None


def words_of(cleaning: Cleaning) -> dict[str, str | float | int | bool]:
    """Return the words that describe a cleaning; what is at its default is left out, but for levels and neighbours.

    Equal cleanings have equal words, however they were asked for.
    """
    words: dict[str, str | float | int | bool] = {
        "picture": float(cleaning.picture),
        "boundary": float(cleaning.boundary),
        "min_neighbours": cleaning.min_neighbours,
    }
    if cleaning.method != "tailcuts":
        words["cleaning"] = cleaning.method
    if cleaning.keep_isolated:
        words["keep_isolated"] = True
    if cleaning.time_limit is not None:
        words |= {"time_limit": float(cleaning.time_limit), "time_neighbours": cleaning.time_neighbours}
    if cleaning.largest_island:
        words["largest_island"] = True
    return words
