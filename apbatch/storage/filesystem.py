"""Stores as file systems of fsspec: pandas, pyarrow, DuckDB, dask and tasks of Spark open their files by name."""

from __future__ import annotations

import errno
import io
import threading
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO, NoReturn

import fsspec

from apbatch.errors import AccessError, ApbatchError, NotFoundError, UsageError
from apbatch.storage.backends import open_readable
from apbatch.storage.store import FileInfo, ReadableStore


class ReadOnlyFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A file system of which fsspec only reads; paths begin with ``/``. What can't be had is an OSError."""

    root_marker = "/"

    @abstractmethod
    def _entry(self, path: str) -> dict[str, Any] | None:
        """Return name, size and type of what is at a path; None if nothing is."""

    @abstractmethod
    def _entries(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield name, size and type of all in a folder."""

    @abstractmethod
    def _stream(self, path: str) -> BinaryIO:
        """Open a file for reading, seekable."""

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped if isinstance(stripped, list) else f"/{stripped.lstrip('/')}"

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        if mode != "rb":
            self._refuse(path)
        with _os_errors(path):
            return SharedFile(self._stream(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size (bytes), type (``file`` or ``directory``) and mtime (s since 1970) of what is at a path."""
        path = self._strip_protocol(path)
        with _os_errors(path):
            entry = self._entry(path)
            if entry is None:
                raise NotFoundError("no such file or folder")
        return entry

    def exists(self, path: str, **_: Any) -> bool:
        """Tell whether something is at a path; a server that does not answer is an OSError."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return the entries of a folder, or the file itself: their `info`, or only their names."""
        path = self._strip_protocol(path)
        with _os_errors(path):
            info = self.info(path)
            entries = [info] if info["type"] == "file" else list(self._entries(path))
        return entries if detail else [entry["name"] for entry in entries]

    def modified(self, path: str) -> datetime:
        """Return when a file was last changed, UTC."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return a file's bytes from `start` to `end`; negative ones count from its end."""
        pieces: list[bytes] = self.cat_ranges([path], start, end, on_error="raise")
        return pieces[0]

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Sequence[int | None] | int | None,
        ends: Sequence[int | None] | int | None,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Return ranges of files; each file is opened once and read forwards.

        Parameters
        ----------
        paths : sequence of str
            A file for each range.
        starts, ends : sequence of int, int, optional
            Bytes, one for all or one for each range; negative ones count from the end.
        max_gap : int, optional
            Of no effect: blocks are kept, so that neighbouring ranges cost one transfer.
        on_error : str
            ``raise``, or ``return`` for the error in place of the bytes.

        Returns
        -------
        list of bytes
            In the order of `paths`.
        """
        count = len(paths)
        begins, stops = (list(one) if isinstance(one, Sequence) else [one] * count for one in (starts, ends))
        if not len(begins) == len(stops) == count:
            raise ValueError(f"{count} paths, {len(begins)} starts and {len(stops)} ends")
        ranges_by_path: dict[str, list[int]] = defaultdict(list)
        for number in sorted(range(count), key=lambda number: begins[number] or 0):
            ranges_by_path[self._strip_protocol(paths[number])].append(number)
        pieces: list[Any] = [b""] * count
        for path, numbers in ranges_by_path.items():
            try:
                with self._open(path) as stream:
                    size = stream.seek(0, 2)
                    for number in numbers:
                        start, stop, _step = slice(begins[number], stops[number]).indices(size)
                        stream.seek(start)
                        pieces[number] = stream.read(max(0, stop - start))
            except (OSError, ApbatchError) as error:
                if on_error == "raise":
                    raise
                for number in numbers:
                    pieces[number] = error
        return pieces

    def _refuse(self, path: str, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EROFS, "nothing can be written or removed through this file system", path)

    mkdir = makedirs = rmdir = touch = cp_file = rm_file = rm = mv = _refuse


class SharedFile(io.BufferedIOBase, BinaryIO):
    """A file that several threads may read by `seek` and `read`, as those of DuckDB do with one handle.

    A thread's `read` begins where this thread's own `seek` before it went, whatever others did in between; without a
    `seek`, where the last `read` of any thread ended.

    Parameters
    ----------
    stream : file
        Opened for reading, seekable; it is closed with this one.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock, self._own = stream, threading.RLock(), threading.local()
        self._position = self._stream_at = stream.tell()

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it has positions."""
        return True

    def tell(self) -> int:
        """Return where this thread's next `read` begins, bytes."""
        target: int | None = getattr(self._own, "target", None)
        return self._position if target is None else target

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Let this thread's next `read` begin elsewhere, bytes; return where that is."""
        with self._lock:
            if whence == io.SEEK_END:
                self._stream_at = self._stream.seek(offset, whence)
                self._own.target = self._stream_at
            else:
                target = offset + (self.tell() if whence == io.SEEK_CUR else 0)
                if target < 0:
                    raise ValueError(f"negative position {target}")
                self._own.target = target
            return self.tell()

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes, fewer only at the end of the file; all that are left if `size` is negative or None."""
        with self._at_position():
            return self._stream.read(-1 if size is None else size)

    def read1(self, size: int = -1) -> bytes:
        """Return what is at hand, at most so many bytes."""
        return self.read(io.DEFAULT_BUFFER_SIZE if size < 0 else size)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return how many bytes it got."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1) -> bytes:
        """Return bytes up to and with the next line end."""
        with self._at_position():
            return self._stream.readline(-1 if size is None else size)

    def close(self) -> None:
        """Close the file, for all threads."""
        with self._lock:
            if not self.closed:
                self._stream.close()
            super().close()

    @contextmanager
    def _at_position(self) -> Iterator[None]:
        with self._lock:
            position = self.tell()
            if position != self._stream_at:
                self._stream.seek(position)
            try:
                yield
            finally:
                self._position = self._stream_at = self._stream.tell()
                self._own.target = None


class StoreFileSystem(ReadOnlyFileSystem):
    """A store to be read, as ``apbatch-store://PATH`` with ``storage_options={"store": URL}``.

    Parameters
    ----------
    store : str or ReadableStore
        Such as ``hdfs://HOST:PORT/FOLDER``; paths are below it.
    **options : object
        Of fsspec.

    Raises
    ------
    UsageError
        If the URL is of no store.
    """

    protocol = "apbatch-store"

    def __init__(self, store: str | ReadableStore, **options: Any) -> None:
        super().__init__(**options)
        self._store = open_readable(store) if isinstance(store, str) else store

    def _entry(self, path: str) -> dict[str, Any] | None:
        info = self._store.info(path.lstrip("/"))
        return None if info is None else _described(info)

    def _entries(self, path: str) -> Iterator[dict[str, Any]]:
        yield from map(_described, self._store.entries(path.lstrip("/")))

    def _stream(self, path: str) -> BinaryIO:
        return self._store.open(path.lstrip("/"))


def _described(info: FileInfo) -> dict[str, Any]:
    kind = "directory" if info.is_directory else "file"
    return {
        "name": f"/{info.path}",
        "size": 0 if info.is_directory else info.size,
        "type": kind,
        "mtime": (info.mtime_ns or 0) / 1e9,
    }


@contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """Turn the project's errors into those of the operating system, which users of a file system expect."""
    try:
        yield
    except NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, error.what, path) from error
    except AccessError as error:
        raise PermissionError(errno.EACCES, str(error), path) from error
    except UsageError as error:
        raise OSError(errno.EINVAL, str(error), path) from error
    except ApbatchError as error:
        raise OSError(errno.EIO, str(error), path) from error
