"""The decoding suite: every peer does its work, with real files and without."""

from __future__ import annotations

from pathlib import Path

from apbatch.bench.cases.decode import decode_groups
from apbatch.bench.runner import run_group
from apbatch.bench.samples import Sample
from apbatch.bench.sizes import Size
from apbatch.bench.suite import Setting


class NoServers:
    def endpoint(self, server: str, name: str) -> str:
        raise AssertionError("no server is needed")


def run(scratch: Path, data: Path | None) -> tuple[list[Sample], dict[str, str]]:
    size = Size(repeats=1, large_mb=1, small_files=1, small_kb=1, records=100, lookups=1)
    setting, samples = Setting(size, NoServers(), scratch, data), []
    with setting.at_end:
        for group in decode_groups(setting):
            run_group(group, 1, samples.append)
    assert not list(scratch.iterdir())
    return samples, setting.left_out


def test_without_real_files_records_and_events_are_made_up(tmp_path: Path) -> None:
    samples, left_out = run(tmp_path, None)
    assert {sample.operation for sample in samples} == {
        "TAIGA raw records",
        "TAIGA Monte Carlo text",
        "FACT photon stream",
    }
    assert not [sample.error for sample in samples if sample.error]
    assert {"uproot", "eventio"} == set(left_out)


def test_all_peers_find_the_same_light_in_the_real_files(tmp_path: Path, data: Path) -> None:
    samples, left_out = run(tmp_path, data)
    assert not [sample.error for sample in samples if sample.error]
    assert len({sample.operation for sample in samples}) + len(left_out) == 5
