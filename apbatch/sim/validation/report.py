"""The validation: all comparisons, one page for people and one JSON file for programs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2

from apbatch.errors import UsageError, nearest_word
from apbatch.localfiles import written_whole
from apbatch.progress import progress
from apbatch.provenance import provenance
from apbatch.sim.validation import edge, fact, muons, showers, steps, taiga
from apbatch.sim.validation.check import AGREES, DISAGREES, WITHIN, Check, Part
from apbatch.sim.validation.sizes import Size, size_named
from apbatch.storage.hashing import hash_stream

#: Comparisons by name, in the order of the report.
PARTS = ("taiga", "fact", "edge", "steps", "showers", "muons")


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Attributes
    ----------
    page, data : Path
        The report; the same as JSON.
    parts : list of Part
    """

    page: Path
    data: Path
    parts: list[Part]

    @property
    def checks(self) -> list[Check]:
        """All comparisons."""
        return [check for part in self.parts for check in part.checks]

    @property
    def counts(self) -> dict[str, int]:
        """Number of comparisons by verdict."""
        verdicts = [check.verdict for check in self.checks]
        return {verdict: verdicts.count(verdict) for verdict in (AGREES, WITHIN, DISAGREES)}


def validate(
    data: Path, output: Path, *, size: str = "smoke", seed: int = 1, parts: Sequence[str] = PARTS
) -> Validation:
    """Compare the simulation with its references and write ``validation.html`` and ``validation.json``.

    Parameters
    ----------
    data : Path
        Folder with the references: `taiga_mc`, `fact_hillas`, `camgeom`. What is missing is said in the report.
    output : Path
        Folder of the report; it is made.
    size : str
        One of `apbatch.sim.validation.sizes.SIZES`.
    seed : int
        The same seed gives the same figures.
    parts : sequence of str
        Which comparisons: `PARTS`.

    Raises
    ------
    UsageError
        For an unknown size or part.
    """
    amount = size_named(size)
    for name in parts:
        if name not in PARTS:
            raise UsageError(
                f"no comparison '{name}'", nearest=nearest_word(name, PARTS), remedy=f"one of {', '.join(PARTS)}"
            )
    began = time.monotonic()
    with progress("validate", _work(amount, parts)) as task:
        comparisons = []
        for name in (one for one in PARTS if one in parts):
            task.note(name)
            if name == "taiga":
                comparisons.append(taiga.compare(data, amount, seed, task))
            elif name == "fact":
                comparisons.append(fact.compare(data, amount, seed, task))
            elif name == "edge":
                comparisons.append(edge.compare(amount, seed, task))
            elif name == "steps":
                comparisons.append(steps.compare(amount, seed, task))
            elif name == "showers":
                comparisons.append(showers.compare(amount, seed, task))
            else:
                comparisons.append(muons.compare(amount, seed, task))
    output.mkdir(parents=True, exist_ok=True)
    result = Validation(output / "validation.html", output / "validation.json", comparisons)
    references = {str(file.relative_to(data)): _checksum(file) for part in comparisons for file in part.references}
    record = provenance("validate", references, {"size": size, "seed": seed, "parts": list(parts)})
    content = {
        **record,
        "seconds": time.monotonic() - began,
        "counts": result.counts,
        "missing": {part.title: part.missing for part in comparisons if part.missing},
        "checks": [_plain(check) for check in result.checks],
    }
    with written_whole(result.data) as partial:
        partial.write_text(json.dumps(content, indent=1, default=str))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("apbatch.sim.validation", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["three"] = _three
    page = environment.get_template("report.html.j2").render(
        parts=comparisons,
        counts=result.counts,
        size=size,
        seed=seed,
        amount=asdict(amount),
        record=record,
        disagree=[check for check in result.checks if check.verdict == DISAGREES],
        verdict=(AGREES, WITHIN, DISAGREES),
    )
    with written_whole(result.page) as partial:
        partial.write_text(page, encoding="utf-8")
    return result


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hash_stream(stream).blake3


def _work(amount: Size, parts: Sequence[str]) -> int:
    showers_by_part = {
        "taiga": amount.taiga,
        "fact": 2 * amount.fact_gammas + amount.fact_protons,
        "edge": len(edge.KINDS) * amount.edge,
        "steps": 3 * amount.beams,
        "showers": 13 * amount.profiles,
        "muons": 2 * amount.muons,
    }
    return sum(showers_by_part[name] for name in parts)


def _plain(check: Check) -> dict[str, object]:
    values = {**asdict(check), "ratio": check.ratio, "verdict": check.verdict}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _three(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
