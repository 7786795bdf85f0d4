"""Which images are analysed: one set of cuts, the same for every primary, with what each cut leaves.

Images, image parameters and truth are three datasets; here, and only here, they are joined. A set keeps the camera's
pixels, from which every cleaning and grid is made when they are read, so that all methods see the same events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.camera.instruments.registry import camera_named
from apbatch.datasets.dataset import info, read_table
from apbatch.dl.blind.image_tables import converted, in_order, match, need, no_gaps, numbers, read_truth, words
from apbatch.dl.blind.settings import ImageSelection
from apbatch.errors import FormatError, UsageError, nearest_word
from apbatch.formats.images import IMAGE_KEY

#: Endings of the image parameters in a set: of the uncleaned image, and of the cleaning of the selection.
_ENDINGS = ("none", "cleaned")
#: Column of the camera's pixels, and of their arrival times.
IMAGE, TIME_COLUMN = "image", "time"
#: What a set may know of the truth of training images, and the column it comes from: TeV, deg in the camera, deg, m.
TRUTH = {
    "energy": "true_energy",
    "source_x": "true_source_x",
    "source_y": "true_source_y",
    "zenith": "true_zenith",
    "impact": "true_impact",
}
#: Image parameters that are features; times, pointings, numbers of events and anything of the truth are not.
FEATURES = (
    "size", "width", "length", "distance", "cog_x", "cog_y", "con2", "n_pixels", "skewness", "kurtosis",
    "n_islands", "leakage", "edge",
)  # fmt: skip


@dataclass(frozen=True)
class Selected:
    """Images that passed, ordered by key, so that nothing depends on how Spark wrote them.

    Attributes
    ----------
    table : pa.Table
        Pixels and features, one row an image, no truth.
    gamma : ndarray of bool, shape (n_images,)
    shower : ndarray of int64, shape (n_images,)
        Number of the shower, from 0, the same for images of one shower.
    experiments : tuple of str
        That the images are of.
    truth : dict of str to ndarray of float64, shape (n_images,)
        True energy (TeV), direction in the camera and zenith (deg); NaN where not known.
    camera : str
        Whose pixels the images are.
    cleaning : str
        The cleaning that was used.
    cut_flow : list of dict
        For each cut: its name, gammas and hadrons left.
    """

    table: pa.Table
    gamma: npt.NDArray[np.bool_]
    shower: npt.NDArray[np.int64]
    experiments: tuple[str, ...]
    truth: dict[str, npt.NDArray[np.float64]]
    camera: str
    cleaning: str
    cut_flow: list[dict[str, Any]]


def partner_column(number: int, ending: str = "") -> str:
    """Return the name of the column of an image's partner, from 1, or of what lies beside that.

    Parameters
    ----------
    number : int
    ending : str
        ``time`` for its arrival times.
    """
    return "_".join(["partner", str(number), *([ending] if ending else [])])


def select(images: str, parameters: str, truth: str, selection: ImageSelection, sources: str | None = None) -> Selected:
    """Join images, parameters and truth, apply the cuts, and order by key.

    Parameters
    ----------
    images, parameters, truth : str
        URLs of the datasets.
    selection : ImageSelection
        The cuts.
    sources : str, optional
        URL of the observed source's place in the camera, image by image; needed for the worlds ``point``, ``diffuse``.

    Raises
    ------
    FormatError
        If a column is missing or of another type, an image occurs twice, or has no primary or shower.
    UsageError
        If the cleaning is unknown, nothing passes, or arrival times or places of telescopes are missing that are
        asked for.
    """
    pixels, camera = _pixels(images, selection.times)
    parameter_table = read_table(parameters)
    need(parameter_table, parameters, (*IMAGE_KEY, "cleaning", "size", "width", "length"))
    cleanings = words(parameter_table, "cleaning", parameters)
    cleaning = _cleaning(cleanings, parameters, selection)
    rows = [
        (in_order(parameter_table.filter(pc.equal(cleanings, name)), parameters, ()), parameters)
        for name in ("none", cleaning)
    ]
    true = in_order(_with_impact(read_truth(truth), truth), truth, ("shower", "primary", "true_energy"))
    pixels, (plain, cleaned, true) = match(pixels, [*rows, (true, truth)])
    if pixels.num_rows == 0:
        raise UsageError(
            "no image has parameters (without and with cleaning) and truth", where=f"{images}, {parameters}, {truth}"
        )

    columns = {name: pixels[name] for name in (*IMAGE_KEY, IMAGE, *([TIME_COLUMN] if selection.times else []))}
    for ending, table in zip(_ENDINGS, (plain, cleaned), strict=True):
        for name in FEATURES:
            if name in table.column_names:
                columns[f"{name}_{ending}"] = converted(table[name], pa.float32(), name, parameters)
    no_gaps(true, truth, ("shower", "primary"))
    gamma = np.asarray(pc.equal(words(true, "primary", truth), "gamma").to_numpy(zero_copy_only=False), bool)
    in_world = np.ones(len(gamma), bool)
    if selection.world != "all":
        if sources is None:
            raise UsageError(
                f"the world '{selection.world}' needs the place of the observed source",
                where=truth,
                remedy="give the folder `sources` of the production",
            )
        places = _places(pixels, sources)
        in_world = ~gamma | (_of_source(true, truth, places) == (selection.world == "point"))
        if selection.world == "point":
            columns |= {f"observed_{axis}": pa.array(places[axis].astype(np.float32)) for axis in places}
    whole = pa.table(columns)
    keep, cut_flow = _cuts(whole, gamma, in_world, selection)
    if not keep.any():
        raise UsageError(
            f"no image passes the selection ({len(keep)} before it)",
            where=images,
            remedy="lower size_min or pixels_min",
        )
    shower = _shower_numbers(true, truth)
    table = whole.filter(pa.array(keep)).select([name for name in columns if name not in IMAGE_KEY])
    for name, column in _partners(pixels, true, shower, keep, selection, truth):
        table = table.append_column(name, column)
    return Selected(
        table=table,
        gamma=gamma[keep],
        shower=shower[keep],
        experiments=tuple(pc.unique(pixels["experiment"]).to_pylist()),
        truth={
            name: numbers(true, column, truth)[keep] for name, column in TRUTH.items() if column in true.column_names
        },
        camera=camera,
        cleaning=cleaning,
        cut_flow=cut_flow,
    )


def _partners(
    pixels: pa.Table,
    true: pa.Table,
    shower: npt.NDArray[np.int64],
    keep: npt.NDArray[np.bool_],
    selection: ImageSelection,
    where: str,
) -> Iterator[tuple[str, pa.Array]]:
    """Yield the columns of other telescopes' images of the same shower, for the images that are kept."""
    if not selection.partners:
        return
    need(true, where, ("true_core_x", "true_core_y"))
    # The core as a telescope sees it; the difference of two is where one telescope stands against the other.
    x, y = (numbers(true, f"true_core_{axis}", where) for axis in ("x", "y"))
    neighbours = partners_of(shower, x, y, selection.partners, selection.partner_min, selection.partner_max)[keep]
    dark = pa.scalar(bytes(len(pixels[IMAGE][0].as_py())), pa.binary())
    for number, rows in enumerate(neighbours.T, start=1):
        places = pa.array(np.maximum(rows, 0), mask=rows < 0)
        for name, ending in ((IMAGE, ""), (TIME_COLUMN, TIME_COLUMN)):
            if name in pixels.column_names:
                column = pixels[name].cast(pa.binary()).take(places).combine_chunks()
                yield partner_column(number, ending), pc.fill_null(column, dark)


