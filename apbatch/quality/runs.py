"""What the files of a run say together: tables of pixels and rates, and a summary."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.quality.file_quality import NO_TIME, FileQuality, RunKey
from apbatch.quality.monitor import ChannelMonitor, Channels, Status, in_pixel_order, status_of

PIXELS = pa.schema(
    [
        pa.field("experiment", pa.string()),
        pa.field("run", pa.int64()),
        pa.field("telescope", pa.int32()),
        pa.field("gain", pa.string()),  # high or low in raw data, whole for calibrated images
        pa.field("pixel", pa.int32()),
        pa.field("cluster", pa.int32()),
        pa.field("number", pa.int32()),  # of the pixel in its cluster
        pa.field("records", pa.int64()),
        pa.field("pedestal", pa.float64()),
        pa.field("rms", pa.float64()),  # unit: in the summary
        pa.field("drift", pa.float64()),
        pa.field("unrest", pa.float64()),
        pa.field("hits", pa.float64()),
        pa.field("status", pa.string()),
    ]
)
RATES = pa.schema(
    [
        pa.field("experiment", pa.string()),
        pa.field("run", pa.int64()),
        pa.field("telescope", pa.int32()),
        pa.field("cluster", pa.int32()),  # 0: events of the whole camera
        pa.field("start", pa.timestamp("ns", tz="UTC")),
        pa.field("seconds", pa.float64()),
        pa.field("count", pa.int64()),
        pa.field("rate", pa.float64()),  # 1/s
    ]
)


#: Bins of time that are listed one by one: of a span of more, bins without a record are left out.
_MOST_BINS = 100_000


@dataclass(frozen=True, eq=False)
class Rate:
    """Counts in bins of time; `seconds` is shorter in the first and last bin, which data do not fill."""

    start: Ints
    seconds: Floats
    count: Ints

    @property
    def rate(self) -> Floats:
        """Counts a second."""
        return np.divide(self.count, self.seconds, out=np.zeros(len(self.count)), where=self.seconds > 0)


@dataclass(frozen=True, eq=False)
class RunQuality:
    """The quality of one run of one telescope.

    Attributes
    ----------
    run : RunKey
    camera : CameraGeometry
    unit : str
        Of pedestals and spreads: ``ADC codes`` or ``p.e.``.
    gains : dict
        Channels in the order of the camera's pixels, by gain.
    status : dict
        Of each pixel, by gain.
    rates : dict
        By cluster; 0 is the rate of events.
    summary : dict
        JSON-like, for people and programs.
    """

    run: RunKey
    camera: CameraGeometry
    unit: str
    gains: dict[str, Channels]
    status: dict[str, npt.NDArray[np.str_]]
    rates: dict[int, Rate]
    summary: dict[str, Any] = field(default_factory=dict)


def quality_of_runs(files: Sequence[FileQuality], bin_s: float) -> list[RunQuality]:
    """Put together what was seen in files, run by run."""
    runs: defaultdict[RunKey, list[FileQuality]] = defaultdict(list)
    for file in files:
        runs[file.run].append(file)
    return [_of_run(run, runs[run], bin_s) for run in sorted(runs)]


def _of_run(run: RunKey, files: list[FileQuality], bin_s: float) -> RunQuality:
    camera = files[0].camera
    raw = any(file.cluster for file in files)
    gains = _raw_gains(files, camera) if raw else {"whole": _merged(files).result()}
    status = {gain: status_of(channels, camera.cluster) for gain, channels in gains.items()}
    event, first = _events(files)
    width = int(bin_s * 1e9)
    times = np.concatenate([file.time for file in files])
    span, bins = _span(times), _bins(times, width)
    rates = {0: _rate(first, span, bins, width)}
    for file in sorted(files, key=lambda file: file.cluster) if raw else ():
        more = _rate(file.time, span, bins, width)
        old = rates.get(file.cluster)
        rates[file.cluster] = more if old is None else Rate(more.start, more.seconds, more.count + old.count)
    quality = RunQuality(run, camera, "ADC codes" if raw else "p.e.", gains, status, rates)
    quality.summary.update(_summary(quality, files, event, span, raw))
    if span is not None and len(bins) <= span[1] // width - span[0] // width:
        days = (span[1] - span[0]) / 86_400e9
        note = f"times are up to {days:.0f} days apart: rates leave out bins of time without a record"
        quality.summary["problems"].insert(0, note)
    return quality


def _merged(files: Sequence[FileQuality]) -> ChannelMonitor:
    whole = ChannelMonitor(files[0].channels.n_channels)
    for file in files:
        whole.merge(file.channels)
    return whole


def _raw_gains(files: list[FileQuality], camera: CameraGeometry) -> dict[str, Channels]:
    """Return high and low gain in the order of the camera's pixels."""
    by_cluster: defaultdict[int, list[FileQuality]] = defaultdict(list)
    for file in files:
        by_cluster[file.cluster].append(file)
    results = {cluster: _merged(of).result() for cluster, of in by_cluster.items()}
    return in_pixel_order(results, camera)


