"""Searching files: pages by key, counts, plans. A search asks the files and each side table of attributes it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from apbatch.errors import UsageError
from apbatch.index import query as q
from apbatch.index.attributes import COMMON, known_attribute
from apbatch.index.catalogue import PAGE
from apbatch.index.pages import Page, RecordPage, identity_of, ordering, read_cursor, to_batch, write_cursor
from apbatch.index.sql.base import SqlBase
from apbatch.index.sql.conditions import Column, Condition, both, condition, either, where
from apbatch.index.sql.database import Database, Row, Run, Session
from apbatch.index.sql.rows import Declarations, Joined, Standing, Statement, as_typed, side_tables
from apbatch.index.sql.schema import RECORD, SHORT, side_table

_Answer = TypeVar("_Answer")


class _OtherStandingError(Exception):
    """What a statement was composed for has changed, or no row says that it has not."""


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
    """Select, count, explain."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._stood: Standing | None = None
        shared = f"CASE WHEN {_SHARED} THEN 1 ELSE 0 END"
        self._stands = f"(SELECT 2 * value + {shared} FROM counter WHERE name = 'schema')"
        self._statements: dict[tuple[Any, ...], Statement] = {}

    def _forget(self) -> None:
        super()._forget()
        self._stood = None
        self._statements.clear()

    def select_records(self, search: q.Search, cursor: str | None = None, size: int = PAGE) -> RecordPage:
        """Return some files that match, as records; see `Catalogue.select_records`."""

        def page(standing: Standing, run: Run) -> RecordPage:
            rows, following, joined = self._page(standing, run, search, RECORD, cursor, size, joins=True)
            if joined is None:  # too many side tables: they are asked after it, in the same state
                raise _OtherStandingError
            return RecordPage(joined.records(rows, self._db.is_typed), following)

        def page_by_session(session: Session) -> RecordPage:
            standing = self._standing(session)
            rows, following, joined = self._page(standing, session.rows, search, RECORD, cursor, size, joins=True)
            if joined is None:
                return RecordPage(self._records(session, rows, standing.declarations.version), following)
            return RecordPage(joined.records(rows, self._db.is_typed), following)

        return self._answered(page, page_by_session)

    def select_batch(
        self, search: q.Search, columns: Sequence[str], cursor: str | None = None, size: int = 10_000
    ) -> Page:
        """Return some files that match, as a batch; see `Catalogue.select_batch`."""

        def page(standing: Standing, run: Run) -> Page:
            attributes = {**COMMON, **standing.declarations.attributes}
            names = [known_attribute(name, attributes).name for name in columns]
            rows, following, _ = self._page(standing, run, search, names, cursor, size)
            return Page(to_batch(rows, names, attributes), following)

        return self._answered(page)

    def _answered(
        self, question: Callable[[Standing, Run], _Answer], by_session: Callable[[Session], _Answer] | None = None
    ) -> _Answer:
        """Ask a question by one statement, composed for what stood at the last one.

        The last column of each row says what stands now. Where that is something else, or where no row says it, the
        question is asked in a transaction, which first asks what stands.

        Parameters
        ----------
        question : callable
            Is given what stands, and what runs its statement.
        by_session : callable, optional
            The question as a transaction asks it; by default the same.
        """
        if (standing := self._stood) is not None:
            with suppress(_OtherStandingError, UsageError):  # an attribute may have been declared since
                return question(standing, partial(self._run_on, standing))
        with self._db.read() as session:
            return by_session(session) if by_session else question(self._standing(session), session.rows)

    def _run_on(self, standing: Standing, statement: str, values: Sequence[Any]) -> list[Row]:
        rows = self._db.ask(statement, values)
        if not rows or rows[0][-1] != standing.number:
            raise _OtherStandingError
        return rows

    def _page(
        self, standing: Standing, run: Run, search: q.Search, names: Sequence[str], cursor: str | None, size: int,
        *, joins: bool = False,
    ) -> tuple[list[Row], str | None, Joined | None]:  # fmt: skip
        """Return rows of the named columns and of those of joined tables, the next cursor, and these tables."""
        attributes = {**COMMON, **standing.declarations.attributes}
        order = ordering(search)
        types = [known_attribute(one.name, attributes).type for one in order]
        after, offset = None, 0
        if cursor is not None:
            position = read_cursor(cursor, identity_of(search), types)
            after, offset = position.after, position.offset
        count = size if search.limit is None else min(size, search.limit - offset)
        if count <= 0:
            return [], None, _NO_TABLES
        statement = self._statement(standing, search, names, after, count + 1, joins=joins)
        rows = run(statement.sql, statement.values)
        more = len(rows) > count and (search.limit is None or offset + count < search.limit)
        rows = rows[:count]
        if not more:
            return rows, None, statement.joined
        last = [as_typed(kind, rows[-1][key]) for kind, key in zip(types, statement.keys, strict=True)]
        return rows, write_cursor(identity_of(search), last, offset + len(rows)), statement.joined

    def _standing(self, session: Session) -> Standing:
        """Return what is declared, and whether any content has several sources, by one statement."""
        ((version, shared),) = session.rows(f"SELECT {self._version}, {_SHARED}")
        self._stood = standing = Standing(self._declared(session, version), bool(shared))
        return standing

    def _statement(
        self, standing: Standing, search: q.Search, names: Sequence[str], after: tuple[Any, ...] | None, many: int,
        *, joins: bool = False,
    ) -> Statement:  # fmt: skip
        """Return the statement for the first rows after a key; those of the last questions are kept."""
        key = (standing.declarations.version, standing.shared, search, tuple(names), after, many, joins)
        return self._composed(key, lambda: self._compose(standing, search, names, after, many, joins))

    def _composed(self, key: tuple[Any, ...], compose: Callable[[], Statement]) -> Statement:
        if (statement := self._statements.get(key)) is None:
            if len(self._statements) >= _MOST_STATEMENTS:
                self._statements.clear()
            statement = self._statements[key] = compose()
        return statement

    def _compose(
        self, standing: Standing, search: q.Search, names: Sequence[str], after: tuple[Any, ...] | None, many: int,
        joins: bool,
    ) -> Statement:  # fmt: skip
        """Write the statement: the named columns, those of joined tables, those of the order alone, and what stands."""
        declarations = standing.declarations
        order = ordering(search)
        alone = [one.name for one in order if one.name not in names]
        outputs = [*names, *alone]
        keys = tuple(names.index(k) if k in names else alone.index(k) - len(alone) - 1 for k in (o.name for o in order))
        experiments = q.values_of(q.of_registered(search.where), "experiment")
        joined = side_tables(declarations, experiments) if joins else _NO_TABLES
        labels = ["id" if name == "id" else f"c{number}" for number, name in enumerate(outputs)]
        selects: list[tuple[str, str]] = []
        values: list[Any] = []
        question = q.asked_of(search.where)
        by_index = bool(q.names(question) - _COARSE)
        few = any(len(q.values_of(question, name) or ()) == 1 for name in _FINE)
        for branch in self._branches(declarations, search.where, set(outputs), standing.shared):
            whole = branch.condition
            if after is not None:
                whole = both(whole, self._later(branch, order, after))
            if whole is False:
                continue
            cells = [
                f"{column.sql if (column := branch.column(name)) else self._missing(name, declarations)} AS {label}"
                for name, label in zip(outputs, labels, strict=True)
            ]
            sorting = ", ".join(
                f"{expression}{_direction(one)}"
                for one in order
                if (column := branch.column(one.name)) is not None
                for expression in (self._sorted_after(column, few) if by_index else self._keys(column))
            )
            sql, bound = where(whole)
            selects.append((", ".join(cells), f"{branch.source} WHERE {sql} ORDER BY {sorting} LIMIT {many}"))
            values += bound
        if not selects:
            return Statement(_NOTHING, [], joined)
        if len(selects) == 1 and not (joined and joined.places):
            return Statement(f"SELECT {selects[0][0]}, {self._stands} FROM {selects[0][1]}", values, joined, keys)
        sorting = ", ".join(f"f.{labels[outputs.index(one.name)]}{_direction(one)}" for one in order)
        parts = [f"SELECT {cells} FROM {source}" for cells, source in selects]
        inner = parts[0]
        if len(parts) > 1:
            union = " UNION ALL ".join(f"SELECT * FROM ({part}) AS part" for part in parts)
            inner = f"SELECT * FROM ({union}) AS f ORDER BY {sorting} LIMIT {many}"
        columns, source = (joined.columns, joined.source) if joined else ("", "")
        first = ", ".join(f"f.{label}" for label in labels[: len(names)])
        last = "".join(f", f.{label}" for label in labels[len(names) :])
        statement = f"SELECT {first}{columns}{last}, {self._stands} FROM ({inner}) AS f{source} ORDER BY {sorting}"
        return Statement(statement, values, joined, keys)

    def _sorted_after(self, column: Column, few: bool) -> list[str]:
        """Return the keys by which rows are sorted that an index of other attributes picked.

        Parameters
        ----------
        column : Column
        few : bool
            Whether they are few for certain: then no index of a long text's beginning is worth being read instead.
        """
        return [self._db.sorted_after(key) for key in ([column.sql] if few else self._keys(column))]

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

        def counted(standing: Standing, run: Run) -> dict[Any, int]:
            attribute = known_attribute(by, {**COMMON, **standing.declarations.attributes}) if by is not None else None
            key = ("count", standing.declarations.version, standing.shared, query, by)
            statement = self._composed(key, lambda: self._counting(standing, query, by))
            counts: Counter[Any] = Counter()
            for value, number, *_ in run(statement.sql, statement.values):
                if number:
                    counts[value] += number
            if attribute is None:
                return {None: counts[None]}
            typed = {as_typed(attribute.type, value): number for value, number in counts.items()}
            return dict(sorted(typed.items(), key=lambda item: (item[0] is not None, item[0])))

        return self._answered(counted)

    def _counting(self, standing: Standing, query: q.Query, by: str | None) -> Statement:
        parts: list[str] = []
        values: list[Any] = []
        for branch in self._branches(standing.declarations, query, frozenset({by} if by else ()), standing.shared):
            sql, bound = where(branch.condition)
            column = branch.column(by) if by is not None else None
            value = column.sql if column else self._missing(by, standing.declarations) if by is not None else "NULL"
            grouped = f" GROUP BY {column.sql}" if column else ""
            parts.append(f"SELECT {value} AS value, COUNT(*) AS number FROM {branch.source} WHERE {sql}{grouped}")
            values += bound
        if not parts:
            return Statement(_NOTHING, [])
        union = " UNION ALL ".join(parts)
        return Statement(f"SELECT value, number, {self._stands} FROM ({union}) AS counted", values)

    # plans

    def explain(self, search: q.Query | q.Search) -> str:
        """Return the server's own plan with its cost, and the statement."""
        if not isinstance(search, q.Search):
            search = q.Search(search)
        with self._db.read() as session:
            statement = self._statement(self._standing(session), search, ("path",), None, search.limit or PAGE)
            if statement.sql == _NOTHING:
                return "nothing is read: no file can match"
            return "\n".join([*self._db.explain(session, statement.sql, statement.values), "", statement.sql])

    def rows_read(self, search: q.Search) -> int | None:
        """Estimate from the server's plan how many rows are looked at; see `Catalogue.rows_read`."""
        if not q.names(q.asked_of(search.where)) and not search.order:
            return min(PAGE, search.limit or PAGE)  # all files by path: as many as are shown
        with self._db.read() as session:
            statement = self._statement(self._standing(session), search, ("path",), None, search.limit or PAGE)
            return 0 if statement.sql == _NOTHING else self._db.rows_read(session, statement.sql, statement.values)


#: Conditions on these alone pick too many files for an index: a page is read in the order of the keys instead.
_COARSE = {"path", "place", "site", "source", "experiment", "state", "format", "size", "mtime_ns", "revision"}
#: Whether any content has several sources: a partial index tells it.
_SHARED = "EXISTS (SELECT 1 FROM file WHERE (entry <> place OR copy > 0) AND copy > 0)"
#: One value of any of these picks few files, always.
_FINE = ("night", "run")
_MOST_STATEMENTS = 500
#: A statement for what no file can match.
_NOTHING = "SELECT 1 WHERE 1 = 0"
_NO_TABLES = Joined(-1, "", "", {})
#: Attributes that every file has.
_ALWAYS = ("path", "place", "site", "source", "size", "mtime_ns", "experiment", "format", "state", "revision")
