"""What is done with images before they are cleaned: bad pixels mended or marked, and each pixel's noise at hand.

Which pixels are bad, and how strong their noise is, a first pass finds out run by run (`apbatch.spark.pixel_watch`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.badpixels import repair
from apbatch.camera.geometry import CameraGeometry, Floats
from apbatch.datasets.commit import Loss
from apbatch.formats.images import from_binary, to_binary
from apbatch.quality.monitor import KEEP, MEND, BadPixels

#: Experiment, run, telescope.
RunKey = tuple[str, int, int]

#: Reasons of losses.
NO_TIMES = "images without times of pixels, which the cleaning needs"
NO_NOISE = "images of runs too short to know the noise of pixels, which the cleaning needs"
#: How changed pixels are counted.
MENDED, MISSING = "mended", "marked missing"


@dataclass(frozen=True, eq=False)
class PixelState:
    """What the noise of a run tells of the pixels of a telescope.

    Attributes
    ----------
    noise : ndarray of float64, shape (n_pixels,)
        Standard deviation by the median absolute deviation, p.e.; NaN where it is not known.
    status : ndarray of str, shape (n_pixels,)
        Values of `apbatch.quality.monitor.Status`.
    """

    noise: Floats
    status: npt.NDArray[np.str_]

    def bad(self, kinds: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        """Tell which pixels are of these kinds."""
        return np.asarray(np.isin(self.status, kinds))


@dataclass
class Tally:
    """What became of the images of a split before they were cleaned."""

    pixels: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def losses(self, where: str) -> list[Loss]:
        """Return the losses of a split."""
        return [Loss(where, reason, count, f"{where}: {count} {reason}") for reason, count in self.lost.items()]


@dataclass(frozen=True, eq=False)
class Preparation:
    """What is done with images before they are cleaned; sent to the workers.

    Attributes
    ----------
    bad_pixels : BadPixels
    states : mapping
        Of the runs whose pixels were looked at.
    with_times, with_noise : bool
        Whether images without times of their pixels, or of runs whose noise is not known, are left out.
    """

    bad_pixels: BadPixels = field(default_factory=BadPixels)
    states: Mapping[RunKey, PixelState] = field(default_factory=dict)
    with_times: bool = False
    with_noise: bool = False

    def __call__(self, batch: pa.RecordBatch, camera: CameraGeometry, tally: Tally) -> pa.RecordBatch:
        """Return the images that can be cleaned, with their bad pixels treated."""
        if self.with_times:
            batch = _only(batch, batch.column("peak_time").is_valid(), NO_TIMES, tally)
        if self.with_noise:
            has_state = [key in self.states for key in _runs_of(batch)]
            batch = _only(batch, pa.array(has_state, pa.bool_()), NO_NOISE, tally)
        if self.bad_pixels.treatment == KEEP or not batch.num_rows:
            return batch
        pixels = np.asarray(from_binary(batch.column("image")), np.float32)
        bad = np.zeros(pixels.shape, np.bool_)
        for run, rows in by_run(batch):
            if run in self.states:
                bad[rows] = self.states[run].bad(self.bad_pixels.kinds)
        bad &= in_clusters_there(np.where(bad, np.nan, pixels), camera)
        if self.bad_pixels.treatment == MEND:
            mended = repair(pixels, camera, bad)
            tally.pixels[MENDED] += int(mended.repaired.sum())
            tally.pixels[MISSING] += int(mended.lost.sum())
            images = mended.images
        else:
            images = np.where(bad, np.float32(np.nan), pixels)
            tally.pixels[MISSING] += int(bad.sum())
        place = batch.schema.get_field_index("image")
        return batch.set_column(place, batch.schema.field(place), to_binary(images))

    def noise(self, batch: pa.RecordBatch) -> Floats:
        """Return the noise of the pixels of each image, p.e.: shape (n_images, n_pixels), one row if all are equal."""
        runs = list(by_run(batch))
        if len(runs) == 1:
            return self.states[runs[0][0]].noise
        rows = np.empty((batch.num_rows, len(self.states[runs[0][0]].noise)))
        for run, places in runs:
            rows[places] = self.states[run].noise
        return rows

    def sidecar(self) -> dict[str, Any]:
        """Return what a sidecar says of it: the treatment, and by run the bad pixels and the median noise (p.e.)."""
        if not self.states:
            return {}
        runs: list[dict[str, Any]] = []
        for (experiment, run, telescope), state in sorted(self.states.items()):
            noise = state.noise[np.isfinite(state.noise)]
            one = {"experiment": experiment, "run": run, "telescope": telescope}
            middle = round(float(np.median(noise)), 4) if len(noise) else None
            kinds = {kind: np.flatnonzero(state.status == kind).tolist() for kind in self.bad_pixels.kinds}
            runs.append({**one, "noise": middle, **kinds})
        return {"bad_pixels": self.bad_pixels.treatment, "pixels_of_runs": runs}


def _only(batch: pa.RecordBatch, good: pa.Array, reason: str, tally: Tally) -> pa.RecordBatch:
    rows = batch.filter(good)
    if rows.num_rows < batch.num_rows:
        tally.lost[reason] += batch.num_rows - rows.num_rows
    return rows


def _runs_of(batch: pa.RecordBatch) -> list[RunKey]:
    columns = (batch.column(name).to_pylist() for name in ("experiment", "run", "telescope"))
    return list(zip(*columns, strict=True))


def by_run(batch: pa.RecordBatch) -> Iterator[tuple[RunKey, npt.NDArray[np.intp]]]:
    """Yield each run of a batch with its rows."""
    runs = _runs_of(batch)
    numbers = {run: number for number, run in enumerate(dict.fromkeys(runs))}
    which = np.array([numbers[run] for run in runs], np.intp)
    for run, number in numbers.items():
        yield run, np.flatnonzero(which == number)


def in_clusters_there(pixels: npt.NDArray[np.float32], camera: CameraGeometry) -> npt.NDArray[np.bool_]:
    """Tell which pixels are in a cluster that the image has: one with a measured pixel."""
    there = np.zeros(pixels.shape, np.bool_)
    measured = np.isfinite(pixels)
    for cluster in np.unique(camera.cluster):
        mine = np.flatnonzero(camera.cluster == cluster)
        there[:, mine] = measured[:, mine].any(axis=1)[:, None]
    return there
