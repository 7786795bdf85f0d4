"""Inputs on which readers were once wrong, each standing for a kind; made here, and those of the shared folder."""

from __future__ import annotations

import bz2
import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apbatch.errors import FormatError
from apbatch.formats.compressed import plain
from apbatch.formats.reader import ImageReader, Metadata, recognise
from apbatch.formats.text.lines import Problems
from tests.conftest import DATA

CASES = DATA.parent / "cases"


def described(path: Path) -> tuple[str, Metadata]:
    with path.open("rb") as stream:
        reader = recognise(path.name, stream.read(4096), stream)
        assert reader is not None
        return reader.name, reader.metadata(stream, path.name)


@pytest.fixture
def cases() -> Path:
    if not CASES.is_dir():
        pytest.skip(f"no folder {CASES}")
    return CASES


@pytest.mark.parametrize(
    ("file", "format", "events", "problem"),
    [
        ("fact_hillas_claims_1e10_rows.hdf5", "fact-hillas", 1000, "claims 10000000000 rows and has bytes for 1000"),
        ("kascade_insert.h5", "kascade", 9, "row 9 of kascade/events"),
        ("one_shower_badcrc.dat.gz", "corsika", 1, "incorrect data check"),
        ("truth_null_primary.parquet", "apbatch-truth", 8, "row 0: primary is missing"),
        ("taiga607_clean_cut.txt", "taiga-mc", 7, "the last line has no end"),
    ],
)
def test_what_comes_before_damage_counts(cases: Path, file: str, format: str, events: int, problem: str) -> None:
    name, metadata = described(cases / file)
    assert (name, metadata.events) == (format, events)
    assert problem in metadata.problems[0].reason


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("kascade_claims_1e10_rows.h5", "claims 10000000000 rows and has bytes for 0"),
        ("esd_load_data_truncated.h5", "a damaged HDF5 file"),
    ],
)
def test_a_file_without_anything_readable_says_why(cases: Path, file: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        described(cases / file)


def test_only_triggers_of_showers_are_events_of_fact(cases: Path) -> None:
    path = cases / "20170119_229_trigger1024.phs.jsonl"
    name, metadata = described(path)
    counts = {key: metadata.attributes[key] for key in ("pedestals", "external_triggers", "calibrations")}
    assert (name, metadata.events, metadata.run) == ("fact-photons", 0, 20170119229)
    assert counts == {"pedestals": 5, "external_triggers": 1, "calibrations": 0}
    with path.open("rb") as stream:
        reader = recognise(path.name, stream.read(4096), stream)
        assert isinstance(reader, ImageReader)
        assert list(reader.images(stream, path.name)) == []


def compressors() -> list[Any]:
    zstandard = pytest.importorskip("zstandard")
    checked = zstandard.ZstdCompressor(write_checksum=True)
    return [gzip.compress, bz2.compress, checked.compress]


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("back", [2, 4])
def test_a_wrong_checksum_at_the_end_costs_nothing(kind: int, back: int) -> None:
    content = b"".join(b"%d %d\n" % (number, number**7) for number in range(50_000))
    packed = bytearray(compressors()[kind](content))
    packed[-back] ^= 4
    stream, decompression = plain(io.BytesIO(bytes(packed)))
    assert stream.read() == content
    assert decompression is not None and "corrupt" in (decompression.fault or "")


@pytest.mark.parametrize("kind", range(3))
def test_damage_within_a_stream_costs_what_follows(kind: int) -> None:
    content = np.random.default_rng(3).bytes(3 << 20)  # does not shrink, so that places correspond
    packed = bytearray(compressors()[kind](content))
    packed[len(packed) * 2 // 3 : len(packed) * 2 // 3 + 64] = bytes(64)
    stream, decompression = plain(io.BytesIO(bytes(packed)))
    read = stream.read()
    assert decompression is not None and decompression.fault is not None
    same = next((at for at in range(0, len(read), 1024) if read[at : at + 1024] != content[at : at + 1024]), len(read))
    # A block of bzip2, 900 kB, is lost whole; a block of zstandard has 128 kB.
    assert same >= len(content) * 2 // 3 - (1_000_000 if kind == 1 else 140_000)


@pytest.mark.parametrize("kind", range(3))
def test_a_stream_that_can_not_seek_is_read_up_to_the_step_that_fails(kind: int) -> None:
    class OneWay(io.BytesIO):
        def seekable(self) -> bool:
            return False

    content = b"abc" * 100_000
    packed = bytearray(compressors()[kind](content))
    stream, decompression = plain(OneWay(bytes(packed)))
    assert stream.read() == content and decompression is not None and decompression.fault is None
    packed[-3] ^= 1
    stream, decompression = plain(OneWay(bytes(packed)))
    assert content.startswith(stream.read())
    problems = Problems()
    assert decompression is not None
    decompression.note_fault(problems)
    assert problems.count == 1
