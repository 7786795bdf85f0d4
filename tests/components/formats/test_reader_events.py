"""Events that readers give, compared with other ways to read the same files; and how an ingest loads them."""

from __future__ import annotations

import csv
import json
import math
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from apbatch.config import load_settings
from apbatch.formats import limits
from apbatch.formats.reader import Reader, readers, recognise
from apbatch.formats.text.lines import Problems
from apbatch.index.events.backends import open_events
from apbatch.index.events.columns import canonical, event_attributes
from apbatch.ingest.events import event_readers
from tests.components.ingest.test_sites_cli import apbatch

FILES = {
    "kascade/kascade.dat": 10, "kascade/kascade.h5": 10, "airshower/hisparc_process_events.h5": 280,
    "corsika/corsika75700": 10, "corsika/proton_500GeV_iactext.eventio.gz": 1, "fact_hillas/gamma.hdf5": 1000,
    "fact_hillas/proton.hdf5": 1000, "uci_magic/magic04.data": 19_020, "taiga_raw/BSM01/28107001.001": 13_734,
    "taiga_mc/taiga607_hillas_iact01_14_7fix_cb0.csv": 5698, "taiga_mc/taiga607_clean_iact01_14_7fix_cb0.txt": 5698,
}  # fmt: skip


def reader_of(path: Path) -> Reader:
    with path.open("rb") as stream:
        reader = recognise(str(path), stream.read(4096), stream)
    assert reader is not None
    return reader


def events_in(path: Path, problems: Problems | None = None) -> pa.Table:
    with path.open("rb") as stream:
        return pa.concat_tables([pa.table(batch) for batch in reader_of(path).events(stream, str(path), problems)])


@pytest.mark.parametrize("file", FILES)
def test_each_event_comes_once_with_declared_columns(data: Path, file: str) -> None:
    path = data / file
    table, problems = events_in(path), Problems()
    with path.open("rb") as stream:
        assert reader_of(path).metadata(stream, str(path)).events == FILES[file] == table.num_rows
    keys = list(zip(*(table[name].to_pylist() for name in ("run", "event", "telescope", "cleaning")), strict=True))
    assert len(set(keys)) == len(keys) and problems.count == 0
    known = event_attributes(reader_of(path).event_columns)
    assert set(table.schema.names) <= set(known)
    stored = canonical(table.append_column("experiment", pa.array(["e"] * len(table))), known)  # of the right types
    declared = [column.name for column in reader_of(path).event_columns]
    assert all(stored[name].null_count < len(stored) for name in declared if name in stored.schema.names)


def test_columns_of_one_name_have_one_type_and_unit() -> None:
    declared: dict[str, Any] = {}
    for reader in event_readers().values():
        for column in reader.event_columns:
            other = declared.setdefault(column.name, column)
            assert (other.type, other.unit) == (column.type, column.unit)
    assert set(event_readers()) >= {
        "kascade",
        "hisparc",
        "corsika",
        "fact-hillas",
        "uci-magic",
        "taiga-raw",
        "taiga-mc",
    }


def test_kascade_text_and_table_give_the_same(data: Path) -> None:
    text, table = events_in(data / "kascade" / "kascade.dat"), events_in(data / "kascade" / "kascade.h5")
    assert text.schema == table.schema
    for name in text.schema.names:
        if pa.types.is_floating(text.schema.field(name).type):
            np.testing.assert_allclose(text[name].to_numpy(), table[name].to_numpy(), rtol=2e-6)
        else:
            assert text[name].to_pylist() == table[name].to_pylist()
    line = (data / "kascade" / "kascade.dat").read_text().splitlines()[1].split()
    row = text.slice(1, 1)
    assert row["time"].cast(pa.int64()).to_pylist() == [int(line[2]) * 10**9 + int(line[3])]
    assert row["energy"][0].as_py() == pytest.approx(float(line[4]) / 1e12)
    assert row["muon_density_4"][0].as_py() == float(line[18]) and row["pressure"][0].as_py() == float(line[20])


