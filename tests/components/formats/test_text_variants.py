"""Files as other programs leave them: a byte order mark in front, or compression, changes nothing that is found."""

from __future__ import annotations

import bz2
import gzip
import io
from codecs import BOM_UTF8
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from apbatch.camera.instruments.files import camera_from_table
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.instruments.taiga import DEG_PER_CM
from apbatch.formats.reader import ImageReader, Reader, Span, recognise
from apbatch.formats.taiga.monte_carlo import TaigaMcReader
from apbatch.formats.taiga.raw import TaigaRawReader, read_records
from apbatch.formats.text import number_lines
from apbatch.formats.text.lines import Problems
from apbatch.spark.inputs.surveys import joined, look_through, survey_tasks
from tests.components.formats.test_formats_fact import event, lines
from tests.components.formats.test_formats_text import EVENT, IMAGES
from tests.unit.formats.test_formats_taiga_raw import record

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
#: More of each than the first bytes of a compressed file hold.
LONG = {
    "kascade": ("kascade.dat", b"".join(EVENT.replace(b"6402 4 ", b"6402 %d " % n) for n in range(2000))),
    "taiga-mc": (FILES["taiga-mc"][0], IMAGES * 1500),
    "taiga-mc-hillas": (FILES["taiga-mc-hillas"][0], TABLE + b"8,9,41.5,200.5,0.2,0.1\n" * 9000),
    "uci-magic": ("magic04.data", UCI * 3000),
    "fact-photons": ("20170119_229.phs.jsonl", lines(*map(event, range(100)))),
    "taiga-raw": ("28107007.001", b"".join(record(n, adc=1400 + n % 97) for n in range(3000))),
}
RAW = ("28107007.001", b"".join(record(n) for n in range(20)))


def packers() -> dict[str, Callable[[bytes], bytes]]:
    packers: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress}
    try:
        import zstandard
    except ImportError:
        return packers
    return {**packers, "zst": zstandard.ZstdCompressor().compress}


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


@pytest.mark.parametrize("suffix", packers())
@pytest.mark.parametrize("format", LONG)
def test_what_is_compressed_is_read_as_what_is_not(format: str, suffix: str) -> None:
    for name, content in (LONG[format], {**FILES, "taiga-raw": RAW}[format]):
        packed = packers()[suffix](content)
        assert recognised(f"{name}.{suffix}", packed).name == format
        assert everything(name, packed) == everything(name, content)
        if isinstance(reader := recognised(name, packed), ImageReader) or format == "taiga-raw":
            assert reader.spans(io.BytesIO(packed), name, 50) == []


@pytest.mark.parametrize("format", LONG)
def test_a_compressed_file_that_is_cut_keeps_what_comes_before_and_says_why_it_ends(format: str) -> None:
    name, content = LONG[format]
    packed = gzip.compress(content)
    reader = recognised(name, packed)
    whole, cut = (reader.metadata(io.BytesIO(one), name) for one in (packed, packed[:-200]))
    assert cut.events is not None and whole.events is not None
    assert 0 < cut.events < whole.events
    assert any("the gzip data end early" in problem.reason for problem in cut.problems)


def test_the_name_of_a_compressed_raw_file_tells_as_much() -> None:
    name, content = RAW
    packed = gzip.compress(content)
    for path in (f"281017.02/BSM07/{name}", f"PED/{name[:-4]}.ped"):
        metadata = TaigaRawReader().metadata(io.BytesIO(packed), f"{path}.gz")
        assert metadata == TaigaRawReader().metadata(io.BytesIO(content), path)


@pytest.mark.parametrize("damage", [b"", b"x" * 77])
def test_spans_of_the_content_of_a_compressed_raw_file_hold_every_record_once(damage: bytes) -> None:
    content = RAW[1][:1000] + damage + RAW[1][1000:]
    packed, problems, mine = gzip.compress(content), Problems(), Problems()
    whole = [one for records in read_records(io.BytesIO(packed), problems) for one in records["event"].tolist()]
    assert len(whole) == 20 - bool(damage)
    stream, events = io.BytesIO(packed), []
    for start in range(0, len(content), 700):
        for records in read_records(stream, mine, batch=3, span=Span(start, start + 700)):
            events += records["event"].tolist()
    assert events == whole
    assert [one.offset for one in mine.kept] == [one.offset for one in problems.kept]


def test_the_spans_of_a_survey_hold_all_records_of_a_compressed_raw_file(tmp_path: Path) -> None:
    path = tmp_path / "28107007.001.gz"
    path.write_bytes(gzip.compress(LONG["taiga-raw"][1]))
    tasks = survey_tasks([path.as_uri()], target=path.stat().st_size // 3)
    assert len(tasks) > 1
    (survey,) = joined(look_through(task) for task in tasks)
    assert survey.records == {"7": 3000}
