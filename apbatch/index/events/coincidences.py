"""Events of two experiments at the same time from the same direction.

All pairs within the window are found. The time axis is cut into cells as long as the window, and each event of the
second experiment is entered in its own cell and the two beside it: so the join is one of equal numbers, which DuckDB
and Spark both do by hashing, and the times of the pairs are compared afterwards, to the nanosecond. (An as-of join
gives one partner an event, not all.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.errors import ServerError, UsageError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.events.columns import EVENT_KEYS
from apbatch.index.events.engine_error import EngineError
from apbatch.index.events.part_files import Sink
from apbatch.index.parser import parse
from apbatch.storage.backends import open_store, split_url

Frame = Literal["horizon", "sky"]


class EventSource(Protocol):
    """The methods of `EventStore` that a search of coincidences needs, with the same meaning."""

    def attributes(self) -> Mapping[str, Attribute]:
        """Return what queries may name."""

    def select(self, where: q.Query, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield events that match."""


#: Columns of the direction: the angle from the pole or equator, and the one around it.
DIRECTIONS: dict[str, tuple[str, str]] = {
    "horizon": ("zenith", "azimuth"),
    "sky": ("declination", "right_ascension"),
}
_NAME = re.compile(r"[\w.+-]+")
#: Nanoseconds since 1970 fit 64 bits from 1678 to 2262.
_FROM, _TO = "1678-01-01T00:00", "2262-01-01T00:00"
_LONGEST_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Window:
    """What counts as together.

    Attributes
    ----------
    within_ns : int
        Largest difference of the times, included, ns.
    angle : float, optional
        Largest angle between the directions, included, deg; events without a direction have no partner then.
    frame : str
        ``horizon``: zenith and azimuth, for experiments at one place with one convention; ``sky``: right ascension
        and declination.
    nearest : bool
        Of each event of the first experiment, only the pair that is nearest in time.
    """

    within_ns: int
    angle: float | None = None
    frame: Frame = "horizon"
    nearest: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.within_ns <= _LONGEST_NS:
            raise UsageError(f"a window of {self.within_ns} ns", remedy="from 0 to a day")
        if self.angle is not None and not 0 <= self.angle <= 180:
            raise UsageError(f"an angle of {self.angle} degrees", remedy="from 0 to 180 deg")
        if self.frame not in DIRECTIONS:
            raise UsageError(f"unknown frame '{self.frame}'", remedy="horizon or sky")


#: Columns of a result.
COLUMNS = (*(f"{one}_{name}" for one in "ab" for name in (*EVENT_KEYS, "time")), "time_difference", "angle")
_TYPES = {
    "experiment": pa.string(),
    "cleaning": pa.string(),
    "telescope": pa.int32(),
    "time": pa.timestamp("us", "UTC"),
}
SCHEMA = pa.schema(
    [
        *(pa.field(name, _TYPES.get(name[2:], pa.int64())) for name in COLUMNS[:-2]),
        pa.field("time_difference", pa.int64()),
        pa.field("angle", pa.float64()),
    ]
)


def side(text: str, attributes: Mapping[str, Attribute]) -> q.Query:
    """Return the query of one side: the name of an experiment, or a query; of events that have a time.

    Raises
    ------
    UsageError
    """
    named = _NAME.fullmatch(text.strip()) is not None
    query = q.Compare("experiment", "=", text.strip()) if named else parse(text, attributes)
    timed = parse(f"time >= {_FROM} and time < {_TO}", attributes)
    return q.And((query, timed))


def columns_for(window: Window, attributes: Mapping[str, Attribute]) -> list[str]:
    """Return the columns that are read of either side.

    Raises
    ------
    UsageError
        If no event has the direction that an angle is asked of.
    """
    if window.angle is None:
        return ["time", "nanoseconds"]
    direction = DIRECTIONS[window.frame]
    for name in direction:
        if name not in attributes or attributes[name].unit != "deg":
            raise UsageError(
                f"no event has a column '{name}' in degrees",
                remedy="load events with directions, choose another --frame, or leave --angle out",
            )
    return ["time", "nanoseconds", *direction]


