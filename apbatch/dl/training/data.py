"""Images of a blind set as arrays, and in which order they are trained on: the same for any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.grid import grid_of, to_grid
from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.blind.image_selection import IMAGE, TIME_COLUMN, partner_column
from apbatch.dl.files import read_parquet
from apbatch.dl.networks.night_sky import under_brighter_sky
from apbatch.dl.networks.planes import time_plane
from apbatch.dl.networks.treatment import PARTNERS, TIME, Treatment, cleaned, treatment_named
from apbatch.errors import FormatError, UsageError
from apbatch.formats.images import from_binary

Floats = npt.NDArray[np.float32]
#: No photomultiplier gives more: a larger number is a broken file, not a bright shower.
PIXEL_MAX = 1e6


@dataclass(frozen=True)
class Images:
    """One split of a blind set, one treatment.

    Attributes
    ----------
    ids : list of str
    pixels : ndarray of float32, shape (n_images, rows, cols), or (n_images, rows, cols, planes)
        p.e.; a pixel without a measurement is 0. See `apbatch.dl.networks.planes`.
    gamma : ndarray of bool, shape (n_images,), optional
        None for the test set.
    """

    ids: list[str]
    pixels: Floats
    gamma: npt.NDArray[np.bool_] | None


def load(files: Path, manifest: dict[str, Any], split: str, treatment: str) -> Images:
    """Load the images of one split in the order of the set.

    Parameters
    ----------
    files : pathlib.Path
        The folder ``set`` of a blind analysis.
    manifest : dict
        Manifest of the set.
    split : str
        ``train``, ``validation`` or ``test``.
    treatment : str
        A treatment (`apbatch.dl.networks.treatment`).

    Raises
    ------
    UsageError
        If there is no such treatment.
    FormatError
        If an image has no measured pixel, an infinite one, or not the number of pixels of the camera.
    """
    grid = treatment_named(treatment).grid
    ids = read_parquet(files / f"{split}.parquet", ["id"])["id"].to_pylist()
    values = load_cleaned(files, manifest, split, treatment)
    pixels = on_grid(values, camera_named(manifest["camera"]), grid)
    if split == "test":
        return Images(ids, pixels, None)
    gamma = read_parquet(files / f"{split}.parquet", ["gamma"])["gamma"].to_numpy(zero_copy_only=False)
    return Images(ids, pixels, np.asarray(gamma, bool))


def load_cleaned(files: Path, manifest: dict[str, Any], split: str, treatment: str) -> Floats:
    """Load the camera's pixels of one split as a treatment wants them, before any grid.

    Parameters
    ----------
    files : pathlib.Path
        The folder ``set`` of a blind analysis.
    manifest : dict
        Manifest of the set.
    split : str
        ``train``, ``validation`` or ``test``.
    treatment : str
        Its grid does not matter.

    Returns
    -------
    ndarray of float32
        Shape (n_images, n_pixels); (n_images, n_planes, n_pixels) if the treatment has planes beside the image.

    Raises
    ------
    UsageError
        If the set does not hold the planes.
    FormatError
        As `load_pixels`.
    """
    rule, camera = treatment_named(treatment), camera_named(manifest["camera"])
    own = cleaned_pixels(load_pixels(files, manifest, split, rule.sky), camera, rule.cleaning)
    return np.stack([own, *_beside(own, files, manifest, split, rule)], axis=1) if rule.planes else own


def _beside(own: Floats, files: Path, manifest: dict[str, Any], split: str, rule: Treatment) -> Iterator[Floats]:
    """Yield the planes beside the images of a split, in their order."""
    if TIME in rule.planes and not manifest["settings"].get("times"):
        raise UsageError(f"the set holds no {TIME}", where=str(files), remedy="make the set with times: true")
    place, camera = files / f"{split}.parquet", camera_named(manifest["camera"])
    if TIME in rule.planes:
        yield time_plane(own, _column(place, TIME_COLUMN, camera), camera)
    for number, image in enumerate(load_partners(files, manifest, split) if PARTNERS in rule.planes else (), start=1):
        yield image
        if TIME in rule.planes:
            yield time_plane(image, _column(place, partner_column(number, TIME_COLUMN), camera), camera)


def load_partners(files: Path, manifest: dict[str, Any], split: str) -> Iterator[Floats]:
    """Yield the images that other telescopes took of the same showers, the nearest telescopes first.

    Parameters
    ----------
    files : pathlib.Path
        The folder ``set`` of a blind analysis.
    manifest : dict
        Manifest of the set.
    split : str
        ``train``, ``validation`` or ``test``.

    Yields
    ------
    ndarray of float32, shape (n_images, n_pixels)
        p.e.; 0 everywhere where a shower has no such telescope.

    Raises
    ------
    UsageError
        If the set was made without partners.
    """
    camera, partners = camera_named(manifest["camera"]), manifest["settings"].get("partners", 0)
    if not partners:
        raise UsageError(
            f"the set holds no {PARTNERS}", where=str(files), remedy="make the set with partners: 1, or more"
        )
    for number in range(1, 1 + partners):
        yield np.nan_to_num(_column(files / f"{split}.parquet", partner_column(number), camera))


def on_grid(values: Floats, camera: CameraGeometry, grid: str) -> Floats:
    """Return pixels as `load_cleaned` gives them on a grid: rows, columns and, last, planes.

    Parameters
    ----------
    values : ndarray of float32, shape (n_images, n_pixels) or (n_images, n_planes, n_pixels)
    camera : CameraGeometry
    grid : str
        A method of `apbatch.camera.grid`.
    """
    if values.ndim == 2:
        return to_grid(values, camera, method=grid)
    planes = [to_grid(np.ascontiguousarray(values[:, plane]), camera, method=grid) for plane in range(values.shape[1])]
    return np.stack(planes, axis=-1)


def cleaned_pixels(images: Floats, camera: CameraGeometry, cleaning: str) -> Floats:
    """Return images, shape (n_images, n_pixels), with 0 where nothing was measured or a cleaning keeps nothing.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.; NaN where not measured.
    camera : CameraGeometry
    cleaning : str
        A treatment's name; its grid does not matter.
    """
    mask = cleaned(images, camera, cleaning)
    keep = np.isfinite(images) if mask is None else np.isfinite(images) & mask
    return np.where(keep, images, np.float32(0))


def load_pixels(files: Path, manifest: dict[str, Any], split: str, sky: float = 0.0) -> Floats:
    """Load the camera's pixels of one split, shape (n_images, n_pixels), NaN where not measured.

    Parameters
    ----------
    files : pathlib.Path
        The folder ``set`` of a blind analysis.
    manifest : dict
        Manifest of the set.
    split : str
        ``train``, ``validation`` or ``test``.
    sky : float
        Light of the night sky that is added to each pixel, p.e. (`apbatch.dl.networks.night_sky`).

    Raises
    ------
    FormatError
        As `load`.
    """
    place = files / f"{split}.parquet"
    pixels = _column(place, IMAGE, camera_named(manifest["camera"]))
    return under_brighter_sky(pixels, read_parquet(place, ["id"])["id"].to_pylist(), sky)


def _column(place: Path, name: str, camera: CameraGeometry) -> Floats:
    """Return a column of images or of what lies beside them, shape (n_images, n_pixels)."""
    table = read_parquet(place, ["id", name])
    flat = checked_pixels(table[name], table["id"].to_pylist(), place)
    if len(flat) and flat.shape[1] != camera.n_pixels:
        raise FormatError(f"images of {flat.shape[1]} pixels, {camera.name} has {camera.n_pixels}", where=str(place))
    return flat.reshape(-1, camera.n_pixels)


def checked_pixels(column: pa.ChunkedArray, names: Sequence[str], place: Path | str) -> Floats:
    """Return a column of pixels as an array after looking at every image.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Images as bytes of float32.
    names : sequence of str
        Names of the images, for errors.
    place : pathlib.Path or str
        The file, for errors.

    Returns
    -------
    ndarray of float32
        All images one after the other, p.e.

    Raises
    ------
    FormatError
        If an image is missing, has another length, no measured pixel, an infinite or an absurd one.
    """
    try:
        flat = from_binary(column).astype(np.float32, copy=False)
    except ValueError as error:
        raise FormatError(str(error), where=str(place)) from error
    missing = np.isnan(flat)
    with np.errstate(invalid="ignore"):
        wrongs = (
            (missing.all(axis=1), "no measured pixel (all NaN)"),
            (np.isinf(flat).any(axis=1), "an infinite pixel"),
            ((np.abs(flat) > PIXEL_MAX).any(axis=1), f"a pixel beyond {PIXEL_MAX:g} p.e., which no camera can measure"),
        )
    for wrong, what in wrongs:
        if wrong.any():
            first = names[int(np.flatnonzero(wrong)[0])]
            raise FormatError(f"{int(wrong.sum())} images have {what}, the first is {first}", where=str(place))
    return np.asarray(flat)


def scale_of(images: Images) -> tuple[float, float]:
    """Return mean and spread of log(1 + p.e.) over all pixels of the images, for the input of a network."""
    own = images.pixels if images.pixels.ndim == 3 else images.pixels[..., 0]
    logs = np.log1p(np.maximum(own, 0), dtype=np.float32)
    return float(logs.mean(dtype=np.float64)), float(max(logs.std(dtype=np.float64), 1e-6))


def parts_of(ranks: int) -> int:
    """Return into how many parts each batch is split: two for one rank as well, which then works on both.

    Sums of gradients depend on where they are split, and training lets the last bits grow; with the same parts one
    rank and two give the same weights, bit for bit.
    """
    return max(2, ranks)


def steps_of(n_images: int, batch: int, parts: int, least: int = 0) -> tuple[int, int]:
    """Return the number of steps of an epoch and the global batch, equal for all ranks.

    Parameters
    ----------
    n_images : int
        Images of the training set.
    batch : int
        Images in a step over all ranks.
    parts : int
        From `parts_of`.
    least : int
        Images that an epoch takes at least: a smaller set is gone through several times.

    Raises
    ------
    UsageError
        If the batch can't be split over the ranks, or there are fewer images than ranks.

    Examples
    --------
    >>> steps_of(n_images=1000, batch=128, parts=2)
    (7, 128)
    """
    if batch % parts:
        raise UsageError(
            f"a batch of {batch} can't be split into {parts} equal parts", remedy=f"batch_size: a multiple of {parts}"
        )
    batch = min(batch, n_images // parts * parts)
    if batch == 0:
        raise UsageError(f"{n_images} training images are fewer than {parts} ranks", remedy="fewer ranks, more images")
    return max(n_images, least) // batch, batch


def order_of(n_images: int, epoch: int, seed: int, batch: int, parts: int, least: int = 0) -> npt.NDArray[np.int64]:
    """Return which images are in which step of an epoch, shape (n_steps, batch).

    Rank r takes the r-th share of each row, so that a step sees the same images however many ranks there are. The
    remainder that fills no batch is left out, another one in each epoch.

    Parameters
    ----------
    n_images : int
        Images of the training set.
    epoch : int
    seed : int
    batch : int
        Images in a step over all ranks.
    parts : int
        From `parts_of`.
    least : int
        Images that an epoch takes at least.
    """
    steps, batch = steps_of(n_images, batch, parts, least)
    random = np.random.default_rng([seed, epoch, 1])
    passes = -(-steps * batch // n_images)
    order = np.concatenate([random.permutation(n_images) for _ in range(passes)])
    return order[: steps * batch].reshape(steps, batch)


def symmetries(present: npt.NDArray[np.bool_], least: float = 0.9) -> npt.NDArray[np.int64]:
    """Return the rotations and reflections of an axial grid that map the camera onto itself.

    A shower from a diffuse source may arrive turned by 60 degrees or mirrored; on the axial grid both only move
    pixels, so that each image can be trained on in up to twelve ways without any interpolation.

    Parameters
    ----------
    present : ndarray of bool, shape (rows, cols)
        Cells that are pixels of the camera; rows along r, columns along q.
    least : float
        Share of the pixels that must fall on pixels.

    Returns
    -------
    ndarray of int64, shape (n_symmetries, rows * cols)
        For each cell the cell its content comes from, rows * cols where there is none; the first is the identity.
    """
    lit = present.ravel()
    if not lit.any():
        return np.arange(present.size)[None]
    r, q = np.nonzero(present)
    # The middle is a pixel or a corner between three, so in thirds of a pitch; a ragged rim moves the mean a little.
    near = [(round(3 * float(q.mean())) + dq, round(3 * float(r.mean())) + dr) for dq in _NEAR for dr in _NEAR]
    best = max((_symmetries_about(middle, present, least) for middle in near), key=lambda images: images[:2])
    return best[2]


_NEAR = (0, -1, 1, -2, 2)


def _symmetries_about(
    middle: tuple[int, int], present: npt.NDArray[np.bool_], least: float
) -> tuple[int, int, npt.NDArray[np.int64]]:
    """Return how many symmetries there are about a point (q, r in thirds), pixels that they map, and their tables."""
    rows, cols = present.shape
    cells, lit = present.size, present.ravel()
    r, q = np.divmod(np.arange(cells), cols)
    tables, mapped = [np.arange(cells)], 0
    for mirrored in (False, True):
        for turn in range(6):
            a, b = 3 * q - middle[0], 3 * r - middle[1]
            if mirrored:
                a, b = b, a
            for _ in range(turn):
                a, b = -b, a + b
            from_q, from_r = a + middle[0], b + middle[1]
            inside = (from_q % 3 == 0) & (from_r % 3 == 0)
            from_q, from_r = from_q // 3, from_r // 3
            inside &= (from_q >= 0) & (from_q < cols) & (from_r >= 0) & (from_r < rows)
            source = np.where(inside, from_r * cols + from_q, cells)
            moved = np.append(lit, False)[source]
            common = int((moved & lit).sum())
            if (turn or mirrored) and common >= least * lit.sum():
                tables.append(np.where(moved, source, cells))
                mapped += common
    return len(tables), mapped, np.array(tables)


def camera_symmetries(camera: CameraGeometry) -> npt.NDArray[np.int64]:
    """Return the rotations and reflections that map a camera onto itself: for each pixel, where its content comes from.

    Turning comes before any grid, so that images are turned alike whatever grid they are put on. A camera of square
    pixels has none but the identity here.

    Returns
    -------
    ndarray of int64, shape (n_symmetries, n_pixels)
        n_pixels where there is none; the first is the identity.
    """
    if camera.lattice == "square":
        return np.arange(camera.n_pixels)[None]
    grid = grid_of(camera)
    assert grid.place is not None
    pixel = np.full(grid.rows * grid.cols + 1, camera.n_pixels)
    pixel[grid.place] = np.arange(camera.n_pixels)
    return np.asarray(pixel[symmetries(grid.occupied)[:, grid.place]])


@dataclass(frozen=True)
class Turning:
    """Turns the images of a batch, each by a symmetry of its own, and puts them on the network's grid.

    Attributes
    ----------
    tables : ndarray of int64, shape (n_symmetries, n_pixels)
        See `camera_symmetries`.
    camera : CameraGeometry
    grid : str
    """

    tables: npt.NDArray[np.int64]
    camera: CameraGeometry
    grid: str

    @classmethod
    def of(cls, manifest: dict[str, Any], treatment: str, turn: bool) -> Turning:
        """Return what a treatment of a set needs, with the symmetries of the camera or without any.

        Parameters
        ----------
        manifest : dict
            Manifest of the set.
        treatment : str
        turn : bool
            Whether images are turned and mirrored at all.
        """
        camera = camera_named(manifest["camera"])
        tables = camera_symmetries(camera) if turn else np.arange(camera.n_pixels)[None]
        return cls(tables, camera, treatment_named(treatment).grid)

    def cell_tables(self) -> npt.NDArray[np.int64]:
        """Return the symmetries of the cells as `symmetries` does; grids other than the axial one have none."""
        if self.grid != "axial" or self.camera.lattice == "square":
            grid = grid_of(self.camera, self.grid)
            return np.arange(grid.rows * grid.cols)[None]
        return symmetries(grid_of(self.camera).occupied)

    def __call__(self, values: Floats, which: npt.NDArray[np.int64]) -> Floats:
        """Return grids of pixels as `load_cleaned` gives them, turned by symmetries of numbers `which`."""
        if len(self.tables) > 1 and values.ndim == 3:  # all planes of an event are turned alike
            n_planes = values.shape[1]
            flat = turned(values.reshape(-1, values.shape[2]), self.tables, np.repeat(which, n_planes))
            values = flat.reshape(values.shape)
        elif len(self.tables) > 1:
            values = turned(values, self.tables, which)
        return on_grid(values, self.camera, self.grid)


def turned(pixels: Floats, tables: npt.NDArray[np.int64], which: npt.NDArray[np.int64]) -> Floats:
    """Apply to each image, shape (n, …), the symmetry with its number in `which`, shape (n,).

    Parameters
    ----------
    pixels : ndarray of float32, shape (n_images, …)
    tables : ndarray of int64, shape (n_symmetries, n_pixels)
        Where each pixel of the result comes from; n_pixels for nowhere.
    which : ndarray of int64, shape (n_images,)
    """
    flat = pixels.reshape(len(pixels), -1)
    padded = np.concatenate([flat, np.zeros((len(flat), 1), np.float32)], axis=1)
    return np.take_along_axis(padded, tables[which], axis=1).reshape(pixels.shape)
