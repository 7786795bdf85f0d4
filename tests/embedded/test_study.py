"""The study as a job: killed in the middle of its trainings it goes on, and ends in a report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.spark

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "talk_study_smoke.yaml"


def start(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("apbatch")), "run", str(JOB)],
        env={**os.environ, "APBATCH_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.campaign
@pytest.mark.timeout(2400)
def test_a_killed_study_goes_on_and_ends_in_a_report(tmp_path: Path) -> None:
    first = start(tmp_path)
    trainings = tmp_path / "jobs" / "talk-study-smoke"
    deadline = time.monotonic() + 2000
    try:
        while not list(trainings.glob("study-*/trainings/talk-cnn-1/trained.json")):
            assert first.poll() is None, first.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
            first.communicate()
    (done,) = trainings.glob("study-*/trainings/talk-cnn-1/trained.json")
    before = done.stat().st_mtime_ns

    again = start(tmp_path)
    out, err = again.communicate(timeout=850)
    assert again.returncode == 0, err
    assert done.stat().st_mtime_ns == before
    (report,) = trainings.glob("report-*/report.json")
    study = json.loads(report.read_text())["study"]
    methods = {row["method"] for row in study["rows"]}
    assert methods == {"box"} | {
        name + mean
        for name in ("trees", "forest", "talk-cnn", "hex-cnn", "halo-trees", "halo-net", "halo", "ensemble")
        for mean in ("", "+")
    }
    assert {row["treatment"] for row in study["rows"]} == {
        "none", "soft", "standard", "none@2", "none+partners", "none+time+partners"
    }  # fmt: skip
    assert study["night_sky"] == pytest.approx(3.5)
    assert "simple 2-D technique" in out and str(report.with_suffix(".html")) in out
