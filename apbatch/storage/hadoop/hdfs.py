"""HDFS through hdfs-native (no JVM), for programs in the cluster.

The client checks the DataNodes' checksums while it reads, but offers none for a whole file; so what was written is
read back and its BLAKE3 compared. Of a file of more than one block of bytes that would cost a third of the writing:
there the NameNode's web interface, if its address is known, is asked for the checksum of what the DataNodes have
stored, and the file is read back only if that is not what was written. The client waits for ever for a NameNode that
is down, and its panics are no `Exception`: every call goes through a time limit and one translation of errors.
"""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NoReturn, TypeVar, cast

from apbatch.errors import ApbatchError, MissingSoftwareError, NotFoundError, ServerError, UsageError
from apbatch.storage import names
from apbatch.storage.deadline import Heart, nothing, watched
from apbatch.storage.hadoop.crc import FileChecksum
from apbatch.storage.hadoop.errors import hadoop_error, start_remedy
from apbatch.storage.hadoop.store import HadoopStore
from apbatch.storage.hadoop.web import web_address, web_block_hosts
from apbatch.storage.hadoop.webhdfs import WebHdfsStore
from apbatch.storage.hashing import READ_BYTES, Hasher, hash_blocks
from apbatch.storage.publishing import Draft
from apbatch.storage.range_stream import SizedStream
from apbatch.storage.store import Checksums, FileInfo

if TYPE_CHECKING:
    import hdfs_native

Result = TypeVar("Result")

_CONNECT_S = 5.0
_SHORT_READ_PAUSE_S = 0.02
#: A node that died is named for new blocks until the NameNode misses it: 5 s in `apbatch cluster`, 30 s by default.
_NODE_LOST_S = 40.0
_NODE_LOST = re.compile(r"\(os error \d+\)")
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.2, 3.0
#: How much of a file is kept to be written again.
_KEPT_BYTES = 32 << 20
_JAVA_ERROR = re.compile(r'RPCError\("(?:[\w$]+\.)*([\w$]+)", "(.*)', re.DOTALL)


def raise_translated(error: BaseException, where: str, root: str = "") -> NoReturn:
    """Raise the project's error for one of hdfs-native's.

    Parameters
    ----------
    error : BaseException
        Of hdfs-native; a panic of its Rust side is no Exception.
    where : str
        URL of the file.
    root : str
        Path of the store's root in HDFS, which tells a refusal of one file from one of the whole store.

    Raises
    ------
    NotFoundError, UsageError, RefusedError, StoreRefusedError, ServerError
    """
    text = str(error)
    if isinstance(error, FileNotFoundError):
        if "is not a file" in text:
            raise UsageError("this is a folder, not a file", where=where) from error
        raise NotFoundError("no such file or folder", where=where) from error
    if isinstance(error, FileExistsError):
        raise UsageError("a file or folder stands in the way", where=where) from error
    java = _JAVA_ERROR.search(text)
    if java:
        message = re.split(r"\\n|\n", java[2])[0].replace('\\"', '"')
        raise hadoop_error(java[1], message, where, root) from error
    raise ServerError(
        f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}", where=where
    ) from error


