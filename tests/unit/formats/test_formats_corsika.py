"""CORSIKA's files against corsikaio and eventio, whole and cut."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.errors import FormatError
from apbatch.formats.corsika import CorsikaReader

READER = CorsikaReader()


def describe(path: Path, keep: int | None = None):  # type: ignore[no-untyped-def]
    content = path.read_bytes()[:keep]
    assert READER.sniff("renamed", content[:4096]) and READER.confirm(io.BytesIO(content), "renamed")
    return READER.metadata(io.BytesIO(content), path.name)


@pytest.mark.parametrize("name", ["corsika75700", "corsika757_particle"])
def test_particle_files_have_the_showers_that_corsikaio_finds(data: Path, name: str) -> None:
    corsikaio = pytest.importorskip("corsikaio")
    kind = corsikaio.CorsikaCherenkovFile if name == "corsika75700" else corsikaio.CorsikaParticleFile
    with kind(data / "corsika" / name) as file:
        run, showers = file.run_header, [event.header for event in file]
    found = describe(data / "corsika" / name)
    assert (found.run, found.events) == (int(run["run_number"]), len(showers))
    assert found.attributes["primary"] == "proton"
    energies = [float(shower["total_energy"]) / 1000 for shower in showers]
    assert (found.attributes["energy_min"], found.attributes["energy_max"]) == (min(energies), max(energies))
    heights = np.abs([float(shower["first_interaction_height"]) / 100 for shower in showers])
    assert found.attributes["first_interaction_max"] == pytest.approx(heights.max())
    assert found.problems == ()


@pytest.mark.parametrize(
    ("name", "primary"),
    [
        ("one_shower.dat", "gamma"),
        ("gamma_100gev_1216.eventio", "gamma"),
        ("proton_500GeV_iactext.eventio.gz", "proton"),
    ],
)
def test_iact_files_have_the_shower_that_eventio_finds(data: Path, name: str, primary: str) -> None:
    eventio = pytest.importorskip("eventio")
    with eventio.IACTFile(str(data / "corsika" / name)) as file:
        run, showers = file.header, [event.header for event in file]
    found = describe(data / "corsika" / name)
    assert (found.run, found.events, found.attributes["primary"]) == (int(run["run_number"]), len(showers), primary)
    assert found.attributes["energy_max"] == pytest.approx(float(showers[0]["total_energy"]) / 1000)
    assert found.attributes["zenith_max"] == pytest.approx(np.degrees(float(showers[0]["zenith"])), abs=1e-6)
    assert found.problems == ()


@pytest.mark.parametrize(
    ("name", "keep"),
    [("corsika757_particle", 30_000), ("one_shower.dat", 3000), ("proton_500GeV_iactext.eventio.gz", 90_000)],
)
def test_a_cut_file_is_registered_with_what_is_whole_and_says_so(data: Path, name: str, keep: int) -> None:
    whole, found = describe(data / "corsika" / name), describe(data / "corsika" / name, keep)
    assert found.run == whole.run and found.events < whole.events
    assert found.problems


def without_lengths(path: Path) -> bytes:
    """Return the blocks of a particle file alone."""
    content = path.read_bytes()
    size = int.from_bytes(content[:4], "little")
    return b"".join(content[at + 4 : at + 4 + size] for at in range(0, len(content), size + 8))


@pytest.mark.parametrize("name", ["corsika75700", "corsika757_particle"])
def test_a_particle_file_without_lengths_of_records_tells_the_same(data: Path, tmp_path: Path, name: str) -> None:
    path = data / "corsika" / name
    alone = tmp_path / name
    alone.write_bytes(without_lengths(path))
    assert describe(alone) == describe(path)
    with path.open("rb") as stream, alone.open("rb") as other:
        wanted = [batch.to_pydict() for batch in READER.events(stream, name)]
        assert [batch.to_pydict() for batch in READER.events(other, name)] == wanted
    cut = describe(alone, 30_000)
    assert cut.events < describe(path).events
    assert "the last block is cut" in [problem.reason for problem in cut.problems]


def block(name: bytes, *numbers: float, words: int) -> bytes:
    return name + np.array(numbers, "<f4").tobytes().ljust(4 * words - 4, b"\0")


@pytest.mark.parametrize("words", [273, 312])
def test_blocks_alone_are_of_thinned_showers_as_well(words: int) -> None:
    shower = [1.0, 14.0, 2000.0, 0.0, 0.0, 1.5e6, 0.0, 0.0, 0.0, 0.3]
    names = [(b"RUNH", [7.0]), (b"EVTH", shower), (b"EVTE", [1.0]), (b"RUNE", [7.0])]
    content = b"".join(block(name, *numbers, words=words) for name, numbers in names)
    found = READER.metadata(io.BytesIO(content), "DAT000007")
    assert READER.sniff("renamed", content[:4096])
    assert (found.run, found.events, found.problems) == (7, 1, ())
    assert (found.attributes["primary"], found.attributes["energy_max"]) == ("proton", 2.0)


def test_a_text_that_begins_like_a_block_is_no_particle_file() -> None:
    assert not READER.sniff("notes", b"RUNH is the name of the first block.\n" * 100)


def test_other_files_are_not_taken_for_corsikas(data: Path) -> None:
    for name in ("simtel/n_hv_disabled.simtel.gz", "fact_images/011014.phs.jsonl.gz", "kascade/kascade.dat"):
        content = (data / name).read_bytes()
        assert not (READER.sniff(name, content[:4096]) and READER.confirm(io.BytesIO(content), name))


@given(st.binary(max_size=400))
def test_no_bytes_crash_the_reader(junk: bytes) -> None:
    for content in (junk, b"\x94\x59\x00\x00RUNH" + junk, b"RUNH" + junk, b"\x37\x8a\x1f\xd4\xb0\x04\x00\x00" + junk):
        READER.sniff("x", content)
        try:
            READER.metadata(io.BytesIO(content), "x")
        except FormatError as error:
            assert error.where == "x"