def test_hisparc_times_are_utc_not_gps(data: Path) -> None:
    import tables  # type: ignore[import-not-found, unused-ignore]

    path = data / "airshower" / "hisparc_process_events.h5"
    with tables.open_file(str(path)) as file:
        stored = file.get_node("/s501/events").read()
    table = events_in(path)
    gps = stored["ext_timestamp"].astype(np.int64)
    assert (gps - table["time"].cast(pa.int64()).to_numpy() == 15_000_000_000).all()  # leap seconds in 2010
    assert table["event"].to_pylist() == stored["event_id"].tolist()
    assert set(table["run"].to_pylist()) == {20100831} and set(table["telescope"].to_pylist()) == {501}
    heights = np.where(stored["pulseheights"][:, 2] < 0, np.nan, stored["pulseheights"][:, 2])
    np.testing.assert_array_equal(table["pulseheight_3"].to_numpy(), heights)


def test_corsika_headers_are_what_corsikaio_reads(data: Path) -> None:
    from corsikaio import CorsikaParticleFile

    path = data / "corsika" / "corsika75700"
    with CorsikaParticleFile(str(path)) as file:
        headers = [event.header for event in file]
    table = events_in(path)
    assert table["event"].to_pylist() == [int(header["event_number"]) for header in headers]
    np.testing.assert_allclose(table["energy"].to_numpy(), [header["total_energy"] / 1000 for header in headers])
    np.testing.assert_allclose(
        table["zenith"].to_numpy(), np.degrees([header["zenith"] for header in headers]), rtol=1e-6
    )
    heights = [abs(header["first_interaction_height"]) / 100 for header in headers]
    np.testing.assert_allclose(table["first_interaction"].to_numpy(), heights)


def test_fact_parameters_are_in_degrees(data: Path) -> None:
    import h5py

    path = data / "fact_hillas" / "proton.hdf5"
    table = events_in(path)
    with h5py.File(path) as file:
        width, run, size = (file["events"][name][:] for name in ("width", "run_id", "size"))
        theta, energy = (file["events"][f"ceres_event_basic_{name}"][:] for name in ("theta", "energy"))
    np.testing.assert_allclose(np.tan(np.radians(table["width"].to_numpy())), width / 4889, rtol=1e-4)
    np.testing.assert_array_equal(table["run"].to_numpy(), run)
    np.testing.assert_array_equal(table["size"].to_numpy(), size)
    np.testing.assert_allclose(table["energy"].to_numpy() * 1000, energy, rtol=1e-6)  # as Ceres wrote it
    np.testing.assert_allclose(table["zenith"].to_numpy(), np.degrees(theta), rtol=1e-5)
    assert set(table["primary"].to_pylist()) == {"proton"}


def test_taiga_table_and_images_are_of_the_same_events(data: Path) -> None:
    folder = data / "taiga_mc"
    images, table = (events_in(folder / f"taiga607_{kind}_iact01_14_7fix_cb0.{end}") for kind, end in
                     (("clean", "txt"), ("hillas", "csv")))  # fmt: skip
    assert images["event"].to_pylist() == table["event"].to_pylist()
    np.testing.assert_allclose(images["size"].to_numpy(), table["size"].to_numpy(), rtol=1e-4)
    np.testing.assert_allclose(images["energy"].to_numpy(), table["energy"].to_numpy(), rtol=1e-6)
    with (folder / "taiga607_hillas_iact01_14_7fix_cb0.csv").open() as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_array_equal(table["width"].to_numpy(), [float(row["width[0]"]) for row in rows])
    zenith = [math.degrees(float(row["source_tet"])) % 360 for row in rows]
    np.testing.assert_allclose(table["zenith"].to_numpy(), zenith)


