"""Measured noise: what the channels of a real raw run hold when there is no shower, in photo-electrons.

A run that is mostly noise is kept as it is, record by record, so that spread, tails and correlations within a cluster
are those of the telescope. A record is there because two of its pixels fired the cluster's trigger; pixels over the
threshold are therefore replaced by quiet ones of the same channel.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from apbatch.camera.calibration import FEWEST_RECORDS, factors_of_cluster, pedestals, photo_electrons
from apbatch.camera.geometry import CameraGeometry
from apbatch.errors import FormatError, NotFoundError, UsageError
from apbatch.formats.taiga.calibration import read_factors
from apbatch.formats.taiga.raw import read_records

Floats32 = npt.NDArray[np.float32]

#: Begins what stands for files in published settings: the hash of what is in them.
CONTENT = "sha256:"
#: Records kept of a cluster: enough that repeats are rare, few enough for every process to hold them.
_MOST = 4000


@dataclass(frozen=True, eq=False)
class NoiseLibrary:
    """Noise records of the clusters of a camera.

    Attributes
    ----------
    clusters : list of (pixels, records)
        Indices of a cluster's pixels, shape (n,), and its records, shape (n_records, n), p.e. about a median of 0.
    """

    clusters: list[tuple[npt.NDArray[np.int64], Floats32]]
    n_pixels: int

    @classmethod
    def load(cls, run: Path, factors: Path | None, camera: CameraGeometry, threshold: float) -> NoiseLibrary:
        """Read the ``*.001`` and further parts below a folder, or one file.

        Parameters
        ----------
        run : Path
            Folder of a raw run of TAIGA-IACT01, or a file of it.
        factors : Path, optional
            Table of conversion factors; the default is ``FACTORS*.txt`` beside the run.
        camera : CameraGeometry
            With the numbers of channels. Clusters that the run lacks get the records of one that it has.
        threshold : float
            Of the trigger, p.e.

        Raises
        ------
        NotFoundError, FormatError, UsageError
        """
        files, factors = _files(run, factors)
        table = read_factors(factors)
        by_cluster: dict[int, list[npt.NDArray[np.uint16]]] = {}
        for file in files:
            with file.open("rb") as stream:
                for records in read_records(stream):
                    for cluster in np.unique(records["cluster"]):
                        mine = by_cluster.setdefault(int(cluster), [])
                        if sum(map(len, mine)) < _MOST:
                            mine.append(records["adc"][records["cluster"] == cluster])
        quiet: dict[int, Floats32] = {}
        for cluster, pieces in sorted(by_cluster.items()):
            adc = np.concatenate(pieces)[:_MOST]
            pixels = np.flatnonzero(camera.cluster == cluster)
            if len(adc) < FEWEST_RECORDS or not len(pixels):
                continue
            codes = factors_of_cluster(table["cluster"], table["channel"], table["codes_per_pe"], cluster)
            values = photo_electrons(adc, pedestals(adc), codes)[:, camera.number[pixels] // 2]
            quiet[cluster] = _without_light(values, threshold)
        if not quiet:
            raise FormatError("no cluster of this camera has enough records", where=str(run))
        return cls(list(_complete(quiet, camera)), camera.n_pixels)

    def draw(self, n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Return noise for `n` images, shape (n, n_pixels): whole records of each cluster, at random."""
        out = np.zeros((n, self.n_pixels))
        for pixels, records in self.clusters:
            out[:, pixels] = records[rng.integers(len(records), size=n)]
        return out


def content_of(run: Path, factors: Path | None) -> tuple[str, str]:
    """Return the SHA-256 of a run's raw files, in the order of their paths, and of its table of conversion factors.

    Parameters
    ----------
    run, factors : Path
        As of `NoiseLibrary.load`.

    Raises
    ------
    NotFoundError
    """
    files, table = _files(run, factors)
    whole = hashlib.sha256("".join(file_content(file) for file in files).encode())
    return f"{CONTENT}{whole.hexdigest()}", file_content(table)


def file_content(file: Path) -> str:
    """Return the SHA-256 of a file as published settings have it."""
    with file.open("rb") as stream:
        return f"{CONTENT}{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _files(run: Path, factors: Path | None) -> tuple[list[Path], Path]:
    """Find the raw files of a run and its table of factors."""
    files = [run] if run.is_file() else sorted(run.rglob("*.[0-9][0-9][0-9]"))
    if not files:
        raise NotFoundError("no raw file is there", where=str(run), remedy="name a folder with files such as *.001")
    factors = factors or next(iter(sorted((run if run.is_dir() else run.parent).glob("FACTORS*.txt"))), None)
    if factors is None:
        raise NotFoundError("no conversion factors beside the run", where=str(run), remedy="give noise_factors")
    if not factors.is_file():
        raise NotFoundError("there is no such table of conversion factors", where=str(factors))
    return files, factors


def _without_light(values: Floats32, threshold: float) -> Floats32:
    """Replace what is over the trigger's threshold, or no number, by a quiet value of the same channel."""
    out = values.copy()
    rng = np.random.default_rng(0)  # the library of a run is always the same
    for channel in range(out.shape[1]):
        column = out[:, channel]
        loud = ~(np.abs(column) < threshold)
        calm = column[~loud]
        if not len(calm):
            calm = np.zeros(1, np.float32)
        calm = calm - np.float32(np.median(calm))
        column[~loud] = calm
        column[loud] = calm[rng.integers(len(calm), size=int(loud.sum()))]
    return out


def _complete(quiet: dict[int, Floats32], camera: CameraGeometry) -> list[tuple[npt.NDArray[np.int64], Floats32]]:
    rows = []
    for cluster in np.unique(camera.cluster):
        pixels = np.flatnonzero(camera.cluster == cluster)
        records = quiet.get(int(cluster))
        if records is None:
            donor = next((one for one in quiet.values() if one.shape[1] >= len(pixels)), None)
            if donor is None:
                raise UsageError(f"the run has no records for the {len(pixels)} pixels of cluster {cluster}")
            records = donor[:, : len(pixels)]
        rows.append((pixels, records))
    return rows