@contextmanager
def translated(where: str, root: str = "") -> Iterator[None]:
    """Turn whatever hdfs-native raises into the project's errors, with the place."""
    try:
        yield
    except (ApbatchError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a panic of the Rust side is no `Exception`
        raise_translated(error, where, root)


class HdfsStore(HadoopStore):
    """Files under a folder of HDFS, ``hdfs://HOST:PORT/FOLDER``."""

    kind: ClassVar[str] = "hdfs"

    _web_of: tuple[WebHdfsStore | None] | None = None

    def _new_client(self) -> hdfs_native.Client:
        try:
            import hdfs_native
        except ImportError as error:
            raise MissingSoftwareError(
                "hdfs-native is not installed", where=self.url, remedy="pip install 'apbatch[hdfs]'"
            ) from error
        self._reach()
        with translated(self.url):
            return hdfs_native.Client(f"hdfs://{self._authority}")

    def _reach(self) -> None:
        """Fail at once if nobody listens: the client itself would only wait."""
        host, _, port = self._authority.partition(":")
        if not port:  # the name of a service in the Hadoop configuration
            return
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        except (OSError, ValueError) as error:
            raise ServerError(
                f"the NameNode can't be reached: {error}", where=self.url, remedy=start_remedy(self._authority)
            ) from error

    def _call(
        self, path: str, call: Callable[..., Result], *arguments: Any, meanwhile: Callable[[], object] = nothing
    ) -> Result:
        where = self.url_of(path)
        with translated(where, self._root):
            try:
                return watched(lambda _: call(*arguments), self._limit_s, where, meanwhile)
            except ServerError:
                self._client_of = None  # out of time: look first whether the server is there before the next call
                raise

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading, seekable.

        Raises
        ------
        NotFoundError, UsageError, ServerError
        """
        path = names.clean_path(path)
        return cast(BinaryIO, io.BufferedReader(HdfsReader(self, path, self._reader(path)), 1 << 20))

    def _reader(self, path: str) -> hdfs_native.FileReader:
        """Open a file for reading, whole.

        Where the NameNode lets a file close before its last block is reported, the client leaves that block out for
        some milliseconds: about one small file in a hundred read as empty when it was read just after it was written.
        """
        deadline = time.monotonic() + self._limit_s
        while True:
            reader = self._call(path, self._client().read, self._path(path))
            size = self._call(path, self._client().get_file_info, self._path(path)).length
            if len(reader) >= size:
                return reader
            if time.monotonic() > deadline:
                raise ServerError(
                    f"only {len(reader)} of {size} bytes can be read: blocks are missing", where=self.url_of(path)
                )
            time.sleep(_SHORT_READ_PAUSE_S)

    def _info(self, path: str) -> FileInfo | None:
        try:
            status = self._call(path, self._client().get_file_info, self._path(path))
        except NotFoundError:
            return None
        return FileInfo(path, status.length, status.isdir, status.modification_time * 1_000_000)

    def _all_entries(self, folder: str) -> list[FileInfo]:
        client = self._client()
        here = self._path(folder)
        listing = self._call(folder, lambda: list(client.list_status(here)))
        if len(listing) == 1 and listing[0].path == here and not listing[0].isdir:
            raise NotFoundError("this is a file, not a folder", where=self.url_of(folder))
        above = f"{folder}/" if folder else ""
        return [
            FileInfo(
                above + names.unescape(status.path.rsplit("/", 1)[1]),
                status.length,
                status.isdir,
                status.modification_time * 1_000_000,
            )
            for status in listing
        ]

    def _hash(self, path: str) -> Checksums:
        where = self.url_of(path)
        reader = self._reader(path)

        def read_through(heart: Heart) -> Checksums:

            def blocks() -> Iterator[bytes]:
                for block in reader.read_range_stream(0, len(reader)):
                    heart.beat()
                    yield block

            return hash_blocks(blocks())

        with translated(where):
            return watched(read_through, self._limit_s, where)

    def _remove_all(self, path: str) -> None:
        self._remove(path, recursive=True)

    def _remove(self, path: str, recursive: bool) -> None:
        try:
            self._call(path, self._client().delete, self._path(path), recursive)
        except NotFoundError:
            return

    def _make_folder(self, folder: str) -> None:
        self._call(folder, self._client().mkdirs, self._path(folder), 0o755, True)

    def _create(self, part: str) -> HdfsDraft:
        return HdfsDraft(self, part)

    def _finish(self, draft: Draft, written: Checksums, part: str, path: str) -> None:
        # Of a small file these are all its calls but one: to hand each to another thread takes longer than the call.
        finish = super()._finish
        try:
            watched(lambda _: finish(draft, written, part, path), self._limit_s, self.url_of(path))
        except ServerError:
            self._client_of = None
            raise

    def _append(self, part: str) -> tuple[Draft, Hasher] | None:
        """Close what the earlier writer left, which fences it, hash that, and open it again."""
        deadline = time.monotonic() + self._limit_s
        while not self._call(part, self._client().recover_lease, self._path(part)):
            if time.monotonic() > deadline:
                return None
            time.sleep(_FIRST_PAUSE_S)
        hasher = Hasher()
        with io.BufferedReader(HdfsReader(self, part, self._reader(part)), 1 << 20) as stream:
            while block := stream.read(READ_BYTES):
                hasher.update(block)
        return HdfsDraft(self, part, self._call(part, self._client().append, self._path(part))), hasher

    def _verify(self, part: str, draft: Draft, written: Checksums) -> None:
        computed = cast(HdfsDraft, draft).checksum()
        if computed is not None and computed == self._stored_checksum(part, written.size):
            return
        if self._short_content(part, written) != written:
            self._compare_content(part, written)

    def _stored_checksum(self, part: str, size: int) -> str | None:
        """Return the DataNodes' checksum of a file of that size; None where it can't be had."""
        web = self._web()
        try:
            info = web._info(part) if web is not None else None
            return web.stored_checksum(part) if web is not None and info is not None and info.size == size else None
        except ApbatchError:
            self._web_of = (None,)
            return None

    def known_block_size(self) -> int:
        """Return the size of HDFS blocks of new files, if the NameNode's web interface is there to say it; else 0."""
        web = self._web()
        try:
            return web.default_block_size() if web is not None else 0
        except ApbatchError:
            self._web_of = (None,)
            return 0

    def _web(self) -> WebHdfsStore | None:
        """Return this store by way of the NameNode's web interface; None where that has no known address."""
        if self._web_of is None:
            web = web_address(self._authority)
            self._web_of = (WebHdfsStore(f"webhdfs://{web}{self._root}", self._limit_s) if web else None,)
        return self._web_of[0]

    def _short_content(self, part: str, written: Checksums) -> Checksums | None:
        """Read a file of one block of bytes in one call; None if it is longer, or not all there for the moment."""
        if written.size > READ_BYTES:
            return None

        def read() -> Checksums | None:
            reader = self._client().read(self._path(part))
            size = len(reader)
            return hash_blocks([reader.read_range(0, size)] if size else []) if size == written.size else None

        return self._call(part, read)

    def _rename(self, part: str, path: str) -> None:
        self._call(path, self._client().rename, self._path(part), self._path(path), True)

    def _delete(self, path: str) -> None:
        self._remove(path, recursive=False)

    def block_hosts(self, path: str) -> list[list[str]]:
        """Return the hosts of each block of a file, for locality.

        hdfs-native does not tell them; they come over WebHDFS of the same NameNode. Empty where its address is not
        known.
        """
        web = web_address(self._authority)
        return web_block_hosts(web, self._path(names.clean_path(path)), self._limit_s) if web else []


class HdfsReader(SizedStream):
    """A raw stream over hdfs-native's reader, each of whose calls has a time limit."""

    def __init__(self, store: HdfsStore, path: str, reader: hdfs_native.FileReader) -> None:
        super().__init__(len(reader))
        self._store, self._path, self._reader = store, path, reader

    def readinto(self, buffer: Any) -> int:  # noqa: D102
        # Reading past the end would be a panic.
        count = max(0, min(len(buffer), READ_BYTES, self._size - self._position))
        if count:
            buffer[:count] = self._store._call(self._path, self._reader.read_range, self._position, count)
            self._position += count
        return count

    def readall(self) -> bytes:
        """Read to the end, in the client's quickest way."""
        start, self._position = min(self._position, self._size), self._size
        if start == self._size:
            return b""

        def read(heart: Heart) -> bytes:
            blocks = []
            for block in self._reader.read_range_stream(start, self._size - start):
                heart.beat()
                blocks.append(block)
            return b"".join(blocks)

        where = self._store.url_of(self._path)
        with translated(where):
            return watched(read, self._store._limit_s, where)


class HdfsDraft(Draft):
    """A file in HDFS, being written.

    A file of one block of bytes is kept until it is closed, and then made, written and completed in one call. Of a
    longer one the checksum that the DataNodes will have is taken while its blocks are on their way.

    The client goes on when a DataNode is lost in the middle of a block, but not when it can't open a new block: for
    some seconds after a node died, the NameNode still names it. So the first bytes of a file are kept, and written
    again to a new file.

    Parameters
    ----------
    store : HdfsStore
    part : str
        Path of the file.
    writer : hdfs_native.FileWriter, optional
        Of a file that is there and gone on with.
    """

    def __init__(self, store: HdfsStore, part: str, writer: hdfs_native.FileWriter | None = None) -> None:
        self._store, self._part, self._writer = store, part, writer
        self._kept: list[bytes] | None = [] if writer is None else None
        self._size, self._block_size = 0, 0
        self._sums: FileChecksum | None = None

    def write(self, block: bytes | memoryview) -> None:
        """Append a block."""
        content = bytes(block)
        self._size += len(content)
        if self._kept is not None:
            self._kept.append(content)
        if self._writer is not None:
            self._append(self._writer, content)
        elif self._size > min(READ_BYTES, _KEPT_BYTES):
            self._begin()
        if self._size > _KEPT_BYTES:
            self._kept = None

    def _begin(self) -> None:
        self._block_size = self._store.known_block_size()
        if self._block_size:
            self._sums = FileChecksum(self._block_size)
            for block in self._kept or ():
                self._sums.update(block)
        try:
            self._store._call(self._part, self._write_kept)
        except ServerError as error:
            self._write_again(error, complete=False)

    def _append(self, writer: hdfs_native.FileWriter, content: bytes) -> None:
        sums = self._sums
        take = nothing if sums is None else lambda: sums.update(content)
        try:
            self._store._call(self._part, writer.write, content, meanwhile=take)
        except ServerError as error:
            self._write_again(error, complete=False)

    def close(self) -> None:
        """Send the rest and complete the file at the NameNode."""
        try:
            self._store._call(self._part, self._complete_kept if self._writer is None else self._writer.close)
        except ServerError as error:
            self._write_again(error, complete=True)

    def _write_kept(self) -> hdfs_native.FileWriter:
        """Make the file anew and write what is kept; one of that name, which this process began, is replaced."""
        import hdfs_native

        options = hdfs_native.WriteOptions(overwrite=True, block_size=self._block_size or None)
        writer = self._writer = self._store._client().create(self._store._path(self._part), options)
        for block in self._kept or ():
            writer.write(block)
        return writer

    def _complete_kept(self) -> None:
        self._write_kept().close()

    def _write_again(self, error: ServerError, *, complete: bool) -> None:
        deadline, pause = time.monotonic() + _NODE_LOST_S, _FIRST_PAUSE_S
        while True:
            if self._kept is None or not _NODE_LOST.search(error.what) or time.monotonic() > deadline:
                raise error
            time.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE_S)
            try:
                self._store._call(self._part, self._complete_kept if complete else self._write_kept)
                return
            except ServerError as again:
                error = again

    def checksum(self) -> str | None:
        """Return what HDFS's checksum of the closed file must be; None if it was not taken."""
        return self._sums.hexdigest() if self._sums is not None else None

    def abandon(self) -> None:
        """Nothing: dropping the writer completes the part, and the part is deleted."""
