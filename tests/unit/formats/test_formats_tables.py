"""Tables for the catalogue: real ones, cut and flipped ones."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.errors import FormatError
from apbatch.formats.kascade import KascadeReader
from apbatch.formats.reader import Metadata, Reader
from apbatch.formats.tables import FactHillasReader, HisparcReader, UciMagicReader

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
