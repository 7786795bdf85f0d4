"""Registration in place: a site is listed first, so that it is visible at once, then read; it is never written to.

An ingest can be killed at any time: what it had told the catalogue is not done again, the rest is done by the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from blake3 import blake3

from apbatch.formats.reader import readers
from apbatch.index.catalogue import Catalogue
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.index.leases import Keeper, leased
from apbatch.index.query import Search
from apbatch.ingest.completion import Completion
from apbatch.ingest.listing import Listing
from apbatch.ingest.records import ATTRIBUTES
from apbatch.ingest.remote.feed import follower_of
from apbatch.ingest.site import Site
from apbatch.ingest.sites import check_root, publish_site, text_of
from apbatch.ingest.summary import IngestSummary
from apbatch.ingest.writer import Writer
from apbatch.progress import progress

#: Files read at the same time: one hashes while another waits for the disk.
THREADS = 2


def lease_name(site: str) -> str:
    """Return the name of the lease under which one process at a time works on what is registered of a site."""
    return f"ingest {site}"


def ingest(
    site: Site,
    catalogue: Catalogue,
    *,
    threads: int = THREADS,
    again: bool = False,
    accept_empty: bool = False,
    list_only: bool = False,
    complete: Search | None = None,
) -> IngestSummary:
    """Register what is new, changed or gone at a site; the site is only read.

    Parameters
    ----------
    site : Site
    catalogue : Catalogue
        Used by the calling thread alone.
    threads : int
        How many files are read at the same time. Of a site that is elsewhere no file is read: what its agent tells is
        taken over, and this and the following do not matter.
    again : bool
        Read every file, also those whose size and time of change are as registered.
    accept_empty : bool
        Believe that all files are gone if none is found; otherwise that counts as a folder that is not mounted.
    list_only : bool
        List names, sizes and times, read nothing.
    complete : Search, optional
        List nothing: read the files of this search that are listed, and registered ones without hashes of their blocks.

    Returns
    -------
    IngestSummary

    Raises
    ------
    NotFoundError, UsageError
        If the root can't be listed, or is empty although files are registered.
    LeaseHeldError
        If another process or host ingests the site.
    LeaseLostError
        If this one was silent for so long that another took over.
    """
    check_root(site)
    with leased(catalogue, lease_name(site.name)) as keeper:
        if site.is_remote:
            return _take_over(site, catalogue, keeper)
        declare(site, catalogue)
        work = SiteIngest(site, catalogue, keeper, threads)
        if complete is None:
            work.list_all(accept_empty=accept_empty)
        if not list_only:
            work.complete(again=again, search=complete)
        return work.finish()


def _take_over(site: Site, catalogue: Catalogue, keeper: Keeper) -> IngestSummary:
    started = time.monotonic()
    publish_site(catalogue, site)
    follower = follower_of(site, catalogue, keeper.keep)
    follower.catch_up()
    follower.summary.seconds = time.monotonic() - started
    return follower.summary


def declare(site: Site, catalogue: Catalogue) -> None:
    """Make the site's description, and all attributes that its files may have, known to the catalogue."""
    publish_site(catalogue, site)
    declared = {attribute.name: attribute for reader in readers().values() for attribute in reader.attributes}
    catalogue.declare([*declared.values(), *ATTRIBUTES, *site.declared])


class SiteIngest:
    """The passes over one site, under its lease."""

    def __init__(self, site: Site, catalogue: Catalogue, keeper: Keeper, threads: int = THREADS) -> None:
        self._site, self._catalogue, self._threads = site, catalogue, threads
        self._started = time.monotonic()
        self.summary = IngestSummary(site.name)
        self.writer = Writer(catalogue, keeper, self.summary)

    def list_all(self, *, accept_empty: bool = False) -> None:
        """Do the first pass over the whole site."""
        applied = str(blake3(text_of(self._site).encode()).hexdigest())
        texts = {one.name: one.text for one in self._catalogue.descriptions(DescriptionKind.APPLIED)}
        described = texts.get(self._site.name) == applied
        with progress(f"list {self._site.name}") as task:
            listing = Listing(
                self._site, self._catalogue, self.writer, self.summary, described=described, advance=task.advance
            )
            listing.whole(accept_empty=accept_empty)
        if not described:
            self._catalogue.put_description(Description(DescriptionKind.APPLIED, self._site.name, applied))

    def list_some(self, folders: Iterable[str], files: Iterable[str]) -> None:
        """Do the first pass over folders, with all in them, and single files."""
        listing = Listing(self._site, self._catalogue, self.writer, self.summary, described=True)
        for folder in sorted(folders):
            listing.below(folder)
        listing.files(sorted(files))

    def complete(
        self,
        *,
        again: bool = False,
        search: Search | None = None,
        retry: bool = True,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Do the second pass: read what is listed.

        Parameters
        ----------
        again : bool
            Read registered files, too.
        search : Search, optional
            Only the files that match.
        retry : bool
            Read again what could not be read before.
        stop : callable
            Is asked before each file.
        """
        with progress(f"ingest {self._site.name}") as task:
            completion = Completion(self._site, self._catalogue, self.writer, self.summary, self._threads, task, stop)
            if search is not None:
                completion.matching(search)
                return
            completion.listed(retry=retry)
            if again:
                completion.again()

    def finish(self) -> IngestSummary:
        """Return what was done."""
        self.writer.flush()
        self.summary.seconds = time.monotonic() - self._started
        return self.summary
