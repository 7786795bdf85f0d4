"""The second pass of an ingest: files that were listed are read once, for all hashes and metadata.

It can be stopped or killed at any time: what was read is in the catalogue, the rest is still listed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice

from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, State
from apbatch.index.query import And, Compare, In, IsNull, Order, Query, Search
from apbatch.ingest.reading.description import OTHER, UNKNOWN
from apbatch.ingest.reading.examine import Examined, examine
from apbatch.ingest.site import Site
from apbatch.ingest.summary import IngestSummary
from apbatch.ingest.walk import Entry
from apbatch.ingest.writer import Writer
from apbatch.progress import Task

#: The lease is looked after so often while large files are read, seconds.
_WATCHED_S = 5.0
_ROUNDS = 10


class Completion:
    """Reads files of a site and tells the catalogue.

    Parameters
    ----------
    site : Site
    catalogue : Catalogue
    writer : Writer
    summary : IngestSummary
        Counts.
    threads : int
        How many files are read at the same time.
    task : Task
        Shows how far it is.
    stop : callable
        Whether to take no further files.
    """

    def __init__(
        self,
        site: Site,
        catalogue: Catalogue,
        writer: Writer,
        summary: IngestSummary,
        threads: int,
        task: Task,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._site, self._catalogue, self._writer, self._summary = site, catalogue, writer, summary
        self._threads, self._task, self._stop = threads, task, stop

    def listed(self, *, retry: bool = True) -> None:
        """Read what is listed, newest nights first, and, to `retry`, what could not be read before."""
        mine = Compare("site", "=", self._site.name)
        for _ in range(_ROUNDS):  # a second file at the place of a first shows when the first is registered
            if not self._read(newest_nights_first(self._catalogue, And((mine, Compare("state", "=", "listed"))))):
                break
        if not retry:
            return
        broken = And((mine, Compare("state", "=", "quarantined"), Compare("checksum", "=", "")))
        self._read(self._catalogue.select(broken))

    def again(self) -> None:
        """Read all registered files."""
        states = (State.REGISTERED, State.QUARANTINED)
        self._read(record for record in self._catalogue.of_site(self._site.name) if record.state in states)

    def matching(self, search: Search) -> None:
        """Read what of a search is listed, in its order or newest nights first, and what lacks hashes.

        Raises
        ------
        UsageError
            If the back-end refuses the search.
        """
        mine = Compare("site", "=", self._site.name)
        condition = And((search.where, mine, Compare("state", "=", "listed")))
        if search.order or search.limit is not None:
            records = self._catalogue.select(replace(search, where=condition))
        else:
            records = newest_nights_first(self._catalogue, condition)
        self._read(records)
        states = In("state", ("registered", "quarantined"))
        registered = replace(search, where=And((search.where, mine, states)))
        self._read(self._without_hashes(self._catalogue.select(registered)))

    def _without_hashes(self, records: Iterator[FileRecord]) -> Iterator[FileRecord]:
        while part := list(islice(records, 500)):
            hashed = self._catalogue.has_contents({record.checksum for record in part if record.checksum})
            yield from (record for record in part if record.checksum not in hashed)

    def _read(self, records: Iterable[FileRecord]) -> int:
        """Read files; return how many are no longer only listed."""
        running: dict[Future[Examined], FileRecord] = {}
        done = 0
        with ThreadPoolExecutor(self._threads, thread_name_prefix="ingest") as pool:
            try:
                for record in records:
                    if self._stop():
                        break
                    if record.source in self._summary.busy.first:
                        continue
                    path = self._site.local_path(record.source)
                    entry = Entry(record.source, path, record.size, record.mtime_ns)
                    running[pool.submit(examine, self._site, entry, record.format)] = record
                    while len(running) >= 2 * self._threads:
                        done += self._collect(running)
                while running:
                    done += self._collect(running)
            finally:
                for future in running:
                    future.cancel()
        self._writer.flush()
        return done

    def _collect(self, running: dict[Future[Examined], FileRecord]) -> int:
        done, _ = wait(running, _WATCHED_S, FIRST_COMPLETED)
        settled = 0
        for future in done:
            examined, record = future.result(), running.pop(future)
            settled += self._note(examined, record)
            self._task.note(examined.entry.source)
            self._task.advance()
        self._writer.keep()
        return settled

    def _note(self, examined: Examined, before: FileRecord) -> bool:
        summary, source, record = self._summary, before.source, examined.record
        if examined.content is not None:
            summary.bytes_read += examined.content.size
            self._writer.add_content(examined.content)
        if examined.outcome == "busy":
            summary.busy.add(source)
            return False
        if record is None:
            return self._forget(before)
        if examined.outcome == "unrecognised":
            summary.unrecognised.add(source)
            if not self._site.other:
                self._writer.remove(before.path)
                return True
        if problems := record.attributes.get("problems"):
            summary.partial.add(source, f"{problems} passed over, first: {record.attributes['problem']}")
        if examined.outcome == "quarantined":
            summary.quarantined.add(source, record.reason or "")
        elif replace(record, revision=before.revision) == before:
            return True
        elif before.state is State.LISTED and before.format in (UNKNOWN, OTHER):
            summary.registered += 1
        else:
            summary.changed += 1
            summary.unchanged -= before.state is State.REGISTERED and summary.unchanged > 0
        if replace(record, revision=before.revision) != before:
            self._writer.add(record)
        return True

    def _forget(self, before: FileRecord) -> bool:
        """Forget a file that went and was only listed; what is known better is left to a listing."""
        only_listed = before.state is State.LISTED and before.format == UNKNOWN
        if only_listed:
            self._writer.remove(before.path)
        return only_listed


def newest_nights_first(catalogue: Catalogue, query: Query) -> Iterator[FileRecord]:
    """Yield the files that match by night, newest first; those of no known night last, newest first."""
    nights = [night for night in catalogue.count(query, "night") if night is not None]
    for night in sorted(nights, reverse=True):
        yield from catalogue.select(And((query, Compare("night", "=", night))))
    yield from catalogue.select(Search(And((query, IsNull("night"))), (Order("mtime_ns", descending=True),)))
