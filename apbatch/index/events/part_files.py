"""Parquet files of events: written whole through a store, read back as tables."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3

from apbatch.errors import FormatError, NotFoundError
from apbatch.index.events.columns import key_order
from apbatch.index.events.manifest import Part
from apbatch.index.events.ranges import ranges_of
from apbatch.storage.store import Publication, Store

#: Folder of the parts.
FOLDER = "parts"
#: A part has at most so many rows, and so many numbers (memory that rewriting one takes).
MOST_ROWS, MOST_CELLS = 1_000_000, 24_000_000
_ROW_GROUP = 122_880
_LONGEST_FOLDER = 100
_REMEDY = "apbatch check-events --forget, then register these events again"


class Sink(io.RawIOBase):
    """What pyarrow writes to: a publication."""

    def __init__(self, publication: Publication) -> None:
        super().__init__()
        self._publication, self._position = publication, 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._position

    def write(self, block: Any) -> int:
        """Append a block."""
        view = memoryview(block)
        self._publication.write(view)
        self._position += view.nbytes
        return view.nbytes


def write_parts(store: Store, table: pa.Table) -> Iterator[Part]:
    """Write events, each as it is yielded: parts by experiment and night, sorted by key; of one key the last counts.

    Parameters
    ----------
    store : Store
    table : pyarrow.Table
        As `canonical` returns it.
    """
    order = key_order(table)
    if order is not None:
        table = table.take(pa.array(order))
    for experiment, of_experiment in _split(table, "experiment"):
        split = _split(of_experiment, "night") if "night" in table.schema.names else [(None, of_experiment)]
        for night, rows in split:
            step = max(1, min(MOST_ROWS, MOST_CELLS // rows.num_columns))
            for start in range(0, rows.num_rows, step):
                yield _write(store, experiment, night, rows.slice(start, step))


def _split(table: pa.Table, name: str) -> list[tuple[Any, pa.Table]]:
    """Return the rows of each value of a column, in their order."""
    column = table.column(name)
    values = pc.unique(column).to_pylist()
    if len(values) == 1:
        return [(values[0], table)]
    coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    codes = coded.indices.to_numpy()
    texts = coded.dictionary.to_pylist()
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(texts) + 1))
    ordered = table if (order[1:] > order[:-1]).all() else table.take(pa.array(order))
    return [
        (text, ordered.slice(start, stop - start)) for text, start, stop in zip(texts, starts, starts[1:], strict=False)
    ]


def _write(store: Store, experiment: str, night: Any, rows: pa.Table) -> Part:
    ends = [rows.slice(place, 1).to_pylist()[0] for place in (0, rows.num_rows - 1)]
    first, last = ((end["run"], end["event"], end["telescope"], end["cleaning"]) for end in ends)
    night = None if night is None else night.isoformat()
    path = f"{FOLDER}/{_folder(experiment)}/{night or 'none'}/{secrets.token_hex(8)}.parquet"
    texts = [field.name for field in rows.schema if pa.types.is_string(field.type) or pa.types.is_date(field.type)]
    with store.publish(path) as file:
        pq.write_table(
            rows,
            Sink(file),
            row_group_size=_ROW_GROUP,
            compression="snappy",  # zstd would save a tenth of the space and double the time of a search
            use_dictionary=texts,
            write_page_checksum=True,
        )
    written = file.checksums
    return Part(path, experiment, night, rows.num_rows, written.size, written.blake3, first, last, ranges_of(rows))


def _folder(experiment: str) -> str:
    """Return a name for the folder of an experiment that every store and engine takes as it is."""
    name = quote(experiment, safe="").replace("%", "~").replace(".", "~2E").replace("*", "~2A") or "~"
    if len(name) > _LONGEST_FOLDER:
        name = f"{name[: _LONGEST_FOLDER - 20]}~{blake3(experiment.encode()).hexdigest()[:16]}"
    return name


def read_parts(store: Store, parts: Sequence[Part]) -> pa.Table:
    """Read parts whole; columns that some of them lack are null there.

    Raises
    ------
    FormatError
        If one is damaged.
    NotFoundError, ServerError
    """
    tables = []
    for part in parts:
        with store.open(part.file) as stream:
            try:
                tables.append(pq.read_table(stream, page_checksum_verification=True))
            except (pa.ArrowException, OSError, ValueError) as error:
                raise damaged(store, part, " ".join(str(error).split())[:120]) from None
    return pa.concat_tables(tables, promote_options="default")


def gone(store: Store, part: Part) -> NotFoundError:
    """Return the error about a part that is not there."""
    return NotFoundError(
        f"a part with {part.rows} events of {part.experiment} is gone", where=store.url_of(part.file), remedy=_REMEDY
    )


def damaged(store: Store, part: Part, reason: str) -> FormatError:
    """Return the error about a part that can't be read.

    Parameters
    ----------
    store : Store
    part : Part
    reason : str
        What is wrong, without a full stop.
    """
    return FormatError(
        f"a part with {part.rows} events of {part.experiment} is damaged: {reason}",
        where=store.url_of(part.file),
        remedy=_REMEDY,
    )
