"""Tables of image parameters and of array events, for the catalogue: FACT, MAGIC (UCI), HiSPARC. None has images."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt

from apbatch.errors import FormatError, MissingSoftwareError
from apbatch.formats.attributes import ENERGY_MAX, ENERGY_MIN, PRIMARY
from apbatch.formats.corsika import PARTICLES
from apbatch.formats.hdf5 import MAGIC, tables_with, with_file
from apbatch.formats.lines import Problems, head_lines, lines_of, numbers
from apbatch.formats.reader import Attribute, Metadata, Reader, Scalar

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS = 65536


class _Hdf5Reader(Reader):
    """A format in HDF5, told by the columns of its tables."""

    seeks: ClassVar[bool] = True

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise HDF5."""
        return head.startswith(MAGIC)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look for the columns."""
        try:
            return with_file(stream, name, self._fits)
        except (FormatError, MissingSoftwareError):
            return False  # another reader of HDF5 will tell what is wrong with it

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read the columns that the catalogue wants.

        Raises
        ------
        FormatError
            If the file is damaged or has no such table.
        MissingSoftwareError
            Without h5py.
        """

        def described(file: Any) -> Metadata:
            if not self._fits(file):
                raise FormatError("no table with the columns of this format", where=name)
            return self._described(file)

        return with_file(stream, name, described)

    def _fits(self, file: Any) -> bool:
        raise NotImplementedError

    def _described(self, file: Any) -> Metadata:
        raise NotImplementedError


class FactHillasReader(_Hdf5Reader):
    """FACT's image parameters in HDF5: a group of events with a data set a column."""

    name: ClassVar[str] = "fact-hillas"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        ENERGY_MIN,
        ENERGY_MAX,
        PRIMARY,
        Attribute("runs", "integer", "How many runs the file holds events of."),
        Attribute("columns", "integer", "Number of columns of the table."),
    )
    _COLUMNS = ("size", "width", "length", "run_id")

    def _fits(self, file: Any) -> bool:
        group = file.get("events")
        return group is not None and hasattr(group, "keys") and all(name in group for name in self._COLUMNS)

    def _described(self, file: Any) -> Metadata:
        group = file["events"]
        events = int(group["size"].shape[0])
        runs = np.unique(_column(group, "run_id", events))
        attributes: dict[str, Scalar] = {"runs": len(runs), "columns": len(group)}
        if "corsika_event_header_total_energy" in group:
            energy = _column(group, "corsika_event_header_total_energy", events) / 1000
            energy = energy[np.isfinite(energy)]
            if len(energy):
                attributes |= {"energy_min": float(energy.min()), "energy_max": float(energy.max())}
        if "corsika_run_header_particle_id" in group:
            found = np.unique(_column(group, "corsika_run_header_particle_id", events))
            kinds = (PARTICLES.get(int(one), f"particle {one:g}") for one in found if math.isfinite(one))
            attributes["primary"] = ",".join(sorted(kinds))
        run = int(runs[0]) if len(runs) == 1 and math.isfinite(runs[0]) else None
        return Metadata(run=run, telescope=1, events=events, attributes=attributes)


def _column(group: Any, name: str, rows: int) -> npt.NDArray[np.float64]:
    data = group[name]
    if data.shape != (rows,):
        raise ValueError(f"column {name} is of shape {data.shape}, others have {rows} rows")
    parts = [np.asarray(data[start : start + _ROWS], np.float64) for start in range(0, rows, _ROWS)]
    return np.concatenate(parts) if parts else np.empty(0)


class HisparcReader(_Hdf5Reader):
    """Events of HiSPARC stations in HDF5 (PyTables)."""

    name: ClassVar[str] = "hisparc"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        Attribute("stations", "string", "Numbers of the stations, separated by commas."),
    )
    _COLUMNS = ("event_id", "ext_timestamp", "pulseheights")

    def _fits(self, file: Any) -> bool:
        return bool(tables_with(file, self._COLUMNS))

    def _described(self, file: Any) -> Metadata:
        events, times, stations, problems = 0, [1 << 63, -1], set(), Problems()
        for path, table in tables_with(file, self._COLUMNS):
            events += int(table.shape[0])
            try:
                for start in range(0, table.shape[0], _ROWS):
                    # Nanoseconds since 1970, as they are counted by GPS.
                    found = _member(table, "ext_timestamp", start, min(_ROWS, table.shape[0] - start))
                    times = [min(times[0], int(found.min())), max(times[1], int(found.max()))]
            except OSError as error:  # PyTables' own compression, of which h5py has not all kinds
                problems.add(0, f"the times of {path} can't be read: {str(error)[:120]}")
            if match := re.search(r"(?:^|/)s(?:tation_)?(\d+)(?:/|$)", path):
                stations.add(int(match[1]))
        timed = 0 <= times[0] <= times[1] < 1 << 62
        return Metadata(
            experiment="HiSPARC",
            time_start=_EPOCH + timedelta(microseconds=times[0] // 1000) if timed else None,
            time_end=_EPOCH + timedelta(microseconds=times[1] // 1000) if timed else None,
            telescope=next(iter(stations)) if len(stations) == 1 else None,
            events=events,
            attributes={"stations": ",".join(map(str, sorted(stations)))} if stations else {},
            problems=problems.result(),
        )


def _member(table: Any, name: str, start: int, count: int) -> npt.NDArray[np.int64]:
    """Read one column of a table of which numpy has not all types."""
    import h5py

    wanted = np.dtype([(name, "u8")])
    space = table.get_space()
    space.select_hyperslab((start,), (count,))
    block = np.zeros(count, wanted)
    table.read(h5py.h5s.create_simple((count,)), space, block, h5py.h5t.py_create(wanted))
    return block[name].astype(np.int64)


class UciMagicReader(Reader):
    """Image parameters of MAGIC's Monte Carlo in the UCI repository: ten numbers and ``g`` or ``h`` a line."""

    name: ClassVar[str] = "uci-magic"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        PRIMARY,
        Attribute("gammas", "integer", "Number of gammas."),
        Attribute("hadrons", "integer", "Number of hadrons."),
    )
    _NUMBERS = 10

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise whole lines of ten numbers and a letter."""
        lines = head_lines(head)
        return bool(lines) and all(self._kind(line) is not None for line in lines or [])

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Count gammas and hadrons.

        Raises
        ------
        FormatError
            If there is no event.
        """
        problems, counts = Problems(), {"g": 0, "h": 0}
        for line in lines_of(stream, problems):
            kind = self._kind(line.text)
            if kind is None:
                problems.at_line(line, "ten numbers and g or h are wanted")
                continue
            counts[kind] += 1
        if not any(counts.values()):
            raise FormatError("no event", where=name)
        kinds = [primary for letter, primary in (("g", "gamma"), ("h", "hadron")) if counts[letter]]
        return Metadata(
            experiment="MAGIC-MC",
            events=sum(counts.values()),
            attributes={"gammas": counts["g"], "hadrons": counts["h"], "primary": ",".join(kinds)},
            problems=problems.result(),
        )

    def _kind(self, line: str) -> str | None:
        words = [word.strip() for word in line.split(",")]
        if len(words) != self._NUMBERS + 1 or words[-1] not in ("g", "h"):
            return None
        values = numbers(words[:-1])
        return words[-1] if values is not None and all(map(math.isfinite, values)) else None
