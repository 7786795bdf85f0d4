"""One small picture an operation: every sample a dot, the median a bar."""

from __future__ import annotations

import io
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from apbatch.bench.statistics import Result

_COLOURS = {
    "bare disk": "#9aa3ab",
    "local store": "#3b6ea5",
    "HDFS (hdfs-native)": "#c9711c",
    "HDFS (WebHDFS)": "#e0a458",
    "AFS": "#6a8f3c",
    "SQLite": "#3b6ea5",
    "SQLite (bare driver)": "#9db7d2",
    "PostgreSQL": "#2f7d6b",
    "Cassandra": "#7a4fa3",
    "apbatch": "#3b6ea5",
    "ctapipe": "#c9711c",
    "numpy.sum": "#9aa3ab",
}
#: Beyond this span of figures the axis is logarithmic.
_LOG_SPAN = 20.0


def svg(result: Result) -> str:
    """Return the plot of a result as an SVG element; empty if nothing was measured."""
    figures = result.figures
    if not figures:
        return ""
    settings = {"font.family": "sans-serif", "font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "apbatch"}
    with plt.rc_context(settings):
        picture, axes = plt.subplots(figsize=(8.6, 0.62 + 0.36 * len(figures)))
        for row, figure in enumerate(reversed(figures)):
            colour = _COLOURS.get(figure.peer, "#555555")
            axes.plot(
                [figure.low, figure.high], [row, row], color=colour, alpha=0.35, linewidth=7, solid_capstyle="round"
            )
            axes.plot(figure.values, [row] * len(figure.values), "o", color=colour, markersize=4, alpha=0.75)
            axes.plot([figure.median] * 2, [row - 0.32, row + 0.32], color="#222222", linewidth=1.6)
        axes.set_yticks(range(len(figures)), [figure.peer for figure in reversed(figures)])
        axes.set_ylim(-0.6, len(figures) - 0.4)
        values = [value for figure in figures for value in figure.values]
        if max(values) > _LOG_SPAN * min(values):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        else:
            axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}".replace(",", "\u2009"))
        better = "more is better" if result.operation.higher_is_better else "less is better"
        axes.set_xlabel(f"{result.operation.unit} ({better})")
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(left=False)
        picture.tight_layout(pad=0.4)
        text = io.StringIO()
        picture.savefig(text, format="svg", metadata={"Date": None})
        plt.close(picture)
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.DOTALL)
