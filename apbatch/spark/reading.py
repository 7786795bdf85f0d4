"""Reading of input files in Spark's workers: a damaged file or record is counted as a loss, and the job goes on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.calibration import FEWEST_RECORDS, pedestals, photo_electrons
from apbatch.camera.geometry import CameraGeometry, Floats
from apbatch.errors import ApbatchError, ServerError
from apbatch.formats.images import camera_of, to_binary
from apbatch.formats.lines import Problems
from apbatch.formats.reader import ImageReader, readers
from apbatch.formats.taiga_raw import DAY_NS, parse_name, read_records, utc
from apbatch.spark.sources import Source
from apbatch.spark.steps import RECORDS, images_of
from apbatch.storage.store import RefusedError, open_url

#: Reasons of losses, as they are counted.
UNREADABLE_FILE = "unreadable files"
DAMAGED_RECORD = "damaged places in files"
REPEATED_RECORD = "records repeated within an event"
OTHER_CAMERA = "files of another camera"
OTHER_CLUSTER = "records of another cluster than the camera has"
NO_FACTORS = "records of clusters without conversion factors"
POOR_PEDESTAL = "records in files too short for a pedestal"
#: Records made into one Arrow batch.
_BATCH = 8192
_HOUR_NS = DAY_NS // 24


class Losses(Protocol):
    """Takes what is lost."""

    def lose(self, url: str, reason: str, count: int, text: str) -> None:
        """Count `count` losses in the file at `url`; `text` is for people."""
        ...


@dataclass(frozen=True)
class RawCalibration:
    """What all workers need for raw files.

    Attributes
    ----------
    camera : CameraGeometry
    factors : dict
        By the path of a table of factors and the number of a cluster: codes per p.e., shape (32, 2).
    """

    camera: CameraGeometry
    factors: dict[tuple[str, int], Floats]


def read_raw(source: Source, calibration: RawCalibration, losses: Losses) -> Iterator[pa.RecordBatch]:
    """Decode and calibrate the file of one cluster; yields batches of schema `RECORDS`."""
    url, problems = source.url, Problems()
    try:
        with open_url(url) as stream:
            blocks = list(read_records(stream, problems))
        pedestal = _pedestal_of_file(source)
    except ApbatchError as error:
        _lost_file(url, error, losses)
        return
    if problems.count:
        first = problems.kept[0]
        more = f" ({problems.count - 1} more places)" if problems.count > 1 else ""
        losses.lose(url, DAMAGED_RECORD, problems.count, f"{url} at byte {first.offset}: {first.reason}{more}")
    if not blocks:
        losses.lose(url, UNREADABLE_FILE, 1, f"{url}: no whole record")
        return
    records = np.concatenate(blocks)
    known = np.unique(calibration.camera.cluster)
    for cluster in np.unique(records["cluster"]).tolist():
        mine = records[records["cluster"] == cluster]
        if cluster not in known:
            losses.lose(url, OTHER_CLUSTER, len(mine), f"{url}: {len(mine)} records of cluster {cluster}")
            continue
        factors = calibration.factors.get((source.calibration.get("factors", ""), cluster))
        if factors is None:
            losses.lose(url, NO_FACTORS, len(mine), f"{url}: cluster {cluster} has no conversion factors")
            continue
        level = pedestal.get(cluster)
        if level is None:
            if len(mine) < FEWEST_RECORDS:
                losses.lose(url, POOR_PEDESTAL, len(mine), f"{url}: {len(mine)} records of cluster {cluster}")
                continue
            level = pedestals(mine["adc"])
        yield from _calibrated(source, mine, level, factors)


def _pedestal_of_file(source: Source) -> dict[int, Floats]:
    url = source.calibration.get("pedestal")
    if url is None:
        return {}
    with open_url(url) as stream:
        blocks = list(read_records(stream))
    records = np.concatenate(blocks) if blocks else None
    if records is None:
        return {}
    clusters = np.unique(records["cluster"]).tolist()
    return {cluster: pedestals(records["adc"][records["cluster"] == cluster]) for cluster in clusters}


def _calibrated(
    source: Source, records: npt.NDArray[np.void], pedestal: Floats, factors: Floats
) -> Iterator[pa.RecordBatch]:
    named = parse_name(source.url)
    run = source.run if source.run is not None else named.run or 0
    for start in range(0, len(records), _BATCH):
        part = records[start : start + _BATCH]
        count = len(part)
        columns: dict[str, Any] = {
            "experiment": [source.experiment] * count,
            "run": np.full(count, run, np.int64),
            "event": part["event"],
            "telescope": np.full(count, source.telescope, np.int32),
            "time_ns": _times(part["time"], named.night),
            "cluster": part["cluster"].astype(np.int32),
            "pe": to_binary(photo_electrons(part["adc"], pedestal, factors)),
        }
        yield pa.RecordBatch.from_pydict(columns, schema=RECORDS)


def _times(of_day: npt.NDArray[np.int64], night: date | None) -> pa.Array:
    """Return nanoseconds since 1970; null where the record or the file's name does not tell."""
    if night is None:
        return pa.nulls(len(of_day), pa.int64())
    day = (night - date(1970, 1, 1)).days * DAY_NS
    # The rule is `utc`'s, which keeps microseconds only: ask it once for each whole hour.
    next_day = np.array([utc(night, hour * _HOUR_NS).date() != night for hour in range(24)])
    times = day + of_day + np.where(next_day[np.maximum(of_day, 0) // _HOUR_NS], DAY_NS, 0)
    return pa.array(times, mask=of_day < 0)


def read_images(source: Source, camera: CameraGeometry, losses: Losses, batch_size: int) -> Iterator[pa.RecordBatch]:
    """Read a file of whole images; yields batches of schema `IMAGES`."""
    reader = readers()[source.format]
    assert isinstance(reader, ImageReader)
    try:
        with open_url(source.url) as stream:
            for batch in reader.images(_seekable(stream), source.url, batch_size):
                found = camera_of(batch.schema)
                if found and found != camera.name:
                    text = f"{source.url}: images of {found}, the others are of {camera.name}"
                    losses.lose(source.url, OTHER_CAMERA, 1, text)
                    return
                yield images_of(batch)
    except ApbatchError as error:
        _lost_file(source.url, error, losses)


def _seekable(stream: BinaryIO) -> BinaryIO:
    return stream if stream.seekable() else io.BytesIO(stream.read())


def _lost_file(url: str, error: ApbatchError, losses: Losses) -> None:
    """Count a file as lost; a server that is away is no fault of the file, so the task fails and is tried again."""
    if isinstance(error, ServerError) and not isinstance(error, RefusedError):
        raise error
    text = str(error)
    losses.lose(url, UNREADABLE_FILE, 1, text if url in text else f"{url}: {text}")
