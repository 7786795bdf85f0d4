"""Searching files: pages by key, counts, plans. A search asks the files and each side table of attributes it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from apbatch.index import query as q
from apbatch.index.attributes import COMMON, known_attribute
from apbatch.index.catalogue import LISTING, PAGE
from apbatch.index.files import FileRecord
from apbatch.index.pages import Page, RecordPage, identity, identity_of, ordering, read_cursor, to_batch, write_cursor
from apbatch.index.records import is_text
from apbatch.index.sql.base import Declarations, SqlBase, as_typed
from apbatch.index.sql.conditions import Column, Condition, both, condition, either, where
from apbatch.index.sql.database import Row, Session
from apbatch.index.sql.schema import RECORD, SHORT, side_table


@dataclass(frozen=True, slots=True)
class Branch:
    """The files of one experiment with its side table, or files without one.

    Attributes
    ----------
    source : str
        What follows FROM.
    column : callable
        Column of an attribute; None if all its values are missing here.
    condition : Condition
    """

    source: str
    column: Callable[[str], Column | None]
    condition: Condition


def _direction(one: q.Order) -> str:
    if one.name in _ALWAYS:
        return " DESC" if one.descending else ""
    return " DESC NULLS LAST" if one.descending else " NULLS FIRST"


class SqlSearch(SqlBase):
    """Select, count, listing, explain."""

    def select_records(self, search: q.Search, cursor: str | None = None, size: int = PAGE) -> RecordPage:
        """Return some files that match, as records; see `Catalogue.select_records`."""
        with self._db.read() as session:
            declarations, shared = self._standing(session)
            rows, following = self._page(session, declarations, shared, search, RECORD, cursor, size)
            return RecordPage(self._records(session, rows, declarations.version), following)

    def select_batch(
        self, search: q.Search, columns: Sequence[str], cursor: str | None = None, size: int = 10_000
    ) -> Page:
        """Return some files that match, as a batch; see `Catalogue.select_batch`."""
        with self._db.read() as session:
            declarations, shared = self._standing(session)
            attributes = {**COMMON, **declarations.attributes}
            names = [known_attribute(name, attributes).name for name in columns]
            rows, following = self._page(session, declarations, shared, search, names, cursor, size)
        return Page(to_batch([row[: len(names)] for row in rows], names, attributes), following)

    def _page(
        self, session: Session, declarations: Declarations, shared: bool, search: q.Search, names: Sequence[str],
        cursor: str | None, size: int,
    ) -> tuple[list[Row], str | None]:  # fmt: skip
        attributes = {**COMMON, **declarations.attributes}
        order = ordering(search)
        types = [known_attribute(one.name, attributes).type for one in order]
        after, offset = None, 0
        if cursor is not None:
            position = read_cursor(cursor, identity_of(search), types)
            after, offset = position.after, position.offset
        count = size if search.limit is None else min(size, search.limit - offset)
        if count <= 0:
            return [], None
        statement, values = self._statement(declarations, shared, search, names, after, count + 1)
        if statement is None:
            return [], None
        rows = session.rows(statement, values)
        more = len(rows) > count and (search.limit is None or offset + count < search.limit)
        rows = rows[:count]
        if not more:
            return rows, None
        last = [as_typed(kind, value) for kind, value in zip(types, rows[-1][len(names) :], strict=True)]
        return rows, write_cursor(identity_of(search), last, offset + len(rows))

    def _standing(self, session: Session) -> tuple[Declarations, bool]:
        """Return what is declared, and whether any content has several sources, by one statement."""
        ((version, shared),) = session.rows(f"SELECT {self._version}, {_SHARED}")
        return self._declared(session, version), bool(shared)

    def _statement(
        self, declarations: Declarations, shared: bool, search: q.Search, names: Sequence[str],
        after: tuple[Any, ...] | None, many: int,
    ) -> tuple[str | None, list[Any]]:  # fmt: skip
        """Return the statement for the first rows after a key; those of the last questions are kept."""
        key = (declarations.version, shared, search, tuple(names), after, many)
        if (kept := self._statements.get(key)) is None:
            if len(self._statements) >= _MOST_STATEMENTS:
                self._statements.clear()
            kept = self._statements[key] = self._compose(declarations, shared, search, names, after, many)
        return kept

    def _compose(
        self, declarations: Declarations, shared: bool, search: q.Search, names: Sequence[str],
        after: tuple[Any, ...] | None, many: int,
    ) -> tuple[str | None, list[Any]]:  # fmt: skip
        """Write the statement: the named columns, then those of the order."""
        order = ordering(search)
        needed = {*names, *(one.name for one in order)}
        selects: list[str] = []
        values: list[Any] = []
        branches = self._branches(declarations, search.where, needed, shared)
        by_index = bool(q.names(q.asked_of(search.where)) - _COARSE)
        for branch in branches:
            whole = branch.condition
            if after is not None:
                whole = both(whole, self._later(branch, order, after))
            if whole is False:
                continue
            columns = [branch.column(name) for name in names]
            keys = [branch.column(one.name) for one in order]
            cells = [
                column.sql if column else self._missing(name, declarations)
                for name, column in zip(names, columns, strict=True)
            ]
            sorting = ", ".join(
                f"{expression}{_direction(one)}"
                for one, column in zip(order, keys, strict=True)
                if column is not None
                for expression in (self._db.sorted_after(key) if by_index else key for key in self._keys(column))
            )
            cells += [
                f"{column.sql if column else self._missing(one.name, declarations)} AS k{number}"
                for number, (one, column) in enumerate(zip(order, keys, strict=True))
            ]
            sql, bound = where(whole)
            selects.append(
                f"SELECT {', '.join(cells)} FROM {branch.source} WHERE {sql} ORDER BY {sorting} LIMIT {many}"
            )
            values += bound
        if not selects:
            return None, []
        if len(selects) == 1:
            return selects[0], values
        sorting = ", ".join(f"k{number}{_direction(one)}" for number, one in enumerate(order))
        union = " UNION ALL ".join(f"SELECT * FROM ({select}) AS part" for select in selects)
        return f"SELECT * FROM ({union}) AS every ORDER BY {sorting} LIMIT {many}", values

    def _keys(self, column: Column) -> list[str]:
        narrow = self._db.narrow(column.sql) if column.is_long else column.sql
        return [column.sql] if narrow == column.sql else [narrow, column.sql]

    def _missing(self, name: str, declarations: Declarations) -> str:
        attribute = COMMON.get(name) or declarations.attributes[name]
        return self._db.null(attribute.type)

    def _later(self, branch: Branch, order: Sequence[q.Order], after: Sequence[Any]) -> Condition:
        """Return the condition that a row comes after a key."""
        rest: Condition = False
        for one, value in reversed(list(zip(order, after, strict=True))):
            column = branch.column(one.name)
            is_null: Condition = True if column is None else (f"{column.sql} IS NULL", [])
            not_null: Condition = False if column is None else (f"{column.sql} IS NOT NULL", [])
            if value is None:
                rest = both(is_null, rest) if one.descending else either(not_null, both(is_null, rest))
                continue

            def compared(operator: q.Operator, name: str = one.name, value: Any = value) -> Condition:
                return condition(q.Compare(name, operator, value), branch.column, self._db)

            beyond = compared("<" if one.descending else ">")
            if one.descending:
                beyond = either(beyond, is_null if one.name not in _ALWAYS else False)
            same = both(compared("="), rest)
            if one.name in _ALWAYS and column is not None and same is not False:
                reach = compared("<=" if one.descending else ">=")  # one range of an index
                rest = both(reach, either(beyond, same))
            else:
                rest = either(beyond, same)
        return rest

    def _branches(
        self, declarations: Declarations, condition: q.Query, needed: set[str] | frozenset[str], shared: bool | None
    ) -> list[Branch]:
        """Return the parts that a query reads.

        Parameters
        ----------
        declarations : Declarations
        condition : Query
        needed : set of str
            Attributes that are wanted of what is found.
        shared : bool, optional
            Whether any content has several sources, of which one comes; None if each is to come.
        """
        query = q.of_registered(condition)
        attributes = {**COMMON, **declarations.attributes}
        names = {known_attribute(name, attributes).name for name in q.names(query) | (needed - {"id"})} - set(COMMON)
        tables = {name: table for name, table in declarations.tables.items() if names & set(table.names)}
        pinned = q.values_of(query, "experiment")
        if pinned is not None:
            tables = {name: table for name, table in tables.items() if name in pinned}
        branches = []
        for experiment, table in tables.items():
            of_experiment: Condition = ("f.experiment = ?", [experiment])
            source = f"file f LEFT JOIN {side_table(table.number)} a ON a.id = f.id"
            branches.append(
                self._branch(query, declarations, table.number, set(table.names), source, of_experiment, shared)
            )
        others: Condition = True
        if tables:
            others = (f"f.experiment NOT IN ({', '.join('?' * len(tables))})", list(tables))
        if pinned is None or set(pinned) - set(tables):
            branches.append(self._branch(query, declarations, None, set(), "file f", others, shared))
        return [branch for branch in branches if branch.condition is not False]

    def _branch(
        self,
        query: q.Query,
        declarations: Declarations,
        number: int | None,
        names: set[str],
        source: str,
        own: Condition,
        shared: bool | None,
    ) -> Branch:
        def columns(file: str, side: str) -> Callable[[str], Column | None]:
            def column(name: str) -> Column | None:
                if name in COMMON or name == "id":
                    kind = COMMON[name].type if name in COMMON else "integer"
                    return Column(f"{file}.{name}", kind, kind == "string" and name not in SHORT)
                if name not in names:
                    return None
                kind = declarations.attributes[name].type
                return Column(f'{side}."{name}"', kind, kind == "string")

            return column

        mine = condition(query, columns("f", "a"), self._db)
        once: Condition = True if shared is None else ("f.copy = 0", [])
        if shared:
            other = condition(query, columns("o", "oa"), self._db)
            sql, values = where(other)
            joined = "file o" if number is None else f"file o LEFT JOIN {side_table(number)} oa ON oa.id = o.id"
            exists = (
                f"NOT EXISTS (SELECT 1 FROM {joined} WHERE {self._db.same('o.place', 'f.place')} "
                f"AND o.entry = f.entry AND o.copy < f.copy AND {sql})"
            )
            once = either(once, (exists, values))
        return Branch(source, columns("f", "a"), both(mine, own, once))

    # counting

    def count(self, query: q.Query, by: str | None = None) -> dict[Any, int]:
        """Count matching files, by the values of attribute `by`."""
        with self._db.read() as session:
            declarations, shared = self._standing(session)
            attribute = known_attribute(by, {**COMMON, **declarations.attributes}) if by is not None else None
            counts: Counter[Any] = Counter()
            for branch in self._branches(declarations, query, frozenset({by} if by else ()), shared):
                sql, values = where(branch.condition)
                if by is None or (column := branch.column(by)) is None:
                    number = session.value(f"SELECT COUNT(*) FROM {branch.source} WHERE {sql}", values)
                    if by is None or number:
                        counts[None] += number
                    continue
                statement = f"SELECT {column.sql}, COUNT(*) FROM {branch.source} WHERE {sql} GROUP BY {column.sql}"
                for key, number in session.rows(statement, values):
                    counts[key] += number
        if attribute is None:
            return {None: counts[None]}
        typed = {as_typed(attribute.type, key): number for key, number in counts.items()}
        return dict(sorted(typed.items(), key=lambda item: (item[0] is not None, item[0])))

    # one site's files

    def listing(
        self,
        site: str,
        below: str = "",
        *,
        columns: Sequence[str] = LISTING,
        since: str = "",
        until: str | None = None,
        cursor: str | None = None,
        size: int = 10_000,
    ) -> Page:
        """Return some files of a site by source; see `Catalogue.listing`."""
        names = [known_attribute(name, COMMON).name for name in columns]
        with self._db.read() as session:
            rows, following = self._listed(session, site, below.strip("/"), names, cursor, size, since, until)
        return Page(to_batch(rows, names, COMMON), following)

    def of_site(self, site: str) -> Iterator[FileRecord]:
        """Yield every file of a site, in any state, by source."""
        cursor: str | None = None
        while True:
            with self._db.read() as session:
                rows, cursor = self._listed(session, site, "", RECORD, cursor, PAGE)
                records = self._records(session, rows, self._declared(session).version)
            yield from records
            if cursor is None:
                return

    def _listed(
        self, session: Session, site: str, below: str, names: Sequence[str], cursor: str | None, size: int,
        since: str = "", until: str | None = None,
    ) -> tuple[list[Row], str | None]:  # fmt: skip
        question = identity("listing", site, below, since, until)
        after = None if cursor is None else read_cursor(cursor, question, ("string", "string")).after
        if not all(map(is_text, (site, below, since, until or ""))):
            return [], None
        source = Column("f.source", "string", True)
        tests: list[Condition] = [("f.site = ?", [site])]
        if below:
            tests += [self._bound_to(source, ">=", f"{below}/"), self._bound_to(source, "<", f"{below}0")]
        if since:
            tests.append(self._bound_to(source, ">=", since))
        if until is not None:
            tests.append(self._bound_to(source, "<", until))
        if after is not None:
            beyond = self._bound_to(source, ">", after[0])
            same = both(self._bound_to(source, "=", after[0]), ("f.path > ?", [after[1]]))
            tests += [self._bound_to(source, ">=", after[0]), either(beyond, same)]
        sql, values = where(both(*tests))
        cells = ", ".join(f"f.{name}" for name in (*names, "source", "path"))
        order = ", ".join([*self._keys(source), "f.path"])
        statement = f"SELECT {cells} FROM file f WHERE {sql} ORDER BY {order} LIMIT {size + 1}"
        rows = session.rows(statement, values)
        following = write_cursor(question, rows[size - 1][-2:]) if len(rows) > size else None
        return [row[:-2] for row in rows[:size]], following

    def _bound_to(self, column: Column, operator: q.Operator, value: str) -> Condition:
        return condition(q.Compare("source", operator, value), lambda _: column, self._db)

    # plans

    def explain(self, search: q.Query | q.Search) -> str:
        """Return the server's own plan with its cost, and the statement."""
        if not isinstance(search, q.Search):
            search = q.Search(search)
        with self._db.read() as session:
            declarations, shared = self._standing(session)
            statement, values = self._statement(declarations, shared, search, ("path",), None, search.limit or PAGE)
            if statement is None:
                return "nothing is read: no file can match"
            return "\n".join([*self._db.explain(session, statement, values), "", statement])


#: Conditions on these alone pick too many files for an index: a page is read in the order of the keys instead.
_COARSE = {"path", "place", "site", "source", "experiment", "state", "format", "size", "mtime_ns", "revision"}
#: Whether any content has several sources: a partial index tells it.
_SHARED = "EXISTS (SELECT 1 FROM file WHERE (entry <> place OR copy > 0) AND copy > 0)"
_MOST_STATEMENTS = 500
#: Attributes that every file has.
_ALWAYS = ("path", "place", "site", "source", "size", "mtime_ns", "experiment", "format", "state", "revision")
