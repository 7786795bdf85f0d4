"""Verdicts on the goals of a study, and what treatments do to a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from apbatch.dl.judging.resampling import Comparison, compare
from apbatch.dl.networks.treatment import cleaning_of, has_axial_grid, images_of, is_plain
from apbatch.dl.study.methods import base_of, method_named, title_of
from apbatch.dl.study.rows import Row
from apbatch.dl.study.settings import Goal


def verdicts_on(rows: Sequence[Row], goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """Judge the goals, for each cleaning, sky and plane, and over all; the best are picked by their validation Q.

    The best of all are of the usual sky and of images alone. A rival that was not judged with a plane is that of the
    images alone.
    """
    images = dict.fromkeys(row.treatment for row in rows if has_axial_grid(row.treatment))
    return [
        verdict
        for name in [*images, None]
        for goal in goals
        if goal.cleaning is None or (name is not None and goal.cleaning == cleaning_of(name))
        if (verdict := _verdict(rows, goal, name)) is not None
    ]


def _verdict(rows: Sequence[Row], goal: Goal, images: str | None) -> dict[str, Any] | None:
    """Judge one goal for images of one treatment, or None for the best of all; None where a side is missing."""

    def best(of: Sequence[Row]) -> Row | None:
        return max(of, key=lambda row: row.validation_quality, default=None)

    def of(treatment: str | None) -> list[Row]:
        return [row for row in rows if (is_plain(row.treatment) if treatment is None else row.treatment == treatment)]

    def rivals(treatment: str | None) -> list[Row]:
        return [row for row in of(treatment) if base_of(row.method) == goal.over]

    network = best([row for row in of(images) if method_named(row.method).network])
    rival = best(rivals(images) or rivals(images and images_of(images)))
    if network is None or rival is None:
        return None
    comparison = _compared(network, rival)
    return {
        "cleaning": images,
        "network": f"{title_of(network.method)}, {network.treatment}",
        "rival": f"{title_of(rival.method)}, {rival.treatment}",
        "rival_cuts_nothing": rival.cuts_nothing,
        "goal": goal.ratio,
        "comparison": None if comparison is None else asdict(comparison),
        "verdict": verdict_of(comparison, goal.ratio),
    }


def _compared(row: Row, other: Row) -> Comparison | None:
    """Compare two rows on the same images; None if one of them is not quoted."""
    return compare(row.quality, other.quality) if row.quoted and other.quoted else None


def verdict_of(comparison: Comparison | None, goal: float) -> str:
    """Return whether a ratio of Q reaches a goal: what its interval of 95 % says, and nothing else."""
    if comparison is None:
        return "undecided"
    return "reached" if comparison.ratio.low > goal else "missed" if comparison.ratio.high < goal else "undecided"


def orders_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Compare every method's treatments with its first one, to see whether cleaning, or another grid, helps."""
    first: dict[str, Row] = {}
    orders = []
    for row in rows:
        base = first.setdefault(row.method, row)
        if row is not base:
            orders.append(
                {
                    "title": title_of(row.method),
                    "treatment": row.treatment,
                    "base": base.treatment,
                    "comparison": None if (comparison := _compared(row, base)) is None else asdict(comparison),
                }
            )
    return orders
