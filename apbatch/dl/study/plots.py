"""Plots of the study's report, as SVG text; pictures of cameras as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from apbatch.dl.judging.plots import STYLE, svg
from apbatch.dl.networks.treatment import cleaning_of, is_plain, planes_of, sky_of
from apbatch.dl.study import methods

#: What cleanings are called in words.
CLEANING = {
    "none": "without cleaning",
    "soft": "soft cleaning (7 / 3.5 p.e.)",
    "standard": "standard cleaning (14 / 7 p.e.)",
}
Row = dict[str, Any]


def treatment_title(name: str) -> str:
    """Return what images of a treatment are, in words, without grid."""
    cleaning, sky = CLEANING.get(cleaning_of(name), cleaning_of(name)), sky_of(name)
    words = [
        cleaning,
        *([f"sky brighter by {sky:g} p.e."] if sky else []),
        *(f"with {plane}" for plane in planes_of(name)),
    ]
    return ", ".join(words)


def colour(method: str) -> str:
    """Return the colour of a method."""
    return methods.method_named(method).colour


def in_plots(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of plots and short tables: where there is a mean of trainings, that one stands for them."""
    means = {(methods.base_of(row["method"]), row["treatment"]) for row in rows if row["method"].endswith(methods.MEAN)}
    return [row for row in rows if (row["method"], row["treatment"]) not in means]


def quality_overview(rows: Sequence[Row], cleanings: Sequence[str]) -> str:
    """Draw Q of every method with its error for each cleaning: the table at a glance."""
    rows = [row for row in rows if is_plain(row["treatment"])]
    names = list(dict.fromkeys(row["method"] for row in rows))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9.6, 4.0))
        step = 0.8 / len(names)
        for number, method in enumerate(names):
            of = {row["treatment"]: row for row in rows if row["method"] == method}
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
                    marker=methods.method_named(method).mark,
                    markerfacecolor=colour(method) if not method.endswith(methods.MEAN) else "white",
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
    """Draw a quantity of the curves (``quality``, ``gamma_efficiency``, ``hadron_rejection``) against the cut.

    Parameters
    ----------
    rows : sequence of dict
        Rows of the study.
    cleanings : sequence of str
        One panel each.
    hadrons_min : int
        Curves end where fewer hadrons are left.
    what : str
        The quantity.
    label : str
        Label of its axis.

    Returns
    -------
    str
        SVG.
    """
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(cleanings), figsize=(11.0, 3.7), sharex=True, sharey=True, squeeze=False)
        for axes, cleaning in zip(panels[0], cleanings, strict=True):
            for row in in_plots([row for row in rows if row["treatment"] == cleaning]):
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
        cuts,
        _floats(curve[what + "_low"]),
        _floats(curve[what + "_high"]),
        color=colour(row["method"]),
        alpha=0.14,
        linewidth=0,
    )
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
            for row in in_plots([row for row in rows if row["treatment"] == cleaning]):
                cuts, relative = np.array(row["price"]["cuts"]), _floats(row["price"]["relative"])
                axes.plot(cuts, relative, color=colour(row["method"]), linewidth=1.5, label=row["title"])
                if row["price"]["chosen"] is not None:
                    axes.plot(
                        [row["trainings"][0]["cut"]],
                        [row["price"]["chosen"]],
                        "o",
                        color=colour(row["method"]),
                        markeredgecolor="white",
                    )
            axes.axvline(0.5, color="#999", linewidth=0.8, linestyle=":")
            axes.set(xlabel="cut on the score", title=CLEANING.get(cleaning, cleaning), xlim=(0, 1), ylim=(0, 1.05))
        panels[0][0].set(ylabel="significance / that of the best cut")
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncols=3, fontsize=8)
        figure.tight_layout(rect=(0, 0.14, 1, 1))
        return svg(figure)


