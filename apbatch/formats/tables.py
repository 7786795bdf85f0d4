"""Tables of image parameters and of array events, for the catalogue: FACT, MAGIC (UCI), HiSPARC. None has images."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, BinaryIO, ClassVar

import numpy as np

from apbatch.errors import FormatError, MissingSoftwareError
from apbatch.formats.attributes import ENERGY_MAX, ENERGY_MIN, PRIMARY
from apbatch.formats.clocks import time_of, utc_from_gps
from apbatch.formats.corsika import PARTICLES
from apbatch.formats.hdf5 import MAGIC, Hdf5, blocks, columns_of, stored_rows, tables_with, with_file
from apbatch.formats.lines import Problems, head_lines, lines_of, numbers
from apbatch.formats.reader import Attribute, Metadata, Reader, Scalar

_NS = 1_000_000_000
_GEV_PER_TEV = 1000.0
#: Seconds since 1970 in which a clock of GPS can have been read: 1980 to 2100.
_GPS_FROM_S, _GPS_TO_S = 315_964_800, 4_102_444_800
#: Different values of a column that are kept: runs and particles.
_MOST_VALUES = 100_000
_LARGEST_WHOLE = 2**53


class _Hdf5Reader(Reader):
    """A format in HDF5, told by the columns of its tables."""

    seeks: ClassVar[bool] = True
    #: What a path has in it that names such files.
    _NAME: ClassVar[str] = ""

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise HDF5."""
        return head.startswith(MAGIC)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look for the columns.

        Raises
        ------
        FormatError
            If it is a damaged HDF5 file.
        """
        try:
            return with_file(stream, name, lambda hdf5: self._fits(hdf5.file))
        except MissingSoftwareError:
            return False

    def claims(self, name: str) -> bool:
        """Tell whether the path names the experiment."""
        return self._NAME in name.lower()

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read the columns that the catalogue wants.

        Raises
        ------
        FormatError
            If the file is damaged, has no such table, or no rows.
        MissingSoftwareError
            Without h5py.
        """

        def described(hdf5: Hdf5) -> Metadata:
            if not self._fits(hdf5.file):
                raise FormatError("no table with the columns of this format", where=name)
            metadata = self._described(hdf5)
            if not metadata.events:
                reason = f": {hdf5.problems.kept[0].reason}" if hdf5.problems.kept else ""
                raise FormatError(f"no event{reason}", where=name, remedy="copy the file again")
            return replace(metadata, problems=hdf5.problems.result())

        return with_file(stream, name, described)

    def _fits(self, file: Any) -> bool:
        raise NotImplementedError

    def _described(self, hdf5: Hdf5) -> Metadata:
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
    _NAME: ClassVar[str] = "fact"
    _COLUMNS = ("size", "width", "length", "run_id")

    def _fits(self, file: Any) -> bool:
        import h5py

        if not isinstance(file.get("events", getlink=True), h5py.HardLink):
            return False
        group = file.get("events")
        return isinstance(group, h5py.Group) and all(name in group for name in self._COLUMNS)

    def _described(self, hdf5: Hdf5) -> Metadata:
        columns = columns_of(hdf5.file["events"])
        if missing := [name for name in self._COLUMNS if name not in columns]:
            raise FormatError(f"column '{missing[0]}' is no list of numbers", where=hdf5.name)
        values = {name: _Values(hdf5, columns, name) for name in self._COLUMNS}
        rows = [column.rows for column in values.values()]
        events, runs = min(rows), values["run_id"]
        if events < max(rows):
            hdf5.problems.add(0, f"columns have from {events} to {max(rows)} rows that can be read")
        attributes: dict[str, Scalar] = {"runs": len(runs.values), "columns": len(columns)}
        energy = _Values(hdf5, columns, "corsika_event_header_total_energy")
        if energy.low <= energy.high:
            attributes |= {"energy_min": energy.low / _GEV_PER_TEV, "energy_max": energy.high / _GEV_PER_TEV}
        particles = _Values(hdf5, columns, "corsika_run_header_particle_id")
        if particles.values:
            kinds = (PARTICLES.get(int(one), f"particle {one:g}") for one in particles.values)
            attributes["primary"] = ",".join(sorted(kinds))
        run = next(iter(runs.values)) if len(runs.values) == 1 else None
        whole = run is not None and run == math.floor(run) and abs(run) < _LARGEST_WHOLE
        return Metadata(
            run=int(run) if run is not None and whole else None, telescope=1, events=events, attributes=attributes
        )


class _Values:
    """What can be read of a column: how many rows, and of the finite ones the smallest, largest and different ones."""

    def __init__(self, hdf5: Hdf5, columns: dict[str, Any], name: str) -> None:
        self.low, self.high, self.rows = math.inf, -math.inf, 0
        self.values: set[float] = set()
        if name not in columns:
            return
        for block in blocks(hdf5, f"events/{name}", columns[name], np.float64):
            self.rows += len(block)
            finite = block[np.isfinite(block)]
            if len(finite):
                self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
                if len(self.values) < _MOST_VALUES:
                    self.values.update(np.unique(finite).tolist()[:_MOST_VALUES])


class HisparcReader(_Hdf5Reader):
    """Events of HiSPARC stations in HDF5 (PyTables).

    ``ext_timestamp`` is in nanoseconds since 1970 by the clock of GPS, which is ahead of UTC by the leap seconds.
    """

    name: ClassVar[str] = "hisparc"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        Attribute("stations", "string", "Numbers of the stations, separated by commas."),
    )
    _NAME: ClassVar[str] = "hisparc"
    _TIME = "ext_timestamp"
    _COLUMNS = ("event_id", _TIME, "pulseheights")

    def _fits(self, file: Any) -> bool:
        return bool(tables_with(file, self._COLUMNS))

    def _described(self, hdf5: Hdf5) -> Metadata:
        events, times, stations = 0, [1 << 63, -1], set()
        for path, table in tables_with(hdf5.file, self._COLUMNS):
            rows = read = 0
            for block in blocks(hdf5, path, table, [(self._TIME, "u8")]):
                read += len(block)
                gps = block[self._TIME].astype(np.float64) / 1e9
                fine = (gps >= _GPS_FROM_S) & (gps < _GPS_TO_S)
                if not fine.all():
                    hdf5.problems.add(0, f"{int((~fine).sum())} rows of {path} have no time since 1980")
                rows += int(fine.sum())
                nanoseconds = block[self._TIME][fine].astype(np.int64)
                utc = utc_from_gps(nanoseconds // _NS) * _NS + nanoseconds % _NS
                if len(utc):
                    times = [min(times[0], int(utc.min())), max(times[1], int(utc.max()))]
            # A table that is compressed by a filter that is not there counts, though nobody can look into it.
            events += rows if read else stored_rows(hdf5, path, table)
            if match := re.search(r"(?:^|/)s(?:tation_)?(\d{1,9})(?:/|$)", path):
                stations.add(int(match[1]))
        timed = times[1] >= 0
        return Metadata(
            experiment="HiSPARC",
            time_start=time_of(times[0]) if timed else None,
            time_end=time_of(times[1]) if timed else None,
            telescope=next(iter(stations)) if len(stations) == 1 else None,
            events=events,
            attributes={"stations": ",".join(map(str, sorted(stations)))} if stations else {},
        )


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

    def isolated(self, head: bytes) -> bool:
        """Return False: no library in C parses it."""
        return False

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