def pairs_sql(window: Window, first: str, second: str, *, microseconds: str, quote: str) -> str:
    """Return the SQL of the pairs; DuckDB and Spark both take it.

    Parameters
    ----------
    window : Window
    first, second : str
        Names of tables with the columns of the key and those of `columns_for`.
    microseconds : str
        Function that gives the microseconds since 1970 of a time.
    quote : str
        Around names.
    """
    cell = max(window.within_ns, 1)

    def name(column: str) -> str:
        return f"{quote}{column}{quote}"

    lowest, around = DIRECTIONS[window.frame]
    longitude, latitude = name(around), name(lowest) if window.frame == "sky" else f"(90 - {name(lowest)})"
    direction = f", radians({longitude}) AS lon, radians({latitude}) AS lat" if window.angle is not None else ""
    keys = ", ".join(name(key) for key in EVENT_KEYS)
    timed = (
        f"SELECT {keys}, {name('time')}, "
        f"{microseconds}({name('time')}) * 1000 + coalesce({name('nanoseconds')}, 0) AS t{direction} FROM "
    )
    # Of whole numbers: as floating point, neighbours would fall into cells that are far apart.
    divided = "//" if quote == '"' else "div"
    celled = f"SELECT *, t {divided} {cell} AS cell FROM ({timed}{{}})"
    neighbours = " UNION ALL ".join(
        f"SELECT * REPLACE (cell + {step} AS cell) FROM b" if quote == '"' else _spark_step(step) for step in (-1, 0, 1)
    )
    both = [f"{side}.{name(key)} AS {side}_{key}" for side in ("a", "b") for key in (*EVENT_KEYS, "time")]
    tests = [f"abs(b.t - a.t) <= {window.within_ns}", f"NOT ({' AND '.join(_same(name(key)) for key in EVENT_KEYS)})"]
    angle = "CAST(NULL AS DOUBLE)"
    if window.angle is not None:
        half = "(pow(sin((b.lat - a.lat) / 2), 2) + cos(a.lat) * cos(b.lat) * pow(sin((b.lon - a.lon) / 2), 2))"
        angle = f"degrees(2 * asin(sqrt(least(1.0, {half}))))"
        tests.append(f"{angle} <= {window.angle!r}")
    order = "abs(time_difference), time_difference, " + ", ".join(f"b_{key}" for key in EVENT_KEYS)
    sql = (
        f"WITH a AS ({celled.format(first)}), b AS ({celled.format(second)}), n AS ({neighbours}) "
        f"SELECT {', '.join(both)}, b.t - a.t AS time_difference, {angle} AS angle "
        f"FROM a JOIN n AS b ON a.cell = b.cell WHERE {' AND '.join(tests)}"
    )
    if window.nearest:
        mine = ", ".join(f"a_{key}" for key in EVENT_KEYS)
        ranked = f"SELECT *, row_number() OVER (PARTITION BY {mine} ORDER BY {order}) AS place FROM ({sql})"
        sql = f"SELECT {', '.join(COLUMNS)} FROM ({ranked}) WHERE place = 1"
    ordered = ", ".join(f"{one}_{key}" for one in "ab" for key in EVENT_KEYS)
    return f"SELECT * FROM ({sql}) ORDER BY a_time, {ordered}"


def _same(key: str) -> str:
    return f"a.{key} = b.{key}"


def _spark_step(step: int) -> str:
    return f"SELECT * EXCEPT (cell), cell + {step} AS cell FROM b"


def coincidences(store: EventSource, first: str, second: str, window: Window) -> Iterator[pa.RecordBatch]:
    """Yield the pairs of events of two experiments that are together, by the time of the first.

    Parameters
    ----------
    store : EventSource
    first, second : str
        Names of experiments, or queries of events.
    window : Window

    Yields
    ------
    RecordBatch
        In `SCHEMA`: key and time of both, ``time_difference`` (second less first, ns), ``angle`` (deg, null if none
        was asked). An event is no partner of itself.

    Raises
    ------
    UsageError, ServerError
    """
    from apbatch.index.events.duck import Duck

    attributes = store.attributes()
    columns = columns_for(window, attributes)
    queries = [side(text, attributes) for text in (first, second)]
    duck = Duck()
    try:
        for table, query in zip(("first", "second"), queries, strict=True):
            duck.load(table, store.select(query, columns))
        if not (duck.has("first") and duck.has("second")):
            return
        yield from duck.batches(pairs_sql(window, "first", "second", microseconds="epoch_us", quote='"'))
    except EngineError as error:
        raise ServerError(f"DuckDB failed: {error}", remedy="a smaller window, or the job on Spark") from None
    finally:
        duck.close()


def write(batches: Iterator[pa.RecordBatch], place: str) -> int:
    """Write pairs as a Parquet file, whole or not at all; return how many.

    Parameters
    ----------
    batches : iterator of RecordBatch
    place : str
        Path, or URL of a file in a store.

    Raises
    ------
    UsageError, ServerError
    """
    url = place if "://" in place else f"file://{Path(place).absolute()}"
    root, path = split_url(url)
    pairs = 0
    with open_store(root).publish(path) as file:
        sink = Sink(file)
        with pq.ParquetWriter(sink, SCHEMA) as writer:
            for batch in batches:
                writer.write_batch(batch.cast(SCHEMA))
                pairs += batch.num_rows
    return pairs
