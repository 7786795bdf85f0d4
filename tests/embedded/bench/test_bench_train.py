"""The training suite: ranks that are started once and train an epoch whenever they are asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from apbatch.bench.cases.train import ALONE, APART, RANKS, train_groups
from apbatch.bench.runner import run_group
from apbatch.bench.samples import Sample
from apbatch.bench.sizes import BUILT_IN
from apbatch.bench.suite import Setting
from apbatch.bench.suites import SUITES

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")


class NoServers:
    def endpoint(self, server: str, name: str) -> str:
        raise AssertionError("no server is wanted")


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_two_ranks_and_one_train_epochs_when_asked_and_end(tmp_path: Path) -> None:
    setting = Setting(BUILT_IN["smoke"], NoServers(), tmp_path)
    samples: list[Sample] = []
    groups = list(train_groups(setting))
    assert len(groups) == SUITES["train"].operations
    ranks = next(group for group in groups if group.operation.name.startswith("ranks"))
    run_group(ranks, 1, samples.append)
    assert [sample.error for sample in samples if sample.error] == []
    expected = {ALONE, APART} if setting.left_out else {RANKS, ALONE, APART}
    assert {sample.peer for sample in samples} == expected
    assert all(process.poll() is not None for case in ranks.cases for process in case._processes)
