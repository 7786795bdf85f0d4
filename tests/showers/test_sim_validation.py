"""The Monte Carlo's validation: verdicts, published formulas, and what the report says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from apbatch.errors import UsageError
from apbatch.sim.validation import fact, report, showers, sizes, taiga
from apbatch.sim.validation.check import AGREES, DISAGREES, WITHIN, Check, in_bins, median_ratio


@pytest.mark.parametrize(
    ("here", "error", "verdict"),
    [(1.04, 0.0, AGREES), (0.9, 0.03, WITHIN), (0.9, 0.02, DISAGREES), (1.2, 0.01, DISAGREES)],
)
def test_a_ratio_is_judged_by_its_aim_and_its_error(here: float, error: float, verdict: str) -> None:
    assert Check("x", "width", "all", here, 1.0, error, 0.05, 9).verdict == verdict


def test_pairs_give_the_ratio_and_the_error_of_whole_showers() -> None:
    rng = np.random.default_rng(1)
    shower = np.repeat(np.arange(60), 5)
    there = rng.uniform(1.0, 2.0, 300)
    here = 1.1 * there * np.exp(0.1 * rng.standard_normal(60))[shower]
    a, b, error, number = median_ratio(here, there, shower)
    assert number == 300
    assert a / b == pytest.approx(1.1, abs=0.06)
    # 60 independent showers, not 300 images: 1.25 x 0.1 / sqrt(60).
    assert error == pytest.approx(1.1 * 1.25 * 0.1 / math.sqrt(60), rel=0.5)


def test_pairs_that_are_no_numbers_are_passed_over_and_thin_bins_left_out() -> None:
    here, there = np.array([1.0, np.nan, 2.0, 3.0, 0.0, 5.0, 6.0]), np.ones(7)
    checks = in_bins("x", [("width", here, there)], np.array([1.0, 1, 1, 1, 1, 1, 20]), (0, 10, 30), "size",
                     np.arange(7), 0.05)  # fmt: skip
    assert checks == []
    checks = in_bins("x", [("width", here, there)], np.ones(7), (0, 10, 30), "size", np.arange(7), 0.05)
    assert [(check.where, check.number) for check in checks] == [("size 0–10", 5)]


def test_greisens_maximum_is_at_the_age_of_one() -> None:
    x = np.arange(50.0, 900.0, 1.0)
    electrons, age = showers.greisen(x, 1000.0)
    top = int(np.argmax(electrons))
    assert age[top] == pytest.approx(1.0, abs=0.01)
    assert electrons[top] == pytest.approx(0.31 / math.sqrt(math.log(1000 / 0.086)) * 1000 / 0.086, rel=0.01)


def test_half_of_the_electrons_at_the_maximum_are_above_the_threshold_for_light() -> None:
    # Nerling et al., figure 4: of those above 1 MeV, some 55-65 % exceed 21 MeV at the maximum; fewer later.
    assert 0.5 < showers.share_above(0.021, 1.0) < 0.7
    assert showers.share_above(0.021, 1.3) < showers.share_above(0.021, 0.8)
    assert showers.share_above(0.001, 1.0) == pytest.approx(1.0, abs=0.01)


def test_the_fit_finds_the_gaisser_hillas_function_it_was_given() -> None:
    x = np.arange(5.0, 900.0, 10.0)
    exact = 1e5 * (x / 450.0) ** (450.0 / 65.0) * np.exp((450.0 - x) / 65.0)
    fitted, (number, top, scale) = showers.gaisser_hillas_fit(x, exact)
    assert (number, top, scale) == pytest.approx((1e5, 450.0, 65.0), rel=1e-6)
    assert fitted == pytest.approx(exact)


def test_weighted_medians_of_equal_samples_agree_whatever_the_weights_hide() -> None:
    values = {name: np.array([1.0, 2.0, 3.0, 100.0]) for name in ("size", "width", "length", "con2", "n_pixels")}
    sample = fact._Sample(values, np.array([1.0, 1.0, 1.0, 0.01]), np.arange(4))
    assert fact._median("width", sample) == 2.0
    assert fact._median("width", fact._Sample(values, np.array([0.1, 0.1, 5.0, 0.1]), np.arange(4))) == 3.0


def test_a_missing_reference_is_said_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sizes.SIZES, "tiny", sizes.Size(1, 30.0, 1, 1, 1, 12))
    found = report.validate(tmp_path / "none", tmp_path / "out", size="tiny", parts=("taiga", "fact", "muons"))
    assert [bool(part.missing) for part in found.parts] == [True, True, False]
    page = found.page.read_text()
    assert page.count("Not compared") == 2
    assert taiga.TABLE in page
    assert page.count("<svg") == 1
    content = json.loads(found.data.read_text())
    assert len(content["checks"]) == len(found.checks) == sum(found.counts.values()) > 3
    radius = next(check for check in found.checks if check.quantity.startswith("radius"))
    assert radius.verdict == AGREES


def test_unknown_sizes_and_parts_are_refused_before_anything_is_simulated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no size 'smok'.*smoke"):
        report.validate(tmp_path, tmp_path / "out", size="smok")
    with pytest.raises(UsageError, match=r"no comparison 'muon'.*muons"):
        report.validate(tmp_path, tmp_path / "out", parts=("muon",))
    assert not (tmp_path / "out").exists()
