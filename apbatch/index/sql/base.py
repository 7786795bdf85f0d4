"""What every part of the catalogue in SQL uses: revisions, declarations, rows of files as records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.attributes import COMMON, merge_declarations
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord
from apbatch.index.records import is_text
from apbatch.index.sql.conditions import Column
from apbatch.index.sql.database import Database, Row, Session
from apbatch.index.sql.rows import Declarations, Joined, SideTable, attributes_of, records_of, side_tables
from apbatch.index.sql.schema import RECORD, column_statements, side_table, side_table_statement

#: Records of a transaction.
BATCH = 500
#: Each experiment has a table of attributes, and a search may ask them all.
_MOST_EXPERIMENTS = 400
_Item = TypeVar("_Item")


def blocks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield items in lists of at most `size`."""
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        yield block


class SqlBase(Catalogue):
    """Revisions, declarations, records."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._declarations = Declarations()
        self._columns = ", ".join(f"f.{name}" for name in RECORD)
        self._version = "(SELECT value FROM counter WHERE name = 'schema')"
        self._joined: Joined | None = None
        self._narrows = db.narrow("x") != "x"
        self._of_path = f"WHERE {self._is('f.path')}"

    def damage(self) -> list[str]:
        """Return what is damaged, and rows without their file."""
        with self._db.read() as session:
            tables = [side_table(table.number) for table in self._declared(session).tables.values()]
            lost = []
            for table in ("replica", *tables):
                statement = f"SELECT COUNT(*) FROM {table} WHERE id NOT IN (SELECT id FROM file)"
                if number := session.value(statement):
                    lost.append(f"{number} rows of {table} belong to no file")
        return [*self._db.damage(), *lost]

    def backup(self, path: Path) -> None:
        """Write an exact copy to a new file."""
        if path.exists():
            raise UsageError("the file is there already", where=str(path), remedy="name another one")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        self._db.backup(part)
        part.rename(path)

    def restore(self, path: Path) -> None:
        """Put a copy that `backup` wrote into this catalogue, which must be empty."""
        if not path.is_file():
            raise UsageError("there is no such file", where=str(path))
        if self.revision():
            raise UsageError(
                "the catalogue is not empty", remedy="restore into another one, and name that in the settings"
            )
        self._db.restore(path)
        self._forget()

    def _forget(self) -> None:
        """Forget what was declared in the content before."""
        self._declarations, self._joined = Declarations(), None

    def close(self) -> None:
        """Close the connections."""
        self._db.close()

    # declarations

    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make attributes known; see `Catalogue.declare`."""
        attributes = list(attributes)
        if not merge_declarations(self.attributes(), attributes):
            return
        with self._db.write() as session:
            fresh = merge_declarations({**COMMON, **self._declared(session).attributes}, attributes)
            session.many(
                "INSERT INTO attribute (name, type, unit, description) VALUES (?, ?, ?, ?)",
                [(a.name, a.type, a.unit, a.description) for a in fresh.values()],
            )
            session.run("UPDATE counter SET value = value + 1 WHERE name = 'schema'")

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query may name."""
        ((version,),) = self._db.ask(f"SELECT {self._version}", ())
        if self._declarations.version != version:
            with self._db.read() as session:
                self._declared(session)
        return {**COMMON, **self._declarations.attributes}

    def _declared(self, session: Session, version: int | None = None) -> Declarations:
        """Return what is declared now; read anew only if another version is current."""
        if version is None:
            version = session.value(f"SELECT {self._version}")
        if self._declarations.version == version:
            return self._declarations
        rows = session.rows("SELECT name, type, description, unit FROM attribute ORDER BY name")
        declarations = Declarations(version, {row[0]: Attribute(*row) for row in rows})
        for number, name in session.rows("SELECT number, name FROM experiment"):
            declarations.tables[name] = SideTable(number)
        numbers = {table.number: table for table in declarations.tables.values()}
        for number, name in session.rows("SELECT number, name FROM experiment_attribute ORDER BY name"):
            numbers[number].names.append(name)
        self._declarations = declarations
        return declarations

    def _provide(self, names: dict[str, set[str]]) -> Declarations:
        """Make sure that experiments have columns for these attributes; a change of the schema is rare."""

        def missing(declarations: Declarations) -> dict[str, set[str]]:
            lacks = {}
            for experiment, needed in names.items():
                table = declarations.tables.get(experiment)
                if lack := needed - set(table.names if table else ()):
                    lacks[experiment] = lack
            return lacks

        if not missing(self._declarations):
            return self._declarations
        with self._db.write() as session:
            declarations = self._declared(session)
            for experiment, lack in missing(declarations).items():
                table = declarations.tables.get(experiment)
                if table is None:
                    if len(declarations.tables) >= _MOST_EXPERIMENTS:
                        raise UsageError(f"more than {_MOST_EXPERIMENTS} experiments have attributes")
                    number = session.value("SELECT COALESCE(MAX(number), 0) + 1 FROM experiment")
                    session.run("INSERT INTO experiment (number, name) VALUES (?, ?)", (number, experiment))
                    session.run(side_table_statement(self._db, number))
                    table = declarations.tables[experiment] = SideTable(number)
                for name in sorted(lack):
                    for statement in column_statements(self._db, table.number, declarations.attributes[name]):
                        session.run(statement)
                    session.run("INSERT INTO experiment_attribute (number, name) VALUES (?, ?)", (table.number, name))
            session.run("UPDATE counter SET value = value + 1 WHERE name = 'schema'")
        with self._db.read() as session:
            return self._declared(session)

    # revisions

    def _take(self, session: Session, many: int) -> int:
        """Take revisions; return the one before the first. Others wait until this transaction ends."""
        statement = "UPDATE counter SET value = value + ? WHERE name = 'revision' RETURNING value"
        return int(session.value(statement, (many,))) - many

    def revision(self) -> int:
        """Return the revision of the last change."""
        return int(self._db.ask("SELECT value FROM counter WHERE name = 'revision'", ())[0][0])

    def _note(self, session: Session, kind: str, changes: Sequence[tuple[str, str]]) -> None:
        """Write changes that no row of a table keeps into the feed, by key and detail."""
        first = self._take(session, len(changes)) + 1
        session.many(
            f"INSERT INTO change (revision, kind, key, detail, at) VALUES (?, ?, ?, ?, {self._db.now})",
            [(revision, kind, key, detail) for revision, (key, detail) in enumerate(changes, first)],
        )

    # records

    def get(self, path: str) -> FileRecord | None:
        """Return one file, or None."""
        if not is_text(path):
            return None
        records = self._whole("file f", self._of_path, self._bound(path))
        return records[0] if records else None

    def get_many(self, paths: Iterable[str]) -> dict[str, FileRecord]:
        """Return files by path."""
        records: dict[str, FileRecord] = {}
        source = f"{self._db.texts} JOIN file f ON {self._db.same('f.path', 'item.value')}"
        for part in blocks(paths, 1000):
            bound = self._db.bound([path for path in part if is_text(path)])
            records.update((record.path, record) for record in self._whole(source, "", [bound]))
        return records

    def _whole(self, source: str, rest: str, values: Sequence[Any]) -> list[FileRecord]:
        """Return the records of files ``f`` by one statement, in which the attributes of each experiment stand beside.

        Where others were declared since, or there are too many, they are asked for by a second one.

        Parameters
        ----------
        source : str
            What follows FROM.
        rest : str
            What follows that.
        values : sequence
        """
        declarations = self._declarations
        if self._joined is None or self._joined.version != declarations.version:
            self._joined = side_tables(declarations) if declarations.version >= 0 else None
        if (joined := self._joined) is not None:
            if (statement := joined.statements.get((source, rest))) is None:
                columns = f"{self._columns}{joined.columns}, {self._version}"
                statement = f"SELECT {columns} FROM {source}{joined.source} {rest}"
                joined.statements[source, rest] = statement
            rows = self._db.ask(statement, values)
            if not rows or rows[0][-1] == joined.version:
                return joined.records(rows, self._db.is_typed)
        with self._db.read() as session:
            rows = session.rows(f"SELECT {self._columns}, {self._version} FROM {source} {rest}", values)
            return self._records(session, rows)

    def _keys(self, column: Column) -> list[str]:
        narrow = self._db.narrow(column.sql) if column.is_long else column.sql
        return [column.sql] if narrow == column.sql else [narrow, column.sql]

    def _is(self, column: str) -> str:
        """Return the condition that a long text is the value that `_bound` gives."""
        narrow = self._db.narrow(column)
        return f"{column} = ?" if narrow == column else f"{narrow} = ? AND {column} = ?"

    def _bound(self, text: str) -> list[str]:
        return [self._db.narrowed(text), text] if self._narrows else [text]

    def _records(self, session: Session, rows: Sequence[Row], version: int | None = None) -> list[FileRecord]:
        """Return the records of rows of `RECORD`, whose last value is the version of the schema if none is given."""
        if not rows:
            return []
        declarations = self._declared(session, rows[0][-1] if version is None else version)
        attributes: dict[int, dict[str, Any]] = {}
        by_experiment: dict[str, list[int]] = {}
        for row in rows:
            by_experiment.setdefault(row[8], []).append(row[20])
        for experiment, ids in by_experiment.items():
            table = declarations.tables.get(experiment)
            if table is None or not table.names:
                continue
            names = ", ".join(f'a."{name}"' for name in table.names)
            source = f"{side_table(table.number)} a"
            if len(ids) == 1:
                attribute_rows = session.rows(f"SELECT a.id, {names} FROM {source} WHERE a.id = ?", ids)
            else:
                statement = f"SELECT a.id, {names} FROM {self._db.numbers} JOIN {source} ON a.id = item.value"
                attribute_rows = session.rows(statement, [self._db.bound(ids)])
            types = [(name, declarations.attributes[name].type) for name in table.names]
            for values in attribute_rows:
                attributes[values[0]] = attributes_of(types, values[1:], self._db.is_typed)
        return records_of(rows, [attributes.get(row[20]) or {} for row in rows], self._db.is_typed)
