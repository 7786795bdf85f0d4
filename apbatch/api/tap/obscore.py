"""ObsCore 1.1 as a view of files: every column is an attribute of a file, something made of one, or nothing.

M. Louys et al., Observation Data Model Core Components and its Implementation in TAP, version 1.1, 2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc

from apbatch.api.tap.tables import Column, FileTable, Rows, Table
from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute, AttributeType
from apbatch.index import query as q
from apbatch.index.parser import CONE_PAIRS

#: What stands before the path of a file in its identifier. The authority is in no registry.
IDENTIFIER = "ivo://apbatch/files?"
#: Formats whose files hold calibrated images or image parameters; all others are raw.
_CALIBRATED = frozenset({"apbatch-images", "fact-hillas", "fact-photons", "taiga-mc-hillas", "uci-magic", "magic"})
_MJD = datetime(1858, 11, 17, tzinfo=UTC)
_MJD_OF_1970, _DAY_US = 40_587.0, 86_400e6
DATALINK = "application/x-votable+xml;content=datalink"


def identifier_of(place: str) -> str:
    """Return the identifier of a file by its path in the merged tree."""
    return IDENTIFIER + quote(place)


def place_of(identifier: str) -> str | None:
    """Return the path in the merged tree that an identifier names; None if it is none of ours."""
    return unquote(identifier[len(IDENTIFIER) :]) if identifier.startswith(IDENTIFIER) else None


class View:
    """What a column shows: by itself, the attribute `source` as it is.

    Parameters
    ----------
    source : str, optional
        Attribute of files; None for one value in all rows.
    constant : str or int, optional
        That value.
    """

    #: Whether the order of the column is that of the attribute.
    is_ordered = True
    #: Whether several values of the attribute are one of the column.
    is_coarse = False

    def __init__(self, source: str | None = None, constant: str | int | None = None) -> None:
        self.source, self.constant = source, constant

    def array(self, values: pa.Array) -> pa.Array:
        """Return the column of the attribute's values."""
        return values

    def value(self, value: Any) -> Any:
        """Return one value of the column."""
        return self.array(pa.array([value])).to_pylist()[0]

    def condition(self, query: q.Query) -> q.Query:
        """Return a normalised condition on the column as one on the attribute.

        Raises
        ------
        UsageError
            If it can't be one.
        """
        if self.source is None:
            (name,) = q.names(query)
            return q.Everything() if q.matches(query, {name: self.constant}) else q.NOTHING
        return self._on(query, self.source)

    def _on(self, query: q.Query, source: str) -> q.Query:
        match query:
            case q.Not(part):
                return q.Not(self._on(part, source))
            case q.Compare(_, operator, value):
                return q.Compare(source, operator, self.back(value))
            case q.Between(_, low, high):
                return q.Between(source, self.back(low), self.back(high))
            case q.In(_, values):
                return q.In(source, tuple(map(self.back, values)))
            case q.Like(_, pattern):
                return q.Like(source, pattern)
            case _:
                return q.IsNull(source)

    def back(self, value: Any) -> Any:
        """Return the attribute's value for one of the column."""
        return value


class _Days(View):
    """A time as Modified Julian Date, UTC."""

    def array(self, values: pa.Array) -> pa.Array:
        microseconds = values.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).cast(pa.float64(), safe=False)
        return pc.add(pc.divide(microseconds, _DAY_US), _MJD_OF_1970)

    def back(self, value: Any) -> datetime:
        try:
            return _MJD + timedelta(days=float(value))
        except OverflowError:
            return (datetime.max if value > 0 else datetime.min).replace(tzinfo=UTC)


