"""Quality of runs: raw files and images with faults that were put in, and the real run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import FormatError, UsageError
from apbatch.formats.images import to_binary
from apbatch.formats.taiga.raw import RECORD
from apbatch.quality.file_quality import FileQuality
from apbatch.quality.records import _curve, keep_quality, kept_quality
from apbatch.quality.report import is_complete, read_summary, write_quality
from apbatch.quality.runs import Rate, RunQuality, pixel_table, quality_of_runs, rate_table
from apbatch.spark.inputs.sources import RawOptions, Source, sources_at
from apbatch.spark.quality import image_sources, measure_file
from tests.synthetic import write_dataset

CAMERA = "TAIGA-IACT01-2017"
START_S = 61_142  # of the day: 16:59:02


def packed_time(nanoseconds: np.ndarray) -> np.ndarray:
    total = np.zeros(len(nanoseconds), np.uint64)
    shift, rest = 0, nanoseconds // 10
    for bits, size in ((7, 100), (10, 1000), (10, 1000), (6, 60), (6, 60), (5, 24)):
        rest, part = np.divmod(rest, size)
        total |= part.astype(np.uint64) << np.uint64(shift)
        shift += bits
    return (total[:, None] >> np.array([0, 16, 32, 48], np.uint64) & np.uint64(0xFFFF)).astype(np.uint16)


def raw_file(folder: Path, cluster: int, events: np.ndarray, seconds: np.ndarray, codes: np.ndarray) -> Source:
    records = np.zeros(len(events), RECORD)
    records["type"], records["size"], records["end"] = 3032, 132, 0xFFFFFFFF
    records["event"], records["board"] = events, cluster - 1
    records["time"] = packed_time(((START_S + seconds) * 1e9).astype(np.int64))
    records["adc"] = np.round(4 * codes)
    path = folder / f"BSM{cluster:02}" / f"28107{cluster:03}.001"
    path.parent.mkdir()
    path.write_bytes(records.tobytes())
    return Source(f"file://{path}", "taiga-raw", "TAIGA", 20171028, None, CAMERA)


def looked_at(sources: list[Source], bin_s: float = 5.0) -> list[FileQuality]:
    found: list[FileQuality] = []
    for source in sources:
        answer = measure_file(source, bin_s)
        assert not isinstance(answer, str), answer
        found += answer
    return found


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> RunQuality:
    """Two clusters of 20 s: 100 and 50 records a second, half the rate in the last 5 s; a dead and a hot pixel."""
    folder, random = tmp_path_factory.mktemp("raw"), np.random.default_rng(1)
    sources = []
    for cluster, rate in ((1, 100), (2, 50)):
        seconds = np.concatenate([np.arange(0, 15, 1 / rate), np.arange(15, 20, 2 / rate)])
        codes = random.normal(350, 30, (len(seconds), 32, 2))
        if cluster == 2:
            codes[:, 5, 0] = 300 + random.normal(0, 6, len(seconds))
            codes[random.random(len(seconds)) < 0.1, 9, 0] += 1000
        events = np.arange(len(seconds)) * (200 // rate)  # every event of cluster 2 is one of cluster 1
        sources.append(raw_file(folder, cluster, events, seconds, codes))
    (quality,) = quality_of_runs(looked_at(sources), 5.0)
    return quality


def test_rates_follow_the_run(faulty: RunQuality) -> None:
    for cluster, rate in ((0, 100), (1, 100), (2, 50)):
        got = faulty.rates[cluster]
        assert got.rate[:3] == pytest.approx([rate] * 3, rel=0.02)
        assert got.rate[-1] == pytest.approx(rate / 2, rel=0.05)
    assert faulty.summary["event_rate"]["median"] == pytest.approx(100, rel=0.02)
    assert faulty.summary["seconds"] == pytest.approx(20, abs=0.1)
    assert str(rate_table([faulty])["start"][0].as_py()).startswith("2017-10-28 16:59:0")


def test_events_and_clusters_are_counted(faulty: RunQuality) -> None:
    summary = faulty.summary
    assert (summary["records"], summary["events"], summary["files"]) == (1750 + 875, 1750, 2)
    assert summary["multiplicity"] == {"1": 875, "2": 875}
    assert summary["event_numbers"] == 3499 and summary["events_without_a_record"] == 1749
    assert summary["absent_clusters"] == list(range(3, 23))
    assert summary["clusters"]["2"]["share_of_events"] == 0.5
    assert summary["missing_clusters"] == pytest.approx(1 - 1.5 / 22, abs=1e-6)


def test_faulty_pixels_are_where_they_were_put(faulty: RunQuality) -> None:
    camera = camera_named(CAMERA)
    dead, hot = camera.index(np.array([2, 2]), np.array([10, 18]))  # even numbers are the high gain
    status = faulty.status["high"]
    assert status[dead] == "dead" and status[hot] == "hot"
    here = np.isin(camera.cluster, (1, 2))
    assert (status[here] == "good").sum() == here.sum() - 2 and set(status[~here]) == {"absent"}
    assert set(faulty.status["low"][here]) == {"good"}
    assert faulty.gains["high"].level[dead] == pytest.approx(300, abs=1)
    assert faulty.gains["high"].spread[dead] == pytest.approx(6, rel=0.15)
    rows = pixel_table([faulty]).to_pylist()
    (row,) = [row for row in rows if row["pixel"] == dead and row["gain"] == "high"]
    assert (row["cluster"], row["number"], row["status"]) == (2, 10, "dead") and row["unrest"] < 5


def test_damage_and_strange_times_are_losses(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    source = raw_file(tmp_path, 1, np.arange(50), np.arange(50) / 10, random.normal(350, 30, (50, 32, 2)))
    path = Path(source.url.removeprefix("file://"))
    content = bytearray(path.read_bytes())
    content[156 * 10 + 12 : 156 * 10 + 20] = b"\xff" * 8  # no time of day
    path.write_bytes(bytes(content[: 156 * 20]) + b"rubbish" + bytes(content[156 * 20 :]) + b"\0" * 9)
    again = path.parent / "28107001.002"
    again.write_bytes(bytes(content[: 156 * 5]))
    (quality,) = quality_of_runs(
        looked_at([source, Source(f"file://{again}", "taiga-raw", "TAIGA", 20171028, None, CAMERA)]), 5.0
    )
    losses = quality.summary["losses"]
    assert losses == {
        "damaged places in files": 2, "records repeated within an event": 5, "records without a time": 1,
    }  # fmt: skip
    assert any("28107001.001 at byte 3120" in problem for problem in quality.summary["problems"])
    assert quality.summary["events"] == 50


def test_a_file_of_rubbish_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "28107001.001").write_bytes(b"\0" * 500)
    answer = measure_file(Source(f"file://{tmp_path}/28107001.001", "taiga-raw", "TAIGA", 1, None, CAMERA), 5.0)
    assert isinstance(answer, str) and "no whole record" in answer
    assert "no such file" in str(measure_file(Source(f"file://{tmp_path}/x", "taiga-raw", "T", 1, None, CAMERA), 5.0))


def images(folder: Path, times: list[int | None], pixels: np.ndarray) -> str:
    count = len(pixels)
    table = pa.table(
        {
            "experiment": ["T"] * count, "run": pa.array(np.repeat([1, 2], [count - 40, 40])),
            "event": pa.array(range(count), pa.int64()), "telescope": pa.array([1] * count, pa.int32()),
            "time_ns": pa.array(times, pa.int64()), "image": to_binary(pixels), "mask": to_binary(pixels > 5),
        }
    )  # fmt: skip
    return write_dataset(folder, table, {"kind": "images", "camera": CAMERA, "cleaning": "none"})


def test_images_arelooked_at_in_photo_electrons(tmp_path: Path) -> None:
    camera, random = camera_named(CAMERA), np.random.default_rng(3)
    pixels = random.normal(0, 1.5, (600, camera.n_pixels)).astype(np.float32)
    pixels[:, 7] = 0
    pixels[:, 9] *= 4
    pixels[::3, camera.cluster == 5] = np.nan
    pixels[:, camera.cluster == 8] = np.nan
    url = images(tmp_path / "images", [int(1e18) + n * 50_000_000 for n in range(560)] + [None] * 40, pixels)
    first, second = quality_of_runs(looked_at(image_sources(url)), 5.0)
    assert (first.summary["events"], second.summary["events"]) == (560, 40)
    assert first.summary["files"] == 3 and first.summary["unit"] == "p.e."
    assert first.summary["absent_clusters"] == [8]
    assert first.summary["clusters"]["5"]["share_of_events"] == pytest.approx(2 / 3, abs=0.01)
    assert first.summary["multiplicity"] == {"20": 187, "21": 373}
    assert first.rates[0].rate[1:4] == pytest.approx([20] * 3, rel=0.05)
    status = first.status["whole"]
    assert status[7] == "dead" and status[9] == "noisy"
    assert set(status[camera.cluster == 8]) == {"absent"} and set(status[camera.cluster == 5]) == {"good"}
    assert second.summary["losses"] == {"images without a time": 40} and second.summary["seconds"] is None
    assert second.summary["event_rate"]["median"] is None


def test_a_time_that_is_years_away_costs_no_bins_between(tmp_path: Path) -> None:
    camera = camera_named(CAMERA)
    pixels = np.random.default_rng(3).normal(0, 1.5, (140, camera.n_pixels)).astype(np.float32)
    times = [int(1.5e18) + n * 500_000_000 for n in range(100)]
    url = images(tmp_path / "images", [0, *times[1:], *[None] * 40], pixels)
    run, _ = quality_of_runs(looked_at(image_sources(url)), 5.0)
    assert run.rates[0].count.tolist() == [1, 9, *[10] * 9]
    assert run.rates[0].start[:2].tolist() == [0, int(1.5e18)]
    assert rate_table([run]).num_rows == 11
    assert run.summary["problems"][0].startswith("times are up to 17361 days apart")


def test_bins_without_a_record_have_a_rate_of_zero(tmp_path: Path) -> None:
    camera = camera_named(CAMERA)
    pixels = np.random.default_rng(3).normal(0, 1.5, (60, camera.n_pixels)).astype(np.float32)
    times = [int(1.5e18) + (n if n < 10 else n + 20) * 500_000_000 for n in range(20)]
    url = images(tmp_path / "images", [*times, *[None] * 40], pixels)
    run, _ = quality_of_runs(looked_at(image_sources(url)), 5.0)
    assert run.rates[0].count.tolist() == [10, 0, 0, 10] and run.summary["problems"] == []


def test_the_folder_is_whole_or_not_complete(tmp_path: Path, faulty: RunQuality) -> None:
    url = f"file://{tmp_path}/out"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "quality.json").write_text("{}")  # of an earlier run
    write_quality([faulty], url, ["file:///in"], 5.0, {"unreadable files": 1})
    assert is_complete(url)
    summary = read_summary(url)
    assert summary["runs"][0]["pixels"]["high"] == {"absent": 504, "dead": 1, "hot": 1, "good": 54}
    assert summary["provenance"]["inputs"] == ["file:///in"]
    assert pq.read_table(tmp_path / "out" / "pixels.parquet").num_rows == 2 * 560
    page = (tmp_path / "out" / "report.html").read_text()
    for text in ("TAIGA, run 20171028", "1 unreadable files", "No record of cluster 3, 4", "<svg", "data:image/png"):
        assert text in page
    assert "nan" not in page.partition("<svg")[0]
    (tmp_path / "out" / "quality.json").unlink()
    assert not is_complete(url)


def test_a_home_keeps_the_last_look_at_each_run(tmp_path: Path, faulty: RunQuality) -> None:
    keep_quality(tmp_path, [faulty], "file:///first")
    keep_quality(tmp_path, [faulty], "file:///second")
    experiment, run, telescope = faulty.run
    (record,) = kept_quality(tmp_path, experiment, run)
    assert record["output"] == "file:///second" and record["telescope"] == telescope
    assert record["pixels"] == faulty.summary["pixels"]
    assert record["gains"]["high"]["pedestal"] == pytest.approx(350, abs=2)
    rates = [rate for _, rate in record["rates"]]
    assert rates[:3] == pytest.approx([100] * 3, rel=0.05) and rates[-1] == pytest.approx(50, rel=0.05)
    assert record["rates"][0][0].startswith("2017-10-28T16:59:0")
    assert kept_quality(tmp_path, experiment, run + 1) == kept_quality(tmp_path, f"../{experiment}", run) == []


def test_neighbouring_bins_of_a_long_run_are_one() -> None:
    start, seconds = np.arange(150) * 10**9, np.ones(150)
    count = np.arange(150)
    points = _curve(Rate(start, seconds, count))
    assert len(points) == 50
    assert [rate for _, rate in points] == [1 + 3 * number for number in range(50)]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, faulty: RunQuality) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(UsageError, match="something else"):
        write_quality([faulty], f"file://{tmp_path}", [], 5.0, {})
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "quality.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        read_summary(f"file://{tmp_path}/d")


def test_raw_files_need_a_camera_only(tmp_path: Path) -> None:
    source = raw_file(tmp_path, 1, np.arange(20), np.arange(20) / 10, np.full((20, 32, 2), 350.0))
    (found,) = sources_at([source.url], RawOptions(CAMERA, calibrated=False))
    assert found.camera == CAMERA
    with pytest.raises(UsageError, match=r"raw files need a camera$"):
        try:
            sources_at([source.url], RawOptions(calibrated=False))
        except UsageError as error:
            raise UsageError(error.what) from None


def test_the_real_run(data: Path) -> None:
    """Numbers known from the data; pixels without high voltage are one group of neighbours."""
    files = sorted((data / "taiga_raw").glob("BSM*/*"))
    sources = [Source(f"file://{path}", "taiga-raw", "TAIGA", 20171028, None, CAMERA) for path in files]
    (quality,) = quality_of_runs(looked_at(sources), 5.0)
    summary = quality.summary
    assert summary["events"] == 170_638 and summary["absent_clusters"] == [20, 22]
    at_least = [sum(count for number, count in summary["multiplicity"].items() if int(number) >= k) for k in (2, 3)]
    assert at_least == [255, 30]
    assert summary["seconds"] == pytest.approx(122.6, abs=0.1) and summary["losses"] == {}
    assert 1350 < summary["event_rate"]["median"] < 1450
    camera = camera_named(CAMERA)
    dead = np.flatnonzero((quality.status["high"] == "dead") & (camera.cluster == 12))
    assert len(dead) == 7
    near = [len(set(camera.neighbours[pixel]) & set(dead)) for pixel in dead]
    assert sorted(near) == [3] * 6 + [6]  # one pixel and its six neighbours
    unrest = quality.gains["high"].unrest
    assert 0.9 < np.nanmedian(unrest) < 1.1  # levels scatter by their errors, no more
    assert json.dumps(summary, allow_nan=False)
