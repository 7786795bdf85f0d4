"""`apbatch sim`: images of telescopes from first principles, and what others say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from apbatch.cli.output import Format, FormatOption, note, show
from apbatch.errors import UsageError
from apbatch.storage.backends import local_path


def _local(name: str, help: str) -> Any:
    return typer.Option(name, help=help, parser=local_path, metavar="PATH")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    group = typer.Typer(invoke_without_command=True, help="Simulate air showers and the telescope's images.")
    group.callback()(_sim)
    group.command("validate")(_validate)
    group.command("raw")(_raw)
    seed = typer.Typer(no_args_is_help=True, help="Secret seeds: draw one, reveal it, check what was revealed.")
    seed.command("new")(_seed_new)
    seed.command("reveal")(_seed_reveal)
    seed.command("verify")(_seed_verify)
    group.add_typer(seed, name="seed")
    app.add_typer(group, name="sim")


def _sim(
    context: typer.Context,
    output: Annotated[Path | None, _local("--output", "Folder of the production; it is made.")] = None,
    gammas: Annotated[int | None, typer.Option("--gammas", min=0, help="Gamma showers to throw; else 500.")] = None,
    point_gammas: Annotated[
        int | None, typer.Option("--point-gammas", min=0, help="Gamma showers from the observed source; else none.")
    ] = None,
    protons: Annotated[int | None, typer.Option("--protons", min=0, help="Proton showers; else 900.")] = None,
    electrons: Annotated[int | None, typer.Option("--electrons", min=0, help="Electron showers; else none.")] = None,
    helium: Annotated[int | None, typer.Option("--helium", min=0, help="Helium showers; else none.")] = None,
    iron: Annotated[int | None, typer.Option("--iron", min=0, help="Iron showers; else none.")] = None,
    seed: Annotated[
        str | None, typer.Option("--seed", help="The same number gives the same files; or 'secret'; else 1.")
    ] = None,
    run: Annotated[
        int | None, typer.Option("--run", min=1, help="Number of the run; other runs are other showers.")
    ] = None,
    telescopes: Annotated[int | None, typer.Option("--telescopes", min=1, help="Around each shower; else 16.")] = None,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Processes that simulate.")] = 2,
    settings: Annotated[Path | None, _local("--settings", "YAML with any parameter.")] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Simulate air showers and the telescope's images: images/ and, apart from them, truth/ in the output folder.

    Killed at any time, the same command goes on. Numbers are showers thrown; each gives several images or none.
    An option that is given holds before the file of settings.
    """
    if context.invoked_subcommand is not None:
        return
    if output is None:
        raise UsageError("no folder for the production", remedy="give --output FOLDER")
    from apbatch.sim.production import simulate
    from apbatch.sim.settings import Production, load_production

    named = {
        "gammas": gammas, "point_gammas": point_gammas, "protons": protons, "electrons": electrons,
        "helium_nuclei": helium, "iron_nuclei": iron,
        "seed": int(seed) if seed and seed.isdecimal() else seed, "run": run, "telescopes": telescopes,
    }  # fmt: skip
    production: Production = load_production(settings, named)
    summary = simulate(production, output, processes=processes)
    show(
        [
            {
                "primary": primary,
                "showers": summary.showers[primary],
                "triggered": summary.triggered[primary],
                "images": summary.images[primary],
            }
            for primary in summary.showers
        ],
        format,
    )


def _validate(
    data: Annotated[Path, _local("--data", "Folder of references: taiga_mc, fact_hillas, camgeom.")],
    output: Annotated[Path, _local("--output", "Folder of the report; it is made.")] = Path("validation"),
    size: Annotated[str, typer.Option("--size", help="How much is simulated: smoke, small, full.")] = "smoke",
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same figures.")] = 1,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="taiga, fact, edge, steps, showers, muons; repeatable.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Compare the simulation with other simulations, parametrisations and geometry, and write a report.

    Prints what disagrees, and what share of images the spectra's lowest energies keep; everything is in
    validation.html (with pictures) and validation.json.
    """
    from apbatch.sim.validation.check import DISAGREES
    from apbatch.sim.validation.report import PARTS, validate

    validation = validate(data, output, size=size, seed=seed, parts=tuple(only) if only else PARTS)
    for part in validation.parts:
        if part.missing:
            note(f"{part.title}: not compared: {part.missing}")
    show(
        [
            {
                "part": check.part,
                "quantity": check.quantity,
                "where": check.where,
                "ratio": round(check.ratio, 3),
                "error": round(check.error, 3),
                "aim": check.aim,
                "images": check.number,
                "verdict": check.verdict,
            }
            for check in validation.checks
            if check.verdict == DISAGREES or check.part == "edge"
        ],
        format,
    )
    counts = ", ".join(f"{number} {verdict}" for verdict, number in validation.counts.items())
    note(f"{counts}: {validation.page}")


def _seed_new(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Where to; else $APBATCH_SEED_FILE or the state folder.", parser=local_path, metavar="PATH"
        ),
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Draw a secret seed and print its commitment, which may be published; the file stays with who made it."""
    from apbatch.sim.seeds import new_seed, seed_file

    path = file or seed_file()
    show([{"commitment": new_seed(path).commitment, "file": str(path)}], format)


def _seed_reveal(
    production: Annotated[
        Path, typer.Argument(help="Folder of a finished production.", parser=local_path, metavar="PATH")
    ],
    file: Annotated[Path | None, _local("--seed-file", "The secret; else as of 'new'.")] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Publish the seed of a production, when its truth may be known: seed.json beside production.json."""
    from apbatch.sim.seeds import load_seed, reveal_seed, seed_file

    show([{"revealed": str(reveal_seed(production, load_seed(file or seed_file())))}], format)


def _seed_verify(
    production: Annotated[
        Path, typer.Argument(help="Folder of a production whose seed was revealed.", parser=local_path, metavar="PATH")
    ],
    file: Annotated[Path | None, _local("--seed-file", "What was revealed; else seed.json of the production.")] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Check that a revealed seed is the one that the production committed itself to; status 2 if it is not."""
    from apbatch.sim.seeds import commitment_of, load_seed, verify_seed

    path = file or production / "seed.json"
    revealed, commitment = load_seed(path), commitment_of(production)
    if not verify_seed(commitment, revealed.seed, revealed.salt):
        raise UsageError(f"the seed does not belong to the commitment {commitment}", where=str(path))
    show([{"commitment": commitment, "verdict": "the seed is the committed one"}], format)


def _raw(
    production: Annotated[
        Path, typer.Argument(help="Folder of a finished production.", parser=local_path, metavar="PATH")
    ],
    output: Annotated[Path, _local("--output", "Folder of the raw files; it is made.")],
    triggered: Annotated[bool, typer.Option("--triggered", help="Records of clusters that fired only.")] = False,
    noise: Annotated[Path | None, _local("--noise-library", "Raw run whose noise the production has, if so.")] = None,
    factors: Annotated[Path | None, _local("--noise-factors", "Its factors; else those beside it.")] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Write a production as raw files of TAIGA-IACT, with pedestal files and a table of conversion factors.

    The chain from raw data can then be run with the truth known: event numbers are those of the production.
    """
    from apbatch.sim.detector.raw import Clusters, write_raw

    clusters: Clusters = "triggered" if triggered else "all"
    summary = write_raw(production, output, clusters=clusters, noise_library=noise, noise_factors=factors)
    show(
        [
            {
                "events": summary.events,
                "records": summary.records,
                "files": summary.files,
                "factors": str(summary.factors),
            }
        ],
        format,
    )