class _Kilobytes(View):
    """A length in units of 1000 bytes, rounded up."""

    is_coarse = True

    def array(self, values: pa.Array) -> pa.Array:
        return pc.divide(pc.add(values, 999), 1000)

    def _on(self, query: q.Query, source: str) -> q.Query:
        match query:
            case q.Compare(_, "<=", value):
                return self._up_to(source, math.floor(value))  # type: ignore[arg-type]
            case q.Compare(_, "<", value):
                return self._up_to(source, math.ceil(value) - 1)  # type: ignore[arg-type]
            case q.Compare(_, ">", value):
                return q.normalise(self._up_to(source, math.floor(value)), True)  # type: ignore[arg-type]
            case q.Compare(_, ">=", value):
                return q.normalise(self._up_to(source, math.ceil(value) - 1), True)  # type: ignore[arg-type]
            case q.Compare(name, "=", value):
                return self._on(q.Between(name, value, value), source)
            case q.Compare(name, "!=", value):
                return q.normalise(self._on(q.Between(name, value, value), source), True)
            case q.Between(name, low, high):
                parts = (q.Compare(name, ">=", low), q.Compare(name, "<=", high))
                return q.And(tuple(self._on(part, source) for part in parts))
            case q.In(name, values):
                return q.Or(tuple(self._on(q.Compare(name, "=", value), source) for value in values))
            case q.Not(part):
                return q.normalise(self._on(part, source), True)
            case _:
                return q.IsNull(source)

    @staticmethod
    def _up_to(source: str, kilobytes: int) -> q.Query:
        return q.Compare(source, "<=", max(-1, min(kilobytes * 1000, 2**63 - 1)))


class _Level(View):
    """The level of calibration, which the format tells: 2 for what is calibrated, 0 for raw data."""

    is_ordered = False

    def array(self, values: pa.Array) -> pa.Array:
        calibrated = pc.is_in(values, pa.array(sorted(_CALIBRATED)))
        return pc.if_else(pc.fill_null(calibrated, False), pa.scalar(2, pa.int64()), pa.scalar(0, pa.int64()))

    def _on(self, query: q.Query, source: str) -> q.Query:
        (name,) = q.names(query)
        calibrated = q.In(source, tuple(sorted(_CALIBRATED)))
        parts: list[q.Query] = [calibrated] if q.matches(query, {name: 2}) else []
        if q.matches(query, {name: 0}):
            parts += [q.Not(calibrated), q.IsNull(source)]
        return q.Or(tuple(parts)) if parts else q.NOTHING


class _Address(View):
    """A path as an address that ends in it; its order is another one, and only whole addresses can be searched."""

    is_ordered = False

    def __init__(self, source: str, before: str, *, links: bool) -> None:
        super().__init__(source)
        self._before, self._links = before, links

    def array(self, values: pa.Array) -> pa.Array:
        texts = [None if value is None else self._written(value) for value in values.to_pylist()]
        return pa.array(texts, pa.string())

    def _written(self, place: str) -> str:
        identifier = identifier_of(place)
        return self._before + (quote(identifier, safe="") if self._links else identifier)

    def _on(self, query: q.Query, source: str) -> q.Query:
        match query:
            case q.IsNull():
                return q.IsNull(source)
            case q.Not(part):
                return q.normalise(self._on(part, source), True)
            case q.Compare(_, "=" | "!=" as operator, value):
                place = self._read(str(value))
                if place is not None:
                    return q.Compare(source, operator, place)
                return q.NOTHING if operator == "=" else q.Not(q.IsNull(source))
            case q.In(_, values):
                places = [place for value in values if (place := self._read(str(value))) is not None]
                return q.In(source, tuple(places)) if places else q.NOTHING
        raise UsageError(
            "an identifier or address is searched whole", where="QUERY", remedy="use = or IN, or ask obs_id"
        )

    def _read(self, text: str) -> str | None:
        if not text.startswith(self._before):
            return None
        rest = text[len(self._before) :]
        return place_of(unquote(rest) if self._links else rest)


