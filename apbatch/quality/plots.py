"""Plots of the page on the quality of runs: SVG text for curves, PNG as a data URL for maps of the camera."""

from __future__ import annotations

import base64
import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from apbatch.camera.geometry import CameraGeometry, Floats
from apbatch.quality.monitor import Channels, Status
from apbatch.quality.runs import RunQuality

#: Colour-blind safe.
_COLOURS = {
    Status.ABSENT: "#e4e4e4",
    Status.DEAD: "#222222",
    Status.NOISY: "#d55e00",
    Status.HOT: "#e6b800",
    Status.UNSTEADY: "#9a4ea8",
    Status.GOOD: "#a8c8e8",
}
_STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#888",
    "axes.titlesize": 10, "legend.frameon": False, "legend.fontsize": 8, "svg.fonttype": "none",
    "svg.hashsalt": "apbatch",  # equal figures have equal bytes
    "font.family": "sans-serif",
}  # fmt: skip


def rate_curves(quality: RunQuality) -> str:
    """Draw the rate of events, with its statistical error, and below it the rate of each cluster by its own mean."""
    clusters = {number: rate for number, rate in quality.rates.items() if number}
    events = quality.rates[0]
    if not len(events.start):
        return ""
    middle = (events.start - events.start[0]) / 1e9 + events.seconds / 2
    with plt.rc_context(_STYLE):
        figure, panels = plt.subplots(
            1 + bool(clusters),
            1,
            figsize=(9.4, 2.5 + (0.5 + 0.13 * len(clusters) if clusters else 0)),
            sharex=True,
            squeeze=False,
            height_ratios=[2.2, 0.5 + 0.13 * len(clusters)] if clusters else None,
            layout="constrained",
        )
        top = panels[0, 0]
        errors = np.sqrt(np.maximum(events.count, 1)) / np.maximum(events.seconds, 1e-9)
        top.errorbar(middle, events.rate, errors, fmt="o-", markersize=3, linewidth=1, color="#3b5ba9")
        top.set(ylabel="events / s", ylim=(0, 1.12 * float((events.rate + errors).max())))
        top.grid(color="#e6e6e6")
        if clusters:
            _heat(figure, panels[1, 0], quality)
        panels[-1, 0].set_xlabel("s since the first record")
        return _svg(figure)


def _heat(figure: Figure, axes: Axes, quality: RunQuality) -> None:
    clusters = sorted(number for number in quality.rates if number)
    events = quality.rates[0]
    rates = np.array([quality.rates[number].rate for number in clusters])
    means = np.array([quality.rates[number].count.sum() / max(events.seconds.sum(), 1e-9) for number in clusters])
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = rates / means[:, None]
    start = (events.start - events.start[0]) / 1e9
    edges = np.append(start, start[-1] + events.seconds[-1])
    mesh = axes.pcolormesh(
        edges, np.arange(len(clusters) + 1), relative, cmap="RdBu_r", vmin=0, vmax=2, rasterized=True
    )
    axes.set_yticks(np.arange(len(clusters)) + 0.5, [f"{number}" for number in clusters], fontsize=6)
    axes.set_ylabel("cluster")
    figure.colorbar(mesh, ax=axes, pad=0.01, aspect=12).set_label("rate / its mean", fontsize=7)


def camera_maps(quality: RunQuality, gain: str) -> str:
    """Draw pedestal, spread, share of hits, drift, rate of records and status of each pixel over the camera."""
    channels = quality.gains[gain]
    seconds = quality.summary["seconds"]
    rate = np.where(channels.records > 0, channels.records / (seconds or 1.0), np.nan)
    unit = quality.unit
    maps: list[tuple[str, Floats, str, bool]] = [
        (f"pedestal ({unit})", channels.level, "viridis", False),
        (f"spread ({unit})", channels.spread, "viridis", False),
        ("records / s" if seconds else "records", rate, "viridis", True),
        ("share of hits", channels.hits, "magma", True),
        ("drift over the run (spreads)", channels.drift / channels.spread, "RdBu_r", False),
    ]
    with plt.rc_context(_STYLE):
        figure, panels = plt.subplots(2, 3, figsize=(10.2, 6.6), layout="constrained")
        for axes, (title, values, colours, logarithmic) in zip(panels.flat, maps, strict=False):
            _map(figure, axes, quality.camera, title, values, colours, logarithmic)
        _status_map(panels[1, 2], quality.camera, quality.status[gain])
        return _png(figure)


def level_history(quality: RunQuality, gain: str) -> str:
    """Draw how the levels of the pixels of each cluster moved together, in spreads; empty with fewer than two bins."""
    channels = quality.gains[gain]
    bins = channels.bins >= 0
    if bins.sum() < 2:
        return ""
    clusters = np.unique(quality.camera.cluster)
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = (channels.levels[bins] - channels.level) / channels.spread
    rows = [_median(moved[:, quality.camera.cluster == number]) for number in clusters]
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9.4, 0.9 + 0.13 * len(clusters)), layout="constrained")
        limit = max(0.05, float(np.nanpercentile(np.abs(rows), 99)) if np.isfinite(rows).any() else 0.05)
        width, unit = _bin_width(quality)
        places = (0.0, len(rows[0]) * width, len(clusters) - 0.5, -0.5)
        image = axes.imshow(
            rows, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest", extent=places
        )
        axes.set_yticks(np.arange(len(clusters)), [f"{number}" for number in clusters], fontsize=6)
        axes.set(xlabel=unit, ylabel="cluster")
        figure.colorbar(image, ax=axes, pad=0.01, aspect=12).set_label("spreads", fontsize=7)
        return _png(figure)