def partners_of(
    shower: npt.NDArray[np.int64],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    number: int,
    nearest: float,
    farthest: float,
) -> npt.NDArray[np.int64]:
    """Return for each image other images of its shower, from the nearest telescope on.

    Parameters
    ----------
    shower : ndarray of int64, shape (n_images,)
        Number of the shower.
    x, y : ndarray of float64, shape (n_images,)
        Place of the telescope on the ground, up to a sign and an origin of the shower, m.
    number : int
        Of partners.
    nearest, farthest : float
        Limits of the distance between the telescopes, m.

    Returns
    -------
    ndarray of int64, shape (n_images, number)
        Rows; -1 where there are no more.
    """
    partners = np.full((len(shower), number), -1, np.int64)
    order = np.argsort(shower, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(shower[order])) + 1):
        away = np.hypot(x[rows][:, None] - x[rows], y[rows][:, None] - y[rows])
        away[(away < nearest) | (away > farthest)] = np.inf
        np.fill_diagonal(away, np.inf)
        ranked = np.argsort(away, axis=1, kind="stable")[:, :number]
        there = np.isfinite(np.take_along_axis(away, ranked, axis=1))
        partners[rows[:, None], np.arange(ranked.shape[1])] = np.where(there, rows[ranked], -1)
    return partners


def _pixels(url: str, times: bool = False) -> tuple[pa.Table, str]:
    """Read images, with arrival times if wanted, in the order of their keys, and the name of their camera."""
    sidecar = info(url)
    if sidecar.get("kind") != "images":
        raise FormatError("not a dataset of images", where=url, remedy="give what the step `clean` made")
    images = in_order(read_table(url, [*IMAGE_KEY, IMAGE, *(["peak_time"] if times else [])]), url, (IMAGE,))
    camera = camera_named(str(sidecar.get("camera", "")))
    if times:
        images = images.rename_columns([TIME_COLUMN if name == "peak_time" else name for name in images.column_names])
        if images[TIME_COLUMN].null_count:
            raise UsageError(
                f"{images[TIME_COLUMN].null_count} images have no arrival times", where=url, remedy="times: false"
            )
    for name in (IMAGE, *([TIME_COLUMN] if times else [])):
        kind = images[name].type
        if not any(of(kind) for of in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)):
            raise FormatError(f"the {name}s are of {kind}, not the bytes of 32-bit floats", where=url)
        lengths = pc.unique(pc.binary_length(images[name])).to_pylist()
        if lengths and lengths != [4 * camera.n_pixels]:
            raise FormatError(
                f"{name}s of {lengths[:4]} bytes, those of {camera.name} have {4 * camera.n_pixels}: "
                "of another camera?",
                where=url,
            )
    return images, camera.name


