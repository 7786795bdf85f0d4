"""State of a training run after an epoch: one file, written by rank 0 in one move."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.errors import FormatError, UsageError
from apbatch.localfiles import write_whole

Arrays = list[npt.NDArray[Any]]


@dataclass
class Checkpoint:
    """What a restart needs to go on as if nothing had happened.

    Attributes
    ----------
    identity : str
        Hash of the data and of everything that shapes the result.
    epoch : int
        Epochs done.
    weights, optimizer, best : list of ndarray
        Weights now, state of the optimizer, and weights of the epoch with the lowest validation loss.
    curves : list of dict
        One entry an epoch.
    finished : bool
        Whether training ended (all epochs, or stopped early).
    """

    identity: str
    epoch: int
    weights: Arrays
    optimizer: Arrays
    best: Arrays
    curves: list[dict[str, float]] = field(default_factory=list)
    finished: bool = False

    def write(self, path: Path) -> None:
        """Write in one move; a crash leaves the older file."""
        head = {"identity": self.identity, "epoch": self.epoch, "curves": self.curves, "finished": self.finished}
        named: dict[str, Any] = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
        for kind in ("weights", "optimizer", "best"):
            named |= {f"{kind}_{number}": array for number, array in enumerate(getattr(self, kind))}
        sink = io.BytesIO()
        np.savez(sink, **named)
        write_whole(path, sink.getvalue())


def read_checkpoint(path: Path, identity: str) -> Checkpoint | None:
    """Return the checkpoint at `path`, or None if there is none yet.

    Raises
    ------
    UsageError
        If it belongs to another model, other data or other settings.
    FormatError
        If it is damaged.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(file["head"].tobytes())
            arrays: dict[str, Arrays] = {"weights": [], "optimizer": [], "best": []}
            for kind, parts in arrays.items():
                while f"{kind}_{len(parts)}" in file.files:
                    parts.append(file[f"{kind}_{len(parts)}"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"a damaged checkpoint: {error}", where=str(path), remedy="remove it to start anew"
        ) from error
    if head["identity"] != identity:
        raise UsageError(
            "the checkpoint is of another model, other data or other settings",
            where=str(path),
            remedy="choose another output folder, or remove this one",
        )
    return Checkpoint(
        identity=str(head["identity"]),
        epoch=int(head["epoch"]),
        curves=list(head["curves"]),
        finished=bool(head["finished"]),
        weights=arrays["weights"],
        optimizer=arrays["optimizer"],
        best=arrays["best"],
    )