def _bin_width(quality: RunQuality) -> tuple[float, str]:
    """Return the width of a bin of time, and its label; numbers of bins where too few tell (first and last are cut)."""
    starts = quality.rates[0].start
    return (float(starts[2] - starts[1]) / 1e9, "s since the first bin") if len(starts) > 2 else (1.0, "bin of time")


def _median(values: Floats) -> Floats:
    finite = np.isfinite(values)
    return np.array(
        [np.median(row[there]) if there.any() else np.nan for row, there in zip(values, finite, strict=True)]
    )


def _map(
    figure: Figure, axes: Axes, camera: CameraGeometry, title: str, values: Floats, colours: str, logarithmic: bool
) -> None:
    finite = values[np.isfinite(values) & (values > 0 if logarithmic else True)]
    pixels = _pixels(axes, camera)
    axes.set_title(title)
    pixels.set(cmap=plt.get_cmap(colours).with_extremes(bad="#e4e4e4"))
    if not len(finite):
        pixels.set_array(np.full(camera.n_pixels, np.nan))
        return
    if logarithmic and finite.max() > 10 * finite.min():
        low = max(finite.min(), finite.max() / 1e4)
        pixels.set_norm(matplotlib.colors.LogNorm(low, finite.max()))
        values = np.where(np.isfinite(values), np.maximum(values, low), values)
    elif colours == "RdBu_r":
        limit = max(float(np.percentile(np.abs(finite), 98)), 1e-9)
        pixels.set_clim(-limit, limit)
        pixels.set_edgecolor("#bbbbbb")  # a pixel at rest is white, as the paper
    else:
        pixels.set_clim(*np.percentile(finite, (1, 99)))
    pixels.set_array(values)
    figure.colorbar(pixels, ax=axes, shrink=0.75, pad=0.01).ax.tick_params(labelsize=7)


def _status_map(axes: Axes, camera: CameraGeometry, status: npt.NDArray[np.str_]) -> None:
    names = list(_COLOURS)
    pixels = _pixels(axes, camera)
    pixels.set(
        cmap=ListedColormap(list(_COLOURS.values())), norm=BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names))
    )
    pixels.set_array(np.array([names.index(Status(one)) for one in status]))
    axes.set_title("status")
    there = [name for name in names if (status == name.value).any()]
    handles = [Patch(color=_COLOURS[name], label=f"{name.value} ({(status == name.value).sum()})") for name in there]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=3, handlelength=1)


def _pixels(axes: Axes, camera: CameraGeometry) -> PolyCollection:
    """Put the camera's pixels onto axes, to be coloured by `set_array`."""
    if camera.lattice == "square":
        turn, radius = np.radians([45, 135, 225, 315]), camera.pitch / np.sqrt(2)
    else:  # corners point to the gaps between neighbours
        near = camera.neighbours[np.argmax((camera.neighbours >= 0).all(axis=1))]
        middle = int(np.argmax((camera.neighbours >= 0).all(axis=1)))
        to_one = np.arctan2(camera.y[near[0]] - camera.y[middle], camera.x[near[0]] - camera.x[middle])
        turn, radius = to_one + np.radians(np.arange(30, 390, 60)), camera.pitch / np.sqrt(3)
    corners = radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    shapes = np.stack([camera.x, camera.y], axis=1)[:, None, :] + corners
    pixels = PolyCollection(list(shapes), edgecolors="#ffffff", linewidths=0.2)
    axes.add_collection(pixels)
    edge = 0.6 * camera.pitch
    axes.set(
        xlim=(camera.x.min() - edge, camera.x.max() + edge),
        ylim=(camera.y.min() - edge, camera.y.max() + edge),
        aspect="equal",
    )
    axes.set_axis_off()
    return pixels


def worst_channels(channels: Channels, status: npt.NDArray[np.str_]) -> list[int]:
    """Return the pixels that are not good, those of one fault together."""
    order = {one.value: place for place, one in enumerate(Status)}
    bad = np.flatnonzero((status != Status.GOOD.value) & (status != Status.ABSENT.value))
    return sorted(bad.tolist(), key=lambda pixel: (order[str(status[pixel])], pixel))


def _svg(figure: Figure) -> str:
    sink = io.StringIO()
    figure.savefig(sink, format="svg", dpi=130, metadata={"Date": None})
    plt.close(figure)
    text = sink.getvalue()
    return text[text.index("<svg") :]


def _png(figure: Figure) -> str:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=120, metadata={"Software": None})
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()
