"""A walk and the catalogue's listing of the same files, side by side, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from apbatch.index.catalogue import Catalogue
from apbatch.ingest.walk import Stretch

#: What is compared of a file.
COLUMNS = ("path", "source", "size", "mtime_ns", "state")
#: Files that are compared at once; of a block with any difference each is looked at.
_BLOCK = 1000


@dataclass(frozen=True, slots=True)
class Alike:
    """Files that are as the catalogue has them: paths and states."""

    paths: Sequence[str]
    states: Sequence[str]


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
class _Held:
    """Rows of the catalogue, as columns."""

    paths: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    mtimes_ns: list[int] = field(default_factory=list)
    states: list[str] = field(default_factory=list)


def compare(
    stretches: Iterator[Stretch], catalogue: Catalogue, site: str, below: str = ""
) -> Iterator[Alike | Difference]:
    """Yield what is alike and what differs, in the order of the listing.

    Of two records of one file (its site had another experiment) both are compared, one after the other.
    """
    pages = _pages(catalogue, site, below)
    walked, at = next(stretches, None), 0
    held, of = next(pages, None), 0
    last = ""  # a second record of this file may follow
    while walked is not None or held is not None:
        if walked is not None and at == len(walked.sources):
            walked, at = next(stretches, None), 0
            continue
        if held is not None and of == len(held.sources):
            held, of = next(pages, None), 0
            continue
        if walked is None:
            assert held is not None
            if held.sources[of] == last:
                yield Alike([held.paths[of]], [held.states[of]])
            else:
                yield Difference("gone", held.sources[of], held.paths[of])
            of += 1
            continue
        if held is None:
            yield Difference("fresh", walked.sources[at], "", walked.sizes[at], walked.mtimes_ns[at])
            at += 1
            continue
        many = min(_BLOCK, len(walked.sources) - at, len(held.sources) - of)
        if (
            walked.sources[at : at + many] == held.sources[of : of + many]
            and walked.sizes[at : at + many] == held.sizes[of : of + many]
            and walked.mtimes_ns[at : at + many] == held.mtimes_ns[of : of + many]
        ):
            yield Alike(held.paths[of : of + many], held.states[of : of + many])
            at, of = at + many, of + many
            last = walked.sources[at - 1]
            continue
        end, stop = at + many, of + many
        while at < end and of < stop:
            source, other = walked.sources[at], held.sources[of]
            if source < other:
                yield Difference("fresh", source, "", walked.sizes[at], walked.mtimes_ns[at])
                at += 1
                continue
            path = held.paths[of]
            if other == last:
                yield Alike([path], [held.states[of]])
            elif other < source:
                yield Difference("gone", other, path)
            else:
                if (walked.sizes[at], walked.mtimes_ns[at]) == (held.sizes[of], held.mtimes_ns[of]):
                    yield Alike([path], [held.states[of]])
                else:
                    yield Difference("changed", source, path, walked.sizes[at], walked.mtimes_ns[at])
                last = source
                at += 1
            of += 1


def _pages(catalogue: Catalogue, site: str, below: str) -> Iterator[_Held]:
    cursor: str | None = None
    while True:
        page = catalogue.listing(site, below, columns=COLUMNS, cursor=cursor)
        columns = [column.to_pylist() for column in page.batch.columns]
        if columns[0]:
            yield _Held(*columns)
        if (cursor := page.cursor) is None:
            return
