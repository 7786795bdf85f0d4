"""Catalogs of CernVM-FS: one SQLite database for a folder and all below it that has no catalog of its own.

Schema 2.5, revision 7, as `cvmfs/catalog_sql.cc` of the CernVM-FS client (https://github.com/cvmfs/cvmfs) reads it.
The same folder yields the same bytes, so that an unchanged one keeps its object in every cache.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from apbatch.access.exports.cvmfs.selection import Reason
from apbatch.access.exports.cvmfs.tree import File, Folder, Nested, same_catalog

#: Bits of ``catalog.flags``.
DIRECTORY, MOUNTPOINT, REGULAR, NESTED_ROOT, CHUNKED, UNCOMPRESSED = 1, 2, 4, 32, 64, 2048
#: Counters of ``statistics``, each once as ``self_`` and once as ``subtree_``; all must be there.
COUNTERS = (
    "regular", "symlink", "special", "dir", "nested", "chunked", "chunks", "file_size", "chunked_size", "xattr",
    "external", "external_file_size",
)  # fmt: skip
#: Name of the empty file in the root of each nested catalog.
MARKER = b".cvmfscatalog"
_SHA1 = 20
_NOTHING = hashlib.sha1(usedforsecurity=False).digest()
_FILE_MODE, _FOLDER_MODE = 0o100444, 0o040555
#: What is usual for the size of a folder.
_FOLDER_SIZE = 4096
_TABLES = """
CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, hardlinks INTEGER,
  hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER, name TEXT, symlink TEXT,
  uid INTEGER, gid INTEGER, xattr BLOB, CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,
  CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size));
CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_nested_catalogs PRIMARY KEY (path));
CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));
CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter));
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
"""
#: Without it each listing reads the whole table; made last, which is quicker.
_INDEX = "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)"


@dataclass(frozen=True, slots=True)
class Catalog:
    """A catalog.

    Attributes
    ----------
    content : bytes
        The database.
    counters : dict of str to int
        Its own and those of all catalogs below.
    """

    content: bytes
    counters: dict[str, int]


def path_hash(path: bytes) -> tuple[int, int]:
    """Return the key of a path: the two halves of its MD5 as signed little-endian integers."""
    first, second = struct.unpack("<qq", hashlib.md5(path, usedforsecurity=False).digest())
    return first, second


class CatalogBuilder:
    """Builds the catalog of one folder.

    Parameters
    ----------
    piece : int
        Length of the pieces, bytes.
    digests : Mapping
        SHA-1 of the pieces, concatenated, by BLAKE3 of the content.
    refuse : callable
        Called with the path in the merged tree and the reason for each file that can't be in the catalog.
    """

    def __init__(self, piece: int, digests: Mapping[str, bytes], refuse: Callable[[str, Reason], None]) -> None:
        self._piece, self._digests, self._refuse = piece, digests, refuse
        self._rows: list[tuple[Any, ...]] = []
        self._chunks: list[tuple[Any, ...]] = []
        self._nested: list[tuple[bytes, str, int]] = []
        self._own = dict.fromkeys(COUNTERS, 0)
        self._below = dict.fromkeys(COUNTERS, 0)

    def build(self, root: Folder, properties: Mapping[str, str]) -> Catalog:
        """Return the catalog of a folder.

        Parameters
        ----------
        root : Folder
            Of a nested catalog, if its path is not empty.
        properties : Mapping
            What only the root catalog says: ``revision``, ``last_modified``, ``TTL``; a nested one says nothing of
            the publication that it belongs to, so that it stays the same object.
        """
        self._add_tree(root)
        common = {"schema": "2.5", "schema_revision": "7"}
        if root.path:
            common |= {"revision": "0", "last_modified": str(root.newest_ns // 10**9)}
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
            database.executescript(f"PRAGMA journal_mode = OFF; BEGIN; {_TABLES}")
            marks = ", ".join("CAST(? AS TEXT)" if column in (11, 12) else "?" for column in range(16))
            database.executemany(f"INSERT INTO catalog VALUES ({marks})", self._rows)
            database.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", self._chunks)
            database.executemany("INSERT INTO nested_catalogs VALUES (CAST(? AS TEXT), ?, ?)", self._nested)
            for prefix, counters in (("self_", self._own), ("subtree_", self._below)):
                database.executemany(
                    "INSERT INTO statistics VALUES (?, ?)", [(prefix + key, value) for key, value in counters.items()]
                )
            database.executemany("INSERT INTO properties VALUES (?, ?)", (common | dict(properties)).items())
            if root.path:
                database.execute("INSERT INTO properties VALUES ('root_prefix', CAST(? AS TEXT))", (root.path,))
            database.execute(_INDEX)
            database.execute("COMMIT")
            content = database.serialize()
        return Catalog(content, {key: self._own[key] + self._below[key] for key in COUNTERS})

    def _add_tree(self, root: Folder) -> None:
        for folder in same_catalog(root):
            key = path_hash(folder.path)
            flags = DIRECTORY | (MOUNTPOINT if folder.catalog is not None else 0)
            if folder is root and root.path:
                flags |= NESTED_ROOT
            self._add_folder(folder, key, flags)
            if folder.catalog is not None:
                self._nest(folder, folder.catalog)
                continue
            names = {below.name for below in folder.folders}
            if flags & NESTED_ROOT:
                self._add_file(folder.path, key, File(MARKER, "", 0, folder.newest_ns, ""), _NOTHING)
                names.add(MARKER)
            self._add_files(folder, key, names)

    def _add_folder(self, folder: Folder, key: tuple[int, int], flags: int) -> None:
        parent = path_hash(folder.path.rpartition(b"/")[0]) if folder.path else (0, 0)
        seconds, rest = divmod(folder.newest_ns, 10**9)
        self._rows.append(
            (*key, *parent, 2 + folder.subfolders, None, _FOLDER_SIZE, _FOLDER_MODE, seconds, rest, flags, folder.name,
             b"", 0, 0, None)
        )  # fmt: skip
        self._own["dir"] += 1

    def _nest(self, folder: Folder, catalog: Nested) -> None:
        self._own["nested"] += 1
        self._nested.append((folder.path, catalog.hash, catalog.size))
        for counter in COUNTERS:
            self._below[counter] += catalog.counters[counter]

    def _add_files(self, folder: Folder, key: tuple[int, int], names: set[bytes]) -> None:
        for file in folder.files:
            if file.name in names:
                self._refuse(file.path, Reason.SAME_NAME)
                continue
            names.add(file.name)
            digests = self._digests.get(file.checksum) if file.size else _NOTHING
            if digests is None:
                self._refuse(file.path, Reason.NO_PIECES)
            elif len(digests) != _SHA1 * max(1, -(-file.size // self._piece)):
                self._refuse(file.path, Reason.OTHER_SIZE)
            else:
                self._add_file(folder.path, key, file, digests)

    def _add_file(self, folder: bytes, parent: tuple[int, int], file: File, digests: bytes) -> None:
        key = path_hash(folder + b"/" + file.name)
        seconds, rest = divmod(file.mtime_ns, 10**9)
        flags = REGULAR | UNCOMPRESSED
        own_hash: bytes | None = digests
        self._own["regular"] += 1
        self._own["file_size"] += file.size
        if len(digests) > _SHA1:
            flags, own_hash = flags | CHUNKED, None  # with a hash, the checker asks for the whole file as well
            chunks = [(*key, *chunk) for chunk in chunks_of(file.size, self._piece, digests)]
            self._chunks += chunks
            self._own["chunked"] += 1
            self._own["chunks"] += len(chunks)
            self._own["chunked_size"] += file.size
        self._rows.append(
            (*key, *parent, 1, own_hash, file.size, _FILE_MODE, seconds, rest, flags, file.name, b"", 0, 0, None)
        )


def chunks_of(size: int, piece: int, digests: bytes) -> Iterable[tuple[int, int, bytes]]:
    """Yield offset, length and SHA-1 of each piece of a file; an empty file has one piece without bytes.

    Parameters
    ----------
    size : int
        Bytes of the file.
    piece : int
        Bytes of a piece.
    digests : bytes
        SHA-1 (20 bytes) of each piece, one after the other.
    """
    for number in range(len(digests) // _SHA1):
        offset = number * piece
        yield offset, min(piece, size - offset), digests[number * _SHA1 : (number + 1) * _SHA1]
