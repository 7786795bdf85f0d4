"""The suite spark: peers are processes of their own, all do the same work, and none is left."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from apbatch.bench.cases.spark import TWO, spark_groups
from apbatch.bench.cases.spark_worker import BULK, PLAIN, VERIFIED
from apbatch.bench.runner import Group, run_group
from apbatch.bench.samples import Sample
from apbatch.bench.sizes import BUILT_IN
from apbatch.bench.suite import Setting
from apbatch.bench.suites import SUITES

WITHOUT_FRAMES = {PLAIN, VERIFIED, f"{BULK}, local[2]", f"{BULK}, local[1]", TWO}


class NoServers:
    def endpoint(self, server: str, name: str) -> str:
        raise AssertionError("no server is wanted")


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_plain_processes_and_the_bulk_path_do_the_same_work_and_end(tmp_path: Path) -> None:
    setting = Setting(BUILT_IN["smoke"].model_copy(update={"images": 400}), NoServers(), tmp_path)
    samples: list[Sample] = []
    names, before = [], set(psutil.pids())
    with setting.at_end:
        for group in spark_groups(setting):
            names.append(group.operation.name)
            if group.operation.name in ("one pass", "two workers"):
                some = [case for case in group.cases if case.peer in WITHOUT_FRAMES]
                run_group(Group(group.operation, some), 1, samples.append)
    assert len(names) == SUITES["spark"].operations
    assert [sample.error for sample in samples if sample.error] == []
    assert {sample.peer for sample in samples} == WITHOUT_FRAMES
    assert all(sample.cpu_user_s > 0 for sample in samples)
    mine = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    assert mine == []
