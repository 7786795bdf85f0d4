"""A walk and the catalogue's listing of the same files, side by side, in constant memory.

A stretch of files whose digest the catalogue keeps is compared as a whole, and no row is loaded if it is alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from apbatch.index.catalogue import Catalogue
from apbatch.index.digests import ListingDigest, digest_of
from apbatch.index.files import State
from apbatch.ingest.walk import Stretch

#: What is compared of a file.
COLUMNS = ("path", "source", "size", "mtime_ns", "state")
#: Files that are compared at once; of a block with any difference each is looked at.
_BLOCK = 1000


@dataclass(frozen=True, slots=True)
class Alike:
    """Files that are as the catalogue has them.

    Attributes
    ----------
    files, registered : int
        How many, and how many of them are registered.
    paths, states : sequence of str
        Of each; none where the digest told that all are registered or listed.
    """

    files: int
    registered: int
    paths: Sequence[str] = ()
    states: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that the walk or the catalogue alone has, or that changed.

    Attributes
    ----------
    kind : str
        ``fresh``, ``changed`` or ``gone``.
    source : str
    path : str
        Of the record; empty for a fresh file.
    size, mtime_ns : int
        As walked; 0 for a file that is gone.
    """

    kind: Literal["fresh", "changed", "gone"]
    source: str
    path: str = ""
    size: int = 0
    mtime_ns: int = 0


@dataclass(slots=True)
class _CataloguePage:
    """Rows of the catalogue, as columns."""

    paths: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    mtimes_ns: list[int] = field(default_factory=list)
    states: list[str] = field(default_factory=list)


class _Walked:
    """The files of a walk, taken up to one source after another."""

    def __init__(self, stretches: Iterator[Stretch]) -> None:
        self._stretches = stretches
        self._present = Stretch()
        self._at = 0

    def before(self, source: str | None) -> Iterator[Stretch]:
        """Yield the next files, up to a source; all if it is None."""
        while True:
            sources = self._present.sources
            if self._at == len(sources):
                following = next(self._stretches, None)
                if following is None:
                    return
                self._present, self._at = following, 0
                continue
            end = len(sources) if source is None else bisect_left(sources, source, self._at)
            if end == self._at:
                return
            piece, self._at = self._present.part(self._at, end), end
            yield piece

    def at_most(self, files: int, source: str | None) -> Stretch:
        """Return the next files up to a source together; of more than `files`, some more than that."""
        together = Stretch()
        for piece in self.before(source):
            if not together.sources:
                together = piece
            else:
                together.extend(piece)
            if len(together.sources) > files:
                break
        return together


def compare(
    stretches: Iterator[Stretch], catalogue: Catalogue, site: str, below: str = "", *, each: bool = False
) -> Iterator[Alike | Difference]:
    """Yield what is alike and what differs, in the order of the listing.

    Of two records of one file (its site had another experiment) both are compared, one after the other.

    Parameters
    ----------
    stretches : iterator of Stretch
        What a walk found, in the order of names.
    catalogue : Catalogue
    site : str
        Name.
    below : str
        Only what lies in this folder of the site.
    each : bool
        Give the path of each file that is alike.
    """
    walked = _Walked(stretches)
    for part in (ListingDigest(),) if each else catalogue.digests(site, below):
        begin = Stretch()
        if part.digest is not None:
            begin = walked.at_most(part.files, part.following)
            columns = (begin.sources, begin.sizes, begin.mtimes_ns)
            if len(begin.sources) == part.files and digest_of(*columns) == part.digest:
                if part.files:
                    yield Alike(part.files, part.registered)
                continue
        rows = _pages(catalogue, site, below, part)
        yield from _by_rows(chain((begin,) if begin.sources else (), walked.before(part.following)), rows)


def _by_rows(stretches: Iterator[Stretch], pages: Iterator[_CataloguePage]) -> Iterator[Alike | Difference]:
    walked, at = next(stretches, None), 0
    page, of = next(pages, None), 0
    last = ""  # a second record of this file may follow
    while walked is not None or page is not None:
        if walked is not None and at == len(walked.sources):
            walked, at = next(stretches, None), 0
            continue
        if page is not None and of == len(page.sources):
            page, of = next(pages, None), 0
            continue
        if walked is None:
            assert page is not None
            if page.sources[of] == last:
                yield _alike(page, of, of + 1)
            else:
                yield Difference("gone", page.sources[of], page.paths[of])
            of += 1
            continue
        if page is None:
            yield Difference("fresh", walked.sources[at], "", walked.sizes[at], walked.mtimes_ns[at])
            at += 1
            continue
        many = min(_BLOCK, len(walked.sources) - at, len(page.sources) - of)
        if (
            walked.sources[at : at + many] == page.sources[of : of + many]
            and walked.sizes[at : at + many] == page.sizes[of : of + many]
            and walked.mtimes_ns[at : at + many] == page.mtimes_ns[of : of + many]
        ):
            yield _alike(page, of, of + many)
            at, of = at + many, of + many
            last = walked.sources[at - 1]
            continue
        end, stop = at + many, of + many
        while at < end and of < stop:
            source, other = walked.sources[at], page.sources[of]
            if source < other:
                yield Difference("fresh", source, "", walked.sizes[at], walked.mtimes_ns[at])
                at += 1
                continue
            path = page.paths[of]
            if other == last:
                yield _alike(page, of, of + 1)
            elif other < source:
                yield Difference("gone", other, path)
            else:
                if (walked.sizes[at], walked.mtimes_ns[at]) == (page.sizes[of], page.mtimes_ns[of]):
                    yield _alike(page, of, of + 1)
                else:
                    yield Difference("changed", source, path, walked.sizes[at], walked.mtimes_ns[at])
                last = source
                at += 1
            of += 1


def _alike(page: _CataloguePage, start: int, end: int) -> Alike:
    states = page.states[start:end]
    return Alike(end - start, states.count(State.REGISTERED), page.paths[start:end], states)


def _pages(catalogue: Catalogue, site: str, below: str, part: ListingDigest) -> Iterator[_CataloguePage]:
    cursor: str | None = None
    while True:
        page = catalogue.listing(site, below, columns=COLUMNS, since=part.first, until=part.following, cursor=cursor)
        columns = [column.to_pylist() for column in page.batch.columns]
        if columns[0]:
            yield _CataloguePage(*columns)
        if (cursor := page.cursor) is None:
            return
