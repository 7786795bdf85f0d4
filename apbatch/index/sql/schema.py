"""The tables of the catalogue in SQL, the same in SQLite and PostgreSQL but for types."""

from __future__ import annotations

from collections.abc import Iterator

from apbatch.formats.reader import Attribute
from apbatch.index.attributes import COMMON
from apbatch.index.files import COMMON_FIELDS
from apbatch.index.sql.database import Database

SCHEMA_VERSION = 4
#: Texts that are short by the rules of `apbatch.index.records`, so that any index takes them whole.
SHORT = ("site", "experiment", "format", "state", "checksum", "adler32")
#: Columns of a file in `staged`; `n` counts the records of a batch from 1.
STAGED = ("n", "path", "parent", "entry", *COMMON_FIELDS[1:-1])
#: Columns that make up a `FileRecord`, in the order of its fields; then `id`.
RECORD = (
    "path", "site", "source", "size", "mtime_ns", "checksum", "adler32", "format", "experiment", "state", "reason",
    "run", "night", "time_start", "time_end", "telescope", "cluster", "events", "place", "revision", "id",
)  # fmt: skip


def staging_columns(db: Database) -> str:
    """Return the columns of `staged`."""
    return ", ".join(
        f"{name} {db.types['integer' if name == 'n' else COMMON[name].type if name in COMMON else 'string']}"
        for name in STAGED
    )


def tables(db: Database) -> Iterator[str]:
    """Yield the statements that make an empty catalogue."""
    text, integer, number = db.types["string"], db.types["integer"], db.types["number"]
    common = ", ".join(
        f"{name} {db.types[COMMON[name].type]}{' NOT NULL' if name in ('place', 'site', 'source', 'size') else ''}"
        for name in COMMON_FIELDS[1:]
    )
    # A file's id is the revision at which it was first registered.
    yield (
        f"CREATE TABLE file (id {integer} PRIMARY KEY, path {text} NOT NULL, parent {text} NOT NULL, "
        f"entry {text}, copy {integer} NOT NULL, {common})"
    )
    yield f"CREATE UNIQUE INDEX file_by_path ON file ({db.unique('path')})"
    yield f"CREATE INDEX file_by_entry ON file ({db.narrow('parent')}, {db.narrow('entry')}, copy)"
    yield f"CREATE INDEX file_by_place ON file ({db.narrow('place')})"
    yield f"CREATE INDEX file_settled ON file ({db.narrow('place')}, copy) WHERE entry <> place OR copy > 0"
    yield f"CREATE INDEX file_by_source ON file (site, {db.narrow('source')})"
    yield "CREATE INDEX file_by_night ON file (experiment, night, state, copy)"
    yield "CREATE INDEX file_by_run ON file (run) WHERE run IS NOT NULL"
    yield "CREATE INDEX file_by_events ON file (events) WHERE events IS NOT NULL"
    yield "CREATE INDEX file_by_format ON file (format, state)"
    yield "CREATE UNIQUE INDEX file_by_revision ON file (revision)"
    yield digest_table(db)
    yield f"CREATE TABLE directory (path {text} NOT NULL, parent {text} NOT NULL)"
    yield f"CREATE UNIQUE INDEX directory_by_path ON directory ({db.unique('path')})"
    yield f"CREATE INDEX directory_by_parent ON directory ({db.narrow('parent')}, {db.narrow('path')})"
    yield (
        f"CREATE TABLE attribute (name {text} PRIMARY KEY, type {text} NOT NULL, unit {text}, "
        f"description {text} NOT NULL)"
    )
    yield f"CREATE TABLE experiment (number {integer} PRIMARY KEY, name {text} NOT NULL UNIQUE)"
    yield (
        f"CREATE TABLE experiment_attribute (number {integer} NOT NULL, name {text} NOT NULL, "
        "PRIMARY KEY (number, name))"
    )
    yield (
        f"CREATE TABLE replica (id {integer} NOT NULL, url {text} NOT NULL, kind {text} NOT NULL, "
        f"checksum {text} NOT NULL, verified {db.types['time']} NOT NULL, revision {integer} NOT NULL)"
    )
    yield f"CREATE UNIQUE INDEX replica_by_url ON replica (id, {db.unique('url')})"
    yield "CREATE UNIQUE INDEX replica_by_revision ON replica (revision)"
    yield (
        f"CREATE TABLE change (revision {integer} PRIMARY KEY, kind {text} NOT NULL, key {text} NOT NULL, "
        f"detail {text} NOT NULL, at {number} NOT NULL)"
    )
    yield (
        f"CREATE TABLE content (checksum {text} PRIMARY KEY, size {integer} NOT NULL, adler32 {text} NOT NULL, "
        f"blocks {db.binary} NOT NULL, small_pieces {db.binary} NOT NULL, large_pieces {db.binary} NOT NULL)"
    )
    yield (
        f"CREATE TABLE lease (name {text} PRIMARY KEY, holder {text} NOT NULL, token {integer} NOT NULL, "
        f"expires {number} NOT NULL, clock {text} NOT NULL)"
    )
    yield (
        f"CREATE TABLE description (kind {text} NOT NULL, name {text} NOT NULL, text {text} NOT NULL, "
        f"preferred {db.types['boolean']} NOT NULL, revision {integer} NOT NULL UNIQUE, PRIMARY KEY (kind, name))"
    )
    yield f"CREATE TABLE counter (name {text} PRIMARY KEY, value {integer} NOT NULL)"
    for name in ("revision", "horizon", "schema", "lease"):
        yield f"INSERT INTO counter (name, value) VALUES ('{name}', 0)"


def digest_table(db: Database) -> str:
    """Return the statement that makes the table of digests of listings, which schema 3 did not have."""
    text, integer = db.types["string"], db.types["integer"]
    return (
        f"CREATE TABLE listing_digest (site {text} NOT NULL, first {text} NOT NULL, files {integer} NOT NULL, "
        f"registered {integer} NOT NULL, digest {db.binary}, PRIMARY KEY (site, first))"
    )


def side_table(number: int) -> str:
    """Return the table of the attributes of an experiment."""
    return f"attributes_{number}"


def side_table_statement(db: Database, number: int) -> str:
    """Return the statement that makes it."""
    return f"CREATE TABLE {side_table(number)} (id {db.types['integer']} PRIMARY KEY)"


def column_statements(db: Database, number: int, attribute: Attribute) -> Iterator[str]:
    """Yield what adds the column of an attribute, with its index.

    Parameters
    ----------
    db : Database
    number : int
        Of the side table.
    attribute : Attribute
        Its name was checked to be a plain one.
    """
    table = side_table(number)
    column = f'"{attribute.name}"'
    yield f"ALTER TABLE {table} ADD COLUMN {column} {db.types[attribute.type]}"
    expression = db.narrow(column) if attribute.type == "string" else column
    yield f'CREATE INDEX "{table}_{attribute.name}" ON {table} ({expression}) WHERE {column} IS NOT NULL'
