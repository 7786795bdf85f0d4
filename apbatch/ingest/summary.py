"""What an ingest found: counts, and the first of the files behind each."""

from __future__ import annotations

from dataclasses import dataclass, field

#: So many files of a kind are kept by name; the catalogue has the others.
_KEPT = 1000


@dataclass
class Noted:
    """Files of one kind: how many, and the first of them.

    Attributes
    ----------
    count : int
    first : dict
        Reason, which may be empty, by source; at most 1000.
    """

    count: int = 0
    first: dict[str, str] = field(default_factory=dict)

    def add(self, source: str, reason: str = "") -> None:
        """Count a file, once as long as it is among the first."""
        if source not in self.first:
            self.count += 1
        if source in self.first or len(self.first) < _KEPT:
            self.first[source] = reason


@dataclass
class IngestSummary:
    """What an ingest found.

    Attributes
    ----------
    site : str
    listed : int
        Files whose name, size and time are new in the catalogue.
    registered, changed, unchanged : int
        Files that were read first (or are back), that were read again or described otherwise, that are as they were.
    missing, archived : int
        Files that went: without and with a verified replica.
    quarantined : Noted
        Files of the site in quarantine, of those that were looked at.
    partial : Noted
        Files of which places could not be read and were passed over; the rest of them is registered.
    unrecognised : Noted
        Files of no known format that were read, or left out where the site wants that.
    busy : Noted
        Files that changed whenever they were read; the next ingest looks again.
    unreadable : Noted
        Folders that could not be listed; files in there stay as they were.
    skipped : int
        Links, pipes, sockets, devices, files being written by a store.
    bytes_read : int
    seconds : float
    """

    site: str
    listed: int = 0
    registered: int = 0
    changed: int = 0
    unchanged: int = 0
    missing: int = 0
    archived: int = 0
    quarantined: Noted = field(default_factory=Noted)
    partial: Noted = field(default_factory=Noted)
    unrecognised: Noted = field(default_factory=Noted)
    busy: Noted = field(default_factory=Noted)
    unreadable: Noted = field(default_factory=Noted)
    skipped: int = 0
    bytes_read: int = 0
    seconds: float = 0.0

    def record(self) -> dict[str, object]:
        """Return the summary as one flat record."""
        return {
            "site": self.site,
            "listed": self.listed,
            "registered": self.registered,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "missing": self.missing,
            "archived": self.archived,
            "quarantined": self.quarantined.count,
            "partial": self.partial.count,
            "unrecognised": self.unrecognised.count,
            "busy": self.busy.count,
            "unreadable": self.unreadable.count,
            "skipped": self.skipped,
            "bytes": self.bytes_read,
            "seconds": round(self.seconds, 2),
        }

    def lists(self) -> dict[str, object]:
        """Return the first files behind the counts that are not simply registered."""
        return {
            "quarantined_files": _with_reasons(self.quarantined),
            "partial_files": _with_reasons(self.partial),
            "unrecognised_files": sorted(self.unrecognised.first),
            "busy_files": sorted(self.busy.first),
            "unreadable_folders": _with_reasons(self.unreadable),
        }


def _with_reasons(noted: Noted) -> list[dict[str, str]]:
    return [{"source": source, "reason": reason} for source, reason in noted.first.items()]
