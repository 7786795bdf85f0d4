"""Cameras from files: tables of pixels as the TAIGA collaboration writes them, and ctapipe's FITS tables."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apbatch.camera.geometry import CameraGeometry, Lattice, camera_from_positions
from apbatch.camera.instruments.taiga import DEG_PER_CM
from apbatch.errors import FormatError, NotFoundError, UsageError

#: Focal lengths (m) of telescopes whose camera files do not tell it.
FOCAL_LENGTHS = {"FACT": 4.889, "MAGICCam": 16.97, "MAGICCamMars": 16.97, "LSTCam": 28.0, "VERITAS": 12.0}

#: More than any camera has, and more than its table takes.
_MOST_PIXELS, _MOST_BYTES = 100_000, 64 << 20


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of table: whether a row fits, and where cluster, number, x and y are in it."""

    fits: Callable[[list[float]], bool]
    cluster: int
    number: int | None
    x: int


def _padded(row: list[float], count: float) -> bool:
    """Tell whether a row has `count` numbers from 0 on, and otherwise only -1."""
    real = [value for value in row if value >= 0]
    return len(real) == count and row == real + [-1.0] * (len(row) - len(real))


def _is_numbered(row: list[float], kind: _Kind) -> bool:
    """Tell whether cluster and number can be those of a camera."""
    return all(0 <= row[column] <= _MOST_PIXELS for column in (kind.cluster, kind.number) if column is not None)