_CHAR = "Char.SpatialAxis.Coverage"
_TIME = "Char.TimeAxis.Coverage.Bounds.Limits"
_WAVE = "Char.SpectralAxis.Coverage.Bounds.Limits"
#: Name, type, unit, UCD, utype, description of the columns, in the order of the standard.
_COLUMNS: tuple[tuple[str, AttributeType, str | None, str, str, str], ...] = (
    ("dataproduct_type", "string", None, "meta.code.class", "ObsDataset.dataProductType", "kind of data"),
    ("calib_level", "integer", None, "meta.code;obs.calib", "ObsDataset.calibLevel", "0 raw, 2 calibrated"),
    ("target_name", "string", None, "meta.id;src", "Target.name", "what was observed"),
    ("obs_id", "string", None, "meta.id", "DataID.observationID", "path of the file in the catalogue"),
    ("obs_collection", "string", None, "meta.id", "DataID.collection", "experiment"),
    ("obs_publisher_did", "string", None, "meta.ref.ivoid", "Curation.publisherDID", "identifier of the file"),
    ("access_url", "string", None, "meta.ref.url", "Access.reference", "links to the bytes"),
    ("access_format", "string", None, "meta.code.mime", "Access.format", "form of the links"),
    ("access_estsize", "integer", "kbyte", "phys.size;meta.file", "Access.size", "length of the file"),
    ("s_ra", "number", "deg", "pos.eq.ra", f"{_CHAR}.Location.Coord.Position2D.Value2.C1", "right ascension"),
    ("s_dec", "number", "deg", "pos.eq.dec", f"{_CHAR}.Location.Coord.Position2D.Value2.C2", "declination"),
    ("s_fov", "number", "deg", "phys.angSize;instr.fov", f"{_CHAR}.Bounds.Extent.diameter", "field of view"),
    ("s_region", "string", None, "pos.outline;obs.field", f"{_CHAR}.Support.Area", "region on the sky"),
    ("s_resolution", "number", "arcsec", "pos.angResolution", "Char.SpatialAxis.Resolution.Refval.value", "resolution"),
    ("s_xel1", "integer", None, "meta.number", "Char.SpatialAxis.numBins1", "pixels along the first axis"),
    ("s_xel2", "integer", None, "meta.number", "Char.SpatialAxis.numBins2", "pixels along the second axis"),
    ("t_min", "number", "d", "time.start;obs.exposure", f"{_TIME}.StartTime", "first event, MJD (UTC)"),
    ("t_max", "number", "d", "time.end;obs.exposure", f"{_TIME}.StopTime", "last event, MJD (UTC)"),
    ("t_exptime", "number", "s", "time.duration;obs.exposure", "Char.TimeAxis.Coverage.Support.Extent", "exposure"),
    ("t_resolution", "number", "s", "time.resolution", "Char.TimeAxis.Resolution.Refval.value", "resolution in time"),
    ("t_xel", "integer", None, "meta.number", "Char.TimeAxis.numBins", "samples in time"),
    ("em_min", "number", "m", "em.wl;stat.min", f"{_WAVE}.LoLimit", "shortest wavelength"),
    ("em_max", "number", "m", "em.wl;stat.max", f"{_WAVE}.HiLimit", "longest wavelength"),
    (
        "em_res_power",
        "number",
        None,
        "spect.resolution",
        "Char.SpectralAxis.Resolution.ResolPower.refVal",
        "resolution",
    ),
    ("em_xel", "integer", None, "meta.number", "Char.SpectralAxis.numBins", "samples in wavelength"),
    ("o_ucd", "string", None, "meta.ucd", "Char.ObservableAxis.ucd", "what is measured"),
    ("pol_states", "string", None, "meta.code;phys.polarization", "Char.PolarizationAxis.stateList", "polarisation"),
    ("pol_xel", "integer", None, "meta.number", "Char.PolarizationAxis.numBins", "samples in polarisation"),
    ("facility_name", "string", None, "meta.id;instr.tel", "Provenance.ObsConfig.Facility.name", "experiment"),
    ("instrument_name", "string", None, "meta.id;instr", "Provenance.ObsConfig.Instrument.name", "format of the data"),
)
#: Columns whose values may hold any letters.
_ANY_LETTERS = frozenset({"obs_id", "target_name", "obs_collection", "facility_name", "instrument_name"})


