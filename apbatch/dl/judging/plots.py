"""Plots of the report, as SVG text that goes into the page; images of showers as PNG."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from apbatch.camera.geometry import CameraGeometry
from apbatch.dl.judging.evaluation import Evaluation, Result
from apbatch.dl.judging.q_factor import FEW_HADRONS

#: Colour-blind safe; a method has one colour, cleaned images a full line.
_COLOURS = {"cuts": "#b35806", "cnn": "#3b5ba9"}
_OTHER = "#4d7a4d"
_GAMMA, _HADRON = "#3b5ba9", "#c0504d"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.edgecolor": "#888",
    "axes.titlesize": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "apbatch",  # equal figures have equal bytes
    "font.family": "sans-serif",
}


def treatment(variant: str) -> str:
    """Return what a treatment is called in words."""
    return {"none": "without cleaning", "cleaned": "with cleaning"}.get(variant, variant)


def quality_against_cut(evaluation: Evaluation) -> str:
    """Draw Q against the cut on the score, one panel a treatment, with bootstrap bands and the chosen cuts."""
    variants = list(dict.fromkeys(result.variant for result in evaluation.results))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(variants), figsize=(9.6, 4.0), sharex=True, sharey=True, squeeze=False)
        top = 1.5
        for axes, variant in zip(panels[0], variants, strict=True):
            for result in (result for result in evaluation.results if result.variant == variant):
                _quality(axes, result)
                top = max(top, _top(result))
            axes.axhline(1, color="#999", linewidth=0.8, linestyle=":")
            axes.set(xlabel="cut on the score: events above it are gamma candidates", title=treatment(variant))
            axes.legend(loc="upper left")
        panels[0][0].set(ylabel="quality factor Q", xlim=(0, 1), ylim=(0, min(1.15 * top, 8)))
        figure.tight_layout()
        return svg(figure)


def _quality(axes: Axes, result: Result) -> None:
    colour = _COLOURS.get(result.method, _OTHER)
    cuts, q = np.array(result.cuts), _floats(result.q)
    few = np.array(_hadrons(result)) < FEW_HADRONS
    axes.fill_between(cuts, _floats(result.q_low), _floats(result.q_high), color=colour, alpha=0.16, linewidth=0)
    axes.plot(cuts, np.where(few, np.nan, q), color=colour, linewidth=1.8, label=result.title)
    axes.plot(cuts, np.where(few, q, np.nan), color=colour, linewidth=1.1, linestyle=(0, (2, 2)))
    if result.quality is not None:
        axes.plot([result.cut], [result.quality], "o", color=colour, markersize=6, markeredgecolor="white")


def _hadrons(result: Result) -> list[int]:
    total = result.hadrons_in_bin
    return [sum(total) - right for right in result.correct_hadrons]


def _top(result: Result) -> float:
    """Return how high a panel must reach to show what is more than chance."""
    enough = np.array(_hadrons(result)) >= 10
    high = _floats(result.q_high)[enough]
    return float(np.nanmax(high)) if np.isfinite(high).any() else 1.0


def correct_against_cut(evaluation: Evaluation) -> str:
    """Draw how many gammas (and hadrons) are told rightly against the cut."""
    test = evaluation.events["test"]
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.0), sharex=True)
        for result in evaluation.results:
            colour = _COLOURS.get(result.method, _OTHER)
            line = "-" if result.variant == "cleaned" else (0, (5, 2))
            label = f"{result.title}, {treatment(result.variant)}"
            if result.variant == "cleaned":
                panels[0].fill_between(
                    result.cuts,
                    result.correct_gammas_low,
                    result.correct_gammas_high,
                    color=colour,
                    alpha=0.12,
                    linewidth=0,
                )
            panels[0].plot(result.cuts, result.correct_gammas, color=colour, linestyle=line, label=label)
            panels[1].plot(result.cuts, result.correct_hadrons, color=colour, linestyle=line, label=label)
        for axes, kind, total in zip(panels, ("gammas", "hadrons"), (test["gammas"], test["hadrons"]), strict=True):
            axes.axhline(total, color="#999", linewidth=0.8, linestyle=":")
            axes.set(xlabel="cut on the score", ylabel=f"correctly identified {kind}", ylim=(0, 1.08 * total))
            axes.annotate(f"all {total}", (0.995, total), ha="right", va="bottom", color="#777", fontsize=9)
        panels[0].set_xlim(0, 1)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8)
        figure.tight_layout(rect=(0, 0.07, 1, 1))
        return svg(figure)


def learning_curves(evaluation: Evaluation) -> str:
    """Draw loss and AUC of the validation set against the epoch."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.4))
        for variant, curve in evaluation.curves.items():
            line = "-" if variant == "cleaned" else (0, (5, 2))
            epochs = np.arange(1, len(curve) + 1)
            name = treatment(variant)
            left.plot(
                epochs, [entry["loss"] for entry in curve], color="#999", linestyle=line, label=f"training, {name}"
            )
            losses = [entry["validation_loss"] for entry in curve]
            left.plot(epochs, losses, color=_COLOURS["cnn"], linestyle=line, label=f"validation, {name}")
            best = int(np.argmin(losses))
            left.plot([best + 1], [losses[best]], "o", color=_COLOURS["cnn"], markeredgecolor="white")
            auc = [entry["validation_auc"] for entry in curve]
            right.plot(epochs, auc, color=_COLOURS["cnn"], linestyle=line, label=name)
        left.set(xlabel="epoch", ylabel="cross-entropy, classes weighted alike")
        right.set(xlabel="epoch", ylabel="AUC of the validation set")
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
        figure.tight_layout()
        return svg(figure)


