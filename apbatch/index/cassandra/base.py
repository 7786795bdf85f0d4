"""What every part of the catalogue in Cassandra uses: declarations, records by path, keys of the merged tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from apbatch.formats.reader import Attribute
from apbatch.index.attributes import COMMON, merge_declarations
from apbatch.index.cassandra.revisions import Revisions
from apbatch.index.cassandra.rows import attribute_names, column_type, is_indexed, split, to_record
from apbatch.index.cassandra.session import ALL, CassandraSession
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord
from apbatch.index.records import is_text

#: Records of a block of writes.
BATCH = 500
_NAMES_A_READ = 50
_Item = TypeVar("_Item")


def blocks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield items in lists of at most `size`."""
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        yield block


class CassandraBase(Catalogue):
    """Declarations and records; see `CassandraSession` for the URL."""

    def __init__(self, url: str) -> None:
        self._session = CassandraSession(url)
        self._revisions = Revisions(self._session)
        self._declared: dict[str, Attribute] = {}

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    # attributes

    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make attributes known; each gets an indexed column in file_by_night before it can be named."""
        fresh = merge_declarations(self.attributes(), attributes).values()
        columns = [f'"{a.name}" {kind}' for a in fresh if (kind := column_type(a))]
        if columns:
            self._session.change_schema(f"ALTER TABLE file_by_night ADD IF NOT EXISTS ({', '.join(columns)})")
        for attribute in fresh:
            if is_indexed(attribute):
                self._session.make_index(f"file_attribute_{attribute.name}", "file_by_night", attribute.name)
        for a in fresh:
            self._session.do(
                "INSERT INTO attribute (catalogue, name, type, unit, description) VALUES (?, ?, ?, ?, ?)",
                ALL,
                a.name,
                a.type,
                a.unit,
                a.description,
            )

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query may name."""
        rows = self._session.run("SELECT * FROM attribute WHERE catalogue = ?", ALL)
        declared = {row["name"]: Attribute(row["name"], row["type"], row["description"], row["unit"]) for row in rows}
        self._declared = {**COMMON, **declared}
        return self._declared

    def _types_of(self, rows: Collection[dict[str, Any]]) -> dict[str, Attribute]:
        """Return declarations, all that rows have among them; they are asked for anew only where one is missing.

        A name that is declared keeps its type for ever.
        """
        if all(name in self._declared for row in rows for name in attribute_names(row)):
            return self._declared
        return self.attributes()

    # records

    def get(self, path: str) -> FileRecord | None:
        """Return one file, or None."""
        if not is_text(path):
            return None
        rows = self._session.do("SELECT * FROM file_by_directory WHERE parent = ? AND name = ?", *split(path))
        if not rows or rows[0]["site"] is None:
            return None
        return to_record(rows[0], self._types_of(rows))

    def get_many(self, paths: Iterable[str]) -> dict[str, FileRecord]:
        """Return files by path."""
        records: dict[str, FileRecord] = {}
        for part in blocks(self._look_up((path for path in paths if is_text(path)), "*"), BATCH):
            declared = self._types_of(part)
            records.update((row["path"], to_record(row, declared)) for row in part)
        return records

    def _look_up(self, paths: Iterable[str], columns: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of files by path, in no order; `columns` has `site`, which a removed file's row lacks."""
        for part in blocks(paths, 1000):
            for row in self._by_key("file_by_directory", columns, part):
                if row["site"] is not None:
                    yield row

    def _by_key(self, table: str, columns: str, paths: Collection[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table whose folder and name are those of paths; names in one folder asked together."""
        statement = self._session.prepare(f"SELECT {columns} FROM {table} WHERE parent = ? AND name IN ?")
        folders: defaultdict[str, list[str]] = defaultdict(list)
        for parent, name in map(split, dict.fromkeys(paths)):
            folders[parent].append(name)
        reads = [
            (statement, (parent, names[start : start + _NAMES_A_READ]))
            for parent, names in folders.items()
            for start in range(0, len(names), _NAMES_A_READ)
        ]
        for rows in self._session.concurrently(reads):
            yield from rows

    # the merged tree

    def _holders(self, places: Collection[str]) -> dict[str, list[str]]:
        """Return the paths of the files that want places, by place."""
        holders: dict[str, list[str]] = {}
        for row in self._by_key("holding", "parent, name, path", places):
            holders.setdefault(joined(row["parent"], row["name"]), []).append(row["path"])
        return holders

    def _folders_of_tree(self, paths: Collection[str]) -> set[str]:
        """Return which paths are folders of the merged tree."""
        return {joined(row["parent"], row["name"]) for row in self._by_key("tree_directory", "parent, name", paths)}


def joined(parent: str, name: str) -> str:
    """Return the path of a name in a folder, as `split` takes it apart."""
    return f"/{name}" if parent == "/" else f"{parent}/{name}"
