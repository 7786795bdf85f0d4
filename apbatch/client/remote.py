"""A catalogue behind a server, over HTTP."""

from __future__ import annotations

import io
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pyarrow as pa
import urllib3

from apbatch.access.blocks import block_length, pieces
from apbatch.client.feed import FollowedFeed, row_of
from apbatch.client.transport import EventKey, Transport
from apbatch.errors import (
    AccessError,
    ApbatchError,
    FileUnavailableError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UsageError,
    VerificationError,
)
from apbatch.formats.reader import Attribute
from apbatch.index.contents import BLOCK
from apbatch.index.files import Conflict, Entry, EntryPage, State
from apbatch.storage.range_stream import RangeStream

if TYPE_CHECKING:
    from apbatch.access.event_image import EventImage

#: Environment variable with a token for servers.
TOKEN_VARIABLE = "APBATCH_TOKEN"
_TIMEOUT = urllib3.Timeout(connect=10, read=120)
#: Blocks of a file that are kept.
_BLOCKS = 16
_KINDS: dict[str, type[ApbatchError]] = {
    "Usage": UsageError,
    "NotFound": NotFoundError,
    "Access": AccessError,
    "TooManyRequests": TooManyRequestsError,
    "FileUnavailable": FileUnavailableError,
    "Verification": VerificationError,
}


