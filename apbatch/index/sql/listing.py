"""One site's files in the order of their sources, as a rescan compares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from apbatch.index import query as q
from apbatch.index.attributes import COMMON, known_attribute
from apbatch.index.catalogue import LISTING, PAGE
from apbatch.index.files import FileRecord
from apbatch.index.pages import Page, identity, read_cursor, to_batch, write_cursor
from apbatch.index.records import is_text
from apbatch.index.sql.base import SqlBase
from apbatch.index.sql.conditions import Column, Condition, both, condition, either, where
from apbatch.index.sql.database import Row, Run
from apbatch.index.sql.schema import RECORD


class SqlListing(SqlBase):
    """Listings."""

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
        rows, following = self._listed(self._db.ask, site, below.strip("/"), names, cursor, size, since, until)
        return Page(to_batch(rows, names, COMMON), following)

    def of_site(self, site: str) -> Iterator[FileRecord]:
        """Yield every file of a site, in any state, by source."""
        cursor: str | None = None
        while True:
            with self._db.read() as session:
                rows, cursor = self._listed(session.rows, site, "", RECORD, cursor, PAGE)
                records = self._records(session, rows, self._declared(session).version)
            yield from records
            if cursor is None:
                return

    def _listed(
        self, run: Run, site: str, below: str, names: Sequence[str], cursor: str | None, size: int,
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
        rows = run(statement, values)
        following = write_cursor(question, rows[size - 1][-2:]) if len(rows) > size else None
        return rows[:size], following

    def _bound_to(self, column: Column, operator: q.Operator, value: str) -> Condition:
        return condition(q.Compare("source", operator, value), lambda _: column, self._db)
