"""What the SQL back-ends differ in: connections, types, the indexing of long texts, bulk loading."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from apbatch.errors import ServerError

Row = tuple[Any, ...]
#: Returns all rows of a statement and its values.
Run = Callable[[str, Sequence[Any]], list[Row]]


class ConnectionLostError(ServerError):
    """The server went away; whether the last transaction was committed is not known."""


class Session(ABC):
    """A connection inside a transaction; ``?`` stands for a bound value."""

    @abstractmethod
    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a statement that is bounded by itself."""

    @abstractmethod
    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; return how many rows it concerned."""

    @abstractmethod
    def many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row of values."""

    @abstractmethod
    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert many rows in the fastest way.

        Parameters
        ----------
        table : str
        columns : sequence of str
        rows : sequence of sequence
            Values in the order of the columns.
        """

    def value(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Return the one value of a statement."""
        return self.rows(statement, values)[0][0]


class Database(ABC):
    """One database, used by several threads and processes."""

    #: SQL type by attribute type.
    types: ClassVar[dict[str, str]]
    #: SQL type of bytes.
    binary: ClassVar[str]
    #: Seconds since 1970 by the clock of the server, for the age of removals.
    now: ClassVar[str]
    #: Whether dates, times and truth values come as such, not as texts and numbers.
    is_typed: ClassVar[bool]
    #: A list of texts, and one of whole numbers, bound as one value: a table ``item`` with a column ``value``.
    texts: ClassVar[str]
    numbers: ClassVar[str]

    @abstractmethod
    def read(self) -> AbstractContextManager[Session]:
        """Begin a transaction that sees one state of the database."""

    @abstractmethod
    def ask(self, statement: str, values: Sequence[Any]) -> list[Row]:
        """Return all rows of one statement, which sees one state without a transaction."""

    @abstractmethod
    def ask_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Row]:
        """Return the rows of several statements, with their values, which have the same columns and see one state."""

    @abstractmethod
    def write(self) -> AbstractContextManager[Session]:
        """Begin a transaction that writes; one at a time takes revisions, so that their order is that of commits."""

    @abstractmethod
    def write_staged(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> AbstractContextManager[Session]:
        """Begin a transaction that writes, with `rows` of files in the temporary table ``staged``."""

    @abstractmethod
    def bound(self, values: Sequence[Any]) -> Any:
        """Return a list as the one value that `texts` or `numbers` takes."""

    @abstractmethod
    def plain(self, value: Any) -> Any:
        """Return a value as it is stored."""

    @abstractmethod
    def narrow(self, column: str) -> str:
        """Return what an index holds of a text that may be longer than an index allows; a prefix or the text itself."""

    @abstractmethod
    def narrowed(self, text: str) -> str:
        """Return the same of a value."""

    @abstractmethod
    def unique(self, column: str) -> str:
        """Return what makes a long text unique in an index."""

    def null(self, kind: str) -> str:
        """Return a missing value of an attribute's type."""
        return f"CAST(NULL AS {self.types[kind]})"

    def sorted_after(self, expression: str) -> str:
        """Return a key by which rows are to be sorted once they are picked, not read in its order."""
        return expression

    @abstractmethod
    def explain(self, session: Session, statement: str, values: Sequence[Any]) -> list[str]:
        """Return the server's plan, line by line, with its cost.

        Parameters
        ----------
        session : Session
        statement : str
        values : sequence
            Bound in order.
        """

    @abstractmethod
    def rows_read(self, session: Session, statement: str, values: Sequence[Any]) -> int:
        """Estimate from the server's plan how many rows a statement looks at.

        Parameters
        ----------
        session : Session
        statement : str
        values : sequence
            Bound in order.
        """

    @abstractmethod
    def clock(self, session: Session) -> tuple[float, str]:
        """Return the time, in seconds, of the clock that leases go by, and the name of that clock."""

    @abstractmethod
    def damage(self) -> list[str]:
        """Return what is damaged."""

    @abstractmethod
    def backup(self, path: Path) -> None:
        """Write an exact copy to a file."""

    @abstractmethod
    def restore(self, path: Path) -> None:
        """Replace the content by that of a copy."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""

    def same(self, column: str, other: str) -> str:
        """Return the condition that two long texts are equal, which an index serves."""
        if self.narrow(column) == column:
            return f"{column} = {other}"
        return f"{self.narrow(column)} = {self.narrow(other)} AND {column} = {other}"
