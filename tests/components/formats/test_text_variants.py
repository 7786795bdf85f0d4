"""Text files as other programs leave them: a byte order mark in front changes nothing that a reader finds."""

from __future__ import annotations

import io
from codecs import BOM_UTF8
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from apbatch.camera.instruments.files import camera_from_table
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.instruments.taiga import DEG_PER_CM
from apbatch.formats.reader import ImageReader, Reader, recognise
from apbatch.formats.taiga.monte_carlo import TaigaMcReader
from apbatch.formats.text import number_lines
from apbatch.formats.text.lines import Problems
from tests.components.formats.test_formats_fact import event, lines
from tests.components.formats.test_formats_text import EVENT, IMAGES

TABLE = (
    b"event_number,numb_pix,energy,size,length[0],width[0]\n"
    + b"7,12,40.5,300.25,0.3,0.1\n"
    + b"8,9,41.5,200.5,0.2,0.1\n"
)
UCI = (
    b"28.8,16.0,2.64,0.39,0.2,27.7,22.0,-8.2,40.1,81.9,g\n" + b"31.6,11.7,2.5,0.53,0.38,26.3,23.8,-10.0,6.36,205.3,h\n"
)
#: Name and content by format.
FILES = {
    "kascade": ("kascade.dat", EVENT + EVENT.replace(b"6402 4 ", b"6403 5 ")),
    "taiga-mc": ("taiga607_clean_iact01_gamma.txt", IMAGES),
    "taiga-mc-hillas": ("taiga607_hillas_iact01_gamma.csv", TABLE),
    "uci-magic": ("magic04.data", UCI),
    "fact-photons": ("20170119_229.phs.jsonl", lines(event(1), event(2))),
}


def recognised(name: str, content: bytes) -> Reader:
    reader = recognise(name, content[:4096], io.BytesIO(content))
    assert reader is not None
    return reader


def everything(name: str, content: bytes) -> list[object]:
    """Return all that the reader of a file finds in it."""
    reader, problems = recognised(name, content), Problems()
    rows = [batch.to_pydict() for batch in reader.events(io.BytesIO(content), name, problems)]
    if isinstance(reader, ImageReader):
        rows += [batch.to_pydict() for batch in reader.images(io.BytesIO(content), name, problems=problems)]
        rows += [batch.to_pydict() for batch in reader.truth(io.BytesIO(content), name)]
    return [reader.name, asdict(reader.metadata(io.BytesIO(content), name)), rows, problems.result()]


@pytest.mark.parametrize("format", FILES)
def test_a_byte_order_mark_in_front_changes_nothing(format: str) -> None:
    name, content = FILES[format]
    plain = everything(name, content)
    assert plain[0] == format
    assert everything(name, BOM_UTF8 + content) == plain


@pytest.mark.parametrize("block", [1, 2, 50])
def test_a_byte_order_mark_may_be_read_in_pieces(block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(number_lines, "_BLOCK", block)
        found = TaigaMcReader().metadata(io.BytesIO(BOM_UTF8 + IMAGES), FILES["taiga-mc"][0])
    assert (found.events, found.problems) == (2, ())


@pytest.mark.parametrize("step", [1, 2, 3, 40])
def test_spans_of_a_file_with_a_byte_order_mark_hold_every_image_once(step: int) -> None:
    name, content = FILES["taiga-mc"]
    content = BOM_UTF8 + content
    reader = recognised(name, content)
    assert isinstance(reader, ImageReader)
    spans = reader.spans(io.BytesIO(content), name, step)
    batches = [batch for span in spans for batch in reader.images(io.BytesIO(content), name, span=span)]
    assert [number for batch in batches for number in batch["event"].to_pylist()] == [101, 104]


def test_a_byte_order_mark_costs_a_table_of_pixels_none(tmp_path: Path) -> None:
    camera = camera_named("TAIGA-IACT01")
    rows = zip(camera.cluster, camera.x / DEG_PER_CM, camera.y / DEG_PER_CM, strict=True)
    text = "".join(f"0 0 {cluster} {x:.3f} {y:.3f}\n" for cluster, x, y in rows)
    path = tmp_path / "pixels.txt"
    path.write_bytes(BOM_UTF8 + text.encode())
    assert np.array_equal(camera_from_table(path).cluster, camera.cluster)
