"""Plots of the study's report, as SVG text; pictures of cameras as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from apbatch.camera.geometry import CameraGeometry
from apbatch.dl.judging.plots import STYLE, camera_picture, png, svg

#: Colour-blind safe (Okabe and Ito); a method has one colour on the whole page.
COLOURS = {
    "cuts": "#7f7f7f", "trees": "#009e73", "forest": "#56b4e9", "talk-cnn": "#0072b2", "resnet": "#d55e00",
    "hillas-cnn": "#e69f00", "hex-cnn": "#cc79a7",
}  # fmt: skip
_MARKS = {
    "cuts": "s", "trees": "^", "forest": "v", "talk-cnn": "o", "hillas-cnn": "P", "resnet": "D", "hex-cnn": "h",
}  # fmt: skip
CLEANING = {
    "none": "without cleaning",
    "soft": "soft cleaning (7 / 3.5 p.e.)",
    "standard": "standard cleaning (14 / 7 p.e.)",
}
Row = dict[str, Any]


def colour(method: str) -> str:
    """Return the colour of a method."""
    return COLOURS.get(method.removesuffix("+"), "#666666")


def shown(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of plots: where there is a mean of trainings, that one stands for them."""
    means = {(row["method"].removesuffix("+"), row["variant"]) for row in rows if row["method"].endswith("+")}
    return [row for row in rows if (row["method"], row["variant"]) not in means]


def quality_overview(rows: Sequence[Row], cleanings: Sequence[str]) -> str:
    """Draw Q of every method with its error for each cleaning: the table at a glance."""
    rows = [row for row in rows if ":" not in row["variant"]]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9.6, 4.0))
        step = 0.8 / len(methods)
        for number, method in enumerate(methods):
            of = {row["variant"]: row for row in rows if row["method"] == method}
            places, values, errors = [], [], []
            for place, cleaning in enumerate(cleanings):
                quality = of.get(cleaning, {}).get("quality")
                if quality is not None:
                    places.append(place - 0.4 + (number + 0.5) * step)
                    values.append(quality["value"])
                    errors.append([quality["value"] - quality["low"], quality["high"] - quality["value"]])
            if values:
                axes.errorbar(
                    places,
                    values,
                    yerr=np.array(errors).T,
                    color=colour(method),
                    marker=_MARKS.get(method.removesuffix("+"), "o"),
                    markerfacecolor=colour(method) if not method.endswith("+") else "white",
                    linestyle="none",
                    capsize=2,
                    label=next(row["title"] for row in rows if row["method"] == method),
                )
        axes.axhline(1, color="#999", linewidth=0.8, linestyle=":")
        for border in range(1, len(cleanings)):
            axes.axvline(border - 0.5, color="#ddd", linewidth=0.8)
        axes.set(xticks=range(len(cleanings)), xlim=(-0.5, len(cleanings) - 0.5), ylabel="quality factor Q")
        axes.set_xticklabels([CLEANING.get(name, name).replace(" (", "\n(") for name in cleanings])
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.tight_layout()
        return svg(figure)


def against_cut(rows: Sequence[Row], cleanings: Sequence[str], hadrons_min: int, what: str, label: str) -> str:
    """Draw a quantity of the curves (``quality``, ``gamma_efficiency``, ``hadron_rejection``) against the cut."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(cleanings), figsize=(11.0, 3.7), sharex=True, sharey=True, squeeze=False)
        for axes, cleaning in zip(panels[0], cleanings, strict=True):
            for row in shown([row for row in rows if row["variant"] == cleaning]):
                _curve(axes, row, what, hadrons_min)
            axes.set(xlabel="cut on the score", title=CLEANING.get(cleaning, cleaning), xlim=(0, 1))
        if what == "hadron_rejection":
            panels[0][0].set(yscale="log", ylim=(0.9, None))
        elif what == "gamma_efficiency":
            panels[0][0].set(ylim=(0, 1.02))
        else:
            panels[0][0].set(ylim=(0.5, None))
        panels[0][0].set(ylabel=label)
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncols=3, fontsize=8)
        figure.tight_layout(rect=(0, 0.13, 1, 1))
        return svg(figure)


def _curve(axes: Axes, row: Row, what: str, hadrons_min: int) -> None:
    curve = row["curve"]
    cuts, value = np.array(curve["cuts"]), _floats(curve[what])
    enough = np.array(curve["hadrons_left"]) >= hadrons_min
    axes.fill_between(
        cuts, _floats(curve[what + "_low"]), _floats(curve[what + "_high"]), color=colour(row["method"]), alpha=0.14,
        linewidth=0,
    )  # fmt: skip
    axes.plot(cuts, np.where(enough, value, np.nan), color=colour(row["method"]), linewidth=1.6, label=row["title"])
    # The last quoted point joins the dashed line, so that there is no gap.
    joined = ~enough | np.append(~enough[1:], False)
    axes.plot(cuts, np.where(joined, value, np.nan), color=colour(row["method"]), linewidth=0.9, linestyle=(0, (2, 2)))
    for training in row["trainings"]:
        at = int(np.argmin(np.abs(cuts - training["cut"])))
        if np.isfinite(value[at]):
            axes.plot([training["cut"]], [value[at]], "|", color=colour(row["method"]), markersize=9)


def price_of_the_cut(rows: Sequence[Row], cleanings: Sequence[str]) -> str:
    """Draw the expected significance relative to the best cut, against the cut."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(cleanings), figsize=(11.0, 3.4), sharex=True, sharey=True, squeeze=False)
        for axes, cleaning in zip(panels[0], cleanings, strict=True):
            for row in shown([row for row in rows if row["variant"] == cleaning]):
                cuts, relative = np.array(row["price"]["cuts"]), _floats(row["price"]["relative"])
                axes.plot(cuts, relative, color=colour(row["method"]), linewidth=1.5, label=row["title"])
                if row["price"]["chosen"] is not None:
                    axes.plot(
                        [row["trainings"][0]["cut"]], [row["price"]["chosen"]], "o", color=colour(row["method"]),
                        markeredgecolor="white",
                    )  # fmt: skip
            axes.axvline(0.5, color="#999", linewidth=0.8, linestyle=":")
            axes.set(xlabel="cut on the score", title=CLEANING.get(cleaning, cleaning), xlim=(0, 1), ylim=(0, 1.05))
        panels[0][0].set(ylabel="significance / that of the best cut")
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncols=3, fontsize=8)
        figure.tight_layout(rect=(0, 0.14, 1, 1))
        return svg(figure)