# The order matters: the first kind that all rows fit is taken.
_KINDS = (
    # cluster pixel number x y high-channel low-channel current-channel
    _Kind(lambda row: len(row) == 8 and row[6] == row[5] + 1 and row[7] == row[5] // 2, 0, 5, 3),
    # cluster channel x y n_neighbours (cluster channel) ..., padded with -1
    _Kind(lambda row: len(row) > 5 and row[0] >= 1 and _padded(row[5:], 2 * row[4]), 0, 1, 2),
    # index cluster pixel x y edge n_neighbours index ..., padded with -1
    _Kind(lambda row: len(row) > 7 and row[1] >= 1 and _padded(row[7:], row[6]), 1, 2, 3),
    # row column cluster x y
    _Kind(lambda row: len(row) == 5 and row[2] >= 1, 2, None, 3),
)


def camera_from_table(path: Path, name: str | None = None, *, deg_per_cm: float = DEG_PER_CM) -> CameraGeometry:
    """Read a camera from a text table of pixels in cm.

    Four kinds are told apart: coordinates (``xy_turn_*.txt``, ``PMT_coordinates.txt``), neighbours by channel
    (``neighbour_clean_experiment_*``) and by index (``neighbour_clean_corsica_*``), rows and columns (``RowColClust*``;
    pixels are numbered from 1 within their cluster).

    Parameters
    ----------
    path : Path
    name : str, optional
        Name of the camera; default: the file's without its extension.
    deg_per_cm : float
        Degrees on the sky of a centimetre in the camera.

    Raises
    ------
    NotFoundError, FormatError
        With the line.
    """
    rows: list[list[float]] = []
    numbers: list[int] = []
    text = _content(path).decode("utf-8-sig", "replace")
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            if rows:
                raise FormatError("a line of numbers is wanted here", where=f"{path}:{number}") from None
            continue  # text before the table
        if len(row) >= 5:
            rows.append(row)
            numbers.append(number)
        elif row and rows:
            raise FormatError("five numbers or more are wanted here", where=f"{path}:{number}")
    kind = next((kind for kind in _KINDS if rows and kind.fits(rows[0])), None)
    if kind is None:
        raise FormatError(
            "no table of pixels of a known kind",
            where=str(path),
            remedy="give coordinates, neighbours, or rows and columns of pixels with their cluster, x and y in cm",
        )
    for row, number in zip(rows, numbers, strict=True):
        if not kind.fits(row) or not all(map(math.isfinite, row)) or not _is_numbered(row, kind):
            raise FormatError("this line does not fit the ones before it", where=f"{path}:{number}")
    if len(rows) > _MOST_PIXELS:
        raise FormatError(f"{len(rows)} pixels: no camera has more than {_MOST_PIXELS}", where=str(path))
    table = np.array([[row[kind.cluster], row[kind.number or 0], *row[kind.x : kind.x + 2]] for row in rows])
    cluster = table[:, 0].astype(np.int64)
    if kind.number is None:
        pixels_of: dict[int, int] = {}
        for index, one in enumerate(cluster.tolist()):
            pixels_of[one] = pixels_of.get(one, 0) + 1
            table[index, 1] = pixels_of[one]
    with _of_file(path):
        return camera_from_positions(
            name or path.name.split(".")[0],
            table[:, 2] * deg_per_cm,
            table[:, 3] * deg_per_cm,
            cluster=cluster,
            number=table[:, 1].astype(np.int64),
        )


def camera_from_camgeom(path: Path, *, focal_length: float | None = None) -> CameraGeometry:
    """Read a camera from a ``*.camgeom.fits[.gz]`` table of ctapipe.

    Parameters
    ----------
    path : Path
    focal_length : float, optional
        Of the telescope, m; may be left out for those in `FOCAL_LENGTHS`.

    Raises
    ------
    NotFoundError
    FormatError
        If it is no such table, or the pixels are neither hexagons nor squares.
    UsageError
        If the focal length is not known.
    """
    import astropy.units as u
    from astropy.io import fits

    content = _content(path)
    try:
        with fits.open(io.BytesIO(content), memmap=False) as file:
            header = file[1].header
            rows, width = int(header["NAXIS2"]), int(header["NAXIS1"])
            if not 0 < rows <= _MOST_PIXELS or rows * width > len(content):
                raise ValueError(f"{rows} pixels of {width} bytes in a file of {len(content)}")
            table = file[1].data
            name, kind = str(header["CAM_ID"]).strip(), str(header.get("PIX_TYPE", "")).strip()
            metres = float(u.Unit(str(header.get("TUNIT2", "m"))).to("m"))
            x, y = np.array(table["pix_x"], np.float64), np.array(table["pix_y"], np.float64)
            if x.shape != (rows,) or y.shape != (rows,):
                raise ValueError("the places of pixels are no columns of single numbers")
    except Exception as error:  # a damaged FITS file makes astropy raise almost anything
        reason = str(error).split("\n", 1)[0][:200]
        raise FormatError(
            f"no ctapipe camera geometry: {reason or type(error).__name__}", where=str(path), remedy="copy it again"
        ) from error
    # Round pixels (of bare photomultipliers) stand on a hexagonal lattice.
    lattices: dict[str, Lattice] = {"hex": "hexagonal", "cir": "hexagonal", "rec": "square", "squ": "square"}
    lattice = lattices.get(kind[:3])
    if lattice is None:
        raise FormatError(f"pixels are '{kind}', only hexagons and squares can be used", where=str(path))
    focal_length = focal_length if focal_length is not None else FOCAL_LENGTHS.get(name)
    if focal_length is None:
        raise UsageError(f"the focal length of {name} is not known", where=str(path), remedy="give it in m")
    if not 0 < focal_length < math.inf:
        raise UsageError(f"a focal length of {focal_length} m", where=str(path), remedy="give it in m")
    scale = math.degrees(metres / focal_length)
    with _of_file(path):
        return camera_from_positions(name, x * scale, y * scale, lattice=lattice, focal_length=focal_length)


@contextmanager
def _of_file(path: Path) -> Iterator[None]:
    try:
        yield
    except FormatError as error:
        raise FormatError(error.what, where=str(path), remedy=error.remedy) from error


def _content(path: Path) -> bytes:
    """Return what is in a file, decompressed if it is gzip's; no more than a table of pixels can have."""
    try:
        if path.exists() and not path.is_file():
            raise NotFoundError("no plain file", where=str(path))
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if content.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(content)) as whole:
                content = whole.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("no such file", where=str(path)) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"can't be read: {reason}", where=str(path), remedy="copy it again") from error
    if len(content) > _MOST_BYTES:
        raise FormatError(f"more than {_MOST_BYTES >> 20} MB: no table of pixels", where=str(path))
    return content
