"""Events of the KASCADE air-shower array: text of 21 columns, or the same as an HDF5 (PyTables) table.

Columns: run, event, seconds since 1970 (UTC), nanoseconds, energy (eV), core x and y (m), zenith and azimuth (rad),
numbers of electrons and muons, four pairs of electron and muon density (1/m2), temperature (deg C), pressure (hPa).
Values of -1 and -999 in the last two mean that there was no measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.errors import FormatError, MissingSoftwareError
from apbatch.formats.angles import clamped, turned
from apbatch.formats.attributes import (
    ENERGY_MAX,
    ENERGY_MIN,
    EV_PER_TEV,
    EVENT_FIRST,
    EVENT_LAST,
    ZENITH_MAX,
    ZENITH_MIN,
)
from apbatch.formats.compressed import content_fits, may_fit, plain_lines
from apbatch.formats.event_columns import (
    AZIMUTH,
    CORE_X,
    CORE_Y,
    ELECTRONS,
    ENERGY,
    MUONS,
    ZENITH,
    event_batch,
)
from apbatch.formats.hdf5 import MAGIC, Hdf5, blocks, opened, tables_with, with_file
from apbatch.formats.reader import Attribute, Metadata, Reader, Scalar
from apbatch.formats.row_rules import RowRules
from apbatch.formats.signatures import names_word
from apbatch.formats.text.lines import Problems, head_lines, numbers

_COLUMNS = 21
#: Lines of text that are looked at together.
_LINES = 4096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Seconds of 1990 and 2030: the array took data from 1996 to 2013.
_FIRST_S, _LAST_S = 631_152_000, 1_893_456_000
#: Runs that are listed by number; beyond that the first and the last must do.
_LISTED_RUNS = 20


#: Whole numbers beyond this are not exact as float64.
_LARGEST_WHOLE = 2.0**53
#: A zenith angle of pi/2 or an azimuth of 2 pi may be larger by this much, rounded to float32.
_ROUNDING = 2e-7

#: The columns that are looked at: one row of this type an event.
ROW = np.dtype([(name, "f8") for name in ("run", "event", "second", "nanosecond", "energy", "zenith", "azimuth")])
_Rows = npt.NDArray[np.void]
#: What makes a row no event, in this order: the bounds of the format, for text and HDF5 alike.
_RULES = RowRules(
    (
        lambda rows: np.logical_and.reduce(
            [
                (rows[name] == np.floor(rows[name])) & (rows[name] >= 0) & (rows[name] < _LARGEST_WHOLE)
                for name in ("run", "event", "second", "nanosecond")
            ]
        ),
        "run, event, second and nanosecond must be whole numbers",
    ),
    (
        lambda rows: (rows["second"] >= _FIRST_S) & (rows["second"] < _LAST_S) & (rows["nanosecond"] < 1e9),
        "{second:.0f} s and {nanosecond:.0f} ns are no time of data taking",
    ),
    (lambda rows: (rows["energy"] > 1e9) & (rows["energy"] < 1e22), "an energy of {energy:g} eV"),
    (
        lambda rows: (
            (rows["zenith"] >= -_ROUNDING)
            & (rows["zenith"] <= math.pi / 2 + _ROUNDING)
            & (np.abs(rows["azimuth"]) <= 2 * math.pi + 5 * _ROUNDING)
        ),
        "a direction of zenith {zenith:g} and azimuth {azimuth:g} rad",
    ),
)


def _row(values: list[float] | None) -> tuple[float, ...] | None:
    """Return the columns of a line that are looked at; None if it has not 21 numbers."""
    if values is None or len(values) != _COLUMNS:
        return None
    return (*values[:5], *values[7:9])


class _Totals:
    """What is gathered over the events of a file."""

    def __init__(self) -> None:
        self.events = 0
        self.runs: set[int] = set()
        self.first_run = 0
        self.time = [1 << 62, 0]
        self.energy = [math.inf, 0.0]
        self.zenith = [math.inf, 0.0]
        self.event = [1 << 62, 0]

    def add(self, rows: _Rows) -> None:
        """Add rows that are events."""
        if not len(rows):
            return
        if not self.events:
            self.first_run = int(rows["run"][0])
        self.events += len(rows)
        self.runs.update(np.unique(rows["run"]).astype(np.int64).tolist())
        time = rows["second"].astype(np.int64) * 1_000_000_000 + rows["nanosecond"].astype(np.int64)
        self.time = [min(self.time[0], int(time.min())), max(self.time[1], int(time.max()))]
        zenith = np.clip(rows["zenith"], 0, math.pi / 2)
        for limits, values in ((self.energy, rows["energy"]), (self.zenith, zenith)):
            limits[:] = [min(limits[0], float(values.min())), max(limits[1], float(values.max()))]
        event = rows["event"]
        self.event = [min(self.event[0], int(event.min())), max(self.event[1], int(event.max()))]

    def metadata(self, problems: Problems) -> Metadata:
        attributes: dict[str, Scalar] = {
            "energy_min": self.energy[0] / EV_PER_TEV,
            "energy_max": self.energy[1] / EV_PER_TEV,
            "zenith_min": math.degrees(self.zenith[0]),
            "zenith_max": math.degrees(self.zenith[1]),
            "run_first": min(self.runs),
            "run_last": max(self.runs),
            "runs": len(self.runs),
            "event_first": self.event[0],
            "event_last": self.event[1],
        }
        if len(self.runs) <= _LISTED_RUNS:
            attributes["run_list"] = " ".join(map(str, sorted(self.runs)))
        return Metadata(
            experiment="KASCADE",
            run=self.first_run,
            time_start=_EPOCH + timedelta(microseconds=self.time[0] // 1000),
            time_end=_EPOCH + timedelta(microseconds=self.time[1] // 1000),
            events=self.events,
            attributes=attributes,
            problems=problems.result(),
        )


class KascadeReader(Reader):
    """KASCADE events, as text or HDF5. `run` is that of the first event: a file may hold several."""

    name: ClassVar[str] = "kascade"
    seeks: ClassVar[bool] = True
    attributes: ClassVar[tuple[Attribute, ...]] = (
        ENERGY_MIN,
        ENERGY_MAX,
        ZENITH_MIN,
        ZENITH_MAX,
        EVENT_FIRST,
        EVENT_LAST,
        Attribute("run_first", "integer", "Smallest number of a run in the file."),
        Attribute("run_last", "integer", "Largest number of a run in the file."),
        Attribute("runs", "integer", "How many runs the file holds events of."),
        Attribute("run_list", "string", f"Numbers of the runs, if they are not more than {_LISTED_RUNS}."),
    )

    event_columns: ClassVar[tuple[Attribute, ...]] = (
        ENERGY,
        ZENITH,
        AZIMUTH,
        CORE_X,
        CORE_Y,
        ELECTRONS,
        MUONS,
        *(
            Attribute(f"{kind}_density_{station}", "number", f"Density of {kind}s at station {station}.", "1/m2")
            for kind in ("electron", "muon")
            for station in (1, 2, 3, 4)
        ),
        Attribute("temperature", "number", "Temperature of the air.", "deg_C"),
        Attribute("pressure", "number", "Pressure of the air.", "hPa"),
    )

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise lines of 21 numbers that can be an event (comments in front are allowed), or an HDF5 file."""
        return head.startswith(MAGIC) or may_fit(head, self._is_text)

    def _is_text(self, head: bytes) -> bool:
        lines = [line for line in head_lines(head) or [] if not line.lstrip().startswith("#")]
        rows = [row for line in lines if (row := _row(numbers(line.split()))) is not None]
        right = int((_RULES.broken(np.array(rows, ROW), len(rows)) < 0).sum()) if rows else 0
        return right > 0 and 2 * right >= len(lines)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look for the table in an HDF5 file, and into a compressed one.

        Raises
        ------
        FormatError
            If it is a damaged one.
        """
        if not _is_hdf5(stream):
            return content_fits(stream, self._is_text)
        try:
            return with_file(stream, name, lambda hdf5: bool(tables_with(hdf5.file, _NAMES)))
        except MissingSoftwareError:
            return self.claims(name)

    def isolated(self, head: bytes) -> bool:
        """Tell whether it is HDF5."""
        return head.startswith(MAGIC)

    def claims(self, name: str) -> bool:
        """Tell whether the path names the experiment."""
        return names_word(name, "kascade")

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read all events: runs, times, energies, zenith angles.

        Raises
        ------
        FormatError
            If there is no event.
        MissingSoftwareError
            For an HDF5 file without h5py.
        """
        problems, totals = Problems(), _Totals()
        if _is_hdf5(stream):
            problems = _add_events(stream, name, totals)
        else:
            self._text(stream, totals, problems)
        if not totals.events:
            reason = f": {problems.kept[0].reason}" if problems.kept else ""
            raise FormatError(f"no event{reason}", where=name)
        return totals.metadata(problems)

    def _text(self, stream: BinaryIO, totals: _Totals, problems: Problems) -> None:
        for rows, _ in _events_of_text(stream, problems):
            totals.add(rows)

    def events(self, stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the events with energy, direction, core, numbers and densities of particles, and the weather."""
        problems = problems if problems is not None else Problems()
        if _is_hdf5(stream):
            yield from _events_of_table(stream, name, problems)
            return
        for rows, values in _events_of_text(stream, problems):
            if len(rows):
                yield _event_batch(rows, values[:, _TEXT_ORDER].T)


def _is_hdf5(stream: BinaryIO) -> bool:
    magic = stream.read(len(MAGIC))
    stream.seek(0)
    return magic == MAGIC


#: Columns of a line of text in the order of `KascadeReader.event_columns` from the core on.
_TEXT_ORDER = [5, 6, 9, 10, 11, 13, 15, 17, 12, 14, 16, 18, 19, 20]
_NO_WEATHER = (-1.0, -999.0)


def _events_of_text(stream: BinaryIO, problems: Problems) -> Iterator[tuple[_Rows, npt.NDArray[np.float64]]]:
    """Yield the rows that are events, as `ROW` and with all columns; others are noted."""
    lines = (line for line in plain_lines(stream, problems, whole=True) if not line.text.lstrip().startswith("#"))
    while batch := list(islice(lines, _LINES)):
        parsed = [(line, numbers(line.words)) for line in batch]
        for line in (line for line, values in parsed if _row(values) is None):
            problems.at_line(line, f"{_COLUMNS} numbers are wanted")
        whole = [(line, values) for line, values in parsed if values is not None and _row(values) is not None]
        rows = np.array([_row(values) for _, values in whole], ROW)
        broken = _RULES.broken(rows, len(rows))
        for place, reason in _RULES.reasons(rows, broken):
            problems.at_line(whole[place][0], reason)
        events = broken < 0
        yield rows[events], np.array([values for _, values in whole], np.float64).reshape(-1, _COLUMNS)[events]


def _event_batch(rows: _Rows, others: npt.NDArray[np.float64]) -> pa.RecordBatch:
    """Return events as a batch.

    Parameters
    ----------
    rows : ndarray of `ROW`
    others : ndarray of shape (14, n)
        Core, numbers of electrons and muons, their densities, temperature and pressure.
    """
    names = [column.name for column in KascadeReader.event_columns[3:]]
    columns = dict(zip(names, np.array(others), strict=True))
    for name in names[-2:]:
        columns[name][np.isin(columns[name], _NO_WEATHER)] = np.nan
    directions = {
        "energy": rows["energy"] / EV_PER_TEV,
        "zenith": clamped(np.degrees(rows["zenith"]), 0, 180),
        "azimuth": turned(np.degrees(rows["azimuth"])),
    }
    time = rows["second"].astype(np.int64) * 1_000_000_000 + rows["nanosecond"].astype(np.int64)
    run, event = (rows[name].astype(np.int64) for name in ("run", "event"))
    return event_batch(run, event, {**directions, **columns}, time_ns=time)


#: Columns of the table in HDF5 as `_event_batch` wants them, with how many numbers each holds.
_OTHERS = (("core_pos", 2), ("Num_e", 1), ("Num_mu", 1), ("dens_e", 4), ("dens_mu", 4), ("T200", 1), ("P200", 1))


def _events_of_table(stream: BinaryIO, name: str, problems: Problems) -> Iterator[pa.RecordBatch]:
    with opened(stream, name, problems) as hdf5:
        for _, _, block in _blocks_of_tables(hdf5, _OTHERS):
            rows, broken = _rows_of_block(block)
            events = broken < 0
            others = np.full((14, len(block)), np.nan)
            at = 0
            for column, width in _OTHERS:
                if column in (block.dtype.names or ()):
                    others[at : at + width] = block[column].reshape(len(block), width).T
                at += width
            if events.any():
                yield _event_batch(rows[events], others[:, events])


def _blocks_of_tables(
    hdf5: Hdf5, others: Sequence[tuple[str, int]] = ()
) -> Iterator[tuple[str, int, npt.NDArray[Any]]]:
    """Yield the rows of all tables with the columns of events: the path, the number of the first one, and the rows."""
    tables = tables_with(hdf5.file, _NAMES)
    if not tables:
        raise FormatError("no table with the columns of KASCADE events", where=hdf5.name)
    for path, table in tables:
        for first, block in blocks(hdf5, path, table, *_memory_type(table, others)):
            yield path, first, block


def _rows_of_block(block: npt.NDArray[Any]) -> tuple[_Rows, npt.NDArray[np.int64]]:
    """Return rows of the table as `ROW`, and which rule each breaks."""
    rows = np.zeros(len(block), ROW)
    for column, stored in zip(ROW.names or (), (*_NAMES, _AZIMUTH), strict=True):
        if stored in (block.dtype.names or ()):
            rows[column] = block[stored]
    return rows, _RULES.broken(rows, len(rows))


#: Columns of the table in HDF5 as they are in `ROW`; one without azimuth is read as well.
_NAMES = ("run_id", "event_id", "timestamp", "nanoseconds", "energy", "zenith")
_AZIMUTH = "azimuth"


def _memory_type(table: Any, others: Sequence[tuple[str, int]] = ()) -> tuple[np.dtype[Any], Any]:
    """Return the types, numpy's and HDF5's, in which the wanted columns are read."""
    import h5py

    stored = table.get_type()
    members = {stored.get_member_name(place).decode() for place in range(stored.get_nmembers())}
    fields: list[tuple[str, Any, Any]] = []
    for name in (*_NAMES, _AZIMUTH) if _AZIMUTH in members else _NAMES:
        member = stored.get_member_type(stored.get_member_index(name.encode()))
        if member.get_class() == h5py.h5t.TIME:
            # HDF5 converts times into nothing else: they are read as they are, as integers of their size.
            little = member.equal(h5py.h5t.UNIX_D32LE) or member.equal(h5py.h5t.UNIX_D64LE)
            order = "<" if little else ">"
            fields.append((name, f"{order}i{member.get_size()}", member))
        else:
            kind = "i8" if name in _NAMES[:4] else "f8"
            fields.append((name, kind, h5py.h5t.py_create(np.dtype(kind))))
    for name, width in others:
        if name in members:
            numbers_of = np.dtype("f8") if width == 1 else np.dtype(("f8", (width,)))
            fields.append((name, numbers_of, h5py.h5t.py_create(numbers_of)))
    layout = np.dtype([(name, kind) for name, kind, _ in fields])
    memory_type = h5py.h5t.create(h5py.h5t.COMPOUND, layout.itemsize)
    offset = 0
    for name, kind, member in fields:
        memory_type.insert(name.encode(), offset, member)
        offset += np.dtype(kind).itemsize
    return layout, memory_type


def _add_events(stream: BinaryIO, name: str, totals: _Totals) -> Problems:
    """Add the events of an HDF5 file; return what was passed over."""

    def read(hdf5: Hdf5) -> Problems:
        for path, first, block in _blocks_of_tables(hdf5):
            rows, broken = _rows_of_block(block)
            for place, reason in _RULES.reasons(rows, broken):
                hdf5.problems.add(0, f"row {first + place} of {path}: {reason}")
            totals.add(rows[broken < 0])
        return hdf5.problems

    return with_file(stream, name, read)
