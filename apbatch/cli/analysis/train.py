"""`apbatch train`: networks on a blind set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast, get_args

import typer

from apbatch.cli.analysis.on_spark import SeveralValues
from apbatch.cli.output import show_text
from apbatch.storage.backends import local_path

Collective = Literal["auto", "single", "horovod"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("train", cls=SeveralValues)(train)


def train(
    data: Annotated[Path, typer.Argument(parser=local_path, metavar="SET", help="Folder 'set' of a blind analysis.")],
    output: Annotated[
        Path, typer.Argument(parser=local_path, metavar="OUTPUT", help="Folder for checkpoints, models, predictions.")
    ],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Network.")] = "talk-cnn",
    task: Annotated[str, typer.Option("--task", help="separation or showers.")] = "separation",
    backend: Annotated[str, typer.Option("--backend", help="tensorflow or torch.")] = "tensorflow",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or gpu.")] = "auto",
    treatments: Annotated[
        list[str] | None,
        typer.Option("--treatments", metavar="NAME ...", help="Treatments of the images; else none and standard."),
    ] = None,
    mixed_precision: Annotated[bool, typer.Option("--mixed-precision", help="Compute in bfloat16.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Read training images from disk while training.")] = False,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="Score by the mean over the camera's symmetries.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx beside model.keras, verified.")] = False,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training images.")] = 10,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images in a step, over all ranks.")] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order of images and disturbances.")] = 1,
    collective: Annotated[str, typer.Option("--collective", help="auto, single or horovod.")] = "auto",
    ranks: Annotated[int, typer.Option("--ranks", min=1, help="Processes that share a training, with Horovod.")] = 2,
) -> None:
    """Train networks on a blind set; print the folder of what came of it.

    Example: apbatch train ANALYSIS/set TRAINED --epochs 10 --ranks 2
    """
    from apbatch.cli.analysis.on_spark import one_of
    from apbatch.dl.networks.export import to_onnx
    from apbatch.dl.training.launch import train as launch
    from apbatch.dl.training.spec import TrainSpec

    spec = TrainSpec.model_validate(
        {
            "data": data,
            "output": output,
            "model": model,
            "task": task,
            "backend": backend,
            "device": device,
            "mixed_precision": mixed_precision,
            "stream": stream,
            "symmetric": symmetric,
            "epochs": epochs,
            "batch_size": batch_size,
            "seed": seed,
            **({"treatments": treatments} if treatments else {}),
        }
    )
    one_of("--collective", collective, get_args(Collective))
    trained = launch(spec, cast(Collective, collective), ranks)
    if onnx:
        for file in sorted(trained.glob("*/model.keras")):
            to_onnx(file, file.with_suffix(".onnx"))
    show_text(str(trained))
