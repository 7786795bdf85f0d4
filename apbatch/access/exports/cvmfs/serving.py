"""Serving a repository: pieces are cut out of files where they lie, everything else comes from its folder.

Every answer has a URL of its own and is whole (200), so that any cache keeps it. Nothing of a file that changed since
it was registered is sent: blocks and the piece are compared with their hashes before the first byte leaves.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from apbatch.access.exports.cvmfs.objects import object_path
from apbatch.access.exports.cvmfs.pieces import Piece, PieceIndex
from apbatch.access.exports.cvmfs.repository import OWN
from apbatch.access.exports.cvmfs.signing import MANIFEST, WHITELIST
from apbatch.access.guard import Guard
from apbatch.access.reader import Reader
from apbatch.errors import ApbatchError, NotFoundError
from apbatch.progress import say

_OBJECT = re.compile(r"([0-9a-f]{2})/([0-9a-f]{38})([CXP]?)")
_LASTING = {"Cache-Control": "public, max-age=31536000, immutable", "Content-Type": "application/octet-stream"}
#: Manifest and whitelist: added to the TTL behind a cache.
_SHORT = {"Cache-Control": "public, max-age=15", "Content-Type": "application/x-cvmfs"}
#: What is not here now may come with the next publication.
_GONE = {"Cache-Control": "no-store"}
#: Pieces that are read at the same time; each is held whole.
_AT_ONCE = 8
_EMPTY = hashlib.sha1(usedforsecurity=False).hexdigest()


class Pieces:
    """Gives the pieces of a repository to whoever may read them. Threads may share it.

    Parameters
    ----------
    folder : pathlib.Path
        Root of the repository.
    guard : Guard
        Of whoever asks.
    reader : Reader
        Of the same guard.
    """

    def __init__(self, folder: Path, guard: Guard, reader: Reader) -> None:
        self._folder, self._guard, self._reader = folder, guard, reader
        self._local = threading.local()

    def find(self, sha1: str) -> Piece | None:
        """Return where a piece is among the files that may be read and have, as far as is known, its content."""
        for piece in self._index().pieces(sha1):
            try:
                records = self._guard.readable(piece.path)
            except NotFoundError:
                continue  # removed, moved, or no longer for whoever asks
            if any(record.checksum == piece.checksum for record in records):
                return piece
        return None

    def bytes_of(self, sha1: str) -> bytes | None:
        """Return a piece, compared with its SHA-1; None if no file that may be read has it any longer."""
        for piece in self._index().pieces(sha1):
            try:
                with self._reader.open(piece.path) as file:
                    if file.record.checksum != piece.checksum:
                        continue
                    content = file.read(piece.offset, piece.length)
            except (ApbatchError, OSError):
                continue  # the reader reports what is wrong at a source
            if hashlib.sha1(content, usedforsecurity=False).hexdigest() == sha1:
                return content
            say(f"{piece.path}: piece {sha1} has other bytes; apbatch ingest {file.record.site} --again")
        return None

    def _index(self) -> PieceIndex:
        if not hasattr(self._local, "index"):
            self._local.index = PieceIndex(self._folder / OWN)
        index: PieceIndex = self._local.index
        return index


class RepositoryRoutes:
    """Routes of one repository, to be mounted where its URL is.

    Parameters
    ----------
    folder : pathlib.Path
        Root of the repository.
    pieces : Pieces
    """

    def __init__(self, folder: Path, pieces: Pieces) -> None:
        self._folder, self._pieces = folder, pieces
        self._limit = anyio.Semaphore(_AT_ONCE)
        self.routes = [
            Route(f"/{MANIFEST}", self._document),
            Route(f"/{WHITELIST}", self._document),
            Route("/data/{object:path}", self._object),
        ]

    async def _document(self, request: Request) -> Response:
        content = await _stored(self._folder / request.url.path.rpartition("/")[2])
        return Response(status_code=404, headers=_GONE) if content is None else Response(content, headers=_SHORT)

    async def _object(self, request: Request) -> Response:
        match = _OBJECT.fullmatch(request.path_params["object"])
        if match is None:
            return Response(status_code=404, headers=_GONE)
        hash, suffix = match[1] + match[2], match[3]
        headers = {**_LASTING, "ETag": f'"{hash}"'}
        if suffix not in ("", "P") or hash == _EMPTY:
            content = await _stored(self._folder / object_path(hash, suffix))
        elif request.method == "HEAD" or request.headers.get("If-None-Match") == headers["ETag"]:
            piece = await anyio.to_thread.run_sync(self._pieces.find, hash)
            if piece is None:
                return Response(status_code=404, headers=_GONE)
            if request.method != "HEAD":
                return Response(status_code=304, headers=headers)
            return Response(headers={**headers, "Content-Length": str(piece.length)})
        else:
            async with self._limit:
                content = await anyio.to_thread.run_sync(self._pieces.bytes_of, hash)
        return Response(status_code=404, headers=_GONE) if content is None else Response(content, headers=headers)


def application(repositories: Mapping[str, tuple[Path, Pieces]]) -> Starlette:
    """Return a web application with each repository at ``/cvmfs/NAME``.

    Parameters
    ----------
    repositories : Mapping
        Root folder and pieces by name.
    """
    mounts = (
        Mount(f"/cvmfs/{name}", routes=RepositoryRoutes(folder, pieces).routes)
        for name, (folder, pieces) in repositories.items()
    )
    return Starlette(routes=list(mounts))


async def _stored(path: Path) -> bytes | None:
    try:
        return await anyio.Path(path).read_bytes()
    except FileNotFoundError:
        return None
