"""One run of the benchmark: its suites one after the other, what had to be left out and why, samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apbatch.bench.machine import machine, software
from apbatch.bench.runner import run_group
from apbatch.bench.samples import RUN, Sample, SampleFile, read_run, write_about
from apbatch.bench.sizes import Size
from apbatch.bench.suite import Servers, Setting
from apbatch.bench.suites import SUITES, require_suites
from apbatch.config import home
from apbatch.errors import UsageError
from apbatch.progress import progress


def new_folder() -> Path:
    """Return the folder of a run that begins now."""
    return runs_folder() / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def runs_folder() -> Path:
    """Return the folder of all runs."""
    return home() / "bench"


def latest_folder() -> Path:
    """Return the folder of the latest run.

    Raises
    ------
    UsageError
        If there is none.
    """
    runs = sorted(runs_folder().glob("*/run.json"))
    if not runs:
        raise UsageError(
            "there is no benchmark run yet", where=str(runs_folder()), remedy="apbatch bench run storage index"
        )
    return runs[-1].parent


def run(
    suites: Sequence[str], size_name: str, size: Size, servers: Servers, folder: Path, data: Path | None = None
) -> dict[str, str]:
    """Run the benchmark into `folder`; return who was left out and why.

    A run that was broken off goes on: what it has kept is not measured again.

    Parameters
    ----------
    suites : sequence of str
    size_name : str
        Name of `size`, for the report.
    size : Size
    servers : Servers
    folder : pathlib.Path
        A new folder, or that of a run of the same suites and size that did not finish.
    data : pathlib.Path, optional
        Folder of real data.

    Raises
    ------
    UsageError
        For an unknown suite, or a folder that holds another run already.
    """
    require_suites(suites)
    selection = {name: suite for name, suite in SUITES.items() if name in suites}
    folder.mkdir(parents=True, exist_ok=True)
    kept: dict[tuple[str, str], set[tuple[str, int]]] = {}
    for sample in _broken_off(folder, list(selection), size):
        if sample.error is None:
            kept.setdefault((sample.suite, sample.operation), set()).add((sample.peer, sample.round))
    about: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "suites": list(selection),
        "size": {"name": size_name, **size.model_dump()},
        "machine": machine(folder),
        "software": software(),
        "left out": {},
        "finished": None,
    }
    write_about(folder, about, [])
    with _setting(size, servers, folder, data) as setting, _sample_file(folder) as samples:
        about["left out"] = setting.left_out
        operations = []
        with progress("bench", sum(suite.operations for suite in selection.values())) as task:
            for suite in selection.values():
                for group in suite.groups(setting):
                    task.note(f"{group.operation.suite}: {group.operation.name}")
                    operations.append(group.operation)
                    write_about(folder, about, operations)
                    of_group = kept.get((group.operation.suite, group.operation.name), ())
                    run_group(group, size.repeats, samples.add, of_group)
                    task.advance()
        about["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_about(folder, about, operations)
    return setting.left_out


def _broken_off(folder: Path, suites: list[str], size: Size) -> list[Sample]:
    """Return what a run in this folder has kept that did not finish."""
    if not (folder / RUN).exists():
        return []
    earlier = read_run(folder)
    about = earlier.about
    amounts = {key: value for key, value in (about.get("size") or {}).items() if key != "name"}
    if about.get("finished") or about.get("suites") != suites or amounts != size.model_dump():
        raise UsageError("this folder holds a run already", where=str(folder), remedy="give another by --out")
    return earlier.samples


@contextmanager
def _sample_file(folder: Path) -> Iterator[SampleFile]:
    samples = SampleFile(folder)
    try:
        yield samples
    finally:
        samples.close()


@contextmanager
def _setting(size: Size, servers: Servers, folder: Path, data: Path | None) -> Iterator[Setting]:
    """Give the suites what they need; whatever they made is removed at the end."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    setting = Setting(size, servers, scratch, data)
    with setting.at_end as at_end:
        at_end.callback(shutil.rmtree, scratch, ignore_errors=True)
        yield setting
