"""One site's files in the order of their sources, as a rescan compares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from apbatch.index import query as q
from apbatch.index.catalogue import PAGE
from apbatch.index.files import FileRecord
from apbatch.index.pages import Stretch
from apbatch.index.records import is_text
from apbatch.index.sql.base import SqlBase
from apbatch.index.sql.conditions import Column, Condition, both, condition, either, where
from apbatch.index.sql.database import Row, Run
from apbatch.index.sql.schema import RECORD


class SqlListing(SqlBase):
    """Listings."""

    def of_site(self, site: str) -> Iterator[FileRecord]:
        """Yield every file of a site, in any state, by source; each page is one state."""
        after: tuple[Any, ...] | None = None
        while is_text(site):
            with self._db.read() as session:
                rows = self._rows_of(Stretch(site, after=after), RECORD, PAGE, session.rows)
                records = self._records(session, rows, self._declared(session).version)
            yield from records
            if len(rows) < PAGE:
                return
            after = rows[-1][-2:]

    def _listed(self, stretch: Stretch, names: Sequence[str], limit: int) -> list[Row]:
        return self._rows_of(stretch, names, limit, self._db.ask)

    def _rows_of(self, stretch: Stretch, names: Sequence[str], limit: int, run: Run) -> list[Row]:
        """Return the first files of a stretch: the named columns, then source and path."""
        source = Column("f.source", "string", True)
        tests: list[Condition] = [("f.site = ?", [stretch.site])]
        if stretch.below:
            tests += [
                self._bound_to(source, ">=", f"{stretch.below}/"),
                self._bound_to(source, "<", f"{stretch.below}0"),
            ]
        if stretch.since:
            tests.append(self._bound_to(source, ">=", stretch.since))
        if stretch.until is not None:
            tests.append(self._bound_to(source, "<", stretch.until))
        if stretch.after is not None:
            beyond = self._bound_to(source, ">", stretch.after[0])
            same = both(self._bound_to(source, "=", stretch.after[0]), ("f.path > ?", [stretch.after[1]]))
            tests += [self._bound_to(source, ">=", stretch.after[0]), either(beyond, same)]
        sql, values = where(both(*tests))
        cells = ", ".join(f"f.{name}" for name in (*names, "source", "path"))
        order = ", ".join([*self._keys(source), "f.path"])
        return run(f"SELECT {cells} FROM file f WHERE {sql} ORDER BY {order} LIMIT {limit}", values)

    def _bound_to(self, column: Column, operator: q.Operator, value: str) -> Condition:
        return condition(q.Compare("source", operator, value), lambda _: column, self._db)
