"""Catalogues in SQLite of older versions are brought up to date in one transaction: all or nothing."""

from __future__ import annotations

import json

from apbatch.formats.reader import Attribute
from apbatch.index.attributes import COMMON
from apbatch.index.files import COMMON_FIELDS
from apbatch.index.places import ancestors, parent_of
from apbatch.index.sql.database import Database, Session
from apbatch.index.sql.schema import column_statements, digest_table, side_table, side_table_statement, tables

_OLD = [name for name in COMMON_FIELDS if name != "place"]
_BLOCK = 1000


def upgrade(db: Database, session: Session) -> None:
    """Make schema 1, 2 or 3 into that of today."""
    if session.value("PRAGMA user_version") == 3:
        session.run(digest_table(db))
        return
    revision = session.value("SELECT value FROM counter WHERE name = 'revision'")
    declared = session.rows("SELECT name, type, description, unit FROM attribute")
    for (index,) in session.rows(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name <> 'image_event'"
    ):
        session.run(f'DROP INDEX "{index}"')
    for table in ("counter", "directory", "attribute", "attribute_value"):
        session.run(f"DROP TABLE {table}")
    for table in ("file", "replica"):
        session.run(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in tables(db):
        session.run(statement)
    session.run("UPDATE counter SET value = ? WHERE name = 'revision'", (revision,))
    session.load("attribute", ("name", "type", "description", "unit"), declared)
    _copy_files(db, session, {row[0]: Attribute(*row) for row in declared})
    _copy_replicas(session)
    session.run("UPDATE counter SET value = value + 1 WHERE name = 'schema'")
    for table in ("old_replica", "old_file"):
        session.run(f"DROP TABLE {table}")


def _copy_files(db: Database, session: Session, declared: dict[str, Attribute]) -> None:
    numbers: dict[str, int] = {}
    columns: dict[str, set[str]] = {}
    after = -1
    names = [name for name in _OLD if name != "path"]
    statement = (
        f"SELECT {', '.join(_OLD)}, attributes FROM old_file WHERE revision > ? ORDER BY revision LIMIT {_BLOCK}"
    )
    while rows := session.rows(statement, (after,)):
        files, folders = [], set()
        for row in rows:
            old = dict(zip(_OLD, row, strict=False))
            path, revision = old["path"], old["revision"]
            folders.add(parent_of(path))
            entry = path if old["state"] == "registered" else None
            files.append((revision, path, parent_of(path), entry, 0, path, *(old[name] for name in names)))
            values = {name: value for name, value in json.loads(row[-1]).items() if name in declared}
            if not values:
                continue
            experiment = old["experiment"]
            if experiment not in numbers:
                numbers[experiment] = len(numbers) + 1
                columns[experiment] = set()
                session.run("INSERT INTO experiment (number, name) VALUES (?, ?)", (numbers[experiment], experiment))
                session.run(side_table_statement(db, numbers[experiment]))
            for name in sorted(set(values) - columns[experiment]):
                for change in column_statements(db, numbers[experiment], declared[name]):
                    session.run(change)
                session.run(
                    "INSERT INTO experiment_attribute (number, name) VALUES (?, ?)", (numbers[experiment], name)
                )
                columns[experiment].add(name)
            cells = {name: value for name, value in values.items() if name not in COMMON}
            session.load(side_table(numbers[experiment]), ("id", *cells), [(revision, *cells.values())])
        session.load("file", ("id", "path", "parent", "entry", "copy", "place", *names), files)
        session.many(
            "INSERT OR IGNORE INTO directory (path, parent) VALUES (?, ?)",
            [(folder, parent_of(folder)) for folder in ancestors(sorted(folders))],
        )
        after = rows[-1][_OLD.index("revision")]


def _copy_replicas(session: Session) -> None:
    """Give each replica a revision of its own, after those of the files."""
    many = session.value("SELECT COUNT(*) FROM old_replica")
    first = (
        session.value("UPDATE counter SET value = value + ? WHERE name = 'revision' RETURNING value", (many,)) - many
    )
    session.run(
        "INSERT INTO replica (id, url, kind, checksum, verified, revision) "
        "SELECT f.id, r.url, r.kind, r.checksum, r.verified, ? + ROW_NUMBER() OVER (ORDER BY r.path, r.url) "
        "FROM old_replica r JOIN file f ON f.path = r.path",
        (first,),
    )