class RemoteTransport(Transport):
    """Asks ``/api/v1`` of a server.

    Parameters
    ----------
    url : str
        Such as ``https://data.example.org``.
    token : str, optional
        By default what ``$APBATCH_TOKEN`` holds.

    Raises
    ------
    UsageError
        If a token would go unencrypted over a network.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise UsageError("the URL names no server", where=url, remedy="such as https://data.example.org")
        self.name = url.rstrip("/")
        self._base = f"{self.name}/api/v1"
        token = token or os.environ.get(TOKEN_VARIABLE)
        if token and parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise UsageError("a token would go unencrypted over the network", where=url, remedy="use https")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Only what was not begun is tried again; a broken stream must be seen.
        # A refusal is an answer, however soon its Retry-After says to ask again.
        retries = urllib3.Retry(3, redirect=0, status=0, read=0, backoff_factor=0.2, respect_retry_after_header=False)
        self._pool = urllib3.PoolManager(maxsize=16, timeout=_TIMEOUT, retries=retries)
        self._attributes: dict[bool, dict[str, Attribute]] = {}

    def request(
        self,
        path: str,
        parameters: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        stream: bool = False,
        timeout: urllib3.Timeout = _TIMEOUT,
    ) -> urllib3.BaseHTTPResponse:
        """Ask; an answer that tells of an error is raised as the error that it tells of.

        Parameters
        ----------
        path : str
            Below ``/api/v1``.
        parameters : Mapping
            Those that are None or empty are left out.
        headers : Mapping, optional
        method : str
        stream : bool
            Leave the body to be read piece by piece.
        timeout : urllib3.Timeout
            For the connection, and for each piece that is read.

        Raises
        ------
        ApbatchError
        """
        pairs = {name: value for name, value in parameters.items() if value is not None and value != ""}
        url = f"{self._base}{path}" + (f"?{urlencode(pairs)}" if pairs else "")
        try:
            answer = self._pool.request(
                method, url, headers={**self._headers, **(headers or {})}, preload_content=not stream, redirect=False,
                timeout=timeout,
            )  # fmt: skip
            if answer.status < 400:
                return answer
            content = answer.data if not stream else answer.read(1_000_000)
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(f"the server does not answer: {_reason(error)}", where=self.name) from error
        raise self._error(answer.status, content)

    def _error(self, status: int, content: bytes) -> ApbatchError:
        try:
            problem = json.loads(content)
            what = str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            if status == 404:  # of a HEAD, which has no body
                return NotFoundError("there is no such path, or it may not be read", where=self.name)
            return ServerError(f"the server answers with status {status}", where=self.name)
        kind = _KINDS.get(str(problem.get("title")), ServerError if status >= 500 else UsageError)
        fields = {name: problem[name] for name in ("where", "nearest", "remedy") if isinstance(problem.get(name), str)}
        return kind(
            what, where=fields.get("where") or self.name, nearest=fields.get("nearest"), remedy=fields.get("remedy")
        )

    def json(self, below: str, **parameters: Any) -> Any:
        """Ask for JSON.

        Raises
        ------
        ApbatchError
        """
        answer = self.request(below, parameters, {"Accept": "application/json"})
        try:
            return json.loads(answer.data)
        except ValueError:
            raise ServerError("the server's answer is not JSON", where=self.name) from None

    def attributes(self, of_events: bool) -> dict[str, Attribute]:
        """Return what queries may name."""
        if of_events not in self._attributes:
            items = self.json("/attributes", of="events" if of_events else "files")["items"]
            self._attributes[of_events] = {item["name"]: Attribute(**item) for item in items}
        return self._attributes[of_events]

    def records(self, query: str, limit: int | None) -> Iterator[dict[str, Any]]:
        """Yield the files that match with all their attributes."""
        attributes = self.attributes(False)
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = 1000 if left is None else min(left, 1000)
            page = self.json("/files", q=query, cursor=cursor, limit=size)
            for item in page["items"]:
                yield {name: _typed(attributes.get(name), value) for name, value in item.items()}
            left = None if left is None else left - len(page["items"])
            if (cursor := page["cursor"]) is None:
                return

    def batches(
        self, query: str, columns: list[str] | None, limit: int | None, of_events: bool
    ) -> Iterator[pa.RecordBatch]:
        """Yield what matches as batches, as they arrive."""
        answer = self.request(
            "/events" if of_events else "/files",
            {"q": query, "columns": ",".join(columns or ()), "limit": limit, "format": "arrow"},
            stream=True,
        )
        try:
            with pa.ipc.open_stream(pa.PythonFile(_Body(answer), mode="r")) as reader:
                yield from reader
        except (urllib3.exceptions.HTTPError, pa.ArrowInvalid, OSError) as error:
            raise ServerError(f"the answer broke off: {_reason(error)}", where=self.name, remedy="ask again") from error
        finally:
            answer.close()  # of a stream that nobody reads to its end the server hears so

    def count(self, query: str, by: str | None, of_events: bool) -> dict[Any, int]:
        """Count what matches."""
        answer = self.json("/events/count" if of_events else "/files/count", q=query, by=by)
        if by is None:
            return {None: int(answer["count"])}
        attribute = self.attributes(of_events).get(by)
        return {_typed(attribute, one["value"]): one["count"] for one in answer["counts"]}

    def explain(self, query: str, of_events: bool) -> str:
        """Return how a query would be answered."""
        if of_events:
            raise UsageError(
                "a server does not explain queries of events", remedy="ask on the machine of the catalogue"
            )
        return str(self.json("/files/explain", q=query)["plan"])

    def rows_read(self, query: str, limit: int | None) -> int | None:
        """Return about how many rows a search of files looks at; None if the server does not tell us."""
        try:
            rows = self.json("/files/explain", q=query, limit=limit).get("rows_read")
        except NotFoundError:  # that is for its owner and operators
            return None
        return rows if isinstance(rows, int) else None

    def entries(self, folder: str, cursor: str | None) -> EntryPage:
        """Return some entries of a folder."""
        page = self.json("/entries", folder=folder, cursor=cursor)
        return EntryPage([entry_of(item) for item in page["items"]], page["cursor"])

    def entry(self, path: str) -> Entry | None:
        """Return what the merged tree has under a path."""
        try:
            return entry_of(self.json("/entry", path=path or "/"))
        except NotFoundError:
            return None

    def conflicts(self, cursor: str | None) -> tuple[list[Conflict], str | None]:
        """Return some places at which sites hold different content."""
        page = self.json("/conflicts", cursor=cursor)
        return [Conflict(item["place"], item["entries"]) for item in page["items"]], page["cursor"]

    def changes(self, since: int, *, from_start: bool = False) -> Iterator[dict[str, Any]]:
        """Yield changes after a revision; `from_start`: the reader began at 0, less than 30 days ago."""
        flag = "true" if from_start or since == 0 else None
        while True:
            page = self.json("/changes", since=since, limit=1000, from_start=flag)
            yield from map(row_of, page["items"])
            if page["since"] == since:
                return
            since = page["since"]

    def follow(self, since: int) -> Iterator[dict[str, Any] | None]:
        """Yield changes as the server sends them."""
        return FollowedFeed(self, since).rows()

    def open(self, path: str) -> io.BufferedReader:
        """Open an entry as a stream."""
        return io.BufferedReader(RangeStream(RemoteRanges(self, path)), 2**18)

    def image(self, key: EventKey) -> EventImage:
        """Return the image of an event."""
        from apbatch.access.event_image import EventImage
        from apbatch.camera.geometry import camera_from_positions

        names = ("experiment", "run", "event", "telescope")
        answer = self.json("/events/display", **dict(zip(names, key, strict=True)))
        image = answer["image"]
        if image is None:
            raise NotFoundError(str(answer.get("reason")), where=" ".join(map(str, key)))
        numbers = {name: np.array(image[name] or [], np.float64) for name in ("x", "y", "values", "times")}
        camera = camera_from_positions(image["camera"], numbers["x"], numbers["y"], lattice=image["lattice"])
        times = numbers["times"].astype(np.float32) if image["times"] else None
        return EventImage(camera, numbers["values"].astype(np.float32), times)

    def close(self) -> None:
        """Close connections."""
        self._pool.clear()


class RemoteRanges:
    """Bytes of an entry behind a server, read by blocks; the last ones read are kept.

    Parameters
    ----------
    transport : RemoteTransport
    path : str
        In the merged tree.

    Raises
    ------
    NotFoundError
        If there is no such file, or it may not be read.
    """

    def __init__(self, transport: RemoteTransport, path: str) -> None:
        self._transport, self._path = transport, path
        answer = transport.request("/content", {"path": path}, method="HEAD")
        self.size = int(answer.headers["content-length"])
        self.tag = answer.headers["etag"]
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, cut at the end of the file.

        Raises
        ------
        VerificationError
            If the file is another one by now.
        ServerError
            If the answer broke off.
        """
        return b"".join(self._block(part.block)[part.start : part.stop] for part in pieces(offset, length, self.size))

    def close(self) -> None:
        """Forget the blocks."""
        self._blocks.clear()

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        begin = number * BLOCK
        block = self.fetch(begin, begin + block_length(self.size, number))
        self._blocks[number] = block
        if len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def fetch(self, begin: int, end: int) -> bytes:
        """Return a range of bytes in one request; any number of threads may ask.

        Raises
        ------
        VerificationError
            If the file is another one by now.
        ServerError
            If they can't be had.
        """
        headers = {"Range": f"bytes={begin}-{end - 1}", "If-Range": self.tag}
        answer = self._transport.request("/content", {"path": self._path}, headers, stream=True)
        try:
            if answer.status != 206 or answer.headers.get("etag") != self.tag:
                raise VerificationError("the file changed while it was read", where=self._path, remedy="open it again")
            block = answer.read()
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(
                f"the answer broke off: {_reason(error)}", where=self._path, remedy="read again"
            ) from error
        finally:
            answer.close()
        if len(block) != end - begin:
            raise ServerError("the server gave too few bytes", where=self._path, remedy="read again")
        return block


class _Body:
    """An answer's body as Arrow reads it."""

    closed = False

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer

    def read(self, length: int = -1) -> bytes:
        """Return some bytes."""
        return self._answer.read(None if length < 0 else length)

    def close(self) -> None:
        """Close."""
        self.closed = True


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def entry_of(item: dict[str, Any]) -> Entry:
    """Return an entry of the merged tree as a server wrote it."""
    state = item.pop("state", None)
    return Entry(**item, state=None if state is None else State(state))


def _typed(attribute: Attribute | None, value: Any) -> Any:
    if value is None or attribute is None:
        return value
    if attribute.type == "date":
        return date.fromisoformat(value)
    return datetime.fromisoformat(value) if attribute.type == "time" else value
