"""The access suite: every peer does every operation, and each run is proved."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from apbatch.bench.cases import access, gateway
from apbatch.bench.runner import run_groups
from apbatch.bench.samples import Sample
from apbatch.bench.sizes import BUILT_IN
from apbatch.bench.suite import Setting
from apbatch.bench.suites import SUITES

pytestmark = pytest.mark.skipif(
    (find_spec("pyfuse3") is None or not Path("/dev/fuse").exists()) and not os.environ.get("CI"),
    reason="nothing can be mounted here: pyfuse3 or /dev/fuse is missing",
)


def test_mount_pass_through_and_http_do_every_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_ENTRIES", 200)
    monkeypatch.setattr(access, "_SPARSE_BLOCKS", 64)
    monkeypatch.setattr(gateway, "_BYTES", 5_000_000)
    size = BUILT_IN["smoke"].model_copy(update={"repeats": 1, "large_mb": 5, "clients_s": 2.0})
    setting = Setting(size, SimpleNamespace(endpoint=None), tmp_path)
    samples: list[Sample] = []
    with setting.at_end:
        run_groups(access.access_groups(setting), 1, samples.append)
    assert setting.left_out == {}
    assert [sample.error for sample in samples if sample.error] == []
    peers = {sample.operation: set() for sample in samples}
    for sample in samples:
        peers[sample.operation].add(sample.peer)
    assert len(peers) == SUITES["access"].operations
    of_gateway = {name for name in peers if name.endswith("64 clients of a gateway")}
    assert len(of_gateway) == 2
    assert all(names == {"gateway"} if name in of_gateway else len(names) == 2 for name, names in peers.items())
