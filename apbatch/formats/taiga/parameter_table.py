"""The collaboration's table of image parameters of its Monte Carlo, comma-separated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa

from apbatch.errors import FormatError
from apbatch.formats.attributes import ENERGY_MAX, ENERGY_MIN, PRIMARY, SHOWERS
from apbatch.formats.compressed import content_fits, may_fit, plain_lines
from apbatch.formats.event_columns import AZIMUTH, BATCH, CORE_X, CORE_Y, ENERGY, ZENITH, event_batch
from apbatch.formats.reader import Attribute, Metadata, Reader, Scalar
from apbatch.formats.taiga.numbering import MOST_SHOWER, MOST_USE, USES, primary_of, run_of, telescope_of
from apbatch.formats.text.lines import Line, Problems, head_lines, numbers

#: Columns of the collaboration's table, and their names here.
_TABLE = {
    "size": "size", "numb_pix": "n_pixels", "Xc[0]": "cog_x", "Yc[0]": "cog_y", "length[0]": "length",
    "width[0]": "width", "dist[0]": "distance", "azwidth[1]": "azwidth", "miss[1]": "miss", "alpha[0]": "alpha",
    "con1": "con1", "con2": "con2", "skewness_l": "skewness", "kurtosis_l": "kurtosis", "edge": "edge",
    "num_islands": "n_islands", "energy": "energy", "x_ground": "core_x", "y_ground": "core_y",
    "source_tet": "zenith", "source_fi": "azimuth", "Xmax": "depth_of_maximum",
}  # fmt: skip
#: Columns without which a table is not the collaboration's.
_HILLAS_COLUMNS = {"event_number", "numb_pix", "energy", "size", "length[0]", "width[0]"}


class TaigaHillasReader(Reader):
    """Table of the image parameters of Monte Carlo images of one TAIGA-IACT, comma-separated."""

    name: ClassVar[str] = "taiga-mc-hillas"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        ENERGY_MIN,
        ENERGY_MAX,
        SHOWERS,
        PRIMARY,
        Attribute("size_min", "number", "Smallest sum of amplitudes of an image.", "pe"),
        Attribute("size_max", "number", "Largest sum of amplitudes of an image.", "pe"),
        Attribute("columns", "integer", "Number of columns of the table."),
    )

    event_columns: ClassVar[tuple[Attribute, ...]] = (
        ENERGY,
        ZENITH,
        AZIMUTH,
        CORE_X,
        CORE_Y,
        PRIMARY,
        Attribute("depth_of_maximum", "number", "Depth of the shower's maximum.", "g/cm2"),
    )

    def events(self, stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[pa.RecordBatch]:
        """Yield image parameters and truth; events are numbered as in the images of the same production."""
        problems = problems if problems is not None else Problems()
        lines = plain_lines(stream, problems, whole=True)
        names = _column_names(lines, name)
        parsed = _rows(lines, names, problems)
        while rows := list(islice(parsed, BATCH)):
            table = dict(zip(names, np.array(rows, np.float64).T, strict=True))
            columns: dict[str, Any] = {ours: table[theirs] for theirs, ours in _TABLE.items() if theirs in table}
            for angle in ("zenith", "azimuth"):
                if angle in columns:
                    columns[angle] = np.degrees(columns[angle]) % 360.0
            columns["primary"] = [primary_of(name)] * len(rows)
            use = np.nan_to_num(table.get("axis_scatter", np.zeros(len(rows))))
            event = table["event_number"].astype(np.int64) * USES + np.clip(use, 0, MOST_USE).astype(np.int64)
            yield event_batch(run_of(name) or 0, event, columns, telescope=telescope_of(name), cleaning="taiga-mc")

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise the names of the columns in the first line."""
        return may_fit(head, self._is_content)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look into a compressed file, of which the first bytes may tell nothing."""
        return content_fits(stream, self._is_content)

    def _is_content(self, head: bytes) -> bool:
        lines = head_lines(head)
        return bool(lines) and set(_columns(lines[0] if lines else "")) >= _HILLAS_COLUMNS

    def isolated(self, head: bytes) -> bool:
        """Return False: no library in C parses it."""
        return False

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read all rows: their number, showers, energies and sizes.

        Raises
        ------
        FormatError
            If the columns are missing or there is no whole row.
        """
        problems = Problems()
        lines = plain_lines(stream, problems, whole=True)
        columns = _column_names(lines, name)
        place = {column: number for number, column in enumerate(columns)}
        rows = 0
        showers: set[int] = set()
        energy, size = [math.inf, -math.inf], [math.inf, -math.inf]
        for values in _rows(lines, columns, problems):
            rows += 1
            showers.add(int(values[place["event_number"]]))
            for limits, value in ((energy, values[place["energy"]]), (size, values[place["size"]])):
                if math.isfinite(value):
                    limits[0], limits[1] = min(limits[0], value), max(limits[1], value)
        if not rows:
            raise FormatError("no whole row", where=name)
        attributes: dict[str, Scalar] = {"showers": len(showers), "columns": len(columns)}
        for label, limits in (("energy", energy), ("size", size)):
            if math.isfinite(limits[0]):
                attributes |= {f"{label}_min": limits[0], f"{label}_max": limits[1]}
        if primary_of(name) != "unknown":
            attributes["primary"] = primary_of(name)
        return Metadata(
            run=run_of(name),
            telescope=telescope_of(name),
            events=rows,
            attributes=attributes,
            problems=problems.result(),
        )


def _column_names(lines: Iterator[Line], name: str) -> list[str]:
    """Read the line of names; a FormatError names a column that is missing."""
    first = next(lines, None)
    names = _columns(first.text) if first else []
    if missing := sorted(_HILLAS_COLUMNS - set(names)):
        raise FormatError(f"there is no column '{missing[0]}'", where=f"{name}:1")
    return names


def _rows(lines: Iterator[Line], names: list[str], problems: Problems) -> Iterator[list[float]]:
    """Yield the rows of a table; one without a number a column, or without an event number, is noted."""
    number = names.index("event_number")
    for line in lines:
        values = numbers([word.strip() for word in line.text.split(",")])
        if values is None or len(values) != len(names):
            problems.at_line(line, f"{len(names)} numbers are wanted")
        elif not abs(values[number]) < MOST_SHOWER:
            problems.at_line(line, "a row without an event number")
        else:
            yield values


def _columns(line: str) -> list[str]:
    # No csv.reader: it raises at a stray carriage return, and these tables quote nothing.
    return [word.strip().strip('"') for word in line.split(",")]