def _with_impact(true: pa.Table, where: str) -> pa.Table:
    """Add the distance of the telescope from the shower's axis, m, where core and direction are known."""
    names = ("true_core_x", "true_core_y", "true_zenith", "true_azimuth")
    if "true_impact" in true.column_names or not set(names) <= set(true.column_names):
        return true
    x, y, zenith, azimuth = (numbers(true, name, where) for name in names)
    zenith, azimuth = np.radians(zenith), np.radians(azimuth)
    along = np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], axis=1)
    away = np.linalg.norm(np.cross(np.stack([x, y, np.zeros_like(x)], axis=1), along), axis=1)
    return true.append_column("true_impact", pa.array(away))


def _cleaning(cleanings: pa.ChunkedArray, where: str, selection: ImageSelection) -> str:
    names = sorted(name for name in pc.unique(cleanings).to_pylist() if name and name != "none")
    if selection.cleaning is None:
        if len(names) == 1:
            return str(names[0])
        listing = ", ".join(names) or "none"
        raise UsageError(
            f"{len(names)} cleanings in the parameters: {listing}", where=where, remedy="name one: cleaning"
        )
    if selection.cleaning not in names:
        raise UsageError(
            f"no parameters of the cleaning '{selection.cleaning}'",
            where=where,
            nearest=nearest_word(selection.cleaning, names),
        )
    return selection.cleaning


def _shower_numbers(true: pa.Table, where: str) -> npt.NDArray[np.int64]:
    """Number showers from 0; a shower number may come again in another run."""
    names = [converted(true[name], pa.string(), name, where) for name in ("experiment", "run", "shower")]
    encoded = pc.binary_join_element_wise(*names, "\x1f").combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64)


def _places(images: pa.Table, url: str) -> dict[str, npt.NDArray[np.float64]]:
    """Return x and y of the observed source in the camera (deg) for images, in their order.

    Raises
    ------
    FormatError
        If an image has none.
    """
    truth = in_order(read_truth(url), url, ("source_x", "source_y"))
    matched, (sources,) = match(images, [(truth, url)])
    if matched.num_rows != images.num_rows:
        raise FormatError(f"{images.num_rows - matched.num_rows} images have no observed source", where=url)
    return {axis: numbers(sources, f"source_{axis}", url) for axis in ("x", "y")}


def _of_source(true: pa.Table, where: str, places: dict[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.bool_]:
    """Tell which showers come from the observed source: within a hundredth of a degree."""
    need(true, where, tuple(f"true_source_{axis}" for axis in places))
    away = [numbers(true, f"true_source_{axis}", where) - place for axis, place in places.items()]
    return np.asarray(np.hypot(*away) < 0.01)


def _cuts(
    table: pa.Table, gamma: npt.NDArray[np.bool_], in_world: npt.NDArray[np.bool_], selection: ImageSelection
) -> tuple[npt.NDArray[np.bool_], list[dict[str, Any]]]:
    def column(name: str) -> npt.NDArray[np.float32]:
        return np.asarray(table[name].to_numpy(), np.float32)

    cuts: list[tuple[str, npt.NDArray[np.bool_]]] = [
        ("recorded", np.ones(table.num_rows, bool)),
        *([] if selection.world == "all" else [(f"gammas of the world '{selection.world}'", in_world)]),
        (f"size after cleaning > {selection.size_min:g} p.e.", column("size_cleaned") > selection.size_min),
    ]
    if "n_pixels_cleaned" in table.column_names:
        enough = column("n_pixels_cleaned") >= selection.pixels_min
        cuts.append((f"at least {selection.pixels_min} pixels after cleaning", enough))
    if selection.leakage_max < 1 and "leakage_cleaned" in table.column_names:
        inside = column("leakage_cleaned") <= selection.leakage_max
        cuts.append((f"at most {selection.leakage_max:g} of the light in edge pixels", inside))
    shaped = np.ones(table.num_rows, bool)
    for ending in _ENDINGS:
        for name in ("size", "width", "length"):
            shaped &= np.isfinite(column(f"{name}_{ending}")) & (column(f"{name}_{ending}") > 0)
    cuts.append(("width and length can be measured", shaped))
    keep = np.ones(table.num_rows, bool)
    flow = []
    for name, passed in cuts:
        keep &= passed
        flow.append({"cut": name, "gamma": int((keep & gamma).sum()), "hadron": int((keep & ~gamma).sum())})
    return keep, flow
