"""An archive's server, of which nothing is believed: answers have limits of size and time, waits an end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from apbatch.errors import FormatError, MissingSoftwareError, NotFoundError, ServerError, UsageError
from apbatch.ingest.harvest.answers import Answer, Record, read_answer

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

#: Bytes of an answer, unpacked; seconds for it; seconds of silence; tries; longest wait that a server may ask for.
_LARGEST, _LIMIT_S, _SILENCE_S, _TRIES, _WAIT_S = 256 << 20, 600.0, 60.0, 4, 120.0
_PIECE = 1 << 16
_BUSY = (429, 502, 503, 504)
_AGAIN = "run the same command again: it goes on where it stopped"


class Archive:
    """A server that speaks OAI-PMH 2.0.

    Parameters
    ----------
    url : str
        Its base URL.
    sleep : callable
        Waits so many seconds.
    """

    def __init__(self, url: str, sleep: Callable[[float], None] = time.sleep) -> None:
        try:
            import urllib3
        except ImportError as error:
            raise MissingSoftwareError("urllib3 is missing", remedy="pip install 'apbatch[api]'") from error
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UsageError("not the base URL of an archive", where=url, remedy="such as https://example.org/oai")
        self.url, self._sleep = url, sleep
        timeout = urllib3.Timeout(connect=15.0, read=_SILENCE_S)
        self._pool = urllib3.PoolManager(timeout=timeout, retries=urllib3.Retry(0, redirect=3, raise_on_redirect=True))

    def ask(self, arguments: Mapping[str, str], answer: Answer) -> Iterator[Record]:
        """Yield the records of an answer, which takes the rest.

        Parameters
        ----------
        arguments : mapping
            The verb and what goes with it.
        answer : Answer

        Raises
        ------
        ServerError
            If the server is away or too slow.
        NotFoundError, UsageError
            If it has nothing at this address, or refuses.
        FormatError
            If it answers with anything but the protocol.
        """
        yield from read_answer(self._pieces(arguments), self.url, answer)

    def _pieces(self, arguments: Mapping[str, str]) -> Iterator[bytes]:
        import urllib3

        start, read = time.monotonic(), 0
        response = self._opened(arguments)
        try:
            for piece in response.stream(_PIECE, decode_content=True):
                read += len(piece)
                if read > _LARGEST:
                    raise FormatError(f"an answer of more than {_LARGEST >> 20} MiB", where=self.url)
                if time.monotonic() - start > _LIMIT_S:
                    raise ServerError(f"an answer took more than {_LIMIT_S:g} s", where=self.url, remedy=_AGAIN)
                yield piece
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(f"the answer broke off: {type(error).__name__}", where=self.url, remedy=_AGAIN) from error
        finally:
            response.close()

    def _opened(self, arguments: Mapping[str, str]) -> BaseHTTPResponse:
        import urllib3

        failure = ""
        for attempt in range(_TRIES):
            wait = 2.0**attempt
            try:
                response = self._pool.request("GET", self.url, fields=dict(arguments), preload_content=False)
            except urllib3.exceptions.HTTPError as error:
                failure = f"the archive can't be reached: {type(error).__name__}"
            else:
                if response.status == 200:
                    return response
                response.close()
                if response.status in (404, 410):
                    raise NotFoundError("the archive has nothing at this address", where=self.url)
                if response.status not in _BUSY:
                    raise UsageError(f"the archive refuses: status {response.status}", where=self.url)
                failure = f"the archive is busy: status {response.status}"
                wait = _wait_s(response.headers.get("Retry-After"), wait)
                if wait > _WAIT_S:
                    raise ServerError(f"{failure}; it asks to wait {wait:.0f} s", where=self.url, remedy=_AGAIN)
            if attempt + 1 < _TRIES:
                self._sleep(wait)
        raise ServerError(failure, where=self.url, remedy=_AGAIN)

    def close(self) -> None:
        """Release connections."""
        self._pool.clear()


def _wait_s(text: str | None, usual: float) -> float:
    """Return for how long a server asks to wait: seconds, or until a date."""
    if text is None:
        return usual
    if text.strip().isascii() and text.strip().isdecimal():
        return float(text[:12])
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return usual
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
