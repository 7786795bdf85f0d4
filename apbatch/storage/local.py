"""A folder of this machine as a store."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, ClassVar, TypeVar

from apbatch.errors import ApbatchError, NotFoundError, ServerError, UsageError
from apbatch.storage import names
from apbatch.storage.hashing import READ_BYTES, Hasher, hash_stream
from apbatch.storage.publishing import Draft, PublishingStore
from apbatch.storage.store import Checksums, FileInfo, RefusedError

Result = TypeVar("Result")

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "the quota is used up",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "the file system is mounted read-only",
}


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn errors of the operating system into the project's, with the place."""
    try:
        yield
    except OSError as error:
        raise _translation(error, where) from error


def _translation(error: OSError, where: str) -> ApbatchError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFoundError("no such file or folder", where=where)
    if isinstance(error, IsADirectoryError):
        return UsageError("this is a folder, not a file", where=where)
    reason = os.strerror(error.errno) if error.errno else str(error)
    refused = RefusedError if error.errno in _REMEDIES else ServerError
    return refused(reason, where=where, remedy=_REMEDIES.get(error.errno or 0))


class LocalStore(PublishingStore):
    """Files under a folder of a disk of this machine.

    The disk's own checks are trusted: after fsync the size is compared. With `read_back` the content is read
    again and compared as well (from the page cache, mostly, so it tells more about memory than about the disk).
    """

    kind: ClassVar[str] = "local"

    def __init__(self, url: str, root: Path, read_back: bool = False) -> None:
        super().__init__(url)
        self.root = root
        self._folder = str(root).rstrip("/")
        self._read_back = read_back

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.url, self.root, self._read_back)

    def _call(self, where: str, call: Callable[..., Result], *arguments: Any) -> Result:
        """Run one call of the operating system."""
        try:
            return call(*arguments)
        except OSError as error:
            raise _translation(error, where) from error

    def _file(self, path: str) -> str:
        # A `Path` of each part and each name would take a sixth of the time for a small file.
        return f"{self._folder}/{path}" if path else self._folder or "/"

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading, seekable.

        Raises
        ------
        NotFoundError, UsageError, ServerError
        """
        return self._open(names.clean_path(path))

    def _open(self, path: str) -> BinaryIO:
        file: io.BufferedReader = self._call(self.url_of(path), io.open, self._file(path), "rb")
        return file

    def _info(self, path: str) -> FileInfo | None:
        try:
            status: os.stat_result = self._call(self.url_of(path), os.stat, self._file(path))
        except NotFoundError:
            return None
        return FileInfo(path, status.st_size, stat.S_ISDIR(status.st_mode), status.st_mtime_ns)

    def resolved(self, path: str) -> str:
        """Return the absolute path behind all links.

        Raises
        ------
        ServerError
        """
        real: str = self._call(self.url_of(path), os.path.realpath, self._file(path))
        return real

    def _all_entries(self, folder: str) -> list[FileInfo]:
        return self._call(self.url_of(folder), self._scan, folder)

    def _scan(self, folder: str) -> list[FileInfo]:
        infos = []
        with os.scandir(self._file(folder)) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    status = entry.stat()
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ELOOP):
                        raise
                    continue  # went while we looked, or a link to nowhere or to itself
                is_folder = stat.S_ISDIR(status.st_mode)
                if is_folder or stat.S_ISREG(status.st_mode):  # who opens a pipe may wait for ever
                    infos.append(FileInfo(path, status.st_size, is_folder, status.st_mtime_ns))
        return infos

    def _hash(self, path: str) -> Checksums:
        with self._open(path) as file, translated(self.url_of(path)):
            return hash_stream(file)

    def _remove_all(self, path: str) -> None:
        file = Path(self._file(path))
        if self._call(self.url_of(path), lambda: file.is_dir() and not file.is_symlink()):
            self._call(self.url_of(path), shutil.rmtree, file)
        else:
            self._delete(path)

    def _make_folder(self, folder: str) -> None:
        file = Path(self._file(folder))
        try:
            self._call(self.url_of(folder), lambda: file.mkdir(parents=True, exist_ok=True))
        except NotFoundError as error:  # a file stands in the way
            raise UsageError("a file stands where a folder is needed", where=self.url_of(folder)) from error
        except ServerError as error:
            if isinstance(error.__cause__, FileExistsError):
                raise UsageError("a file stands where a folder is needed", where=self.url_of(folder)) from error
            raise

    def _create(self, part: str) -> LocalDraft:
        return LocalDraft(self, self.url_of(part), self._file(part))

    def _append(self, part: str) -> tuple[Draft, Hasher] | None:
        draft = LocalDraft(self, self.url_of(part), self._file(part), "r+b")
        return draft, draft.taken_up()

    def _verify(self, part: str, draft: Draft, written: Checksums) -> None:
        self._compare_size(part, written)
        if self._read_back:
            self._compare_content(part, written)

    def _rename(self, part: str, path: str) -> None:
        self._call(self.url_of(path), os.replace, self._file(part), self._file(path))

    def settle(self, paths: Iterable[str]) -> None:
        """Force the names of published files to the disk: else a power cut may bring the old ones back.

        Raises
        ------
        ServerError
        """
        for folder in dict.fromkeys(names.split(names.clean_path(path))[0] for path in paths):
            self._call(self.url_of(folder), _force, self._file(folder))

    def _delete(self, path: str) -> None:
        file = Path(self._file(path))
        self._call(self.url_of(path), lambda: file.unlink(missing_ok=True))


def _force(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LocalDraft(Draft):
    """A file of the operating system, being written."""

    def __init__(self, store: LocalStore, where: str, file: str, mode: str = "xb") -> None:
        self._store, self._where = store, where
        self._file: IO[bytes] = store._call(where, io.open, file, mode, 0)

    def taken_up(self) -> Hasher:
        """Read what is there, and return its checksums; what is written comes after it."""
        hasher = Hasher()
        while block := self._store._call(self._where, self._file.read, READ_BYTES):
            hasher.update(block)
        return hasher

    def write(self, block: bytes | memoryview) -> None:
        """Append a block."""
        self._store._call(self._where, self._write, block)

    def _write(self, block: bytes | memoryview) -> None:
        view = memoryview(block)
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Force the bytes to the disk and close."""
        self._store._call(self._where, os.fsync, self._file.fileno())
        self._store._call(self._where, self._file.close)

    def abandon(self) -> None:
        """Close without more."""
        self._store._call(self._where, self._file.close)