def _events(files: Sequence[FileQuality]) -> tuple[Ints, Ints]:
    """Return the event numbers, and the time of each: of the smallest cluster that knows one."""
    order = sorted(files, key=lambda file: file.cluster)
    event, time = np.concatenate([f.event for f in order]), np.concatenate([f.time for f in order])
    has_time = time != NO_TIME
    numbers = np.unique(event)
    times = np.full(len(numbers), NO_TIME)
    timed, at = np.unique(event[has_time], return_index=True)
    times[np.searchsorted(numbers, timed)] = time[has_time][at]
    return numbers, times


def _span(time: Ints) -> tuple[int, int] | None:
    times = time[time != NO_TIME]
    return (int(times.min()), int(times.max())) if len(times) else None


def _bins(time: Ints, width: int) -> Ints:
    """Return the numbers of all bins of time from the first record to the last, or, of very many, of those with one."""
    filled = np.unique(time[time != NO_TIME] // width)
    every = int(filled[-1] - filled[0]) + 1 if len(filled) else 0
    return np.arange(filled[0], filled[-1] + 1) if 0 < every <= _MOST_BINS else filled


def _rate(time: Ints, span: tuple[int, int] | None, bins: Ints, width: int) -> Rate:
    if span is None:
        none = np.empty(0, np.int64)
        return Rate(none, np.empty(0), none)
    count = np.bincount(np.searchsorted(bins, time[time != NO_TIME] // width), minlength=len(bins))
    start, stop = np.maximum(bins * width, span[0]), np.minimum((bins + 1) * width, span[1])
    return Rate(start, (stop - start) / 1e9, count)


def _summary(
    quality: RunQuality, files: Sequence[FileQuality], event: Ints, span: tuple[int, int] | None, raw: bool
) -> dict[str, Any]:
    camera = quality.camera
    numbers = np.unique(camera.cluster)
    losses: Counter[str] = Counter()
    for file in files:
        losses.update({reason: count for reason, count in file.losses.items() if count})
    if raw:
        clusters = {number: sum(len(f.event) for f in files if f.cluster == number) for number in numbers.tolist()}
        whole: Ints = np.concatenate(
            [
                np.unique(np.concatenate([f.event for f in files if f.cluster == number]))
                for number in sorted({f.cluster for f in files})
            ]
        )
        multiplicity = Counter(np.unique(whole, return_counts=True)[1].tolist())
        repeated = sum(len(f.event) for f in files) - len(whole)
        other = sum(len(f.event) for f in files if f.cluster not in set(numbers.tolist()))
        losses.update({"records of another cluster than the camera has": other} if other else {})
    else:
        clusters = dict.fromkeys(numbers.tolist(), 0)
        for file in files:
            for number, count in file.by_cluster.items():
                clusters[number] += count
        multiplicity = Counter(np.concatenate([f.clusters for f in files]).tolist())
        repeated = sum(len(f.event) for f in files) - len(event)
    losses.update({"records repeated within an event": repeated} if repeated > 0 else {})
    triggers = int(event.max() - event.min()) + 1 if len(event) else 0
    rate = quality.rates[0]
    experiment, run, telescope = quality.run
    return {
        "experiment": experiment,
        "run": run,
        "telescope": telescope,
        "camera": camera.name,
        "unit": quality.unit,
        "files": len(files),
        "records": sum(len(file.event) for file in files),
        "events": len(event),
        "event_numbers": triggers,
        "events_without_a_record": triggers - len(event),
        "seconds": round((span[1] - span[0]) / 1e9, 3) if span else None,
        "start_ns": span[0] if span else None,
        "event_rate": _spread_of(rate.rate[rate.seconds > 0]),
        "multiplicity": {str(number): multiplicity[number] for number in sorted(multiplicity)},
        "clusters": {str(number): _cluster(quality, number, clusters[number], len(event)) for number in clusters},
        "absent_clusters": [number for number in numbers.tolist() if not clusters[number]],
        "missing_clusters": round(1 - sum(clusters.values()) / max(1, len(numbers) * len(event)), 6),
        "pixels": {gain: _counted(status) for gain, status in quality.status.items()},
        "losses": dict(sorted(losses.items())),
        "problems": [problem for file in files for problem in file.problems][:20],
    }


def _cluster(quality: RunQuality, number: int, records: int, events: int) -> dict[str, Any]:
    here = quality.camera.cluster == number
    gain = next(iter(quality.gains))
    spread, rate = quality.gains[gain].spread[here], quality.rates.get(number)
    return {
        "records": records,
        "share_of_events": round(records / max(1, events), 6),
        "rate": _spread_of(rate.rate[rate.seconds > 0]) if rate is not None else None,
        "rms": _rounded(np.nanmedian(spread)) if np.isfinite(spread).any() else None,
        "pixels": _counted(quality.status[gain][here]),
    }


def _counted(status: npt.NDArray[np.str_]) -> dict[str, int]:
    counts = Counter(status.tolist())
    return {one.value: counts[one.value] for one in Status if counts[one.value]}


def _spread_of(values: Floats) -> dict[str, float | None]:
    """Return lowest, middle and highest value."""
    if not len(values):
        return dict.fromkeys(("lowest", "median", "highest"))
    return {
        name: _rounded(number)
        for name, number in zip(("lowest", "median", "highest"), np.percentile(values, (0, 50, 100)), strict=True)
    }


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def pixel_table(runs: Sequence[RunQuality]) -> pa.Table:
    """Return the schema `PIXELS`: a row for each run, gain and pixel."""
    tables = []
    for quality in runs:
        experiment, run, telescope = quality.run
        count = quality.camera.n_pixels
        for gain, channels in quality.gains.items():
            columns = {
                "experiment": [experiment] * count, "run": np.full(count, run), "telescope": np.full(count, telescope),
                "gain": [gain] * count, "pixel": np.arange(count), "cluster": quality.camera.cluster,
                "number": quality.camera.number, "records": channels.records, "status": quality.status[gain],
                **{name: pa.array(values, pa.float64(), from_pandas=True) for name, values in (
                    ("pedestal", channels.level), ("rms", channels.spread), ("drift", channels.drift),
                    ("unrest", channels.unrest), ("hits", channels.hits))},
            }  # fmt: skip
            tables.append(_table(columns, PIXELS))
    return pa.concat_tables(tables)


def rate_table(runs: Sequence[RunQuality]) -> pa.Table:
    """Return the schema `RATES`: a row for each run, cluster and bin of time."""
    tables = []
    for quality in runs:
        experiment, run, telescope = quality.run
        for cluster, rate in quality.rates.items():
            count = len(rate.count)
            columns = {
                "experiment": [experiment] * count, "run": np.full(count, run), "telescope": np.full(count, telescope),
                "cluster": np.full(count, cluster), "start": pa.array(rate.start, pa.timestamp("ns", tz="UTC")),
                "seconds": rate.seconds, "count": rate.count, "rate": rate.rate,
            }  # fmt: skip
            tables.append(_table(columns, RATES))
    return pa.concat_tables(tables)


def _table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        columns[one.name] if isinstance(columns[one.name], pa.Array) else pa.array(columns[one.name], one.type)
        for one in schema
    ]
    return pa.Table.from_arrays(
        [array.cast(one.type) for array, one in zip(arrays, schema, strict=True)], schema=schema
    )