def binned(rows: Sequence[Row], bins: Sequence[dict[str, Any]], cleaning: str) -> str:
    """Draw Q in bins of energy, size and zenith, for one cleaning."""
    of = shown([row for row in rows if row["variant"] == cleaning])
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(bins), figsize=(11.0, 3.7), sharey=True, squeeze=False)
        for axes, known in zip(panels[0], bins, strict=True):
            edges = np.array(known["edges"])
            logarithmic = known["name"] != "zenith"
            middles = np.sqrt(edges[1:] * edges[:-1]) if logarithmic else (edges[1:] + edges[:-1]) / 2
            for number, row in enumerate(of):
                shift = (number - (len(of) - 1) / 2) * 0.012
                span = np.log10(edges[-1] / edges[0]) if logarithmic else np.ptp(edges)
                places = middles * 10 ** (shift * span) if logarithmic else middles + shift * span
                found = [entry["quality"] for entry in row["bins"][known["name"]]]
                use = [place for place, quality in enumerate(found) if quality is not None]
                axes.errorbar(
                    places[use],
                    [found[place]["value"] for place in use],
                    yerr=[found[place]["error"] for place in use],
                    color=colour(row["method"]),
                    marker=_MARKS.get(row["method"].removesuffix("+"), "o"),
                    markersize=4,
                    linewidth=0.9,
                    capsize=2,
                    label=row["title"],
                )
            if logarithmic:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axes.xaxis.set_minor_formatter(NullFormatter())
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            for edge in edges[1:-1]:
                axes.axvline(edge, color="#eee", linewidth=0.8, zorder=0)
            what = {"energy": "estimated energy"}.get(known["name"], known["name"])
            axes.axhline(1, color="#999", linewidth=0.8, linestyle=":")
            axes.set(xlabel=f"{what} ({known['unit']})")
        panels[0][0].set(ylabel="quality factor Q")
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncols=3, fontsize=8)
        figure.tight_layout(rect=(0, 0.13, 1, 1))
        return svg(figure)


def cleanings_of(images: dict[str, npt.NDArray[np.float32]], camera: CameraGeometry) -> str:
    """Draw one image as each cleaning leaves it, by the cleaning's name; return a data URL of a PNG."""
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = plt.subplots(1, len(images), figsize=(3.6 * len(images), 3.8), squeeze=False)
        top = float(np.log10(1 + max(float(np.nanmax(image)) for image in images.values())))
        for axes, (name, image) in zip(panels[0], images.items(), strict=True):
            camera_picture(axes, image, camera, top)
            axes.set_title(CLEANING.get(name, name), fontsize=9)
        figure.tight_layout()
        return png(figure)


