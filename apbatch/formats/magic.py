"""Calibrated events of the MAGIC telescopes (``*_Y_*.root``, written by MARS): photo-electrons and arrival times.

The tree ``Events`` has 1,183 numbers an event in ``MCerPhotEvt`` and ``MArrivalTime``; the camera has 1,039 pixels,
the rest is unused. Arrival times are in slices of the read-out. Pedestal triggers lie between the events; they carry
the number of the event before them and are no images. Simulated events have ``MMcEvt`` as well. A time is the day of
the sunrise that ends the night, ``MTime.fMjd``, and milliseconds from its beginning: negative before midnight.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.instruments.magic import NAME as CAMERA_NAME
from apbatch.errors import FormatError, MissingSoftwareError
from apbatch.formats.angles import clamped, turned
from apbatch.formats.attributes import (
    CALIBRATIONS,
    CAMERA,
    ENERGY_MAX,
    ENERGY_MIN,
    EVENT_FIRST,
    EVENT_LAST,
    PEDESTALS,
    POINTING_DEC,
    POINTING_RA,
    PRIMARY,
    ZENITH_MAX,
    ZENITH_MIN,
)
from apbatch.formats.compressed import MOST_EXPANSION
from apbatch.formats.corsika import PARTICLES
from apbatch.formats.images import TRUTH_SCHEMA, image_schema, to_binary
from apbatch.formats.reader import Attribute, ImageReader, Metadata, Scalar, Span
from apbatch.formats.root_columns import Column, open_trees
from apbatch.formats.signatures import is_of_another_kind
from apbatch.formats.sky import pointing_of
from apbatch.formats.text.lines import Problems

PIXELS = 1039
_ROOT = b"root"
_CHARGE, _ARRIVAL = "MCerPhotEvt.fPixels.fPhot", "MArrivalTime.fData"
_DAQ, _STEREO, _TELESCOPE = (
    f"MRawEvtHeader.{name}" for name in ("fDAQEvtNumber", "fStereoEvtNumber", "fTelescopeNumber")
)
_TIME = ("MTime.fMjd", "MTime.fTime.fMilliSec", "MTime.fNanoSec")
_POINTING = ("MPointingPos.fZd", "MPointingPos.fAz")
#: Hours and degrees (J2000), as the drive was told.
_SKY = ("MPointingPos.fRa", "MPointingPos.fDec")
_HOUR_DEG = 15.0
_TRIGGER = "MTriggerPattern.fPrescaled"
_TRUTH = ("MMcEvt.fPartId", "MMcEvt.fEnergy", "MMcEvt.fTheta", "MMcEvt.fZFirstInteraction")
#: Bits of the trigger pattern that tell pedestals and light pulses; what has neither is a shower's.
_PEDESTAL, _CALIBRATION = 8, 2 | 16
#: Entries that are read together: their pixels take 20 MB.
_ENTRIES = 2048
#: Bytes of the pixels of an event, before compression.
_LEAST_BYTES = 4 * PIXELS
#: GHz, where the file does not tell: both telescopes from 2012 to 2014 (doi:10.1016/j.astropartphys.2015.04.004).
SAMPLING_GHZ = 2.05
_MJD_1970 = 40587
_DAY_NS = 86_400_000_000_000
_HOUR_MS = 3_600_000
#: Hours from the beginning of the day of sunrise in which MARS counts a night.
_FIRST_HOUR, _LAST_HOUR = -11, 13
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Days since 1970 that can be a date of data taking.
_LAST_DAY = 40_000
#: Particles by the first letters of the name of a simulated file.
_PREFIXES = {"GA": "gamma", "PR": "proton", "EL": "electron", "HE": "helium"}

_DATA_NAME = re.compile(r"(?P<date>\d{8})_M(?P<telescope>[12])_(?P<run>\d{8})\.(?P<part>\d{3})_Y_(?P<target>.+)\.root$")
_MC_NAME = re.compile(r"(?P<primary>[A-Z]{2})_M(?P<telescope>[12])_za\w+?_(?P<run>\d{5,18})_Y_.*\.root$")


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file's name tells; None where it does not."""

    run: int | None = None
    part: int | None = None
    telescope: int | None = None
    target: str | None = None
    primary: str | None = None


