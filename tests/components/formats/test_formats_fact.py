"""FACT's photon stream: the real simulated events, and events made by hand, whole and broken."""

from __future__ import annotations

import bz2
import gzip
import io
import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.errors import FormatError
from apbatch.formats.compressed import MOST_EXPANSION
from apbatch.formats.fact import photons as fact
from apbatch.formats.fact.photons import FactPhotonsReader
from apbatch.formats.images import camera_in, from_binary
from apbatch.formats.text.lines import Problems

READER = FactPhotonsReader()
NAME = "20170119_229.phs.jsonl.gz"


def event(number: int = 1, pixels: dict[int, list[int]] | None = None, **other: object) -> dict[str, object]:
    """Make an event of an observation, as the description of the format has it."""
    photons: list[list[int]] = [[] for _ in range(1440)]
    for pixel, slices in (pixels if pixels is not None else {3: [59, 84, 60]}).items():
        photons[pixel] = slices
    content: dict[str, object] = {"Night": 20170119, "Run": 229, "Event": number, "UnixTime_s_us": [1484895178, 532244]}
    content |= {"Trigger": 4, "Az_deg": -63.25, "Zd_deg": 33.0, "PhotonArrivals_500ps": photons, "SaturatedPixels": []}
    return {**content, **other}


def lines(*events: dict[str, object], separators: tuple[str, str] = (",", ":")) -> bytes:
    return b"".join(json.dumps(one, separators=separators).encode() + b"\n" for one in events)


def read(content: bytes, **options: int) -> tuple[list[pa.RecordBatch], Problems]:
    problems = Problems()
    return list(READER.images(io.BytesIO(content), NAME, problems=problems, **options)), problems  # type: ignore[arg-type]


def numbers(content: bytes) -> tuple[list[int], Problems]:
    batches, problems = read(content)
    return [number for batch in batches for number in batch["event"].to_pylist()], problems


def test_the_real_events_have_the_photons_that_plain_json_finds(data: Path) -> None:
    path = data / "fact_images" / "011014.phs.jsonl.gz"
    with path.open("rb") as stream:
        assert READER.sniff("renamed", stream.read(4096))
        stream.seek(0)
        batches = list(READER.images(stream, path.name, batch_size=25))
    with gzip.open(path) as stream:
        rows = [json.loads(line) for line in stream]
    photons = [row["PhotonArrivals_500ps"] for row in rows]
    counts = np.array([[len(pixel) for pixel in one] for one in photons], np.float32)
    middle = np.array([[np.median(pixel) / 2 if pixel else np.nan for pixel in one] for one in photons], np.float32)
    assert [batch.num_rows for batch in batches] == [25, 25, 11]
    assert np.array_equal(np.vstack([from_binary(batch["image"]) for batch in batches]), counts)
    assert np.array_equal(np.vstack([from_binary(batch["peak_time"]) for batch in batches]), middle, equal_nan=True)
    assert camera_in(batches[0].schema).n_pixels == 1440
    altitude = np.concatenate([batch["pointing_altitude"] for batch in batches])
    assert np.allclose(altitude, [90 - row["Zd_deg"] for row in rows])
    events = [number for batch in batches for number in batch["event"].to_pylist()]
    assert events == [100 * row["Event"] + row["Reuse"] for row in rows]


def test_light_of_the_real_showers_lies_together_in_the_order_of_the_camera(data: Path) -> None:
    # With pixels in any other order bright ones would hardly ever be neighbours.
    path = data / "fact_images" / "011014.phs.jsonl.gz"
    with path.open("rb") as stream:
        (batch,) = READER.images(stream, path.name)
    camera, images = camera_in(batch.schema), from_binary(batch["image"])
    bright = images >= 8
    pixel, slot = np.nonzero(camera.neighbours >= 0)
    other = camera.neighbours[pixel, slot]

    def together(order: np.ndarray) -> int:
        return int((bright[:, order[pixel]] & bright[:, order[other]]).sum())

    random = np.random.default_rng(1)
    shuffled = [together(random.permutation(1440)) for _ in range(5)]
    assert together(np.arange(1440)) > 5 * max(shuffled)


