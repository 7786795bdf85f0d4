"""The first pass over raw files: pedestals, noise and which event numbers each block of records holds.

A large file is looked through in several spans, by as many tasks. Amplitudes are counted, not averaged, so that the
counts of all spans give the medians of the file to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.camera.medians import PedestalCounter
from apbatch.datasets.commit import Loss
from apbatch.errors import ApbatchError
from apbatch.formats.reader import Span, even_spans
from apbatch.formats.taiga.raw import RECORD, read_records
from apbatch.formats.text.lines import Problems
from apbatch.quality.monitor import HIT_SIGMA, MAD
from apbatch.spark.inputs.opening import open_input
from apbatch.spark.inputs.reading import DAMAGED_RECORD, UNREADABLE_FILE, lost_file
from apbatch.spark.inputs.splits import BLOCK_BYTES, sizes_of

#: Records of a block of the first pass: 160 kB, a good piece to read from a disk.
_BLOCK_RECORDS = 1024
#: Beyond the end of any file: what is compressed has more content than bytes, and the last span takes it.
_FAR = 1 << 62


@dataclass(frozen=True)
class Block:
    """Records that follow one another in a file: bytes `start` to `stop`, smallest and largest event number."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class Survey:
    """What the first pass finds in a file.

    Attributes
    ----------
    url : str
    records : dict
        How many each cluster has, by its number (as text, for JSON).
    pedestal : dict
        Medians of each cluster, shape (32, 2), as lists.
    noise : dict
        Median absolute deviation of each channel, and hits, of each cluster: shape (2, 32, 2), as lists.
    blocks : list of Block
    losses : list of Loss
    bytes : int
        Read.
    """

    url: str
    records: dict[str, int] = field(default_factory=dict)
    pedestal: dict[str, list[list[float]]] = field(default_factory=dict)
    noise: dict[str, list[list[list[float]]]] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-like content."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Survey:
        """Read what `to_json` made."""
        blocks = [Block(**block) for block in fields["blocks"]]
        losses = [Loss(**loss) for loss in fields["losses"]]
        return cls(**{**fields, "blocks": blocks, "losses": losses})


@dataclass(frozen=True)
class SurveyTask:
    """A file to look through, or a span of its bytes."""

    url: str
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class SurveyPart:
    """What is found in a span of a file.

    Attributes
    ----------
    task : SurveyTask
    counters : dict
        Of each cluster: how often each channel had each amplitude.
    blocks : list of Block
    problems : int
        Places that are no record.
    first_problem : tuple of (int, str), optional
        Offset and reason of the first of them.
    loss : Loss, optional
        The file could not be read.
    """

    task: SurveyTask
    counters: dict[int, PedestalCounter] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    problems: int = 0
    first_problem: tuple[int, str] | None = None
    loss: Loss | None = None


def survey_tasks(urls: Sequence[str], target: int = BLOCK_BYTES) -> list[SurveyTask]:
    """Cut files into spans of about `target` bytes; one that can't be asked for its size stays whole."""
    tasks = []
    for url, (size, _) in sizes_of(urls).items():
        if size <= target + target // 4:
            tasks.append(SurveyTask(url))
        else:
            spans = even_spans(size, max(target // RECORD.itemsize, 1) * RECORD.itemsize)
            tasks += [SurveyTask(url, (span.start, span.stop)) for span in spans[:-1]]
            tasks.append(SurveyTask(url, (spans[-1].start, _FAR)))
    return tasks


def look_through(task: SurveyTask) -> SurveyPart:
    """Look through a file or a span of it, in constant memory; what is wrong with it is among what is returned.

    Raises
    ------
    ServerError
        If its store does not work.
    """
    problems, counters, blocks = Problems(), dict[int, PedestalCounter](), list[Block]()
    try:
        with open_input(task.url) as stream:
            span = Span(*task.span) if task.span is not None else None
            for records in read_records(stream, problems, _BLOCK_RECORDS, span):
                _count(records, counters)
                events = records["event"]
                start, stop = int(records["offset"][0]), int(records["offset"][-1]) + RECORD.itemsize
                blocks.append(Block(start, stop, int(events.min()), int(events.max())))
    except ApbatchError as error:
        return SurveyPart(task, loss=lost_file(task.url, error))
    first = (problems.kept[0].offset, problems.kept[0].reason) if problems.count else None
    return SurveyPart(task, counters, blocks, problems.count, first)


def _count(records: npt.NDArray[np.void], counters: dict[int, PedestalCounter]) -> None:
    for cluster in np.unique(records["cluster"]).tolist():
        counters.setdefault(cluster, PedestalCounter()).add(records["adc"][records["cluster"] == cluster])


def joined(parts: Iterable[SurveyPart]) -> list[Survey]:
    """Put the parts of each file together; in the order of the files."""
    files: dict[str, list[SurveyPart]] = {}
    for part in parts:
        files.setdefault(part.task.url, []).append(part)
    return [
        _join(url, sorted(parts_of_url, key=lambda part: part.task.span or (0, 0)))
        for url, parts_of_url in files.items()
    ]


def survey(url: str) -> Survey:
    """Look through one file, whole.

    Raises
    ------
    ServerError
        If its store does not work.
    """
    return joined([look_through(SurveyTask(url))])[0]


def _join(url: str, parts: Sequence[SurveyPart]) -> Survey:
    unreadable = next((part.loss for part in parts if part.loss is not None), None)
    if unreadable is not None:
        return Survey(url, losses=[unreadable])
    counters: dict[int, PedestalCounter] = {}
    for part in parts:
        for cluster, counter in part.counters.items():
            if cluster in counters:
                counters[cluster].absorb(counter)
            else:
                counters[cluster] = counter
    blocks = [block for part in parts for block in part.blocks]
    losses = []
    count = sum(part.problems for part in parts) - _noted_twice(parts)
    if count:
        offset, reason = next(part.first_problem for part in parts if part.first_problem is not None)
        more = f" ({count - 1} more places)" if count > 1 else ""
        losses.append(Loss(url, DAMAGED_RECORD, count, f"{url} at byte {offset}: {reason}{more}"))
    if not blocks:
        losses.append(Loss(url, UNREADABLE_FILE, 1, f"{url}: no whole record"))
    return Survey(
        url,
        {str(cluster): counter.records for cluster, counter in counters.items()},
        {str(cluster): counter.result().tolist() for cluster, counter in counters.items()},
        {str(cluster): np.stack(counter.noise(MAD * HIT_SIGMA)).tolist() for cluster, counter in counters.items()},
        blocks,
        losses,
        blocks[-1].stop if blocks else 0,
    )


def _noted_twice(parts: Sequence[SurveyPart]) -> int:
    """Count the gaps that go over a border: both spans have noted them."""
    twice, stop = 0, 0
    for part in parts:
        border = part.task.span[0] if part.task.span is not None else 0
        if border and part.first_problem is not None and part.first_problem[0] == border and stop < border:
            twice += 1
        stop = part.blocks[-1].stop if part.blocks else stop
    return twice
