"""How a trained network is handed on: ONNX for programs without Keras, and a card that says what it is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from apbatch.dl.files import read_json, sha256
from apbatch.dl.networks.scoring import load_model
from apbatch.errors import MissingSoftwareError, UsageError, VerificationError
from apbatch.localfiles import write_whole

#: Largest difference of the logits of Keras and ONNX on the same images.
_TOLERANCE = 1e-3


def to_onnx(model: Path, output: Path) -> Path:
    """Write a network as ONNX and verify it against Keras by onnxruntime.

    Parameters
    ----------
    model : pathlib.Path
        ``model.keras``; grids in p.e., shape (n, rows, cols), are its input there and here.
    output : pathlib.Path
        The file to write.

    Raises
    ------
    MissingSoftwareError
        If Keras' exporter (tf2onnx) or onnxruntime is not installed.
    UsageError
        If the network computes in half precision.
    VerificationError
        If the two disagree.
    """
    try:
        import onnxruntime
        import tf2onnx  # noqa: F401  # what Keras exports with
    except ImportError as error:
        raise MissingSoftwareError(f"{error.name} is not installed", remedy="pip install 'apbatch[onnx]'") from error
    network = load_model(model)
    if any("float16" in layer.dtype_policy.name for layer in _layers(network)):
        raise UsageError("a network that computes in half precision can't be exported", where=str(model))
    network(np.zeros((1, *network.input_shape[1:]), np.float32))  # Keras exports only what was called once
    part = output.with_name(f".{output.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with redirect_stdout(io.StringIO()):
            network.export(part, format="onnx", verbose=False)
        grids = np.random.default_rng(1).gamma(0.5, 6.0, (16, *network.input_shape[1:])).astype(np.float32)
        session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        (outputs,) = session.run(None, {session.get_inputs()[0].name: grids})
        away = float(np.abs(outputs - network.predict(grids, verbose=0)).max())
        if away > _TOLERANCE:
            raise VerificationError(f"ONNX and Keras differ by {away:.3g} in the logit", where=str(model))
        write_whole(output, part.read_bytes())
    finally:
        part.unlink(missing_ok=True)
    return output


def _layers(network: Any) -> Iterator[Any]:
    """Yield the layers of a network, and those of networks inside it."""
    for layer in network.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def model_card(training: Path) -> Path:
    """Write ``card.md`` into a training's folder: what it is, from which bytes it was made, how well it did.

    Raises
    ------
    NotFoundError, FormatError
    """
    record = read_json(training / "trained.json")
    spec = record["spec"]
    lines = [
        f"# {spec['model']}",
        "",
        "Tells gammas from hadrons in images of one telescope."
        if spec["task"] == "separation"
        else "Estimates energy and direction of gammas from images of one telescope.",
        "",
        f"* Identity (settings and data): `{record['identity']}`",
        f"* Parameters: {record['parameters']}; back-end {spec['backend']}, ranks {record['ranks']}, "
        f"on {record.get('device', 'cpu')}",
        f"* Input: square grids in p.e. of {record['camera']}; output: "
        + ("the logit of a gamma" if spec["task"] == "separation" else "log10(E/TeV), direction x and y in deg"),
        "",
        "## Settings",
        "",
        *[f"* {name}: {spec[name]}" for name in sorted(spec) if name not in ("data", "output")],
        "",
        "## Data (SHA-256)",
        "",
        *[f"* {split}: `{value}`" for split, value in record["files"].items()],
        f"* commitment to the labels of the test set: `{record['commitment']}`",
        "",
        "## Networks",
        "",
        "| treatment | epochs | validation loss | validation AUC | file (SHA-256) |",
        "| --- | --- | --- | --- | --- |",
        *[_row(training, name, run) for name, run in record["treatments"].items()],
        "",
        "## Limits",
        "",
        "Trained on simulated showers only; night sky, point spread and the hadrons of the simulation are assumed.",
        "Scores of images that the selection of the set would not pass, or of another camera, are extrapolation.",
        "",
        "## Versions",
        "",
        *[f"* {name} {value}" for name, value in record["versions"].items()],
        "",
    ]
    write_whole(training / "card.md", "\n".join(lines).encode())
    return training / "card.md"


def _row(training: Path, treatment: str, run: dict[str, Any]) -> str:
    validation = run["validation"]
    auc = f"{validation['validation_auc']:.4f}" if "validation_auc" in validation else "–"
    file = training / treatment / "model.keras"
    return f"| {treatment} | {len(run['curves'])} | {validation['validation_loss']:.4f} | {auc} | `{sha256(file)}` |"
