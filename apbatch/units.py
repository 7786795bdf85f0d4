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


def convert(value: float, source: str | None, target: str | None) -> float:
    """Convert `value` from unit `source` to unit `target`; a bare number is taken in the target unit.

    Parameters
    ----------
    value : float
    source : str or None
        Unit of `value`; None for a bare number.
    target : str or None
        Unit of the result; None for a plain number, which has no unit.

    Raises
    ------
    UsageError
        If the units do not fit together, or a unit was given for a plain number.

    Examples
    --------
    >>> convert(180.0, "arcmin", "deg")
    3.0
    """
    if not source:
        return value
    if not target:
        raise UsageError(f"a plain number is wanted here, not '{value:g} {source}'")
    try:
        return float((value * unit(source)).to_value(unit(target)))
    except u.UnitConversionError as error:
        raise UsageError(f"'{source}' can't be converted to '{target}'", remedy=f"give it in {target}") from error


def parse_quantity(text: str | float, wanted: str) -> float:
    """Parse ``'14 pe'`` (or a bare number) into a float in the unit `wanted`.

    Raises
    ------
    UsageError
        If there is no number or the unit is wrong.

    Examples
    --------
    >>> parse_quantity("14 pe", "pe")
    14.0
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
