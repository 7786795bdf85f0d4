"""Monitoring of channels against plain numpy, and faults that were put in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.quality.monitor import FEWEST, HIT_SIGMA, ChannelMonitor, Channels, Status, status_of

CHANNELS = 60


def noise(records: int, seed: int = 1, spread: float = 30.0, channels: int = CHANNELS) -> np.ndarray:
    return np.random.default_rng(seed).normal(350, spread, (records, channels))


def watched(values: np.ndarray, bins: np.ndarray | None = None) -> Channels:
    monitor = ChannelMonitor(values.shape[1])
    monitor.add(np.arange(len(values)) * 10 // len(values) if bins is None else bins, values)
    return monitor.result()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.floats(0, 0.6))
def test_levels_and_spreads_are_those_of_numpy(seed: int, n_bins: int, missing: float) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(10, 3, (200, 4))
    values[random.random(values.shape) < missing] = np.nan
    bins = random.integers(-1, n_bins, 200)
    got = watched(values, bins)
    for channel in range(4):
        levels, spreads, used, hits = [], [], [], 0
        for number in np.unique(bins):
            mine = values[(bins == number) & np.isfinite(values[:, channel]), channel]
            if len(mine) >= FEWEST:
                levels.append(np.median(mine))
                spreads.append(1.4826 * np.median(np.abs(mine - levels[-1])))
                used.append(len(mine))
                hits += int((mine > levels[-1] + HIT_SIGMA * spreads[-1]).sum())
        assert got.records[channel] == np.isfinite(values[:, channel]).sum()
        if not used:
            assert np.isnan(got.level[channel])
            continue
        assert got.level[channel] == pytest.approx(np.average(levels, weights=used))
        assert got.spread[channel] == pytest.approx(np.sqrt(np.average(np.square(spreads), weights=used)))
        assert got.hits[channel] == pytest.approx(hits / sum(used))


def test_files_of_one_run_add_up() -> None:
    values, bins = noise(1000), np.arange(1000) // 100
    whole, parts = ChannelMonitor(CHANNELS), ChannelMonitor(CHANNELS)
    whole.add(bins, values)
    for rows in (slice(0, 300), slice(300, 1000)):  # between bins
        part = ChannelMonitor(CHANNELS)
        part.add(bins[rows], values[rows])
        parts.merge(part)
    for name in ("records", "level", "spread", "drift", "unrest", "hits", "bins", "levels"):
        np.testing.assert_allclose(getattr(parts.result(), name), getattr(whole.result(), name))


def test_a_good_camera_is_good_and_its_levels_are_at_rest() -> None:
    found = watched(noise(5000))
    assert set(status_of(found)) == {"good"}
    assert 0.8 < np.median(found.unrest) < 1.25  # chi square a degree of freedom
    assert np.abs(found.drift / found.spread).max() < 0.2


def test_faults_are_told_apart() -> None:
    values = noise(4000)
    values[:, 3] = 350  # no signal at all
    values[:, 4] = noise(4000, 2, 8.0)[:, 4]  # electronics only
    values[:, 7] = noise(4000, 3, 90.0)[:, 7]
    values[np.random.default_rng(4).random(4000) < 0.03, 11] += 900  # light that the others have not
    values[:, 20] += np.linspace(0, 40, 4000)
    values[1200:1600, 21] += 25  # a step and back: no slope
    values[:, 30] = np.nan
    status = status_of(watched(values))
    faults = {channel: str(status[channel]) for channel in np.flatnonzero(status != "good").tolist()}
    assert faults == {
        3: "dead", 4: "dead", 7: "noisy", 11: "hot", 20: "unsteady", 21: "unsteady", 30: "absent",
    }  # fmt: skip
    assert watched(values).drift[20] == pytest.approx(36, abs=4)


def test_shares_of_hits_are_compared_within_a_cluster() -> None:
    values = noise(4000)
    group = np.repeat([1, 2], [40, 20])
    light = np.random.default_rng(5).random((4000, 20)) < 0.03
    values[:, group == 2] += 900 * light  # the second cluster triggers on light only
    assert set(status_of(watched(values), group)) == {"good"}
    few = noise(60)
    few[5, ::7] += 900  # one shower in 60 records makes no pixel hot
    assert "hot" not in status_of(watched(few, np.zeros(60, int)))
    assert (status_of(watched(values)) == "hot").sum() > 10


def test_nothing_gives_nothing() -> None:
    empty = ChannelMonitor(3).result()
    assert empty.levels.shape == (0, 3) and np.isnan(empty.level).all()
    assert set(status_of(empty)) == {Status.ABSENT.value}
    few = watched(noise(FEWEST - 1), np.zeros(FEWEST - 1, int))
    assert (few.records == FEWEST - 1).all() and np.isnan(few.level).all()
