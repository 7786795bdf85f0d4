"""How an image is cleaned: the description that steps, jobs and tables share; nothing is computed here."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from apbatch.errors import NotFoundError, UsageError, nearest_word

Method = Literal["tailcuts", "time-neighbours", "sigma"]

#: Name of the cleaning that keeps every pixel with light.
NONE = "none"


@dataclass(frozen=True)
class Cleaning:
    """How images are cleaned.

    A pixel at or above `picture` is in the picture if enough of its neighbours are as bright; it is kept if one of
    its neighbours is at or above `boundary`. A pixel at or above `boundary` is kept if a neighbour is in the picture.

    Attributes
    ----------
    method : str
        ``tailcuts``: levels in photo-electrons. ``sigma``: levels in standard deviations of each pixel's noise, so
        that they follow the night sky. ``time-neighbours``: levels in photo-electrons, and `time_limit`.
    picture, boundary : float
        Levels, p.e. or standard deviations; they are compared in the precision of the images (float32).
    min_neighbours : int
        How many neighbours of a pixel of the picture must reach `picture` as well, unless isolated pixels are kept.
    keep_isolated : bool
        Keep pixels of the picture that stand alone.
    time_limit : float, optional
        Drop kept pixels with fewer than `time_neighbours` kept neighbours whose time differs by less, ns.
    time_neighbours : int
        See `time_limit`.
    largest_island : bool
        At last keep only the island of most pixels, the one with the lowest pixel number if there are several.

    Raises
    ------
    UsageError
        If this makes no sense.
    """

    method: Method
    picture: float
    boundary: float
    min_neighbours: int = 0
    keep_isolated: bool = False
    time_limit: float | None = None
    time_neighbours: int = 1
    largest_island: bool = False

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UsageError(
                f"unknown method of cleaning '{self.method}'",
                nearest=nearest_word(str(self.method), get_args(Method)),
                remedy=f"known are {', '.join(get_args(Method))}",
            )
        unit = "sigma" if self.method == "sigma" else "p.e."
        if not (math.isfinite(self.picture) and math.isfinite(self.boundary)) or not 0 < self.boundary <= self.picture:
            raise UsageError(
                f"picture {self.picture:g} {unit} and boundary {self.boundary:g} {unit} are no two levels",
                remedy="0 < boundary <= picture, such as 14 and 7 p.e., or 3 and 1.5 sigma",
            )
        for number in (self.min_neighbours, self.time_neighbours):
            if not 0 <= number <= 6:
                raise UsageError(f"a pixel can't have {number} neighbours", remedy="give a number from 0 to 6")
        if self.method == "time-neighbours" and self.time_limit is None:
            raise UsageError("a cleaning by time needs a limit", remedy="time_limit in ns, such as 2")
        if self.method == "tailcuts" and self.time_limit is not None:
            raise UsageError("tailcuts know no time", remedy="method 'time-neighbours'")
        if self.time_limit is not None and not 0 < self.time_limit < math.inf:
            raise UsageError(f"{self.time_limit:g} ns is not a time limit", remedy="give more than 0 ns")

    @property
    def name(self) -> str:
        """Name in tables of image parameters, such as ``tailcuts-14-7``; what is at its default is not in it."""
        parts = [f"{self.method}-{self.picture:g}-{self.boundary:g}"]
        if self.min_neighbours:
            parts.append(f"n{self.min_neighbours}")
        if self.keep_isolated:
            parts.append("isolated")
        if self.time_limit is not None:
            parts.append(f"t{self.time_limit:g}" + (f"x{self.time_neighbours}" if self.time_neighbours != 1 else ""))
        if self.largest_island:
            parts.append("largest")
        return "-".join(parts)


#: Cleanings with a name of their own: the thresholds of the TAIGA collaboration, and half of them.
PRESETS = {"standard": Cleaning("tailcuts", 14, 7), "soft": Cleaning("tailcuts", 7, 3.5)}
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_NAME = re.compile(
    rf"(?P<method>tailcuts|sigma|time-neighbours)-(?P<picture>{_NUMBER})-(?P<boundary>{_NUMBER})"
    rf"(?:-n(?P<least>\d))?(?P<isolated>-isolated)?(?:-t(?P<limit>{_NUMBER})(?:x(?P<times>\d))?)?(?P<largest>-largest)?"
)


def cleaning_named(name: str) -> Cleaning:
    """Return a cleaning by its name: one of `PRESETS`, or what `Cleaning.name` gives.

    Raises
    ------
    NotFoundError
        If it is no name of a cleaning.
    UsageError
        If the cleaning makes no sense.

    Examples
    --------
    >>> cleaning_named("tailcuts-10-5").picture
    10.0
    """
    if name in PRESETS:
        return PRESETS[name]
    match = _NAME.fullmatch(name)
    if match is None:
        raise NotFoundError(
            f"there is no cleaning '{name}'",
            nearest=nearest_word(name, [*PRESETS, "tailcuts-14-7", "sigma-3-1.5", "time-neighbours-14-7-t2"]),
            remedy=f"known are {', '.join(PRESETS)}, and names such as tailcuts-14-7 and sigma-3-1.5",
        )
    method: Method = match["method"]  # type: ignore[assignment]  # the pattern has no others
    return Cleaning(
        method,
        float(match["picture"]),
        float(match["boundary"]),
        int(match["least"] or 0),
        match["isolated"] is not None,
        float(match["limit"]) if match["limit"] else None,
        int(match["times"] or 1),
        match["largest"] is not None,
    )
