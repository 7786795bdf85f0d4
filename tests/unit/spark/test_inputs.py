"""Inputs of a job: broken files, and the experiment that images carry."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from apbatch.camera.instruments.registry import camera_named
from apbatch.datasets.commit import Loss
from apbatch.errors import FormatError
from apbatch.spark.inputs.reading import read_piece
from apbatch.spark.inputs.sources import Source, sources_at
from apbatch.spark.inputs.splits import Piece
from tests.components.formats.test_formats_fact import event, lines


def photons(path: Path, keep: int | None = None) -> Path:
    path.write_bytes(gzip.compress(lines(*(event(number) for number in range(30))))[:keep])
    return path


@pytest.mark.parametrize("raw", [b"", b"\0" * 1000])
def test_a_broken_raw_file_alone_says_that_it_is_broken(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "28107001.001").write_bytes(raw)
    with pytest.raises(FormatError, match="no whole record"):
        sources_at([f"file://{tmp_path}"])


def test_a_cut_file_alone_says_that_it_is_cut(tmp_path: Path) -> None:
    photons(tmp_path / "x.phs.jsonl.gz", 60)
    with pytest.raises(FormatError, match="the gzip data end early"):
        sources_at([f"file://{tmp_path}"])


def test_a_broken_file_beside_a_good_one_is_left_to_the_step(tmp_path: Path) -> None:
    photons(tmp_path / "a.phs.jsonl.gz", 60)
    photons(tmp_path / "b.phs.jsonl.gz")
    (tmp_path / "28107001.001").write_bytes(b"")  # left out: nobody says of which camera it is
    (tmp_path / "other.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))  # of no format with images
    sources = sources_at([f"file://{tmp_path}"])
    assert {Path(source.url).name for source in sources} == {"a.phs.jsonl.gz", "b.phs.jsonl.gz"}


@pytest.mark.parametrize("experiment", ["FACT", "MY-FACT", "unknown"])
def test_images_carry_the_experiment_of_their_site(tmp_path: Path, experiment: str) -> None:
    path = photons(tmp_path / "x.phs.jsonl.gz")
    losses: list[Loss] = []
    piece = Piece(Source(f"file://{path}", "fact-photons", experiment, camera="FACT"), 0)
    batches = list(read_piece(piece, camera_named("FACT"), losses, 1024))
    own = {name for batch in batches for name in batch.column("experiment").to_pylist()}
    assert sum(batch.num_rows for batch in batches) == 30 and not losses
    assert own == ({experiment} if experiment != "unknown" else {"FACT"}) or own == {"FACT-MC"}
