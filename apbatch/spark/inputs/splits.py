"""How input is cut into tasks: small files together, large ones in pieces, about one block of HDFS each.

What a split holds does not depend on how many cores there are once its size is chosen, so that a job that was killed
finds the same splits again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

from apbatch.datasets import dataset
from apbatch.errors import ApbatchError, FormatError
from apbatch.formats.parquet import open_parquet
from apbatch.formats.parser_process import parse_apart
from apbatch.formats.reader import ImageReader, Span, readers
from apbatch.spark.inputs.opening import open_input, size_and_time
from apbatch.spark.inputs.sources import Source
from apbatch.storage.backends import open_store

#: Bytes of input a task reads at most, unless it can't be cut: a block of HDFS.
BLOCK_BYTES = 128 << 20
#: Bytes that the opening of a file is worth.
_OPEN_BYTES = 1 << 20
#: Tasks for each core, so that a slow one does not keep the others waiting.
_TASKS_A_CORE = 3
#: Less is not worth a task.
FEWEST_BYTES = 2 << 20
_ASKING = 16
#: What reading a row group of selected rows counts as.
_ROW_GROUP_BYTES = 12 << 20

#: Format of the part files of a dataset of images; no reader's name.
DATASET = "dataset of images"

#: A stretch of a file: row groups of Parquet, bytes, or entries, as its format has it; from `start` up to `stop`.
Stretch = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """A file, or a stretch of it."""

    source: Source
    bytes: int
    stretch: Stretch | None = None


@dataclass(frozen=True)
class Split:
    """What one task does.

    Attributes
    ----------
    number : int
        From 0, in the order of the input.
    pieces : tuple of Piece
    bytes : int
        Of input.
    hosts : tuple of str
        Where most of it lies, if the store knows.
    """

    number: int
    pieces: tuple[Piece, ...]
    bytes: int
    hosts: tuple[str, ...] = field(default=(), compare=False)


def split_bytes(total: int, cores: int, most: int = BLOCK_BYTES) -> int:
    """Return how many bytes a split should have, so that every core gets some and none is too large.

    Parameters
    ----------
    total : int
        Bytes of all input.
    cores : int
        Cores of the cluster.
    most : int
        Most bytes of a split.
    """
    return max(min(most, total // max(1, _TASKS_A_CORE * cores)), min(most, FEWEST_BYTES))


def files_of(sources: Sequence[Source]) -> dict[str, tuple[int, int]]:
    """Return size and time of change (ns) of each file, as `sizes_of`."""
    return sizes_of([source.url for source in sources])


def sizes_of(urls: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return size and time of change (ns) of files, by URL; zeros for one that can't be asked for.

    Its task will say what is wrong with it.
    """

    def ask(url: str) -> tuple[int, int]:
        with suppress(ApbatchError):
            return size_and_time(url)
        return 0, 0

    urls = list(dict.fromkeys(urls))
    with ThreadPoolExecutor(_ASKING) as pool:
        return dict(zip(urls, pool.map(ask, urls), strict=True))


def dataset_files(url: str) -> tuple[list[Source], dict[str, tuple[int, int]]]:
    """Return the part files of a dataset, and size and time of change of each by URL.

    Raises
    ------
    NotFoundError, FormatError
    """
    store = open_store(url)
    sources = [Source(store.url_of(name), DATASET, "") for name in dataset.part_files(url)]
    listed = {store.url_of(entry.path): (entry.size, entry.mtime_ns or 0) for entry in store.entries("")}
    return sources, {source.url: listed.get(source.url, (0, 0)) for source in sources}


def file_splits(sources: Sequence[Source], files: Mapping[str, tuple[int, int]], target: int) -> list[Split]:
    """Cut files of whole images into splits of about `target` bytes.

    Parameters
    ----------
    sources : sequence of Source
    files : mapping
        By URL, bytes and time of change of each file.
    target : int
        Bytes of input for each split.
    """
    return packed((piece for source in sources for piece in _pieces(source, files[source.url][0], target)), target)


def packed(pieces: Iterable[Piece], target: int, first_number: int = 0) -> list[Split]:
    """Put pieces together, in their order, until each split has `target` bytes.

    Parameters
    ----------
    pieces : iterable of Piece
    target : int
        Bytes of input for each split.
    first_number : int
        Number of the first split.
    """
    splits: list[Split] = []
    waiting: list[Piece] = []
    weight = 0

    def close() -> None:
        nonlocal weight
        if waiting:
            total = sum(piece.bytes for piece in waiting)
            splits.append(Split(first_number + len(splits), tuple(waiting), total))
            waiting.clear()
            weight = 0

    for piece in pieces:
        cost = piece.bytes + _OPEN_BYTES
        if waiting and weight + cost > target + target // 4:
            close()
        waiting.append(piece)
        weight += cost
        if weight >= target:
            close()
    close()
    return splits


def bytes_of(source: Source) -> int:
    """Return about how many bytes the selected rows of a file cost: whole row groups."""
    return len(source.rows) * _ROW_GROUP_BYTES


def _pieces(source: Source, size: int, target: int) -> Iterator[Piece]:
    if source.rows:
        groups = max(1, target // _ROW_GROUP_BYTES)
        for start in range(0, len(source.rows), groups):
            part = source.rows[start : start + groups]
            part_of_source = replace(source, rows=part)
            yield Piece(part_of_source, min(size, bytes_of(part_of_source)))
        return
    stretches: list[tuple[Stretch, int]] = []
    if size > target + target // 4:
        with suppress(ApbatchError):  # the task will say what is wrong with the file
            stretches = (
                _row_groups(source.url, size, target) if source.format == DATASET else _spans(source, size, target)
            )
    if len(stretches) < 2:
        yield Piece(source, size)
    else:
        for stretch, share in stretches:
            yield Piece(source, share, stretch)


def _row_groups(url: str, size: int, target: int) -> list[tuple[Stretch, int]]:
    """Cut a Parquet file between row groups."""
    try:
        shares: list[int] = parse_apart(_sizes_of_groups, url, size=0)
    except FormatError:
        return []  # the task that reads it will say what is wrong
    weights: list[tuple[Stretch, int]] = []
    start, weight = 0, 0
    for group, share in enumerate(shares):
        weight += size * share // max(sum(shares), 1)
        if weight >= target or group == len(shares) - 1:
            weights.append(((start, group + 1), weight))
            start, weight = group + 1, 0
    return weights


def _sizes_of_groups(url: str) -> list[int]:
    """Return the bytes of row groups before compression; a damaged description of a column would end the process."""
    with open_input(url) as stream:
        footer = open_parquet(stream, url).metadata
    return [max(footer.row_group(group).total_byte_size, 0) for group in range(footer.num_row_groups)]


def _spans(source: Source, size: int, target: int) -> list[tuple[Stretch, int]]:
    """Ask the file's reader where it can be cut."""
    if not isinstance(readers().get(source.format), ImageReader):
        return []
    spans: list[Span] = parse_apart(_spans_of, source, target, size=size)
    count = len(spans)
    shares = [size * (place + 1) // count - size * place // count for place in range(count)]
    return [((span.start, span.stop), share) for span, share in zip(spans, shares, strict=True)]


def _spans_of(source: Source, target: int) -> list[Span]:
    reader = readers()[source.format]
    with open_input(source.url) as stream:
        return reader.spans(stream, source.url, target)
