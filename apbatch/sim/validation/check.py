"""One comparison: a figure of this simulation over the same figure of a reference, with its error and its aim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

AGREES, WITHIN, DISAGREES = "agrees", "within errors", "disagrees"


@dataclass(frozen=True)
class Check:
    """A comparison.

    Attributes
    ----------
    part : str
        Which reference.
    quantity : str
        What is compared, with its unit.
    where : str
        Bin or condition.
    here, there : float
        Value of this simulation and of the reference.
    error : float
        Standard error of here over there.
    aim : float
        How far from 1 that ratio may be.
    number : int
        Images or showers behind `here`.
    """

    part: str
    quantity: str
    where: str
    here: float
    there: float
    error: float
    aim: float
    number: int

    @property
    def ratio(self) -> float:
        """Here over there."""
        return self.here / self.there if self.there else np.nan

    @property
    def verdict(self) -> str:
        """`agrees` inside the aim, `within errors` if two standard errors reach it, else `disagrees`."""
        off = abs(self.ratio - 1.0)
        if off <= self.aim:
            return AGREES
        return WITHIN if off <= self.aim + 2.0 * self.error else DISAGREES


@dataclass
class Part:
    """The comparisons with one reference, and its pictures.

    Attributes
    ----------
    title, text : str
        Heading; how the comparison is made.
    checks : list of Check
    figures : list of (caption, SVG text)
    missing : str
        Why nothing could be compared; empty if it could.
    references : list of Path
        Files that were compared with, or that describe the detector.
    """

    title: str
    text: str
    checks: list[Check] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    missing: str = ""
    references: list[Path] = field(default_factory=list)


def median_ratio(
    here: Floats, there: Floats, groups: npt.NDArray[np.int64], rounds: int = 200
) -> tuple[float, float, float, int]:
    """Compare pairs: the median of here over there, with an error from drawing whole groups again.

    Parameters
    ----------
    here, there : ndarray of shape (n,)
        Pairs; those that are no positive numbers are passed over.
    groups : ndarray of shape (n,)
        Images of one shower share a number: they are alike, so showers are drawn, not images.
    rounds : int
        Of the bootstrap.

    Returns
    -------
    here, there, error, number
        Medians of `there`, and of `there` times the ratio; standard error of the ratio; number of pairs.
    """
    good = np.isfinite(here) & np.isfinite(there) & (here > 0) & (there > 0)
    if good.sum() < 3:
        return np.nan, np.nan, np.nan, int(good.sum())
    logs, level = np.log(here[good] / there[good]), float(np.median(there[good]))
    error = bootstrap(lambda rows: float(np.median(logs[rows])), groups[good], rounds)
    ratio = float(np.exp(np.median(logs)))
    return level * ratio, level, error * ratio, int(good.sum())


def bootstrap(value: Callable[[npt.NDArray[np.int64]], float], groups: npt.NDArray[np.int64], rounds: int) -> float:
    """Return the standard error of a value of rows by drawing groups of rows with replacement.

    Parameters
    ----------
    value : callable
        Numbers of rows to a value.
    groups : ndarray of int64, shape (n_rows,)
        Group of each row, such as its shower.
    rounds : int
        Drawings.
    """
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    values = []
    for _ in range(rounds):
        picks = rng.integers(len(members), size=len(members))
        values.append(value(np.concatenate([members[one] for one in picks])))
    return float(np.std(values))


def in_bins(
    part: str,
    columns: Sequence[tuple[str, Floats, Floats]],
    by: Floats,
    edges: Sequence[float],
    label: str,
    groups: npt.NDArray[np.int64],
    aim: float,
) -> list[Check]:
    """Compare pairs of several quantities in bins of another; bins with fewer than 5 pairs are left out.

    Parameters
    ----------
    part : str
        Name of the comparison.
    columns : sequence of tuples
        Name of a quantity and its two columns, each of shape (n_pairs,).
    by : ndarray of float64, shape (n_pairs,)
        What is binned.
    edges : sequence of float
        Edges of the bins.
    label : str
        How a bin is described.
    groups : ndarray of int64, shape (n_pairs,)
        Group of each pair, such as its shower.
    aim : float
        Largest deviation from 1 that is aimed at.
    """
    checks = []
    for low, high in pairwise(edges):
        inside = (by > low) & (by <= high)
        for quantity, here, there in columns:
            a, b, error, number = median_ratio(here[inside], there[inside], groups[inside])
            if number >= 5:
                checks.append(
                    Check(
                        part,
                        quantity,
                        label if np.isinf(high) else f"{label} {low:g}–{high:g}",
                        a,
                        b,
                        error,
                        aim,
                        number,
                    )
                )
    return checks