def test_taiga_raw_events_are_what_struct_reads(data: Path) -> None:
    path = data / "taiga_raw" / "BSM01" / "28107001.001"
    content = path.read_bytes()
    table = events_in(path)
    for number in (0, 1, 777, 13_733):
        record = content[156 * number : 156 * number + 156]
        event, trigger = struct.unpack_from("<II", record, 4)
        adc = struct.unpack_from("<64H", record, 24)
        row = table.slice(number, 1).to_pylist()[0]
        assert (row["event"], row["triggered"], row["cluster"]) == (event, bin(trigger).count("1"), 1)
        assert row["adc_max"] == max(adc[4:60:2]) / 4 and row["adc_sum"] == sum(adc[4:60:2]) / 4
    first = table["time"][0].as_py()
    assert datetime(2017, 10, 28, 16, 59, tzinfo=UTC) < first.to_pydatetime() < datetime(2017, 10, 28, 17, tzinfo=UTC)


def test_uci_events_keep_the_numbers_of_their_lines(data: Path) -> None:
    table = events_in(data / "uci_magic" / "magic04.data")
    lines = (data / "uci_magic" / "magic04.data").read_text().splitlines()
    row = table.slice(4_000, 1).to_pylist()[0]
    words = lines[4_000].split(",")
    assert row["event"] == 4_001 and row["alpha"] == float(words[8])
    assert row["photons"] == pytest.approx(10 ** float(words[2]))
    assert row["length"] == pytest.approx(math.degrees(math.atan(float(words[0]) / 16_970)), rel=1e-4)
    assert table["primary"].to_pylist().count("gamma") == 12_332


