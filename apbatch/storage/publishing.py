"""Publication, the same for every back-end: write beside, hash on the way, close, verify, rename into place."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from apbatch.errors import ApbatchError, NotFoundError, UsageError, VerificationError
from apbatch.storage import names
from apbatch.storage.hashing import READ_BYTES, Hasher
from apbatch.storage.store import Checksums, FileInfo, Publication, RefusedError, Store


class Draft(ABC):
    """A file open for writing in one back-end, under the name of a part."""

    @abstractmethod
    def write(self, block: bytes | memoryview) -> None:
        """Append a block of at most `READ_BYTES` bytes."""

    @abstractmethod
    def close(self) -> None:
        """Finish; every byte is with the server."""

    @abstractmethod
    def abandon(self) -> None:
        """Release the connection without finishing, whatever state it is in."""


#: Less than this is not worth another look.
_WORTH_BYTES = 32 << 20
#: Blocks of at least so many bytes are hashed while they are written; for less, a thread costs more than it saves.
_HASHED_BESIDE = 1 << 20


class _DraftPublication(Publication):
    def __init__(self, draft: Draft, hasher: Hasher | None = None) -> None:
        self._draft = draft
        self._hasher = hasher or Hasher()
        self._pool: ThreadPoolExecutor | None = None
        self._hashed: Future[None] | None = None

    def write(self, block: bytes | memoryview, *, stays: bool = False) -> None:
        view = memoryview(block).cast("B")
        for start in range(0, len(view), READ_BYTES):
            piece = view[start : start + READ_BYTES]
            self._wait()
            if len(piece) < _HASHED_BESIDE:
                self._draft.write(piece)
                self._hasher.update(piece)
                continue
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash")
            self._hashed = self._pool.submit(self._hasher.update, piece)
            try:
                self._draft.write(piece)
            finally:
                if not stays:
                    self._wait()

    def _wait(self) -> None:
        """Wait until all that was written is hashed."""
        hashed, self._hashed = self._hashed, None
        if hashed is not None:
            hashed.result()

    def so_far(self) -> Checksums:
        self._wait()
        return self._hasher.result()

    def end(self) -> None:
        """End the thread that hashes."""
        if self._pool is not None:
            self._pool.shutdown()


class PublishingStore(Store):
    """A store whose `publish` is made of a few steps that each back-end supplies."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._swept: set[str] = set()

    @abstractmethod
    def _make_folder(self, folder: str) -> None:
        """Make a folder and its parents; no error if it is there."""

    @abstractmethod
    def _create(self, part: str) -> Draft:
        """Open a new file for writing."""

    def _append(self, part: str) -> tuple[Draft, Hasher] | None:
        """Open a part that is there for going on, and hash what it holds; None where that can't be."""
        return None

    @abstractmethod
    def _verify(self, part: str, draft: Draft, written: Checksums) -> None:
        """Compare what the closed file holds with what was written, as far as this back-end needs it.

        Raises
        ------
        VerificationError
        """

    @abstractmethod
    def _rename(self, part: str, path: str) -> None:
        """Move a file to another name in the same folder in one step, replacing a file there."""

    @abstractmethod
    def _delete(self, path: str) -> None:
        """Delete one file; nothing there is no error."""

    @abstractmethod
    def _remove_all(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing there is no error."""

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing there is no error.

        Raises
        ------
        UsageError
            For the root of the store.
        ServerError
        """
        path = names.clean_path(path)
        if not path:
            raise UsageError("the root of a store can't be removed", where=self.url)
        self._remove_all(path)

    @abstractmethod
    def _all_entries(self, folder: str) -> list[FileInfo]:
        """Return the entries of a folder, files being written included."""

    def entries(self, path: str = "") -> Iterator[FileInfo]:
        """Yield the entries of a folder, names sorted; files being written are left out.

        Raises
        ------
        NotFoundError
            If there is no such folder.
        """
        entries = self._all_entries(names.clean_path(path))
        entries.sort(key=lambda entry: entry.path)
        return iter([entry for entry in entries if not names.is_part(names.split(entry.path)[1])])

    @contextmanager
    def publish(self, path: str, content: str = "", settled: bool = True) -> Iterator[Publication]:
        """Write a file so that it appears whole and verified, or not at all; replaces an older file.

        Parameters
        ----------
        path : str
        content : str
            BLAKE3 that the file will have: what an earlier writer of the same left is then taken up.
        settled : bool
            Whether the name must outlast a power cut when this ends.

        Raises
        ------
        VerificationError
            If what was read back after close is not what was written.
        ServerError
        """
        path = names.clean_path(path)
        folder, name = names.split(path)
        if not name:
            raise UsageError("a file needs a name", where=self.url)
        self._prepare(folder)
        part_name = names.new_part(name, content)
        part = f"{folder}/{part_name}" if folder else part_name
        draft: Draft | None = None
        publication: _DraftPublication | None = None
        try:
            resumption = self._take_up(folder, name, content, part) if content else None
            draft, hasher = resumption or (self._created(folder, part), None)
            publication = _DraftPublication(draft, hasher)
            yield publication
            written = publication.so_far()
            self._finish(draft, written, part, path)
            if settled:
                self.settle([path])
            publication.checksums = written
        except BaseException as error:
            # The first error counts; what can't be cleaned up now is swept by the next writer in this folder.
            with suppress(Exception):
                if draft is not None:
                    draft.abandon()
            final = not content or isinstance(error, VerificationError | RefusedError)
            if final or publication is None or publication.spoiled or publication.so_far().size < _WORTH_BYTES:
                with suppress(Exception):
                    self._delete(part)
            raise
        finally:
            names.end_part(part_name)
            if publication is not None:
                publication.end()

    def _finish(self, draft: Draft, written: Checksums, part: str, path: str) -> None:
        """Close what was written, verify it, and give it its name."""
        draft.close()
        self._verify(part, draft, written)
        self._rename(part, path)

    def _prepare(self, folder: str) -> None:
        """Make a folder and remove what killed writers left in it, once for each folder: it is not free."""
        if folder not in self._swept:
            self._make_folder(folder)
            self._sweep(folder)
            self._swept.add(folder)

    def _created(self, folder: str, part: str) -> Draft:
        try:
            return self._create(part)
        except NotFoundError:  # somebody removed the folder
            self._make_folder(folder)
            return self._create(part)

    def _take_up(self, folder: str, name: str, content: str, part: str) -> tuple[Draft, Hasher] | None:
        """Make the largest part that an earlier writer of the same content left this writer's own, and open it."""
        now = time.time()
        parts = [
            entry
            for entry in self._entries_there(folder)
            if not entry.is_directory
            and names.is_begun(old := names.split(entry.path)[1], name, content)
            and names.is_left_behind(old, now - (entry.mtime_ns or 0) / 1e9)
        ]
        for entry in sorted(parts, key=lambda entry: -entry.size):
            try:
                self._rename(entry.path, part)  # of several that try, one has it
                return self._append(part)
            except ApbatchError:
                continue
        return None

    def rename(self, path: str, to: str) -> None:
        """Give a file, or a folder with all in it, another name in the same folder, in one step.

        Raises
        ------
        NotFoundError, UsageError, ServerError
        """
        path, to = names.clean_path(path), names.clean_path(to)
        if not path or not to or names.split(path)[0] != names.split(to)[0]:
            raise UsageError(f"'{path}' can't be moved to '{to}': only the name may change", where=self.url)
        self._rename(path, to)
        self.settle([to])

    def _entries_there(self, folder: str) -> list[FileInfo]:
        """Return the entries of a folder that was made a moment ago; none if somebody removed it since."""
        try:
            return self._all_entries(folder)
        except NotFoundError:
            return []

    def _sweep(self, folder: str) -> None:
        """Remove what killed writers left in a folder."""
        now = time.time()
        for entry in self._entries_there(folder):
            age_s = now - (entry.mtime_ns or 0) / 1e9
            if not entry.is_directory and names.is_waste(names.split(entry.path)[1], age_s):
                with suppress(ApbatchError):
                    self._delete(entry.path)

    def _compare_size(self, part: str, written: Checksums) -> None:
        info = self._info(part)
        size = None if info is None else info.size
        if size != written.size:
            raise VerificationError(
                f"{written.size} bytes were written but {size if size is not None else 'no'} bytes are there",
                where=self.url_of(part),
                remedy="is the store full or over its quota?",
            )

    def _compare_content(self, part: str, written: Checksums) -> None:
        hashes = self._hash(part)
        if hashes != written:
            raise VerificationError(
                f"read back BLAKE3 {hashes.blake3[:16]}… of {hashes.size} bytes, "
                f"written {written.blake3[:16]}… of {written.size} bytes",
                where=self.url_of(part),
            )

    @abstractmethod
    def _info(self, path: str) -> FileInfo | None:
        """`info` for any path, parts included."""

    @abstractmethod
    def _hash(self, path: str) -> Checksums:
        """`checksums` for any path, parts included."""

    def info(self, path: str) -> FileInfo | None:
        """Return what is known of `path`, or None if nothing is there."""
        return self._info(names.clean_path(path))

    def checksums(self, path: str) -> Checksums:
        """Read a file through and return its checksums.

        Raises
        ------
        NotFoundError, ServerError
        """
        return self._hash(names.clean_path(path))
