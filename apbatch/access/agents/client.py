"""The client of a site's agent: where blocks are, and the blocks themselves, by way of any caches that stand between.

Blocks are asked for without a token, at URLs that caches keep; what a reader gets it compares with its hash.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3

from apbatch.access.sources import Source
from apbatch.errors import FormatError, NotFoundError, ServerError
from apbatch.index.contents import BLOCK
from apbatch.index.files import FileRecord
from apbatch.storage.store import Ranges

#: The environment's names for the token that an agent is shown, a file with it, and a cache for blocks.
TOKEN_VARIABLE, TOKEN_FILE_VARIABLE, PROXY_VARIABLE = (
    "APBATCH_AGENT_TOKEN", "APBATCH_AGENT_TOKEN_FILE", "APBATCH_BLOCK_PROXY",
)  # fmt: skip
_LARGEST_ANSWER = 256 << 20
_EARLY_S = 60
_TIMES = urllib3.Timeout(connect=10, read=30)


class Agent:
    """An agent or a gateway at an address; threads share it.

    Parameters
    ----------
    url : str
        Its address, ``http://…`` or ``https://…``.
    token : str, optional
        By default that of the environment.
    proxy : str, optional
        Address of an HTTP cache for blocks; by default ``$APBATCH_BLOCK_PROXY``.
    """

    def __init__(self, url: str, token: str | None = None, proxy: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token if token is not None else _token()
        self._pool = urllib3.PoolManager(maxsize=16, timeout=_TIMES, retries=False)
        proxy = proxy or os.environ.get(PROXY_VARIABLE)
        self._blocks = urllib3.ProxyManager(proxy, maxsize=16, timeout=_TIMES, retries=False) if proxy else self._pool
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
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        method = "GET" if body is None else "POST"
        try:
            answer = self._pool.request(
                method, self.url + target, headers=headers, body=None if body is None else json.dumps(body).encode(),
                preload_content=False, redirect=False,
            )  # fmt: skip
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
        NotFoundError, ServerError, FormatError
        """
        for anew in (False, True):
            place = self.place(path, anew=anew)
            url = f"{self.url}/b/{place['capability']}/{number}"
            try:
                answer = self._blocks.request("GET", url, preload_content=False, redirect=False)
                data = answer.read(length + 1)
                if len(data) > length:
                    answer.close()
                else:
                    answer.release_conn()
            except urllib3.exceptions.HTTPError as error:
                raise ServerError(f"the agent does not answer: {error}", where=self.url) from None
            if answer.status == 200:
                if len(data) != length:
                    raise ServerError(f"block {number} has other than {length} bytes", where=self.url)
                return data
            if answer.status != 404:
                raise ServerError(f"the agent answers {answer.status}", where=url)
        raise NotFoundError("the agent gives the file no longer", where=f"{self.url} {path}")


class StaleFeedError(ServerError):
    """Who follows an agent was away for too long and begins anew."""


class AgentRanges(Ranges):
    """A file that an agent serves."""

    def __init__(self, agent: Agent, record: FileRecord) -> None:
        self._agent, self._path, self.size = agent, record.path, record.size
        place = agent.place(record.path)
        if record.checksum and place["checksum"] != record.checksum:
            raise ServerError("the agent has another content under this name", where=f"{agent.url} {record.path}")

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range; whole blocks are what is meant to be asked for."""
        end, parts = min(offset + length, self.size), []
        while offset < end:
            number, start = divmod(offset, BLOCK)
            data = self._agent.block(self._path, number, min(BLOCK, self.size - number * BLOCK))
            parts.append(data[start : start + end - offset])
            offset += len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Nothing is open."""


def at_agents(agents: dict[str, Agent]) -> Callable[[FileRecord], Source | None]:
    """Return what opens the holdings of sites that agents serve.

    Parameters
    ----------
    agents : dict
        By name of the site.
    """

    def source(record: FileRecord) -> Source | None:
        agent = agents.get(record.site)
        if agent is None:
            return None
        return Source(f"agent {agent.url}", f"{agent.url} {record.path}", lambda: AgentRanges(agent, record))

    return source


def _token() -> str:
    named = os.environ.get(TOKEN_FILE_VARIABLE)
    if named:
        try:
            return Path(named).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ServerError(f"the token can't be read: {error}", where=named) from None
    return os.environ.get(TOKEN_VARIABLE, "")
