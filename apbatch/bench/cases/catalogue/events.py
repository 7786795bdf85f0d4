"""Event cases: image parameters loaded and searched, beside what DuckDB alone does with the same rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apbatch.bench.case import Case, Operation
from apbatch.bench.runner import Group
from apbatch.bench.sizes import Size
from apbatch.bench.suite import Setting
from apbatch.camera.parameters import UNITS
from apbatch.errors import VerificationError
from apbatch.index.events.columns import EVENT_KEYS
from apbatch.index.events.parquet import ParquetEvents
from apbatch.index.parser import parse

STORE, BARE = "event store (Parquet)", "DuckDB alone"
_SEED = 2018
_EVENTS_A_RUN, _EVENTS_A_NIGHT, _PART = 20_000, 100_000, 50_000
_NIGHT_US, _FIRST_US = 86_400_000_000, 1_506_873_600_000_000  # 2017-10-01T16:00
_QUERY = "experiment = 'TAIGA' and size > {size!r} pe and width < {width!r} deg"


def synthetic_events(number: int, start: int = 0) -> pa.Table:
    """Return events as cleaning writes them: runs of 20,000, five a night, all image parameters.

    Parameters
    ----------
    number : int
    start : int
        How many come before these.
    """
    draw = np.random.default_rng([_SEED, start])
    place = np.arange(start, start + number)
    time = _FIRST_US + place // _EVENTS_A_NIGHT * _NIGHT_US + place % _EVENTS_A_NIGHT * 200_000
    columns: dict[str, Any] = {
        "experiment": pa.DictionaryArray.from_arrays(np.zeros(number, np.int32), ["TAIGA"]).cast(pa.string()),
        "run": place // _EVENTS_A_RUN,
        "event": place % _EVENTS_A_RUN,
        "telescope": np.ones(number, np.int32),
        "cleaning": pa.DictionaryArray.from_arrays(np.zeros(number, np.int32), ["tailcuts-14-7"]).cast(pa.string()),
        "time": pa.array(time).cast(pa.timestamp("us", "UTC")),
    }
    return pa.table({**columns, **{name: draw.gamma(2.0, 100.0, number) for name in UNITS}})


def event_groups(size: Size, setting: Setting) -> Iterator[Group]:
    """Yield loading all events, and finding one of 600 of them."""
    folder = setting.scratch.absolute() / "events"
    folder.mkdir(parents=True, exist_ok=True)
    events = _mapped(folder / "events.arrow", size.events)
    load = Operation(
        "index",
        "load events",
        f"{size.events} events of {events.num_columns} columns written to Parquet by key and "
        "forced to the disk; in each round into an empty store. CPU time.",
        "records/s",
        float(size.events),
        baseline=BARE,
        clock="cpu",
    )
    yield Group(load, [_Load(load, folder / "store", events), _BareLoad(load, folder / "bare.parquet", events)])
    low, width = np.quantile(events.column("size"), 1 - 1 / 24), np.quantile(events.column("width"), 1 / 25)
    text = _QUERY.format(size=float(low), width=float(width))
    both = (events.column("size").to_numpy() > low) & (events.column("width").to_numpy() < width)
    expected = events.filter(pa.array(both)).select(["run", "event"]).to_pylist()
    search = Operation(
        "index",
        "search events",
        f"{len(expected)} of {size.events} events by two image parameters, all columns, by key. CPU time.",
        "ms",
        1.0,
        baseline=BARE,
        clock="cpu",
    )
    yield Group(
        search,
        [
            _Search(search, folder / "store", text, expected),
            _BareSearch(search, folder / "bare.parquet", (float(low), float(width)), expected),
        ],
    )


def _mapped(file: Path, number: int) -> pa.Table:
    """Return events that lie in a file: of many, memory holds only what is used."""
    parts = (synthetic_events(min(_PART, number - start), start) for start in range(0, number, _PART))
    first = next(parts)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        for part in chain([first], parts):
            writer.write_table(part)
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


class _Load(Case):
    """Upsert all events into a new store; proof: it holds each."""

    def __init__(self, operation: Operation, folder: Path, events: pa.Table) -> None:
        super().__init__(operation, STORE, events.nbytes)
        self._folder, self._events, self._round = folder, events, 0

    def prepare(self) -> None:
        self._round += 1
        link = self._folder.with_name("store")
        self._place = self._folder.with_name(f"store-{self._round}")
        shutil.rmtree(self._place, ignore_errors=True)  # of a run that was broken off
        link.unlink(missing_ok=True)
        link.symlink_to(self._place)

    def run(self) -> None:
        with ParquetEvents(f"file://{self._place}") as store:
            store.upsert(self._events.to_batches(max_chunksize=50_000))

    def check(self) -> None:
        with ParquetEvents(f"file://{self._place}") as store:
            count = store.count()[None]
        if count != len(self._events):
            raise VerificationError(f"{count} events are held, {len(self._events)} were loaded")


class _BareLoad(Case):
    """Have DuckDB write the same rows, sorted, into one file."""

    def __init__(self, operation: Operation, file: Path, events: pa.Table) -> None:
        super().__init__(operation, BARE, events.nbytes)
        self._file, self._events = file, events

    def run(self) -> None:
        import duckdb

        with duckdb.connect() as connection:
            connection.register("events", self._events)
            order = ", ".join(EVENT_KEYS)
            connection.execute(f"COPY (SELECT * FROM events ORDER BY {order}) TO '{self._file}' (FORMAT parquet)")
        descriptor = os.open(self._file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def check(self) -> None:
        import pyarrow.parquet as pq

        if pq.read_metadata(self._file).num_rows != len(self._events):
            raise VerificationError("not all events were written")


class _Search(Case):
    """Ask the store; proof: the events are those that numpy finds."""

    def __init__(self, operation: Operation, folder: Path, text: str, expected: list[dict[str, int]]) -> None:
        super().__init__(operation, STORE)
        self._folder, self._text, self._expected = folder, text, expected

    def set_up(self) -> None:
        self._store = ParquetEvents(f"file://{self._folder.resolve()}")

    def run(self) -> None:
        self._batches = list(self._store.select(parse(self._text, self._store.attributes())))

    def check(self) -> None:
        keys = [key for batch in self._batches for key in batch.select(["run", "event"]).to_pylist()]
        if keys != self._expected:
            raise VerificationError("the events are not the right ones")

    def tear_down(self) -> None:
        self._store.close()


class _BareSearch(Case):
    """Ask DuckDB, on a connection that stays open as the store's does."""

    def __init__(
        self, operation: Operation, file: Path, bounds: tuple[float, float], expected: list[dict[str, int]]
    ) -> None:
        super().__init__(operation, BARE)
        self._file, self._bounds, self._expected = file, bounds, expected

    def set_up(self) -> None:
        import duckdb

        self._connection = duckdb.connect()

    def run(self) -> None:
        order = ", ".join(EVENT_KEYS)
        self._answer = self._connection.sql(
            f"SELECT * FROM read_parquet('{self._file}') WHERE experiment = 'TAIGA' AND size > ? AND width < ? "
            f"ORDER BY {order}",
            params=list(self._bounds),
        ).to_arrow_table()

    def check(self) -> None:
        if self._answer.select(["run", "event"]).to_pylist() != self._expected:
            raise VerificationError("the events are not the right ones")

    def tear_down(self) -> None:
        self._connection.close()
