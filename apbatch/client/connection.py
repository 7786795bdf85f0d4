"""The connection to a catalogue's server: requests below ``/api/v1`` with a token, errors as what they tell of."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from apbatch.errors import (
    AccessError,
    ApbatchError,
    FileUnavailableError,
    FormatError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UsageError,
    VerificationError,
)
from apbatch.index.contents import Content
from apbatch.storage.tokens import server_token

_TIMEOUT = urllib3.Timeout(connect=10, read=120)
#: How often a patient client waits, each time as long as the server says, before a refusal for haste counts.
_WAITS = 20
_KINDS: dict[str, type[ApbatchError]] = {
    "Usage": UsageError,
    "NotFound": NotFoundError,
    "Access": AccessError,
    "TooManyRequests": TooManyRequestsError,
    "FileUnavailable": FileUnavailableError,
    "Verification": VerificationError,
}
#: What a status tells where there is no body, as after HEAD.
_BARE: dict[int, tuple[type[ApbatchError], str]] = {
    401: (AccessError, "the token is not valid"),
    404: (NotFoundError, "there is no such path, or it may not be read"),
    429: (TooManyRequestsError, "too many requests"),
}


class _Patience(urllib3.Retry):
    """Asks again after as long as the server says, if it says that it is asked too often."""

    RETRY_AFTER_STATUS_CODES = frozenset({429})


class Connection:
    """Asks ``/api/v1`` of a server.

    Parameters
    ----------
    url : str
        Such as ``https://data.example.org``.
    token : str, optional
        By default what ``$APBATCH_TOKEN`` holds.
    patient : bool
        Wait where the server says that it is asked too often: for programs that nobody waits for.

    Raises
    ------
    UsageError
        If a token would go unencrypted over a network.
    """

    def __init__(self, url: str, token: str | None = None, *, patient: bool = False) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise UsageError("the URL names no server", where=url, remedy="such as https://data.example.org")
        self.name = url.rstrip("/")
        self._base = f"{self.name}/api/v1"
        token = token or server_token()
        if token and parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise UsageError("a token would go unencrypted over the network", where=url, remedy="use https")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Only what was not begun is tried again; a broken stream must be seen.
        # A refusal is an answer, however soon its Retry-After says to ask again, unless the client is patient.
        retries = urllib3.Retry(3, redirect=0, status=0, read=0, backoff_factor=0.2, respect_retry_after_header=False)
        if patient:
            retries = _Patience(_WAITS, connect=3, redirect=0, read=0, other=0, raise_on_status=False)
        self._pool = urllib3.PoolManager(maxsize=16, timeout=_TIMEOUT, retries=retries)

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
            raise ServerError(f"the server does not answer: {reason_of(error)}", where=self.name) from error
        raise self._error(answer.status, content)

    def _error(self, status: int, content: bytes) -> ApbatchError:
        try:
            problem = json.loads(content)
            what = str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            kind, what = _BARE.get(status, (ServerError, f"the server answers with status {status}"))
            return kind(what, where=self.name)
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

    def content(self, checksum: str) -> Content | None:
        """Return the hashes of a content; None if they are not kept.

        Raises
        ------
        FormatError
            If the answer is none.
        """
        try:
            item = self.json("/hashes", checksum=checksum)
            parts = (base64.b64decode(item[name], validate=True) for name in ("blocks", "small_pieces", "large_pieces"))
            return Content(checksum, int(item["size"]), str(item["adler32"]), *parts)
        except NotFoundError:
            return None
        except (KeyError, TypeError, ValueError):
            raise FormatError("these are no hashes", where=self.name) from None

    def close(self) -> None:
        """Close connections."""
        self._pool.clear()


def reason_of(error: BaseException) -> str:
    """Return what broke an answer off, in short."""
    return f"{type(error).__name__}: {str(error)[:200]}"