def test_an_observation_tells_night_run_time_and_pointing() -> None:
    content = lines(event(1), event(2, UnixTime_s_us=[1484895179, 0], Zd_deg=34))
    found = READER.metadata(io.BytesIO(content), NAME)
    assert (found.experiment, found.run, found.night, found.events) == ("FACT", 20170119229, date(2017, 1, 19), 2)
    assert found.time_start == datetime(2017, 1, 20, 6, 52, 58, 532244, tzinfo=UTC)
    assert (found.attributes["zenith_min"], found.attributes["zenith_max"]) == (33, 34)
    (batch,), _ = read(content)
    assert batch["time"].cast(pa.int64()).to_pylist() == [1484895178532244000, 1484895179000000000]
    assert batch["pointing_azimuth"].to_pylist() == [pytest.approx(296.75)] * 2
    assert list(READER.truth(io.BytesIO(content), NAME)) == []


NOON = 1484827200  # of the day on which the night of the other events began


@pytest.mark.parametrize(
    ("second", "right"),
    [(0, False), (NOON - 86_401, False), (NOON - 86_400, True), (NOON + 172_799, True), (NOON + 172_800, False)],
)
def test_an_event_whose_time_is_not_of_its_night_is_passed_over(second: int, right: bool) -> None:
    content = lines(event(1), event(2, UnixTime_s_us=[second, 0]), event(3))
    found, problems = numbers(content)
    metadata = READER.metadata(io.BytesIO(content), NAME)
    assert found == ([1, 2, 3] if right else [1, 3])
    assert (metadata.events, metadata.night) == (len(found), date(2017, 1, 19))
    for kept in (problems.result(), metadata.problems):
        assert len(kept) == (0 if right else 1)
        if not right:
            assert "line 2: UnixTime_s_us is" in kept[0].reason and "not of night 20170119" in kept[0].reason


def test_simulated_events_are_counted_by_shower_and_use_and_have_truth_apart() -> None:
    simulated = event(7, Run=11014, Reuse=3)
    for key in ("Night", "UnixTime_s_us", "Trigger"):
        del simulated[key]
    content = lines(simulated)
    (truth,) = READER.truth(io.BytesIO(content), "gamma/011014.phs.jsonl.gz")
    assert [truth[name][0].as_py() for name in ("event", "shower", "primary")] == [703, 7, "gamma"]
    found = READER.metadata(io.BytesIO(content), "gamma/011014.phs.jsonl.gz")
    assert (found.experiment, found.run, found.attributes["showers"]) == ("FACT-MC", 11014, 1)


def test_saturated_pixels_have_no_measurement() -> None:
    (batch,), _ = read(lines(event(pixels={1: [5] * 499, 2: [5] * 500, 9: [7]}, SaturatedPixels=[9])))
    image, peak = from_binary(batch["image"])[0], from_binary(batch["peak_time"])[0]
    assert image[1] == 499 and np.isnan(image[[2, 9]]).all() and np.isnan(peak[[2, 9]]).all()
    assert peak[1] == 2.5


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lambda content: gzip.compress(content) * 2])
def test_compressed_files_are_read(pack) -> None:  # type: ignore[no-untyped-def]
    content = pack(lines(event(1), event(2)))
    assert READER.sniff("x", content[:4096])
    found, problems = numbers(content)
    assert found in ([1, 2], [1, 2, 1, 2]) and not problems.count


