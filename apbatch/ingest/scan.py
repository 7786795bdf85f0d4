"""Registration in place: a site is walked, what is new or changed is read once, and the catalogue told.

An ingest can be killed at any time: what it had told the catalogue is not read again, the rest is read by the next.
"""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from apbatch.errors import UsageError
from apbatch.formats.reader import readers
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, State
from apbatch.ingest.examine import ATTRIBUTES, Examined, examine
from apbatch.ingest.site_lock import site_lock
from apbatch.ingest.sites import FIELDS, Site, check_root
from apbatch.ingest.walk import Entry, WalkReport, walk
from apbatch.progress import Task, progress

#: Files read at the same time: one hashes while another waits for the disk.
THREADS = 2
#: Records are given to the catalogue when there are so many, or after so many seconds.
_BATCH, _BATCH_S = 200, 2.0


@dataclass
class IngestSummary:
    """What an ingest found.

    Attributes
    ----------
    registered, changed, unchanged, missing : int
        Files that are new (or back), changed, as they were, gone.
    quarantined : dict
        Reason by source, of all files of the site in quarantine now.
    unrecognised : list of str
        Sources of files of no known format; they are not registered.
    busy : list of str
        Sources of files that changed whenever they were read; the next ingest looks again.
    unreadable : dict
        Reason by folder that could not be listed; files in there stay as they were.
    skipped : int
        Links, pipes, sockets, devices, files being written by a store.
    bytes_read : int
    seconds : float
    """

    site: str
    registered: int = 0
    changed: int = 0
    unchanged: int = 0
    missing: int = 0
    quarantined: dict[str, str] = field(default_factory=dict)
    unrecognised: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    skipped: int = 0
    bytes_read: int = 0
    seconds: float = 0.0

    def record(self) -> dict[str, object]:
        """Return the summary as one flat record."""
        return {
            "site": self.site,
            "registered": self.registered,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "missing": self.missing,
            "quarantined": len(self.quarantined),
            "unrecognised": len(self.unrecognised),
            "busy": len(self.busy),
            "unreadable": len(self.unreadable),
            "skipped": self.skipped,
            "bytes": self.bytes_read,
            "seconds": round(self.seconds, 2),
        }

    def lists(self) -> dict[str, object]:
        """Return the files behind the counts that are not simply registered, all of them."""
        return {
            "quarantined_files": [{"source": source, "reason": reason} for source, reason in self.quarantined.items()],
            "unrecognised_files": sorted(self.unrecognised),
            "busy_files": sorted(self.busy),
            "unreadable_folders": [{"source": source, "reason": reason} for source, reason in self.unreadable.items()],
        }


@dataclass(slots=True)
class _Known:
    """What is kept in memory of a registered file while its site is walked."""

    size: int
    mtime_ns: int
    state: State
    format: str
    settled: bool
    reason: str | None
    seen: bool = False

    def holds(self, entry: Entry) -> bool:
        """Tell whether the file need not be read again."""
        return self.settled and (self.size, self.mtime_ns) == (entry.size, entry.mtime_ns)


def ingest(
    site: Site,
    catalogue: Catalogue,
    *,
    threads: int = THREADS,
    again: bool = False,
    accept_empty: bool = False,
) -> IngestSummary:
    """Register what is new, changed or gone at a site; the site is only read.

    Parameters
    ----------
    site : Site
    catalogue : Catalogue
        Used by the calling thread alone.
    threads : int
        How many files are read at the same time.
    again : bool
        Read every file, also those whose size and time of change are as registered.
    accept_empty : bool
        Believe that all files are gone if none is found; otherwise that counts as a folder that is not mounted.

    Returns
    -------
    IngestSummary

    Raises
    ------
    NotFoundError, UsageError
        If the root can't be listed, or is empty although files are registered, or another ingest of the site runs.
    """
    started = time.monotonic()
    check_root(site)
    with site_lock(site.name):
        declared = {attribute.name: attribute for reader in readers().values() for attribute in reader.attributes}
        catalogue.declare([*declared.values(), *ATTRIBUTES, *site.declared])
        summary = _Ingest(site, catalogue, threads, again, accept_empty).run()
    summary.seconds = time.monotonic() - started
    return summary


