"""Which content holds which piece: an index beside the repository, SHA-1 → content, offset, length, and its paths.

Rows are added before a publication names them and never removed: clients on an older revision still ask for them. What
a row says may be out of date; whoever serves a piece compares its SHA-1 before sending.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apbatch.access.exports.cvmfs.catalogs import chunks_of
from apbatch.access.exports.cvmfs.tree import Nested
from apbatch.errors import ApbatchError, ServerError, UsageError

#: Name of the index in the export's own folder.
INDEX = "pieces.sqlite"
_VERSION = 1
_PATIENCE_S = 60.0
#: Pieces that are taken in before they are kept.
_PENDING = 1_000_000
#: Places that are tried for one piece: a piece of zeros may be in a million files.
_MOST_PLACES = 32
_TABLES = f"""
CREATE TABLE piece (sha1 BLOB, content BLOB, offset INTEGER, length INTEGER, PRIMARY KEY (sha1, content, offset))
  WITHOUT ROWID;
CREATE TABLE place (content BLOB, path TEXT, PRIMARY KEY (content, path)) WITHOUT ROWID;
CREATE TABLE catalog (fingerprint BLOB PRIMARY KEY, hash TEXT, size INTEGER, counters TEXT) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""


@dataclass(frozen=True, slots=True)
class Piece:
    """Where the bytes of an object are.

    Attributes
    ----------
    path : str
        Of a file in the merged tree.
    checksum : str
        BLAKE3 that the file must have, hexadecimal.
    offset, length : int
        Bytes.
    """

    path: str
    checksum: str
    offset: int
    length: int


class PieceIndex:
    """The index of one export; one object a thread.

    Parameters
    ----------
    folder : pathlib.Path
        The export's own folder; the index is made if it is not there.

    Raises
    ------
    UsageError
        If it was written by another version of this program.
    ServerError
        If it can't be used.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / INDEX
        self._places: list[tuple[bytes, str]] = []
        self._pieces: list[tuple[bytes, bytes, int, int]] = []
        self._catalogs: list[tuple[bytes, str, int, str]] = []
        with self._explained():
            self._connection = sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")  # a publisher that is killed leaves nothing that a server has to mend
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA cache_size = -65536")
        (version,) = run("PRAGMA user_version").fetchone()
        if version == 0:
            run("BEGIN IMMEDIATE")
            (version,) = run("PRAGMA user_version").fetchone()  # another process may be first
            if version == 0:
                for statement in _TABLES.split(";"):
                    run(statement)
            run("COMMIT")
        elif version != _VERSION:
            raise UsageError(
                f"the index of pieces has version {version}, this program writes {_VERSION}",
                where=str(self.path),
                remedy="use the apbatch that wrote it, or export to another folder",
            )

    def add(
        self,
        files: Iterable[tuple[str, str, int]],
        piece: int,
        digests: Mapping[str, bytes],
        fingerprint: bytes | None,
        catalog: Nested,
    ) -> None:
        """Take in the pieces of the files of a catalog, and the catalog itself; `flush` keeps them.

        Parameters
        ----------
        files : iterable of (str, str, int)
            Path in the merged tree, BLAKE3 of the content and size.
        piece : int
            Length of the pieces, bytes.
        digests : Mapping
            SHA-1 of the pieces, concatenated, by BLAKE3 of the content.
        fingerprint : bytes, optional
            Of what the catalog was made from; without it, the catalog is not kept.
        catalog : Nested
        """
        sizes: dict[str, int] = {}
        for path, checksum, size in files:
            sizes[checksum] = size
            self._places.append((bytes.fromhex(checksum), path))
        for checksum, size in sizes.items():
            content = bytes.fromhex(checksum)
            self._pieces += [
                (sha1, content, offset, length) for offset, length, sha1 in chunks_of(size, piece, digests[checksum])
            ]
        if fingerprint is not None:
            self._catalogs.append((fingerprint, catalog.hash, catalog.size, json.dumps(catalog.counters)))
        if len(self._pieces) > _PENDING:
            self.flush()

    def flush(self) -> None:
        """Keep what was taken in, in one transaction; sorted, so that each page of the index is written once."""
        if not (self._places or self._catalogs):
            return
        with self._explained():
            run = self._connection
            run.execute("BEGIN IMMEDIATE")
            try:
                run.executemany("INSERT OR IGNORE INTO place VALUES (?, ?)", sorted(self._places))
                run.executemany("INSERT OR IGNORE INTO piece VALUES (?, ?, ?, ?)", sorted(self._pieces))
                run.executemany("INSERT OR REPLACE INTO catalog VALUES (?, ?, ?, ?)", self._catalogs)
                run.execute("COMMIT")
            except BaseException:
                run.execute("ROLLBACK")
                raise
        self._places, self._pieces, self._catalogs = [], [], []

    def catalog(self, fingerprint: bytes) -> Nested | None:
        """Return the catalog that was made from what has this fingerprint."""
        with self._explained():
            row = self._connection.execute(
                "SELECT hash, size, counters FROM catalog WHERE fingerprint = ?", (fingerprint,)
            ).fetchone()
        return Nested(row[0], row[1], json.loads(row[2])) if row else None

    def pieces(self, sha1: str) -> list[Piece]:
        """Return where a piece is, some of the places at most.

        Parameters
        ----------
        sha1 : str
            Of the piece, hexadecimal.
        """
        with self._explained():
            rows = self._connection.execute(
                "SELECT place.path, piece.content, piece.offset, piece.length FROM piece JOIN place USING (content) "
                "WHERE piece.sha1 = ? LIMIT ?",
                (bytes.fromhex(sha1), _MOST_PLACES),
            ).fetchall()
        return [Piece(path, content.hex(), offset, length) for path, content, offset, length in rows]

    def close(self) -> None:
        """Release the connection."""
        self._connection.close()

    def __enter__(self) -> PieceIndex:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _explained(error, self.path) from error


def _explained(error: sqlite3.Error, path: Path) -> ApbatchError:
    if "malformed" in str(error) or "not a database" in str(error):
        return ServerError(
            f"the index of pieces is damaged ({error})",
            where=str(path),
            remedy="move it away and export again: everything in it is made anew",
        )
    return ServerError(f"the index of pieces can't be used: {error}", where=str(path))
