"""How the ranks of a training are started on this machine: by `mpirun` where Horovod was built with MPI, else by Gloo.

Ranks that share cores must give theirs up while they wait. Open MPI does so (``mpi_yield_when_idle``), so that two
ranks on two cores do 1.5 to 1.8 times the work of one; Gloo's thread spins for a lock whose holder waits for that very
core, and they do 1.2 to 1.3 times (`apbatch bench run train`).
"""

from __future__ import annotations

import importlib.util
import itertools
import mmap
import os
import re
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from apbatch.errors import MissingSoftwareError


class Launcher(ABC):
    """A program that starts the ranks.

    Attributes
    ----------
    name : str
        What carries the messages: ``mpi`` or ``gloo``.
    cycle_ms : str
        How often the ranks agree on what to add up. Over Gloo each time costs up to 0.3 ms of the core that computes:
        with 1 ms steps of large batches took a quarter longer on two cores, those of small ones no less. Over MPI,
        which yields, 0.5 ms gave a fifth more images a second than 1 ms with batches of 128, and 0.1 to 0.3 ms no more.
    """

    name: ClassVar[str]
    cycle_ms: ClassVar[str]

    @abstractmethod
    def command(self, ranks: int) -> list[str]:
        """Return the command before that of a rank."""

    @abstractmethod
    def last_words(self, output: Sequence[str]) -> tuple[int | None, str]:
        """Return which rank died first, as far as the output tells, and the last line that a rank wrote.

        Parameters
        ----------
        output : sequence of str
            The last lines of launcher and ranks.
        """

    def environment(self) -> dict[str, str]:
        """Return the variables that Horovod reads."""
        return {
            "HOROVOD_CONTROLLER": self.name,
            "HOROVOD_CPU_OPERATIONS": self.name,
            "HOROVOD_CYCLE_TIME": self.cycle_ms,
            "HOROVOD_STALL_CHECK_TIME_SECONDS": "60",
        }


class Gloo(Launcher):
    """`horovodrun`, which needs nothing but Horovod."""

    name, cycle_ms = "gloo", "5"
    _LINE = re.compile(r"^\[(?P<rank>\d+)\]<std(?:out|err)>:(?P<text>.*)")
    _DEATH = re.compile(r"Process (?P<rank>\d+) exit with status code (?P<status>-?\d+)")

    def command(self, ranks: int) -> list[str]:
        """Return the command before that of a rank."""
        where = ["-np", str(ranks), "-H", f"localhost:{ranks}", "--gloo", "--network-interfaces", "lo"]
        return [sys.executable, str(horovodrun()), *where]

    def last_words(self, output: Sequence[str]) -> tuple[int | None, str]:
        """Return which rank died first, as far as the output tells, and the last line that a rank wrote."""
        death = next((match for line in output if (match := self._DEATH.search(line))), None)
        rank = int(death["rank"]) if death else None
        own = [match["text"] for line in output if (match := self._LINE.match(line)) and int(match["rank"]) == rank]
        return rank, _last(own or output) or (f"exit code {death['status']}" if death else "no words")


class Mpi(Launcher):
    """`mpirun` of Open MPI: ranks talk through shared memory, and listen on the loopback device only."""

    name, cycle_ms = "mpi", "0.5"
    _DEATH = re.compile(
        r"process rank (?P<rank>\d+) with .* exited on (?P<signal>signal \d+)"
        r"|Process name: \[\[\d+,\d+\],(?P<name>\d+)\]"
    )

    def command(self, ranks: int) -> list[str]:
        """Return the command before that of a rank."""
        settings = {
            "mpi_yield_when_idle": "1",
            "pml": "ob1",
            "btl": "self,vader",
            "btl_vader_single_copy_mechanism": "none",  # needs a right that containers lack
            "plm": "isolated",
            "oob_tcp_if_include": "lo",
        }
        more = [word for name, value in settings.items() for word in ("--mca", name, value)]
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        return ["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none", *root, *more]

    def last_words(self, output: Sequence[str]) -> tuple[int | None, str]:
        """Return which rank died first, as far as the output tells, and the last line that a rank wrote."""
        death = next((match for line in output if (match := self._DEATH.search(line))), None)
        if death and death["signal"]:
            return int(death["rank"]), f"ended by {death['signal']}"
        own = list(itertools.takewhile(lambda line: not line.startswith("-----"), output))  # then mpirun speaks
        return int(death["name"]) if death else None, _last(own) or "no words"


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def launcher() -> Launcher | None:
    """Return what starts ranks here: MPI where Horovod and the machine have it, else Gloo; None without Horovod.

    ``$APBATCH_RANKS_OVER`` (``mpi`` or ``gloo``) overrides the choice.

    Raises
    ------
    MissingSoftwareError
        If the variable names what is not there.
    """
    if importlib.util.find_spec("horovod") is None or horovodrun() is None:
        return None
    choice = os.environ.get("APBATCH_RANKS_OVER", "")
    mpi = shutil.which("mpirun") is not None and _built_with_mpi()
    if choice not in ("", "mpi", "gloo") or (choice == "mpi" and not mpi):
        raise MissingSoftwareError(
            f"APBATCH_RANKS_OVER={choice}: this machine has {'MPI and ' if mpi else ''}Gloo",
            remedy="apt-get install libopenmpi-dev openmpi-bin, remove .venv, make .venv/.ready",
        )
    return Mpi() if mpi and choice != "gloo" else Gloo()


def rank_of_this_process() -> int:
    """Return the number that the launcher gave this process, 0 for one that no launcher started."""
    return int(os.environ.get("HOROVOD_RANK") or os.environ.get("OMPI_COMM_WORLD_RANK") or 0)


def horovodrun() -> str | None:
    """Return Horovod's own launcher, the one of this environment if it has one."""
    beside = Path(sys.executable).with_name("horovodrun")
    return str(beside) if beside.exists() else shutil.which("horovodrun")


def _built_with_mpi() -> bool:
    # Importing Horovod to ask takes seconds, since it imports TensorFlow.
    spec = importlib.util.find_spec("horovod")
    folders = spec.submodule_search_locations if spec is not None else None
    for library in (path for folder in folders or () for path in Path(folder).glob("tensorflow/mpi_lib*.so")):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(b"libmpi.so") >= 0
    return False