def _floats(values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def robustness(entries: Sequence[Row]) -> str:
    """Draw Q over that of undisturbed images against the strength of each disturbance; a style for each cleaning."""
    kinds = list(dict.fromkeys(entry["kind"] for entry in entries))
    styles = {"none": "-", "soft": (0, (4, 2)), "standard": (0, (1, 1.5))}
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, -(-len(kinds) // 2), figsize=(11.0, 6.2), squeeze=False, sharey=True)
        for axes, kind in zip(panels.ravel(), kinds, strict=False):
            of = [entry for entry in entries if entry["kind"] == kind]
            for method, variant in dict.fromkeys((entry["method"], entry["variant"]) for entry in of):
                mine = [entry for entry in of if (entry["method"], entry["variant"]) == (method, variant)]
                mine = [entry for entry in mine if entry["ratio"] is not None]
                axes.errorbar(
                    [entry["strength"] for entry in mine],
                    [entry["ratio"]["value"] for entry in mine],
                    yerr=[entry["ratio"]["error"] for entry in mine],
                    color=colour(method),
                    linestyle=styles.get(variant, "-"),
                    marker=_MARKS.get(method, "o"),
                    markersize=4,
                    linewidth=1.1,
                    capsize=2,
                    label=f"{of[0]['title'] if not mine else mine[0]['title']}, {variant}",
                )
            axes.axhline(1, color="#999", linewidth=0.8, linestyle=":")
            axes.set(xlabel=f"{kind} ({of[0]['label'].partition(' ')[2]})")
        handles, names = panels[0][0].get_legend_handles_labels()
        for axes in panels.ravel()[len(kinds) :]:
            axes.set_axis_off()
        panels.ravel()[-1].legend(handles, names, loc="center left", fontsize=7)
        for row in panels:
            row[0].set_ylabel("Q / Q undisturbed")
        figure.tight_layout()
        return svg(figure)


def saliency_maps(maps: Sequence[Row], camera: CameraGeometry) -> str:
    """Draw for each network a row of images and below them what darkness there changes; a data URL of a PNG."""
    variants = list(dict.fromkeys(entry["variant"] for entry in maps))
    columns = max(sum(entry["variant"] == variant for entry in maps) for variant in variants)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = plt.subplots(
            2 * len(variants), columns, figsize=(2.3 * columns, 4.9 * len(variants)), squeeze=False
        )
        for axes in panels.ravel():
            axes.set_axis_off()
        for number, variant in enumerate(variants):
            for column, entry in enumerate(entry for entry in maps if entry["variant"] == variant):
                image, change = np.array(entry["image"], np.float32), np.array(entry["change"])
                camera_picture(panels[2 * number, column], image, camera, float(np.log10(1 + image.max())))
                energy = f", {entry['energy']:.0f} TeV" if entry["energy"] else ""
                kind = "gamma" if entry["gamma"] else "hadron"
                panels[2 * number, column].set_title(f"{kind}{energy}, score {entry['score']:.2f}", fontsize=8)
                drawn = camera_picture(panels[2 * number + 1, column], image, camera, 1.0, cmap="RdBu")
                most = float(np.abs(change).max()) or 1.0
                drawn.set_array(change)
                drawn.set_clim(-most, most)
                panels[2 * number + 1, column].set_title(f"logit: ± {most:.2g}", fontsize=8)
        figure.tight_layout()
        return png(figure)


def applied_scores(datasets: Sequence[Row], bins: Sequence[float]) -> str:
    """Draw the scores of other images beside those of our test gammas, for each dataset and network."""
    shown = [(entry, network) for entry in datasets for network in entry["networks"]]
    columns = 3
    with plt.rc_context(STYLE):
        rows = max(1, -(-len(shown) // columns))
        figure, panels = plt.subplots(rows, columns, figsize=(11.0, 2.5 * rows), sharex=True, squeeze=False)
        for axes, (entry, network) in zip(panels.ravel(), shown, strict=False):
            for counts, ink, name in (
                (network["histogram_own"], "#999999", "our test gammas"),
                (network["histogram"], "#0072b2", "its images, selected or not"),
                (network["histogram_selected"], "#d55e00", "those that pass the selection"),
            ):
                axes.stairs(np.array(counts) / max(sum(counts), 1), bins, color=ink, linewidth=1.4, label=name)
            axes.axvline(network["cut"], color="#555", linewidth=1, linestyle="--")
            axes.set_title(f"{entry['name']}: {network['title']}, {network['variant']}", fontsize=8)
        for axes in panels.ravel()[len(shown) :]:
            axes.set_visible(False)
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncols=3, fontsize=8)
        figure.tight_layout(rect=(0, 0.06, 1, 1))
        return svg(figure)


def showers(entries: Sequence[Row]) -> str:
    """Draw bias and resolution of energy, and the angle of 68 %, against true energy."""
    styles = {"none": "-", "soft": (0, (4, 2)), "standard": (0, (1, 1.5))}
    quantities = (
        ("energy_bias", "bias of the energy"),
        ("energy_resolution", "resolution of the energy"),
        ("angle_68", "68 % of directions within (deg)"),
    )
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(11.0, 3.8))
        for axes, (name, label) in zip(panels, quantities, strict=True):
            for entry in entries:
                bins = [found for found in entry["bins"] if found["energy_bias"] is not None]
                axes.plot(
                    [np.sqrt(found["low"] * found["high"]) for found in bins],
                    [found[name] for found in bins],
                    color=COLOURS["trees"] if entry["method"] == "boosted trees" else colour(entry["method"]),
                    linestyle=styles.get(entry["variant"], "-"),
                    marker="o",
                    markersize=4,
                    label=f"{entry['method']}, {entry['variant']}",
                )
            axes.set(xscale="log", xlabel="true energy (TeV)", ylabel=label)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_ylim(*((None, None) if name == "energy_bias" else (0, None)))
        panels[0].axhline(0, color="#999", linewidth=0.8, linestyle=":")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncols=4, fontsize=8)
        figure.tight_layout(rect=(0, 0.12, 1, 1))
        return svg(figure)
