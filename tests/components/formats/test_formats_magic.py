"""MAGIC's calibrated files: the real events against uproot itself, and damaged copies."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apbatch.errors import FormatError
from apbatch.formats.clocks import time_of
from apbatch.formats.images import camera_in, from_binary
from apbatch.formats.magic import MagicReader, parse_name
from apbatch.formats.reader import Span, recognise
from apbatch.formats.root_columns import Column
from apbatch.formats.text.lines import Problems

uproot = pytest.importorskip("uproot")
READER = MagicReader()


@pytest.fixture(scope="module")
def file(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("data")
    return next((folder / "magic_real").glob("*.root"))


@pytest.fixture(scope="module")
def tree(file: Path) -> Any:
    return uproot.open(file)["Events"]


def read(content: bytes, name: str, **options: Any) -> tuple[list[Any], Problems]:
    problems = Problems()
    return list(READER.images(io.BytesIO(content), name, problems=problems, **options)), problems


def cosmics(tree: Any) -> np.ndarray:
    return np.asarray(tree["MTriggerPattern.fPrescaled"].array(library="np") != 8)


@pytest.mark.parametrize("size", [1, 7, 1024])
def test_images_and_arrival_times_are_uproots(file: Path, tree: Any, size: int) -> None:
    if size == 1:
        batches, _ = read(file.read_bytes(), file.name, batch_size=size, span=Span(0, 5))
        assert [batch.num_rows for batch in batches] == [1] * 4
        return
    batches, problems = read(file.read_bytes(), file.name, batch_size=size)
    keep = cosmics(tree)
    for column, branch, scale in (("image", "MCerPhotEvt.fPixels.fPhot", 1), ("peak_time", "MArrivalTime.fData", 2.05)):
        wanted = np.stack(tree[branch].array(library="np"))[keep, :1039].astype(np.float32)
        found = np.vstack([from_binary(batch[column]) for batch in batches])
        assert np.array_equal(found, wanted / np.float32(scale)), column
    assert camera_in(batches[0].schema).name == "MAGICCam"
    assert not problems.count


def test_keys_times_and_pointing_are_the_files(file: Path, tree: Any) -> None:
    (batch,), _ = read(file.read_bytes(), file.name)
    keep = cosmics(tree)
    assert batch["event"].to_pylist() == tree["MRawEvtHeader.fStereoEvtNumber"].array(library="np")[keep].tolist()
    assert len(set(batch["event"].to_pylist())) == keep.sum()
    assert set(batch["run"].to_pylist()) == {5029747} and set(batch["telescope"].to_pylist()) == {1}
    zenith = tree["MPointingPos.fZd"].array(library="np")[keep]
    assert np.allclose(batch["pointing_altitude"], 90 - zenith)
    ms, ns = (tree[name].array(library="np")[keep].astype(int) for name in ("MTime.fTime.fMilliSec", "MTime.fNanoSec"))
    midnight = int(datetime(2013, 10, 4, tzinfo=UTC).timestamp()) * 10**9
    assert batch["time"].cast("int64").to_pylist() == (midnight + ms * 10**6 + ns).tolist()


def replace_times(monkeypatch: pytest.MonkeyPatch, first_ms: int, step_ms: int, **others: int) -> None:
    """Give the events of the file other times: milliseconds of the day, and other branches as they are named."""
    real = Column.rows

    def rows(self: Column, start: int, stop: int, problems: Problems) -> Any:
        values, good = real(self, start, stop, problems)
        if self.name == "MTime.fTime.fMilliSec":
            values = first_ms + step_ms * np.arange(start, stop)[:, None]
        elif self.name in others:
            values = np.full_like(values, others[self.name])
        return values, good

    monkeypatch.setattr(Column, "rows", rows)


# MARS counts a night from the beginning of the day on which it ends: its milliseconds are negative before midnight.
@pytest.mark.parametrize("first", [-11 * 3_600_000, -50_000, 13 * 3_600_000 - 100_000])
def test_times_before_and_after_midnight_are_read(file: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    keep = np.flatnonzero(cosmics(uproot.open(file)["Events"]))
    replace_times(monkeypatch, first, 1_000, **{"MTime.fNanoSec": 7})
    (batch,), problems = read(file.read_bytes(), file.name)
    midnight = int(datetime(2013, 10, 4, tzinfo=UTC).timestamp()) * 10**9
    assert batch["time"].cast("int64").to_pylist() == (midnight + (first + 1_000 * keep) * 10**6 + 7).tolist()
    found = READER.metadata(io.BytesIO(file.read_bytes()), file.name)
    assert found.time_start == time_of(midnight + (first + 1_000 * int(keep[0])) * 10**6)
    assert found.time_end == time_of(midnight + (first + 1_000 * int(keep[-1])) * 10**6)
    assert not problems.count and not found.problems
    if first < 0:
        assert found.night == date(2013, 10, 3)


@pytest.mark.parametrize(("first", "day"), [(-11 * 3_600_000 - 1, 56_569), (13 * 3_600_000, 56_569), (0, 0)])
def test_times_that_are_of_no_night_are_left_out_and_counted(
    file: Path, monkeypatch: pytest.MonkeyPatch, first: int, day: int
) -> None:
    replace_times(monkeypatch, first, 0, **{"MTime.fMjd": day})
    (batch,), problems = read(file.read_bytes(), file.name)
    found = READER.metadata(io.BytesIO(file.read_bytes()), file.name)
    assert batch["time"].null_count == batch.num_rows == found.events == 89
    assert (found.time_start, found.night) == (None, None)
    for kept in (problems.result(), found.problems):
        assert [problem.reason for problem in kept] == ["entries 0 to 99: 89 times are of no night"]


def test_the_catalogue_gets_night_run_target_and_times(file: Path) -> None:
    with file.open("rb") as stream:
        assert READER.sniff("renamed", stream.read(4096)) and READER.confirm(stream, "renamed")
        found = READER.metadata(stream, file.name)
        assert not stream.closed
    assert (found.night, found.run, found.telescope, found.events) == (date(2013, 10, 3), 5029747, 1, 89)
    assert found.time_start is not None and found.time_start.date() == date(2013, 10, 4)
    assert found.attributes["target"] == "MagicCrab-W0.40+035"
    assert found.attributes["pedestals"] == 11


def test_names_of_data_and_simulations_are_read() -> None:
    data = parse_name("x/20131004_M2_05029747.012_Y_CrabNebula-W0.40+035.root")
    assert (data.run, data.part, data.telescope, data.target) == (5029747, 12, 2, "CrabNebula-W0.40+035")
    simulated = parse_name("GA_M1_za05to35_8_821319_Y_w0.root")
    assert (simulated.run, simulated.telescope, simulated.primary) == (821319, 1, "gamma")


def test_a_span_of_another_file_is_refused(file: Path) -> None:
    with pytest.raises(FormatError, match="entries 90 to 200 of 100"):
        read(file.read_bytes(), file.name, span=Span(90, 200))


def test_spans_hold_every_image_once(file: Path) -> None:
    content = file.read_bytes()
    (whole,), _ = read(content, file.name)
    spans = READER.spans(io.BytesIO(content), file.name, 1)
    parts = [batch for span in spans for batch in read(content, file.name, span=span)[0]]
    assert sum(batch.num_rows for batch in parts) == whole.num_rows


def test_a_damaged_basket_costs_its_entries_and_says_which(file: Path, tree: Any) -> None:
    content = bytearray(file.read_bytes())
    place = int(tree["MArrivalTime.fData"].member("fBasketSeek")[0])
    content[place + 200 : place + 2000] = b"\x55" * 1800
    batches, problems = read(bytes(content), file.name)
    assert not batches
    assert problems.kept[0].reason.startswith("entries 0 to 99 of MArrivalTime.fData")
    assert problems.kept[0].offset == place
    # What can't be read is not announced.
    with pytest.raises(FormatError, match=r"no event: entries 0 to 99 of MArrivalTime"):
        READER.metadata(io.BytesIO(bytes(content)), file.name)


def test_light_pulses_are_counted_apart(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Column.rows

    def rows(self: Column, start: int, stop: int, problems: Problems) -> Any:
        values, good = real(self, start, stop, problems)
        if self.name == "MTriggerPattern.fPrescaled":
            values[:10] = [[2]] * 5 + [[16]] * 3 + [[8]] * 2
        return values, good

    before = READER.metadata(io.BytesIO(file.read_bytes()), file.name)
    monkeypatch.setattr(Column, "rows", rows)
    found = READER.metadata(io.BytesIO(file.read_bytes()), file.name)
    assert (before.events, before.attributes["pedestals"], before.attributes["calibrations"]) == (89, 11, 0)
    assert found.attributes["calibrations"] == 8
    assert (found.events or 0) + int(found.attributes["pedestals"]) == 92
    batches, _ = read(file.read_bytes(), file.name)
    assert sum(batch.num_rows for batch in batches) == found.events


@pytest.mark.parametrize("keep", [0, 3, 60, 1000, 100_000, 500_000])
def test_a_cut_file_is_recognised_by_its_name_and_refused(file: Path, keep: int) -> None:
    content = file.read_bytes()[:keep]
    with pytest.raises(FormatError, match="ROOT file") as caught:
        READER.metadata(io.BytesIO(content), file.name)
    assert caught.value.where == file.name and caught.value.remedy
    assert READER.sniff(file.name, content[:4096])
    recognised = recognise(file.name, content[:4096], io.BytesIO(content))
    assert recognised is not None and recognised.name == "magic"


def test_flipped_bytes_raise_no_other_error(file: Path) -> None:
    content = file.read_bytes()
    random = np.random.default_rng(3)
    for _ in range(25):
        damaged = bytearray(content)
        # Half of the flips in the last 60 kB, where trees and the directory are described.
        low = 0 if random.random() < 0.5 else len(content) - 60_000
        for place in random.integers(low, len(content), 8):
            damaged[place] = random.integers(256)
        try:
            read(bytes(damaged), file.name)
        except FormatError as error:
            assert error.where == file.name
