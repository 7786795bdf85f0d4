"""Events searched by Spark: the answers are DuckDB's, for queries and for coincidences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from apbatch.config import SparkSettings
from apbatch.errors import UsageError
from apbatch.formats.event_columns import AZIMUTH, ZENITH
from apbatch.index.events.backends import open_events
from apbatch.index.events.coincidences import SCHEMA, Window, coincidences
from apbatch.index.events.columns import EVENT_KEYS
from apbatch.index.events.store import EventStore
from apbatch.index.parser import parse
from apbatch.spark.connect.session import close, session
from apbatch.spark.inputs.event_search import coincident_pairs, event_frame
from tests.contract.test_events import DECLARED, loaded, sample

pytestmark = pytest.mark.spark
#: Of each kind of condition one; a query takes Spark a second or more.
SOME = [
    "", "not cleaning like 'tail%' and (run > 1.5 or width is null)", "night = 2017-10-28 or night is null",
    "time < 2017-10-28T12:00:00.5 and simulated = true",
    "primary like '%''%' or primary like '\\%' or event in (-1, 4096)",
    "electrons > 9007199254740992.0 and not energy > 3",
]  # fmt: skip
START = 1_207_904_712_000_000_000


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    spark = session(SparkSettings(master="local[2]"), "events")
    yield spark
    close(spark)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    with open_events(f"file://{tmp_path_factory.mktemp('events')}/e") as store:
        store.declare([*DECLARED, ZENITH, AZIMUTH])
        loaded(store, sample("F"))
        for name, step in (("A", 700), ("B", 900)):
            times = [START + step * n for n in range(40)]
            keys = {"experiment": [name] * 40, "run": [1] * 40, "event": list(range(40)), "telescope": [0] * 40}
            directions = {"zenith": [n % 7 * 5.0 for n in range(40)], "azimuth": [n * 40.0 % 360 for n in range(40)]}
            time = pa.array(times, pa.int64()).cast(pa.timestamp("ns", "UTC"))
            store.upsert(pa.RecordBatch.from_pydict({**keys, "cleaning": ["none"] * 40, "time": time, **directions}))
        yield store


def test_spark_answers_as_duckdb(spark: Any, store: EventStore) -> None:
    for text in SOME:
        query = parse("experiment = 'F'" + (f" and ({text})" if text else ""), store.attributes())
        expected = [row for batch in store.select(query) for row in batch.to_pylist()]
        rows = event_frame(spark, store, query).orderBy(*EVENT_KEYS).toArrow().to_pylist()
        assert rows == expected, text
    assert event_frame(spark, store, parse("experiment = 'nobody'", store.attributes())).count() == 0


@pytest.mark.parametrize("window", [Window(1_000), Window(2_500, 30.0, nearest=True)], ids=str)
def test_spark_finds_the_pairs_that_duckdb_finds(spark: Any, store: EventStore, window: Window) -> None:
    expected = [row for batch in coincidences(store, "A", "B", window) for row in batch.to_pylist()]
    rows = coincident_pairs(spark, store, "A", "experiment = 'B'", window).toArrow().cast(SCHEMA).to_pylist()
    angles = [[row.pop("angle") for row in found] for found in (rows, expected)]
    assert rows == expected and rows
    assert angles[0] == pytest.approx(angles[1], abs=1e-9)


def test_servers_are_not_read_by_spark(spark: Any) -> None:
    with pytest.raises(UsageError, match="Spark reads events in Parquet"):
        event_frame(spark, object(), parse("", {}))  # type: ignore[arg-type]
