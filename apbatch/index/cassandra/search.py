"""Searching files: pages merged from partitions sorted by path, or picked in one pass over what is read."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from itertools import islice
from operator import itemgetter
from typing import Any

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.attributes import known_attribute
from apbatch.index.cassandra import plan as p
from apbatch.index.cassandra.base import blocks
from apbatch.index.cassandra.counts import Night, counts_of_nights, rows_of_nights, select_of_night
from apbatch.index.cassandra.rows import columns_for, from_cells, record_of
from apbatch.index.cassandra.session import ALL
from apbatch.index.cassandra.tree import CassandraTree
from apbatch.index.catalogue import PAGE
from apbatch.index.files import FileRecord
from apbatch.index.pages import Page, RecordPage, identity_of, ordering, read_cursor, to_batch, write_cursor

#: A row and the values of its attributes.
_Match = tuple[dict[str, Any], dict[str, Any]]
_BY_PATH = (q.Order("path"),)
#: Rows of a page where each page reads everything again.
_LARGE_PAGE = 20_000
_ROWS_A_LOOK = 200
_LEAST_FETCH, _MOST_FETCH = 20, 5000
#: What all files of a partition of file_by_night share, and the state, by which they are counted.
_OF_A_NIGHT = {"experiment", "night", "state"}


class CassandraSearch(CassandraTree):
    """Select, count, explain."""

    def select_records(self, search: q.Search, cursor: str | None = None, size: int = PAGE) -> RecordPage:
        """Return some files that match, as records; see `Catalogue.select_records`."""
        declared = self.attributes()
        rows, following = self._page(search, declared, None, cursor, size)
        return RecordPage([record_of(values) for _, values in rows], following)

    def select_batch(
        self, search: q.Search, columns: Sequence[str], cursor: str | None = None, size: int = 10_000
    ) -> Page:
        """Return some files that match, as a batch; see `Catalogue.select_batch`."""
        declared = self.attributes()
        names = [known_attribute(name, declared).name for name in columns]
        rows, following = self._page(search, declared, set(names), cursor, size)
        return Page(to_batch([[v.get(name) for name in names] for _, v in rows], names, declared), following)

    def select(self, search: q.Query | q.Search, limit: int | None = None) -> Iterator[FileRecord]:
        """Yield the files that match, page by page; larger pages where each reads everything again."""
        if not isinstance(search, q.Search):
            search = q.Search(search, limit=limit)
        cursor: str | None = None
        while True:
            declared = self.attributes()
            in_order = _in_order(search, _accesses(search.where, declared))
            rows, cursor = self._page(search, declared, None, cursor, PAGE if in_order else _LARGE_PAGE)
            yield from (record_of(values) for _, values in rows)
            if cursor is None:
                return

    def _page(
        self, search: q.Search, declared: dict[str, Attribute], names: set[str] | None, cursor: str | None, size: int
    ) -> tuple[list[_Match], str | None]:
        order = ordering(search)
        types = [known_attribute(one.name, declared).type for one in order]
        after, offset = None, 0
        if cursor is not None:
            position = read_cursor(cursor, identity_of(search), types)
            after, offset = position.after, position.offset
        count = size if search.limit is None else min(size, search.limit - offset)
        if count <= 0:
            return [], None
        whole = q.of_registered(search.where)
        accesses = _accesses(search.where, declared)
        columns = _columns(None if names is None else names | {one.name for one in order}, whole)
        if _in_order(search, accesses):
            matches = list(islice(self._merged(accesses, columns, whole, declared, after, count), count + 1))
        else:
            key = _sort_key(order)
            least = None if after is None else key(dict(zip([one.name for one in order], after, strict=True)))
            later = (
                match
                for match in self._matching(whole, accesses, columns, declared)
                if least is None or key(match[1]) > least
            )
            matches = heapq.nsmallest(count + 1, later, key=lambda match: key(match[1]))
        more = len(matches) > count and (search.limit is None or offset + count < search.limit)
        matches = matches[:count]
        if not more:
            return matches, None
        last = [matches[-1][1].get(one.name) for one in order]
        return matches, write_cursor(identity_of(search), last, offset + len(matches))

    # rows

    def _merged(
        self,
        accesses: Sequence[p.Access],
        columns: str,
        whole: q.Query,
        declared: dict[str, Attribute],
        after: Sequence[Any] | None,
        count: int,
    ) -> Iterator[_Match]:
        """Yield matches by path, from the partitions of nights, whose first rows are asked for at the same time."""
        nights: dict[Night, p.Conditions] = {}
        for access in accesses:
            if isinstance(access, p.Nights):
                for night in self._partitions(access, may_be_empty=True):
                    # what several ask for, each for other rows, is read whole
                    same = nights.get(night, access.conditions) == access.conditions
                    nights[night] = access.conditions if same else ()
        if not nights:
            return
        later, rest = ("", ()) if after is None else (" AND path > ?", (after[0],))
        fetch = max(_LEAST_FETCH, min(_MOST_FETCH, 2 * count // len(nights)))
        reads = []
        for night, conditions in nights.items():
            statement = self._session.prepare(select_of_night(columns, conditions, later))
            bound = statement.bind((*night, *(value for _, _, value in conditions), *rest))
            bound.fetch_size = fetch
            reads.append((bound, ()))
        rows = heapq.merge(*self._session.concurrently(reads), key=itemgetter("path"))
        yield from self._once(self._tested(rows, whole, declared), whole, declared)

    def _matching(
        self, whole: q.Query, accesses: Sequence[p.Access], columns: str, declared: dict[str, Attribute]
    ) -> Iterator[_Match]:
        """Yield matches in no order, each file once."""

        def rows() -> Iterator[dict[str, Any]]:
            paths: set[str] = set()
            for access in accesses:
                for row in self._read(access, columns):
                    if len(accesses) > 1:
                        if row["path"] in paths:
                            continue
                        paths.add(row["path"])
                    yield row

        yield from self._once(self._tested(rows(), whole, declared), whole, declared)

    def _tested(
        self, rows: Iterable[dict[str, Any]], whole: q.Query, declared: dict[str, Attribute]
    ) -> Iterator[_Match]:
        holds = q.predicate(whole)
        for row in rows:
            if row["site"] is None:  # a name that came later than the removal of its file
                continue
            values = from_cells(row, declared)
            if holds(values):
                yield row, values

    def _once(self, matches: Iterator[_Match], whole: q.Query, declared: dict[str, Attribute]) -> Iterator[_Match]:
        """Leave out the files of which another source of the same content, with a lower number, matches too."""
        for part in blocks(matches, _ROWS_A_LOOK):
            copies = [row for row, _ in part if row["tree_number"]]
            if not copies:
                yield from part
                continue
            holders = self._holders({row["place"] for row in copies})
            paths = [path for many in holders.values() for path in many]
            lowest: dict[tuple[str, str], int] = {}
            others = self._look_up(paths, _columns(set(), whole))
            for row, _ in self._tested(others, whole, declared):
                key = (row["place"], row["tree_name"])
                number = row["tree_number"] or 0
                lowest[key] = min(number, lowest.get(key, number))
            for row, values in part:
                number = row["tree_number"] or 0
                if number <= lowest.get((row["place"], row["tree_name"]), number):
                    yield row, values

    def _read(self, access: p.Access, columns: str) -> Iterator[dict[str, Any]]:
        match access:
            case p.Path(paths):
                yield from self._look_up(paths, columns)
            case p.Tree(folder, prefix):
                yield from self._below(folder, prefix, columns)
            case p.Site(site):
                yield from self._look_up((row["path"] for row in self._of_site(site, "", ("", ""))), columns)
            case p.Run(experiment, run):
                rows = self._session.run(
                    "SELECT path FROM file_by_run WHERE experiment = ? AND run = ?", experiment, run
                )
                yield from self._look_up((row["path"] for row in rows), columns)
            case p.Nights():
                nights = list(self._partitions(access, may_be_empty=True))
                for _, rows in rows_of_nights(self._session, nights, columns, access.conditions):
                    yield from rows
            case p.Index(conditions):
                tests = " AND ".join(f'"{name}" {operator} ?' for name, operator, _ in conditions)
                yield from self._session.run(
                    f"SELECT {columns} FROM file_by_night WHERE {tests}", *(value for _, _, value in conditions)
                )

    def _below(self, folder: str, prefix: str, columns: str) -> Iterator[dict[str, Any]]:
        folders = [folder]
        while folders:
            folder = folders.pop()
            for row in self._session.run(f"SELECT {columns} FROM file_by_directory WHERE parent = ?", folder):
                if row["path"] is not None and row["path"].startswith(prefix):
                    yield row
            for row in self._session.run("SELECT name FROM directory WHERE parent = ?", folder):
                child = f"{folder}/{row['name']}"
                if f"{child}/".startswith(prefix) or prefix.startswith(f"{child}/"):
                    folders.append(child)

    def _partitions(self, access: p.Nights, *, may_be_empty: bool = False) -> Iterator[Night]:
        """Yield the partitions of file_by_night that a plan reads.

        If they may be empty, it is not asked which of a few nights that the query names are there.
        """
        experiments = [access.experiment]
        if access.experiment is None:
            rows = self._session.run("SELECT experiment FROM experiment WHERE catalogue = ?", ALL)
            experiments = [row["experiment"] for row in rows]
        for experiment in experiments:
            assert experiment is not None
            if may_be_empty and access.these is not None and len(access.these) <= p.MOST_READS:
                nights = [night.isoformat() for night in access.these]
            else:
                rows = self._session.run("SELECT night FROM night_of_experiment WHERE experiment = ?", experiment)
                nights = [row["night"] for row in rows]
            yield from ((experiment, night) for night in nights if access.holds(night))

    # counting, plans

    def count(self, query: q.Query, by: str | None = None) -> dict[Any, int]:
        """Count matching files, by the values of attribute `by`; rows stream past, none is kept.

        What asks of nothing but experiment, night and state is answered from counts that are kept of each night.
        """
        declared = self.attributes()
        whole = q.of_registered(query)
        names = set() if by is None else {known_attribute(by, declared).name}
        accesses = _accesses(query, declared)
        nights = [access for access in accesses if isinstance(access, p.Nights)]
        if len(nights) == len(accesses) and names | q.names(whole) <= _OF_A_NIGHT:
            counts = self._count_nights(whole, nights, by, declared)
        else:
            matches = self._matching(whole, accesses, _columns(names, whole), declared)
            counts = Counter(None if by is None else values.get(by) for _, values in matches)
        if by is None:
            return {None: counts[None]}
        return dict(sorted(counts.items(), key=lambda item: (item[0] is not None, item[0])))

    def _count_nights(
        self, whole: q.Query, accesses: Sequence[p.Nights], by: str | None, declared: dict[str, Attribute]
    ) -> Counter[Any]:
        """Count from what is kept of each night; those with shared contents are read."""
        nights = list(dict.fromkeys(night for access in accesses for night in self._partitions(access)))
        counts: Counter[Any] = Counter()
        shared = []
        for (experiment, night), files in counts_of_nights(self._session, self._revisions, nights).items():
            if files is None:
                shared.append((experiment, night))
                continue
            of_night = None if night.startswith("none") else date.fromisoformat(night)
            values: dict[str, Any] = {"experiment": experiment, "night": of_night}
            for state, number in files.items():
                values["state"] = state
                if q.matches(whole, values):
                    counts[None if by is None else values[by]] += number
        rows = (
            row
            for _, many in rows_of_nights(self._session, shared, _columns({by} if by else set(), whole))
            for row in many
        )
        for _, of_row in self._once(self._tested(rows, whole, declared), whole, declared):
            counts[None if by is None else of_row[by]] += 1
        return counts

    def explain(self, search: q.Query | q.Search) -> str:
        """Return what is read, what is tested row by row, and how an order comes about."""
        if not isinstance(search, q.Search):
            search = q.Search(search)
        whole = q.of_registered(search.where)
        accesses = _accesses(search.where, self.attributes())
        if _in_order(search, accesses):
            order = "pages are merged from partitions sorted by path"
        else:
            order = "no table has this order: each page reads all of this again and keeps the rows of the page"
        return "\n".join([*map(p.describe, accesses), f"each row read is tested: {q.written(whole)}", order])

    def rows_read(self, search: q.Search) -> int | None:
        """Add up what is kept of the nights that are read; of other reads it can't be told."""
        accesses = _accesses(search.where, self.attributes())
        if any(isinstance(access, p.Site | p.Tree | p.Index) for access in accesses):
            return None
        if _in_order(search, accesses) and q.names(q.of_registered(search.where)) <= _OF_A_NIGHT:
            return min(PAGE, search.limit or PAGE)  # each row that is read is shown
        nights = [night for one in accesses if isinstance(one, p.Nights) for night in self._partitions(one)]
        counts = counts_of_nights(self._session, self._revisions, list(dict.fromkeys(nights))).values()
        return None if None in counts else sum(sum(files.values()) for files in counts if files is not None)


