"""Steps of a job that share a pass over the pixels, on images of the sample."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apbatch.config import SparkSettings, load_settings
from apbatch.datasets import dataset
from apbatch.spark import pipeline
from apbatch.spark.connect import session as sessions
from apbatch.workflow import runner
from apbatch.workflow.model import load_job

pytestmark = pytest.mark.spark

SITE = "name: fact\nexperiment: FACT-MC\nroot: {root}\ninclude: ['gamma_*.phs.jsonl']\n"
HEAD = "name: passes\nselect: \"experiment = 'FACT-MC'\"\nsteps:\n  - ingest: {site: fact.yaml}\n"
CLEAN = "  - clean: {cleaning: soft, time_limit: 5 ns}\n"
PLAIN = "  - parameters: {register_events: false}\n"
EXTRAS, AXIAL, BICUBIC = "  - parameters: {extras: true}\n", "  - grid: {}\n", "  - grid: {method: bicubic}\n"


@pytest.fixture(scope="module")
def spark() -> Iterator[object]:
    found = sessions.session(SparkSettings(master="local[2]", conf={"spark.default.parallelism": "2"}), "passes")
    yield found
    found.stop()


@pytest.fixture
def passes(spark, home: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs a job of some steps and returns its outcome, and which passes it made over pixels."""
    (tmp_path / "fact.yaml").write_text(SITE.format(root=sample / "fact_images"))
    monkeypatch.setattr(sessions, "session", lambda *_: spark)
    monkeypatch.setattr(sessions, "close", lambda *_: None)
    made: list[tuple[str, ...]] = []
    for name in ("images", "derived"):
        original = getattr(pipeline, name)

        def spied(session, source, outputs, *more, original=original, **options):  # type: ignore[no-untyped-def]
            made.append(tuple(outputs))
            return original(session, source, outputs, *more, **options)

        monkeypatch.setattr(pipeline, name, spied)

    def run(*steps: str, head: str = HEAD) -> tuple[runner.Outcome, list[tuple[str, ...]]]:
        (tmp_path / "job.yaml").write_text(head + "".join(steps))
        made.clear()
        outcome = runner.run(load_job(tmp_path / "job.yaml"), load_settings(None))
        return outcome, list(made)

    return run


def test_neighbouring_steps_are_one_pass_with_the_addresses_and_rows_that_each_has_alone(
    passes: Any, home: Path, spark: Any, tmp_path: Path
) -> None:
    outcome, made = passes(CLEAN, EXTRAS, AXIAL, BICUBIC)
    assert made == [("images", "parameters", "grids"), ("grids",)]  # a second grid is a pass of its own
    assert outcome.ran == ["ingest", "clean", "parameters", "grid", "grid"]
    whole = dict(outcome.products)
    alone = f"file://{tmp_path}/alone"
    pipeline.parameters(spark, whole["images"], alone, more=("extras",))
    assert dataset.read_table(alone).equals(dataset.read_table(whole["parameters"]))
    assert "time_slope" in dataset.schema(whole["parameters"]).names

    # What was killed between the pass and its records is found, and not made again.
    records = home / "jobs" / "passes" / "steps"
    for kind in ("parameters", "grid"):
        for record in records.glob(f"*/{kind}-*.json"):
            record.unlink()
    outcome, made = passes(CLEAN, EXTRAS, AXIAL, BICUBIC)
    assert made == [] and outcome.products == whole

    # Without the images, only they are made again; another method of the grid is a pass over the images alone.
    (Path(whole["images"].removeprefix("file://")) / "_SUCCESS").unlink()
    outcome, made = passes(CLEAN, EXTRAS, BICUBIC)
    assert made == [("images",)] and outcome.products == whole
    outcome, made = passes(CLEAN, EXTRAS, "  - grid: {method: shifting}\n", "  - parameters: {cleaning: standard}\n")
    assert made == [("grids",), ("parameters",)]
    assert dataset.info(outcome.products["parameters"])["cleaning"] == "tailcuts-14-7"
    with contextlib.suppress(FileNotFoundError):
        assert not list((home / "store").rglob(".apbatch-*"))


def test_telescopes_of_two_cameras_meet_in_one_job_whose_datasets_are_compacted_and_looked_at(
    passes: Any, sample: Path, tmp_path: Path
) -> None:
    (tmp_path / "cta.yaml").write_text(f"name: cta\nexperiment: CTA\nroot: {sample}/simtel\n")
    head = "name: stereo\nselect: \"format = 'simtel'\"\nsteps:\n  - ingest: {site: cta.yaml}\n"
    one, other = "SampleCam", "SampleCamFine"
    steps = [
        *(f"  - clean: {{camera: {camera}, picture: 15 pe, boundary: 7.5 pe}}\n{PLAIN}" for camera in (one, other)),
        "  - stereo: {size_min: 50 pe}\n  - compact: {size: 2 Mbyte}\n  - quality: {bin: 1 s}\n",
    ]
    outcome, made = passes(*steps, head=head)
    assert made == [("images", "parameters")] * 2
    assert outcome.ran == ["ingest", "clean", "parameters", "clean", "parameters", "stereo", "compact", "quality"]
    showers = dataset.read_table(outcome.products["stereo"]).to_pylist()
    known = dataset.info(outcome.products["stereo"])
    directions = [shower for shower in showers if shower["reason"] == "found"]
    assert len(directions) > len(showers) / 2 > 1 and len(known["provenance"]["inputs"]) == 2
    assert len(outcome.products["compacted"]) == 4
    outcome, made = passes(*steps, head=head)
    assert made == [] and outcome.ran == ["ingest"]
