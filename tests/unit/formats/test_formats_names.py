"""Telling names: they claim broken files of a format, and no whole file of another kind."""

from __future__ import annotations

import bz2
import gzip
import io
from pathlib import Path

import pytest

from apbatch.errors import FormatError
from apbatch.formats.reader import recognise

#: Files that are whole, but of no format that is read here.
FOREIGN = {
    "PDF": b"%PDF-1.5\n%\xd0\xd4\xc5\xd8\n" + bytes(range(256)) * 20,
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "zip": b"PK\x03\x04" + bytes(range(256)),
    "numpy": b"\x93NUMPY\x01\0v\0{'descr': '<f8'}\n" + bytes(800),
    "FITS": b"SIMPLE  =                    T" + b" " * 50 + bytes(2880),
    "tar": b"notes.txt" + bytes(248) + b"ustar\x0000" + bytes(5000),
    "text": "Заметки о файле\n".encode() * 300,
}
#: A name by format that claims a file.
NAMES = {
    "corsika": [
        "DAT000001",
        "CER000001.gz",
        "corsika757_particle",
        "my_corsika_7.dat",
        "gamma.corsika.zst",
        "a.eventio",
    ],
    "simtel": ["gamma.simtel", "run1/Gamma.SIMTEL.GZ", "gamma.simtel.bz2"],
    "fact-photons": ["011014.phs.jsonl", "011014.phs.jsonl.gz"],
    "taiga-raw": ["BSM01/28107001.001", "28107001.ped"],
    "magic": ["20131004_M1_05029747.003_Y_MagicCrab-W0.40+035.root"],
}
CASES = [(format, name) for format, names in NAMES.items() for name in names]


def format_of(name: str, content: bytes) -> str | None:
    reader = recognise(name, content[:4096], io.BytesIO(content))
    return reader.name if reader is not None else None


@pytest.mark.parametrize(("format", "name"), CASES)
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_whole_file_of_another_kind_is_not_claimed_by_its_name(kind: str, format: str, name: str) -> None:
    variants = [FOREIGN[kind]]
    if format in ("corsika", "simtel"):
        variants += [gzip.compress(FOREIGN[kind]), bz2.compress(FOREIGN[kind])]
    if (kind, format) == ("text", "magic"):
        variants = []  # text in place of a ROOT file is damage
    assert [format_of(name, content) for content in variants] == [None] * len(variants)


@pytest.mark.parametrize(("format", "name"), CASES)
@pytest.mark.parametrize("content", [bytes(5000), b"\xfe\x01\x88\0" * 900])
def test_a_broken_file_is_claimed_by_its_name(content: bytes, format: str, name: str) -> None:
    assert format_of(name, content) == format


@pytest.mark.parametrize(
    "name",
    ["corsika_manual.idx", "plot.simtel.cache", "x.phs.jsonl.idx", "hiscorsika.dat", "DAT000001.root", "corsika.pkl"],
)
def test_names_that_only_begin_like_a_formats_claim_nothing(name: str) -> None:
    assert format_of(name, b"\xfe\x01\x88\0" * 900) is None


@pytest.mark.parametrize(
    ("name", "format"),
    [("kascade/events.h5", "kascade"), ("hisparc_501.h5", "hisparc"), ("FACT/gamma.hdf5", "fact-hillas")],
)
def test_a_damaged_table_is_of_the_experiment_that_its_path_names_as_a_word(name: str, format: str) -> None:
    pytest.importorskip("h5py")
    damaged = b"\x89HDF\r\n\x1a\n" + b"\xff" * 3000
    assert format_of(name, damaged) == format
    with pytest.raises(FormatError, match="HDF5"):
        recognise("artifacts/manufactured.h5", damaged, io.BytesIO(damaged))


def test_a_whole_table_of_another_kind_is_not_corsikas_because_its_name_has_the_word(data: Path) -> None:
    path = data / "airshower" / "hisparc_corsika_3_4_thin.h5"
    with path.open("rb") as stream:
        assert recognise(path.name, stream.read(4096), stream) is None
