"""Tables for the catalogue: real ones, cut and flipped ones."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.errors import FormatError
from apbatch.formats.fact.image_parameters import COLUMNS
from apbatch.formats.fact.photons import FactPhotonsReader
from apbatch.formats.kascade import KascadeReader
from apbatch.formats.reader import Metadata, Reader
from apbatch.formats.tables import FactHillasReader, HisparcReader, UciMagicReader
from apbatch.formats.text.lines import Problems

ENERGY = "corsika_event_header_total_energy"
NAMES = {name: ours for name, (ours, _, _) in COLUMNS.items() if ours != "primary"}
HDF5 = (FactHillasReader(), HisparcReader(), KascadeReader())


def describe(reader: Reader, path: Path) -> Metadata:
    content = path.read_bytes()
    assert reader.sniff("renamed", content[:4096])
    assert reader.confirm(io.BytesIO(content), "renamed")
    return reader.metadata(io.BytesIO(content), path.name)


@pytest.mark.parametrize(("file", "primary"), [("gamma", "gamma"), ("proton", "proton")])
def test_facts_parameters_tell_primary_and_energies(data: Path, file: str, primary: str) -> None:
    h5py = pytest.importorskip("h5py")
    path = data / "fact_hillas" / f"{file}.hdf5"
    found = describe(FactHillasReader(), path)
    with h5py.File(path) as opened:
        energy = opened["events/corsika_event_header_total_energy"][:] / 1000
    assert (found.events, found.attributes["primary"]) == (1000, primary)
    assert (found.attributes["energy_min"], found.attributes["energy_max"]) == (energy.min(), energy.max())


def table_of_fact(path: Path, rows: int = 3000, **others: npt.NDArray[Any]) -> None:
    """Write a simulated table in chunks of 1000 rows, compressed: event n has an energy and a size of n + 1."""
    h5py = pytest.importorskip("h5py")
    columns = {name: np.arange(rows) + 1.0 for name in ("size", ENERGY)}
    columns |= {name: (np.arange(rows) + 1.0) / 10 for name in ("width", "length")}
    columns |= {"run_id": np.full(rows, 7.0), "event_num": np.arange(rows, dtype=np.float64), **others}
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file.create_dataset(f"events/{name}", data=values, chunks=(1000, *values.shape[1:]), compression="gzip")


def break_chunk(path: Path, name: str, first: int) -> None:
    """Make the chunk of a column that begins with a row unreadable."""
    import h5py

    chunks: list[Any] = []
    with h5py.File(path) as file:
        file[f"events/{name}"].id.chunk_iter(chunks.append)
    place = next(chunk for chunk in chunks if chunk.chunk_offset[0] == first)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + 2 : place.byte_offset + place.size] = b"\x55" * (place.size - 2)
    path.write_bytes(content)


def events_of(path: Path) -> tuple[pa.Table, Problems]:
    problems = Problems()
    with path.open("rb") as stream:
        batches = list(FactHillasReader().events(stream, path.name, problems))
    return pa.Table.from_batches(batches), problems


@pytest.mark.parametrize("lost", ["size", "width", "run_id", "event_num"])
def test_a_damaged_chunk_of_a_needed_column_costs_its_rows_only(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "gamma.hdf5"
    table_of_fact(path)
    break_chunk(path, lost, 1000)
    table, problems = events_of(path)
    event = table["event"].to_numpy()
    assert event.tolist() == [*range(1000), *range(2000, 3000)]
    for name, scale in (("size", 1), ("energy", 1e-3), ("width", np.degrees(1e-4 / 4.889))):
        np.testing.assert_allclose(table[name].to_numpy(), (event + 1) * scale)
    found = FactHillasReader().metadata(io.BytesIO(path.read_bytes()), path.name)
    assert (found.events, found.attributes["energy_max"]) == (2000, 3.0)
    for kept in (problems.result(), found.problems):
        assert len(kept) == 1 and f"rows 1000 to 1999 of events/{lost} can't be read" in kept[0].reason


def test_a_damaged_chunk_of_another_column_leaves_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "gamma.hdf5"
    table_of_fact(path)
    break_chunk(path, ENERGY, 2000)
    table, problems = events_of(path)
    assert table["event"].to_pylist() == list(range(3000))
    energy = table["energy"].to_numpy()
    np.testing.assert_allclose(energy[:2000], (np.arange(2000) + 1) / 1000)
    assert np.isnan(energy[2000:]).all()
    found = FactHillasReader().metadata(io.BytesIO(path.read_bytes()), path.name)
    assert (found.events, found.attributes["energy_max"]) == (3000, 2.0)
    assert problems.count == len(found.problems) == 1


def test_rows_without_numbers_of_events_are_numbered_as_they_lie(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "gamma.hdf5"
    table_of_fact(path)
    break_chunk(path, "size", 0)
    with h5py.File(path, "a") as file:
        del file["events/event_num"]
    assert events_of(path)[0]["event"].to_pylist() == list(range(1000, 3000))


def test_columns_of_different_lengths_end_together_with_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "gamma.hdf5"
    table_of_fact(path, width=np.ones(1500))
    table, problems = events_of(path)
    assert table["event"].to_pylist() == list(range(1500))
    found = FactHillasReader().metadata(io.BytesIO(path.read_bytes()), path.name)
    assert found.events == 1500
    for kept in (problems.result(), found.problems):
        assert [problem.reason for problem in kept] == ["columns have from 1500 to 3000 rows"]


def test_rows_far_apart_are_found_without_the_rows_between(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path, far = tmp_path / "gamma.hdf5", 10**12
    with h5py.File(path, "w") as file:
        for name in ("size", "width", "length", "run_id", "event_num"):
            column = file.create_dataset(f"events/{name}", (far + 10,), "f8", chunks=(1000,), compression="gzip")
            column[:10] = np.arange(10) + 1
            column[far:] = np.arange(10) + 11
    table, _ = events_of(path)
    event = table["event"].to_numpy()
    assert set(range(1, 21)) <= set(event.tolist()) and len(event) == 1010  # zeros fill the first chunk
    np.testing.assert_array_equal(table["size"].to_numpy(), event)


@pytest.mark.parametrize(
    ("column", "value", "right"),
    [
        ("run_id", 2.0**31, False), ("run_id", 7.5, False), ("run_id", -1, False), ("run_id", math.nan, False),
        ("event_num", 2.0**31 - 1, True), ("event_num", 2.0**31, False), ("event_num", 0.5, False),
        ("size", 0, True), ("size", -3, False), ("size", math.inf, False), ("size", math.nan, True),
        ("width", 0, True), ("width", -1e-9, False), ("length", 1e3, False), ("length", 400, True),
        (ENERGY, 0.09, False), (ENERGY, 2e9, False), (ENERGY, 1e9, True), (ENERGY, math.nan, True),
        ("corsika_event_header_zd", math.pi, True), ("corsika_event_header_zd", 3.2, False),
        ("pointing_position_zd", -1e-5, True), ("pointing_position_zd", -0.1, False),
        ("pointing_position_az", -179, True), ("pointing_position_az", 1e5, False), ("cog_x", -501, False),
        ("leakage1", 1.1, False),
        ("corsika_run_header_particle_id", 1.5, False), ("corsika_run_header_particle_id", 14, True),
        ("corsika_event_header_x", -1e300, False), ("kurtosis_long", math.inf, True), ("num_islands", -1, False),
    ],
)  # fmt: skip
def test_rows_beyond_the_bounds_are_no_events_of_fact(tmp_path: Path, column: str, value: float, right: bool) -> None:
    path, rows = tmp_path / "gamma.hdf5", 1000
    plain = {"run_id": 7, "event_num": 5, "size": 50, "width": 9, "length": 20, "corsika_run_header_particle_id": 1}
    values = np.arange(rows) + 10.0 if column == "event_num" else np.full(rows, float(plain.get(column, 0.5)))
    values[3] = value
    table_of_fact(path, rows, **{column: values})
    table, problems = events_of(path)
    found = FactHillasReader().metadata(io.BytesIO(path.read_bytes()), path.name)
    assert table.num_rows == found.events == (rows if right else rows - 1)
    for kept in (problems.result(), found.problems):
        assert len(kept) == (0 if right else 1)
        assert right or (kept[0].reason.startswith("row 3 of events: ") and column in kept[0].reason)
    declared = table[NAMES[column]].to_numpy() if column in NAMES else np.empty(0)
    assert not np.isinf(declared).any()


@pytest.mark.parametrize("column", [ENERGY, "run_id"])
def test_rows_shifted_by_inserted_bytes_are_passed_over(data: Path, tmp_path: Path, column: str) -> None:
    h5py = pytest.importorskip("h5py")
    content = bytearray((data / "fact_hillas" / "gamma.hdf5").read_bytes())
    with h5py.File(io.BytesIO(content)) as file:
        chunks: list[Any] = []
        file[f"events/{column}"].id.chunk_iter(chunks.append)
    start, end = chunks[0].byte_offset, chunks[0].byte_offset + chunks[0].size
    content[start:end] = (content[start : start + 1001] + b"777" + content[start + 1001 : end])[: end - start]
    path = tmp_path / "gamma.hdf5"
    path.write_bytes(content)
    table, problems = events_of(path)
    found = FactHillasReader().metadata(io.BytesIO(content), path.name)
    # The first 125 rows lie before the inserted bytes; a few shifted ones may look like energies by chance.
    assert found.events == table.num_rows and 125 <= table.num_rows < 140
    assert problems.count == 1000 - table.num_rows and found.problems[0].reason.startswith("row 125 of events: ")
    assert 10_000 < table["run"].to_numpy().min() <= table["run"].to_numpy().max() < 15_000


NOON = 1_383_307_200  # of 2013-11-01
SECONDS = NOON + 43_000 + np.repeat([0, 86_400], 1500) + np.arange(3000) % 1500


def observation(path: Path, **columns: npt.NDArray[Any]) -> None:
    """Write two nights of one number of run, each with events from 0, as the collaboration's DL2 files have them."""
    import h5py

    night = np.repeat([20131101, 20131102], 1500)
    table_of_fact(path, night=night, run_id=np.full(3000, 160), event_num=np.arange(3000) % 1500, **columns)
    with h5py.File(path, "a") as file:
        del file[f"events/{ENERGY}"]