def parse_name(name: str) -> FileName:
    """Read run, part, telescope and target from ``20131004_M1_05029747.003_Y_CrabNebula-W0.40+035.root``."""
    base = PurePosixPath(name).name
    if match := _DATA_NAME.search(base):
        return FileName(int(match["run"]), int(match["part"]), int(match["telescope"]), match["target"])
    if match := _MC_NAME.search(base):
        return FileName(int(match["run"]), None, int(match["telescope"]), None, _PREFIXES.get(match["primary"]))
    return FileName()


@dataclass(frozen=True, eq=False)
class _Events:
    """Entries of the tree that are images."""

    run: int
    event: npt.NDArray[np.int64]
    telescope: npt.NDArray[np.int32]
    time_ns: npt.NDArray[np.int64]  # -1 where there is none
    zenith: npt.NDArray[np.float64]  # deg, NaN where it is not known
    azimuth: npt.NDArray[np.float64]
    right_ascension: npt.NDArray[np.float64]
    declination: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.float32] | None
    arrival: npt.NDArray[np.float32] | None  # slices
    pedestals: int
    calibrations: int
    truth: dict[str, npt.NDArray[np.float64]]


class _Tree:
    """The tree of events with the columns that are read."""

    def __init__(self, stream: BinaryIO, name: str, problems: Problems) -> None:
        self.where = name
        size = stream.seek(0, 2)
        tree, header = open_trees(stream, name, "Events", "RunHeaders")
        if tree is None or _CHARGE not in tree:
            raise FormatError(
                "there is no tree Events with MCerPhotEvt", where=name, remedy="only calibrated files hold images"
            )
        self.named = parse_name(name)
        branches = [_DAQ, _STEREO, _TELESCOPE, *_TIME, *_POINTING, *_SKY, _TRIGGER, *_TRUTH]
        try:
            self._columns = {branch: Column(tree, branch) for branch in branches if branch in tree}
            self.charge = Column(tree, _CHARGE, PIXELS)
            self._arrival = Column(tree, _ARRIVAL, PIXELS, counted=True) if _ARRIVAL in tree else None
        except FormatError as error:
            raise FormatError(error.what, where=name) from error
        except Exception as error:  # uproot raises almost anything at a damaged file
            reason = str(error).strip().split("\n", 1)[0][:120] or type(error).__name__
            raise FormatError(f"a branch of Events can't be read: {reason}", where=name) from error
        # The number of entries in a header is a claim; the baskets hold what there is.
        self.entries, claimed = self.charge.entries, int(tree.num_entries)
        if self.entries > MOST_EXPANSION * size // _LEAST_BYTES:
            raise FormatError(f"{self.entries} events in a file of {size} bytes", where=name)
        if claimed != self.entries:
            problems.add(0, f"the tree claims {claimed} events, the baskets have {self.entries}")
        self.simulated = "MMcEvt.fEnergy" in self._columns
        self.run = int(_single(header, "MRawRunHeader.fRunNumber") or self.named.run or 0)
        megahertz = _single(header, "MRawRunHeader.fSamplingFrequency") or 0
        self.sampling_ghz = megahertz / 1000 if 100 <= megahertz <= 10_000 else SAMPLING_GHZ
        self.has_pointing = all(branch in self._columns for branch in _POINTING)
        self.has_arrival = self._arrival is not None

    def events(self, start: int, stop: int, problems: Problems) -> _Events:
        """Read entries; those that are damaged or no images are left out."""
        count = stop - start
        good = np.ones(count, bool)
        values: dict[str, npt.NDArray[Any]] = {}
        for branch, column in self._columns.items():
            rows, fine = column.rows(start, stop, problems)
            values[branch] = rows[:, 0]
            if branch not in _SKY:  # an event is whole without
                good &= fine
            elif not fine.all():
                values[branch] = np.where(fine, values[branch], np.nan)
        pixels, fine = self.charge.rows(start, stop, problems)
        good &= fine
        arrival = None
        if self._arrival is not None:
            arrival, fine = self._arrival.rows(start, stop, problems)
            good &= fine
        trigger = values.get(_TRIGGER, np.zeros(count, np.int64)).astype(np.int64)
        pedestal = good & ((trigger & _PEDESTAL) != 0)
        calibration = good & ~pedestal & ((trigger & _CALIBRATION) != 0)
        keep = np.flatnonzero(good & ~pedestal & ~calibration)
        nothing = np.zeros(count)
        stereo, daq = (values.get(name, nothing).astype(np.int64) for name in (_STEREO, _DAQ))
        event = np.where(stereo > 0, stereo, daq if _DAQ in values else np.arange(start, stop))
        infinite = keep[~np.isfinite(pixels[keep]).all(axis=1)]
        for entry in infinite.tolist():
            problems.add(start + entry, f"entry {start + entry}: amplitudes that are no numbers became NaN")
            pixels[entry][~np.isfinite(pixels[entry])] = np.nan
        unknown = np.full(count, np.nan)
        times, timed = self._times(values, count)
        if timeless := int((~timed[keep]).sum()):
            problems.add(start, f"entries {start} to {stop - 1}: {timeless} times are of no night")
        return _Events(
            run=self.run,
            event=event[keep],
            telescope=self._telescopes(values, count)[keep],
            time_ns=times[keep],
            zenith=clamped(values.get(_POINTING[0], unknown)[keep], 0, 180),
            azimuth=turned(values.get(_POINTING[1], unknown)[keep]),
            right_ascension=turned(_HOUR_DEG * values.get(_SKY[0], unknown)[keep]),
            declination=clamped(values.get(_SKY[1], unknown)[keep], -90, 90),
            pixels=np.asarray(pixels[keep], np.float32),
            arrival=None if arrival is None else np.asarray(arrival[keep], np.float32),
            pedestals=int(pedestal.sum()),
            calibrations=int(calibration.sum()),
            truth={name: values[name].astype(np.float64)[keep] for name in _TRUTH if name in values},
        )

    def _telescopes(self, values: dict[str, npt.NDArray[Any]], count: int) -> npt.NDArray[np.int32]:
        named = self.named.telescope or 1
        number = values.get(_TELESCOPE, np.zeros(count)).astype(np.int64)
        return np.where((number == 1) | (number == 2), number, named).astype(np.int32)

    def _times(
        self, values: dict[str, npt.NDArray[Any]], count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the times, -1 where there is none, and which entries lack none that they should have."""
        if self.simulated or not all(branch in values for branch in _TIME):
            return np.full(count, -1, np.int64), np.ones(count, bool)
        day, ms, ns = (values[branch].astype(np.int64) for branch in _TIME)
        day = day - _MJD_1970
        fits = (day > 0) & (day < _LAST_DAY) & (ns >= 0) & (ns < 1_000_000_000)
        fits &= (ms >= _FIRST_HOUR * _HOUR_MS) & (ms < _LAST_HOUR * _HOUR_MS)
        return np.where(fits, day * _DAY_NS + ms * 1_000_000 + ns, -1), fits


def _single(tree: Any, branch: str) -> float | None:
    """Return the first number of a branch; None without it."""
    if tree is None or branch not in tree:
        return None
    try:
        values, good = Column(tree, branch).rows(0, 1, Problems())
    except FormatError:
        return None
    return float(values[0, 0]) if good[0] else None


class MagicReader(ImageReader):
    """Calibrated events of MAGIC, of one telescope a file."""

    name: ClassVar[str] = "magic"
    seeks: ClassVar[bool] = True
    attributes: ClassVar[tuple[Attribute, ...]] = (
        CAMERA,
        EVENT_FIRST,
        EVENT_LAST,
        ENERGY_MIN,
        ENERGY_MAX,
        ZENITH_MIN,
        ZENITH_MAX,
        POINTING_RA,
        POINTING_DEC,
        PRIMARY,
        Attribute("part", "integer", "Number of the part, the extension of the file's name."),
        Attribute("target", "string", "What was observed, as the name of the file says."),
        PEDESTALS,
        CALIBRATIONS,
    )

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise a ROOT file; an empty or broken one that is named like one of MAGIC, too."""
        return head.startswith(_ROOT) or (self.claims(name) and not is_of_another_kind(head))

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look for the tree of calibrated events; without uproot the name decides.

        Raises
        ------
        FormatError
            If it is a damaged ROOT file.
        """
        if not stream.read(len(_ROOT)).startswith(_ROOT):
            return True
        try:
            (tree,) = open_trees(stream, name, "Events")
        except MissingSoftwareError:
            return parse_name(name) != FileName()
        return tree is not None and _CHARGE in tree

    def claims(self, name: str) -> bool:
        """Tell whether a file is named as MAGIC's are."""
        return parse_name(name) != FileName()

    def spans(self, stream: BinaryIO, name: str, target_bytes: int) -> list[Span]:
        """Return ranges of entries that begin with a basket of amplitudes.

        Raises
        ------
        FormatError
            If the file is damaged.
        """
        tree = _Tree(stream, name, Problems())
        entries = max(target_bytes // (2 * 4 * PIXELS), 1)
        bounds = [0]
        for start in tree.charge.starts.tolist():
            if start - bounds[-1] >= entries:
                bounds.append(start)
        bounds.append(tree.entries)
        return [Span(start, stop) for start, stop in pairwise(bounds) if start < stop]

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read all events, as far as they can be read: numbers, times, pointing and, of simulations, energies.

        Raises
        ------
        FormatError
            If the file is damaged, or there is no event.
        """
        problems = Problems()
        tree = _Tree(stream, name, problems)
        parts = [
            replace(tree.events(start, min(start + _ENTRIES, tree.entries), problems), pixels=None, arrival=None)
            for start in range(0, tree.entries, _ENTRIES)
        ]
        count = sum(len(part.event) for part in parts)
        pedestals, calibrations = (sum(getattr(part, kind) for part in parts) for kind in ("pedestals", "calibrations"))
        if not count and (problems.count or not pedestals + calibrations):
            reason = f": {problems.kept[0].reason}" if problems.kept else ""
            raise FormatError(f"no event{reason}", where=name, remedy="only calibrated files hold images")

        def whole(column: str) -> npt.NDArray[Any]:
            return np.concatenate([getattr(part, column) for part in parts])

        event, zenith, times = whole("event"), whole("zenith"), whole("time_ns")
        times = times[times >= 0]
        attributes: dict[str, Scalar] = {
            "camera": CAMERA_NAME,
            "pedestals": pedestals,
            "calibrations": calibrations,
        }
        if count:
            attributes |= {"event_first": int(event.min()), "event_last": int(event.max())}
        if np.isfinite(zenith).any():
            attributes |= {"zenith_min": float(np.nanmin(zenith)), "zenith_max": float(np.nanmax(zenith))}
        ra, dec = whole("right_ascension"), whole("declination")
        if not tree.simulated and (ra.any() or dec.any()):  # without a report of the drive both are zero
            attributes |= pointing_of(ra, dec)
        for key, value in (("part", tree.named.part), ("target", tree.named.target), ("primary", tree.named.primary)):
            if value is not None:
                attributes[key] = value
        if tree.simulated:
            energy = np.concatenate([part.truth["MMcEvt.fEnergy"] for part in parts]) / 1000
            energy = energy[np.isfinite(energy) & (energy > 0)]
            if len(energy):
                attributes |= {"energy_min": float(energy.min()), "energy_max": float(energy.max())}
        start, end = (
            (_EPOCH + timedelta(microseconds=int(time) // 1000) for time in (times.min(), times.max()))
            if len(times)
            else (None, None)
        )
        return Metadata(
            experiment="MAGIC-MC" if tree.simulated else "MAGIC",
            run=tree.run or None,
            night=(start - timedelta(hours=12)).date() if start is not None else None,
            time_start=start,
            time_end=end,
            telescope=int(parts[0].telescope[0]) if len(parts[0].telescope) else tree.named.telescope,
            events=count,
            attributes=attributes,
            problems=problems.result(),
        )

    def images(
        self,
        stream: BinaryIO,
        name: str,
        batch_size: int = 1024,
        span: Span | None = None,
        problems: Problems | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield amplitudes and arrival times; the span is of entries of the tree.

        Raises
        ------
        FormatError
            If the file is damaged, or the span is not of this file.
        """
        problems = problems if problems is not None else Problems()
        tree = _Tree(stream, name, problems)
        schema = image_schema(CAMERA_NAME, peak_time=tree.has_arrival, pointing=tree.has_pointing)
        for events in self._parts(tree, batch_size, span, problems):
            assert events.pixels is not None
            columns: dict[str, Any] = {
                **_keys(events, tree.simulated),
                "time": pa.array(events.time_ns, schema.field("time").type, mask=events.time_ns < 0),
                "image": to_binary(events.pixels),
            }
            if tree.has_pointing:
                unknown = ~np.isfinite(events.zenith) | ~np.isfinite(events.azimuth)
                columns["pointing_altitude"] = pa.array(90.0 - events.zenith, mask=unknown)
                columns["pointing_azimuth"] = pa.array(events.azimuth, mask=unknown)
            if events.arrival is not None:
                columns["peak_time"] = to_binary(events.arrival / np.float32(tree.sampling_ghz))
            yield pa.RecordBatch.from_pydict(columns, schema=schema)

    def truth(self, stream: BinaryIO, name: str, batch_size: int = 1024) -> Iterator[pa.RecordBatch]:
        """Yield primary, energy, zenith angle and first interaction of simulated events."""
        tree = _Tree(stream, name, Problems())
        if not tree.simulated:
            return
        for events in self._parts(tree, batch_size, None, Problems()):
            count = len(events.event)
            unknown = np.full(count, np.nan)
            part, energy, theta, first = (events.truth.get(branch, unknown) for branch in _TRUTH)
            zenith = clamped(np.degrees(theta), 0, 180)
            named = tree.named.primary or "unknown"
            columns: dict[str, Any] = {
                **_keys(events, True),
                "shower": events.event,
                "primary": [PARTICLES.get(int(one), named) if np.isfinite(one) else named for one in part],
                "true_energy": energy / 1000,
                "true_zenith": pa.array(zenith, mask=np.isnan(zenith)),
                "true_h_first": pa.array(first / 100, mask=~np.isfinite(first)),
            }
            for field in TRUTH_SCHEMA:
                columns.setdefault(field.name, pa.nulls(count, field.type))
            yield pa.RecordBatch.from_pydict(columns, schema=TRUTH_SCHEMA)

    def _parts(self, tree: _Tree, batch_size: int, span: Span | None, problems: Problems) -> Iterator[_Events]:
        start, stop = (0, tree.entries) if span is None else (span.start, span.stop)
        if not 0 <= start <= stop <= tree.entries:
            raise FormatError(
                f"entries {start} to {stop} of {tree.entries}",
                where=tree.where,
                remedy="the file is another one than the spans were made for",
            )
        batch_size = min(batch_size, _ENTRIES)
        for begin in range(start, stop, batch_size):
            events = tree.events(begin, min(begin + batch_size, stop), problems)
            if len(events.event):
                yield events


def _keys(events: _Events, simulated: bool) -> dict[str, Any]:
    count = len(events.event)
    return {
        "experiment": ["MAGIC-MC" if simulated else "MAGIC"] * count,
        "run": np.full(count, events.run, np.int64),
        "event": events.event,
        "telescope": events.telescope,
    }
