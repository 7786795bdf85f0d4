"""Plots of what networks learned, look at and are disturbed by, and of the images that they see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from apbatch.camera.geometry import CameraGeometry
from apbatch.dl.judging.plots import STYLE, camera_picture, png, svg
from apbatch.dl.study import methods
from apbatch.dl.study.plots import Row, colour

#: How lines of a cleaning are drawn.
_LINES: dict[str, Any] = {"none": "-", "soft": (0, (4, 2)), "standard": (0, (1, 1.5))}


def learning_curves(curves: Sequence[Row]) -> str:
    """Draw the losses and the validation AUC of every training against the epoch, and the epoch that is used."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11.0, 3.8))
        for entry in curves:
            ink, line = colour(entry["method"]), _LINES.get(entry["treatment"], "-")
            number = np.arange(1, len(entry["epochs"]) + 1)
            name = f"{methods.title_of(entry['method'])}, {entry['treatment']}" if entry["training"] == 1 else None
            losses = [epoch["validation_loss"] for epoch in entry["epochs"]]
            left.plot(number, [epoch["loss"] for epoch in entry["epochs"]], color=ink, linestyle=line, alpha=0.3)
            left.plot(number, losses, color=ink, linestyle=line, label=name)
            best = int(np.argmin(losses))
            left.plot([best + 1], [losses[best]], "o", color=ink, markersize=4, markeredgecolor="white")
            right.plot(number, [epoch["validation_auc"] for epoch in entry["epochs"]], color=ink, linestyle=line)
        left.set(xlabel="epoch", ylabel="cross-entropy, classes weighted alike")
        right.set(xlabel="epoch", ylabel="AUC of the validation set")
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="lower center", ncols=4, fontsize=8)
        figure.tight_layout(rect=(0, 0.13, 1, 1))
        return svg(figure)


def shower_images(examples: Sequence[tuple[str, dict[str, npt.NDArray[np.float32]]]], camera: CameraGeometry) -> str:
    """Draw images as each cleaning leaves them, a column an image; return a data URL of a PNG.

    Parameters
    ----------
    examples : sequence of (str, dict)
        A title, and by cleaning the image, shape (n_pixels,) in p.e.
    """
    cleanings = list(examples[0][1])
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = plt.subplots(
            len(cleanings), len(examples), figsize=(1.9 * len(examples), 2.05 * len(cleanings)), squeeze=False
        )
        top = float(np.log10(1 + max(float(np.nanmax(image)) for _, images in examples for image in images.values())))
        for column, (title, images) in enumerate(examples):
            for line, image in enumerate(images.values()):
                camera_picture(panels[line, column], image, camera, top)
            panels[0, column].set_title(title, fontsize=8)
        figure.tight_layout()
        return png(figure)


def robustness(entries: Sequence[Row]) -> str:
    """Draw Q over that of undisturbed images against the strength of each disturbance; a style for each cleaning."""
    kinds = list(dict.fromkeys(entry["kind"] for entry in entries))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, -(-len(kinds) // 2), figsize=(11.0, 6.2), squeeze=False, sharey=True)
        for axes, kind in zip(panels.ravel(), kinds, strict=False):
            of = [entry for entry in entries if entry["kind"] == kind]
            for method, treatment in dict.fromkeys((entry["method"], entry["treatment"]) for entry in of):
                mine = [entry for entry in of if (entry["method"], entry["treatment"]) == (method, treatment)]
                mine = [entry for entry in mine if entry["ratio"] is not None]
                axes.errorbar(
                    [entry["strength"] for entry in mine],
                    [entry["ratio"]["value"] for entry in mine],
                    yerr=[entry["ratio"]["error"] for entry in mine],
                    color=colour(method),
                    linestyle=_LINES.get(treatment, "-"),
                    marker=methods.method_named(method).mark,
                    markersize=4,
                    linewidth=1.1,
                    capsize=2,
                    label=f"{of[0]['title'] if not mine else mine[0]['title']}, {treatment}",
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
    treatments = list(dict.fromkeys(entry["treatment"] for entry in maps))
    columns = max(sum(entry["treatment"] == treatment for entry in maps) for treatment in treatments)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = plt.subplots(
            2 * len(treatments), columns, figsize=(2.3 * columns, 4.9 * len(treatments)), squeeze=False
        )
        for axes in panels.ravel():
            axes.set_axis_off()
        for number, treatment in enumerate(treatments):
            for column, entry in enumerate(entry for entry in maps if entry["treatment"] == treatment):
                image, change = np.array(entry["image"], np.float32), np.array(entry["change"])
                camera_picture(panels[2 * number, column], image, camera, float(np.log10(1 + image.max())))
                energy = f", {entry['energy']:.0f} TeV" if entry["energy"] else ""
                kind = "gamma" if entry["gamma"] else "hadron"
                panels[2 * number, column].set_title(f"{kind}{energy}, score {entry['score']:.2f}", fontsize=8)
                pixels = camera_picture(panels[2 * number + 1, column], image, camera, 1.0, cmap="RdBu")
                most = float(np.abs(change).max()) or 1.0
                pixels.set_array(change)
                pixels.set_clim(-most, most)
                panels[2 * number + 1, column].set_title(f"logit: ± {most:.2g}", fontsize=8)
        figure.tight_layout()
        return png(figure)


def applied_scores(datasets: Sequence[Row], bins: Sequence[float]) -> str:
    """Draw the scores of other images beside those of our test gammas, for each dataset and network."""
    pairs = [(entry, network) for entry in datasets for network in entry["networks"]]
    columns = 3
    with plt.rc_context(STYLE):
        rows = max(1, -(-len(pairs) // columns))
        figure, panels = plt.subplots(rows, columns, figsize=(11.0, 2.5 * rows), sharex=True, squeeze=False)
        for axes, (entry, network) in zip(panels.ravel(), pairs, strict=False):
            for counts, ink, name in (
                (network["histogram_own"], "#999999", "our test gammas"),
                (network["histogram"], "#0072b2", "its images, selected or not"),
                (network["histogram_selected"], "#d55e00", "those that pass the selection"),
            ):
                axes.stairs(np.array(counts) / max(sum(counts), 1), bins, color=ink, linewidth=1.4, label=name)
            axes.axvline(network["cut"], color="#555", linewidth=1, linestyle="--")
            axes.set_title(f"{entry['name']}: {network['title']}, {network['treatment']}", fontsize=8)
        for axes in panels.ravel()[len(pairs) :]:
            axes.set_visible(False)
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncols=3, fontsize=8)
        figure.tight_layout(rect=(0, 0.06, 1, 1))
        return svg(figure)


def showers(entries: Sequence[Row]) -> str:
    """Draw bias and resolution of energy, and the angle of 68 %, against true energy."""
    quantities = (
        ("energy_bias", "bias of the energy"),
        ("energy_resolution", "resolution of the energy"),
        ("angle_68", "68 % of directions within (deg)"),
    )
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(11.0, 3.8))
        for axes, (name, label) in zip(panels, quantities, strict=True):
            for entry in entries:
                bins = [one for one in entry["bins"] if one["energy_bias"] is not None]
                axes.plot(
                    [np.sqrt(one["low"] * one["high"]) for one in bins],
                    [one[name] for one in bins],
                    color=colour(entry["method"]),
                    linestyle=_LINES.get(entry["treatment"], "-"),
                    marker="o",
                    markersize=4,
                    label=f"{entry['title']}, {entry['treatment']}",
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
