"""What both ways into HDFS share: addresses, names that HDFS can't hold, and one client for each process."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from typing import Any

from apbatch.storage import names
from apbatch.storage.deadline import LIMIT_S
from apbatch.storage.publishing import PublishingStore


class HadoopStore(PublishingStore):
    """Files under a folder of HDFS.

    Parameters
    ----------
    url : str
        ``SCHEME://HOST:PORT/FOLDER``.
    limit_s : float
        Seconds without any progress after which a call fails.
    """

    def __init__(self, url: str, limit_s: float = LIMIT_S) -> None:
        super().__init__(url)
        # Not by urlsplit: '?' and '#' are ordinary characters in a path here.
        self._authority, _, root = self.url.partition("://")[2].partition("/")
        self._root = f"/{root}" if root else ""
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._client_of: tuple[int, Any] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.url, self._limit_s)

    def url_of(self, path: str) -> str:
        """Return the full URL of `path`; characters that HDFS can't hold are escaped in it."""
        return super().url_of(names.escape(path))

    def path_of(self, url: str) -> str:
        """Return the path below the root of a URL that `url_of` made."""
        return names.unescape(super().path_of(url))

    @abstractmethod
    def _new_client(self) -> Any:
        """Return a client for this process.

        Raises
        ------
        MissingSoftwareError, ServerError
        """

    def _client(self) -> Any:
        with self._lock:
            if self._client_of is None or self._client_of[0] != os.getpid():
                self._client_of = os.getpid(), self._new_client()
            return self._client_of[1]

    def _path(self, path: str) -> str:
        return f"{self._root}/{names.escape(path)}" if path else self._root or "/"
