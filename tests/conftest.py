"""Fixtures of all tests: a state folder of its own for each test, the real data, real servers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Tests run beside servers and each other, where OpenMP threads, which wait by spinning, made trees 8 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The time of a first call tells of compilers and busy machines, not of the code; the same code gets the same examples.
# `--hypothesis-profile=explore` draws others each time.
settings.register_profile("apbatch", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("apbatch")

pytest_plugins = ("tests.servers", "tests.webserver")

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("APBATCH_TEST_DATA", ROOT.parent / "shared" / "data"))

#: Folders of tests that share servers.
SHARING = ("tests/contract/", "tests/integration/")


class OneForServers(LoadScopeScheduling):
    """Of several workers one takes all tests that share servers, which are then started once; the others take files."""

    def _split_scope(self, nodeid: str) -> str:
        return "servers" if nodeid.startswith(SHARING) else nodeid.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Schedule by files where ``--dist loadfile`` asks for it, those that share servers as one."""
    return OneForServers(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have what takes long begin first: servers, then whole programs."""
    items.sort(key=lambda item: (not item.nodeid.startswith(SHARING), not item.nodeid.startswith("tests/embedded/")))


@pytest.fixture(scope="session", autouse=True)
def _home_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test may touch the state of the user who runs it: where a test names no home, it is this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APBATCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def _form_of_errors() -> Iterator[None]:
    """A command that was asked for JSON says so to its child processes by the environment: not to the next test."""
    yield
    os.environ.pop("APBATCH_ERRORS", None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh $APBATCH_HOME."""
    folder = tmp_path / "home"
    monkeypatch.setenv("APBATCH_HOME", str(folder))
    monkeypatch.delenv("APBATCH_CONFIG", raising=False)
    return folder


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sample with the files of every format, made once for all workers; only to be read."""
    from apbatch.sample.site import write_sample

    own = tmp_path_factory.getbasetemp()
    common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (common / "sample.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_sample(common / "sample")
    return common / "sample"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; skips, with the reason, where it is missing."""
    if not DATA.is_dir():
        pytest.skip(f"real data are missing: no folder {DATA} (set APBATCH_TEST_DATA)")
    return DATA


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of small files that readers were wrong about; skips where it is missing."""
    folder = DATA.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"files of known faults are missing: no folder {folder}")
    return folder


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in one line how many tests of real data ran, or why none did."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    ran = sum(dict(report.user_properties).get("real data", False) for report in reports if report.when == "call")
    asked = os.environ.get("APBATCH_TEST_DATA")
    if DATA.is_dir():
        line = f"{ran} tests of real data ran, on {DATA}"
    elif asked:
        line = f"tests of real data were skipped: APBATCH_TEST_DATA names {DATA}, and there is no such folder"
    else:
        line = "tests of real data were skipped: APBATCH_TEST_DATA does not name their folder; others read the sample"
    terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note which tests look at real data."""
    if "data" in getattr(item, "fixturenames", ()):
        item.user_properties.append(("real data", True))
