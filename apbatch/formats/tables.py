"""Tables of image parameters and of array events, for the catalogue: FACT, MAGIC (UCI), HiSPARC. None has images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.errors import FormatError, MissingSoftwareError
from apbatch.formats.attributes import ENERGY_MAX, ENERGY_MIN, PRIMARY
from apbatch.formats.clocks import time_of, utc_from_gps
from apbatch.formats.compressed import content_fits, may_fit, plain_lines
from apbatch.formats.corsika import PARTICLES
from apbatch.formats.event_columns import (
    AZIMUTH,
    BATCH,
    CORE_X,
    CORE_Y,
    ENERGY,
    ZENITH,
    event_batch,
    run_of_name,
    station_of,
)
from apbatch.formats.fact import image_parameters as fact
from apbatch.formats.fact.nights import night_of
from apbatch.formats.hdf5 import MAGIC, Hdf5, blocks, columns_of, opened, stored_rows, tables_with, with_file
from apbatch.formats.reader import Attribute, Metadata, Reader, Scalar
from apbatch.formats.signatures import names_word
from apbatch.formats.text.lines import Problems, head_lines, numbers

_NS = 1_000_000_000
#: Seconds since 1970 in which a clock of GPS can have been read: 1980 to 2100.
_GPS_FROM_S, _GPS_TO_S = 315_964_800, 4_102_444_800
#: Different values of a column that are kept: runs and particles.
_MOST_VALUES = 100_000
#: MAGIC's focal length, m (`apbatch.camera.instruments.magic`).
_MAGIC_FOCUS_M = 16.97


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
        return names_word(name, self._NAME)

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
    event_columns: ClassVar[tuple[Attribute, ...]] = (
        ENERGY,
        ZENITH,
        AZIMUTH,
        CORE_X,
        CORE_Y,
        PRIMARY,
        Attribute("pointing_altitude", "number", "Altitude to which the telescope points.", "deg"),
        Attribute("pointing_azimuth", "number", "Azimuth to which the telescope points.", "deg"),
    )
    _NAME: ClassVar[str] = "fact"

    def _fits(self, file: Any) -> bool:
        return fact.is_table(file)

    def _described(self, hdf5: Hdf5) -> Metadata:
        events, energy, times = 0, [math.inf, -math.inf], [1 << 62, -1]
        runs, nights, particles = set[int](), set[int](), set[int]()
        for rows in fact.rows_of(hdf5):
            events += len(rows[fact.RUN])
            for different, column in ((runs, fact.RUN), (nights, fact.NIGHT), (particles, fact.PARTICLE)):
                values = np.unique(rows.get(column, np.empty(0)))
                different.update(values[np.isfinite(values)].astype(np.int64).tolist()[: _MOST_VALUES - len(different)])
            energies = rows.get(fact.ENERGY, np.empty(0))
            energies = energies[np.isfinite(energies)]
            if len(energies):
                energy = [min(energy[0], float(energies.min())), max(energy[1], float(energies.max()))]
            moments = rows.get(fact.TIME, np.empty(0, np.int64))
            moments = moments[moments >= 0]
            if len(moments):
                times = [min(times[0], int(moments.min())), max(times[1], int(moments.max()))]
        columns = sum(len(columns_of(hdf5.file[fact.GROUP], rank)) for rank in (1, 2))
        attributes: dict[str, Scalar] = {"runs": len(runs), "columns": columns}
        if energy[0] <= energy[1]:
            attributes |= {"energy_min": energy[0] / fact.GEV_PER_TEV, "energy_max": energy[1] / fact.GEV_PER_TEV}
        if particles:
            attributes["primary"] = ",".join(sorted(map(_particle, particles)))
        run = next(iter(runs)) if len(runs) == 1 else None
        timed = times[1] >= 0
        return Metadata(
            run=run,
            night=night_of(next(iter(nights))) if len(nights) == 1 else None,
            time_start=time_of(times[0]) if timed else None,
            time_end=time_of(times[1]) if timed else None,
            telescope=1,
            events=events,
            attributes=attributes,
        )

    def events(self, stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[pa.RecordBatch]:
        """Yield image parameters, millimetres turned into degrees in the sky, and of simulations the truth."""
        with opened(stream, name, problems) as hdf5:
            if not self._fits(hdf5.file):
                raise FormatError("no table with the columns of this format", where=name)
            for rows in fact.rows_of(hdf5):
                columns: dict[str, Any] = {
                    ours: change(rows[theirs]) for theirs, (ours, change, _) in fact.COLUMNS.items() if theirs in rows
                }
                if "primary" in columns:
                    columns["primary"] = [
                        _particle(int(one)) if math.isfinite(one) else None for one in columns["primary"].tolist()
                    ]
                keys = rows[fact.RUN], rows[fact.EVENT]
                yield event_batch(*keys, columns, telescope=1, cleaning="fact-tools", time_ns=rows.get(fact.TIME))


def _particle(number: int) -> str:
    return PARTICLES.get(number, f"particle {number}")


_HALF_DAY_NS = 12 * 3600 * _NS


class HisparcReader(_Hdf5Reader):
    """Events of HiSPARC stations in HDF5 (PyTables).

    ``ext_timestamp`` is in nanoseconds since 1970 by the clock of GPS, which is ahead of UTC by the leap seconds.
    """

    name: ClassVar[str] = "hisparc"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        Attribute("stations", "string", "Numbers of the stations, separated by commas."),
    )
    event_columns: ClassVar[tuple[Attribute, ...]] = tuple(
        Attribute(f"pulseheight_{n}", "number", f"Height of the pulse of detector {n}, in ADC counts.")
        for n in (1, 2, 3, 4)
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
            for _, block in blocks(hdf5, path, table, [(self._TIME, "u8")]):
                read += len(block)
                fine, utc = self._times(hdf5, path, block[self._TIME])
                rows += int(fine.sum())
                if len(utc):
                    times = [min(times[0], int(utc.min())), max(times[1], int(utc.max()))]
            # A table that is compressed by a filter that is not there counts, though nobody can look into it.
            events += rows if read else stored_rows(hdf5, path, table)
            if station := station_of(path):
                stations.add(station)
        timed = times[1] >= 0
        return Metadata(
            experiment="HiSPARC",
            time_start=time_of(times[0]) if timed else None,
            time_end=time_of(times[1]) if timed else None,
            telescope=next(iter(stations)) if len(stations) == 1 else None,
            events=events,
            attributes={"stations": ",".join(map(str, sorted(stations)))} if stations else {},
        )

    def _times(
        self, hdf5: Hdf5, path: str, stamps: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Return which rows have a time, and these times: nanoseconds since 1970, UTC."""
        gps = stamps.astype(np.float64) / 1e9
        fine = (gps >= _GPS_FROM_S) & (gps < _GPS_TO_S)
        if not fine.all():
            hdf5.problems.add(0, f"{int((~fine).sum())} rows of {path} have no time since 1980")
        nanoseconds = stamps[fine].astype(np.int64)
        return fine, utc_from_gps(nanoseconds // _NS) * _NS + nanoseconds % _NS

    def events(self, stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the events of each station; its number is `telescope`, the run is the night as YYYYMMDD."""
        with opened(stream, name, problems) as hdf5:
            for path, table in tables_with(hdf5.file, self._COLUMNS):
                detectors = _width(table, "pulseheights")
                kinds: list[Any] = [("event_id", "i8"), (self._TIME, "u8"), ("pulseheights", "f8", (detectors,))]
                for _, block in blocks(hdf5, path, table, kinds):
                    fine, utc = self._times(hdf5, path, block[self._TIME])
                    rows = block[fine]
                    if not len(rows):
                        continue
                    days = (utc - _HALF_DAY_NS).astype("datetime64[ns]").astype("datetime64[D]")
                    year, month = days.astype("datetime64[Y]"), days.astype("datetime64[M]")
                    run = (
                        (year.astype(np.int64) + 1970) * 10_000
                        + (month - year.astype("datetime64[M]")).astype(np.int64) * 100
                        + 100
                        + (days - month.astype("datetime64[D]")).astype(np.int64)
                        + 1
                    )
                    heights = np.where(rows["pulseheights"] < 0, np.nan, rows["pulseheights"])
                    columns = {f"pulseheight_{n + 1}": heights[:, n].copy() for n in range(min(detectors, 4))}
                    yield event_batch(run, rows["event_id"], columns, telescope=station_of(path), time_ns=utc)


def _width(table: Any, name: str) -> int:
    """Return how many numbers a column of a table holds in each row."""
    kind = table.get_type()
    member = kind.get_member_type(kind.get_member_index(name.encode()))
    return int(np.prod(member.get_array_dims())) if hasattr(member, "get_array_dims") else 1


class UciMagicReader(Reader):
    """Image parameters of MAGIC's Monte Carlo in the UCI repository: ten numbers and ``g`` or ``h`` a line."""

    name: ClassVar[str] = "uci-magic"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        PRIMARY,
        Attribute("gammas", "integer", "Number of gammas."),
        Attribute("hadrons", "integer", "Number of hadrons."),
    )
    event_columns: ClassVar[tuple[Attribute, ...]] = (
        PRIMARY,
        Attribute("photons", "number", "Sum of the content of all pixels, in photons."),
        Attribute("asymmetry", "number", "Distance from the brightest pixel to the centre, along the axis.", "deg"),
    )
    _NUMBERS = 10

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise whole lines of ten numbers and a letter."""
        return may_fit(head, self._is_content)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look into a compressed file, of which the first bytes may tell nothing."""
        return content_fits(stream, self._is_content)

    def _is_content(self, head: bytes) -> bool:
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
        for line in plain_lines(stream, problems):
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

    def events(self, stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[pa.RecordBatch]:
        """Yield image parameters, millimetres turned into degrees; numbered by line, the run stands for the file."""
        problems = problems if problems is not None else Problems()
        lines = ((line, self._kind(line.text)) for line in plain_lines(stream, problems))
        while batch := list(islice(lines, BATCH)):
            for line in (line for line, kind in batch if kind is None):
                problems.at_line(line, "ten numbers and g or h are wanted")
            fine = [(line, kind) for line, kind in batch if kind is not None]
            if not fine:
                continue
            values = np.array([numbers(line.text.split(",")[:-1]) for line, _ in fine], np.float64)
            sky = np.degrees(values / 1000 / _MAGIC_FOCUS_M)
            columns: dict[str, Any] = {
                "length": sky[:, 0], "width": sky[:, 1], "photons": 10 ** np.minimum(values[:, 2], 300),
                "con2": values[:, 3], "con1": values[:, 4], "asymmetry": sky[:, 5], "alpha": values[:, 8],
                "distance": sky[:, 9], "primary": ["gamma" if kind == "g" else "hadron" for _, kind in fine],
            }  # fmt: skip
            event = np.array([line.number for line, _ in fine])
            yield event_batch(run_of_name(name), event, columns, telescope=1, cleaning="magic")

    def _kind(self, line: str) -> str | None:
        words = [word.strip() for word in line.split(",")]
        if len(words) != self._NUMBERS + 1 or words[-1] not in ("g", "h"):
            return None
        values = numbers(words[:-1])
        return words[-1] if values is not None and all(map(math.isfinite, values)) else None
