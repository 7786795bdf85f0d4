"""A whole file into a store: streamed once, hashed, compared, tried anew as a whole if a server fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import BinaryIO

from apbatch.errors import ApbatchError, ServerError, VerificationError
from apbatch.storage.hashing import READ_BYTES
from apbatch.storage.store import Checksums, RefusedError, Store

#: Pauses before the attempts after the first. A DataNode that died is still offered by the NameNode for a while (30 s
#: by default), and the same clients would run into it again.
_PAUSES_S = (2.0, 8.0, 20.0)


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
            return _once(source, store, path, expected, stop)
        except RefusedError:
            raise
        except VerificationError:
            if attempt >= 1 or attempt + 1 >= attempts or stop():
                raise  # twice the wrong bytes: this is no accident
        except ServerError:
            if attempt + 1 >= attempts or stop():
                raise
            _pause(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)], stop)
    raise ValueError("at least one attempt is needed")


def _pause(seconds: float, stop: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop():
        time.sleep(0.1)


def _once(
    source: Callable[[], BinaryIO], store: Store, path: str, expected: Checksums | None, stop: Callable[[], bool]
) -> Checksums:
    with source() as stream, store.publish(path) as publication:
        size = 0
        while block := stream.read(READ_BYTES):
            if stop():
                raise InterruptedTransferError("told to stop", where=path)
            size += len(block)
            if expected is not None and size > expected.size:
                raise SourceChangedError(f"the source has grown beyond its {expected.size} registered bytes")
            publication.write(block)
        found = publication.so_far()
        if expected is not None and found != expected:
            raise SourceChangedError(
                f"the source has BLAKE3 {found.blake3[:16]}… and {found.size} bytes, "
                f"registered were {expected.blake3[:16]}… and {expected.size} bytes"
            )
    return publication.checksums
