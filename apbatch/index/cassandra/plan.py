"""How Cassandra answers a query: which partitions or index it reads, and what is left to test row by row.

A plan reads a bounded part that the query itself names. A query that would need every row of the catalogue, without
having asked for everything, is refused with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute, Scalar
from apbatch.index import query as q
from apbatch.index.attributes import COMMON
from apbatch.index.cassandra.rows import LONGEST_INDEXED, is_indexed

#: Common attributes with an index of their own; those in _COARSE pick too many files to be worth it alone.
_INDEXED = {
    "experiment", "site", "format", "state", "checksum", "run", "events", "size", "telescope", "cluster", "time_start",
    "time_end",
}  # fmt: skip
_COARSE = {"experiment", "site", "format", "state"}
#: What indexed columns must hold: (column, ``=``, ``>=`` or ``<=``, value).
Conditions = tuple[tuple[str, str, Any], ...]
#: The longest list of values for which as many reads are made.
MOST_READS = 64


@dataclass(frozen=True, slots=True)
class Path:
    """Files named one by one."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """All files below a folder whose path begins with `prefix`."""

    folder: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Site:
    """All files of a site."""

    site: str


@dataclass(frozen=True, slots=True)
class Run:
    """All files of a run."""

    experiment: str
    run: int


@dataclass(frozen=True, slots=True)
class Nights:
    """Nights of one experiment (of all, if None), restricted to a set or a range; both ends included.

    Of their rows those are read that fulfil the conditions.
    """

    experiment: str | None
    low: date | None = None
    high: date | None = None
    these: tuple[date, ...] | None = None
    conditions: Conditions = ()

    def holds(self, partition: str) -> bool:
        """Tell whether files in this partition of file_by_night are wanted."""
        if self.low is None and self.high is None and self.these is None:
            return True
        if partition.startswith("none"):
            return False
        night = date.fromisoformat(partition)
        if self.these is not None:
            return night in self.these
        return (self.low is None or night >= self.low) and (self.high is None or night <= self.high)


@dataclass(frozen=True, slots=True)
class Index:
    """Rows that indexed columns pick."""

    conditions: Conditions


@dataclass(frozen=True, slots=True)
class Events:
    """Image parameters of experiments, with runs and event numbers between bounds; both ends included."""

    experiments: tuple[str, ...]
    runs: tuple[float, float]
    events: tuple[float, float]

    def holds(self, run: int, first: int, last: int) -> bool:
        """Tell whether a partition of a run is wanted.

        Parameters
        ----------
        run : int
        first, last : int
            Event numbers of the partition.
        """
        return self.runs[0] <= run <= self.runs[1] and self.events[0] <= last and first <= self.events[1]


Access = Path | Tree | Site | Run | Nights | Index


def plan(query: q.Query, attributes: Mapping[str, Attribute]) -> list[Access]:
    """Return what is read for a normalised query; every row read is tested against the whole query afterwards.

    Parameters
    ----------
    query : Query
        As `apbatch.index.query.normalise` returns it.
    attributes : Mapping
        The declared attributes.

    Raises
    ------
    UsageError
        If nothing in the query bounds what must be read.
    """
    match query:
        case q.Or(parts):
            return list(dict.fromkeys(access for part in parts for access in plan(part, attributes)))
        case q.And(parts):
            return _conjunction(_flat(parts), attributes)
        case q.Everything():
            return [Nights(None)]
        case q.Not(q.Everything()):
            return []
        case _:
            return _conjunction([query], attributes)


def _flat(parts: tuple[q.Query, ...]) -> list[q.Query]:
    flat: list[q.Query] = []
    for part in parts:
        flat.extend(_flat(part.parts) if isinstance(part, q.And) else [part])
    return [part for part in flat if not isinstance(part, q.Everything)] or [q.Everything()]


def _conjunction(flat: list[q.Query], attributes: Mapping[str, Attribute]) -> list[Access]:
    equal = _equal(flat)
    if any(isinstance(part, q.Not) and isinstance(part.part, q.Everything) for part in flat):
        return []
    if "path" in equal:
        return [Path(tuple(str(path) for path in equal["path"]))]
    for part in flat:
        if isinstance(part, q.Like) and part.name == "path" and q.like_prefix(part.pattern).count("/") >= 2:
            prefix = q.like_prefix(part.pattern)
            return [Tree(prefix.rpartition("/")[0], prefix)]
    experiments = [str(value) for value in equal.get("experiment", ())]
    runs = equal.get("run", ())
    if experiments and runs and len(experiments) * len(runs) <= MOST_READS:
        whole = [int(str(run)) for run in runs if not isinstance(run, float)]  # no run is 7.5
        return [Run(experiment, run) for experiment in experiments for run in whole]
    low, high, these = _nights(flat)
    dated = low is not None or high is not None or these is not None
    conditions = _indexed(flat, attributes)
    if experiments and these is not None:
        return [Nights(experiment, low, high, these, _narrow(conditions)) for experiment in experiments]
    if any(name not in _COARSE for name, _, _ in conditions):
        return [Index(conditions)]
    if experiments and dated:
        return [Nights(experiment, low, high, these) for experiment in experiments]
    if "site" in equal:
        return [Site(str(site)) for site in equal["site"]]
    if experiments:
        return [Nights(experiment, low, high, these) for experiment in experiments]
    if dated:
        return [Nights(None, low, high, these)]
    if any(name == "format" or (name == "state" and value != "registered") for name, _, value in conditions):
        return [Index(conditions)]
    return _alternatives(flat, attributes)


def _alternatives(flat: list[q.Query], attributes: Mapping[str, Attribute]) -> list[Access]:
    """Return the plan of the one part that is a choice of bounded parts."""
    refusal: UsageError | None = None
    for part in flat:
        choice = part
        if isinstance(part, q.In) and len(part.values) <= MOST_READS:
            choice = q.Or(tuple(q.Compare(part.name, "=", value) for value in part.values))
        if isinstance(choice, q.Or):
            try:
                return plan(choice, attributes)
            except UsageError as error:
                refusal = error if isinstance(part, q.Or) else refusal
    if all(q.names(part) <= {"state"} for part in flat):
        return [Nights(None)]  # all files were asked for
    if refusal:  # it names the one alternative that is not bounded
        raise refusal
    named = ", ".join(sorted(set().union(*(q.names(part) for part in flat)) - {"state"}))
    raise UsageError(
        f"Cassandra could answer this only by reading every file: no index serves what is asked of {named}",
        remedy="add a condition on experiment, site, night, run or path, or ask a catalogue in SQLite",
    )


def _equal(flat: list[q.Query]) -> dict[str, tuple[Scalar, ...]]:
    """Return the values, one or several, that attributes must have."""
    values: dict[str, tuple[Scalar, ...]] = {}
    for part in flat:
        if isinstance(part, q.Compare) and part.operator == "=":
            values[part.name] = (part.value,)
        elif isinstance(part, q.In):
            values.setdefault(part.name, tuple(dict.fromkeys(part.values)))
    return values


def _nights(flat: list[q.Query]) -> tuple[date | None, date | None, tuple[date, ...] | None]:
    lows: list[Any] = []
    highs: list[Any] = []
    these: tuple[Any, ...] | None = None
    for part in flat:
        match part:
            case q.Compare("night", "=", value):
                these = (value,)
            case q.In("night", values):
                these = these or tuple(sorted(set(values)))  # type: ignore[type-var]
            case q.Between("night", first, last):
                lows.append(first)
                highs.append(last)
            case q.Compare("night", ">" | ">=", value):
                lows.append(value)
            case q.Compare("night", "<" | "<=", value):
                highs.append(value)
    return max(lows, default=None), min(highs, default=None), these


def _indexed(flat: list[q.Query], attributes: Mapping[str, Attribute]) -> Conditions:
    """Return conditions that the indexes serve together: a value, or one bound at each side, a column.

    Bounds are a little wide (``>=`` for ``>``, whole numbers, whole milliseconds): rows are tested afterwards.
    """
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for part in flat:
        match part:
            case q.Compare(name, sign, value) if sign in ("<", "<=", ">", ">="):
                low = value if sign in (">", ">=") else None
                high = value if sign in ("<", "<=") else None
            case q.Compare(name, "=", value) | q.In(name, (value,)):
                low = high = value
            case q.Between(name, low, high):
                pass
            case _:
                continue
        attribute = COMMON.get(name) or attributes[name]
        if not (name in _INDEXED or is_indexed(attribute)):
            continue
        if attribute.type == "string":
            if low is not None and low == high and len(str(low).encode()) <= LONGEST_INDEXED:
                values[name] = low
            continue
        if low is not None:
            lows[name] = max(_wide(attribute, low, -1), lows.get(name, _wide(attribute, low, -1)))
        if high is not None:
            highs[name] = min(_wide(attribute, high, 1), highs.get(name, _wide(attribute, high, 1)))
    conditions = [(name, "=", value) for name, value in values.items()]
    for name in {**lows, **highs}:
        low, high = lows.get(name), highs.get(name)
        if low is not None and low == high:
            conditions.append((name, "=", low))
            continue
        conditions += [(name, sign, bound) for sign, bound in ((">=", low), ("<=", high)) if bound is not None]
    return tuple(conditions)


def _narrow(conditions: Conditions) -> Conditions:
    """Return those that may be left to an index within a night: an open range picks nearly all, each row by itself."""
    signs: dict[str, set[str]] = {}
    for name, sign, _ in conditions:
        signs.setdefault(name, set()).add(sign)
    return tuple(one for one in conditions if one[0] not in _COARSE and signs[one[0]] in ({"="}, {">=", "<="}))


def _wide(attribute: Attribute, value: Any, side: int) -> Any:
    """Return a bound that a column of the attribute's type can be compared with, rounded to the given side."""
    if attribute.type == "integer" and isinstance(value, float):
        return math.floor(value) if side < 0 else math.ceil(value)
    if attribute.type == "number":
        return float(value) + 0.0  # an index puts -0.0 before 0.0
    if isinstance(value, datetime):
        start = value.replace(microsecond=value.microsecond // 1000 * 1000)
        late = side > 0 and start != value and start < datetime.max.replace(tzinfo=UTC) - timedelta(seconds=1)
        return start + timedelta(milliseconds=1) if late else start
    return value


def plan_events(query: q.Query) -> Events:
    """Return what is read for a normalised query of events.

    Raises
    ------
    UsageError
        If it names no experiment.
    """
    experiments = q.values_of(query, "experiment")
    if experiments is None:
        raise UsageError(
            "Cassandra could answer this only by reading the events of every experiment",
            remedy="add a condition such as experiment = 'TAIGA'",
        )
    named = tuple(sorted(str(experiment) for experiment in experiments))
    return Events(named, q.bounds_of(query, "run"), q.bounds_of(query, "event"))


def describe(access: Access) -> str:
    """Return one line for people."""
    match access:
        case Path(paths):
            return f"file_by_directory: {len(paths)} named, {paths[0]!r} first"
        case Tree(folder, prefix):
            return f"file_by_directory: folders below {folder or '/'!r}, paths from {prefix!r}"
        case Site(site):
            return f"file_of_site, file_by_directory: all files of site {site!r}, folder by folder"
        case Run(experiment, run):
            return f"file_by_run: run {run} of {experiment!r}"
        case Nights(None, None, None, None):
            return "file_by_night: every night of every experiment (all files were asked for)"
        case Nights(experiment, low, high, these, conditions):
            whose = f"experiment {experiment!r}" if experiment is not None else "every experiment"
            if these is not None:
                within = f", by index within the night: {_written(conditions)}" if conditions else ""
                nights = f"{', '.join(map(str, these[:10]))}{', …' if these[10:] else ''}"
                return f"file_by_night: {whose}, {nights}{within}"
            if low is None and high is None:
                return f"file_by_night: {whose}, every night"
            return f"file_by_night: {whose}, nights {low or 'from the first'} to {high or 'the last'}"
        case Index(conditions):
            return f"file_by_night by index, asked of every node: {_written(conditions)}"


def _written(conditions: Conditions) -> str:
    return " and ".join(f"{name} {sign} {value}" for name, sign, value in conditions)
