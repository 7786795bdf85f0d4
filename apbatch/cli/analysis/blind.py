"""`apbatch blind`: make, submit, unseal and inspect blind test sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from apbatch.cli.output import Format, FormatOption, show
from apbatch.storage.backends import local_path
from apbatch.storage.places import url_of_place

_Folder = Annotated[Path, typer.Argument(help="Folder of the blind analysis.", parser=local_path, metavar="FOLDER")]
_Head = Annotated[
    str | None, typer.Option("--head", help="Head that the last act printed; not needed where a custodian signs.")
]
_Key = Annotated[Path, typer.Option("--key", help="Private key of the custodian.", parser=local_path, metavar="FILE")]


def _place(name: str, help: str) -> Any:
    return typer.Option(name, parser=url_of_place, metavar="PLACE", help=f"Path or URL of {help}")


group = typer.Typer(no_args_is_help=True, help="Blind test sets: labels sealed until the scores are frozen.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(group, name="blind")


@group.command()
def make(
    folder: _Folder,
    images: Annotated[str, _place("--images", "the images, as `clean` makes them.")],
    parameters: Annotated[str, _place("--parameters", "the image parameters.")],
    truth: Annotated[str, _place("--truth", "the Monte Carlo truth.")],
    size_min: Annotated[
        str | None, typer.Option("--size-min", help="Smallest size after cleaning, such as '60 pe'.")
    ] = None,
    pixels_min: Annotated[int | None, typer.Option("--pixels-min", help="Fewest pixels after cleaning.")] = None,
    leakage_max: Annotated[
        float | None, typer.Option("--leakage-max", help="Largest share of light in edge pixels.")
    ] = None,
    test_fraction: Annotated[float | None, typer.Option("--test-fraction", help="Share of the showers.")] = None,
    open: Annotated[bool, typer.Option("--open", help="For practice: labels may be known to others.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Makes an open set repeatable.")] = None,
    custodian: Annotated[
        str | None, typer.Option("--custodian", help="Public key of somebody who must sign every act.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Split by shower into training, validation and a sealed test set; publish the commitment and head it prints."""
    from apbatch.dl.blind import blind_set as blind
    from apbatch.dl.blind.settings import BlindSettings
    from apbatch.errors import UsageError

    options = {
        "size_min": size_min,
        "pixels_min": pixels_min,
        "leakage_max": leakage_max,
        "test_fraction": test_fraction,
        "open": open,
        "seed": seed,
        "custodian": custodian,
    }
    try:
        settings = BlindSettings.model_validate({key: it for key, it in options.items() if it is not None})
    except ValidationError as error:
        fault = error.errors()[0]
        option = "--" + str(fault["loc"][0]).replace("_", "-")
        raise UsageError(str(fault["msg"]).removeprefix("Value error, "), where=option) from error
    sealed_set = blind.make(images, parameters, truth, folder, settings)
    counts = {f"{name}_events": numbers["events"] for name, numbers in sorted(sealed_set.manifest["events"].items())}
    kind = "open: " + "; ".join(sealed_set.manifest["open"]) if sealed_set.open else "blind"
    head = sealed_set.ledger.entries()[0]["digest"]
    show(
        [{"set": str(sealed_set.files), "kind": kind, **counts, "commitment": sealed_set.commitment, "head": head}],
        format,
    )


@group.command()
def submit(
    folder: _Folder,
    scores: Annotated[
        Path, typer.Argument(help="Parquet: method, treatment, split, id, score.", parser=local_path, metavar="FILE")
    ],
    head: _Head = None,
    again: Annotated[bool, typer.Option("--again", help="Other scores of an open set after its labels.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Freeze scores: from now on they can't be exchanged, and the labels may be opened."""
    from apbatch.dl.blind import protocol

    _need_head(folder, head)
    entry = protocol.submit(folder, scores, head=head, again=again)
    record = {"frozen": entry["time"], "sha256": entry["scores"], "methods": "; ".join(entry["methods"])}
    show([{**record, "head": entry["digest"]}], format)


@group.command()
def unseal(folder: _Folder, head: _Head = None, format: FormatOption = Format.TABLE) -> None:
    """Open the labels, once scores were frozen, and reveal the proportion."""
    from apbatch.dl.blind import blind_set as blind
    from apbatch.dl.blind import protocol

    _need_head(folder, head)
    entry = protocol.unseal(folder, head=head)
    sealed_set = blind.open_set(folder)
    gamma = protocol.read_labels(sealed_set)["gamma"].to_pylist()
    record = {"gammas": sum(gamma), "hadrons": len(gamma) - sum(gamma), "gamma_fraction": sum(gamma) / len(gamma)}
    show([{**record, "labels": str(sealed_set.sealed), "head": entry["digest"]}], format)


@group.command()
def status(folder: _Folder, head: _Head = None, format: FormatOption = Format.TABLE) -> None:
    """Verify a set, its scores and its ledger, against a head if one is given; list what was done, and when."""
    from apbatch.dl.blind import protocol

    entries = protocol.status(folder, head=head)
    show(
        ({"act": entry["n"], "time": entry["time"], "what": entry["act"], "sha256": entry.get("scores") or
          entry["commitment"], "head": entry["digest"]} for entry in entries),
        format,
    )  # fmt: skip


@group.command()
def key(
    file: Annotated[Path, typer.Argument(help="File for the private key.", parser=local_path, metavar="FILE")],
    format: FormatOption = Format.TABLE,
) -> None:
    """Make the key of a custodian; print its public half, which goes to whoever makes a set."""
    from apbatch.dl.blind.anchors import make_key

    show([{"key": str(file), "public": make_key(file)}], format)


@group.command()
def sign(folder: _Folder, key: _Key, format: FormatOption = Format.TABLE) -> None:
    """Sign the present head, as custodian; refused if the ledger does not go on from what was signed before."""
    from apbatch.dl.blind import protocol

    signed = protocol.sign(folder, key)
    show([{"act": signed.n, "head": signed.digest}], format)


def _need_head(folder: Path, head: str | None) -> None:
    """Raise a UsageError where nobody vouches for the head."""
    from apbatch.dl.blind import blind_set as blind
    from apbatch.errors import UsageError

    sealed_set = blind.open_set(folder)
    if head is None and not sealed_set.open and sealed_set.manifest["custodian"] is None:
        raise UsageError(
            "a blind set goes on from a known head", where=str(folder), remedy="--head with what the last act printed"
        )
