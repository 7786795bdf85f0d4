"""Calibration tables of TAIGA-IACT: conversion factors of channels, and coordinates of photomultipliers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.errors import FormatError, NotFoundError
from apbatch.formats.text.lines import Line, Problems, lines_of, numbers

#: ``FACTORS_*.txt``: of each ADC channel (even: high gain, odd: low gain) of each cluster. NaN: not calibrated.
FACTORS = np.dtype(
    [
        ("cluster", "i8"),
        ("channel", "i8"),
        ("gain", "f8"),  # of the photomultiplier, in units of 1e5
        ("k_adc", "f8"),  # input charge in fC to ADC codes
        ("codes_per_pe", "f8"),  # ADC codes of one photo-electron
        ("relative_sensitivity", "f8"),
    ]
)

#: ``xy_turn_*.txt``, ``PMT_coordinates.txt``: of each photomultiplier.
COORDINATES = np.dtype(
    [
        ("cluster", "i8"),
        ("pixel", "i8"),  # in its cluster, from 1
        ("number", "i8"),  # auxiliary
        ("x", "f8"),  # cm, azimuth, seen from the photomultipliers towards the mirrors
        ("y", "f8"),  # cm, zenith
        ("high", "i8"),  # high-gain ADC channel
        ("low", "i8"),  # low-gain ADC channel
        ("current", "i8"),  # channel of anode currents and counting rates
    ]
)

#: Numbers of ADC channels in a record.
_CHANNELS = 64


def read_factors(path: Path) -> npt.NDArray[np.void]:
    """Read the conversion factors of all channels.

    Returns
    -------
    ndarray of dtype `FACTORS`
        In the order of the file. A photo-electron that has not a positive number of codes (a fit that failed) is
        NaN: that channel is not calibrated.

    Raises
    ------
    NotFoundError, FormatError
        With the line.
    """
    table = _read(path, FACTORS)
    _check(path, table, (table["channel"] >= 0) & (table["channel"] < _CHANNELS), "no ADC channel of that number")
    _no_repeats(path, table, "channel")
    rows = table["row"]
    rows["codes_per_pe"][~(rows["codes_per_pe"] > 0)] = np.nan
    return rows


def read_coordinates(path: Path) -> npt.NDArray[np.void]:
    """Read the coordinates and channels of all photomultipliers.

    Returns
    -------
    ndarray of dtype `COORDINATES`
        In the order of the file.

    Raises
    ------
    NotFoundError, FormatError
        With the line.
    """
    table = _read(path, COORDINATES)
    fits = (table["high"] >= 0) & (table["high"] < _CHANNELS) & (table["low"] == table["high"] + 1)
    _check(path, table, fits, "the high-gain channel must be below 64 and the low-gain channel the next one")
    _check(path, table, np.isfinite(table["x"]) & np.isfinite(table["y"]), "a photomultiplier without a place")
    _no_repeats(path, table, "high")
    return table["row"]


class _Table:
    """A structured array that remembers the lines its rows came from."""

    def __init__(self, rows: npt.NDArray[np.void], lines: list[int]) -> None:
        self._rows, self.lines = rows, lines

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._rows if name == "row" else self._rows[name]


def _read(path: Path, dtype: np.dtype[np.void]) -> _Table:
    rows: list[tuple[float, ...]] = []
    numbers_of_lines: list[int] = []
    for line in _lines(path):
        row = _row(line, dtype)
        if isinstance(row, str):
            # Text before the table is its preface; after its first row every line must be one.
            if rows and not set(line.text.strip()) <= set("=-_ ") and not line.text.lstrip().startswith("#"):
                raise FormatError(row, where=f"{path}:{line.number}")
            continue
        rows.append(row)
        numbers_of_lines.append(line.number)
    if not rows:
        raise FormatError(
            f"no line with the {len(dtype.names or ())} numbers {', '.join(dtype.names or ())}",
            where=str(path),
            remedy="give a calibration table of TAIGA-IACT",
        )
    return _Table(np.array(rows, dtype), numbers_of_lines)


def _lines(path: Path) -> Iterator[Line]:
    problems = Problems()
    try:
        with path.open("rb") as stream:
            yield from lines_of(stream, problems)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFoundError("no such file", where=str(path)) from error
    except OSError as error:
        raise FormatError(f"can't be read: {error.strerror}", where=str(path)) from error
    if problems.kept:
        raise FormatError(problems.kept[0].reason, where=str(path))


def _row(line: Line, dtype: np.dtype[np.void]) -> tuple[float, ...] | str:
    """Return the numbers of a line, or what is wrong with it."""
    words = line.words
    names = dtype.names or ()
    if len(words) != len(names):
        return f"{len(names)} numbers are wanted ({', '.join(names)}), not {len(words)} words"
    values = numbers(words)
    if values is None:
        wrong = next(word for word in words if numbers([word]) is None)
        return f"'{wrong}' is not a number"
    for name, word, value in zip(names, words, values, strict=True):
        if dtype[name].kind == "i" and not (math.isfinite(value) and value == int(value) and abs(value) < 2**53):
            return f"{name} must be a whole number, not '{word}'"
    return tuple(values)


def _check(path: Path, table: _Table, right: npt.NDArray[np.bool_], what: str) -> None:
    if not right.all():
        raise FormatError(what, where=f"{path}:{table.lines[int(np.argmin(right))]}")


def _no_repeats(path: Path, table: _Table, channel: str) -> None:
    line_of: dict[tuple[int, int], int] = {}
    for cluster, number, line in zip(table["cluster"].tolist(), table[channel].tolist(), table.lines, strict=True):
        if (cluster, number) in line_of:
            raise FormatError(
                f"cluster {cluster} channel {number} is given twice (first on line {line_of[cluster, number]})",
                where=f"{path}:{line}",
            )
        line_of[cluster, number] = line
