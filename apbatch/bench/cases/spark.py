"""The suite `spark`: what Spark costs on top of the kernels. Each peer is a process, judged with its children.

Cost is CPU time of the whole tree of a peer's processes, the JVM and Spark's Python workers among them, so that a busy
machine does not change it. How much sooner two workers are done is wall-clock time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.spark_worker import BULK, BY_SPARK, FRAMES, ONE_PASS, PARAMETERS, PLAIN, VERIFIED
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.registry import camera_named
from apbatch.datasets import dataset
from apbatch.errors import ServerError, VerificationError
from apbatch.formats.images import image_schema, to_binary
from apbatch.progress import say

#: Images of a round are this many times those of a round of kernels: a task has to be worth its start.
_TIMES = 30
#: Images of a job that has hardly anything to do.
_FEW = 100
_IMAGES_A_FILE = 10_000
#: Images before each round, in files that make tasks for both of two workers: Spark ends a Python worker that had
#: nothing to do for a minute, while other peers had their turn, and a new one costs 2 s.
_WARM, _WARM_A_FILE = 6_000, 1_500
_CAMERA = "TAIGA-IACT01"
#: Peer of two processes that know nothing of each other.
TWO = "two plain processes with verified files"


def spark_groups(setting: Setting) -> Iterator[Group]:
    """Yield the groups of the suite."""
    count = _TIMES * setting.size.images
    folder = setting.scratch / "spark"
    images, few, warm = folder / "images", folder / "few", folder / "warm"
    cleaned, out = folder / "cleaned", folder / "out"
    camera = camera_named(_CAMERA)
    n_pixels = _make_images(images, camera, count)
    _make_images(few, camera, _FEW)
    _make_images(warm, camera, _WARM, _WARM_A_FILE)
    bulk, frames = f"{BULK}, local[1]", f"{FRAMES}, local[1]"
    processes = {peer: _Peer(peer, warm) for peer in (PLAIN, VERIFIED, bulk, frames, f"{BULK}, local[2]")}
    for peer in processes.values():
        setting.at_end.callback(peer.stop)

    whole = Operation(
        "spark",
        "one pass",
        f"{count} images of {n_pixels} pixels from Parquet: cleaned, parametrised, mapped onto the axial grid; images "
        "with masks, parameters and grids written as Parquet of the same columns, codec and level. The plain process "
        "is pyarrow and the kernels, nothing else; the verified one also hashes its files (BLAKE3, Adler-32), forces "
        "them to the disk, compares sizes and renames, which is what the bulk path and saved DataFrames deliver. "
        "DataFrames do it in three jobs. CPU time of all processes of a peer; Spark and its workers have started.",
        "images/s",
        float(count),
        PLAIN,
        VERIFIED,
        "cpu",
    )
    cases = [_Case(whole, processes[peer], ONE_PASS, images, out) for peer in (PLAIN, VERIFIED, bulk, frames)]
    by_spark = _Case(whole, processes[frames], ONE_PASS + BY_SPARK, images, out, f"{FRAMES} written by Spark, local[1]")
    yield Group(whole, [*cases, by_spark])

    processes[PLAIN].ask(ONE_PASS, images, cleaned)
    source = cleaned / "images"
    _as_dataset(source, count)
    table = Operation(
        "spark",
        "parameters",
        f"Parameters of {count} cleaned images from Parquet to Parquet, by the same peers. Read and written by Spark, "
        "every pixel crosses from the JVM to Python. CPU time of all processes of a peer.",
        "images/s",
        float(count),
        PLAIN,
        VERIFIED,
        "cpu",
    )
    cases = [_Case(table, processes[peer], PARAMETERS, source, out) for peer in (PLAIN, VERIFIED, bulk, frames)]
    through = f"{FRAMES} read and written by Spark, local[1]"
    yield Group(table, [*cases, _Case(table, processes[frames], PARAMETERS + BY_SPARK, source, out, through)])
    processes[frames].stop()

    job = Operation(
        "spark",
        "a small job",
        f"One pass over {_FEW} images: what a job costs however little it does. CPU time of all processes of a peer.",
        "ms",
        1.0,
        baseline=VERIFIED,
        clock="cpu",
    )
    yield Group(job, [_Case(job, processes[peer], ONE_PASS, few, out, count=_FEW) for peer in (VERIFIED, bulk)])
    start = Operation(
        "spark",
        "start",
        "From nothing to a process that waits for its first job: packages, and for Spark its JVM, the session and one "
        "Python worker. Once for each session; no other figure holds it. CPU time.",
        "ms",
        1.0,
        baseline=PLAIN,
        clock="cpu",
    )
    yield Group(start, [_Start(start, _Peer(peer, warm)) for peer in (PLAIN, bulk)])

    two = Operation(
        "spark",
        "two workers",
        "As one pass, by the clock on the wall; it says little on a machine without two idle cores. Two processes that "
        "know nothing of each other, each with half of the files, show what the machine has left for a second one.",
        "images/s",
        float(count),
        TWO,
        bulk,
    )
    cases = [_Case(two, processes[peer], ONE_PASS, images, out) for peer in (VERIFIED, bulk, f"{BULK}, local[2]")]
    second = _Peer(VERIFIED, warm)
    setting.at_end.callback(second.stop)
    yield Group(two, [*cases, _Two(two, (processes[VERIFIED], second), images, out)])


def _make_images(folder: Path, camera: CameraGeometry, count: int, a_file: int = _IMAGES_A_FILE) -> int:
    """Write images of a simple model, an ellipse of light over noise, in files of so many; return their pixels."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    schema = image_schema(camera)
    for first in range(0, count, a_file):
        n = min(a_file, count - first)
        pixels = random.normal(0, 2.5, (n, camera.n_pixels)).astype(np.float32)
        x, y = random.uniform(-2, 2, (2, n, 1))
        along, across = random.uniform(0.2, 0.6, (n, 1)), random.uniform(0.08, 0.2, (n, 1))
        angle, size = random.uniform(0, np.pi, (n, 1)), 100 * random.pareto(1.5, (n, 1)) + 50
        u = (camera.x - x) * np.cos(angle) + (camera.y - y) * np.sin(angle)
        v = (camera.y - y) * np.cos(angle) - (camera.x - x) * np.sin(angle)
        shape = np.exp(-0.5 * (u / along) ** 2 - 0.5 * (v / across) ** 2)
        pixels += (size * shape / np.maximum(shape.sum(axis=1, keepdims=True), 1e-3)).astype(np.float32)
        columns = {
            "experiment": ["BENCH"] * n,
            "run": np.full(n, 1),
            "event": np.arange(first, first + n),
            "telescope": np.full(n, 1, np.int32),
            "time": pa.array(np.arange(n), pa.timestamp("ns", tz="UTC")),
            "image": to_binary(pixels),
        }
        table = pa.Table.from_pydict(columns, schema=schema)
        place = folder / f"{first:09}.parquet"
        pq.write_table(table, place, compression="zstd", row_group_size=5000, write_page_checksum=True)
    return camera.n_pixels


