"""Coincidences, compared with every pair looked at."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apbatch.config import load_settings
from apbatch.errors import UsageError
from apbatch.formats.event_columns import AZIMUTH, ZENITH
from apbatch.formats.reader import Attribute
from apbatch.index.events.backends import open_events
from apbatch.index.events.coincidences import Window, coincidences
from apbatch.index.events.store import EventStore
from tests.components.ingest.test_sites_cli import apbatch

SKY = (
    Attribute("right_ascension", "number", "r", "deg"),
    Attribute("declination", "number", "d", "deg"),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    with open_events(f"file://{tmp_path_factory.mktemp('events')}") as store:
        store.declare([ZENITH, AZIMUTH, *SKY])
        yield store


def batch(
    experiment: str, times_ns: list[int | None], directions: list[tuple[Any, Any]] | None = None
) -> pa.RecordBatch:
    n = len(times_ns)
    directions = directions if directions is not None else [(None, None)] * n
    zenith, azimuth = ([one[place] for one in directions] for place in (0, 1))
    return pa.RecordBatch.from_pydict({
        "experiment": [experiment] * n, "run": [1] * n, "event": list(range(n)), "telescope": [0] * n,
        "cleaning": ["none"] * n, "time": pa.array(times_ns, pa.int64()).cast(pa.timestamp("ns", "UTC")),
        "zenith": pa.array(zenith, pa.float64()), "azimuth": pa.array(azimuth, pa.float64()),
    })  # fmt: skip


def pairs(store: EventStore, first: str, second: str, window: Window) -> list[tuple[int, int, int]]:
    return [
        (row["a_event"], row["b_event"], row["time_difference"])
        for part in coincidences(store, first, second, window)
        for row in part.to_pylist()
    ]


def angle_between(one: tuple[Any, Any], other: tuple[Any, Any]) -> float:
    """By unit vectors, not by the formula under test."""
    vectors = []
    for zenith, azimuth in (one, other):
        z, a = np.radians([zenith, azimuth])
        vectors.append(np.array([np.sin(z) * np.cos(a), np.sin(z) * np.sin(a), np.cos(z)]))
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(*vectors)), np.dot(*vectors))))


START = 1_207_904_712_000_000_000
TIMES = st.lists(
    st.none() | st.integers(START - 5_000, START + 5_000) | st.integers(-50, 50) | st.just(START + 10**15), max_size=30
)
ANGLES = st.tuples(
    st.none() | st.sampled_from([0.0, 10.0, 30.0, 90.0, 180.0]), st.sampled_from([0.0, 1.0, 359.5, 180.0])
)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(
    TIMES, TIMES, st.sampled_from([0, 1, 7, 1000, 4_999]), st.none() | st.sampled_from([0.7, 15.3, 180.0]), st.data()
)
def test_all_pairs_and_no_others_are_found(
    store: EventStore,
    one: list[int | None],
    two: list[int | None],
    within: int,
    angle: float | None,
    data: st.DataObject,
) -> None:
    tag = secrets.token_hex(4)
    directions = [data.draw(st.lists(ANGLES, min_size=len(times), max_size=len(times))) for times in (one, two)]
    for name, times, towards in (("A", one, directions[0]), ("B", two, directions[1])):
        if times:
            store.upsert(batch(f"{name}{tag}", times, towards))

    def together(a: int, b: int) -> bool:
        if one[a] is None or two[b] is None or abs(two[b] - one[a]) > within:  # type: ignore[operator]
            return False
        if angle is None:
            return True
        if directions[0][a][0] is None or directions[1][b][0] is None:
            return False
        return angle_between(directions[0][a], directions[1][b]) <= angle + 1e-9

    expected = {
        (a, b, two[b] - one[a])
        for a in range(len(one))
        for b in range(len(two))
        if together(a, b)  # type: ignore[operator]
    }
    found = pairs(store, f"A{tag}", f"experiment = 'B{tag}'", Window(within, angle))
    assert len(found) == len(set(found)) and set(found) == expected
    nearest = pairs(store, f"A{tag}", f"B{tag}", Window(within, angle, nearest=True))
    best = {a: min(abs(d) for x, _, d in expected if x == a) for a in {a for a, _, _ in expected}}
    assert {a: abs(d) for a, _, d in nearest} == best and len(nearest) == len(best)


@pytest.mark.parametrize("start", [START, -300])
def test_neighbouring_nanoseconds_are_never_missed(store: EventStore, start: int) -> None:
    experiment = f"N{secrets.token_hex(4)}"
    store.upsert(batch(experiment, [start + n for n in range(600)]))
    found = pairs(store, experiment, experiment, Window(1))
    assert sorted(found) == sorted([(n, n + 1, 1) for n in range(599)] + [(n + 1, n, -1) for n in range(599)])


def test_an_event_is_not_its_own_partner(store: EventStore) -> None:
    store.upsert(batch("SELF", [START, START + 5, START + 10**9]))
    assert pairs(store, "SELF", "SELF", Window(10)) == [(0, 1, 5), (1, 0, -5)]


def test_directions_in_the_sky(store: EventStore) -> None:
    for name, place in (("S1", (10.0, 89.9)), ("S2", (190.0, 89.9)), ("S3", (190.0, 88.0))):
        plain = batch(name, [START])
        columns = {"right_ascension": [place[0]], "declination": [place[1]]}
        store.upsert(pa.RecordBatch.from_pydict({**{n: plain.column(n) for n in plain.schema.names}, **columns}))
    (row,) = [row for part in coincidences(store, "S1", "S2", Window(0, 0.3, "sky")) for row in part.to_pylist()]
    assert row["angle"] == pytest.approx(0.2)
    assert pairs(store, "S1", "S3", Window(0, 0.3, "sky")) == []


def test_times_of_gps_are_compared_as_utc(home: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """A KASCADE event at the UTC of a HiSPARC event is together with it; one at its GPS time is not."""
    gps = 1_283_299_201_651_770_410  # the first event of the file, read as if it were UTC
    (tmp_path / "k").mkdir()
    line = (data / "kascade" / "kascade.dat").read_text().splitlines()[0].split()
    for number, stamp in enumerate((gps, gps - 15 * 10**9)):
        line[1:4] = [str(number), str(stamp // 10**9), str(stamp % 10**9)]
        with (tmp_path / "k" / "k.dat").open("a") as file:
            file.write(" ".join(line) + "\n")
    (tmp_path / "k.yaml").write_text(f"name: k\nexperiment: KASCADE\nroot: {tmp_path / 'k'}\nevents: true\n")
    root = data / "airshower"
    (tmp_path / "h.yaml").write_text(
        f"name: h\nexperiment: HiSPARC\nroot: {root}\nevents: true\ninclude: ['*events.h5']\n"
    )
    assert apbatch("ingest", str(tmp_path / "k.yaml"), str(tmp_path / "h.yaml"), monkeypatch=monkeypatch) == 0
    capsys.readouterr()
    window = ("--within", "1us")
    assert apbatch("coincidences", "KASCADE", "HiSPARC", *window, "--format", "json", monkeypatch=monkeypatch) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["a_event"], row["b_telescope"], row["time_difference"], row["angle"]) == (1, 501, 0, None)
    output = tmp_path / "pairs.parquet"
    assert apbatch("coincidences", "KASCADE", "HiSPARC", *window, "--output", str(output), monkeypatch=monkeypatch) == 0
    assert pq.read_table(output)["a_time"].to_pylist() == [datetime(2010, 8, 31, 23, 59, 46, 651770, tzinfo=UTC)]
    assert apbatch("coincidences", "KASCADE", "HiSPARC", "--within", "1 deg", monkeypatch=monkeypatch) == 2
    assert "can't be converted" in capsys.readouterr().err
    assert load_settings().events.startswith("file://")


@pytest.mark.parametrize(
    ("window", "message"),
    [({"within_ns": -1}, "a window of -1"), ({"within_ns": 10**15}, "a window"),
     ({"within_ns": 1, "angle": 190.0}, "angle"), ({"within_ns": 1, "frame": "galactic"}, "unknown frame")],
)  # fmt: skip
def test_a_window_must_be_one(window: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Window(**window)


def test_an_angle_wants_directions(tmp_path: Path) -> None:
    with open_events(f"file://{tmp_path}/e") as store:
        store.upsert(batch("A", [START]).drop_columns(["zenith", "azimuth"]))
        with pytest.raises(UsageError, match=r"no event has a column 'zenith' in degrees.*leave --angle out"):
            list(coincidences(store, "A", "A", Window(1, 2.0)))
        assert pairs(store, "nobody", "A", Window(1)) == []
        with pytest.raises(UsageError, match="did you mean 'experiment'"):
            pairs(store, "experimnt = 'A'", "A", Window(1))
