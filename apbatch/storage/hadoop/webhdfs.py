"""HDFS over HTTP, for programs outside the cluster.

The way there may be slow, so a file is not fetched back to verify it: the DataNodes are asked for the checksum of
what they have stored, and the same checksum is computed here while writing. A file with another kind of checksum is
read back instead.
"""

from __future__ import annotations

import getpass
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeVar, cast

from apbatch.errors import ApbatchError, MissingSoftwareError, NotFoundError, ServerError, UsageError, VerificationError
from apbatch.storage import names
from apbatch.storage.hadoop.crc import FileChecksum, stored_checksum
from apbatch.storage.hadoop.errors import hadoop_error, start_remedy
from apbatch.storage.hadoop.store import HadoopStore
from apbatch.storage.hadoop.web import web_block_hosts
from apbatch.storage.hashing import READ_BYTES, hash_stream
from apbatch.storage.publishing import Draft
from apbatch.storage.range_stream import SizedStream
from apbatch.storage.store import Checksums, FileInfo

if TYPE_CHECKING:
    import hdfs

Result = TypeVar("Result")

_CONNECT_S = 5.0
_QUEUED_BLOCKS = 4
_HADOOP_BLOCK_SIZE = 128 << 20


@contextmanager
def translated(where: str, authority: str, root: str = "") -> Iterator[None]:
    """Turn errors of the client and of HTTP into the project's, with the place.

    Parameters
    ----------
    where : str
        URL of the file.
    authority : str
        Host and port of the server, for the remedy.
    root : str
        Path of the store's root in HDFS.

    Raises
    ------
    NotFoundError, UsageError, RefusedError, StoreRefusedError, ServerError
    """
    import requests
    import urllib3
    from hdfs.util import HdfsError

    try:
        yield
    except HdfsError as error:
        message = error.message.splitlines()[0] if error.message else "no message"
        if "is not a file" in message or "is a directory" in message:
            raise UsageError("this is a folder, not a file", where=where) from error
        raise hadoop_error(error.exception or "", message, where, root) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise ServerError(
            f"WebHDFS can't be reached or does not answer ({type(error).__name__})",
            where=where,
            remedy=start_remedy(authority),
        ) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise ServerError(f"the connection broke: {error}", where=where) from error


