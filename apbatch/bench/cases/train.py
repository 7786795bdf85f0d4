"""Training cases: what feeds the network, ranks against one rank, and scoring against Keras' own predict.

A network is fed from Parquet on disk or from memory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.bench.case import Case, Operation
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.errors import ApbatchError, VerificationError

DISK, MEMORY, SCORES, PREDICT = "Parquet on disk", "memory", "apbatch scoring", "Keras predict"
RANKS, APART, ALONE = "2 ranks on 2 cores", "2 processes that do not talk", "1 rank on 1 core"
_BATCH = 64
#: Networks and batches of all ranks together: as the study takes them, and a batch large enough that steps of the
#: small network take longer than ranks need to agree.
_RANKS = (("talk-cnn", 128), ("talk-cnn", 1024), ("resnet", 128))
_LARGEST = max(batch for _, batch in _RANKS)
_GROUP = 512


def train_groups(setting: Setting) -> Iterator[Group]:
    """Yield the groups of the training suite: an epoch from disk and from memory, and scoring of images."""
    count = max(2048, min(setting.size.images, 16384)) // _LARGEST * _LARGEST
    files = _a_set(setting.scratch / "train", count)
    operation = Operation(
        "train",
        "epoch",
        f"One epoch of the talk's CNN over {count} images, batches of {_BATCH}, softly cleaned. {DISK}: row groups of "
        f"{_GROUP} images read, checked and cleaned by a thread while the network works. {MEMORY}: grids that "
        "are there already.",
        "images/s",
        float(count),
        MEMORY,
    )
    yield Group(operation, [_Epoch(operation, DISK, files, count), _Epoch(operation, MEMORY, files, count)])
    for model, batch in _RANKS:
        operation = Operation(
            "train",
            f"ranks, {model}, batches of {batch}",
            f"One epoch of the network {model} over {count} images, batches of {batch} over all ranks. {RANKS}: two "
            f"processes of one thread, gradients averaged by Horovod in each step. {APART}: the same, each with the "
            f"gradients of its own, so what the machine has left for a second one. {ALONE}: one process of one thread.",
            "images/s",
            float(count),
            APART,
            ALONE,
        )
        cases: list[Case] = [_Ranks(operation, peer, files, model, count, batch) for peer in (APART, ALONE)]
        if importlib.util.find_spec("horovod") is None:
            setting.left_out[f"{RANKS}, ranks"] = "Horovod is not installed"
        else:
            cases.insert(0, _Ranks(operation, RANKS, files, model, count, batch))
        yield Group(operation, cases)
    operation = Operation(
        "train",
        "scoring",
        f"{count} images to scores by the talk's CNN. {SCORES}: cleaning, grid and network, as a Spark worker does it. "
        f"{PREDICT}: predict alone, on grids that are there already. CPU time of all threads.",
        "images/s",
        float(count),
        PREDICT,
        clock="cpu",
    )
    yield Group(operation, [_Scoring(operation, SCORES, files, count), _Scoring(operation, PREDICT, files, count)])


def _a_set(folder: Path, count: int) -> Path:
    """Write the training part of a blind set of noise images with a spot of light each."""
    from apbatch.camera.instruments.registry import camera_named
    from apbatch.formats.images import to_binary

    camera = camera_named("TAIGA-IACT01")
    random = np.random.default_rng(3)
    x, y = random.uniform(-3, 3, (2, count, 1))
    light = 60 * np.exp(-0.5 * ((camera.x - x) ** 2 + (camera.y - y) ** 2) / 0.35**2)
    pixels = (light + random.normal(0, 1.5, light.shape)).astype(np.float32)
    table = pa.table(
        {
            "id": pa.array([f"{number:020x}" for number in range(count)]),
            "image": to_binary(pixels),
            "gamma": pa.array(random.random(count) < 0.5),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "train.parquet", compression="zstd", row_group_size=_GROUP, write_page_checksum=True)
    (folder / "manifest.json").write_text(json.dumps({"camera": camera.name}))
    return folder


class _Epoch(Case):
    """One epoch of training steps in this process."""

    def __init__(self, operation: Operation, peer: str, files: Path, count: int) -> None:
        super().__init__(operation, peer)
        self._files, self._count, self._epoch = files, count, 0

    def set_up(self) -> None:
        """Build the network, and for memory read the images."""
        from apbatch.dl.networks.models import build
        from apbatch.dl.training.collective import Single
        from apbatch.dl.training.data import load, scale_of
        from apbatch.dl.training.engines import engine
        from apbatch.dl.training.shards import Shards

        manifest = json.loads((self._files / "manifest.json").read_text())
        self._images = load(self._files, manifest, "train", "soft")
        assert self._images.gamma is not None
        self._targets = self._images.gamma.astype(np.float32)[:, None]
        _, rows, cols = self._images.pixels.shape
        model = build("talk-cnn", (rows, cols), *scale_of(self._images))
        self._engine = engine("tensorflow", model, 1e-3, True, Single())
        self._shards = Shards(self._files, manifest, "soft")
        self._weights = np.ones(self._count, np.float32)
        self._take(range(1))  # compiles the step

    def _take(self, steps: Any) -> None:
        for step in steps:
            rows = np.arange(step * _BATCH, (step + 1) * _BATCH)
            self._engine.step(self._images.pixels[rows], self._targets[rows], self._weights[rows])

    def run(self) -> None:
        """Train one epoch."""
        self._n_trained = 0
        self._epoch += 1
        if self.peer == DISK:
            for pixels, rows, _ in self._shards.batches(self._epoch, 1, _BATCH, 2, range(2)):
                self._engine.step(self._shards.grids(pixels), self._targets[rows], self._weights[rows])
                self._n_trained += len(rows)
        else:
            order = np.random.default_rng(self._epoch).permutation(self._count).reshape(-1, _BATCH)
            for rows in order:
                self._engine.step(self._images.pixels[rows], self._targets[rows], self._weights[rows])
                self._n_trained += len(rows)

    def check(self) -> None:
        """All images must have been seen."""
        if self._n_trained < self._count - _GROUP:
            raise VerificationError(f"{self.peer}: {self._n_trained} of {self._count} images were trained on")


class _Ranks(Case):
    """An epoch by processes that were started before, each with one thread; see `apbatch.bench.cases.train_rank`."""

    def __init__(self, operation: Operation, peer: str, files: Path, model: str, count: int, batch: int) -> None:
        super().__init__(operation, peer)
        self._model, self._count, self._batch = model, count, batch
        self._ranks, self._number = 1 if peer == ALONE else 2, 0
        self._folder = files / f"{peer}, {model}, {batch}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def set_up(self) -> None:
        """Start the ranks and wait until they have built and compiled."""
        from apbatch.bench.cases import train_rank
        from apbatch.dl.training.launch import KEEP_MEMORY
        from apbatch.dl.training.ranks import launcher

        self._names = train_rank
        self._folder.mkdir()
        starter = launcher() if self.peer == RANKS else None
        starts: dict[str, list[tuple[list[str], str]]] = {
            RANKS: [(starter.command(self._ranks), "horovod")] if starter else [],
            APART: [([], f"{train_rank.ISOLATED}-{rank}") for rank in range(self._ranks)],
            ALONE: [([], "single")],
        }
        one = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
        root = str(Path(__file__).resolve().parents[3])
        more = {
            "PYTHONPATH": root,
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **(starter.environment() if starter else {}),
            **KEEP_MEMORY,
        }
        paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        for start, kind in starts[self.peer]:
            command = [sys.executable, "-m", "apbatch.bench.cases.train_rank", str(self._folder), kind, self._model]
            with (self._folder / "log").open("a") as log:
                process = subprocess.Popen(
                    [*start, *command, str(self._count), str(self._batch)],
                    env={**os.environ, **more, **one, "PATH": paths, "CUDA_VISIBLE_DEVICES": "-1"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._processes.append(process)
        self._wait(0)

    def _wait(self, number: int, limit_s: float = 600.0) -> None:
        done = [self._folder / self._names.DONE.format(number=number, rank=rank) for rank in range(self._ranks)]
        limit = time.monotonic() + limit_s
        while not all(place.exists() for place in done):
            if self._ended() or time.monotonic() > limit:
                tail = (self._folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
                raise ApbatchError(f"a rank ended or hangs: {' '.join(tail)[:300]}")
            time.sleep(0.002)

    def _ended(self) -> bool:
        return any(process.poll() is not None for process in self._processes)

    def run(self) -> None:
        """Ask for an epoch and wait for all ranks."""
        self._number += 1
        (self._folder / self._names.ASKED.format(number=self._number)).touch()
        self._wait(self._number)

    def check(self) -> None:
        """The ranks must still be there."""
        if self._ended():
            raise VerificationError(f"{self.peer}: the ranks have ended")

    def tear_down(self) -> None:
        """Let the ranks end."""
        if self._processes:
            (self._folder / self._names.END).touch()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.terminate()
            process.wait(20)


class _Scoring(Case):
    """All images scored in this process."""

    def __init__(self, operation: Operation, peer: str, files: Path, count: int) -> None:
        super().__init__(operation, peer)
        self._files, self._count = files, count

    def set_up(self) -> None:
        """Save a network and read the images."""
        from apbatch.dl.files import read_parquet
        from apbatch.dl.networks.models import build
        from apbatch.dl.networks.scoring import Network
        from apbatch.dl.networks.treatment import grid_shape, treatment_named
        from apbatch.dl.training.data import checked_pixels

        table = read_parquet(self._files / "train.parquet", ["id", "image"])
        self._pixels = checked_pixels(table["image"], table["id"].to_pylist(), self._files)
        place = self._files / "model.keras"
        from apbatch.camera.instruments.registry import camera_named

        shape = grid_shape(camera_named("TAIGA-IACT01"), treatment_named("soft"))
        build("talk-cnn", shape, 0.1, 0.5).save(place)
        self._network = Network(place, "soft", "TAIGA-IACT01")
        self._grids = self._network.grids(self._pixels)
        self._expected = self._network.scores(self._pixels)

    def run(self) -> None:
        """Score everything."""
        if self.peer == SCORES:
            self._result = self._network.scores(self._pixels)
        else:
            self._result = 1 / (1 + np.exp(-self._network.outputs_of_grids(self._grids)[:, 0]))

    def check(self) -> None:
        """Scores must be those of the first time."""
        if np.abs(self._result - self._expected).max() > 1e-5:
            raise VerificationError(f"{self.peer}: other scores than before")
