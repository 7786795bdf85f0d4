"""The first pass of an ingest: names, sizes and times, compared with what the catalogue has; no file is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from apbatch.errors import UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, State
from apbatch.ingest.comparison import Alike, Difference, compare
from apbatch.ingest.reading.description import UNKNOWN, may_be_known
from apbatch.ingest.records import as_described, listed
from apbatch.ingest.site import Site
from apbatch.ingest.summary import IngestSummary
from apbatch.ingest.walk import Entry, Stretch, WalkReport, entry_at, walk
from apbatch.ingest.writer import Writer

#: Files whose whole records are looked up at once.
_LOOK = 500
_GONE = (State.MISSING, State.ARCHIVED)


class Listing:
    """Brings the catalogue to what is at a site; files that are new or changed become `listed`.

    Parameters
    ----------
    site : Site
    catalogue : Catalogue
    writer : Writer
    summary : IngestSummary
        Counts.
    described : bool
        Whether all records have what the site's description says, so that files that are alike need no second look.
    advance : callable
        Told how many files were compared.
    """

    def __init__(
        self,
        site: Site,
        catalogue: Catalogue,
        writer: Writer,
        summary: IngestSummary,
        *,
        described: bool,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._site, self._catalogue, self._writer, self._summary = site, catalogue, writer, summary
        self._described, self._advance = described, advance
        self._waiting: list[Difference] = []
        self._report = WalkReport()

    def whole(self, *, accept_empty: bool = False) -> None:
        """Compare the whole site.

        Raises
        ------
        NotFoundError, UsageError
            If the root vanished, or there is no file although some are registered and not `accept_empty`.
        """
        stretches = walk(self._site, self._report)
        first = next(stretches, None)
        if first is None and not accept_empty:
            self._refuse_emptiness()
        self._compare(_chained(first, stretches), "")

    def below(self, folder: str) -> None:
        """Compare one folder of the site, with all that is in it."""
        self._compare(walk(self._site, self._report, folder), folder)

    def files(self, sources: Iterable[str]) -> None:
        """Compare single files."""
        paths = {self._site.path_of(source): source for source in sources}
        records = self._catalogue.get_many(paths)
        for path, source in paths.items():
            try:
                entry = entry_at(self._site, source)
            except OSError:
                continue  # the next whole listing tells
            record = records.get(path)
            if entry is None:
                if record is not None:
                    self._wait(Difference("gone", source, path))
            elif record is None:
                self._wait(Difference("fresh", source, "", entry.size, entry.mtime_ns))
            elif (record.size, record.mtime_ns) != (entry.size, entry.mtime_ns):
                self._wait(Difference("changed", source, path, entry.size, entry.mtime_ns))
            elif record.state in _GONE:
                self._resolve_alike([record])
        self._end()

    def _compare(self, stretches: Iterator[Stretch], below: str) -> None:
        for step in compare(stretches, self._catalogue, self._site.name, below, each=not self._described):
            if isinstance(step, Difference):
                self._wait(step)
                self._advance(1)
            else:
                self._pass_over(step)
                self._advance(step.files)
        self._end()

    def _end(self) -> None:
        self._resolve()
        self._writer.flush()
        for source, reason in self._report.unreadable.items():
            self._summary.unreadable.add(source, reason)
        self._summary.skipped += self._report.skipped

    def _pass_over(self, alike: Alike) -> None:
        """Count files that are alike; look only at those of which something else may have to be said."""
        paths = alike.paths
        if self._described:
            paths = [
                path
                for path, state in zip(paths, alike.states, strict=True)
                if state not in (State.REGISTERED, State.LISTED)
            ]
            self._summary.unchanged += alike.registered
        for start in range(0, len(paths), _LOOK):
            records = self._catalogue.get_many(paths[start : start + _LOOK])
            self._resolve_alike(records.values())
        self._writer.keep()

    def _resolve_alike(self, records: Iterable[FileRecord]) -> None:
        for record in records:
            now = as_described(self._site, record)
            if record.state in _GONE:
                whole = record.checksum and record.reason is None
                self._writer.add(
                    replace(now, state=State.REGISTERED)
                    if whole
                    else listed(self._site, record.source, record.size, record.mtime_ns, record.format)
                )
                self._summary.registered += bool(whole)
                self._summary.listed += not whole
            elif now != record:
                self._writer.add(now)
                self._summary.changed += record.state is State.REGISTERED
            elif record.state is State.REGISTERED:
                self._summary.unchanged += not self._described
            if record.state is State.QUARANTINED and record.checksum:
                self._summary.quarantined.add(record.source, record.reason or "")
            if now.path != record.path:
                self._writer.move(record.path, now.path)

    def _wait(self, difference: Difference) -> None:
        self._waiting.append(difference)
        if len(self._waiting) >= _LOOK:
            self._resolve()

    def _resolve(self) -> None:
        """Decide what becomes of the files that differ."""
        waiting, self._waiting = self._waiting, []
        records = self._catalogue.get_many(one.path for one in waiting if one.path)
        gone: list[FileRecord] = []
        for one in waiting:
            record = records.get(one.path)
            if one.kind == "gone":
                if record is not None and not self._report.covers(one.source):
                    gone.append(record)
            elif one.kind == "fresh":
                if self._is_wanted(one):
                    self._list(one, UNKNOWN)
            else:
                self._list(one, record.format if record is not None else UNKNOWN)
                if one.path != self._site.path_of(one.source):
                    self._writer.move(one.path, self._site.path_of(one.source))
        self._note_gone(gone)
        self._writer.keep()

    def _list(self, one: Difference, format: str) -> None:
        self._writer.add(listed(self._site, one.source, one.size, one.mtime_ns, format))
        self._summary.listed += 1

    def _is_wanted(self, one: Difference) -> bool:
        """Tell whether a new file is to be listed: where the site leaves out files of no known format, look into it."""
        if self._site.other:
            return True
        entry = Entry(one.source, self._site.local_path(one.source), one.size, one.mtime_ns)
        try:
            is_candidate = may_be_known(entry, os.fsencode(self._site.root))
        except OSError:
            return True  # why is told when it is read
        if not is_candidate:
            self._summary.unrecognised.add(one.source)
        return is_candidate

    def _note_gone(self, records: list[FileRecord]) -> None:
        """Mark files that are gone; of one whose verified replica is left, say so: it can still be read."""
        records = [record for record in records if record.state is not State.MISSING]
        replicas = self._catalogue.replicas([record.path for record in records]) if records else {}
        for record in records:
            if record.state is State.LISTED and record.format == UNKNOWN:
                self._writer.remove(record.path)  # nothing is known of it but a name
                self._summary.missing += 1
                continue
            kept = any(one.checksum == record.checksum for one in replicas[record.path] if record.checksum)
            state = State.ARCHIVED if kept and record.state is not State.QUARANTINED else State.MISSING
            if state is record.state:
                continue
            self._writer.add(replace(record, state=state))
            self._summary.archived += state is State.ARCHIVED
            self._summary.missing += state is State.MISSING

    def _refuse_emptiness(self) -> None:
        count = 0
        for record in self._catalogue.of_site(self._site.name):
            count += record.state not in _GONE
        if count:
            raise UsageError(
                f"site '{self._site.name}' has no files at all, but {count} are registered: is it mounted?",
                where=self._site.root,
                remedy="mount it; if all files were really removed, apbatch ingest --accept-empty",
            )


def _chained(first: Stretch | None, rest: Iterator[Stretch]) -> Iterator[Stretch]:
    if first is not None:
        yield first
    yield from rest
