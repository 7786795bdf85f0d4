"""Events on a cluster: Spark reads the Parquet parts that DuckDB reads on one machine, and answers the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from apbatch.errors import UsageError
from apbatch.index.events.coincidences import Window, columns_for, pairs_sql, side
from apbatch.index.events.columns import ARROW_TYPES, schema_of, wanted_columns
from apbatch.index.events.conditions import Dialect, condition, simplify
from apbatch.index.events.manifest import Part
from apbatch.index.events.parquet import ParquetEvents
from apbatch.index.events.store import EventStore
from apbatch.index.query import Query, names

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: In a text of Spark's SQL a backslash is written twice.
DIALECT = Dialect(quote="`", like="{column} LIKE {mark} ESCAPE '\\\\'")
_TYPES = dict(zip(ARROW_TYPES, ("string", "bigint", "double", "boolean", "date", "timestamp"), strict=True))


def event_frame(
    spark: SparkSession, store: EventStore, where: Query, columns: Sequence[str] | None = None
) -> DataFrame:
    """Return the events that match as a DataFrame, in no order; only parts that can hold some are read.

    Parameters
    ----------
    spark : SparkSession
    store : EventStore
        In Parquet, in a place that the workers can read.
    where : Query
    columns : sequence of str, optional
        As in `EventStore.select`.

    Raises
    ------
    UsageError
        If the store is a server.
    """
    if not isinstance(store, ParquetEvents):
        raise UsageError("Spark reads events in Parquet", remedy="name a folder or HDFS as `events:` in the settings")
    parts, attributes = store.parts_for(where)
    there = {name for part in parts for name in part.ranges}
    outputs = wanted_columns(columns, there, attributes)
    needed = list(dict.fromkeys([*outputs, *sorted(names(simplify(where, attributes)))]))
    alike: dict[tuple[str, ...], list[Part]] = {}
    for part in parts:
        alike.setdefault(tuple(name for name in needed if name in part.ranges), []).append(part)
    frames = []
    for present, group in alike.items():
        frame = spark.read.parquet(*(store.url_of(part) for part in group))
        listed = (
            f"`{name}`" if name in present else f"CAST(NULL AS {_TYPES[attributes[name].type]}) AS `{name}`"
            for name in needed
        )
        frames.append(frame.selectExpr(*listed))
    tests = condition(where, attributes, DIALECT)
    if not frames:
        empty = schema_of(outputs, attributes).empty_table().to_pandas()
        kinds = ", ".join(f"`{name}` {_TYPES[attributes[name].type]}" for name in outputs)
        return spark.createDataFrame(empty, kinds)
    whole = reduce(lambda one, other: one.unionByName(other), frames)
    listed = (f"`{name}`" for name in outputs)
    return spark.sql(f"SELECT {', '.join(listed)} FROM {{events}} WHERE {tests.text}", tests.values, events=whole)


def coincident_pairs(spark: SparkSession, store: EventStore, first: str, second: str, window: Window) -> DataFrame:
    """Return the pairs that `apbatch.index.events.coincidences.coincidences` yields, found by Spark.

    Parameters
    ----------
    spark : SparkSession
    store : EventStore
        One of Parquet files.
    first, second : str
        Queries of events.
    window : Window
        How near events must be in time.

    Raises
    ------
    UsageError
    """
    attributes = store.attributes()
    columns = columns_for(window, attributes)
    for name, text in (("first", first), ("second", second)):
        event_frame(spark, store, side(text, attributes), columns).createOrReplaceTempView(f"apbatch_{name}")
    return spark.sql(pairs_sql(window, "apbatch_first", "apbatch_second", microseconds="unix_micros", quote="`"))
