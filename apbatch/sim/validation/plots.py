"""Figures of the validation report, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from apbatch.sim.validation.check import AGREES, DISAGREES, Check

Floats = npt.NDArray[np.float64]

_HERE, _THERE = "#3b5ba9", "#b35806"
_COLOURS = ("#3b5ba9", "#b35806", "#4d7a4d", "#7a4d7a", "#555555", "#2a8c8c")
_VERDICTS = {AGREES: "#3b5ba9", DISAGREES: "#c0504d"}
_STYLE = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.edgecolor": "#888",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "apbatch",
}


def pairs(columns: Sequence[tuple[str, Floats, Floats]], reference: str) -> str:
    """Draw the distributions of several quantities, here (filled) and in the reference (line)."""
    with plt.rc_context(_STYLE):
        wide = min(3, len(columns))
        deep = -(-len(columns) // wide)
        figure, axes = plt.subplots(deep, wide, figsize=(3.3 * wide, 2.6 * deep), squeeze=False)
        for panel, (label, here, there) in zip(axes.flat, columns, strict=False):
            both = np.concatenate([here, there])
            both = both[np.isfinite(both)]
            if not len(both):
                continue
            scale = label.startswith("size")
            low, high = np.quantile(both, [0.005, 0.995])
            edges = np.geomspace(max(low, 1.0), high, 22) if scale else np.linspace(low, high, 22)
            panel.hist(here, edges, color=_HERE, alpha=0.35, label="here")
            panel.hist(there, edges, color=_THERE, histtype="step", linewidth=1.5, label=reference)
            panel.set(xlabel=label, yticks=[])
            if scale:
                panel.set_xscale("log")
        for panel in axes.flat[len(columns) :]:
            panel.set_visible(False)
        axes.flat[0].set_ylabel("images")
        axes.flat[0].legend(fontsize=8)
        return _svg(figure)


def weighted(columns: Sequence[tuple[str, Floats, Floats, Floats]], reference: str) -> str:
    """Draw distributions of weighted images here (filled) and of the reference (line), with the same area."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, len(columns), figsize=(2.9 * len(columns), 2.6), squeeze=False)
        for panel, (label, here, weight, there) in zip(axes[0], columns, strict=True):
            scale = label in ("size", "n_pixels")
            low, high = np.quantile(np.concatenate([here, there]), [0.005, 0.995])
            edges = np.geomspace(max(low, 1.0), high, 22) if scale else np.linspace(low, high, 22)
            panel.hist(here, edges, weights=weight / weight.sum(), color=_HERE, alpha=0.35, label="here")
            even = np.full(len(there), 1.0 / len(there))
            panel.hist(there, edges, weights=even, color=_THERE, histtype="step", linewidth=1.5, label=reference)
            panel.set(xlabel=label, yticks=[])
            if scale:
                panel.set_xscale("log")
        axes[0, 0].legend(fontsize=8)
        return _svg(figure)


def ratios(checks: Sequence[Check], where: str) -> str:
    """Draw the ratios of checks whose place starts with a word, one panel a quantity, with two standard errors."""
    mine = [check for check in checks if check.where.startswith(where)]
    names = list(dict.fromkeys(check.quantity for check in mine))
    if not names:
        return ""
    with plt.rc_context(_STYLE):
        wide = min(4, len(names))
        deep = -(-len(names) // wide)
        figure, axes = plt.subplots(deep, wide, figsize=(2.7 * wide, 2.5 * deep), squeeze=False, sharey=True)
        for panel, name in zip(axes.flat, names, strict=False):
            rows = [check for check in mine if check.quantity == name]
            aim = rows[0].aim
            panel.axhspan(1.0 - aim, 1.0 + aim, color="#000", alpha=0.07, linewidth=0)
            panel.axhline(1.0, color="#999", linewidth=0.8)
            for place, check in enumerate(rows):
                colour = _VERDICTS.get(check.verdict, "#999999")
                panel.errorbar(place, check.ratio, 2.0 * check.error, fmt="o", color=colour, markersize=4)
            panel.set_xticks(range(len(rows)), [c.where.split()[-1].split("–")[0] for c in rows], fontsize=7)
            panel.set_title(name, fontsize=9)
            panel.set_ylim(0.65, 1.35)
        for panel in axes.flat[len(names) :]:
            panel.set_visible(False)
        axes[-1, 0].set_xlabel(f"{where}, lower end of the bin")
        return _svg(figure)


def profiles(curves: Sequence[tuple[str, Floats, Floats, Floats]]) -> str:
    """Draw profiles over depth: points are here, lines the reference."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, len(curves), figsize=(4.4 * len(curves), 3.0), squeeze=False)
        for panel, (label, x, here, there) in zip(axes[0], curves, strict=True):
            panel.plot(x, here, ".", color=_HERE, markersize=4)
            panel.plot(x, there, color=_THERE, linewidth=1.4)
            panel.set(title=label, xlabel="depth, g/cm²", xlim=(0, 800))
        axes[0, 0].set_ylabel("electrons")
        return _svg(figure)


def lateral(curves: Sequence[tuple[str, Floats, Floats]]) -> str:
    """Draw the density of light by the distance from the axis."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(5.2, 3.2))
        for colour, (label, r, light) in zip(_COLOURS, curves, strict=False):
            axes.plot(r, light, "o-", color=colour, markersize=4, linewidth=1, label=label)
        axes.set(xlabel="distance from the axis, m", ylabel="photons a m² and TeV", yscale="log")
        axes.legend()
        return _svg(figure)


def rings(radii: dict[str, Floats], angle: float) -> str:
    """Draw the radial distribution of muon rings."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(5.2, 3.0))
        edges = np.linspace(angle - 0.35, angle + 0.35, 71)
        for colour, (name, r) in zip(_COLOURS, radii.items(), strict=False):
            axes.hist(r, edges, color=colour, histtype="step", density=True, label=name)
        axes.axvline(angle, color="#999", linewidth=0.9)
        axes.set(xlabel="distance, deg", yticks=[])
        axes.legend()
        return _svg(figure)


def _svg(figure: Figure) -> str:
    figure.tight_layout()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue().split("\n", 3)[-1] if text.getvalue().startswith("<?xml") else text.getvalue()