def _as_dataset(folder: Path, count: int) -> None:
    """Make what the plain process wrote a dataset."""
    (folder / dataset.SUCCESS).touch()
    content = {"kind": "images", "camera": _CAMERA, "cleaning": "tailcuts-14-7", "images": count}
    dataset.write_info(f"file://{folder}", content)


class _Peer:
    """A process that works for a peer, started when it is needed."""

    def __init__(self, name: str, warm: Path) -> None:
        self.name = name
        self._warm = warm
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, unless it runs, and wait until it is ready."""
        if self._process is not None:
            return
        kind, _, master = self.name.partition(", ")
        command = [sys.executable, "-m", "apbatch.bench.cases.spark_worker", kind, master]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        began = time.monotonic()
        self._answer()
        say(f"{self.name}: started in {time.monotonic() - began:.1f} s, {sum(self.cpu_times()):.1f} s of CPU time")

    def stop(self) -> None:
        """End it with all its children."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            with suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()

    def ask(self, operation: str, source: Path, target: Path) -> int:
        """Have an operation done; return how many images it was."""
        self.request(operation, source, target)
        return self.answer()

    def request(self, operation: str, source: Path, target: Path) -> None:
        """Have an operation begun."""
        self.start()
        assert self._process is not None and self._process.stdin is not None
        request = {"operation": operation, "input": str(source.absolute()), "output": str(target.absolute())}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def answer(self) -> int:
        """Wait for the end of the operation; return how many images it was."""
        return int(json.loads(self._answer())["images"])

    def warm_up(self, target: Path) -> None:
        """Leave it as it is in the middle of long work, its workers started; `target` is then empty."""
        self.ask(ONE_PASS, self._warm, target)
        shutil.rmtree(target, ignore_errors=True)

    def _answer(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise ServerError("the process of this peer ended", where=self.name, remedy="apbatch doctor")
        return line

    def cpu_times(self) -> tuple[float, float]:
        """Return the CPU time, of programs and of the system, of the process and all its descendants so far."""
        user = system = 0.0
        if self._process is not None:
            with suppress(psutil.Error):
                root = psutil.Process(self._process.pid)
                for process in [root, *root.children(recursive=True)]:
                    with suppress(psutil.Error):
                        used = process.cpu_times()
                        user += used.user + used.children_user
                        system += used.system + used.children_system
        return user, system


class _Case(Case):
    """One operation of one peer: its process is asked for it."""

    def __init__(
        self,
        operation: Operation,
        process: _Peer,
        request: str,
        source: Path,
        target: Path,
        peer: str | None = None,
        count: int | None = None,
    ) -> None:
        size = sum(path.stat().st_size for path in source.glob("*.parquet"))
        super().__init__(operation, peer or process.name, size)
        self._process, self._request, self._source, self._target = process, request, source, target
        self._expected = count if count is not None else int(operation.count)
        self._images = 0

    def set_up(self) -> None:
        self._process.start()

    def prepare(self) -> None:
        shutil.rmtree(self._target, ignore_errors=True)
        self._process.warm_up(self._target)

    def run(self) -> None:
        self._images = self._process.ask(self._request, self._source, self._target)

    def cpu_times(self) -> tuple[float, float]:
        return self._process.cpu_times()

    def check(self) -> None:
        expected = self._expected
        rows = {"images": expected, "parameters": 2 * expected, "grids": expected}
        roles = rows if self._request.startswith(ONE_PASS) else ["parameters"]
        for role in roles:
            n_rows = sum(pq.read_metadata(path).num_rows for path in (self._target / role).glob("*.parquet"))
            if n_rows != rows[role] or self._images != expected:
                raise VerificationError(f"{n_rows} rows of {role}, {self._images} images instead of {expected}")


class _Two(Case):
    """One pass by two plain processes at once, each with every second file."""

    def __init__(self, operation: Operation, processes: tuple[_Peer, _Peer], images: Path, target: Path) -> None:
        super().__init__(operation, TWO)
        self._processes, self._source, self._target = processes, images, target
        self._halves = [images.with_name(f"half-{number}") for number in range(len(processes))]
        self._images = 0

    def set_up(self) -> None:
        files = sorted(self._source.glob("*.parquet"))
        for number, half in enumerate(self._halves):
            half.mkdir()
            for path in files[number :: len(self._halves)]:
                (half / path.name).hardlink_to(path)

    def prepare(self) -> None:
        shutil.rmtree(self._target, ignore_errors=True)
        for process in self._processes:
            process.warm_up(self._target)

    def run(self) -> None:
        for process, half in zip(self._processes, self._halves, strict=True):
            process.request(ONE_PASS, half, self._target)
        self._images = sum(process.answer() for process in self._processes)

    def cpu_times(self) -> tuple[float, float]:
        user, system = zip(*(process.cpu_times() for process in self._processes), strict=True)
        return sum(user), sum(system)

    def check(self) -> None:
        if self._images != int(self.operation.count):
            raise VerificationError(f"{self._images} images instead of {int(self.operation.count)}")

    def tear_down(self) -> None:
        for half in self._halves:
            shutil.rmtree(half, ignore_errors=True)


class _Start(Case):
    """The start of a peer's process."""

    def __init__(self, operation: Operation, process: _Peer) -> None:
        super().__init__(operation, process.name)
        self._process = process

    def prepare(self) -> None:
        self._process.stop()

    def run(self) -> None:
        self._process.start()

    def cpu_times(self) -> tuple[float, float]:
        return self._process.cpu_times()

    def check(self) -> None:
        """Without an answer `run` fails."""

    def tear_down(self) -> None:
        self._process.stop()
