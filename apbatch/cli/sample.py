"""`apbatch sample`: a small site of every format, to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import ColumnsOption, Format, FormatOption, note, show
from apbatch.storage.backends import local_path


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("sample")(_sample)


def _sample(
    folder: Annotated[Path, typer.Argument(help="Folder of the sample; it is made.", parser=local_path)],
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same gives the same contents.")] = 1,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
) -> None:
    """Write a small site of every format, with site files beside the data; what is in each file is in contents.json.

    Nothing in it is a measurement: the images are drawn ellipses of light.
    """
    from apbatch.sample.site import SITES, write_sample

    contents = write_sample(folder, seed)
    names = ("path", "format", "events", "run", "night", "telescope", "cluster")
    few = ("path", "format", "events", "run")
    show([content.to_json() for content in contents], format, names, few=few, subset=columns)
    note(f"site files are in {folder / SITES}: apbatch site add {folder / SITES}/taiga-raw.yaml")
