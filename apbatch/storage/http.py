"""Files of a web server as a store that can be read: ranges, versions, and no belief in what the server says.

A reply must be the range that was asked for, of the length that it promises, of the version that was opened; anything
else is an error and delivers nothing. Every answer is due within a limit, whatever the server trickles.
"""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, BinaryIO, ClassVar, TypeVar, cast
from urllib.parse import quote, unquote, urljoin, urlsplit

from apbatch.errors import MissingSoftwareError, NotFoundError, ServerError, UsageError
from apbatch.storage import names
from apbatch.storage.deadline import LIMIT_S, within
from apbatch.storage.hashing import hash_stream
from apbatch.storage.range_stream import RangeStream
from apbatch.storage.store import Checksums, FileInfo, Ranges, ReadableStore, RefusedError
from apbatch.storage.tokens import authorization
from apbatch.storage.transfer import SourceChangedError

if TYPE_CHECKING:
    import urllib3
    from urllib3.response import BaseHTTPResponse

Result = TypeVar("Result")

_CONNECT_S = 5.0
_SILENCE_S = 15.0  # between two packets
_INDEX_BYTES = 64 << 20
_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+)$")
_PLAIN = {"Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Version:
    """What a server says of one state of a file; a file of another version is another file.

    Attributes
    ----------
    size : int
        Bytes.
    etag : str
        Empty where the server gives none.
    modified : str
        As the server writes it; empty where it gives none.
    """

    size: int
    etag: str
    modified: str

    @property
    def mtime_ns(self) -> int | None:
        """Time of the last change since 1970, ns, if the server gives it."""
        try:
            moment = parsedate_to_datetime(self.modified)
        except ValueError:
            return None
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * 1_000_000_000


class HttpStore(ReadableStore):
    """Files under a folder of a web server, ``http://HOST:PORT/FOLDER`` or ``https://…``.

    Folders are listed where the server shows an index of links, as Apache, nginx and Python's own server do.
    """

    kind: ClassVar[str] = "http"

    def __init__(self, url: str, limit_s: float = LIMIT_S) -> None:
        super().__init__(url)
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._client_of: tuple[int, urllib3.PoolManager] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.url, self._limit_s)

    def url_of(self, path: str) -> str:
        """Return the full URL of `path`, percent-quoted as the web wants it."""
        return f"{self.url}/{quote(path.lstrip('/'), safe='/', errors='surrogateescape')}"

    def path_of(self, url: str) -> str:
        """Return the path below the root of a URL.

        Raises
        ------
        UsageError
            If the URL is not in this store.
        """
        return unquote(super().path_of(url), errors="surrogateescape")

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading, seekable; each stretch that is read is one request.

        Raises
        ------
        NotFoundError, UsageError, ServerError
        """
        return cast(BinaryIO, io.BufferedReader(RangeStream(self.ranges(path)), 1 << 20))

    def ranges(self, path: str) -> HttpRanges:
        """Open a file that is read by ranges; all come from the version that is there now.

        Raises
        ------
        NotFoundError, UsageError, ServerError
        """
        path = names.clean_path(path)
        version, is_folder = self._probe(path)
        if is_folder:
            raise UsageError("this is a folder, not a file", where=self.url_of(path))
        return HttpRanges(self, path, version)

    def info(self, path: str) -> FileInfo | None:
        """Return what is known of `path`, or None if nothing is there."""
        path = names.clean_path(path)
        try:
            version, is_folder = self._probe(path)
        except NotFoundError:
            return None
        return FileInfo(path, 0 if is_folder else version.size, is_folder, version.mtime_ns)

    def entries(self, path: str = "") -> Iterator[FileInfo]:
        """Yield the entries of a folder, names sorted: what the server's index links to, each asked for its size.

        Raises
        ------
        NotFoundError
            If there is no such folder.
        ServerError
            If the server shows no index.
        """
        path = names.clean_path(path)
        where = self.url_of(f"{path}/" if path else "")

        def ask() -> bytes:
            with self._answer("GET", where) as answer:
                if "html" not in answer.headers.get("Content-Type", ""):
                    raise NotFoundError("this is a file, not a folder", where=where)
                page: bytes = answer.read(_INDEX_BYTES + 1)
                return page

        page = self._call(where, ask)
        if len(page) > _INDEX_BYTES:
            raise ServerError(f"the index has more than {_INDEX_BYTES >> 20} MiB", where=where)
        for name in sorted(_names_in(page.decode("utf-8", "replace"), where)):
            if not names.is_part(name) and (entry := self.info(f"{path}/{name}" if path else name)) is not None:
                yield entry

    def checksums(self, path: str) -> Checksums:
        """Read a file through and return its checksums.

        Raises
        ------
        NotFoundError, ServerError
        """
        with self.open(path) as stream:
            return hash_stream(stream)

    def _client(self) -> urllib3.PoolManager:
        with self._lock:
            if self._client_of is None or self._client_of[0] != os.getpid():  # connections are no heritage
                try:
                    import urllib3
                except ImportError as error:
                    raise MissingSoftwareError(
                        "urllib3 is not installed", where=self.url, remedy="pip install 'apbatch[mount]'"
                    ) from error
                retries = urllib3.Retry(total=3, connect=1, read=1, redirect=3, status=0, other=0, backoff_factor=0.1)
                timeout = urllib3.Timeout(connect=_CONNECT_S, read=min(_SILENCE_S, self._limit_s))
                client = urllib3.PoolManager(maxsize=16, retries=retries, timeout=timeout)
                self._client_of = os.getpid(), client
            return self._client_of[1]

    def _call(self, where: str, call: Callable[[], Result]) -> Result:
        return within(self._limit_s, where, call)

    @contextmanager
    def _answer(self, method: str, url: str, headers: dict[str, str] | None = None) -> Iterator[BaseHTTPResponse]:
        """Ask; the reply's head is judged, its body not yet read."""
        import urllib3

        try:
            answer = self._client().request(
                method, url, headers=_PLAIN | authorization(url) | (headers or {}), preload_content=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(f"no answer: {_reason(error)}", where=url, remedy="is the server up?") from error
        try:
            _judge(answer, url)
            yield answer
            if answer.length_remaining != 0:
                answer.close()  # what is left in it must not meet the next request
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(f"the answer broke off: {_reason(error)}", where=url) from error
        except BaseException:
            with suppress(Exception):
                answer.close()
            raise
        finally:
            answer.release_conn()

    def _probe(self, path: str) -> tuple[Version, bool]:
        """Return the version of a file, and whether it is a folder."""
        where = self.url_of(path)

        def ask() -> tuple[Version, bool]:
            try:
                with self._answer("HEAD", where) as answer:
                    return _version(answer, where)
            except _NoSuchMethodError:
                with self._answer("GET", where, {"Range": "bytes=0-0"}) as answer:
                    return _version(answer, where)

        return self._call(where, ask)

    def _range(self, path: str, version: Version, offset: int, length: int) -> bytes:
        where, end = self.url_of(path), offset + length
        headers = {"Range": f"bytes={offset}-{end - 1}"}
        if version.etag and not version.etag.startswith("W/"):
            headers["If-Match"] = version.etag

        def ask() -> bytes:
            with self._answer("GET", where, headers) as answer:
                _compare(answer, version, where)
                if answer.status == 206:
                    span = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
                    if span is None or (int(span[1]), int(span[2])) != (offset, end - 1):
                        raise ServerError(
                            f"asked for bytes {offset} to {end - 1}, the answer is "
                            f"'{answer.headers.get('Content-Range', '')[:80]}'",
                            where=where,
                        )
                    if int(span[3]) != version.size:
                        raise _changed(where)
                elif offset or length != version.size:
                    raise ServerError("the server gives no ranges of files", where=where)
                if answer.headers.get("Content-Length", str(length)) != str(length):
                    raise ServerError(f"{length} bytes were asked for, another length is promised", where=where)
                data: bytes = answer.read(length, decode_content=False)
                if len(data) != length:
                    raise ServerError(f"the answer ended at byte {offset + len(data)} of {end}", where=where)
                return data

        return self._call(where, ask)


class HttpRanges(Ranges):
    """A file of a web server in one version, read by ranges."""

    timed: ClassVar[bool] = True

    def __init__(self, store: HttpStore, path: str, version: Version) -> None:
        self._store, self._path, self._version = store, path, version
        self.size = version.size

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, cut at the end of the file.

        Raises
        ------
        SourceChangedError
            If the server has another version now.
        NotFoundError, ServerError
        """
        length = max(0, min(length, self.size - offset))
        return self._store._range(self._path, self._version, offset, length) if length else b""

    def close(self) -> None:
        """Nothing: connections belong to the store."""


class _NoSuchMethodError(ServerError):
    """The server knows no HEAD."""


class _Links(HTMLParser):
    """The addresses that a page links to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.addresses += [value for name, value in attrs if name == "href" and value]


def _names_in(page: str, where: str) -> set[str]:
    """Return the names directly below a folder that its index links to."""
    links = _Links()
    links.feed(page)
    base, entries = urlsplit(where), set()
    for address in links.addresses:
        try:
            target = urlsplit(urljoin(where, address))
        except ValueError:  # no address at all
            continue
        name = target.path.removeprefix(base.path)
        if target[:2] != base[:2] or name == target.path or target.query:
            continue
        plain = unquote(name.removesuffix("/"), errors="surrogateescape")
        if plain and "/" not in plain and "\0" not in plain and plain not in (".", ".."):
            entries.add(plain)
    return entries


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    return f"{type(inner).__name__}: {inner}"[:200]


def _judge(answer: BaseHTTPResponse, url: str) -> None:
    """Raise unless an answer brings what was asked for."""
    if url.startswith("https:") and (answer.geturl() or url).startswith("http:"):
        raise ServerError("redirected from https to http", where=url)
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise ServerError("the answer is compressed, though this was not asked for", where=url)
    status = answer.status
    if status in (200, 206):
        return
    if status in (404, 410):
        raise NotFoundError("no such file or folder", where=url)
    if status == 412:
        raise _changed(url)
    if status in (405, 501):
        raise _NoSuchMethodError(f"the server answers {status}", where=url)
    refused = RefusedError if status in (401, 403) else ServerError
    raise refused(f"the server answers {status} {answer.reason or ''}".rstrip(), where=url)


def _version(answer: BaseHTTPResponse, where: str) -> tuple[Version, bool]:
    is_folder = urlsplit(answer.geturl() or where).path.endswith("/")
    text = answer.headers.get("Content-Length", "")
    if answer.status == 206:
        span = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        text = span[3] if span else ""
    if not is_folder and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ServerError("the server does not say how long the file is", where=where)
    size = 0 if is_folder else int(text)
    return Version(size, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")), is_folder


def _compare(answer: BaseHTTPResponse, version: Version, where: str) -> None:
    """Raise if an answer is of another version."""
    for name, value in (("ETag", version.etag), ("Last-Modified", version.modified)):
        if value and answer.headers.get(name, value) != value:
            raise _changed(where)


def _changed(where: str) -> SourceChangedError:
    return SourceChangedError("the file changed on the server while it was read", where=where)