def times_as(kind: str) -> dict[str, npt.NDArray[Any]]:
    if kind == "unix_time_utc":
        return {kind: np.stack([SECONDS, np.full(3000, 250)], axis=1).astype("i4")}
    if kind == "unix_time_utc_0":
        return {kind: SECONDS, "unix_time_utc_1": np.full(3000, 250)}
    texts = [f"{datetime.fromtimestamp(int(second), UTC):%Y-%m-%dT%H:%M:%S}.000250" for second in SECONDS]
    return {"timestamp": np.array([text + ("Z" if kind == "zoned" else "") for text in texts], "S")}


@pytest.mark.parametrize("kind", ["unix_time_utc", "unix_time_utc_0", "timestamp", "zoned"])
def test_events_of_an_observation_have_night_and_time(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("h5py")
    path = tmp_path / "crab.hdf5"
    observation(path, **times_as(kind))
    table, problems = events_of(path)
    keys = set(zip(table["run"].to_pylist(), table["event"].to_pylist(), strict=True))
    assert keys == {(run, event) for run in (20131101160, 20131102160) for event in range(1500)}
    assert table["time"].cast(pa.int64()).to_pylist() == (SECONDS * 10**9 + 250_000).tolist()
    found = FactHillasReader().metadata(io.BytesIO(path.read_bytes()), path.name)
    assert (found.events, found.run, found.night, found.attributes["runs"]) == (3000, None, None, 2)
    assert found.time_start == datetime.fromtimestamp(int(SECONDS[0]), UTC).replace(microsecond=250)
    assert found.time_end == datetime.fromtimestamp(int(SECONDS[-1]), UTC).replace(microsecond=250)
    assert not problems.count and not found.problems


def test_an_observation_has_the_keys_of_its_photons(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "crab.hdf5"
    observation(path, **times_as("unix_time_utc"))
    with h5py.File(path, "a") as file:
        file["events/night"][1500:] = 20131101
        file["events/run_id"][1500:] = 160
        file["events/event_num"][:] = np.arange(3000)
        file["events/unix_time_utc"][:, 0] = NOON + 40_000
    line = {"Night": 20131101, "Run": 160, "Event": 7, "UnixTime_s_us": [NOON + 40_000, 250], "Trigger": 4, "Az_deg": 0,
            "Zd_deg": 30, "PhotonArrivals_500ps": [[]] * 1440, "SaturatedPixels": []}  # fmt: skip
    photons = FactPhotonsReader().metadata(io.BytesIO(json.dumps(line).encode() + b"\n"), "x.phs.jsonl")
    found = FactHillasReader().metadata(io.BytesIO(path.read_bytes()), path.name)
    for name in ("run", "night", "telescope", "time_start"):
        assert getattr(found, name) == getattr(photons, name) is not None


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("night", 20131301, "20131301 is not a date of data taking"),
        ("night", 20131104, "a time that is not of night 20131104"),
        ("run_id", 1000, "a night has no run 1000"),
        ("unix_time_utc", (0, 0), "a time that is not of night 20131101"),
        ("unix_time_utc", (SECONDS[3], 10**6), "a time that is not of night 20131101"),
        ("timestamp", b"rubbish", "a time that is not of night 20131101"),
        ("timestamp", b"9999-12-31T00:00:00", "a time that is not of night 20131101"),
    ],
)
def test_nights_runs_and_times_that_contradict_are_no_events(
    tmp_path: Path, column: str, value: Any, reason: str
) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "crab.hdf5"
    observation(path, **times_as("timestamp" if column == "timestamp" else "unix_time_utc"))
    with h5py.File(path, "a") as file:
        file[f"events/{column}"][3] = value
    table, problems = events_of(path)
    found = FactHillasReader().metadata(io.BytesIO(path.read_bytes()), path.name)
    assert table.num_rows == found.events == 2999
    for kept in (problems.result(), found.problems):
        assert [problem.reason for problem in kept] == [f"row 3 of events: {reason}"]


