"""Calibration tables of TAIGA-IACT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apbatch.errors import FormatError, NotFoundError
from apbatch.formats.taiga.calibration import read_coordinates, read_factors

HEADER = "LED calibration\n\nCluster Channel Gain K_ADC 1pe Rel_sens\n======\n"


def test_the_real_factors_are_read_by_channel(data: Path) -> None:
    table = read_factors(data / "taiga_raw" / "FACTORS_300917.txt")
    row = table[(table["cluster"] == 1) & (table["channel"] == 6)][0]
    assert row.tolist() == (1, 6, 0.925, 1.135, 13.034, 0.870)
    assert sorted(set(table["cluster"].tolist())) == list(range(1, 23))


def test_a_failed_fit_counts_as_not_calibrated(data: Path) -> None:
    table = read_factors(data / "taiga_raw" / "FACTORS_300917.txt")
    row = table[(table["cluster"] == 21) & (table["channel"] == 37)][0]  # -6.583 codes in the file
    assert np.isnan(row["codes_per_pe"])
    assert not (table["codes_per_pe"] <= 0).any()


@pytest.mark.parametrize("name", ["xy_turn_2017n.txt", "PMT_coordinates.txt"])
def test_the_real_coordinates_have_560_pixels_with_and_without_preface(data: Path, name: str) -> None:
    table = read_coordinates(data / "taiga_raw" / name)
    assert len(table) == 560
    assert table[0].tolist() == (1, 1, 281, -5.935, -5.270, 4, 5, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 5 1.0 1.0 3.0", "6 numbers are wanted"),
        ("1 5 1.0 1.0 x 1.0", "'x' is not a number"),
        ("1 5.5 1.0 1.0 3.0 1.0", "channel must be a whole number"),
        ("1 64 1.0 1.0 3.0 1.0", "no ADC channel"),
        ("1 4 1.0 1.0 3.0 1.0", "given twice .first on line 5."),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "FACTORS.txt"
    path.write_text(f"{HEADER}1 4 1.04 1.14 14.595 1.076\n{line}\n")
    with pytest.raises(FormatError, match=message) as caught:
        read_factors(path)
    assert caught.value.where == f"{path}:6"


def test_a_low_gain_channel_that_is_not_the_next_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "xy.txt"
    path.write_text("1 1 281 -5.9 -5.2 4 7 2\n")
    with pytest.raises(FormatError, match="low-gain"):
        read_coordinates(path)


def test_a_file_without_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear colleagues,\n")
    with pytest.raises(FormatError, match="no line with the 6 numbers"):
        read_factors(path)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_factors(tmp_path / "nowhere.txt")
