"""Publishing: the tree is read, changed catalogs are written, and last of all the manifest names the new root.

Killed at any moment, the revision before is whole: objects have names of their own and are never changed, rows of the
index are only added, and the manifest is replaced in one step. What was written already is not written again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import blake3

from apbatch.access.exports.cvmfs.catalogs import Catalog, CatalogBuilder
from apbatch.access.exports.cvmfs.objects import Objects
from apbatch.access.exports.cvmfs.pieces import PieceIndex
from apbatch.access.exports.cvmfs.repository import Repository
from apbatch.access.exports.cvmfs.selection import REMEDIES, Reason, Tree, files_of
from apbatch.access.exports.cvmfs.signing import Keyring, Manifest
from apbatch.access.exports.cvmfs.tree import CRUMB, FULL, Cutter, Folder, Nested, same_catalog
from apbatch.errors import VerificationError
from apbatch.index.contents import LARGE_PIECE, SMALL_PIECE

#: Length of a piece by the name that a user gives it.
PIECES = {"2MiB": SMALL_PIECE, "24MiB": LARGE_PIECE}
#: A client looks for a new revision after so many seconds.
TTL_S = 240
_EXAMPLES = 5
#: Changes when catalogs of the same files get other bytes.
_LAYOUT = b"1"


@dataclass
class LeftOut:
    """Files that are not in the repository for one reason.

    Attributes
    ----------
    reason : str
    remedy : str
    files : int
    examples : list of str
        Some of their paths in the merged tree.
    """

    reason: str
    remedy: str
    files: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Publication:
    """What a publication did.

    Attributes
    ----------
    name : str
        Of the repository.
    revision : int
        That clients get now.
    is_new : bool
        Whether this publication made it; nothing had changed otherwise.
    files, folders, bytes : int
        In the repository.
    catalogs, catalogs_written : int
        All, and those that were written now.
    left_out : list of LeftOut
    whitelist_expires : datetime.datetime
        UTC. After it no client takes the repository, unless it was renewed.
    public_key : pathlib.Path
        What clients need.
    """

    name: str
    revision: int
    is_new: bool
    files: int
    folders: int
    bytes: int
    catalogs: int
    catalogs_written: int
    left_out: list[LeftOut]
    whitelist_expires: datetime
    public_key: Path


def publish(
    tree: Tree,
    selection: str,
    repository: Repository,
    *,
    piece: int = SMALL_PIECE,
    ttl_s: int = TTL_S,
    new_key: bool = False,
    full: int = FULL,
    crumb: int = CRUMB,
) -> Publication:
    """Publish a folder of the merged tree, or what matches a query; no content is read.

    Parameters
    ----------
    tree : Tree
        The guard of whoever the repository is for: everybody who reaches its server reads what is in it.
    selection : str
        A folder, which begins with ``/``, or a query.
    repository : Repository
    piece : int
        Length of the pieces, `SMALL_PIECE` or `LARGE_PIECE`, bytes.
    ttl_s : int
        After so many seconds clients look for a newer revision.
    new_key : bool
        Sign with a new repository key from now on.
    full, crumb : int
        When a folder gets a catalog of its own; see `apbatch.access.exports.cvmfs.tree`.

    Raises
    ------
    NotFoundError, UsageError
        If there is no such folder, the query is wrong, or another process publishes.
    """
    with repository.alone() as keyring, PieceIndex(repository.own) as index:
        if new_key:
            keyring.replace_key()
        objects = Objects(repository.folder, repository.own / "new")
        work = _Work(tree, objects, index, piece)
        cutter = Cutter(piece, work.write_nested, full=full, crumb=crumb)
        root = cutter.cut(files_of(tree, selection, work.refuse))
        objects.store_empty()
        certificate = objects.store(keyring.certificate(), "X")
        before = repository.manifest
        is_new = (
            before is None
            or (before.certificate, before.ttl_s) != (certificate, ttl_s)
            or not work.is_root_of(before, root)
        )
        if before is None or is_new:
            before = work.write_root(root, _next(repository, keyring, certificate, ttl_s))
        objects.flush()
        index.flush()
        expires = repository.sign_whitelist(keyring, now=datetime.now(UTC))
        if is_new:
            repository.sign_manifest(keyring, before)
        return work.publication(repository, before.revision, is_new, expires, keyring.public_key)


def _next(repository: Repository, keyring: Keyring, certificate: str, ttl_s: int) -> Manifest:
    """Return the manifest of the next revision, which knows its root catalog not yet."""
    revision, moment = keyring.noted()
    if repository.manifest is not None:
        revision, moment = max(revision, repository.manifest.revision), max(moment, repository.manifest.time)
    moment = max(moment, int(time.time()))  # a clock that went back must not stop clients
    return Manifest(repository.name, revision + 1, "", 0, certificate, ttl_s, moment)


class _Work:
    """Writes the catalogs of one publication and counts."""

    def __init__(self, tree: Tree, objects: Objects, index: PieceIndex, piece: int) -> None:
        self._tree, self._objects, self._index, self._piece = tree, objects, index, piece
        self._left_out: dict[Reason, LeftOut] = {}
        self._written = 0
        self._root: Catalog | None = None

    def refuse(self, path: str, reason: Reason) -> None:
        """Note a file that is left out."""
        left_out = self._left_out.setdefault(reason, LeftOut(reason.value, REMEDIES[reason]))
        left_out.files += 1
        if len(left_out.examples) < _EXAMPLES:
            left_out.examples.append(path)

    def write_nested(self, folder: Folder) -> Nested:
        """Store the catalog of a folder, unless the same one is there."""
        fingerprint = self._fingerprint(folder)
        catalog = self._index.catalog(fingerprint)
        if catalog is not None and self._objects.has(catalog.hash, "C"):
            return catalog
        refused: list[tuple[str, Reason]] = []
        built, digests = self._build(folder, {}, lambda path, reason: refused.append((path, reason)))
        nested = self._store(built)
        # A catalog that lacks files is made again next time: what it lacks may have come.
        self._keep(folder, digests, None if refused else fingerprint, nested)
        for path, reason in refused:
            self.refuse(path, reason)
        return nested

    def is_root_of(self, manifest: Manifest, root: Folder) -> bool:
        """Tell whether the root catalog of a revision is what would be written for it now."""
        built, _ = self._build_root(root, manifest)
        try:
            return self._objects.read(manifest.root, "C") == built.content
        except (FileNotFoundError, VerificationError):
            return False

    def write_root(self, root: Folder, manifest: Manifest) -> Manifest:
        """Store the root catalog of a revision; return the manifest that names it."""
        built, digests = self._build_root(root, manifest)
        stored = self._store(built)
        self._keep(root, digests, None, stored)
        return replace(manifest, root=stored.hash, root_size=stored.size)

    def _build_root(self, root: Folder, manifest: Manifest) -> tuple[Catalog, dict[str, bytes]]:
        properties = {
            "revision": str(manifest.revision),
            "last_modified": str(manifest.time),
            "TTL": str(manifest.ttl_s),
        }
        refuse = self.refuse if self._root is None else lambda path, reason: None
        self._root, digests = self._build(root, properties, refuse)
        return self._root, digests

    def publication(
        self, repository: Repository, revision: int, is_new: bool, expires: datetime, public_key: Path
    ) -> Publication:
        """Return what was done."""
        assert self._root is not None
        counters = self._root.counters
        catalogs = counters["nested"] + 1
        return Publication(
            repository.name, revision, is_new, counters["regular"] - counters["nested"],
            counters["dir"] - catalogs, counters["file_size"], catalogs, self._written,
            list(self._left_out.values()), expires, public_key,
        )  # fmt: skip

    def _build(
        self, folder: Folder, properties: dict[str, str], refuse: Callable[[str, Reason], None]
    ) -> tuple[Catalog, dict[str, bytes]]:
        checksums = {file.checksum for one in same_catalog(folder) for file in one.files if file.size}
        contents = self._tree.contents(sorted(checksums))
        small = self._piece == SMALL_PIECE
        digests = {key: one.small_pieces if small else one.large_pieces for key, one in contents.items()}
        return CatalogBuilder(self._piece, digests, refuse).build(folder, properties), digests

    def _store(self, catalog: Catalog) -> Nested:
        self._written += 1
        return Nested(self._objects.store(catalog.content, "C"), len(catalog.content), catalog.counters)

    def _keep(self, folder: Folder, digests: dict[str, bytes], fingerprint: bytes | None, catalog: Nested) -> None:
        files = (
            (file.path, file.checksum, file.size)
            for one in same_catalog(folder)
            for file in one.files
            if file.size and file.checksum in digests
        )
        self._index.add(files, self._piece, digests, fingerprint, catalog)

    def _fingerprint(self, folder: Folder) -> bytes:
        """Return the BLAKE3 of all that a catalog is made from."""
        hasher = blake3.blake3(repr((_LAYOUT, self._piece)).encode())
        for one in same_catalog(folder):
            below = one.catalog.hash if one.catalog is not None else [tuple(file) for file in one.files]
            hasher.update(repr((one.path, one.newest_ns, one.subfolders, below)).encode("utf-8", "surrogatepass"))
        return hasher.digest()
