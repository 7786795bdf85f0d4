"""TAIGA Monte Carlo and KASCADE files, whole and broken."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.instruments.taiga import DEG_PER_CM
from apbatch.errors import FormatError
from apbatch.formats.images import camera_of, from_binary
from apbatch.formats.kascade import KascadeReader
from apbatch.formats.reader import recognise
from apbatch.formats.taiga.monte_carlo import TaigaMcReader
from apbatch.formats.taiga.parameter_table import TaigaHillasReader
from apbatch.formats.text import number_lines
from apbatch.formats.text.lines import Problems, lines_of, numbers

MC_NAME = "taiga607_clean_iact01_14_7fix_cb0.txt"
#: Two images: one of two pixels, one of one.
IMAGES = (
    b"0 1 1 2 192.901 7.02741 7.15309 485.326 171.931 -1.7 20.4\n"
    b"2 12 15 -10.3923 22.382\n"
    b"2 14 13.5 -7.79423 11.03\n"
    b"1 1 4 1 192.901 7.02741 7.15309 -159.7 -333.3 -0.2 9.3\n"
    b"3 7 -7.5 12.9904 86.938\n"
)
EVENT = (
    b"6402 4 1207904712 80208800 7.92485e+14 91.6915 39.9405 0.596909 4.54156 15945.2 5757.44 "
    b"0.18 0.003 0.20 0.003 0.24 0.003 0.18 0.003 10.0898 984.061\n"
)


def mc(content: bytes, name: str = MC_NAME):  # type: ignore[no-untyped-def]
    return TaigaMcReader().metadata(io.BytesIO(content), name)


def test_the_real_images_are_as_many_and_as_large_as_the_collaborations_table_says(data: Path) -> None:
    path = data / "taiga_mc" / MC_NAME
    with (data / "taiga_mc" / "taiga607_hillas_iact01_14_7fix_cb0.csv").open() as file:
        rows = list(csv.DictReader(file))
    camera = camera_named("TAIGA-IACT01")
    size, x, pixels = [], [], []
    with path.open("rb") as stream:
        for batch in TaigaMcReader().images(stream, path.name):
            assert camera_of(batch.schema) == "TAIGA-IACT01"
            images = from_binary(batch["image"])
            size += images.sum(axis=1).tolist()
            x += (images @ camera.x / images.sum(axis=1)).tolist()
            pixels += from_binary(batch["mask"], "u1").sum(axis=1).tolist()
    assert len(rows) == len(size) == 5698
    assert np.allclose(size, [float(row["size"]) for row in rows], rtol=1e-4)
    assert pixels == [int(row["numb_pix"]) for row in rows]
    assert np.allclose(x, [float(row["Xc[0]"]) for row in rows], atol=2e-4)


def test_truth_has_the_energies_cores_and_source_of_the_table_and_one_row_an_image(data: Path) -> None:
    with (data / "taiga_mc" / "taiga607_hillas_iact01_14_7fix_cb0.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (data / "taiga_mc" / MC_NAME).open("rb") as stream:
        truth = [row for batch in TaigaMcReader().truth(stream, MC_NAME) for row in batch.to_pylist()]
    assert [row["shower"] for row in truth] == [int(row["event_number"]) for row in rows]
    for ours, name in (("true_energy", "energy"), ("true_core_x", "x_ground"), ("true_source_x", "source_x")):
        assert np.allclose([row[ours] for row in truth], [float(row[name]) for row in rows], rtol=1e-5, atol=1e-5)
    assert len({row["event"] for row in truth}) == 5698


def test_image_and_table_are_described_alike(data: Path) -> None:
    with (data / "taiga_mc" / MC_NAME).open("rb") as stream:
        images = TaigaMcReader().metadata(stream, MC_NAME)
    table_name = "taiga607_hillas_iact01_14_7fix_cb0.csv"
    with (data / "taiga_mc" / table_name).open("rb") as stream:
        table = TaigaHillasReader().metadata(stream, table_name)
    for name in ("energy_min", "energy_max", "showers"):
        assert images.attributes[name] == table.attributes[name]
    assert (images.events, images.run, images.telescope) == (table.events, table.run, table.telescope) == (5698, 607, 1)


def test_images_lie_in_the_right_pixels() -> None:
    (batch,) = TaigaMcReader().images(io.BytesIO(IMAGES), MC_NAME)
    camera = camera_named("TAIGA-IACT01")
    image = from_binary(batch["image"])[0]
    (hit,) = np.flatnonzero(image == np.float32(22.382))
    assert (camera.cluster[hit], camera.number[hit]) == (2, 24)
    assert camera.x[hit] == pytest.approx(15 * 0.1206)
    assert batch["event"].to_pylist() == [101, 104]


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (IMAGES.replace(b"2 14 13.5", b"2 14 what"), 3),
        (IMAGES.replace(b"2 14 13.5 -7.79423 11.03\n", b""), 1),
        (IMAGES.replace(b"2 14 13.5", b"2 14 14.7"), 1),  # no pixel there
        (IMAGES.replace(b"2 14 13.5 -7.79423 11.03", b"2 12 15 -10.3923 11.03"), 1),  # twice the same
    ],
)
def test_a_broken_image_costs_only_itself(broken: bytes, line: int) -> None:
    found = mc(broken)
    assert found.events == 1
    assert found.problems[0].reason.startswith(f"line {line}:")


def test_an_image_cut_by_the_end_of_the_file_is_reported_at_its_header() -> None:
    found = mc(IMAGES + b"2 2 0 3 50 7 7 1 1 0 0\n2 12 15 -10.3923 22.382\n")
    assert found.events == 2
    assert found.problems[0].offset == len(IMAGES)
    assert "1 of 3 pixels" in found.problems[0].reason


def one_image_a_pixel(camera_name: str) -> bytes:
    """Return an image of each pixel of a camera with its neighbours, numbered as in the Monte Carlo."""
    camera = camera_named(camera_name)
    lines = []
    for pixel in range(camera.n_pixels):
        hits = [pixel, *camera.neighbours[pixel][camera.neighbours[pixel] >= 0].tolist()]
        lines.append(f"{pixel} {pixel + 1} 1 {len(hits)} 40.0 0 0 10 20 0 0")
        for hit in hits:
            x, y = camera.x[hit] / DEG_PER_CM, camera.y[hit] / DEG_PER_CM
            lines.append(f"{camera.cluster[hit]} {camera.number[hit] // 2} {x:.5f} {y:.5f} {20 + hit % 7}.5")
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.mark.parametrize(("telescope", "camera"), [(1, "TAIGA-IACT01"), (2, "TAIGA-IACT02"), (3, "TAIGA-IACT02")])
def test_images_are_put_into_the_camera_of_the_telescope_in_the_name(telescope: int, camera: str) -> None:
    content, name = one_image_a_pixel(camera), f"taiga700_clean_iact{telescope:02}_14_7fix.txt"
    found = mc(content, name)
    count = camera_named(camera).n_pixels
    assert (found.events, found.telescope, found.attributes["camera"], found.problems) == (count, telescope, camera, ())
    (images,) = TaigaMcReader().images(io.BytesIO(content), name)
    assert camera_of(images.schema) == camera
    hit = from_binary(images["image"]) > 0
    assert hit.shape == (count, count) and hit.diagonal().all()
    for batches in (TaigaMcReader().truth, TaigaMcReader().events):
        assert sum(batch.num_rows for batch in batches(io.BytesIO(content), name)) == count


def test_a_file_of_another_telescope_than_its_name_says_is_refused() -> None:
    for name in ("taiga700_clean_iact01_14_7fix.txt", "taiga700_clean.txt"):
        with pytest.raises(FormatError, match="do not lie in the camera TAIGA-IACT01") as caught:
            mc(one_image_a_pixel("TAIGA-IACT02"), name)
        assert caught.value.remedy is not None and "_iact02_" in caught.value.remedy


def test_a_text_without_a_whole_image_is_refused() -> None:
    with pytest.raises(FormatError, match="no whole image"):
        mc(IMAGES.split(b"\n", 1)[0])


PIECES = st.one_of(
    st.sampled_from(IMAGES.splitlines(keepends=True)),
    st.just(IMAGES),
    st.text("0123456789. -abc\n", max_size=80).map(str.encode),
    st.just(b"x" * 70_000 + b"\n"),
)


@given(st.lists(PIECES, max_size=10).map(b"".join), st.integers(20, 400))
@settings(max_examples=50)
def test_spans_of_text_hold_every_image_once_whatever_the_damage(content: bytes, step: int) -> None:
    reader = TaigaMcReader()

    def rows(batches: Iterable[pa.RecordBatch]) -> list[dict[str, object]]:
        return [row for batch in batches for row in batch.to_pylist()]

    problems, mine = Problems(), Problems()
    whole = rows(reader.images(io.BytesIO(content), MC_NAME, problems=problems))
    found = []
    for span in reader.spans(io.BytesIO(content), MC_NAME, step * (1 if len(content) < 60_000 else 200)):
        found += rows(reader.images(io.BytesIO(content), MC_NAME, span=span, problems=mine))
    assert found == whole
    assert {problem.offset for problem in mine.kept} <= {problem.offset for problem in problems.kept}


@given(st.lists(PIECES, max_size=8).map(b"".join), st.sampled_from([1, 7, 50, 1 << 20]))
@settings(max_examples=80)
def test_images_do_not_depend_on_blocks_or_on_the_compiled_parser(content: bytes, block: int) -> None:
    def read() -> tuple[list[dict[str, object]], list[tuple[int, str]]]:
        problems = Problems()
        batches = TaigaMcReader().images(io.BytesIO(content), MC_NAME, problems=problems)
        rows = [row for batch in batches for row in batch.to_pylist()]
        # How long an overlong line is, is not known before its end.
        found = [(one.offset, one.reason.split(" bytes long")[-1]) for one in problems.kept]
        return rows, sorted(found)

    wanted = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(number_lines, "_BLOCK", block if len(content) < 60_000 else 50_000)
        patch.setattr(number_lines, "_compiled", lambda: None)
        assert read() == wanted


NUMBERS = st.one_of(
    st.floats(allow_nan=False, width=32).map(repr),
    st.floats(-1e6, 1e6).map(lambda value: f"{value:.5g}"),
    st.integers(-(10**17), 10**17).map(str),
    st.text("0123456789.eE+-", min_size=1, max_size=24),
    st.sampled_from(["nan", "-inf", "1_0", "0x1", ".", "+", "1e", "1e400", "1e-400", ".5", "5.", "00012", "-0"]),
)


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=9), min_size=1, max_size=8))
@settings(max_examples=200)
def test_numbers_are_parsed_to_the_last_bit_as_python_does(table: list[list[str]]) -> None:
    text = "".join(" ".join(row) + "\n" for row in table).encode()
    (lines,) = number_lines.number_lines(io.BytesIO(text), Problems(), 6)
    assert number_lines._compiled() is not None
    for row, words in enumerate(table):
        found = numbers(words)
        assert lines.count[row] == (-1 if found is None else len(words))
        if found is not None:
            kept = np.array(found[:6])
            assert lines.values[row, : len(kept)].tobytes() == kept.tobytes() or np.isnan(kept).any()


@pytest.mark.parametrize("amplitude", [b"nan", b"inf", b"-inf", b"1e999", b"", b"11.03 5", b"\xff", b"1_1"])
def test_an_amplitude_that_is_no_number_costs_its_image(amplitude: bytes) -> None:
    found = mc(IMAGES.replace(b"11.03", amplitude))
    assert found.events == 1
    assert found.problems[0].reason == "line 3: pixel 2 of 2 was expected; passed over up to the next header"


@pytest.mark.parametrize(
    "header", [b"0 1e300 1 2", b"0 1 1e300 2", b"0 1 1 1e300", b"0 1 1 1e9", b"0 -1 1 2", b"0 1 nan 2"]
)
def test_numbers_of_showers_and_pixels_beyond_reason_are_no_header(header: bytes) -> None:
    content = IMAGES.replace(b"0 1 1 2", header)
    assert mc(content).events == 1
    list(TaigaMcReader().images(io.BytesIO(content), MC_NAME))


@pytest.mark.parametrize(
    "hit", [b"1e300 12 15 -10.3923 22.382", b"2 -1e300 15 -10.3923 22.382", b"2 12 1e300 1e300 22"]
)
def test_hits_of_absurd_numbers_cost_only_their_image(hit: bytes) -> None:
    content = IMAGES.replace(b"2 12 15 -10.3923 22.382", hit)
    assert mc(content).events in (1, 2)


def test_windows_line_ends_make_no_difference() -> None:
    assert mc(IMAGES.replace(b"\n", b"\r\n")).events == 2


@given(st.binary(max_size=600))
@example(b"a\rb,c\n1,2\n")  # a carriage return within a line once raised in the table's reader
def test_no_bytes_crash_the_text_readers(junk: bytes) -> None:
    for reader in (TaigaMcReader(), TaigaHillasReader(), KascadeReader()):
        reader.sniff("x", junk)
        try:
            reader.metadata(io.BytesIO(junk), "x")
        except FormatError:
            continue


def test_an_endless_line_is_passed_over_in_bounded_memory() -> None:
    problems = Problems()
    found = list(lines_of(io.BytesIO(b"a\n" + b"x" * 300_000 + b"\nb\n"), problems))
    assert [(line.number, line.offset, line.text) for line in found] == [(1, 0, "a"), (3, 300_003, "b")]
    assert "300001 bytes long" in problems.kept[0].reason


def test_the_real_kascade_events_are_ten_of_two_runs(data: Path) -> None:
    for name in ("kascade.dat", "kascade.h5"):
        with (data / "kascade" / name).open("rb") as stream:
            head = stream.read(4096)
            reader = recognise(name, head, stream)
            assert reader is not None and reader.name == "kascade"
            found = reader.metadata(stream, name)
        assert (found.events, found.run) == (10, 6402)
        assert found.attributes["run_list"] == "6402 6898"
        assert found.attributes["energy_min"] == pytest.approx(198.997)  # TeV
        assert found.attributes["zenith_max"] == pytest.approx(np.degrees(0.647813))
        assert found.time_start == datetime(2008, 4, 11, 9, 5, 12, 80208, tzinfo=UTC)


def test_a_damaged_hdf5_file_is_refused_by_its_name(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "kascade_2.h5"
    path.write_bytes((data / "kascade" / "kascade.h5").read_bytes()[:20_000])
    with path.open("rb") as stream:
        reader = recognise(path.name, stream.read(4096), stream)
        assert reader is not None
        with pytest.raises(FormatError):
            reader.metadata(stream, path.name)


def test_other_hdf5_files_are_not_kascades(data: Path) -> None:
    path = data / "airshower" / "hisparc_process_events.h5"
    with path.open("rb") as stream:
        reader = recognise(path.name, stream.read(4096), stream)
    assert reader is not None and reader.name != "kascade"


def kascade_tables(write: Callable[[Any, np.ndarray], None]) -> bytes:
    """Return an HDF5 file into which `write` puts tables of five KASCADE events."""
    h5py = pytest.importorskip("h5py")
    names = ("run_id", "event_id", "timestamp", "nanoseconds", "energy", "zenith", "azimuth")
    rows = np.zeros(5, [(name, "f8" if name in names[4:] else "i8") for name in names])
    rows["run_id"], rows["event_id"], rows["timestamp"] = 6402, np.arange(5), 1_207_904_712 + np.arange(5)
    rows["energy"], rows["zenith"] = 1e15, 0.3
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        write(file, rows)
    return stream.getvalue()


def test_events_of_all_kascade_tables_of_a_file_are_read() -> None:
    def write(file: Any, rows: np.ndarray) -> None:
        file["kascade/events"] = rows
        rows["run_id"], rows["energy"][3] = 6403, np.nan
        file["later/events"] = rows

    content = kascade_tables(write)
    found = KascadeReader().metadata(io.BytesIO(content), "kascade.h5")
    assert (found.events, found.attributes["run_list"]) == (9, "6402 6403")
    assert [problem.reason for problem in found.problems] == ["row 3 of later/events: an energy of nan eV"]
    batches = list(KascadeReader().events(io.BytesIO(content), "kascade.h5"))
    assert [run for batch in batches for run in batch["run"].to_pylist()] == [6402] * 5 + [6403] * 4


def test_a_kascade_table_that_can_not_be_read_leaves_the_others() -> None:
    def write(file: Any, rows: np.ndarray) -> None:
        file["a"] = rows.reshape(1, 5)
        file["b"] = rows

    found = KascadeReader().metadata(io.BytesIO(kascade_tables(write)), "kascade.h5")
    assert found.events == 5
    assert [problem.reason for problem in found.problems] == ["a has 2 dimensions, a table has one"]


@pytest.mark.parametrize(
    "line", [b"1 2 3\n", EVENT.replace(b"0.596909", b"nan"), EVENT.replace(b"1207904712", b"12"), EVENT[:60] + b"\n"]
)
def test_a_broken_kascade_line_is_reported_and_passed_over(line: bytes) -> None:
    found = KascadeReader().metadata(io.BytesIO(EVENT + line + EVENT), "k.dat")
    assert found.events == 2
    assert (found.problems[0].offset, found.problems[0].reason.split(":")[0]) == (len(EVENT), "line 2")


@pytest.mark.parametrize("head", [b"", b"1 2 3\n", b"# only a comment\n", b" ".join([b"1"] * 21) + b"\n"])
def test_tables_of_something_else_are_not_kascades(head: bytes) -> None:
    assert not KascadeReader().sniff("x.dat", head)
