"""Events that older versions kept in the catalogue itself are moved to the store of events, with nothing lost.

The old rows are dropped only when the store has them, and an upsert by key can be done twice: a kill at any moment
leaves the move to be done again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from apbatch.config import Settings
from apbatch.errors import ServerError
from apbatch.index.events.backends import open_events
from apbatch.index.events.columns import ARROW_TYPES, EVENT_COLUMNS, EVENT_KEYS, POINTER, arrow_type
from apbatch.index.events.store import EventStore
from apbatch.progress import say

_ROWS = 50_000
_FIXED = (*EVENT_KEYS, *POINTER)


def events_of(settings: Settings) -> EventStore:
    """Open the store of events that the settings name; events that an older version left in the catalogue come along.

    Raises
    ------
    UsageError, ServerError, MissingSoftwareError
    """
    store = open_events(settings.events)
    try:
        moved = take_over(settings.catalogue, store)
    except BaseException:
        store.close()
        raise
    if moved:
        say(f"{moved} events were moved from the catalogue to {settings.events}")
    return store


def take_over(catalogue: str, store: EventStore) -> int:
    """Move the events that a catalogue of an older version holds to a store of events.

    Parameters
    ----------
    catalogue : str
        URL of the catalogue.
    store : EventStore

    Returns
    -------
    int
        How many were moved; 0 where there are none.

    Raises
    ------
    ServerError
    """
    scheme, _, rest = catalogue.partition("://")
    if scheme == "sqlite":
        return _from_sqlite(Path(rest.removeprefix("/")), store)
    if scheme == "cassandra":
        return _from_cassandra(catalogue, store)
    return 0


def _from_sqlite(path: Path, store: EventStore) -> int:
    if not path.is_file():
        return 0
    try:
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            if not _has_table(connection, "image_event"):
                return 0
            connection.execute("BEGIN IMMEDIATE")  # nobody adds to them meanwhile
            if not _has_table(connection, "image_event"):
                return 0  # another process was quicker
            there = {row[1] for row in connection.execute("PRAGMA table_info(image_event)")}
            names = [name for name in _FIXED if name in there]
            rows = connection.execute(f"SELECT {', '.join(names)}, parameters FROM image_event")
            moved = store.upsert(
                _batches((dict(zip(names, row, strict=False)), json.loads(row[-1] or "{}")) for row in rows)
            )
            connection.execute("DROP TABLE image_event")
            connection.execute("DROP TABLE IF EXISTS event_parameter")
            connection.execute("COMMIT")
            return moved
    except (sqlite3.Error, ValueError) as error:
        raise ServerError(f"the catalogue's events can't be moved: {error}", where=str(path)) from None


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    return (
        connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone()
        is not None
    )


def _from_cassandra(url: str, store: EventStore) -> int:
    from apbatch.index.events.cassandra import OldEvents

    with OldEvents(url) as old:
        moved = store.upsert(_batches(old.rows()))
        old.drop()
    return moved


def _batches(rows: Iterable[tuple[Mapping[str, Any], Mapping[str, float]]]) -> Iterator[pa.RecordBatch]:
    """Yield old rows, (key and pointer, parameters) each, as batches."""
    iterator = iter(rows)
    while part := list(islice(iterator, _ROWS)):
        names = sorted({name for _, parameters in part for name in parameters})
        columns: dict[str, pa.Array] = {
            name: pa.array([fixed.get(name) for fixed, _ in part], arrow_type(EVENT_COLUMNS[name])) for name in _FIXED
        }
        for name in names:
            columns[name] = pa.array([parameters.get(name) for _, parameters in part], ARROW_TYPES["number"])
        yield pa.RecordBatch.from_pydict(columns)
