"""Quantities with units."""

import pytest

from apbatch.errors import UsageError
from apbatch.units import convert, parse_quantity


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [("14 pe", "pe", 14.0), ("14", "pe", 14.0), (7, "pe", 7.0), ("2000 GeV", "TeV", 2.0), ("0.1 km", "m", 100.0)],
)
def test_quantities_are_converted(text: str | float, wanted: str, value: float) -> None:
    assert parse_quantity(text, wanted) == pytest.approx(value)


def test_degrees_from_radians() -> None:
    assert convert(3.141592653589793, "rad", "deg") == pytest.approx(180)


@pytest.mark.parametrize("text", ["14 deg", "14 pee", "fourteen", "", "1 2", True])
def test_wrong_unit_or_number_is_an_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_quantity(text, "pe")
