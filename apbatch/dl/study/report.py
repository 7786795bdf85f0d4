"""The report of the study: one page that opens anywhere, one JSON with every number, one table for the terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich import box
from rich.console import Console
from rich.table import Table

from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.files import read_parquet, write_json
from apbatch.dl.judging.grid_pictures import grid_pictures
from apbatch.dl.networks.treatment import cleaned, cleaning_of, images_of, is_plain, sky_of
from apbatch.dl.study import methods, network_plots, plots
from apbatch.dl.training.data import load_pixels
from apbatch.localfiles import write_whole

#: Parts of the report that other steps add, each a file beside ``study.json`` under its own name.
PARTS = ("robustness", "showers", "saliency", "application")


def write_report(study: dict[str, Any], parts: dict[str, Any], output: Path) -> Path:
    """Write ``report.html`` (self-contained) and ``report.json`` into `output`.

    Parameters
    ----------
    study : dict
        From `apbatch.dl.study.evaluation.evaluate`.
    parts : dict
        What further steps found, by their names in `PARTS`; any may be missing.
    output : pathlib.Path
        A folder.

    Returns
    -------
    pathlib.Path
        ``report.html``.
    """
    rows = study["rows"]
    cleanings = list(dict.fromkeys(row["treatment"] for row in rows if is_plain(row["treatment"])))
    least = study["settings"]["hadrons_min"]
    pictures = {
        "overview": plots.quality_overview(rows, cleanings),
        "quality": plots.against_cut(rows, cleanings, least, "quality", "quality factor Q"),
        "gammas": plots.against_cut(rows, cleanings, least, "gamma_efficiency", "gamma efficiency"),
        "rejection": plots.against_cut(rows, cleanings, least, "hadron_rejection", "hadrons for each one left"),
        "roc": plots.roc_curves(rows, cleanings),
        "scores": plots.score_distributions(rows, study["score_bins"]),
        "learning": network_plots.learning_curves(study["learning"]) if study["learning"] else "",
        "price": plots.price_of_the_cut(rows, cleanings),
        **{f"bins_{cleaning}": plots.binned(rows, study["bins"], cleaning) for cleaning in cleanings},
    }
    environment = Environment(
        loader=PackageLoader("apbatch.dl.study", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(pm=plus_minus, sigma=sigma_text, cleaning=plots.treatment_title)
    page = environment.get_template("report.html.j2").render(
        s=study,
        rows=rows,
        table=_table(rows, cleanings),
        cleanings=cleanings,
        grid_rows=_grid_rows(rows),
        sky=_sky_band(rows, study.get("night_sky")),
        plane_rows=_plane_rows(plots.in_plots(rows)),
        plots={name: Markup(text) for name, text in pictures.items()},
        pictures=_pictures(parts),
        shown=_images(Path(study["blind"]["folder"]), cleanings),
        rivals={name: methods.title_of(name) for name in methods.RIVALS},
        parts={name: parts.get(name) for name in PARTS},
        few=least,
    )
    write_json(output / "report.json", {"study": study, **parts})
    write_whole(output / "report.html", page.encode())
    return output / "report.html"


def _pictures(parts: dict[str, Any]) -> dict[str, str]:
    """Draw what further steps found."""
    pictures: dict[str, str] = {}
    if parts.get("robustness"):
        pictures["robustness"] = Markup(network_plots.robustness(parts["robustness"]["entries"]))
    if parts.get("saliency"):
        pictures["saliency"] = network_plots.saliency_maps(
            parts["saliency"]["maps"], camera_named(parts["saliency"]["camera"])
        )
    if parts.get("showers"):
        pictures["showers"] = Markup(network_plots.showers(parts["showers"]["entries"]))
    if parts.get("application"):
        application = parts["application"]
        pictures["application"] = Markup(network_plots.applied_scores(application["datasets"], application["bins"]))
    return pictures


def _table(rows: list[dict[str, Any]], cleanings: list[str]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Group rows to those of the talk's table: one a method, a cell a cleaning."""
    cells_of: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        cells_of.setdefault(row["title"], {})[row["treatment"]] = row
    return [(title, [cells.get(name) for name in cleanings]) for title, cells in cells_of.items()]


def _grid_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the networks on other grids after the same on the axial one and the native hexagonal network."""
    others = [row for row in rows if ":" in row["treatment"]]
    compared = {row["method"] for row in others} | ({"hex-cnn", "hex-cnn" + methods.MEAN} if others else set())
    images = {row["images"] for row in others}
    return [row for row in rows if row["method"] in compared and row["treatment"] in images] + others


def _plane_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the methods with planes beside the image, each after the same of images alone."""
    others = [row for row in rows if "+" in row["treatment"]]
    compared = {(row["method"], row["images"]) for row in others}
    return [row for row in rows if (row["method"], row["treatment"]) in compared] + others


def _sky_band(rows: list[dict[str, Any]], night_sky: float | None) -> dict[str, Any] | None:
    """Return the levels of the sky in words, and for each method its rows at these levels; None for one level alone."""
    of_images = [row for row in rows if row["treatment"] == images_of(row["treatment"])]
    brighter = {cleaning_of(row["treatment"]) for row in of_images if sky_of(row["treatment"])}
    band = [row for row in of_images if cleaning_of(row["treatment"]) in brighter]
    treatments = sorted({row["treatment"] for row in band}, key=sky_of)
    if not brighter:
        return None
    levels = []
    for name in treatments:
        added = sky_of(name)
        level = "" if night_sky is None else f"{night_sky + added:.2g} p.e."
        levels.append(level or (f"{added:g} p.e. more" if added else "as simulated"))
    return {"levels": levels, "table": _table(band, treatments)}


