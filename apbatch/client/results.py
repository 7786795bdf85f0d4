"""Results as people use them: Arrow underneath; pandas, Polars or an astropy table in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from apbatch.units import unit

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from astropy.table import QTable

#: Rows and columns that a notebook shows.
_ROWS, _COLUMNS = 10, 12


class SlowSearchWarning(UserWarning):
    """A search will take a while."""


class Result:
    """What a search gives. It is asked for when it is first looked at, and held from then on.

    Parameters
    ----------
    ask : callable
        Yields batches, at least one.
    title : str
        What was asked.
    slow_because : callable, optional
        Says why it will take a while, or None: the user is warned before it is asked for.
    """

    def __init__(
        self,
        ask: Callable[[], Iterator[pa.RecordBatch]],
        title: str,
        slow_because: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._ask, self.title, self._slow_because = ask, title, slow_because
        self._table: pa.Table | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the result batch by batch, as it arrives, without holding it."""
        if self._table is not None:
            yield from self._table.to_batches()
        else:
            yield from self._first_batches()

    def _first_batches(self) -> Iterator[pa.RecordBatch]:
        if reason := self._slow_because():
            warnings.warn(f"this search will take a while: {reason}", SlowSearchWarning, stacklevel=3)
        return self._ask()

    def arrow(self) -> pa.Table:
        """Return the result as an Arrow table; fields carry `unit` and `description`."""
        if self._table is None:
            batches = list(self._first_batches())
            self._table = pa.Table.from_batches(batches, batches[0].schema)
        return self._table

    def pandas(self) -> pd.DataFrame:
        """Return the result as a pandas frame; units are in ``frame.attrs["units"]``."""
        table = self.arrow()
        frame = table.to_pandas()
        frame.attrs["units"] = self.units
        return frame

    def polars(self) -> pl.DataFrame:
        """Return the result as a Polars frame.

        Raises
        ------
        MissingSoftwareError
            Without Polars.
        """
        try:
            import polars
        except ImportError as error:
            from apbatch.errors import MissingSoftwareError

            raise MissingSoftwareError("Polars is not installed", remedy="pip install polars") from error
        frame = polars.from_arrow(self.arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def table(self) -> QTable:
        """Return the result as an astropy table: numbers with a unit are quantities, times are `Time` in UTC.

        Missing numbers are NaN where they are floats, and masked where they are integers; texts are empty.
        """
        from astropy.table import QTable

        table = QTable()
        for field, column in zip(self.arrow().schema, self.arrow().columns, strict=True):
            table[field.name] = _astropy(field, column)
        return table

    @property
    def units(self) -> dict[str, str]:
        """Units of the columns that have one."""
        fields = self.arrow().schema
        return {field.name: field.metadata[b"unit"].decode() for field in fields if b"unit" in (field.metadata or {})}

    def __len__(self) -> int:
        return int(self.arrow().num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield rows, batch by batch: of a large result nothing is held."""
        for batch in self.batches():
            yield from batch.to_pylist()

    def __getitem__(self, name: str) -> Any:
        """Return a column as a numpy array."""
        return self.arrow().column(name).to_numpy()

    def __repr__(self) -> str:
        if self._table is None:
            return f"<{self.title}: not asked for yet>"
        return f"<{self.title}: {len(self)} rows, {self._table.num_columns} columns>"

    def _repr_html_(self) -> str:
        table = self.arrow()
        names = table.schema.names[:_COLUMNS]
        heads = "".join(f"<th>{escape(name)}{_unit_html(self.units.get(name))}</th>" for name in names)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(row[name]))}</td>" for name in names) + "</tr>"
            for row in islice(table.slice(0, _ROWS).select(names).to_pylist(), _ROWS)
        )
        more = f"{table.num_rows:,} rows, {table.num_columns} columns".replace(",", "\N{NARROW NO-BREAK SPACE}")
        return (
            f"<div><p><code>{escape(self.title)}</code>: {more}</p>"
            f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        )


def _unit_html(text: str | None) -> str:
    return f"<br><small>{escape(text)}</small>" if text else ""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]


def _astropy(field: pa.Field, column: pa.ChunkedArray) -> Any:
    from astropy.table import Column, MaskedColumn
    from astropy.time import Time

    kind = field.type
    text = (field.metadata or {}).get(b"unit", b"").decode()
    description = (field.metadata or {}).get(b"description", b"").decode()
    if pa.types.is_timestamp(kind):
        moments = np.asarray(column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False), "datetime64[us]")
        if column.null_count == 0:
            return Time(moments.astype(str), format="isot", scale="utc") if len(moments) else Time([], format="mjd")
        texts = ["" if moment is None else moment.isoformat() for moment in column.to_pylist()]
        return Column(texts, description=description)
    if pa.types.is_floating(kind):
        values = column.to_numpy(zero_copy_only=False)
        return values * unit(text) if text else Column(values, description=description)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        mask = np.asarray(column.is_null().to_numpy(zero_copy_only=False))
        values = np.asarray(column.fill_null(0 if pa.types.is_integer(kind) else False).to_numpy(zero_copy_only=False))
        if mask.any():
            return MaskedColumn(values, mask=mask, description=description)
        return values * unit(text) if text else Column(values, description=description)
    return Column(
        ["" if value is None else str(value) for value in column.to_pylist()], dtype=str, description=description
    )
