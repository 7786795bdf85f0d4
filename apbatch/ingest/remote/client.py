"""The client of a site's agent: where blocks are, and the blocks themselves, by way of any caches that stand between.

Blocks are asked for without a token, at URLs that caches keep; what a reader gets it compares with its hash.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

import urllib3

from apbatch.errors import FileUnavailableError, FormatError, NotFoundError, ServerError, VerificationError
from apbatch.index.contents import BLOCK
from apbatch.index.files import FileRecord, State
from apbatch.ingest.remote.wire import CONCERNS, ITS_FILE, weak_tag
from apbatch.storage.store import Ranges
from apbatch.storage.tokens import agent_token
from apbatch.storage.transfer import SourceChangedError

#: The environment's name for a cache for blocks.
PROXY_VARIABLE = "APBATCH_BLOCK_PROXY"
_LARGEST_ANSWER = 256 << 20
_EARLY_S = 60
_TIMES = urllib3.Timeout(connect=10, read=30)
#: A cache that hangs is given up early enough for the agent itself to answer within a reader's limit.
_CACHE_TIMES = urllib3.Timeout(connect=3, read=10)
#: A cache that fails is passed by for so long.
CACHE_REST_S = 30.0


class Agent:
    """An agent or a gateway at an address; threads share it.

    Parameters
    ----------
    url : str
        Its address, ``http://…`` or ``https://…``.
    token : str, optional
        By default that of the environment, read anew for each question.
    proxy : str, optional
        Address of an HTTP cache for blocks; by default ``$APBATCH_BLOCK_PROXY``. While it fails, blocks come from the
        agent itself.
    """

    def __init__(self, url: str, token: str | None = None, proxy: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._pool = urllib3.PoolManager(maxsize=16, timeout=_TIMES, retries=False)
        proxy = proxy or os.environ.get(PROXY_VARIABLE)
        self._cache = urllib3.ProxyManager(proxy, maxsize=16, timeout=_CACHE_TIMES, retries=False) if proxy else None
        self._cache_rests_until = 0.0
        self._lock = threading.Lock()
        self._places: dict[str, dict[str, Any]] = {}

    def ask(self, target: str, body: Any = None) -> Any:
        """Return the JSON that the agent answers.

        Parameters
        ----------
        target : str
            Path and query.
        body : object, optional
            What is posted, as JSON.

        Raises
        ------
        NotFoundError
            If it is not there or not allowed.
        StaleFeedError
            If changes since then are forgotten.
        ServerError
            If the agent does not answer, or refuses.
        FormatError
            If it answers no JSON.
        """
        method = "GET" if body is None else "POST"
        try:
            answer = self._pool.request(
                method,
                self.url + target,
                headers=self._authorization(),
                body=None if body is None else json.dumps(body).encode(),
                preload_content=False,
                redirect=False,
            )
            try:
                content = answer.read(_LARGEST_ANSWER + 1, decode_content=True)
            finally:
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(f"the agent does not answer: {error}", where=self.url) from None
        if answer.status == 410:
            raise StaleFeedError("changes since then are forgotten", where=self.url)
        if answer.status == 404:
            raise NotFoundError("not there, or not allowed", where=self.url + target)
        if answer.status != 200 or len(content) > _LARGEST_ANSWER:
            raise ServerError(f"the agent answers {answer.status}", where=self.url + target)
        try:
            return json.loads(content)
        except ValueError:
            raise FormatError("the agent's answer is not JSON", where=self.url + target) from None

    def check(self, site: str) -> Any:
        """Make sure that this is an agent that serves a site, or a gateway; return what it says of itself.

        Raises
        ------
        FormatError
            If it is not.
        ServerError
            If it does not answer.
        """
        about = self.ask("/")
        try:
            served, attributes = about["site"], about["attributes"]
            if not isinstance(attributes, list):
                raise TypeError
        except (KeyError, TypeError):
            raise FormatError("this is not an agent", where=self.url) from None
        if served not in (site, None):
            raise FormatError(f"the agent serves site {ascii(served)[:80]}", where=self.url)
        return about

    def place(self, path: str, *, anew: bool = False) -> dict[str, Any]:
        """Return where the blocks of a file are.

        Parameters
        ----------
        path : str
            Key of the file.
        anew : bool
            Ask even if it is known: what was known was refused.

        Raises
        ------
        NotFoundError
            If the file is not there or may not be read.
        ServerError, FormatError
        """
        with self._lock:
            place = self._places.get(path)
        if place is None or anew or place["expires"] - _EARLY_S < time.time():
            files = self.ask("/locate", {"paths": [path]})
            try:
                place = files["files"].get(path)
                if place is not None:
                    str(place["capability"]), int(place["expires"]), int(place["size"]), str(place["checksum"])
            except (KeyError, TypeError, ValueError, AttributeError):
                raise FormatError("not the place of a file", where=self.url) from None
            if place is None:
                raise NotFoundError("the agent has no such file, or it may not be read", where=f"{self.url} {path}")
            with self._lock:
                self._places[path] = place
                while len(self._places) > 10_000:
                    del self._places[next(iter(self._places))]
        return place

    def block(self, path: str, number: int, length: int) -> bytes:
        """Return a block of a file, not yet compared with its hash.

        Parameters
        ----------
        path : str
            Key of the file.
        number : int
            Of the block.
        length : int
            That it must have, bytes.

        Raises
        ------
        NotFoundError, VerificationError, FileUnavailableError
            What concerns this file alone.
        ServerError, FormatError
        """
        for anew in (False, True):
            place = self.place(path, anew=anew)
            url = f"{self.url}/b/{place['capability']}/{number}"
            answer = self._get(url, length)
            if answer.status == 200:
                if len(answer.data) != length:
                    raise VerificationError(f"block {number} has other than {length} bytes", where=self.url)
                return answer.data
            if answer.status != 404:
                raise _refusal(answer, url)
        raise NotFoundError("the agent gives the file no longer", where=f"{self.url} {path}")

    def range_of_listed(self, record: FileRecord, offset: int, length: int) -> bytes:
        """Return a range of a file that the agent has only listed: nothing tells whether its bytes are right.

        Parameters
        ----------
        record : FileRecord
            As it was listed; a file of another size or time is not read.
        offset, length : int
            Bytes; at least one, and none beyond the end.

        Raises
        ------
        NotFoundError, SourceChangedError, VerificationError, FileUnavailableError
            What concerns this file alone.
        ServerError
        """
        headers = {**self._authorization(), "range": f"bytes={offset}-{offset + length - 1}"}
        for name in (record.place, f"{record.place}@{record.site}"):  # the other one where sites disagree
            url = f"{self.url}/f{quote(name)}"
            try:
                answer = _fetch(self._pool, url, length, headers)
            except urllib3.exceptions.HTTPError as error:
                raise ServerError(f"the agent does not answer: {error}", where=self.url) from None
            if answer.status == 206 and answer.tag == weak_tag(record):
                if len(answer.data) != length:
                    raise VerificationError(f"{len(answer.data)} bytes came, not {length}", where=url)
                return answer.data
            if answer.status not in (200, 206, 404, 416):
                raise _refusal(answer, url)
        raise _changed(self.url, record)

    def _authorization(self) -> dict[str, str]:
        token = agent_token() if self._token is None else self._token
        return {"authorization": f"Bearer {token}"} if token else {}

    def _get(self, url: str, length: int) -> _Answer:
        """Return the answer to a request for a block, from the cache if there is one that works."""
        if self._cache is not None and time.monotonic() >= self._cache_rests_until:
            with suppress(urllib3.exceptions.HTTPError):
                answer = _fetch(self._cache, url, length)
                right = answer.status == 200 and len(answer.data) == length
                if right or answer.status == 404 or answer.of_file:
                    return answer
            self._cache_rests_until = time.monotonic() + CACHE_REST_S
        try:
            return _fetch(self._pool, url, length)
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(f"the agent does not answer: {error}", where=self.url) from None


class StaleFeedError(ServerError):
    """Who follows an agent was away for too long and begins anew."""


class AgentRanges(Ranges):
    """A file that an agent serves: by blocks, or in ranges without any check while it is only listed there.

    Raises
    ------
    NotFoundError, SourceChangedError
        If the agent has no such file, or another one by now.
    """

    def __init__(self, agent: Agent, record: FileRecord) -> None:
        self._agent, self._record, self.size = agent, record, record.size
        self._has_blocks = self._is_located()
        if not self._has_blocks and record.state is not State.LISTED:
            raise _changed(agent.url, record)

    def _is_located(self) -> bool:
        """Tell whether the agent gives blocks of the file as it is known here."""
        record = self._record
        for anew in (False, True):  # it may have changed since it was asked for
            try:
                place = self._agent.place(record.path, anew=anew)
            except NotFoundError:
                if record.state is not State.LISTED:
                    raise
                return False
            if record.checksum:
                fits = place["checksum"] == record.checksum
            else:  # listed here, registered there
                fits = (place["size"], place.get("mtime_ns")) == (record.size, record.mtime_ns)
            if fits:
                return True
        return False

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range; whole blocks are what is meant to be asked for."""
        end, parts = min(offset + length, self.size), []
        if not self._has_blocks and offset < end:
            try:
                return self._agent.range_of_listed(self._record, offset, end - offset)
            except SourceChangedError:
                self._has_blocks = self._is_located()  # it is registered there by now
                if not self._has_blocks:
                    raise
        while offset < end:
            number, start = divmod(offset, BLOCK)
            data = self._agent.block(self._record.path, number, min(BLOCK, self.size - number * BLOCK))
            parts.append(data[start : start + end - offset])
            offset += len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Nothing is open."""


@lru_cache(maxsize=256)
def agent_at(url: str) -> Agent:
    """Return the agent at an address, one for all of this process."""
    return Agent(url)


class _Answer(NamedTuple):
    """Status and body of an answer, its entity tag, and whether a refusal concerns the file alone."""

    status: int
    data: bytes
    tag: str
    of_file: bool


def _fetch(pool: urllib3.PoolManager, url: str, length: int, headers: dict[str, str] | None = None) -> _Answer:
    """Return an answer; of a body that is too long, only as much as tells that."""
    answer = pool.request("GET", url, headers=headers, preload_content=False, redirect=False)
    data = answer.read(length + 1)
    if len(data) > length:
        answer.close()
    else:
        answer.release_conn()
    return _Answer(answer.status, data, answer.headers.get("etag", ""), answer.headers.get(CONCERNS) == ITS_FILE)


def _refusal(answer: _Answer, url: str) -> ServerError:
    if answer.of_file:
        return FileUnavailableError("the agent can't give the file now", where=url)
    return ServerError(f"the agent answers {answer.status}", where=url)


def _changed(agent: str, record: FileRecord) -> SourceChangedError:
    return SourceChangedError("the agent has another content under this name", where=f"{agent} {record.path}")
