"""Start training runs in processes of their own: several ranks of Horovod, or one process without it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from apbatch import errors
from apbatch.dl.blind.blind_set import read_manifest
from apbatch.dl.files import read_json, write_json
from apbatch.dl.networks.export import model_card
from apbatch.dl.training.data import parts_of
from apbatch.dl.training.device import environment_of
from apbatch.dl.training.preflight import check
from apbatch.dl.training.ranks import Gloo, launcher
from apbatch.dl.training.spec import TrainSpec, identity_of
from apbatch.errors import ApbatchError, MissingSoftwareError, UsageError
from apbatch.progress import Task, progress, say

_MARK = "@apbatch "
#: For glibc: memory that a step gives back is the next step's, not the system's, which would hand it out page by page
#: and zeroed. A rank of two took up to an eighth of its time for that.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}


@dataclass
class _Company:
    """Trainings that run on this machine at the same time: how many share it, who shows them, what was started."""

    share: int = 1
    task: Task | None = None
    stopped: bool = False
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def stop(self) -> None:
        """End what runs and start nothing more."""
        self.stopped = True
        for process in self.started:
            process.terminate()


def train_all(
    specs: Sequence[TrainSpec], collective: Literal["auto", "single", "horovod"] = "auto", ranks: int = 2
) -> None:
    """Train several networks, or go on with them; what is trained already stays.

    As many as there are ranks run at the same time, each in one process: none waits for another's gradients, and one
    rank gives the bits of two. Under ``horovod``, or with more ranks than two, they run one after the other on all.

    Parameters
    ----------
    specs : sequence of TrainSpec
    collective : str
        ``auto``, ``single`` or ``horovod``.
    ranks : int
        Ranks, or networks at the same time.

    Raises
    ------
    ApbatchError
        As `train`, for the first that fails; the others are ended, and go on when called again.
    """
    total = sum(spec.epochs * len(spec.treatments) for spec in specs)
    beside = 1 if collective == "horovod" or parts_of(ranks) > parts_of(1) else min(ranks, len(specs))
    company = _Company(share=max(beside, 1))
    with progress("train", total) as task, ThreadPoolExecutor(company.share) as pool:
        company.task = task
        how = ("single", 1) if beside > 1 else (collective, ranks)
        try:
            for done in as_completed([pool.submit(_train, spec, *how, company) for spec in specs]):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            company.stop()
            raise


def train(spec: TrainSpec, collective: Literal["auto", "single", "horovod"] = "auto", ranks: int = 2) -> Path:
    """Train, or go on where a killed run stopped; trained already from the same: nothing is done.

    Parameters
    ----------
    spec : TrainSpec
    collective : str
        ``auto`` takes Horovod where it is built and more than one rank is wanted.
    ranks : int
        Number of processes on this machine, each with its share of the cores.

    Returns
    -------
    pathlib.Path
        The output folder, with ``trained.json`` and ``predictions.parquet``.

    Raises
    ------
    UsageError
        If the specification does not fit the data or an earlier checkpoint.
    MissingSoftwareError
        If TensorFlow, or a Horovod that was asked for, is not installed.
    ApbatchError
        If a rank died; the message names the log.
    """
    return _train(spec, collective, ranks, _Company())


def _train(spec: TrainSpec, collective: str, ranks: int, company: _Company) -> Path:
    spec = spec.model_copy(update={"data": spec.data.absolute(), "output": spec.output.absolute()})
    manifest = read_manifest(spec.data)
    spec.check()
    if _trained(spec, manifest):
        if company.task is not None:
            company.task.advance(spec.epochs * len(spec.treatments))
        return spec.output
    if spec.backend == "torch":
        collective, ranks = "single", 1
    kind, ranks = _choose(collective, ranks, spec.backend)
    check(spec, manifest, ranks)
    spec.output.mkdir(parents=True, exist_ok=True)
    for stale in spec.output.glob("error-*.json"):
        stale.unlink()
    write_json(spec.output / "spec.json", spec.model_dump(mode="json"))
    log = spec.output / "training.log"
    command, environment = _command(spec, kind, ranks), _environment(spec, ranks, company.share)
    if company.task is not None:
        status, tail = _run(command, environment, log, spec, company.task, company)
    else:
        with progress("train", spec.epochs * len(spec.treatments)) as task:
            status, tail = _run(command, environment, log, spec, task, company)
    if status != 0 or not (spec.output / "trained.json").exists():
        raise _failure(spec, status, tail, log, ranks)
    model_card(spec.output)
    return spec.output


def _trained(spec: TrainSpec, manifest: dict[str, Any]) -> bool:
    done = spec.output / "trained.json"
    if not done.exists():
        return False
    record = read_json(done)
    if record.get("identity") != identity_of(spec, manifest) or set(record["treatments"]) != set(spec.treatments):
        raise UsageError(
            "the folder holds a training of another model, other data or other settings",
            where=str(spec.output),
            remedy="choose another output folder, or remove this one",
        )
    return (spec.output / "predictions.parquet").exists()


def python_of(backend: str) -> str:
    """Return the interpreter that trains: this one, or for PyTorch the one that ``$APBATCH_TORCH_PYTHON`` names.

    PyTorch takes gigabytes and has other needs than TensorFlow, so it may live in an environment of its own, with the
    packages of this project in it.

    Raises
    ------
    MissingSoftwareError
        If PyTorch is nowhere.
    """
    if backend != "torch":
        return sys.executable
    named = os.environ.get("APBATCH_TORCH_PYTHON")
    if named and Path(named).is_file():
        return named
    if importlib.util.find_spec("torch") is not None:
        return sys.executable
    raise MissingSoftwareError(
        "PyTorch is not installed",
        remedy="pip install 'apbatch[torch]', or name an interpreter that has it: APBATCH_TORCH_PYTHON",
    )


def _choose(collective: str, ranks: int, backend: str = "tensorflow") -> tuple[str, int]:
    if backend == "torch":
        python_of(backend)
        return "single", 1
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingSoftwareError("TensorFlow is not installed", remedy="pip install 'apbatch[dl]'")
    there = launcher() is not None
    if collective == "horovod" and not there:
        raise MissingSoftwareError("Horovod is not installed", remedy="sh jobs/setup.sh, with g++ on the machine")
    if collective == "single" or ranks == 1:
        return ("horovod" if collective == "horovod" else "single"), 1
    if not there:
        say("Horovod is not installed: training in one process")
        return "single", 1
    return "horovod", ranks


def _command(spec: TrainSpec, kind: str, ranks: int) -> list[str]:
    rank = [python_of(spec.backend), "-m", "apbatch.dl.training.loop", str(spec.output / "spec.json"), kind]
    if kind == "single":
        return rank
    starter = launcher()
    assert starter is not None, "chosen before"
    return [*starter.command(ranks), *rank]


def _environment(spec: TrainSpec, ranks: int, share: int = 1) -> dict[str, str]:
    parts = parts_of(ranks)
    threads = str(max(1, (os.cpu_count() or 1) // parts // share))
    package_root = str(Path(__file__).resolve().parents[3])
    paths = [package_root, os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "KERAS_BACKEND": spec.backend,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_NUM_INTRAOP_THREADS": threads,
        # One rank works on its parts at the same time, unless another training has the other cores.
        "TF_NUM_INTEROP_THREADS": str(max(1, parts // ranks // share)),
        "OMP_NUM_THREADS": threads,
        **environment_of(spec.device),
        **KEEP_MEMORY,
        **(starter.environment() if ranks > 1 and (starter := launcher()) else {}),
        "PYTHONUNBUFFERED": "1",
        "APBATCH_LAUNCHER": str(os.getpid()),
    }


def _run(
    command: list[str], environment: dict[str, str], log: Path, spec: TrainSpec, task: Task, company: _Company
) -> tuple[int, list[str]]:
    """Run the ranks; what they say goes to the log, the epochs to the user."""
    tail: deque[str] = deque(maxlen=200)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        # A session of its own: an interrupt reaches the ranks through us, once.
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            company.started.append(process)
            try:
                if company.stopped:  # another one failed while this one was being started
                    process.terminate()
                for line in process.stdout:
                    file.write(line)
                    file.flush()
                    if _MARK in line:
                        _show(line.split(_MARK, 1)[1], task, spec.output.name if company.share > 1 else "")
                    else:
                        tail.append(line.rstrip())
            except BaseException:
                process.terminate()
                raise
        return process.returncode, list(tail)


def _show(text: str, task: Task, name: str = "") -> None:
    try:
        message = json.loads(text)
    except ValueError:
        return
    if message["event"] not in ("resumed", "epoch"):
        return
    which = " ".join(filter(None, (name, message["treatment"])))
    if message["event"] == "resumed":
        say(f"train {which}: going on after epoch {message['epoch']} of {message['epochs']}")
        task.advance(message["epoch"])
        return
    judged = f"AUC {message['validation_auc']:.4f}" if "validation_auc" in message else ""
    task.note(f"{which} validation {judged or message['validation_loss']}")
    task.advance()
    say(
        f"train {which}: epoch {message['epoch']}/{message['epochs']}, loss {message['loss']:.4f}, "
        f"validation loss {message['validation_loss']:.4f}, {judged}{', ' if judged else ''}"
        f"{message['images_per_s']:.0f} images/s"
    )


def _failure(spec: TrainSpec, status: int, tail: list[str], log: Path, ranks: int) -> ApbatchError:
    """Return the error of a rank as its own kind, or what is known of a death without words."""
    for left in sorted(spec.output.glob("error-*.json")):
        fields = read_json(left)
        kind = getattr(errors, str(fields.pop("kind")), ApbatchError)
        return kind(fields.pop("what"), **fields)  # type: ignore[no-any-return]
    rank, last = (launcher() or Gloo()).last_words(tail)
    whose = f"rank {rank} of {ranks}" if rank is not None else "the training process"
    return ApbatchError(
        f"{whose} died (status {status}): {last[:300]}",
        where=str(log),
        remedy="run again: training goes on from the last finished epoch",
    )
