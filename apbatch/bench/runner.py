"""Runs cases fairly: peers take turns, the first round is kept apart, every sample is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from apbatch.bench.case import Case, Operation
from apbatch.bench.samples import Sample
from apbatch.errors import ApbatchError, VerificationError

#: Called with each sample as it comes.
Keep = Callable[[Sample], None]


@dataclass(frozen=True)
class Group:
    """The cases of one operation, one a peer."""

    operation: Operation
    cases: Sequence[Case]


def run_groups(groups: Iterable[Group], repeats: int, keep: Keep) -> None:
    """Run groups one after the other; in a group the peers take turns (A B C, A B C, …).

    Parameters
    ----------
    groups : iterable of Group
        Taken one by one, so that a group may build on what earlier ones left.
    repeats : int
        Measured rounds; round 0 before them is the warm-up.
    keep : callable
        A case that fails keeps a sample with its error and is out; the others go on.
    """
    for group in groups:
        run_group(group, repeats, keep)


def run_group(group: Group, repeats: int, keep: Keep, kept: Collection[tuple[str, int]] = ()) -> None:
    """Run one group of cases in turns, as `run_groups` describes.

    Parameters
    ----------
    group : Group
    repeats : int
        Samples of each case, after a first round that does not count.
    keep : callable
        Takes each sample.
    kept : collection of pairs
        Peers and rounds of this operation that an earlier run has kept: they are not measured again.
    """
    rounds = range(repeats + 1)
    pending = [case for case in group.cases if any((case.peer, number) not in kept for number in rounds)]
    alive = [case for case in pending if _survives(case, case.set_up, 0, keep)]
    try:
        for number in rounds:
            # The first place in a round is no advantage of always the same peer.
            turn = number % len(alive) if alive else 0
            for case in [*alive[turn:], *alive[:turn]]:
                if (case.peer, number) in kept:
                    continue
                if not _survives(case, lambda case=case, number=number: keep(measure(case, number)), number, keep):  # type: ignore[misc]
                    alive.remove(case)
    finally:
        for case in pending:
            _survives(case, case.tear_down, 0, lambda sample: None)


def measure(case: Case, number: int) -> Sample:
    """Prepare, time and check one run of a case.

    Raises
    ------
    ApbatchError
        From the case.
    """
    case.prepare()
    load = os.getloadavg()[0]
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    clock, before = time.perf_counter(), case.cpu_times()
    case.run()
    seconds, after = time.perf_counter() - clock, case.cpu_times()
    user, system = after[0] - before[0], after[1] - before[1]
    case.check()
    return Sample(
        suite=case.operation.suite,
        operation=case.operation.name,
        peer=case.peer,
        round=number,
        started=started,
        seconds=seconds,
        cpu_user_s=user,
        cpu_system_s=system,
        bytes=case.bytes,
        load=load,
        figure=case.figure(user + system if case.operation.clock == "cpu" else seconds),
    )


def _survives(case: Case, call: Callable[[], None], number: int, keep: Keep) -> bool:
    """Call a step of a case; if it fails, keep a sample that says so."""
    try:
        call()
    except Exception as error:  # whatever a server or client does, the other peers are still measured
        reason = str(error) if isinstance(error, ApbatchError) else f"{type(error).__name__}: {error}"
        if isinstance(error, VerificationError):
            reason = f"did not do the work: {reason}"
        operation = case.operation
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        keep(
            Sample(
                operation.suite, operation.name, case.peer, number, now, 0.0, 0.0, 0.0, 0,
                os.getloadavg()[0], None, reason,
            )
        )  # fmt: skip
        return False
    return True
