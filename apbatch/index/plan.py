"""How Cassandra answers a query: which partitions or index it reads, and what is left to test row by row.

A plan reads a bounded part that the query itself names. A query that would need every row of the catalogue, without
having asked for everything, is refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from apbatch.errors import UsageError
from apbatch.index import query as q
from apbatch.index.records import to_plain

#: Columns with a storage-attached index, the most telling first.
INDEXED = ("checksum", "run", "events", "cluster", "telescope", "night", "format", "size", "state")
_RANGES = {"run", "events", "cluster", "telescope", "size"}


@dataclass(frozen=True, slots=True)
class Path:
    """One file."""

    path: str


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
    """Nights of one experiment (of all, if None), restricted to a set or a range."""

    experiment: str | None
    low: str | None = None
    high: str | None = None
    these: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """Rows that indexed columns pick."""

    conditions: tuple[tuple[str, str, Any], ...]


Access = Path | Tree | Site | Run | Nights | Index


def plan(query: q.Query) -> list[Access]:
    """Return what is read for a normalised query; every row read is tested against the whole query afterwards.

    Raises
    ------
    UsageError
        If nothing in the query bounds what must be read.
    """
    match query:
        case q.Or(parts):
            return [access for part in parts for access in plan(part)]
        case q.And(parts):
            return _conjunction(parts)
        case q.Everything():
            return [Nights(None)]
        case q.Not(q.Everything()):
            return []
        case _:
            return _conjunction((query,))


def _conjunction(parts: tuple[q.Query, ...]) -> list[Access]:
    flat: list[q.Query] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, q.And) else (part,))
    equal = {p.name: p.value for p in flat if isinstance(p, q.Compare) and p.operator == "="}
    if "path" in equal:
        return [Path(str(equal["path"]))]
    for part in flat:
        if isinstance(part, q.Like) and part.name == "path" and q.like_prefix(part.pattern).count("/") >= 2:
            prefix = q.like_prefix(part.pattern)
            return [Tree(prefix.rpartition("/")[0], prefix)]
    if "experiment" in equal and isinstance(equal.get("run"), int):
        return [Run(str(equal["experiment"]), int(str(equal["run"])))]
    if "experiment" in equal:
        return [_nights(str(equal["experiment"]), flat)]
    if "site" in equal:
        return [Site(str(equal["site"]))]
    for part in flat:
        if isinstance(part, q.In) and part.name == "experiment":
            return [_nights(str(value), flat) for value in dict.fromkeys(part.values)]
    conditions = _indexed(flat)
    if any(name != "state" for name, _, _ in conditions):
        return [Index(conditions)]
    of_all = _nights(None, flat)
    if of_all != Nights(None):
        return [of_all]
    for part in flat:
        if isinstance(part, q.Or):
            return plan(part)
    if "state" in equal and equal["state"] != "registered":
        return [Index((("state", "=", equal["state"]),))]
    if all(q.names(part) == {"state"} for part in flat):
        return [Nights(None)]  # all files were asked for
    named = ", ".join(sorted(set().union(*(q.names(part) for part in flat)) - {"state"}))
    raise UsageError(
        f"Cassandra could answer this only by reading every file: nothing indexed is asked of {named}",
        remedy="add a condition on experiment, site, night, run, format or path",
    )


def _nights(experiment: str | None, flat: list[q.Query]) -> Nights:
    low = high = None
    these: tuple[str, ...] | None = None
    for part in flat:
        match part:
            case q.Compare("night", "=", value):
                these = (to_plain(value),)
            case q.In("night", values):
                these = tuple(sorted({to_plain(value) for value in values}))
            case q.Between("night", first, last):
                low, high = to_plain(first), to_plain(last)
            case q.Compare("night", ">" | ">=", value):
                low = to_plain(value)
            case q.Compare("night", "<" | "<=", value):
                high = to_plain(value)
    return Nights(experiment, low, high, these)


def _indexed(flat: list[q.Query]) -> tuple[tuple[str, str, Any], ...]:
    """Return conditions that the indexes serve together; at most one lower and one upper bound a column."""
    found: dict[tuple[str, str], tuple[str, str, Any]] = {}
    for part in flat:
        bounds: list[tuple[str, str, Any]] = []
        match part:
            case q.Compare(name, "=", value) if name in INDEXED:
                bounds = [(name, "=", value)]
            case q.Compare(name, "<" | "<=" | ">" | ">=" as sign, value) if name in _RANGES:
                bounds = [(name, sign, value)]
            case q.Between(name, low, high) if name in _RANGES:
                bounds = [(name, ">=", low), (name, "<=", high)]
        for name, operator, value in bounds:
            if isinstance(value, float):
                continue  # the columns are whole numbers; the row test takes care of it
            plain = to_plain(value) if isinstance(value, date) else value
            found.setdefault((name, operator[0]), (name, operator, plain))
    equal = {name for name, side in found if side == "="}
    return tuple(c for (name, side), c in found.items() if side == "=" or name not in equal)


def describe(access: Access) -> str:
    """Return one line for people."""
    match access:
        case Path(path):
            return f"file_by_directory: the one file {path}"
        case Tree(folder, prefix):
            return f"file_by_directory: folders below {folder or '/'}, paths from {prefix}"
        case Site(site):
            return f"file_by_site: site {site}"
        case Run(experiment, run):
            return f"file_by_run: run {run} of {experiment}"
        case Nights(None, None, None, None):
            return "file_by_night: every night of every experiment (all files were asked for)"
        case Nights(experiment, low, high, these):
            which = ", ".join(these) if these else f"nights {low or 'first'} to {high or 'last'}"
            return f"file_by_night: {experiment or 'every experiment'}, {which}"
        case Index(conditions):
            return "file_by_night by index: " + " and ".join(f"{n} {o} {v!r}" for n, o, v in conditions)
