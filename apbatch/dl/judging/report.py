"""The report: one page that opens anywhere, one JSON file with every number in it, one table for the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich import box
from rich.console import Console
from rich.table import Table

from apbatch.dl.blind.blind_set import open_set
from apbatch.dl.blind.protocol import open_labels
from apbatch.dl.files import read_json, read_parquet, write_json
from apbatch.dl.judging.evaluation import Evaluation, Result
from apbatch.dl.judging.q_factor import FEW_HADRONS
from apbatch.formats.images import from_binary
from apbatch.localfiles import write_whole


def write_report(evaluation: Evaluation, output: Path) -> Path:
    """Write ``report.html`` (self-contained) and ``report.json`` into `output`.

    Example images come from the blind set; where it is gone they are left out.

    Returns
    -------
    pathlib.Path
        ``report.html``.
    """
    from apbatch.dl.judging import plots  # matplotlib is slow to import

    environment = Environment(
        loader=PackageLoader("apbatch.dl.judging", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["q"] = quality_text
    environment.filters["treatment"] = plots.treatment
    drawn = {
        "quality": plots.quality_against_cut(evaluation),
        "correct": plots.correct_against_cut(evaluation),
        "scores": plots.score_distributions(evaluation),
        "roc": plots.roc_curves(evaluation),
        "learning": plots.learning_curves(evaluation) if evaluation.curves else "",
    }
    folder = Path(evaluation.blind["folder"])
    images = ""
    if (folder / "set" / "test.parquet").exists():
        images = plots.shower_images(*_examples(folder))
    page = environment.get_template("report.html.j2").render(
        e=evaluation,
        plots={name: Markup(text) for name, text in drawn.items()},
        images=images,
        rows=_rows(evaluation.results),
        few=FEW_HADRONS,
        acts=_acts(evaluation),
    )
    write_json(output / "report.json", evaluation.model_dump(mode="json"))
    write_whole(output / "report.html", page.encode())
    return output / "report.html"


def render_table(evaluation: Evaluation) -> str:
    """Return the table of quality factors as text."""
    table = Table(box=box.SIMPLE_HEAD, title="Quality factor Q = gamma efficiency / sqrt(hadron efficiency)")
    table.add_column("method")
    for name in ("without cleaning", f"with cleaning ({evaluation.cleaning})"):
        table.add_column(name)
    for title, results in _rows(evaluation.results):
        cells = [_cell(result) for result in results]
        table.add_row(title, *cells)
    test = evaluation.events["test"]
    sink = io.StringIO()
    console = Console(file=sink, width=120)
    console.print(table)
    how = "not blind, labels were open" if evaluation.blind["labels_were_open"] else "blind"
    sink.write(
        f"  Test set, {how}: {test['gammas']} gammas and {test['hadrons']} hadrons "
        f"(sealed share of gammas {evaluation.gamma_fraction:.3f}). Cuts chosen on the validation set.\n"
        f"  Errors: bootstrap over showers. * fewer than {FEW_HADRONS} hadrons left: Q is mostly chance.\n"
    )
    return sink.getvalue().rstrip("\n")


def quality_text(result: Result) -> str:
    """Return ``1.84 ± 0.12``, or why there is no number."""
    if result.quality is None:
        return "no hadron left"
    error = f" ± {result.quality_error:.2f}" if result.quality_error is not None else ""
    return f"{result.quality:.2f}{error}"


def _cell(result: Result | None) -> str:
    if result is None:
        return "–"
    star = "*" if result.few_hadrons else ""
    talk = f"\ntalk: Q {result.talk:.2f}" if result.talk is not None else ""
    return (
        f"Q {quality_text(result)}{star}\ngamma efficiency {result.gamma_efficiency:.2f}, "
        f"{result.hadrons_left} hadrons left{talk}"
    )


def _rows(results: Sequence[Result]) -> list[tuple[str, list[Result | None]]]:
    """Group results to the rows of the table: one a method, a cell a treatment."""
    rows: dict[str, dict[str, Result]] = {}
    for result in results:
        rows.setdefault(result.title, {})[result.variant] = result
    return [(title, [cells.get("none"), cells.get("cleaned")]) for title, cells in rows.items()]


def _acts(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return the ledger as time, act and the hash that belongs to it."""
    words = {
        "made": ("set made, labels sealed; commitment published", "commitment"),
        "frozen": ("scores frozen", "scores"),
        "unsealed": ("labels opened; commitment verified", "commitment"),
    }
    acts = []
    for entry in evaluation.blind["ledger"]:
        text, which = words.get(entry["act"], (entry["act"], ""))
        acts.append((entry["time"], text, str(entry.get(which, ""))))
    return acts


def _examples(folder: Path, each: int = 3) -> tuple[list[dict[str, Any]], npt.NDArray[np.bool_]]:
    """Return typical test images of each class: gammas, then hadrons, of middling size, and which cells are pixels."""
    manifest = read_json(folder / "set" / "manifest.json")
    shape = (manifest["rows"], manifest["cols"])
    table = read_parquet(folder / "set" / "test.parquet", ["id", "grid", "grid_cleaned", "size_cleaned"])
    labels = open_labels(open_set(folder)).labels
    of = {row["id"]: row for row in labels.to_pylist()}
    grids = {name: np.nan_to_num(from_binary(table[name])).reshape(-1, *shape) for name in ("grid", "grid_cleaned")}
    size = table["size_cleaned"].to_numpy()
    ids = table["id"].to_pylist()
    gamma = np.array([of[name]["gamma"] for name in ids])
    examples = []
    for kind, name in ((True, "gamma"), (False, "hadron")):
        rows = np.flatnonzero(gamma == kind)
        rows = rows[np.argsort(size[rows], kind="stable")]
        # From the middle of the upper half: bright enough to see something, nothing hand-picked.
        for at in np.linspace(0.5, 0.95, each):
            row = int(rows[min(int(at * len(rows)), len(rows) - 1)])
            energy = of[ids[row]]["energy"]
            title = f"{name}, {size[row]:.0f} p.e." + (f", {energy:.0f} TeV" if energy is not None else "")
            examples.append({"title": title, **{column: grid[row] for column, grid in grids.items()}})
    return examples, (grids["grid"] != 0).any(axis=0)