class WebHdfsStore(HadoopStore):
    """Files under a folder of HDFS, ``webhdfs://HOST:PORT/FOLDER`` with the port of the NameNode's pages."""

    kind: ClassVar[str] = "webhdfs"

    _block_size: int | None = None

    def _new_client(self) -> hdfs.Client:
        try:
            from apbatch.storage.hadoop.webhdfs_client import ExactClient
        except ImportError as error:
            raise MissingSoftwareError(
                "the package hdfs is not installed", where=self.url, remedy="pip install 'apbatch[hdfs]'"
            ) from error
        user = os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
        return ExactClient(f"http://{self._authority}", user=user, timeout=(_CONNECT_S, self._limit_s))

    def _call(self, path: str, call: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        with translated(self.url_of(path), self._authority, self._root):
            return call(*arguments, **options)

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading, seekable.

        Raises
        ------
        NotFoundError, UsageError, ServerError
        """
        return self._open(names.clean_path(path))

    def _open(self, path: str) -> BinaryIO:
        info = self._info(path)
        if info is None:
            raise NotFoundError("no such file or folder", where=self.url_of(path))
        if info.is_directory:
            raise UsageError("this is a folder, not a file", where=self.url_of(path))
        return cast(BinaryIO, io.BufferedReader(WebHdfsReader(self, path, info.size), 1 << 20))

    def _info(self, path: str) -> FileInfo | None:
        try:  # the client's `strict=False` takes every refusal for a file that is not there
            status = self._call(path, self._client().status, self._path(path))
        except NotFoundError:
            return None
        return _file_info(path, status)

    def _all_entries(self, folder: str) -> list[FileInfo]:
        info = self._info(folder)
        if info is not None and not info.is_directory:
            raise NotFoundError("this is a file, not a folder", where=self.url_of(folder))
        listing = self._call(folder, self._client().list, self._path(folder), status=True)
        above = f"{folder}/" if folder else ""
        return [_file_info(above + names.unescape(name), status) for name, status in listing]

    def _hash(self, path: str) -> Checksums:
        with self._open(path) as stream:
            return hash_stream(stream)

    def _remove_all(self, path: str) -> None:
        self._call(path, self._client().delete, self._path(path), recursive=True)

    def _delete(self, path: str) -> None:
        self._call(path, self._client().delete, self._path(path))

    def _make_folder(self, folder: str) -> None:
        self._call(folder, self._client().makedirs, self._path(folder))

    def default_block_size(self) -> int:
        """Return the size of HDFS blocks that the NameNode recommends, asked for once."""
        if self._block_size is None:
            import requests

            with translated(self.url, self._authority, self._root):
                answer = requests.get(
                    f"http://{self._authority}/webhdfs/v1/",
                    params={"op": "GETSERVERDEFAULTS"},
                    timeout=(_CONNECT_S, self._limit_s),
                )
            content = answer.json() if answer.ok else {}
            self._block_size = int(content.get("FsServerDefaults", {}).get("blockSize", _HADOOP_BLOCK_SIZE))
        return self._block_size

    def _create(self, part: str) -> WebHdfsDraft:
        return WebHdfsDraft(self, part, self.default_block_size())

    def _verify(self, part: str, draft: Draft, written: Checksums) -> None:
        self._compare_size(part, written)
        if not written.size:
            return
        stored, computed = self.stored_checksum(part), cast(WebHdfsDraft, draft).checksum()
        if stored is None:
            self._compare_content(part, written)
        elif stored != computed:
            raise VerificationError(
                f"the DataNodes stored MD5-of-MD5-of-CRC32C {stored}, written {computed}", where=self.url_of(part)
            )

    def stored_checksum(self, path: str) -> str | None:
        """Return the DataNodes' checksum of a file, as `FileChecksum` computes it; None if it is of another kind.

        Raises
        ------
        NotFoundError, ServerError
        """
        return stored_checksum(self._call(path, self._client().checksum, self._path(path)))

    def _rename(self, part: str, path: str) -> None:
        # The client's own `rename` can't replace a file; the operation can.
        self._call(
            path,
            self._client()._rename,
            self._path(part),
            destination=self._path(path),
            renameoptions="OVERWRITE",
        )

    def block_hosts(self, path: str) -> list[list[str]]:
        """Return the hosts of each block of a file, for locality."""
        return web_block_hosts(self._authority, self._path(names.clean_path(path)), self._limit_s)


def _file_info(path: str, status: dict[str, Any]) -> FileInfo:
    return FileInfo(path, status["length"], status["type"] == "DIRECTORY", status["modificationTime"] * 1_000_000)


class WebHdfsReader(SizedStream):
    """A raw stream over HTTP: one request for a run of bytes, a new one after a seek."""

    def __init__(self, store: WebHdfsStore, path: str, size: int) -> None:
        super().__init__(size)
        self._store, self._path = store, path
        self._context: Any = None
        self._stream: Any = None
        self._stream_at = -1

    def readinto(self, buffer: Any) -> int:  # noqa: D102
        count = max(0, min(len(buffer), READ_BYTES, self._size - self._position))
        if not count:
            return 0
        block = self._store._call(self._path, self._read, count)
        if not block:
            raise ServerError(
                f"the connection ended at byte {self._position} of {self._size}", where=self._store.url_of(self._path)
            )
        buffer[: len(block)] = block
        self._position += len(block)
        self._stream_at = self._position
        return len(block)

    def _read(self, count: int) -> bytes:
        if self._stream is None or self._stream_at != self._position:
            self._end_stream()
            store = self._store
            self._context = store._client().read(store._path(self._path), offset=self._position)
            self._stream = self._context.__enter__()
        block: bytes = self._stream.read(count)
        return block

    def _end_stream(self) -> None:
        context, self._context, self._stream = self._context, None, None
        if context is not None:
            with suppress(Exception):
                context.__exit__(None, None, None)

    def close(self) -> None:  # noqa: D102
        self._end_stream()
        super().close()


class WebHdfsDraft(Draft):
    """A file in HDFS, being written: a thread sends the blocks that are put into a short queue.

    (The client's own writer of this kind has a queue without bounds: a slow network would fill the memory.)
    """

    def __init__(self, store: WebHdfsStore, part: str, block_size: int) -> None:
        self._store, self._part = store, part
        self._checksum = FileChecksum(block_size)
        self._blocks: Queue[bytes | None] = Queue(_QUEUED_BLOCKS)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._send, args=(block_size,), daemon=True, name="webhdfs-write")
        self._thread.start()

    def _send(self, block_size: int) -> None:
        store = self._store
        try:
            store._client().write(store._path(self._part), data=self._chunks(), overwrite=True, blocksize=block_size)
        except BaseException as error:
            self._error = error

    def _chunks(self) -> Iterator[bytes]:
        while (block := self._blocks.get()) is not None:
            yield block

    def _put(self, block: bytes | None) -> None:
        waited_s = 0.0
        while waited_s < self._store._limit_s and self._thread.is_alive():
            try:
                self._blocks.put(block, timeout=0.5)
                return
            except Full:
                waited_s += 0.5
        self._fail()

    def _fail(self) -> None:
        where = self._store.url_of(self._part)
        if isinstance(self._error, ApbatchError):
            raise self._error
        if self._error is not None:
            with translated(where, self._store._authority, self._store._root):
                raise self._error
        raise ServerError("WebHDFS takes no more data", where=where)

    def write(self, block: bytes | memoryview) -> None:
        """Append a block."""
        data = bytes(block)
        if data:
            self._put(data)
            self._checksum.update(data)

    def close(self) -> None:
        """Wait until the DataNode has confirmed the whole file."""
        self._put(None)
        self._thread.join(self._store._limit_s)
        if self._thread.is_alive() or self._error is not None:
            self._fail()

    def abandon(self) -> None:
        """End the request early and wait for it: the part is closed, and so can be deleted for good.

        A request that is broken off may be carried out by the DataNode later, after the part was deleted.
        """
        with suppress(Empty):
            while True:
                self._blocks.get_nowait()
        with suppress(Full):
            self._blocks.put_nowait(None)
        self._thread.join(min(10.0, self._store._limit_s))

    def checksum(self) -> str:
        """Return what HDFS's checksum of the closed file must be."""
        return self._checksum.hexdigest()