def render_table(study: dict[str, Any]) -> str:
    """Return the talk's table with errors, and whether the goals were reached, as text."""
    rows = study["rows"]
    cleanings = list(dict.fromkeys(row["treatment"] for row in rows if is_plain(row["treatment"])))
    table = Table(box=box.SIMPLE_HEAD, title="Quality factor Q = gamma efficiency / sqrt(hadron efficiency)")
    table.add_column("method")
    for name in cleanings:
        table.add_column(plots.CLEANING.get(name, name))
    for title, cells in _table(rows, cleanings):
        table.add_row(title, *[_cell(cell, study["settings"]["hadrons_min"]) for cell in cells])
    sink = io.StringIO()
    console = Console(file=sink, width=150)
    console.print(table)
    test = study["events"]["test"]
    how = blindness(study["blind"])
    sink.write(
        f"  Test set, {how}: {test['gammas']} gammas and {test['hadrons']} hadrons. "
        "Cuts chosen on the validation set.\n"
        "  Errors: bootstrap over showers and the spread of trainings. "
        "In brackets: against the simple technique, same images.\n"
    )
    for verdict in study["verdicts"]:
        if verdict["cleaning"] is None:
            comparison = verdict["comparison"]
            ratio = "not quoted" if comparison is None else _interval(comparison["ratio"])
            nothing = ", which cuts nothing and is a rival of straw" if verdict["rival_cuts_nothing"] else ""
            sink.write(
                f"  Best network ({verdict['network']}) over {verdict['rival']}{nothing}: {ratio}, "
                f"goal above {verdict['goal']:g}: {verdict['verdict']}\n"
            )
    return sink.getvalue().rstrip("\n")


def blindness(record: dict[str, Any]) -> str:
    """Return in words whether a result is blind."""
    if record["labels_were_open"]:
        return "not blind, labels were open"
    return "open, for practice" if record["open"] else "blind"


def _interval(value: dict[str, Any]) -> str:
    return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f} at 95 %)"


def _cell(row: dict[str, Any] | None, least: int) -> str:
    if row is None:
        return "–"
    talk = f", talk {row['talk']}" if row["talk"] is not None else ""
    if row["quality"] is None:
        return f"not quoted: under {least} hadrons left{talk}"
    if row["cuts_nothing"]:
        return f"cuts nothing: Q is about 1{talk}"
    comparison = row["against"].get(methods.BOX)
    versus = "" if comparison is None else f" (x {comparison['ratio']['value']:.2f}, {sigma_text(comparison)})"
    return f"{plus_minus(row['quality'])}{versus}{talk}"


def plus_minus(value: dict[str, Any] | None, digits: int = 2) -> str:
    """Return ``1.84 ± 0.12``, or a dash."""
    return "–" if value is None else f"{value['value']:.{digits}f} ± {value['error']:.{digits}f}"


def sigma_text(comparison: dict[str, Any] | None) -> str:
    """Return the significance of a difference in words."""
    return "–" if comparison is None else f"{comparison['sigma']:+.1f} σ"


def _images(folder: Path, cleanings: list[str], each: int = 3) -> dict[str, str]:
    """Draw opened test images of both classes after each cleaning, and one on each grid; nothing where the set is gone.

    They are picked by rank in size within their class (from the median to 95 %), not by looks.
    """
    if not (folder / "set" / "test.parquet").exists():
        return {}
    blind_set = blind.open_set(folder)
    camera = camera_named(blind_set.manifest["camera"])
    ids = read_parquet(blind_set.files / "test.parquet", ["id"])["id"].to_pylist()
    labels = {row["id"]: row for row in protocol.open_labels(blind_set).labels.to_pylist()}
    images = load_pixels(blind_set.files, blind_set.manifest, "test")
    gamma = np.array([labels[name]["gamma"] for name in ids])
    size = np.nansum(np.where(images > 7, images, 0), axis=1)
    examples = []
    for kind, word in ((True, "gamma"), (False, "hadron")):
        rows = np.flatnonzero(gamma == kind)
        rows = rows[np.argsort(size[rows], kind="stable")]
        for row in rows[(np.linspace(0.5, 0.95, each) * (len(rows) - 1)).astype(int)]:
            energy = labels[ids[row]].get("energy")
            title = f"{word}, {size[row]:.0f} p.e." + (f", {energy:.0f} TeV" if energy is not None else "")
            masks = {name: cleaned(images[row][None], camera, name) for name in cleanings}
            cleaned_images = {
                name: images[row] if mask is None else images[row] * mask[0] for name, mask in masks.items()
            }
            examples.append((title, cleaned_images))
    brightest = images[np.flatnonzero(gamma)[np.argsort(size[gamma])[int(0.9 * (gamma.sum() - 1))]]]
    return {
        "examples": network_plots.shower_images(examples, camera),
        "grids": grid_pictures(brightest, camera),
    }