class ObsCoreTable(Table):
    """Files of all experiments as observations.

    Parameters
    ----------
    files : FileTable
    base : str
        Address of TAP itself, for links.
    """

    name = "ivoa.obscore"
    description = "Files as ObsCore 1.1; simulated ones as well."
    utype = "ivo://ivoa.net/std/ObsCore#table-1.1"

    def __init__(self, files: FileTable, base: str) -> None:
        self._files = files
        self._views = _views(files.attributes, base)
        self.columns = {
            name: Column(Attribute(name, kind, text, unit), ucd, f"obscore:{utype}", True, name not in _ANY_LETTERS)
            for name, kind, unit, ucd, utype, text in _COLUMNS
        }

    def rows(self, columns: Sequence[str], where: q.Query, order: Sequence[q.Order], limit: int | None) -> Rows:
        """Return the files that match, as observations."""
        for one in order:
            if not self._view(one.name).is_ordered:
                raise UsageError(f"'{one.name}' can't be ordered by", where="QUERY", remedy="order by obs_id")
        keys = [q.Order(source, one.descending) for one in order if (source := self._view(one.name).source)]
        coarse = [one.name for one in order[:-1] if self._view(one.name).is_coarse]
        if coarse:  # the attribute tells apart what is equal in the column
            raise UsageError(f"'{coarse[0]}' is only ordered by as the last key", where="QUERY", remedy="name it last")
        views = [(name, self._view(name)) for name in columns]
        sources = list(dict.fromkeys(view.source for _, view in views if view.source)) or ["path"]
        _, batches = self._files.rows(sources, self._translated(where), keys, limit)
        schema = pa.schema([pa.field(name, self.columns[name].kind) for name in columns])

        def viewed(batch: pa.RecordBatch) -> pa.RecordBatch:
            arrays = [
                pa.repeat(pa.scalar(view.constant, field.type), batch.num_rows)
                if view.source is None
                else view.array(batch.column(view.source)).cast(field.type)
                for (_, view), field in zip(views, schema, strict=True)
            ]
            return pa.RecordBatch.from_arrays(arrays, schema=schema)

        return schema, map(viewed, batches)

    def count(self, where: q.Query, by: str | None) -> dict[Any, int]:
        """Count the files that match, by the values of a column."""
        where = self._translated(where)
        view = View() if by is None else self._view(by)
        counts: dict[Any, int] = {}
        for value, number in self._files.count(where, view.source).items():
            label = view.constant if view.source is None else None if value is None else view.value(value)
            counts[label] = counts.get(label, 0) + number
        return {value: number for value, number in counts.items() if number or by is None}

    def _view(self, name: str) -> View:
        return self._views.get(name) or View()

    def _translated(self, query: q.Query) -> q.Query:
        return self._on_files(q.normalise(query))

    def _on_files(self, query: q.Query) -> q.Query:
        match query:
            case q.And(parts):
                return q.And(tuple(map(self._on_files, parts)))
            case q.Or(parts):
                return q.Or(tuple(map(self._on_files, parts)))
            case q.Cone(names, at, radius) | q.Not(q.Cone(names, at, radius)):
                pair = tuple(self._view(name).source for name in names)
                if pair[0] is None or pair[1] is None:
                    return q.NOTHING
                cone = q.Cone((pair[0], pair[1]), at, radius)
                return q.Not(cone) if isinstance(query, q.Not) else cone
            case q.Everything() | q.Not(q.Everything()):
                return query
            case _:
                (name,) = q.names(query)
                return self._view(name).condition(query)


def _views(attributes: Mapping[str, Attribute], base: str) -> dict[str, View]:
    """Return what the columns show; those that are not named are empty."""
    equatorial = next((pair for pair in CONE_PAIRS[:2] if all(name in attributes for name in pair)), (None, None))
    target = "target" if "target" in attributes and attributes["target"].type == "string" else None
    return {
        "dataproduct_type": View(constant="event"),
        "calib_level": _Level("format"),
        "target_name": View(target),
        "obs_id": View("path"),
        "obs_collection": View("experiment"),
        "obs_publisher_did": _Address("place", "", links=False),
        "access_url": _Address("place", f"{base}/links?ID=", links=True),
        "access_format": View(constant=DATALINK),
        "access_estsize": _Kilobytes("size"),
        "s_ra": View(equatorial[0]),
        "s_dec": View(equatorial[1]),
        "t_min": _Days("time_start"),
        "t_max": _Days("time_end"),
        "o_ucd": View(constant="phot.count"),
        "facility_name": View("experiment"),
        "instrument_name": View("format"),
    }
