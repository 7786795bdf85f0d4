"""A whole file into a store: streamed once, hashed, compared, tried anew as a whole if a server fails."""

from __future__ import annotations

import errno
import io
import os
import time
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from apbatch.errors import ApbatchError, ServerError, VerificationError
from apbatch.storage.hashing import READ_BYTES
from apbatch.storage.store import Checksums, RefusedError, Store

#: Pauses before the attempts after the first. A DataNode that died is still offered by the NameNode for a while (30 s
#: by default), and the same clients would run into it again.
_PAUSES_S = (2.0, 8.0, 20.0)
#: Files of at least so many bytes are gone on with after a break.
RESUMED_BYTES = 256 << 20
#: What a file system says that is busy or away for a moment, as network file systems of sites are.
_FOR_A_MOMENT = {
    errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT,
    errno.ECONNRESET, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH,
}  # fmt: skip


class SourceChangedError(ApbatchError):
    """The source is not the file that was registered any more."""


class InterruptedTransferError(ApbatchError):
    """The transfer was told to stop."""


def transfer(
    source: Callable[[], BinaryIO],
    store: Store,
    path: str,
    expected: Checksums | None = None,
    attempts: int = 1 + len(_PAUSES_S),
    stop: Callable[[], bool] = lambda: False,
    failed: Callable[[], None] = lambda: None,
    settled: bool = True,
) -> Checksums:
    """Copy a file into a store; return its checksums.

    Parameters
    ----------
    source : callable
        Opens the source; called once for each attempt.
    store : Store
    path : str
        Where in the store.
    expected : Checksums, optional
        What the source must be; compared before the copy becomes visible.
    attempts : int
        How often the whole file is tried when the store fails: HDFS clients can't get over the loss of a server in
        the middle of a file. A refusal is final.
    stop : callable
        Asked between blocks; if it says True, the copy is given up.
    failed : callable
        Called when the server failed an attempt.
    settled : bool
        Whether the copy must outlast a power cut when this ends; see `Store.publish`.

    Raises
    ------
    SourceChangedError
        If the source is not as expected. Nothing is published.
    ServerError, VerificationError
        From the last attempt.
    InterruptedTransferError
        If `stop` said so.
    """
    for attempt in range(attempts):
        try:
            return _once(source, store, path, expected, stop, settled)
        except RefusedError:
            raise
        except VerificationError:
            if attempt >= 1 or attempt + 1 >= attempts or stop():
                raise  # twice the wrong bytes: this is no accident
        except ServerError:
            failed()
            if attempt + 1 >= attempts or stop():
                raise
            _pause(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)] * _share(path), stop)
    raise ValueError("at least one attempt is needed")


def _share(path: str) -> float:
    """Return between 3/4 and 5/4, another for each file: those that failed together don't come back together."""
    return 0.75 + zlib.crc32(os.fsencode(path)) / 2**33


def _pause(seconds: float, stop: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop():
        time.sleep(0.1)


def _once(
    source: Callable[[], BinaryIO],
    store: Store,
    path: str,
    expected: Checksums | None,
    stop: Callable[[], bool],
    settled: bool,
) -> Checksums:
    content = expected.blake3 if expected is not None and expected.size >= RESUMED_BYTES else ""
    with _opened(source) as stream, store.publish(path, content, settled) as publication:
        offset = size = publication.so_far().size
        if offset:
            stream.seek(offset)
        for block in _blocks(stream, None if expected is None else expected.size - offset):
            if stop():
                raise InterruptedTransferError("told to stop", where=path)
            size += len(block)
            if expected is not None and size > expected.size:
                publication.spoiled = True
                raise SourceChangedError(f"the source has grown beyond its {expected.size} registered bytes")
            publication.write(block, stays=True)
        copied = publication.so_far()
        if expected is not None and copied != expected:
            publication.spoiled = True
            if offset:
                raise VerificationError(f"the first {offset} bytes, which were there, are not of this file", where=path)
            raise SourceChangedError(
                f"the source has BLAKE3 {copied.blake3[:16]}… and {copied.size} bytes, "
                f"registered were {expected.blake3[:16]}… and {expected.size} bytes"
            )
    return publication.checksums


def _opened(source: Callable[[], BinaryIO]) -> BinaryIO:
    try:
        return source()
    except OSError as error:
        raise _translated(error) from error


def _blocks(stream: BinaryIO, left: int | None) -> Iterator[bytes | memoryview]:
    """Yield what a stream has left, expected to be `left` bytes; a block is good until the one after the next.

    Room that is used again saves a large file the time in which new memory is made ready, while one core hashes and the
    other writes. A small one is asked for with one byte more, which tells that there is more.
    """
    try:
        if left is not None and left < READ_BYTES:
            left = max(0, left)
            while block := stream.read(left + 1):
                yield block
                left = max(0, left - len(block))
            return
        rooms = [memoryview(bytearray(READ_BYTES)) for _ in range(2)]
        while count := cast(io.BufferedIOBase, stream).readinto(rooms[0]):
            yield rooms[0][:count]
            rooms.reverse()
    except OSError as error:
        raise _translated(error) from error


def _translated(error: OSError) -> Exception:
    """Return the error of a server for what may be over at the next attempt; anything else as it is."""
    if error.errno not in _FOR_A_MOMENT:
        return error
    return ServerError(f"the source can't be read now: {os.strerror(error.errno)}")
