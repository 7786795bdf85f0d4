"""Which parts are small and lie together, so that joining them makes searches open fewer files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from apbatch.index.events.manifest import Part
from apbatch.index.events.part_files import MOST_CELLS, MOST_ROWS

_SMALL = 4


def small_parts(parts: Iterable[Part], fewest: int) -> Iterator[list[Part]]:
    """Yield groups of at least `fewest` parts of one experiment and night that together make one part.

    A part above a quarter of the largest size is left alone, so that a part is written again a few times at most.
    """
    groups: dict[tuple[str, str | None], list[Part]] = {}
    for part in parts:
        if _weight(part, len(part.ranges)) * _SMALL <= 1:
            groups.setdefault((part.experiment, part.night), []).append(part)
    for group in groups.values():
        kept: list[Part] = []
        names: set[str] = set()
        for part in sorted(group, key=lambda part: part.first):
            together = names | set(part.ranges)
            if kept and sum(_weight(one, len(together)) for one in (*kept, part)) > 1:
                break
            kept.append(part)
            names = together
        if len(kept) >= max(fewest, 2):
            yield kept


def _weight(part: Part, columns: int) -> float:
    """Return how much of a largest part this one is."""
    return max(part.rows / MOST_ROWS, part.rows * columns / MOST_CELLS)
