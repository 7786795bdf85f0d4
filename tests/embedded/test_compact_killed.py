"""Compaction in a process that ends as by ``kill -9``: no row is lost or doubled, and the same work goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apbatch.datasets import dataset
from apbatch.spark.compact import content_digest
from apbatch.spark.inputs.splits import dataset_files
from tests.components.spark.test_compact import content, run
from tests.synthetic import write_dataset

ROOT = Path(__file__).resolve().parents[2]
#: Ends itself at a point of a compaction that is named on the command line.
PROGRAM = """
import os, signal, sys
from apbatch.datasets import dataset
from apbatch.spark import compact
from tests.components.spark.test_compact import run

point, url, target = sys.argv[1:]
write_info, opened = dataset.write_info, []

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def write_and_kill(url, info):
    if "generation" not in info:  # the old dataset, before anything is renamed
        write_info(url, info)
        return
    if point == "the sidecar is new":
        write_info(url, info)
    kill()

class Writer(compact.PartWriter):
    def write(self, batch):
        super().write(batch)
        if len(opened) == 3:
            self._flush()
            kill()

    def writing(self):
        opened.append(self)
        return super().writing()

if point == "a part is half written":
    compact.PartWriter = Writer
else:
    dataset.write_info = write_and_kill
run(url, url, int(target))
"""


@pytest.mark.parametrize(
    ("point", "done"), [("a part is half written", 2), ("parts have their names", 4), ("the sidecar is new", 0)]
)
def test_a_killed_compaction_loses_and_doubles_nothing(tmp_path: Path, point: str, done: int) -> None:
    url = write_dataset(tmp_path / "d", content(), {"kind": "images"}, parts=8)
    before, names = content_digest(url), dataset.part_files(url)
    target = sum(size for size, _ in dataset_files(url)[1].values()) // 4
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM, point, url, str(target)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert any(path.name.startswith(dataset.HIDDEN) for path in (tmp_path / "d").iterdir())
    assert content_digest(url) == before
    assert (dataset.part_files(url) == names) == (point != "the sidecar is new")
    assert run(url, url, target) == done
    assert len(dataset.part_files(url)) <= 4 and content_digest(url) == before
    assert {path.name for path in (tmp_path / "d").iterdir()} == {"_SUCCESS", "_apbatch.json", *dataset.part_files(url)}