def _accesses(query: q.Query, declared: dict[str, Attribute]) -> list[p.Access]:
    """Return what is read for a query; a rule that is added to it may only make this less."""
    accesses = p.plan(q.of_registered(q.asked_of(query)), declared)
    if isinstance(query, q.Allowed) and accesses == [p.Nights(None)]:  # all was asked for
        with suppress(UsageError):  # a rule that bounds nothing
            return p.plan(q.of_registered(query), declared)
    return accesses


def _columns(names: set[str] | None, whole: q.Query) -> str:
    return "*" if names is None else ", ".join(columns_for(names | q.names(whole)))


def _in_order(search: q.Search, accesses: Sequence[p.Access]) -> bool:
    """Tell whether all is read from partitions in the order that is asked."""
    return ordering(search) == _BY_PATH and all(isinstance(access, p.Nights) for access in accesses)


class _Down:
    """A key that sorts the other way round."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __lt__(self, other: _Down) -> bool:
        return bool(other.key < self.key)

    def __gt__(self, other: _Down) -> bool:
        return bool(other.key > self.key)  # tuples with > compare their first difference by it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Down) and bool(self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)


def _sort_key(order: Sequence[q.Order]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Return the key by which rows sort: a missing value is the least."""

    def key(values: dict[str, Any]) -> tuple[Any, ...]:
        keys = []
        for one in order:
            value = values.get(one.name)
            rank = (value is not None, value)
            keys.append(_Down(rank) if one.descending else rank)
        return tuple(keys)

    return key
