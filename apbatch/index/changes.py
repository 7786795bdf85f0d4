"""The feed of changes: what a follower of the catalogue reads, revision by revision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from apbatch.errors import UsageError
from apbatch.index.files import FileRecord

#: Removals are told to readers for so long; a reader that was away longer starts again.
KEEP_DAYS = 30


class ChangeKind(StrEnum):
    """What happened."""

    NEW = "new"
    CHANGED = "changed"
    #: Removed from the catalogue, or missing at its site (then the change has the record).
    GONE = "gone"
    REPLICA_ADDED = "replica-added"
    REPLICA_REMOVED = "replica-removed"
    SITE = "site"
    POLICY = "policy"
    #: The description of a site was applied to all of its files.
    APPLIED = "applied"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the catalogue.

    Attributes
    ----------
    revision : int
        Grows in the order in which changes became visible; no two changes share one.
    kind : ChangeKind
    key : str
        Path of the file, or name of the site or policy.
    detail : str
        URL of the replica; ``removed`` for a site or policy that was removed; else empty.
    record : FileRecord, optional
        The file as it is now.
    """

    revision: int
    kind: ChangeKind
    key: str
    detail: str = ""
    record: FileRecord | None = None


class StaleReaderError(UsageError):
    """A reader of the feed was away for longer than removals are remembered: it must start again from 0."""


def stale_reader(since: int, horizon: int) -> StaleReaderError:
    """Return the error for a reader whose last revision lies before the oldest removal that is remembered."""
    return StaleReaderError(
        f"changes since revision {since} are no longer complete: removals up to revision {horizon} are forgotten",
        remedy="drop what you hold and read from revision 0",
    )
