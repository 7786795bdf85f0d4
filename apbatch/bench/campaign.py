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
from apbatch.bench.samples import SampleFile, write_about
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

    Parameters
    ----------
    suites : sequence of str
    size_name : str
        Name of `size`, for the report.
    size : Size
    servers : Servers
    folder : pathlib.Path
        A new folder.
    data : pathlib.Path, optional
        Folder of real data.

    Raises
    ------
    UsageError
        For an unknown suite, or a folder that holds a run already.
    """
    require_suites(suites)
    if (folder / "run.json").exists():
        raise UsageError("this folder holds a run already", where=str(folder), remedy="give another by --out")
    folder.mkdir(parents=True, exist_ok=True)
    selection = {name: suite for name, suite in SUITES.items() if name in suites}
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
                    run_group(group, size.repeats, samples.add)
                    task.advance()
        about["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_about(folder, about, operations)
    return setting.left_out


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
