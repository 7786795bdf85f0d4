"""The command line: one message, the right status, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waits import PATIENCE_S


def apbatch(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from apbatch.cli.main import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, "APBATCH_HOME": str(home), **environment},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("fnd", "x"),
        ("find", "--format", "xml", "events > 1"),
        ("find", "evnts > 1"),
        ("find", "events >"),
        ("ingest", "nowhere"),
        ("run", "no-such-file.yaml"),
        ("run", "jobs"),
    ],
)
def test_a_users_error_is_status_2_with_one_message(arguments: tuple[str, ...], home: Path) -> None:
    done = apbatch(*arguments, home=home)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip() and "Traceback" not in done.stderr


def test_debug_shows_the_traceback(home: Path) -> None:
    done = apbatch("--debug", "find", "evnts > 1", home=home)
    assert "Traceback" in done.stderr and done.returncode != 0


def test_a_failure_that_nobody_foresaw_is_status_1_without_traceback(home: Path) -> None:
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file where the state folder should be")
    done = apbatch("count", "events > 1", home=home)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and done.stderr.startswith("apbatch: ")


def test_help_lists_every_group(home: Path) -> None:
    text = apbatch("--help", home=home).stdout
    for command in ("cluster", "site", "ingest", "find", "count", "mirror", "sim", "run", "blind", "bench", "doctor"):
        assert command in text
