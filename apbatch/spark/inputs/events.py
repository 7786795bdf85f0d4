"""Event building of TAIGA raw files without a shuffle.

A run is some twenty files of single clusters, and an image is made of the records of all of them with its event
number. A first pass looks through each file once: its pedestals, and for each block of records where it lies and
which event numbers it holds. From that the driver cuts the run into ranges of event numbers. A task reads, of each
file, the blocks that may hold its events, and so builds each of them whole; no event is built in two tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.calibration import FEWEST_RECORDS, assemble, photo_electrons
from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.chain.steps import IMAGES, conform
from apbatch.datasets.commit import Loss
from apbatch.errors import ApbatchError
from apbatch.formats.images import IMAGE_KEY, to_binary
from apbatch.formats.reader import Span
from apbatch.formats.taiga.raw import DAY_NS, read_records
from apbatch.formats.taiga.raw_names import parse_name, utc
from apbatch.spark.inputs.opening import open_input
from apbatch.spark.inputs.reading import (
    NO_FACTORS,
    OTHER_CLUSTER,
    POOR_PEDESTAL,
    REPEATED_RECORD,
    UNREADABLE_FILE,
    lost_file,
)
from apbatch.spark.inputs.sources import Source
from apbatch.spark.inputs.surveys import Block, Survey

#: By the path of a table of factors and the number of a cluster: codes per p.e., shape (32, 2).
Factors = Mapping[tuple[str, int], Floats]

#: Records are 156 bytes, images some 2,400: a split of raw data is this much smaller than one of images.
SHRINK = 8
_HOUR_NS = DAY_NS // 24
#: A time that is not known; sorts first.
_NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True)
class RawFile:
    """What a task needs of one file: the blocks that may hold its events, and the calibration of its clusters."""

    source: Source
    spans: tuple[tuple[int, int], ...]
    pedestal: dict[int, Floats]


@dataclass(frozen=True)
class EventSplit:
    """A range of event numbers of a run: from `first` up to and without `stop`.

    Attributes
    ----------
    number : int
        Of the split in its job.
    run : int
    bytes : int
        Of input.
    files : tuple of RawFile
    """

    number: int
    run: int
    first: int
    stop: int
    bytes: int
    files: tuple[RawFile, ...]
    hosts: tuple[str, ...] = field(default=(), compare=False)


def surveyed_urls(sources: Sequence[Source]) -> list[str]:
    """Return the files of the first pass: those with data, and the pedestal files that serve them."""
    pedestals = {source.calibration["pedestal"] for source in sources if "pedestal" in source.calibration}
    return [*dict.fromkeys(source.url for source in sources), *sorted(pedestals)]


def event_splits(
    sources: Sequence[Source],
    surveys: Mapping[str, Survey],
    camera: CameraGeometry,
    factors: Factors,
    target: int,
    first_number: int = 0,
) -> tuple[list[EventSplit], list[Loss]]:
    """Cut runs into ranges of event numbers.

    Parameters
    ----------
    sources : sequence of Source
        Raw files; those of one experiment, run and telescope belong together.
    surveys : mapping
        By URL, of all that `surveyed_urls` names.
    camera : CameraGeometry
    factors : mapping
        Conversion factors by table and cluster, codes per p.e.
    target : int
        Bytes of input for each split.
    first_number : int
        Number of the first split.

    Returns
    -------
    splits : list of EventSplit
    losses : list of Loss
        Files and clusters that can't be used.
    """
    losses: list[Loss] = []
    runs: dict[tuple[str, int, int], list[tuple[Source, Survey, dict[int, Floats]]]] = {}
    for source in sources:
        survey = surveys[source.url]
        losses += survey.losses
        levels = _levels(source, survey, surveys, camera, factors, losses)
        if levels:
            runs.setdefault((source.experiment, run_of(source), source.telescope), []).append((source, survey, levels))
    splits: list[EventSplit] = []
    for (_, run, _), files in runs.items():
        blocks = [block for _, survey, _ in files for block in survey.blocks]
        edges = _edges(blocks, target)
        for first, stop in pairwise(edges):
            raw_files = [
                RawFile(source, spans, levels)
                for source, survey, levels in files
                if (spans := _spans(survey.blocks, first, stop))
            ]
            size = sum(end - start for file in raw_files for start, end in file.spans)
            splits.append(EventSplit(first_number + len(splits), run, first, stop, size, tuple(raw_files)))
    return splits, losses


def run_of(source: Source) -> int:
    """Return the run of a raw file: as registered, or as its path tells."""
    return source.run if source.run is not None else parse_name(source.url).run or 0


def _levels(
    source: Source,
    survey: Survey,
    surveys: Mapping[str, Survey],
    camera: CameraGeometry,
    factors: Factors,
    losses: list[Loss],
) -> dict[int, Floats]:
    """Return the pedestals of the clusters of a file that can be calibrated."""
    own: Mapping[str, list[list[float]]] = {}
    if "pedestal" in source.calibration:
        other = surveys[source.calibration["pedestal"]]
        broken = [loss for loss in other.losses if loss.reason == UNREADABLE_FILE and not other.blocks]
        if broken and broken[0].text and not broken[0].text.endswith("no whole record"):
            losses.append(Loss(source.url, UNREADABLE_FILE, 1, f"{source.url}: its pedestals: {broken[0].text}"))
            return {}
        own = other.pedestal
    clusters, levels = set(np.unique(camera.cluster).tolist()), {}
    for text, count in sorted(survey.records.items(), key=lambda item: int(item[0])):
        cluster = int(text)
        if cluster not in clusters:
            losses.append(Loss(source.url, OTHER_CLUSTER, count, f"{source.url}: {count} records of cluster {cluster}"))
        elif (source.calibration.get("factors", ""), cluster) not in factors:
            text_lost = f"{source.url}: cluster {cluster} has no conversion factors"
            losses.append(Loss(source.url, NO_FACTORS, count, text_lost))
        elif text in own:
            levels[cluster] = np.array(own[text])
        elif count < FEWEST_RECORDS:
            losses.append(Loss(source.url, POOR_PEDESTAL, count, f"{source.url}: {count} records of cluster {cluster}"))
        else:
            levels[cluster] = np.array(survey.pedestal[text])
    return levels


def _edges(blocks: Sequence[Block], target: int) -> list[int]:
    """Return event numbers at which a run is cut, so that blocks of about `target` bytes begin between two."""
    if not blocks:
        return [0]
    edges, weight = [min(block.first for block in blocks)], 0
    for block in sorted(blocks, key=lambda block: block.first):
        if weight >= target and block.first > edges[-1]:
            edges.append(block.first)
            weight = 0
        weight += block.stop - block.start
    return [*edges, max(block.last for block in blocks) + 1]


def _spans(blocks: Iterable[Block], first: int, stop: int) -> tuple[tuple[int, int], ...]:
    """Return the stretches of a file that may hold the events, neighbouring ones as one."""
    spans: list[tuple[int, int]] = []
    for block in blocks:
        if block.last < first or block.first >= stop:
            continue
        if spans and spans[-1][1] == block.start:
            spans[-1] = (spans[-1][0], block.stop)
        else:
            spans.append((block.start, block.stop))
    return tuple(spans)


def read_events(
    split: EventSplit, camera: CameraGeometry, factors: Factors, losses: list[Loss], batch_size: int
) -> Iterator[pa.RecordBatch]:
    """Build the images of a split; yields batches of schema `IMAGES`, by event number.

    Parameters
    ----------
    split : EventSplit
    camera : CameraGeometry
    factors : mapping
        Conversion factors by table and cluster, codes per p.e.
    losses : list of Loss
        Takes what was passed over.
    batch_size : int
        Most images of a batch.
    """
    events, clusters, times, light = [], [], [], []
    for file in split.files:
        try:
            for records in _records(file, split.first, split.stop):
                cluster = records["cluster"]
                for one in np.unique(cluster).tolist():
                    if one not in file.pedestal:
                        continue
                    mine = records[cluster == one]
                    table = factors[file.source.calibration.get("factors", ""), one]
                    light.append(photo_electrons(mine["adc"], file.pedestal[one], table))
                    events.append(mine["event"].astype(np.int64))
                    clusters.append(np.full(len(mine), one, np.int64))
                    times.append(times_of(mine["time"], parse_name(file.source.url).night))
        except ApbatchError as error:  # it was there when the first pass looked
            losses.append(lost_file(file.source.url, error))
    if not events:
        return
    event, cluster, time = np.concatenate(events), np.concatenate(clusters), np.concatenate(times)
    order = np.lexsort((time, cluster, event))
    event, cluster, time, pe = event[order], cluster[order], time[order], np.concatenate(light)[order]
    starts = np.flatnonzero(np.diff(event, prepend=event[0] - 1))
    repeated = 0
    for at in range(0, len(starts), batch_size):
        begin, end = starts[at], starts[at + batch_size] if at + batch_size < len(starts) else len(event)
        images = assemble(event[begin:end], cluster[begin:end], pe[begin:end], camera)
        repeated += images.repeated
        yield _images(split, images.images, images.event, time[begin:end][images.first])
    if repeated:
        where = f"run {split.run} events {split.first} to {split.stop - 1}"
        text = f"{where}: {repeated} records of a cluster that had the event already"
        losses.append(Loss(where, REPEATED_RECORD, repeated, text))


def _images(split: EventSplit, images: npt.NDArray[np.float32], event: Ints, time: Ints) -> pa.RecordBatch:
    source, count = split.files[0].source, len(event)
    arrays = [
        pa.array([source.experiment]).take(pa.array(np.zeros(count, np.int64))),
        pa.array(np.full(count, split.run, np.int64)),
        pa.array(event),
        pa.array(np.full(count, source.telescope, np.int32)),
        pa.array(time, mask=time == _NO_TIME),
        to_binary(images),
    ]
    return conform(dict(zip((*IMAGE_KEY, "time_ns", "image"), arrays, strict=True)), count, IMAGES)


def _records(file: RawFile, first: int, stop: int) -> Iterator[npt.NDArray[np.void]]:
    with open_input(file.source.url) as stream:
        for start, end in file.spans:
            for records in read_records(stream, span=Span(start, end)):
                inside = (records["event"] >= first) & (records["event"] < stop)
                if inside.any():
                    yield records[inside]


def times_of(of_day: npt.NDArray[np.int64], night: date | None) -> Ints:
    """Return nanoseconds since 1970; `_NO_TIME` where the record or the file's name does not tell."""
    if night is None:
        return np.full(len(of_day), _NO_TIME)
    day = (night - date(1970, 1, 1)).days * DAY_NS
    # The rule is `utc`'s, which keeps microseconds only: ask it once for each whole hour.
    next_day = np.array([utc(night, hour * _HOUR_NS).date() != night for hour in range(24)])
    times = day + of_day + np.where(next_day[np.maximum(of_day, 0) // _HOUR_NS], DAY_NS, 0)
    return np.where(of_day < 0, _NO_TIME, times)
