"""Opens what a job reads: files in stores by their URL, and files that a catalogue's server gives, verified here."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import BinaryIO, cast

from apbatch.client.remote import RemoteTransport
from apbatch.client.served import place_at_server
from apbatch.errors import AccessError, ApbatchError, FileUnavailableError, ServerError, TooManyRequestsError
from apbatch.storage.backends import open_url, store_of
from apbatch.storage.store import RefusedError
from apbatch.storage.tokens import server_token

#: Faults of a service, but what concerns the one file that was asked for.
_OF_SERVICE, _OF_FILE = (ServerError, AccessError, TooManyRequestsError), (RefusedError, FileUnavailableError)


def open_input(url: str) -> BinaryIO:
    """Open a file for reading, seekable.

    Raises
    ------
    UsageError, NotFoundError, ServerError
    """
    place = place_at_server(url)
    if place is None:
        return open_url(url)
    server, path = place
    return cast(BinaryIO, _server(server, server_token(), os.getpid()).open(path))


def size_and_time(url: str) -> tuple[int, int]:
    """Return the bytes of a file and its time of change (ns); zeros if nothing is there.

    Raises
    ------
    UsageError, ServerError
    """
    place = place_at_server(url)
    if place is not None:
        entry = _server(place[0], server_token(), os.getpid()).entry(place[1])
        return (0, 0) if entry is None else (entry.size, entry.mtime_ns)
    store, path = store_of(url)
    info = store.info(path)
    return (0, 0) if info is None else (info.size, info.mtime_ns or 0)


def fails_for_all(error: ApbatchError) -> bool:
    """Tell whether an error is no fault of the file that was read: its store is away, or the token is not valid."""
    return isinstance(error, _OF_SERVICE) and not isinstance(error, _OF_FILE)


@lru_cache(maxsize=16)
def _server(url: str, token: str, process: int) -> RemoteTransport:
    """Return the connection of this process, for this token: connections are no heritage."""
    return RemoteTransport(url, token, patient=True)
