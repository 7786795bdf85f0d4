"""Events of the KASCADE air-shower array: text of 21 columns, or the same as an HDF5 (PyTables) table.

Columns: run, event, seconds since 1970 (UTC), nanoseconds, energy (eV), core x and y (m), zenith and azimuth (rad),
numbers of electrons and muons, four pairs of electron and muon density (1/m2), temperature (deg C), pressure (hPa).
Values of -1 and -999 in the last two mean that there was no measurement.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, ClassVar

import numpy as np

from apbatch.errors import FormatError, MissingSoftwareError
from apbatch.formats.attributes import (
    ENERGY_MAX,
    ENERGY_MIN,
    EV_PER_TEV,
    EVENT_FIRST,
    EVENT_LAST,
    ZENITH_MAX,
    ZENITH_MIN,
)
from apbatch.formats.hdf5 import MAGIC, tables_with, with_file
from apbatch.formats.lines import Line, Problems, head_lines, lines_of, numbers
from apbatch.formats.reader import Attribute, Metadata, Reader, Scalar

_COLUMNS = 21
#: Rows of the HDF5 table that are read at a time.
_ROWS = 65536
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Seconds of 1990 and 2030: the array took data from 1996 to 2013.
_FIRST_S, _LAST_S = 631_152_000, 1_893_456_000
#: Runs that are listed by number; beyond that the first and the last must do.
_LISTED_RUNS = 20


def _fault(values: list[float] | None) -> str | None:
    """Return what makes a line no event, or None."""
    if values is None or len(values) != _COLUMNS:
        return f"{_COLUMNS} numbers are wanted"
    run, event, second, nanosecond, energy, _, _, zenith, azimuth = values[:9]
    if any(not math.isfinite(value) or value != int(value) or value < 0 for value in (run, event, second, nanosecond)):
        return "run, event, second and nanosecond must be whole numbers"
    if not _FIRST_S <= second < _LAST_S or nanosecond >= 1e9:
        return f"{second:.0f} s and {nanosecond:.0f} ns are no time of data taking"
    if not 1e9 < energy < 1e22:
        return f"an energy of {energy:g} eV"
    if not 0 <= zenith <= math.pi / 2 or not abs(azimuth) <= 2 * math.pi + 1e-6:
        return f"a direction of zenith {zenith:g} and azimuth {azimuth:g} rad"
    return None


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

    def add(self, run: int, event: int, second: int, nanosecond: int, energy: float, zenith: float) -> None:
        if not self.events:
            self.first_run = run
        self.events += 1
        self.runs.add(run)
        time = second * 1_000_000_000 + nanosecond
        self.time = [min(self.time[0], time), max(self.time[1], time)]
        self.energy = [min(self.energy[0], energy), max(self.energy[1], energy)]
        self.zenith = [min(self.zenith[0], zenith), max(self.zenith[1], zenith)]
        self.event = [min(self.event[0], event), max(self.event[1], event)]

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

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise lines of 21 numbers that can be an event (comments in front are allowed), or an HDF5 file."""
        if head.startswith(MAGIC):
            return True
        lines = [line for line in head_lines(head) or [] if not line.lstrip().startswith("#")]
        right = sum(_fault(numbers(line.split())) is None for line in lines)
        return right > 0 and 2 * right >= len(lines)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look for the table in an HDF5 file; one that can't be opened is taken for KASCADE's if its name says so."""
        if stream.read(len(MAGIC)) != MAGIC:
            return True
        stream.seek(0)
        try:
            return with_file(stream, name, lambda file: bool(tables_with(file, _NAMES)))
        except MissingSoftwareError:
            return "kascade" in name.lower()
        except FormatError:
            return "kascade" in name.lower()

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
        magic = stream.read(len(MAGIC))
        stream.seek(0)
        if magic == MAGIC:
            _add_events(stream, name, totals)
        else:
            self._text(stream, totals, problems)
        if not totals.events:
            reason = f": {problems.kept[0].reason}" if problems.kept else ""
            raise FormatError(f"no event{reason}", where=name)
        return totals.metadata(problems)

    def _text(self, stream: BinaryIO, totals: _Totals, problems: Problems) -> None:
        line: Line
        for line in lines_of(stream, problems):
            if line.text.lstrip().startswith("#"):
                continue
            values = numbers(line.words)
            fault = _fault(values)
            if values is None or fault is not None:
                problems.at_line(line, fault or "no event")
                continue
            run, event, second, nanosecond = (int(value) for value in values[:4])
            totals.add(run, event, second, nanosecond, values[4], values[7])


_NAMES = ("run_id", "event_id", "timestamp", "nanoseconds", "energy", "zenith")


def _memory_type(table: Any) -> tuple[np.dtype[Any], Any]:
    """Return the types, numpy's and HDF5's, in which the wanted columns are read."""
    import h5py

    stored = table.get_type()
    fields = []
    for name in _NAMES:
        member = stored.get_member_type(stored.get_member_index(name.encode()))
        if member.get_class() == h5py.h5t.TIME:
            # HDF5 converts times into nothing else: they are read as they are, as integers of their size.
            little = member.equal(h5py.h5t.UNIX_D32LE) or member.equal(h5py.h5t.UNIX_D64LE)
            order = "<" if little else ">"
            fields.append((name, f"{order}i{member.get_size()}", member))
        else:
            kind = "f8" if name in ("energy", "zenith") else "i8"
            fields.append((name, kind, h5py.h5t.py_create(np.dtype(kind))))
    wanted = np.dtype([(name, kind) for name, kind, _ in fields])
    memory_type = h5py.h5t.create(h5py.h5t.COMPOUND, wanted.itemsize)
    offset = 0
    for name, kind, member in fields:
        memory_type.insert(name.encode(), offset, member)
        offset += np.dtype(kind).itemsize
    return wanted, memory_type


def _add_events(stream: BinaryIO, name: str, totals: _Totals) -> None:
    """Add the events of an HDF5 file, a block of rows at a time."""

    def read(file: Any) -> None:
        import h5py

        tables = tables_with(file, _NAMES)
        if not tables:
            raise FormatError("no table with the columns of KASCADE events", where=name)
        _, table = tables[0]
        wanted, memory_type = _memory_type(table)
        rows = table.shape[0]
        for start in range(0, rows, _ROWS):
            count = min(_ROWS, rows - start)
            space = table.get_space()
            space.select_hyperslab((start,), (count,))
            block = np.zeros(count, wanted)
            table.read(h5py.h5s.create_simple((count,)), space, block, memory_type)
            for event in block.tolist():
                totals.add(*event)

    with_file(stream, name, read)
