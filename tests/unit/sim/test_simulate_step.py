"""The job's step that simulates: what it hands on to the Monte Carlo, runs, and secret seeds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apbatch.config import Settings
from apbatch.index.attributes import COMMON
from apbatch.index.query import matches
from apbatch.sim import seeds
from apbatch.sim.production import gather, key_of
from apbatch.sim.settings import Production
from apbatch.workflow.file_steps import Simulate
from apbatch.workflow.records import Records
from apbatch.workflow.step import Context


def test_numbers_spectra_and_sky_reach_the_production_and_the_rest_is_its_default() -> None:
    step = Simulate(gammas=3, point_gammas=2, protons=5, helium=4, gamma_energy_min=1.5, night_sky=0.055, seed=9)
    made = step._production(2)
    assert made.thrown == {"gamma": 3, "point gamma": 2, "proton": 5, "electron": 0, "helium": 4, "iron": 0}
    assert (made.seed, made.run, made.detector.night_sky, made.gamma.energy_min) == (9, 2, 0.055, 1.5)
    usual = Production()
    assert made.gamma.energy_max == usual.gamma.energy_max
    assert made.proton == usual.proton
    assert made.detector.efficiency == usual.detector.efficiency


def test_a_job_with_a_secret_seed_is_addressed_by_its_commitment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for name in ("one", "one", "other"):
        monkeypatch.setenv(seeds.VARIABLE, str(tmp_path / name))
        made = Simulate(seed="secret")._production(1)
        assert made.seed == seeds.load_seed(tmp_path / name).seed
        keys.append(key_of(made))
    assert keys[0] == keys[1] != keys[2]
    known = Production(seed=made.seed, seed_commitment=made.seed_commitment, run=made.run)
    assert "seed" not in known.published()
    assert json.dumps(known.published()).count(known.seed_commitment) == 1


def test_truth_and_sources_of_runs_are_gathered_and_further_runs_change_nothing(tmp_path: Path) -> None:
    for run in (1, 2):
        for kind in ("truth", "sources"):
            folder = tmp_path / f"run-{run:03d}" / kind
            folder.mkdir(parents=True)
            (folder / "part-00000.parquet").write_text(f"{kind} {run}")
    settings = Production(seed=7)
    one = gather(tmp_path, 1, settings)
    assert [file.name for file in one["truth"].iterdir()] == ["part-001-00000.parquet"]
    two = gather(tmp_path, 2, settings)
    assert sorted(file.read_text() for file in two["sources"].iterdir()) == ["sources 1", "sources 2"]
    assert gather(tmp_path, 1, settings) == one
    assert [file.read_text() for file in one["truth"].iterdir()] == ["truth 1"]
    assert {place.parent for place in one.values()} == {tmp_path}  # beside the manifest, which blind sets ask
    manifest = json.loads((tmp_path / "production.json").read_text())
    assert (manifest["runs"], manifest["seed_commitment"], manifest["parameters"]["seed"]) == (2, None, 7)
    secret = settings.model_copy(update={"seed_commitment": "ab"})
    gather(tmp_path, 2, secret)
    manifest = json.loads((tmp_path / "production.json").read_text())
    assert (manifest["seed_commitment"], manifest["parameters"].get("seed")) == ("ab", None)


@pytest.mark.parametrize("runs", [1, 5, 12, 100, 345, 999, 1000])
def test_a_job_selects_images_of_its_own_runs_alone(runs: int, tmp_path: Path) -> None:
    records, production = Records(tmp_path), "/taiga-sim/simulation/abc"
    step = Simulate(runs=runs)
    records.finish("simulate", "k", {}, {}, {"production": production, "truth": "t", "sources": "s"})
    recalled = records.products(step, "k")
    assert recalled is not None
    store: Any = SimpleNamespace(attributes=lambda: dict(COMMON))
    context = Context("j", tmp_path, Settings(), store, store, "experiment = 'TAIGA-SIM'", lambda: store)
    context.take(recalled)
    query = context.selection().query
    picked = [
        run
        for run in range(1, 1001)
        if matches(query, {"experiment": "TAIGA-SIM", "path": f"{production}/run-{run:03d}/images/part-00000.parquet"})
    ]
    assert picked == list(range(1, runs + 1))
    other = {"experiment": "TAIGA-SIM", "path": "/taiga-sim/simulation/abd/run-001/images/part-00000.parquet"}
    assert not matches(query, other)


def test_a_commitment_depends_on_seed_and_salt_and_damaged_files_are_named(tmp_path: Path) -> None:
    salt, other = "00" * 32, "01" * 32
    assert len({seeds.commit_seed(5, salt), seeds.commit_seed(6, salt), seeds.commit_seed(5, other)}) == 3
    assert seeds.verify_seed(seeds.commit_seed(5, salt), 5, salt)
    file = tmp_path / "seed.json"
    for content in ("", "[]", '{"seed": "zz", "salt": "00"}', '{"seed": "5", "salt": "00"}'):
        file.write_text(content)
        with pytest.raises(seeds.FormatError, match=r"seed\.json.*not a secret seed"):
            seeds.load_seed(file)
    with pytest.raises(seeds.NotFoundError, match="sim seed new"):
        seeds.load_seed(tmp_path / "none")