def test_damaged_times_leave_the_events_without_one(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    path = tmp_path / "crab.hdf5"
    observation(path, **times_as("unix_time_utc"))
    break_chunk(path, "unix_time_utc", 2000)
    table, _ = events_of(path)
    times = table["time"].cast(pa.int64()).to_pylist()
    assert times == [*(SECONDS[:2000] * 10**9 + 250_000).tolist(), *[None] * 1000]
    found = FactHillasReader().metadata(io.BytesIO(path.read_bytes()), path.name)
    assert found.time_end == datetime.fromtimestamp(int(SECONDS[1999]), UTC).replace(microsecond=250)


@pytest.mark.parametrize("chunks", [(1000, 1), (700, 2), None])
def test_times_are_read_however_they_are_cut(tmp_path: Path, chunks: tuple[int, int] | None) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "crab.hdf5"
    observation(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("events/unix_time_utc", data=times_as("unix_time_utc")["unix_time_utc"], chunks=chunks)
    times = events_of(path)[0]["time"].cast(pa.int64()).to_pylist()
    assert times == (SECONDS * 10**9 + 250_000).tolist()


def test_a_row_without_one_of_its_two_numbers_has_no_time(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "crab.hdf5"
    observation(path)
    with h5py.File(path, "a") as file:
        column = file.create_dataset("events/unix_time_utc", (3000, 2), "i4", chunks=(1000, 1))
        column[:, 0], column[:1000, 1], column[2000:, 1] = SECONDS, 250, 250
    table, problems = events_of(path)
    right = (SECONDS * 10**9 + 250_000).tolist()
    assert table["time"].cast(pa.int64()).to_pylist() == [*right[:1000], *[None] * 1000, *right[2000:]]
    assert problems.kept[0].reason == "events/unix_time_utc claims 3000 rows and has bytes for 2000"


def test_simulations_keep_their_runs(tmp_path: Path) -> None:
    path = tmp_path / "gamma.hdf5"
    table_of_fact(path, night=np.full(3000, 20131101), timestamp=np.full(3000, b"2013-11-01T23:00:00"))
    table, _ = events_of(path)
    assert set(table["run"].to_pylist()) == {7} and "time" not in table.column_names
    found = FactHillasReader().metadata(io.BytesIO(path.read_bytes()), path.name)
    assert (found.run, found.night, found.time_start) == (7, None, None)


def test_a_row_of_kascade_is_named_by_its_number_behind_a_damaged_chunk(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    names = ("run_id", "event_id", "timestamp", "nanoseconds", "energy", "zenith", "azimuth")
    rows = np.zeros(3000, [(name, "f8" if name == "energy" else "i4") for name in names])
    rows["timestamp"], rows["event_id"], rows["energy"] = 1_000_000_000, np.arange(3000), 1e15
    rows["energy"][2005] = 0
    path = tmp_path / "kascade.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("events/all", data=rows, chunks=(1000,), compression="gzip")
    break_chunk(path, "all", 1000)
    found = KascadeReader().metadata(io.BytesIO(path.read_bytes()), path.name)
    assert found.events == 1999
    assert [problem.reason.split(":")[0].split(" can't")[0] for problem in found.problems] == [
        "rows 1000 to 1999 of events/all",
        "row 2005 of events/all",
    ]


def test_a_hisparc_station_tells_its_number_and_events(data: Path) -> None:
    pytest.importorskip("h5py")
    found = describe(HisparcReader(), data / "airshower" / "hisparc_process_events.h5")
    assert (found.events, found.attributes["stations"], found.telescope) == (280, "501", 501)
    if found.problems:
        # The real file is compressed by a filter of PyTables, which h5py has only where that is installed as well.
        assert "can't be read" in found.problems[0].reason and found.time_start is None
        return
    assert found.time_start is not None and found.time_end is not None
    assert datetime(2005, 1, 1, tzinfo=UTC) < found.time_start < found.time_end < datetime(2030, 1, 1, tzinfo=UTC)


def test_every_hdf5_file_has_one_reader(data: Path) -> None:
    pytest.importorskip("h5py")
    files = {"fact_hillas/proton.hdf5": 0, "airshower/hisparc_process_events.h5": 1, "kascade/kascade.h5": 2}
    for name, place in files.items():
        content = (data / name).read_bytes()
        assert [reader.confirm(io.BytesIO(content), "x") for reader in HDF5] == [i == place for i in range(3)]


def test_uci_events_are_counted_by_class_and_bad_lines_passed_over(data: Path) -> None:
    path = data / "uci_magic" / "magic04.data"
    found = describe(UciMagicReader(), path)
    assert (found.events, found.attributes["gammas"], found.attributes["hadrons"]) == (19020, 12332, 6688)
    content = path.read_bytes()[:3000].replace(b",g\n", b",x\n", 1)
    broken = UciMagicReader().metadata(io.BytesIO(content), "x")
    assert broken.problems[0].reason.startswith("line 1:")


def test_uci_events_behind_a_bad_line_keep_their_numbers(data: Path) -> None:
    lines = (data / "uci_magic" / "magic04.data").read_bytes().splitlines(keepends=True)[:9]
    lines[3] = b"rubbish\n"
    (batch,) = UciMagicReader().events(io.BytesIO(b"".join(lines)), "x")
    assert batch["event"].to_pylist() == [1, 2, 3, 5, 6, 7, 8, 9]


def test_times_of_a_hisparc_station_are_read_where_they_can_be() -> None:
    h5py = pytest.importorskip("h5py")
    stream = io.BytesIO()
    rows = np.zeros(3, [("event_id", "u4"), ("ext_timestamp", "u8"), ("pulseheights", "i2", 4)])
    rows["ext_timestamp"] = 1_500_000_018_000_000_000 + np.array([5_000_000_000, 0, 1_000])
    with h5py.File(stream, "w") as file:
        file.create_dataset("cluster/station_7/events", data=rows)
    found = HisparcReader().metadata(stream, "x")
    assert (found.events, found.telescope, found.problems) == (3, 7, ())
    assert found.time_start == datetime(2017, 7, 14, 2, 40, tzinfo=UTC)
    assert found.time_end == datetime(2017, 7, 14, 2, 40, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((), "has 0 dimensions, a table has one"),
        ((1, 3), "has 2 dimensions, a table has one"),
        (None, "in other files"),
    ],
)
def test_a_table_of_another_shape_or_elsewhere_leaves_the_others(shape: tuple[int, ...] | None, reason: str) -> None:
    h5py = pytest.importorskip("h5py")
    stream = io.BytesIO()
    rows = np.zeros(3, [("event_id", "u4"), ("ext_timestamp", "u8"), ("pulseheights", "i2", 4)])
    rows["ext_timestamp"] = 1_500_000_018_000_000_000
    with h5py.File(stream, "w") as file:
        if shape is None:
            file.create_dataset("a/events", (3,), rows.dtype, external=[("elsewhere.bin", 0, rows.nbytes)])
        else:
            file["a/events"] = rows[0] if shape == () else rows.reshape(shape)
        file["b/station_7/events"] = rows
    found, problems = HisparcReader().metadata(stream, "x"), Problems()
    assert sum(batch.num_rows for batch in HisparcReader().events(stream, "x", problems)) == found.events == 3
    for kept in (problems.result(), found.problems):
        assert len(kept) == 1 and "a/events" in kept[0].reason and reason in kept[0].reason


@pytest.mark.parametrize("file", ["fact_hillas/gamma.hdf5", "airshower/hisparc_process_events.h5"])
def test_damaged_hdf5_raises_no_other_error(data: Path, file: str) -> None:
    pytest.importorskip("h5py")
    content, random = (data / file).read_bytes(), np.random.default_rng(2)
    for keep in (0, 8, 100, 5000, len(content) // 2):
        for reader in HDF5[:2]:
            with pytest.raises(FormatError):
                reader.metadata(io.BytesIO(content[:keep]), "x")
    for _ in range(10):
        damaged = bytearray(content)
        for place in random.integers(0, 20_000, 10):
            damaged[place] = random.integers(256)
        for reader in HDF5[:2]:
            try:
                reader.metadata(io.BytesIO(bytes(damaged)), "x")
            except FormatError as error:
                assert error.where == "x"


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_text_reader(junk: bytes) -> None:
    UciMagicReader().sniff("x", junk)
    try:
        UciMagicReader().metadata(io.BytesIO(junk), "x")
    except FormatError as error:
        assert error.where == "x"
