"""How ranks are started, and what is read from the output of those that died."""

from __future__ import annotations

import pytest

from apbatch.dl.training import ranks
from apbatch.dl.training.ranks import Gloo, Mpi
from apbatch.errors import MissingSoftwareError

RULE = "-" * 74
RAISED = f"""rank 0
Traceback (most recent call last):
RuntimeError: no memory left
{RULE}
Primary job  terminated normally, but 1 process returned
{RULE}
mpirun detected that one or more processes exited with non-zero status, thus causing

  Process name: [[5787,1],1]
  Exit code:    1
{RULE}"""


def test_mpirun_tells_which_rank_raised_and_the_line_before_it_speaks_is_the_reason() -> None:
    assert Mpi().last_words(RAISED.splitlines()) == (1, "RuntimeError: no memory left")


def test_mpirun_tells_which_rank_was_killed() -> None:
    output = ["epoch 1", RULE, "mpirun noticed that process rank 1 with PID 9 on node a exited on signal 9 (Killed)."]
    assert Mpi().last_words(output) == (1, "ended by signal 9")


def test_horovodrun_tells_the_rank_and_its_own_last_line() -> None:
    output = ["[1]<stderr>:no memory left", "[0]<stdout>:epoch 1", "Process 1 exit with status code -9"]
    assert Gloo().last_words(output) == (1, "no memory left")


@pytest.mark.parametrize("launcher", [Gloo(), Mpi()])
def test_a_death_without_words_is_called_that(launcher: ranks.Launcher) -> None:
    assert launcher.last_words([]) == (None, "no words")


def test_mpi_is_chosen_where_it_is_there_and_gloo_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(ranks, "horovodrun", lambda: "horovodrun")
    monkeypatch.setattr(ranks.shutil, "which", lambda name: "/usr/bin/mpirun")
    monkeypatch.setattr(ranks, "_built_with_mpi", lambda: True)
    monkeypatch.delenv("APBATCH_RANKS_OVER", raising=False)
    assert isinstance(ranks.launcher(), Mpi)
    monkeypatch.setenv("APBATCH_RANKS_OVER", "gloo")
    assert isinstance(ranks.launcher(), Gloo)
    monkeypatch.setattr(ranks, "_built_with_mpi", lambda: False)
    monkeypatch.setenv("APBATCH_RANKS_OVER", "")
    assert isinstance(ranks.launcher(), Gloo)
    monkeypatch.setenv("APBATCH_RANKS_OVER", "mpi")
    with pytest.raises(MissingSoftwareError, match="APBATCH_RANKS_OVER=mpi"):
        ranks.launcher()
