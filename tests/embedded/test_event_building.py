"""Event building by ranges of event numbers: against records put together one by one."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.camera.calibration import pedestals, photo_electrons
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.medians import PedestalCounter
from apbatch.errors import ServerError
from apbatch.formats.images import from_binary
from apbatch.formats.taiga.raw import RECORD
from apbatch.spark.bulk import read_split
from apbatch.spark.inputs import surveys
from apbatch.spark.inputs.events import event_splits, surveyed_urls
from apbatch.spark.inputs.reading import DAMAGED_RECORD, NO_FACTORS, OTHER_CLUSTER, POOR_PEDESTAL, REPEATED_RECORD
from apbatch.spark.inputs.reading import UNREADABLE_FILE as UNREADABLE
from apbatch.spark.inputs.sources import Source
from apbatch.spark.inputs.surveys import joined, look_through, survey, survey_tasks

CAMERA = camera_named("TAIGA-IACT01-2017")
FACTORS = {("f", cluster): np.full((32, 2), 2.0 + cluster) for cluster in range(1, 23)}


def records(event: np.ndarray, cluster: int, seed: int = 1) -> np.ndarray:
    made = np.zeros(len(event), RECORD)
    made["type"], made["size"], made["end"] = 3032, 132, 0xFFFFFFFF
    made["event"], made["board"] = event, cluster - 1
    made["time"][:, 0] = np.arange(len(event)) % 100  # tens of nanoseconds
    made["time"][:, 3] = 15 << 4  # hours, in the highest bits
    made["adc"] = np.random.default_rng(seed).integers(0, 6000, (len(event), 32, 2))
    return made


def source(path: Path, **calibration: str) -> Source:
    return Source(f"file://{path}", "taiga-raw", "TAIGA", 7, None, CAMERA.name, {"factors": "f", **calibration})


def built(sources: list[Source], target: int) -> tuple[dict[int, np.ndarray], list, int]:
    surveys = {url: survey(url) for url in surveyed_urls(sources)}
    splits, losses = event_splits(sources, surveys, CAMERA, FACTORS, target)
    found: dict[int, np.ndarray] = {}
    for split in splits:
        for batch in read_split(split, CAMERA, FACTORS, losses, 16):
            for event, image in zip(batch["event"].to_pylist(), from_binary(batch["image"]), strict=True):
                assert event not in found, "an event was built twice"
                found[event] = np.array(image)
    return found, losses, len(splits)


def one_by_one(files: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    for cluster, made in files.items():
        level = pedestals(made["adc"])
        pixels = np.flatnonzero(CAMERA.cluster == cluster)
        seen = set()
        for row in np.lexsort((made["time"][:, 0], made["event"])):
            event = int(made["event"][row])
            if event in seen:
                continue
            seen.add(event)
            pe = photo_electrons(made["adc"][row : row + 1], level, FACTORS["f", cluster])[0]
            image = found.setdefault(event, np.full(CAMERA.n_pixels, np.nan, np.float32))
            image[pixels] = pe[CAMERA.number[pixels] // 2]
    return found


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    blocks=st.integers(8, 40),
    target=st.sampled_from([156, 2000, 10**7]),
    disorder=st.sampled_from([0, 3, 1000]),
)
def test_every_event_is_built_once_whatever_the_order_and_the_ranges(tmp_path_factory, seed, blocks, target, disorder):
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("raw")
    files, sources = {}, []
    for cluster in (2, 5, 9):
        event = np.sort(rng.choice(300, rng.integers(20, 120)))  # some twice
        event = event[np.argsort(np.arange(len(event)) + rng.uniform(0, disorder, len(event)))]
        files[cluster] = records(event, cluster, seed + cluster)
        files[cluster]["time"][:, 0] = rng.permutation(len(event)) % 100
        path = folder / f"281017{cluster:02}.001"
        path.write_bytes(files[cluster].tobytes())
        sources.append(source(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surveys, "_BLOCK_RECORDS", blocks)
        found, losses, splits = built(sources, target)
    wanted = one_by_one(files)
    assert found.keys() == wanted.keys()
    for event, image in wanted.items():
        np.testing.assert_array_equal(found[event], image)
    repeated = sum(len(made) - len(np.unique(made["event"])) for made in files.values())
    assert sum(loss.count for loss in losses if loss.reason == REPEATED_RECORD) == repeated
    assert splits == 1 or target < 10**7


@pytest.mark.parametrize("target", [2000, 10**7])
def test_events_of_compressed_files_are_those_of_plain_ones(tmp_path: Path, target: int) -> None:
    plain, packed = [], []
    for cluster in (2, 5):
        content = records(np.arange(cluster, 200, cluster), cluster).tobytes()
        for sources, suffix, made in ((plain, "", content), (packed, ".gz", gzip.compress(content))):
            path = tmp_path / f"281017{cluster:02}.001{suffix}"
            path.write_bytes(made)
            sources.append(source(path))
    (wanted, _, _), (found, losses, _) = built(plain, target), built(packed, target)
    assert found.keys() == wanted.keys() and len(found) > 100
    for event, image in wanted.items():
        np.testing.assert_array_equal(found[event], image)
    assert [loss.reason for loss in losses] == []


@given(count=st.integers(1, 40), seed=st.integers(0, 1000), width=st.sampled_from([2, 100, 65536]))
@settings(deadline=None, max_examples=40)
def test_counted_medians_are_those_of_numpy_to_the_bit(count, seed, width):
    adc = np.random.default_rng(seed).integers(0, width, (count, 32, 2)).astype(np.uint16)
    counter = PedestalCounter()
    for start in range(0, count, 7):
        counter.add(adc[start : start + 7])
    np.testing.assert_array_equal(counter.result(), np.median(adc / 4.0, axis=0))


def test_no_records_no_pedestal():
    assert np.isnan(PedestalCounter().result()).all()


def test_a_large_run_is_cut_and_tasks_read_little_more_than_their_events(tmp_path):
    sources = []
    for cluster in (1, 2, 3):
        path = tmp_path / f"281017{cluster:02}.001"
        path.write_bytes(records(np.arange(20_000), cluster).tobytes())
        sources.append(source(path))
    surveys = {one.url: survey(one.url) for one in sources}
    splits, losses = event_splits(sources, surveys, CAMERA, FACTORS, 600_000)
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert losses == [] and 12 <= len(splits) <= 20
    assert total <= sum(split.bytes for split in splits) < 1.6 * total
    assert max(split.bytes for split in splits) < 3 * min(split.bytes for split in splits[:-1])


def test_parts_and_clusters_of_one_run_meet_and_other_runs_do_not(tmp_path):
    paths = [tmp_path / name for name in ("28101701.001", "28101701.002", "28101702.001")]
    for path, (first, cluster) in zip(paths, ((0, 1), (50, 1), (0, 2)), strict=True):
        path.write_bytes(records(np.arange(first, first + 50), cluster).tobytes())
    found, losses, _ = built([source(path) for path in paths], 10**7)
    clusters = {event: set(CAMERA.cluster[np.isfinite(image)]) for event, image in found.items()}
    assert losses == [] and clusters == {event: {1, 2} if event < 50 else {1} for event in range(100)}


def test_what_is_wrong_with_files_is_told_by_reason_and_the_rest_goes_on(tmp_path):
    good, cut, few, alien, bare, empty = (tmp_path / f"2810170{number}.001" for number in range(1, 7))
    good.write_bytes(records(np.arange(60), 1).tobytes())
    cut.write_bytes(records(np.arange(30), 2).tobytes() + b"rubbish" + records(np.arange(30, 60), 2).tobytes()[:-5])
    few.write_bytes(records(np.arange(9), 3).tobytes())
    alien.write_bytes(records(np.arange(20), 31).tobytes())
    bare.write_bytes(records(np.arange(20), 22).tobytes())
    empty.write_bytes(b"")
    gone = tmp_path / "28101707.001"
    sources = [source(path) for path in (good, cut, few, alien, empty, gone)]
    sources.append(Source(f"file://{bare}", "taiga-raw", "TAIGA", 7, None, CAMERA.name, {"factors": "none"}))
    found, losses, _ = built(sources, 10**7)
    counted = {loss.reason: 0 for loss in losses}
    for loss in losses:
        counted[loss.reason] += loss.count
    assert counted == {
        DAMAGED_RECORD: 2, UNREADABLE: 2, POOR_PEDESTAL: 9, OTHER_CLUSTER: 20, NO_FACTORS: 20,
    }  # fmt: skip
    assert len(found) == 60
    assert {len(set(CAMERA.cluster[np.isfinite(found[event])])) for event in range(59)} == {2}


def test_pedestals_come_from_a_pedestal_file_where_there_is_one(tmp_path):
    data, dark = tmp_path / "28101701.001", tmp_path / "28101701.ped"
    made, other = records(np.arange(20), 1), records(np.arange(30), 1, seed=5)
    data.write_bytes(made.tobytes())
    dark.write_bytes(other.tobytes())
    found, losses, _ = built([source(data, pedestal=f"file://{dark}")], 10**7)
    wanted = photo_electrons(made["adc"], pedestals(other["adc"]), FACTORS["f", 1])
    pixels = np.flatnonzero(CAMERA.cluster == 1)
    assert losses == []
    for event in range(20):
        np.testing.assert_array_equal(found[event][pixels], wanted[event, CAMERA.number[pixels] // 2])
    found, losses, _ = built([source(data, pedestal=f"file://{tmp_path}/28101799.ped")], 10**7)
    assert found == {} and [loss.reason for loss in losses] == [UNREADABLE]


def test_a_file_that_went_after_the_first_pass_costs_its_clusters_only(tmp_path):
    sources = []
    for cluster in (1, 2):
        path = tmp_path / f"2810170{cluster}.001"
        path.write_bytes(records(np.arange(20), cluster).tobytes())
        sources.append(source(path))
    surveys = {one.url: survey(one.url) for one in sources}
    (split,), losses = event_splits(sources, surveys, CAMERA, FACTORS, 10**7)
    (tmp_path / "28101702.001").unlink()
    (batch,) = read_split(split, CAMERA, FACTORS, losses)
    assert [loss.reason for loss in losses] == [UNREADABLE]
    assert set(CAMERA.cluster[np.isfinite(from_binary(batch["image"])[0])]) == {1}


def test_a_store_that_is_away_is_no_loss_of_a_file(tmp_path, monkeypatch):
    def away(url):
        raise ServerError("away")

    monkeypatch.setattr(surveys, "open_input", away)
    with pytest.raises(ServerError, match="away"):
        survey(f"file://{tmp_path}/28101701.001")


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40 * RECORD.itemsize), st.integers(1, 900)), max_size=4),
    st.integers(1000, 3000),
    st.booleans(),
)
def test_a_file_looked_through_in_spans_is_the_file_looked_through_whole(tmp_path_factory, damage, target, cut):
    content = bytearray(records(np.arange(40), np.repeat([3, 5], 20)).tobytes())
    for at, length in damage:
        content[at : at + length] = b"\x11" * min(length, len(content) - at)
    path = tmp_path_factory.mktemp("raw") / "28101703.001"
    path.write_bytes(content[:-7] if cut else content)
    url = f"file://{path}"
    tasks = survey_tasks([url], target)
    assert len(tasks) > 1
    whole, (found,) = survey(url), joined(pickle.loads(pickle.dumps(look_through(task))) for task in tasks)
    assert (found.records, found.pedestal, found.noise) == (whole.records, whole.pedestal, whole.noise)
    assert [(loss.reason, loss.count) for loss in found.losses] == [(loss.reason, loss.count) for loss in whole.losses]
    edges = [(one.blocks[0].start, one.blocks[-1].stop) for one in (found, whole) if one.blocks]
    assert len(set(edges)) <= 1 and found.bytes == whole.bytes
    bytes_in = [sum(block.stop - block.start for block in one.blocks) for one in (found, whole)]
    assert bytes_in[0] == bytes_in[1] or damage
