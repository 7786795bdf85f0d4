"""What is measured: one operation of one peer, with a proof that it did its work."""

from __future__ import annotations

import resource
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

Unit = Literal[
    "MB/s", "GB/s", "files/s", "records/s", "images/s", "showers/s", "requests/s", "ms", "MB", "kB", "requests"
]
#: By which clock an operation is judged.
Clock = Literal["wall", "cpu"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that all peers of a group do on the same data.

    Attributes
    ----------
    suite : str
        Name of its suite (`apbatch.bench.suites`).
    name : str
        Short and unique in its suite.
    description : str
        What exactly is timed, one or two sentences for the reader of the report.
    unit : str
        A rate (higher is better), ``ms`` for each of `count`, or an amount, which the case tells itself (lower is
        better).
    count : float
        How much one run does: megabytes (10⁶ bytes), gigabytes (10⁹), files, records, images, or calls.
    reference : str, optional
        The peer that stands for a physical limit; ratios are given against it.
    baseline : str, optional
        The peer that is to be beaten; ratios are given against it too.
    baselines : tuple of pairs of str
        Peers that each have a baseline of their own, and that.
    clock : str
        ``wall``, or ``cpu`` for work of one thread in this process, or of all processes of a peer: CPU time is the
        same on an idle machine, and on a busy one it does not count the time that others had the core.
    """

    suite: str
    name: str
    description: str
    unit: Unit
    count: float
    reference: str | None = None
    baseline: str | None = None
    clock: Clock = "wall"
    baselines: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "baselines", tuple((peer, baseline) for peer, baseline in self.baselines))

    def baseline_of(self, peer: str) -> str | None:
        """Return the peer that a peer is to beat."""
        return dict(self.baselines).get(peer, self.baseline)

    @property
    def title(self) -> str:
        """The name as a heading; acronyms in it stay."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger figure is the better one."""
        return self.unit.endswith("/s")

    def figure(self, seconds: float) -> float:
        """Return the figure in `unit` for one run that took `seconds`."""
        return self.count / seconds if self.higher_is_better else 1000.0 * seconds / self.count


class Case(ABC):
    """One peer doing one operation.

    The runner calls `set_up` once; then, for each round, `prepare`, `run` (the only one that is timed) and `check`;
    at the end `tear_down`.

    Parameters
    ----------
    operation : Operation
    peer : str
        Who does it, as the report names it.
    bytes : int
        Bytes of payload that one run moves.
    """

    def __init__(self, operation: Operation, peer: str, bytes: int = 0) -> None:
        self.operation, self.peer, self.bytes = operation, peer, bytes

    def set_up(self) -> None:  # noqa: B027 (a hook)
        """Make what all rounds need."""

    def prepare(self) -> None:  # noqa: B027 (a hook)
        """Bring everything back to where a round starts."""

    @abstractmethod
    def run(self) -> None:
        """Do the operation."""

    def cpu_times(self) -> tuple[float, float]:
        """Return the CPU time used so far, s: of the program, and of the system for it.

        A peer that is another process tells that one's, with its children.
        """
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime, used.ru_stime

    def figure(self, seconds: float) -> float:
        """Return the figure of the last run.

        Parameters
        ----------
        seconds : float
            What it took by the operation's clock; a case that measures anything else tells that.
        """
        return self.operation.figure(seconds)

    @abstractmethod
    def check(self) -> None:
        """Prove that the last run did the work.

        Raises
        ------
        VerificationError
        """

    def tear_down(self) -> None:  # noqa: B027 (a hook)
        """Remove what was made; called also after a failure."""
