"""Objects of a repository: files under ``data/`` named by the SHA-1 of what is in them, written once, never changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from zlib_ng import zlib_ng

from apbatch.errors import VerificationError

#: ``C`` catalog, ``X`` certificate, ``P`` piece of a longer file; a whole file has none.
Suffix = Literal["C", "X", "P", ""]
_LEVEL = 6


def object_path(hash: str, suffix: str) -> str:
    """Return where an object lies below the root of the repository."""
    return f"data/{hash[:2]}/{hash[2:]}{suffix}"


class Objects:
    """The objects of one repository.

    Parameters
    ----------
    folder : pathlib.Path
        Root of the repository.
    partial : pathlib.Path
        Folder for what is being written, on the same file system; what a killed writer left in it is removed.
    """

    def __init__(self, folder: Path, partial: Path) -> None:
        self._folder, self._partial = folder, partial
        self._changed: set[Path] = set()
        partial.mkdir(parents=True, exist_ok=True)
        for left in partial.iterdir():
            left.unlink()

    def store(self, content: bytes, suffix: Literal["C", "X"]) -> str:
        """Compress and keep an object; return its hash: the SHA-1 of the compressed bytes."""
        return self._keep(zlib_ng.compress(content, _LEVEL), suffix)

    def store_empty(self) -> None:
        """Keep the content of empty files, which lies at no site."""
        self._keep(b"", "")

    def has(self, hash: str, suffix: Suffix) -> bool:
        """Tell whether an object is here."""
        return (self._folder / object_path(hash, suffix)).is_file()

    def read(self, hash: str, suffix: Literal["C", "X"]) -> bytes:
        """Return an object, uncompressed.

        Raises
        ------
        FileNotFoundError
            If it is not here.
        VerificationError
            If its bytes are not those of its name.
        """
        path = self._folder / object_path(hash, suffix)
        packed = path.read_bytes()
        if hashlib.sha1(packed, usedforsecurity=False).hexdigest() != hash:
            raise VerificationError("the object's bytes are not those of its name", where=str(path))
        return zlib_ng.decompress(packed)

    def flush(self) -> None:
        """Have all names on the disk: after it a manifest may name the objects, whatever happens to the machine."""
        for folder in sorted(self._changed):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._changed.clear()

    def _keep(self, packed: bytes, suffix: Suffix) -> str:
        hash = hashlib.sha1(packed, usedforsecurity=False).hexdigest()
        path = self._folder / object_path(hash, suffix)
        if path.is_file() and path.stat().st_size == len(packed):
            return hash
        partial = self._partial / f"{hash}{suffix}"
        with partial.open("wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(path)
        self._changed |= {path.parent, path.parent.parent}
        return hash
