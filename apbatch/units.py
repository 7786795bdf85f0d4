"""Quantities with units in settings and queries: ``14 pe``, ``30 deg``, ``2 TeV``.

Stored numbers always have the one unit that is declared for their name; what a user writes is converted.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any

import astropy.units as u
from pydantic import BeforeValidator

from apbatch.errors import UsageError

#: Photo-electrons; astropy has no unit of that name.
PE = u.def_unit("pe", doc="photo-electron")
#: What people write beside the names that astropy knows.
_SPELLINGS = {
    "kB": "kbyte", "KB": "kbyte", "KiB": "Kibyte", "°": "deg", "degree": "deg", "degrees": "deg", "hours": "hour",
    "minutes": "min", "seconds": "s", "metres": "m", "meters": "m",
}  # fmt: skip
_NUMBER = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$")


@lru_cache(maxsize=256)
def unit(text: str) -> Any:
    """Return the astropy unit that `text` names.

    Raises
    ------
    UsageError
        If no such unit is known.
    """
    if text in ("pe", "p.e."):
        return PE
    text = _SPELLINGS.get(text, text)
    try:
        return u.Unit(text)
    except (ValueError, TypeError) as error:
        raise UsageError(f"unknown unit '{text}'", remedy="use deg, rad, m, km, s, TeV, GeV, eV, pe, …") from error


def convert(value: float, given: str | None, wanted: str | None) -> float:
    """Convert `value` from unit `given` to unit `wanted`; a bare number is taken in the wanted unit.

    Raises
    ------
    UsageError
        If the units do not fit together, or a unit was given for a plain number.
    """
    if not given:
        return value
    if not wanted:
        raise UsageError(f"a plain number is wanted here, not '{value:g} {given}'")
    try:
        return float((value * unit(given)).to_value(unit(wanted)))
    except u.UnitConversionError as error:
        raise UsageError(f"'{given}' can't be converted to '{wanted}'", remedy=f"give it in {wanted}") from error


def parse_quantity(text: str | float, wanted: str) -> float:
    """Parse ``'14 pe'`` (or a bare number) into a float in the unit `wanted`.

    Raises
    ------
    UsageError
        If there is no number or the unit is wrong.
    """
    if isinstance(text, bool):
        raise UsageError(f"a number in {wanted} is wanted, not '{text}'")
    if isinstance(text, (int, float)):
        return float(text)
    match = _NUMBER.match(str(text))
    if match is None:
        raise UsageError(f"a number in {wanted} is wanted, not '{text}'")
    return convert(float(match[1]), match[2] or None, wanted)


def quantity(wanted: str) -> BeforeValidator:
    """Return a pydantic validator for a field in the unit `wanted`, given as number or text with a unit."""

    def validate(value: Any) -> float:
        try:
            return parse_quantity(value, wanted)
        except UsageError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(validate)


PhotoElectrons = Annotated[float, quantity("pe")]
Degrees = Annotated[float, quantity("deg")]
Metres = Annotated[float, quantity("m")]
TeV = Annotated[float, quantity("TeV")]
