"""What a mirror did with one file, and with all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

#: Failures that a summary names; all are counted.
MOST_FAILURES = 100


class Outcome(StrEnum):
    """What a mirror did with one file."""

    COPIED = "copied"
    REPAIRED = "repaired"
    ADOPTED = "recorded"
    VERIFIED = "verified"
    SKIPPED = "there already"
    WOULD_COPY = "would be copied"
    FAILED = "failed"
    NOT_TRIED = "not tried"


#: Outcomes after which the replica is known to be right.
GOOD = (Outcome.COPIED, Outcome.REPAIRED, Outcome.ADOPTED, Outcome.VERIFIED)
#: Outcomes after which a file has no good replica.
BAD = (Outcome.FAILED, Outcome.NOT_TRIED)


@dataclass(frozen=True, slots=True)
class MirroredFile:
    """What became of one file.

    Attributes
    ----------
    path : str
        Logical path.
    url : str
        Where its replica is or would be.
    size : int
        Bytes.
    outcome : Outcome
    reason : str, optional
        Why it failed.
    """

    path: str
    url: str
    size: int
    outcome: Outcome
    reason: str | None = None


@dataclass
class MirrorSummary:
    """What a mirror did, in sums.

    Attributes
    ----------
    store : str
        URL of the store.
    counts : Counter
        Files by outcome.
    bytes_copied : int
        Bytes that were written into the store.
    failures : list of MirroredFile
        The first files without a good replica, `MOST_FAILURES` of them.
    """

    store: str
    counts: Counter[Outcome] = field(default_factory=Counter)
    bytes_copied: int = 0
    failures: list[MirroredFile] = field(default_factory=list)

    def add(self, file: MirroredFile) -> None:
        """Count a file."""
        self.counts[file.outcome] += 1
        if file.outcome in (Outcome.COPIED, Outcome.REPAIRED):
            self.bytes_copied += file.size
        if file.outcome in BAD and len(self.failures) < MOST_FAILURES:
            self.failures.append(file)

    def count(self, *outcomes: Outcome) -> int:
        """Return how many files ended in one of these ways."""
        return sum(self.counts[outcome] for outcome in outcomes)

    @property
    def failed(self) -> int:
        """Files without a good replica."""
        return self.count(*BAD)

    def record(self) -> dict[str, object]:
        """Return the summary as one flat record."""
        counts = {outcome.value: self.counts[outcome] for outcome in Outcome}
        return {"store": self.store, "files": self.counts.total(), **counts, "bytes copied": self.bytes_copied}


def summarise(store: str, files: Iterable[MirroredFile]) -> MirrorSummary:
    """Return the sums of a mirror, once it has ended."""
    summary = MirrorSummary(store)
    for file in files:
        summary.add(file)
    return summary