def binned(rows: Sequence[Row], bins: Sequence[dict[str, Any]], cleaning: str) -> str:
    """Draw Q in bins of energy, size and zenith, for one cleaning.

    Parameters
    ----------
    rows : sequence of dict
        Rows of the study.
    bins : sequence of dict
        Name, unit and edges of each quantity.
    cleaning : str
        Rows of this one are drawn.

    Returns
    -------
    str
        SVG.
    """
    of = in_plots([row for row in rows if row["treatment"] == cleaning])
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(bins), figsize=(11.0, 3.7), sharey=True, squeeze=False)
        for axes, variable in zip(panels[0], bins, strict=True):
            edges = np.array(variable["edges"])
            logarithmic = variable["name"] != "zenith"
            middles = np.sqrt(edges[1:] * edges[:-1]) if logarithmic else (edges[1:] + edges[:-1]) / 2
            for number, row in enumerate(of):
                shift = (number - (len(of) - 1) / 2) * 0.012
                span = np.log10(edges[-1] / edges[0]) if logarithmic else np.ptp(edges)
                places = middles * 10 ** (shift * span) if logarithmic else middles + shift * span
                qualities = [entry["quality"] for entry in row["bins"][variable["name"]]]
                use = [place for place, quality in enumerate(qualities) if quality is not None]
                axes.errorbar(
                    places[use],
                    [qualities[place]["value"] for place in use],
                    yerr=[qualities[place]["error"] for place in use],
                    color=colour(row["method"]),
                    marker=methods.method_named(row["method"]).mark,
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
            what = {"energy": "estimated energy"}.get(variable["name"], variable["name"])
            axes.axhline(1, color="#999", linewidth=0.8, linestyle=":")
            axes.set(xlabel=f"{what} ({variable['unit']})")
        panels[0][0].set(ylabel="quality factor Q")
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncols=3, fontsize=8)
        figure.tight_layout(rect=(0, 0.13, 1, 1))
        return svg(figure)


def score_distributions(rows: Sequence[Row], bins: Sequence[float]) -> str:
    """Draw how the scores of test gammas and hadrons are spread, on a logarithmic scale."""
    rows = in_plots([row for row in rows if is_plain(row["treatment"])])
    columns = 3 if len(rows) > 4 else 2
    lines = -(-len(rows) // columns)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(lines, columns, figsize=(11.0, 2.5 * lines), sharex=True, squeeze=False)
        for axes, row in zip(panels.ravel(), rows, strict=False):
            for kind, ink in (("gammas", "#3b5ba9"), ("hadrons", "#c0504d")):
                counts = np.array(row["scores"][kind])
                axes.stairs(counts / max(counts.sum(), 1), bins, color=ink, linewidth=1.5, label=kind)
            for training in row["trainings"]:
                axes.axvline(training["cut"], color="#555", linewidth=0.9, linestyle="--")
            axes.set(yscale="log", xlim=(0, 1), ylim=(5e-4, 1.5))
            axes.set_title(f"{row['title']}, {row['treatment']}", fontsize=9)
        for axes in panels.ravel()[len(rows) :]:
            axes.set_axis_off()
        for axes in panels[-1]:
            axes.set_xlabel("score")
        for line in panels:
            line[0].set_ylabel("share of events")
        panels[0][0].legend(loc="upper center", ncols=2)
        figure.tight_layout()
        return svg(figure)


def roc_curves(rows: Sequence[Row], cleanings: Sequence[str]) -> str:
    """Draw gamma efficiency against hadron efficiency, one panel a cleaning, with the areas under the curves."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(cleanings), figsize=(11.0, 4.0), sharey=True, squeeze=False)
        for axes, cleaning in zip(panels[0], cleanings, strict=True):
            for row in in_plots([row for row in rows if row["treatment"] == cleaning]):
                label = f"{row['title']} ({row['auc']:.3f})"
                axes.plot(row["roc"]["hadrons"], row["roc"]["gammas"], color=colour(row["method"]), label=label)
            axes.plot([0, 1], [0, 1], color="#999", linewidth=0.8, linestyle=":")
            axes.set(xlabel="hadron efficiency", title=CLEANING.get(cleaning, cleaning), xlim=(0, 1), ylim=(0, 1.01))
            axes.legend(loc="lower right", fontsize=7.5, title="area under the curve", title_fontsize=7.5)
        panels[0][0].set_ylabel("gamma efficiency")
        figure.tight_layout()
        return svg(figure)


def _floats(values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)