class _Ingest:
    """One pass over a site."""

    def __init__(self, site: Site, catalogue: Catalogue, threads: int, again: bool, accept_empty: bool) -> None:
        self._site, self._catalogue = site, catalogue
        self._threads, self._again, self._accept_empty = threads, again, accept_empty
        self._summary = IngestSummary(site.name)
        self._known: dict[str, _Known] = {}
        self._strays: list[str] = []
        self._batch: list[FileRecord] = []
        self._told = time.monotonic()

    def run(self) -> IngestSummary:
        self._recall()
        report = WalkReport()
        running: set[Future[Examined]] = set()
        found = False
        with (
            ThreadPoolExecutor(self._threads, thread_name_prefix="ingest") as pool,
            progress(f"ingest {self._site.name}") as task,
        ):
            try:
                for entry in walk(self._site, report):
                    found = True
                    known = self._known.get(self._site.path_of(entry.source))
                    if known is not None:
                        known.seen = True
                        if not self._again and known.holds(entry):
                            self._keep(entry, known)
                            task.advance()
                            continue
                    running.add(pool.submit(examine, self._site, entry, _format_of(known)))
                    if len(running) >= 2 * self._threads:
                        running = self._collect(running, task)
                while running:
                    running = self._collect(running, task)
                if not found:
                    self._refuse_emptiness()
                self._note_missing(report)
            finally:
                for future in running:
                    future.cancel()
                self._tell()
        self._catalogue.remove(self._strays)
        self._summary.unreadable = report.unreadable
        self._summary.skipped = report.skipped
        return self._summary

    def _recall(self) -> None:
        """Load what is registered of the site."""
        for record in self._catalogue.of_site(self._site.name):
            if record.path != self._site.path_of(record.source):
                self._strays.append(record.path)  # the site has another experiment now: registered anew
                continue
            registered = record.state is State.REGISTERED and self._agrees(record)
            broken = record.state is State.QUARANTINED and bool(record.checksum)
            self._known[record.path] = _Known(
                record.size, record.mtime_ns, record.state, record.format, registered or broken, record.reason
            )

    def _agrees(self, record: FileRecord) -> bool:
        """Tell whether a record has what the site's description, which may have changed, says."""
        for name, value in self._site.values(record.source).items():
            if value != (getattr(record, name) if name in FIELDS else record.attributes.get(name)):
                return False
        return record.experiment == self._site.experiment

    def _keep(self, entry: Entry, known: _Known) -> None:
        if known.state is State.QUARANTINED:
            self._summary.quarantined[entry.source] = known.reason or ""
        else:
            self._summary.unchanged += 1

    def _collect(self, running: set[Future[Examined]], task: Task) -> set[Future[Examined]]:
        done, rest = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            examined = future.result()
            self._note(examined)
            task.note(examined.entry.source)
            task.advance()
        if len(self._batch) >= _BATCH or time.monotonic() - self._told > _BATCH_S:
            self._tell()
        return rest

    def _note(self, examined: Examined) -> None:
        summary, source = self._summary, examined.entry.source
        summary.bytes_read += examined.bytes_read
        known = self._known.get(self._site.path_of(source))
        if examined.outcome == "unrecognised":
            summary.unrecognised.append(source)
        elif examined.outcome == "busy":
            summary.busy.append(source)
        elif examined.outcome == "gone":
            if known is not None:
                known.seen = False
        elif examined.record is not None:
            if examined.outcome == "quarantined":
                summary.quarantined[source] = examined.record.reason or ""
            elif known is None or known.state is State.MISSING:
                summary.registered += 1
            else:
                summary.changed += 1
            self._batch.append(examined.record)

    def _tell(self) -> None:
        """Give the catalogue what was gathered."""
        batch, self._batch = self._batch, []
        if batch:
            report = self._catalogue.upsert(batch)
            for refusal in report.refusals:
                self._summary.quarantined[refusal.record.source] = refusal.reason
            self._catalogue.upsert(refusal.quarantined() for refusal in report.refusals)
        self._told = time.monotonic()

    def _refuse_emptiness(self) -> None:
        held = sum(known.state is not State.MISSING for known in self._known.values())
        if held and not self._accept_empty:
            raise UsageError(
                f"site '{self._site.name}' has no files at all, but {held} are registered: is it mounted?",
                where=self._site.root,
                remedy="mount it; if all files were really removed, apbatch ingest --accept-empty",
            )

    def _note_missing(self, report: WalkReport) -> None:
        for path, known in self._known.items():
            if known.seen or known.state is State.MISSING:
                continue
            record = self._catalogue.get(path)
            if record is None or report.covers(record.source):
                continue
            self._batch.append(replace(record, state=State.MISSING, reason=None))
            self._summary.missing += 1
            if len(self._batch) >= _BATCH:
                self._tell()


def _format_of(known: _Known | None) -> str | None:
    """Return the format as which a file is registered, if it was readable once."""
    return known.format if known is not None and known.format != "unknown" else None
