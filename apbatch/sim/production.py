"""A production: showers in chunks, then one shuffled set of image files and, apart from it, the truth.

Nothing in an image file depends on the primary but the pixels: rows of all showers are shuffled together by the seed,
events are numbered in that order, parts have the same number of rows. Beside the images lies where in the camera the
observed source is, drawn alike for every primary. The same settings give the same bytes whatever
the number of processes, and whether or not it was interrupted.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.camera.geometry import CameraGeometry
from apbatch.datasets import dataset
from apbatch.errors import ApbatchError, UsageError
from apbatch.formats.images import SOURCE_SCHEMA, TRUTH_SCHEMA, image_schema
from apbatch.localfiles import locked, written_whole
from apbatch.progress import Task
from apbatch.progress import progress as show_progress
from apbatch.provenance import digest, provenance
from apbatch.sim.chunk_processes import make_chunks
from apbatch.sim.chunks import ProductionPlan, Worker, make_block
from apbatch.sim.detector.cameras import camera_of
from apbatch.sim.interactions import chromo_version, load_bank
from apbatch.sim.settings import Production

#: Experiment of simulated images.
EXPERIMENT = "TAIGA-SIM"
#: Changes of the physics or the files that make older chunks useless.
_VERSION = 4
_SUMMARY = "production.json"
#: Primaries that a summary names even if none was thrown.
_ALWAYS = ("gamma", "proton")
#: Folders of a finished production. Images and sources may be handed out; truth stays.
_KINDS = ("images", "sources", "truth")


@dataclass(frozen=True)
class ProductionSummary:
    """What a production holds.

    Attributes
    ----------
    output : str
        Its folder.
    showers, triggered, images : dict
        By kind of shower: thrown; with at least one image; images.
    parts : int
        Part files of images.
    made : int
        Showers simulated by this call: 0 if everything was there.
    seconds : float
        Of this call, wall clock.
    """

    output: str
    showers: dict[str, int]
    triggered: dict[str, int]
    images: dict[str, int]
    parts: int
    made: int
    seconds: float


def key_of(settings: Production) -> str:
    """Return the short hash of everything that decides the output; of a secret seed its commitment."""
    return digest({"version": _VERSION, "settings": settings.published()})


#: Makes chunks of a plan, in any order, and yields the number of showers of each.
Maker = Callable[[ProductionPlan, list[int]], Iterator[int]]


def simulate(
    settings: Production,
    output: Path,
    progress: Task | None = None,
    processes: int = 2,
    make: Maker | None = None,
) -> ProductionSummary:
    """Make a production in a folder; what an earlier call left is used, and a finished one is not touched.

    Parameters
    ----------
    settings : Production
        What to make.
    output : Path
        Folder: ``images/part-*.parquet``, ``sources/part-*.parquet``, ``truth/part-*.parquet``, ``production.json``,
        and while it is being made a hidden ``.work``.
    progress : Task, optional
        Gets one for each shower; a display of its own is opened if None.
    processes : int
        That simulate at the same time.
    make : callable, optional
        Makes the chunks in place of local processes, e.g. on Spark.

    Returns
    -------
    ProductionSummary

    Raises
    ------
    UsageError
        If the folder holds another production, or another process is at work in it.
    MissingSoftwareError
        If protons or nuclei are wanted and chromo is missing.
    """
    began = time.monotonic()
    if settings.hadrons:
        chromo_version()
    try:
        finished = _finished(settings, output)
        if finished is not None:
            return finished
        with _locked(output):
            plan = _prepare(settings, output)
            if progress is None:
                with show_progress("simulate", plan.showers) as task:
                    count = _make(plan, task, processes, make)
            else:
                count = _make(plan, progress, processes, make)
            return _publish(plan, output, count, began)
    except OSError as error:
        raise ApbatchError(f"can't write the production: {error.strerror or error}", where=str(output)) from error


def _finished(settings: Production, output: Path) -> ProductionSummary | None:
    summary = output / _SUMMARY
    if not summary.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(summary.read_text())
        key, counts = content["key"], content["summary"]
        result = ProductionSummary(**{**counts, "output": str(output), "made": 0, "seconds": 0.0})
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "not the summary of a production", where=str(summary), remedy="choose another folder"
        ) from error
    if key != key_of(settings):
        raise UsageError(
            "the folder holds a production with other settings", where=str(output), remedy="choose another folder"
        )
    for kind in _KINDS:
        n_parts = len(list((output / kind).glob("part-*.parquet")))
        if n_parts != result.parts:
            raise ApbatchError(
                f"{n_parts} of {result.parts} part files are there",
                where=str(output / kind),
                remedy="remove the folder and simulate again",
            )
    shutil.rmtree(output / ".work", ignore_errors=True)  # left if a kill came between summary and clearing up
    return result


def gather(folder: Path, runs: int, settings: Production) -> dict[str, Path]:
    """Put truth and sources of the first runs, ``run-001`` and so on in a folder, into one folder each.

    Files are linked, not copied; images stay with their runs. Each number of runs has folders of its own, such as
    ``truth-005``, so that what others ask for changes nothing. A manifest beside them holds what the runs have in
    common, and how many there are.

    Parameters
    ----------
    folder : Path
        Of the runs.
    runs : int
        How many are taken.
    settings : Production
        Of the first run.

    Returns
    -------
    dict of str to pathlib.Path
        The folders of ``truth`` and ``sources``.
    """
    targets = {kind: folder / f"{kind}-{runs:03d}" for kind in ("truth", "sources")}
    for kind, target in targets.items():
        target.mkdir(parents=True, exist_ok=True)
        for run in range(1, runs + 1):
            for file in sorted((folder / f"run-{run:03d}" / kind).glob("part-*.parquet")):
                with suppress(FileExistsError):
                    (target / f"part-{run:03d}-{file.stem.removeprefix('part-')}.parquet").hardlink_to(file)
    with written_whole(folder / _SUMMARY) as partial:
        there = len(list(folder.glob("run-*/truth")))
        partial.write_text(json.dumps({**_manifest(settings), "runs": there}, indent=1))
    return targets


def _manifest(settings: Production) -> dict[str, Any]:
    """Return what a production says of itself: no address, and of a secret seed the commitment alone."""
    record = provenance("simulate", [], settings.published())
    return {"key": key_of(settings), "seed_commitment": settings.seed_commitment or None, **record}


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    work = output / ".work"
    if output.exists() and not output.is_dir():
        raise UsageError("not a folder", where=str(output))
    if not work.is_dir() and output.is_dir() and any(output.iterdir()):
        raise UsageError(
            "the folder is not empty and holds no production", where=str(output), remedy="choose another folder"
        )
    with locked(
        work / "lock",
        lambda process: UsageError(f"process {process} is simulating into this folder", where=str(output)),
    ):
        yield


def _prepare(settings: Production, output: Path) -> ProductionPlan:
    work = output / ".work"
    note = work / "settings.json"
    key = key_of(settings)
    if note.is_file():
        if json.loads(note.read_text())["key"] != key:
            raise UsageError(
                "the folder holds an unfinished production with other settings",
                where=str(output),
                remedy="choose another folder, or remove this one",
            )
    else:
        with written_whole(note) as partial:
            partial.write_text(json.dumps({"key": key, "settings": settings.published()}, indent=1))
    return ProductionPlan(settings, work)


def _make(plan: ProductionPlan, task: Task, processes: int, make: Maker | None) -> int:
    missing = [chunk for chunk in range(plan.chunks) if not plan.file_of(chunk).is_file()]
    done = plan.showers - sum(len(plan.range_of(chunk)) for chunk in missing)
    if done:
        task.advance(done)
    if not missing:
        return 0
    if plan.settings.hadrons:
        task.note("making the bank of hadronic interactions")
        load_bank(plan.settings.banks, processes)
        _make_blocks(plan, task, processes)
    task.note("compiling")
    began, n_showers = time.monotonic(), 0
    for count in make(plan, missing) if make else _chunks(plan, missing, processes):
        n_showers += count
        task.advance(count)
        task.note(f"{n_showers / (time.monotonic() - began):.1f} showers/s")
    return n_showers


def _make_blocks(plan: ProductionPlan, task: Task, processes: int) -> None:
    """Make the first interactions of all hadrons; each block is a generator's process of its own."""
    missing = {block: row for block, row in plan.blocks().items() if not plan.block_file(block).is_file()}
    task.note(f"first interactions, {len(missing)} blocks")
    with ThreadPoolExecutor(max(processes, 1)) as pool:
        try:
            for future in as_completed([pool.submit(make_block, plan, block, row) for block, row in missing.items()]):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _chunks(plan: ProductionPlan, missing: list[int], processes: int) -> Iterator[int]:
    if processes <= 1 or len(missing) == 1:
        worker = Worker(plan)
        yield from (worker.make(chunk) for chunk in missing)
        return
    yield from make_chunks(plan, missing, processes)


