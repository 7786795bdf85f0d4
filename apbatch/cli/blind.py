"""`apbatch blind`: make, submit, unseal and inspect blind test sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import Format, show
from apbatch.storage.backends import local_path

_Folder = Annotated[Path, typer.Argument(help="Folder of the blind analysis.", parser=local_path, metavar="FOLDER")]
_Format = Annotated[Format, typer.Option("--format", help="Format of the output.")]

group = typer.Typer(no_args_is_help=True, help="Blind test sets: labels sealed until the scores are frozen.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(group, name="blind")


@group.command()
def make(
    folder: _Folder,
    grids: Annotated[str, typer.Option("--grids", help="URL of the gridded images.")],
    parameters: Annotated[str, typer.Option("--parameters", help="URL of the image parameters.")],
    truth: Annotated[str, typer.Option("--truth", help="URL of the Monte Carlo truth.")],
    size_min: Annotated[str, typer.Option("--size-min", help="Smallest size after cleaning.")] = "60 pe",
    pixels_min: Annotated[int, typer.Option("--pixels-min", min=3, help="Fewest pixels after cleaning.")] = 4,
    leakage_max: Annotated[
        float, typer.Option("--leakage-max", min=0, max=1, help="Largest share of light in edge pixels.")
    ] = 1.0,
    test_fraction: Annotated[float, typer.Option("--test-fraction", help="Share of the showers.")] = 0.3,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Repeatable, but not blind to who knows it. Default: random.")
    ] = None,
    format: _Format = Format.TABLE,
) -> None:
    """Split by shower into training, validation and a sealed test set; print the commitment to its labels."""
    from apbatch.dl.blind import blind_set as blind
    from apbatch.errors import UsageError
    from apbatch.units import parse_quantity

    if not 0 < test_fraction < 1:
        raise UsageError(f"a share between 0 and 1 is wanted, not {test_fraction:g}", where="--test-fraction")
    settings = blind.BlindSettings(
        size_min=parse_quantity(size_min, "pe"),
        pixels_min=pixels_min,
        leakage_max=leakage_max,
        test_fraction=test_fraction,
        seed=seed,
    )
    made = blind.make(grids, parameters, truth, folder, settings)
    counts = {f"{name}_events": numbers["events"] for name, numbers in sorted(made.manifest["events"].items())}
    show([{"set": str(made.files), **counts, "commitment": made.manifest["commitment"]}], format)


@group.command()
def submit(
    folder: _Folder,
    scores: Annotated[
        Path, typer.Argument(help="Parquet: method, variant, split, id, score.", parser=local_path, metavar="FILE")
    ],
    again: Annotated[bool, typer.Option("--again", help="Practice: other scores though the labels are open.")] = False,
    format: _Format = Format.TABLE,
) -> None:
    """Freeze scores: from now on they can't be exchanged, and the labels may be opened."""
    from apbatch.dl.blind import blind_set as blind

    entry = blind.submit(folder, scores, again=again)
    show([{"frozen": entry["time"], "sha256": entry["scores"], "methods": "; ".join(entry["methods"])}], format)


@group.command()
def unseal(folder: _Folder, format: _Format = Format.TABLE) -> None:
    """Open the labels, once scores were frozen, and reveal the proportion."""
    from apbatch.dl.blind import blind_set as blind

    labels = blind.unseal(folder)
    gammas = sum(labels["gamma"].to_pylist())
    record = {"gammas": gammas, "hadrons": labels.num_rows - gammas, "gamma_fraction": gammas / labels.num_rows}
    show([{**record, "labels": str(folder / "unsealed" / "labels.parquet")}], format)


@group.command()
def status(folder: _Folder, format: _Format = Format.TABLE) -> None:
    """Verify a blind set and list what was done with it, and when."""
    from apbatch.dl.blind import blind_set as blind

    entries = blind.status(folder)
    show(
        ({"time": entry["time"], "act": entry["act"], "sha256": entry.get("scores") or entry["commitment"]}
         for entry in entries),
        format,
    )  # fmt: skip
