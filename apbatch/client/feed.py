"""The feed of a server, followed: server-sent events that go on where they were cut off, pages where none come through.

A proxy may hold the events back or end the connection after each few seconds. Then the feed is read by pages for a
while, which any proxy lets through, before events are tried again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import urllib3

from apbatch.errors import ApbatchError, ServerError, TooManyRequestsError
from apbatch.progress import say

MEDIA = "text/event-stream"
#: The server says something at once, and every 15 s: what is silent for longer is held back somewhere, s.
_SILENCE_S = 40.0
#: A stream that ends sooner than this was cut by something between, not by a server that was restarted, s.
_SHORT_S = 60.0
#: So many of them in a row, and pages take over.
_CUTS = 3
#: Between two pages; how long pages are read before events are tried again, s.
POLL_S, _POLLED_S = 2.0, 600.0
#: Before a server that does not answer is asked again, s.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 30.0
_LARGEST_EVENT = 16 << 20

#: A change as the client gives it; None: there are no more for now.
Row = dict[str, Any] | None


class FeedServer(Protocol):
    """What of a server its feed needs; see `apbatch.client.remote.RemoteTransport`."""

    name: str

    def request(
        self,
        path: str,
        parameters: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        *,
        stream: bool = False,
        timeout: urllib3.Timeout = ...,
    ) -> urllib3.BaseHTTPResponse:
        """Ask; see `apbatch.client.remote.RemoteTransport.request`.

        Parameters
        ----------
        path : str
        parameters : Mapping
        headers : Mapping, optional
        stream : bool
            Leave the body to be read piece by piece.
        timeout : urllib3.Timeout
        """

    def changes(self, since: int, *, from_start: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the changes that there are, by pages."""


class FollowedFeed:
    """Changes as they come.

    Parameters
    ----------
    server : FeedServer
    since : int
        The last revision that is held.
    """

    def __init__(self, server: FeedServer, since: int) -> None:
        self._server, self._since, self._from_start = server, since, since == 0
        self._pause_s, self._cuts = 2.0, 0

    def rows(self) -> Iterator[Row]:
        """Yield changes without end; None when there are no more for now.

        Raises
        ------
        ServerError
            If the server does not answer the first question; later it is waited for.
        ApbatchError
            If the server refuses, such as who was away for too long or whose token was revoked.
        """
        pause_s: float | None = None
        while True:
            read = self._events if self._cuts < _CUTS else self._pages
            try:
                for row in read():
                    pause_s = _FIRST_PAUSE_S  # it answers
                    yield row
                continue
            except (ServerError, TooManyRequestsError) as error:
                if pause_s is None:
                    raise
                say(f"{error.what}; asked again in {pause_s:g} s")
            yield None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    def _events(self) -> Iterator[Row]:
        """Yield changes of one connection until it ends."""
        start_s, begin = time.monotonic(), self._since
        headers = {"Accept": MEDIA, "Cache-Control": "no-cache"}
        if begin:
            headers["Last-Event-ID"] = str(begin)
        parameters = {"since": begin, "from_start": "true" if self._from_start else None}
        timeout = urllib3.Timeout(connect=10, read=_SILENCE_S)
        try:
            answer = self._server.request("/changes", parameters, headers, stream=True, timeout=timeout)
        except TooManyRequestsError:  # the server has as many followers as it takes
            self._cuts = _CUTS
            return
        except ServerError as error:
            reason = getattr(error.__cause__, "reason", error.__cause__)
            if not isinstance(reason, urllib3.exceptions.ReadTimeoutError):
                raise
            self._cuts = _CUTS  # not even the head of the answer came through
            return
        try:
            if not answer.headers.get("Content-Type", "").startswith(MEDIA):
                self._cuts = _CUTS
                return
            yield None
            for event in _events_in(lambda: answer.read1(1 << 16)):
                yield from self._rows_of(event)
        except urllib3.exceptions.HTTPError:  # cut off: it goes on with the next connection
            pass
        finally:
            answer.close()
        long = self._since > begin or time.monotonic() - start_s >= _SHORT_S
        self._cuts = 0 if long else self._cuts + 1
        if self._cuts < _CUTS:
            yield None
            time.sleep(self._pause_s)

    def _rows_of(self, event: dict[str, str] | None) -> Iterator[Row]:
        if event is None:
            yield None
            return
        if event["event"] == "retry":
            self._pause_s = min(float(event["data"]) / 1000, _LAST_PAUSE_S)
        elif event["event"] == "problem":
            return  # the server ends the stream, and says more to who asks again
        else:
            item = _item(event["data"], self._server.name)
            if item["revision"] > self._since:  # a proxy may send again what it holds
                self._since = item["revision"]
                yield row_of(item)

    def _pages(self) -> Iterator[Row]:
        """Yield changes by pages for a while."""
        end = time.monotonic() + _POLLED_S
        while time.monotonic() < end:
            for row in self._server.changes(self._since, from_start=self._from_start):
                self._since = row["revision"]
                yield row
            yield None
            time.sleep(POLL_S)
        self._cuts = 0


def row_of(item: dict[str, Any]) -> dict[str, Any]:
    """Return a change as the client gives it: with the fields of the file as it is now."""
    of_file = item["record"] or {"path": item["key"]}
    about = {"revision": item["revision"], "change": item["kind"], "detail": item["detail"]}
    return {**about, **of_file, "revision": item["revision"]}


def _item(data: str, where: str) -> dict[str, Any]:
    try:
        item: dict[str, Any] = json.loads(data)
        if type(item["revision"]) is not int or not {"kind", "key", "detail", "record"} <= item.keys():
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ApbatchError(f"not a change: {data[:80]!r}", where=where) from None
    return item


def _events_in(read: Callable[[], bytes]) -> Iterator[dict[str, str] | None]:
    """Yield the events of a stream, and None when what has come is read (WHATWG HTML, 9.2.6)."""
    rest, event = b"", {"event": "message", "data": ""}
    while piece := read():
        rest += piece
        *lines, rest = rest.split(b"\n")
        if len(rest) + len(event["data"]) > _LARGEST_EVENT:
            raise ApbatchError(f"an event has more than {_LARGEST_EVENT >> 20} MiB")
        for line in lines:
            name, _, value = line.rstrip(b"\r").decode("utf-8", "replace").partition(":")
            value = value.removeprefix(" ")
            if name == "retry" and value.isascii() and value.isdecimal():
                yield {"event": "retry", "data": value[:9]}
            elif name == "event":
                event["event"] = value
            elif name == "data":
                event["data"] += f"\n{value}" if event["data"] else value
            elif not line.rstrip(b"\r"):
                if event["data"]:
                    yield event
                event = {"event": "message", "data": ""}
        yield None