class _Chunks:
    """Random access to the rows of all chunks; one chunk is open at a time."""

    def __init__(self, plan: ProductionPlan) -> None:
        self.plan = plan
        rows, first = [], []
        before = None
        for chunk in range(plan.chunks):
            with self._open(chunk) as reader:
                keys = reader.read_all().select(["shower", "use"])
            rows.append(keys.num_rows)
            for key in zip(keys["shower"].to_pylist(), keys["use"].to_pylist(), strict=True):
                first.append(key != before)
                before = key
        self.bounds = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        #: Of each row: the number of its event, i.e. of all telescopes that saw one use of a shower.
        self.event = np.cumsum(np.array(first, np.int64)) - 1

    @property
    def rows(self) -> int:
        return int(self.bounds[-1])

    @contextmanager
    def _open(self, chunk: int) -> Iterator[pa.ipc.RecordBatchFileReader]:
        path = self.plan.file_of(chunk)
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                yield reader
        except pa.ArrowInvalid as error:
            raise ApbatchError(
                f"a chunk is damaged: {error}", where=str(path), remedy="remove it and start again"
            ) from error

    def take(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """Return the rows with these numbers, in this order."""
        chunk_of = np.searchsorted(self.bounds, rows, side="right") - 1
        pieces, places = [], []
        for chunk in np.unique(chunk_of):
            here = np.flatnonzero(chunk_of == chunk)
            with self._open(int(chunk)) as reader:
                pieces.append(reader.read_all().take(pa.array(rows[here] - self.bounds[chunk])))
            places.append(here)
        back = np.argsort(np.concatenate(places), kind="stable")
        return pa.concat_tables(pieces).combine_chunks().take(pa.array(back))


def _publish(plan: ProductionPlan, output: Path, n_showers: int, began: float) -> ProductionSummary:
    """Shuffle all rows into parts, move both folders into place, then write the summary that says it is done."""
    settings = plan.settings
    chunks = _Chunks(plan)
    camera = camera_of(settings.detector)
    rng = np.random.default_rng(np.random.SeedSequence([*settings.entropy, 5]))
    events = int(chunks.event[-1]) + 1 if chunks.rows else 0
    place = rng.permutation(events)[chunks.event]  # of each row's event in the shuffled order
    order = np.argsort(place, kind="stable")
    parts = math.ceil(chunks.rows / settings.images_per_part)
    final = plan.folder / "final"
    shutil.rmtree(final, ignore_errors=True)
    for kind in _KINDS:
        (final / kind).mkdir(parents=True)
    thrown = {primary: number for primary, number in settings.thrown.items() if number or primary in _ALWAYS}
    images = dict.fromkeys(thrown, 0)
    showers_with_images: dict[str, set[int]] = {primary: set() for primary in thrown}
    for part in range(parts):
        rows = order[part * settings.images_per_part : (part + 1) * settings.images_per_part]
        table = chunks.take(rows)
        _write_part(table, settings, camera, place[rows] + 1, final, f"part-{part:05d}.parquet")
        for primary, shower in zip(table["kind"].to_pylist(), table["shower"].to_pylist(), strict=True):
            images[primary] += 1
            showers_with_images[primary].add(shower)
    for kind in _KINDS:
        (final / kind / dataset.SUCCESS).touch()
        dataset.write_info(f"file://{final / kind}", {"kind": kind, "camera": camera.name})
        shutil.rmtree(output / kind, ignore_errors=True)  # of a call that was killed right here
        (final / kind).rename(output / kind)
    summary = ProductionSummary(
        output=str(output),
        showers=thrown,
        triggered={primary: len(showers) for primary, showers in showers_with_images.items()},
        images=images,
        parts=parts,
        made=n_showers,
        seconds=time.monotonic() - began,
    )
    counts = {name: value for name, value in asdict(summary).items() if name != "output"}
    with written_whole(output / _SUMMARY) as partial:
        partial.write_text(json.dumps({**_manifest(settings), "summary": counts}, indent=1))
    shutil.rmtree(plan.folder)
    return summary


def _write_part(
    table: pa.Table,
    settings: Production,
    camera: CameraGeometry,
    events: npt.NDArray[np.int64],
    folder: Path,
    name: str,
) -> None:
    rows = table.num_rows
    keys = {
        "experiment": pa.array([EXPERIMENT] * rows, pa.string()),
        "run": pa.array(np.full(rows, settings.run, np.int64)),
        "event": pa.array(events),
        "telescope": table["telescope"],
    }
    array = dict(enumerate(settings.array, start=1)) if len(settings.array) > 1 else None
    schema = image_schema(camera, peak_time=True, telescopes=array)
    columns = {
        **keys,
        "time": pa.nulls(rows, schema.field("time").type),
        "image": table["image"],
        "peak_time": table["peak_time"],
    }
    # No compression: the size of a file must not tell what is in it, and noise hardly shrinks.
    pq.write_table(
        pa.table([columns[name] for name in schema.names], schema=schema),
        folder / "images" / name,
        compression="none",
        use_dictionary=False,
        row_group_size=1000,
        write_page_checksum=True,
    )
    pq.write_table(
        pa.table({**keys, "source_x": table["source_x"], "source_y": table["source_y"]}, schema=SOURCE_SCHEMA),
        folder / "sources" / name,
        compression="none",
        write_page_checksum=True,
    )
    truth = {**keys, **{field: table[field] for field in table.column_names if field not in keys}}
    pq.write_table(
        pa.table([truth[name] for name in TRUTH_SCHEMA.names], schema=TRUTH_SCHEMA),
        folder / "truth" / name,
        compression="zstd",
        write_page_checksum=True,
    )