def score_distributions(evaluation: Evaluation) -> str:
    """Draw how the scores of test gammas and hadrons are spread, on a logarithmic scale."""
    results = evaluation.results
    columns = 2
    rows = -(-len(results) // columns)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(rows, columns, figsize=(9.6, 2.7 * rows), sharex=True, squeeze=False)
        for axes, result in zip(panels.ravel(), results, strict=False):
            for counts, colour, name in (
                (result.gammas_in_bin, _GAMMA, "gammas"),
                (result.hadrons_in_bin, _HADRON, "hadrons"),
            ):
                share = np.array(counts) / max(sum(counts), 1)
                axes.stairs(share, result.bins, color=colour, linewidth=1.6, label=name)
                axes.stairs(share, result.bins, color=colour, alpha=0.12, fill=True)
            axes.axvline(result.cut, color="#555", linewidth=1, linestyle="--")
            axes.set(title=f"{result.title}, {treatment(result.variant)}", yscale="log", xlim=(0, 1), ylim=(5e-4, 1.5))
            axes.set_ylabel("share of events")
        for axes in panels.ravel()[len(results) :]:
            axes.set_visible(False)
        for axes in panels[-1]:
            axes.set_xlabel("score")
        panels[0][0].legend(loc="upper center", ncols=2)
        figure.tight_layout()
        return svg(figure)


def roc_curves(evaluation: Evaluation) -> str:
    """Draw gamma efficiency against hadron efficiency."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.9, 4.4))
        for result in evaluation.results:
            colour = _COLOURS.get(result.method, _OTHER)
            line = "-" if result.variant == "cleaned" else (0, (5, 2))
            label = f"{result.title}, {treatment(result.variant)} ({result.auc:.3f})"
            axes.plot(result.roc_hadrons, result.roc_gammas, color=colour, linestyle=line, label=label)
            axes.plot([result.hadron_efficiency], [result.gamma_efficiency], "o", color=colour, markeredgecolor="white")
        axes.plot([0, 1], [0, 1], color="#999", linewidth=0.8, linestyle=":")
        axes.set(xlabel="hadron efficiency", ylabel="gamma efficiency", xlim=(0, 1), ylim=(0, 1.01))
        axes.legend(loc="lower right", fontsize=7.5, title="area under the curve", title_fontsize=7.5)
        figure.tight_layout()
        return svg(figure)


def shower_images(examples: list[dict[str, Any]], seen: npt.NDArray[np.bool_]) -> str:
    """Draw cameras as hexagons: above without, below with cleaning; return a data URL of a PNG.

    Parameters
    ----------
    examples : list of dict
        Each with `title`, `grid` and `grid_cleaned`, arrays of shape (rows, cols) in p.e.
    seen : ndarray of bool, shape (rows, cols)
        Cells of the axial grid that are pixels.
    """
    r, q = np.nonzero(seen)
    x, y = q + r / 2, r * np.sqrt(0.75)
    turn = np.radians(np.arange(30, 390, 60))
    corners = np.stack([np.cos(turn), np.sin(turn)], axis=1) / np.sqrt(3)
    hexagons = np.stack([x, y], axis=1)[:, None, :] + corners
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = plt.subplots(2, len(examples), figsize=(1.75 * len(examples) + 0.8, 3.75), squeeze=False)
        figure.subplots_adjust(left=0.02, right=0.92, top=0.86, bottom=0.02, wspace=0.04, hspace=0.04)
        top = max(float(np.max(example["grid"])) for example in examples)
        for number, example in enumerate(examples):
            for axes, column in zip(panels[:, number], ("grid", "grid_cleaned"), strict=True):
                values = np.log10(1 + np.maximum(example[column][r, q], 0))
                drawn = PolyCollection(list(hexagons), array=values, cmap="magma", edgecolors="none")
                drawn.set_clim(0, np.log10(1 + top))
                axes.add_collection(drawn)
                axes.set(xlim=(x.min() - 1, x.max() + 1), ylim=(y.min() - 1, y.max() + 1), aspect="equal")
                axes.set_axis_off()
            panels[0, number].set_title(example["title"], fontsize=8)
        place = figure.add_axes((0.935, 0.1, 0.012, 0.72))
        ticks = [tick for tick in (0, 3, 10, 30, 100, 300, 1000, 3000) if tick <= top]
        bar = figure.colorbar(drawn, cax=place, ticks=np.log10(1 + np.array(ticks)))
        bar.set_ticklabels([str(tick) for tick in ticks])
        bar.set_label("p.e.", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        return png(figure)


def camera_picture(
    axes: Axes, image: npt.NDArray[np.float32], camera: CameraGeometry, top: float, cmap: str = "magma"
) -> PolyCollection:
    """Draw one image, shape (n_pixels,) in p.e., as the hexagons of its camera; `top` is log10(1 + p.e.)."""
    # A corner points between two neighbours: 30 degrees from the direction to one of them.
    near = camera.neighbours[:, 0]
    first = int(np.flatnonzero(near >= 0)[0])
    direction = np.arctan2(camera.y[near[first]] - camera.y[first], camera.x[near[first]] - camera.x[first])
    turn = direction + np.radians(np.arange(30, 390, 60))
    corners = np.stack([np.cos(turn), np.sin(turn)], axis=1) * camera.pitch / np.sqrt(3)
    hexagons = np.stack([camera.x, camera.y], axis=1)[:, None, :] + corners
    values = np.log10(1 + np.maximum(np.nan_to_num(image), 0))
    drawn = PolyCollection(list(hexagons), array=values, cmap=cmap, edgecolors="none")
    drawn.set_clim(0, top)
    axes.add_collection(drawn)
    margin = camera.pitch
    axes.set(
        xlim=(camera.x.min() - margin, camera.x.max() + margin),
        ylim=(camera.y.min() - margin, camera.y.max() + margin),
        aspect="equal",
    )
    axes.set_axis_off()
    return drawn


def png(figure: Figure) -> str:
    """Return a figure as the data URL of a PNG for a page, and close it."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def svg(figure: Figure) -> str:
    """Return a figure as SVG text for a page, and close it."""
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = sink.getvalue()
    return text[text.index("<svg") :]


def _floats(values: list[float | None]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)