@pytest.mark.parametrize(
    ("file", "events"), [("kascade_claims_1e10_rows.h5", 0), ("fact_hillas_claims_1e10_rows.hdf5", 1000)]
)
def test_a_file_that_claims_ten_thousand_million_rows_stops_no_load_of_events(
    home: Path, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    file: str, events: int,
) -> None:  # fmt: skip
    import shutil

    root = tmp_path / "data"
    root.mkdir()
    shutil.copy(cases / file, root / f"0-{file}")
    line = "6402 {} 1207904712 80208000 1.0e15 0.5 0.5 0.3 0.1 4.2 3.9 " + "0 " * 8 + "12.5 1003.1\n"
    (root / "kascade.dat").write_text("".join(line.format(number) for number in range(3)))
    site(home, root)
    began = time.monotonic()
    assert apbatch("ingest", str(tmp_path / "s.yaml"), "--events", "--format", "json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)[0]["events_loaded"] == 3 + events  # rows that have bytes
    assert time.monotonic() - began < limits.LIMIT_S  # it is refused for what it says, not for the time it takes


@pytest.mark.parametrize("file", ["kascade/kascade.dat", "kascade/kascade.h5", "fact_hillas/gamma.hdf5",
                                  "taiga_raw/BSM01/28107001.001", "corsika/corsika75700"])  # fmt: skip
def test_damaged_files_give_an_error_or_the_events_that_are_whole(data: Path, tmp_path: Path, file: str) -> None:
    from apbatch.errors import ApbatchError

    content = (data / file).read_bytes()
    draw = np.random.default_rng(7)
    broken = tmp_path / Path(file).name
    for _ in range(6):
        bad = bytearray(content[: int(draw.integers(len(content) // 4, len(content)))])
        for place in draw.integers(0, len(bad), 5):
            bad[int(place)] = int(draw.integers(256))
        broken.write_bytes(bad)
        reader = readers()[reader_of(data / file).name]
        with broken.open("rb") as stream:
            try:
                batches = list(reader.events(stream, str(broken), Problems()))
            except ApbatchError as error:
                assert str(broken) in str(error)
                continue
        assert sum(batch.num_rows for batch in batches) <= FILES[file]


def site(home: Path, root: Path, more: str = "") -> None:
    (home.parent / "s.yaml").write_text(f"name: s\nexperiment: KASCADE\nroot: {root}\n{more}")


def test_an_ingest_loads_events_once_and_replaces_those_of_a_changed_file(
    home: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    lines = (data / "kascade" / "kascade.dat").read_text().splitlines(keepends=True)
    (root / "a.dat").write_text("".join(lines))
    (root / "README.txt").write_text("of no known format: it has no events")
    site(home, root)

    def ingest(*options: str) -> int:
        assert apbatch("ingest", str(tmp_path / "s.yaml"), "--format", "json", *options, monkeypatch=monkeypatch) == 0
        return int(json.loads(capsys.readouterr().out)[0]["events_loaded"])

    assert ingest("--events") == 10
    assert ingest("--events") == 0  # nothing changed
    with open_events(load_settings().events) as store:
        rows = [row for batch in store.select() for row in batch.to_pylist()]
        assert {row["file"] for row in rows} == {"/kascade/s/a.dat"} and {row["experiment"] for row in rows} == {
            "KASCADE"
        }
        assert all(row["night"] == (row["time"] - timedelta(hours=12)).date() for row in rows)
    (root / "a.dat").write_text("".join(lines[:4]))
    site(home, root, "events: true\n")
    assert ingest() == 4
    with open_events(load_settings().events) as store:
        assert store.count() == {None: 4}
    (root / "b.dat").write_text("".join(lines[2:6]))  # two events of it are those of the other file
    assert apbatch("ingest", str(tmp_path / "s.yaml"), monkeypatch=monkeypatch) == 0
    assert "2 events were replaced by those of another file" in capsys.readouterr().err


def test_a_load_again_forgets_events_that_the_reader_gives_no_more(
    home: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "a.dat").write_bytes((data / "kascade" / "kascade.dat").read_bytes())
    site(home, root)
    reader = readers()["kascade"]
    current = type(reader).events

    def earlier(self: Reader, *given: Any) -> Any:
        for batch in current(self, *given):
            yield batch.set_column(batch.schema.get_field_index("run"), "run", pa.array([1] * batch.num_rows))
            yield batch.slice(0, 1)

    monkeypatch.setattr(type(reader), "events", earlier)
    assert apbatch("ingest", str(tmp_path / "s.yaml"), "--events", monkeypatch=monkeypatch) == 0
    with open_events(load_settings().events) as store:
        assert store.count() == {None: 11}
    monkeypatch.setattr(type(reader), "events", current)
    assert apbatch("ingest", str(tmp_path / "s.yaml"), "--events", "--again", monkeypatch=monkeypatch) == 0
    with open_events(load_settings().events) as store:
        rows = [row for batch in store.select() for row in batch.to_pylist()]
    assert len(rows) == 10 and 1 not in {row["run"] for row in rows}


def test_a_file_whose_parser_dies_stops_no_other(
    home: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from apbatch.formats import parser_process

    root = tmp_path / "data"
    root.mkdir()
    for number, name in enumerate(("kascade.h5", "kascade.dat")):
        shutil.copy(data / "kascade" / name, root / f"{number}-{name}")
    site(home, root)
    assert apbatch("ingest", str(tmp_path / "s.yaml"), monkeypatch=monkeypatch) == 0
    serve = "import os, signal, sys\nsys.stdin.buffer.read(8)\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    popen = parser_process.subprocess.Popen

    def dies(command: list[str], **more: Any) -> Any:
        return popen([command[0], "-c", serve], **more)

    capsys.readouterr()
    parser_process._waiting.close()  # no process of before
    monkeypatch.setattr(parser_process.subprocess, "Popen", dies)
    assert apbatch("ingest", str(tmp_path / "s.yaml"), "--events", "--format", "json", monkeypatch=monkeypatch) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["events_loaded"] == 10
    assert "0-kascade.h5: its parser was ended by it (SIGSEGV)" in told.err
    monkeypatch.setattr(parser_process.subprocess, "Popen", popen)
    assert apbatch("ingest", str(tmp_path / "s.yaml"), "--events", "--format", "json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)[0]["events_loaded"] == 10
