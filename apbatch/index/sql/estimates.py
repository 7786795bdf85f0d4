"""How many rows a plan of SQLite reads: from the plan's lines and what ANALYZE counted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_STEP = re.compile(
    r"(SCAN|SEARCH) [fa]\b(?: USING (?:COVERING )?INDEX (\w+)(?: \((.*)\))?| USING INTEGER PRIMARY KEY.*)?"
)
#: Share of the rows that a bound on one side leaves, where nothing is known of the values.
_BOUND = 1 / 4
_EQUAL = re.compile(r"(\w+)=\?")
#: Columns whose values pick many rows, which ANALYZE with its limit counts as few; and how many others pick at most,
#: where nothing was counted.
_COARSE, _FEW = {"experiment", "site", "format", "state"}, 1_000


def rows_of_plan(lines: Iterable[str], files: int, counted: Mapping[str, Sequence[int]]) -> int:
    """Return about how many rows are read, at most, of the table of files (f) and those of attributes (a).

    Parameters
    ----------
    lines : iterable of str
        What ``EXPLAIN QUERY PLAN`` gives.
    files : int
        Rows of the table.
    counted : Mapping
        By index, how many rows share the values of its first column, of its first two, and so on.
    """
    rows, lines = 0.0, list(lines)
    # A scan of a routine's rows: of what is read already.
    routines = {f"SCAN {line.split()[1]}" for line in lines if line.startswith("CO-ROUTINE ")}
    for line in lines:
        if line in routines:
            continue
        if (step := _STEP.match(line)) is None:
            continue
        kind, index, bounds = step.groups()
        if kind == "SCAN":
            rows += files
        elif index is not None:
            columns = _EQUAL.findall(bounds or "")
            alike = counted.get(index, ())
            few = alike[len(columns) - 1] if 0 < len(columns) <= len(alike) else _FEW
            most = few if set(columns) - _COARSE else files
            rows += most * _BOUND ** len(re.findall("[<>]", bounds or ""))
        else:
            rows += 1
    return round(min(rows, files))