def test_zstandard_files_are_read_and_a_cut_one_says_so() -> None:
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.compress(lines(*(event(number) for number in range(200))))
    assert numbers(packed)[0] == list(range(200))
    assert READER.sniff("x", packed[:4096])
    _, problems = numbers(packed[:-20])
    assert "end early" in problems.kept[-1].reason


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (event(Zd_deg="high"), "Zd_deg must be an angle"),
        (event(Event=-1), "Event must be a whole number"),
        (event(Event=2**80), "Event must be a whole number"),
        (event(Run=True), "Run must be a whole number"),
        (event(SaturatedPixels=[1440]), "SaturatedPixels"),
        (event(UnixTime_s_us=[1]), "UnixTime_s_us"),
        (event(UnixTime_s_us=[1, 10**6]), "UnixTime_s_us"),
        (event(PhotonArrivals_500ps=[[1]] * 1439), "1440 lists"),
        (event(PhotonArrivals_500ps=[[1]] * 1441), "1440 lists"),
        (event(PhotonArrivals_500ps=[[1.5]] * 1440), "whole numbers"),
        (event(PhotonArrivals_500ps=[[-1]] * 1440), "whole numbers"),
        (event(PhotonArrivals_500ps=[["1"]] * 1440), "whole numbers"),
        (event(PhotonArrivals_500ps=[[5000]] * 1440), "slices below"),
        (event(PhotonArrivals_500ps=[[[1]]] * 1440), "whole numbers"),
        ({"Night": 1}, "PhotonArrivals_500ps is missing"),
    ],
)
def test_a_broken_event_costs_only_itself_and_is_reported_by_line(broken: dict[str, object], reason: str) -> None:
    content = lines(event(1), broken, event(3))
    found, problems = numbers(content)
    assert found == [1, 3]
    (problem,) = problems.kept
    assert problem.reason.startswith("line 2: ") and reason in problem.reason
    assert problem.offset == len(lines(event(1)))


@pytest.mark.parametrize("cut", [10, 300, -5])
def test_a_cut_file_keeps_what_came_before_and_says_where(cut: int) -> None:
    content = gzip.compress(lines(*(event(number) for number in range(300))))
    assert READER.sniff(NAME, content[:cut][:4096])
    found, problems = numbers(content[:cut])
    assert found == list(range(len(found)))
    assert "end early" in problems.kept[-1].reason
    if not found:
        with pytest.raises(FormatError, match="no event"):
            READER.metadata(io.BytesIO(content[:cut]), NAME)


def test_a_bomb_is_given_up_in_bounded_memory_and_time() -> None:
    zeros = gzip.compress(b" " * (96 << 20), 9)
    assert len(zeros) * MOST_EXPANSION < 96 << 20
    found, problems = numbers(gzip.compress(lines(event(1))) + zeros)
    assert found == [1]
    assert any("expand more than" in problem.reason for problem in problems.kept)


@given(st.data())
@settings(max_examples=60)
def test_flipped_bytes_never_crash_and_never_cost_other_events(data: st.DataObject) -> None:
    content = bytearray(lines(*(event(number) for number in range(4))))
    length = len(content) // 4
    place = data.draw(st.integers(length, 2 * length - 2))  # of the second event
    content[place] = data.draw(st.integers(0, 255))
    found, _ = numbers(bytes(content))
    assert [number for number in found if number in (0, 3)] == [0, 3]


@given(st.integers(200, 9000), st.lists(st.sampled_from(["event", "junk", "blank"]), max_size=8))
@settings(max_examples=40)
def test_spans_of_lines_hold_every_event_once(step: int, parts: list[str]) -> None:
    content = b""
    for number, part in enumerate(parts):
        content += {"event": lines(event(number)), "junk": b"{" * (number + 1) * 99 + b"\n", "blank": b"\n\n"}[part]
    found = []
    for span in READER.spans(io.BytesIO(content), NAME, step):
        for batch in READER.images(io.BytesIO(content), NAME, span=span):
            found += batch["event"].to_pylist()
    assert found == numbers(content)[0]


@given(
    st.dictionaries(st.integers(0, 1439), st.lists(st.integers(0, 299), max_size=6), max_size=30),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
)
@settings(max_examples=60)
def test_the_compiled_parser_and_plain_json_agree(pixels: dict[int, list[int]], separators: tuple[str, str]) -> None:
    content = lines(event(pixels=pixels), separators=separators)
    (compiled,), _ = read(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fact, "_compiled", lambda: None)
        (plain,), _ = read(content)
    assert fact._compiled() is not None
    assert compiled.equals(plain)


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(junk: bytes) -> None:
    for content in (junk, b"\x1f\x8b\x08\x00" + junk, b"\x28\xb5\x2f\xfd" + junk, b"BZh9" + junk):
        READER.sniff(NAME, content)
        with pytest.raises(FormatError):
            READER.metadata(io.BytesIO(content), NAME)
