"""Image parameters of events as JSON, until they have a store of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pyarrow as pa

from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.attributes import EVENT_COLUMNS, event_attributes
from apbatch.index.catalogue import EVENT_KEYS, POINTER
from apbatch.index.records import event_batch, event_rows, parameter_names
from apbatch.index.sql.base import SqlBase
from apbatch.index.sql.conditions import Column, condition
from apbatch.index.sql.conditions import where as sql_of

TABLES = (
    "CREATE TABLE IF NOT EXISTS image_event (experiment TEXT NOT NULL, run BIGINT NOT NULL, event BIGINT NOT NULL, "
    "telescope INTEGER NOT NULL, cleaning TEXT NOT NULL, dataset TEXT, image_file TEXT, image_row_group BIGINT, "
    "image_row BIGINT, parameters TEXT NOT NULL, PRIMARY KEY (experiment, run, event, telescope, cleaning))",
    "CREATE TABLE IF NOT EXISTS event_parameter (experiment TEXT NOT NULL, name TEXT NOT NULL, "
    "PRIMARY KEY (experiment, name))",
)
_COLUMNS = (*EVENT_KEYS, *POINTER)


class SqlEvents(SqlBase):
    """Events, their parameters as JSON."""

    def upsert_events(self, batch: pa.RecordBatch) -> int:
        """Insert or replace image parameters; one transaction."""
        rows = [(*key, *pointer, json.dumps(parameters)) for key, pointer, parameters in event_rows(batch)]
        if rows:
            names = {(row[0], name) for row in rows for name in parameter_names(batch)}
            with self._db.write() as session:
                session.many(
                    f"INSERT OR REPLACE INTO image_event ({', '.join(_COLUMNS)}, parameters) "
                    f"VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})",
                    rows,
                )
                session.many("INSERT OR IGNORE INTO event_parameter (experiment, name) VALUES (?, ?)", sorted(names))
        return len(rows)

    def select_events(
        self, where: q.Query = q.Everything(), parameters: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield events that match, ordered by key."""
        query = q.normalise(where)
        if parameters is None:
            pinned = q.values_of(query, "experiment")
            with self._db.read() as session:
                known = session.rows("SELECT experiment, name FROM event_parameter")
            parameters = sorted({name for experiment, name in known if pinned is None or experiment in pinned})

        def column(name: str) -> Column | None:
            if name in EVENT_COLUMNS:
                return Column(name, EVENT_COLUMNS[name].type)
            return Column(f"json_extract(parameters, '$.\"{name}\"')", "number")

        sql, values = sql_of(condition(query, column, self._db))
        keys = ", ".join(EVENT_KEYS)
        statement = f"SELECT {', '.join(_COLUMNS)}, parameters FROM image_event WHERE {sql} "
        after: tuple[object, ...] | None = None
        while True:
            later = f"AND ({keys}) > ({', '.join('?' * len(EVENT_KEYS))}) " if after else ""
            with self._db.read() as session:
                rows = session.rows(f"{statement}{later}ORDER BY {keys} LIMIT 10000", [*values, *(after or ())])
            if not rows:
                return
            five, nine = len(EVENT_KEYS), len(_COLUMNS)
            split = [(row[:five], row[five:nine], json.loads(row[nine]) if parameters else {}) for row in rows]
            yield event_batch(split, parameters)
            after = rows[-1][:five]

    def event_attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query of events may name."""
        with self._db.read() as session:
            rows = session.rows("SELECT DISTINCT name FROM event_parameter ORDER BY name")
        return event_attributes(name for (name,) in rows)
