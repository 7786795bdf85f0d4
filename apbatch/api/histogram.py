"""Distribution of one attribute over a result: bins of equal width, or equal in the logarithm where values span far."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.api.streams import plain
from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute

#: Values that are held for a histogram.
_MOST = 5_000_000
#: Values of a text that are told apart.
_TEXTS = 50
#: Ratio of largest to smallest from which bins are equal in the logarithm.
_FAR = 1000.0


def histogram_of(
    attribute: Attribute, bins: int, columns: Iterable[pa.Array], count: Callable[[], dict[Any, int]]
) -> dict[str, Any]:
    """Return a histogram as JSON shows it.

    Parameters
    ----------
    attribute : Attribute
    bins : int
        How many, for numbers and times.
    columns : iterable of Array
        The attribute's values, batch by batch; read only for numbers and times.
    count : callable
        Counts by value, for texts, dates and truth values.

    Raises
    ------
    UsageError
        If there are too many values.
    """
    about = {"attribute": attribute.name, "type": attribute.type, "unit": attribute.unit}
    if attribute.type in ("integer", "number", "time"):
        return about | _of_numbers(attribute, bins, columns)
    counts = count()
    missing = counts.pop(None, 0)
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if attribute.type == "date":
        ordered = sorted(ordered)
        head, rest = ordered, 0
    else:
        head, rest = ordered[:_TEXTS], sum(number for _, number in ordered[_TEXTS:])
    return about | {
        "kind": "values",
        "values": [{"value": plain(value), "count": number} for value, number in head],
        "others": rest,
        "missing": missing,
    }


def _of_numbers(attribute: Attribute, bins: int, columns: Iterable[pa.Array]) -> dict[str, Any]:
    kept: list[np.ndarray[Any, Any]] = []
    total = missing = 0
    for column in columns:
        missing += column.null_count
        values = column.drop_null()
        if attribute.type == "time":
            values = pc.divide(pc.cast(values, pa.int64()).cast(pa.float64()), 1e6)
        total += len(values)
        if total > _MOST:
            raise UsageError(f"a histogram of more than {_MOST} values", remedy="narrow the query")
        kept.append(np.asarray(values.cast(pa.float64(), safe=False)))
    data = np.concatenate(kept) if kept else np.empty(0)
    if not len(data):
        return {"kind": "bins", "edges": [], "counts": [], "missing": missing, "scale": "linear"}
    low, high = float(data.min()), float(data.max())
    far = low > 0 and high / low >= _FAR and attribute.type != "time"
    if attribute.type == "integer" and not far:
        bins = int(min(bins, high - low + 1))
        step = max(1, int(np.ceil((high - low + 1) / bins)))
        edges = low - 0.5 + step * np.arange(int(np.ceil((high - low + 1) / step)) + 1)
    elif low == high:
        edges = np.array([low - 0.5, high + 0.5])
    else:
        edges = np.geomspace(low, high, bins + 1) if far else np.linspace(low, high, bins + 1)
        edges[0], edges[-1] = low, high
    counts, _ = np.histogram(data, edges)
    labels: list[Any] = edges.tolist()
    if attribute.type == "time":
        labels = [datetime.fromtimestamp(edge, UTC).isoformat() for edge in labels]
    return {
        "kind": "bins",
        "edges": labels,
        "counts": counts.tolist(),
        "missing": missing,
        "scale": "log" if far else "linear",
    }
