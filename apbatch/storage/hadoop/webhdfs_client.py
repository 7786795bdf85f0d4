"""The HTTP client of WebHDFS, made to ask for exactly the path it was given.

The NameNode answers the operations that touch bytes (open, create, append, checksum) with a redirect to a DataNode.
Java writes that address in Unicode's composed form (NFC), so for ``a`` + U+0301 it names the file ``á``: followed as
it is, one file's bytes are read, or written, under another's name. Here the address keeps its host and its
parameters, and gets the path that was asked for, once both are seen to mean the same name.
"""

from __future__ import annotations

import unicodedata
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import hdfs
import requests

from apbatch.errors import ServerError

_PREFIX = "/webhdfs/v1"
_REDIRECTS = (301, 302, 303, 307, 308)


class ExactClient(hdfs.InsecureClient):  # type: ignore[misc]  # no types there
    """A client whose redirected requests go to the very path that was asked for."""

    def resolve(self, hdfs_path: str) -> str:
        """Return a path as it is: the library would expand ``#LATEST`` and drop empty components in it."""
        return hdfs_path

    def _request(self, method: str, url: str, **options: Any) -> requests.Response:
        follow = options.pop("allow_redirects", True)
        answer: requests.Response = super()._request(method, url, allow_redirects=False, **options)
        if answer.status_code not in _REDIRECTS:
            return answer
        answer.headers["location"] = location = exact_location(answer.headers.get("location", ""), answer.url)
        if not follow:  # the caller sends the bytes there itself
            return answer
        _ = answer.content  # read, so that the connection can be used again
        # The address holds all parameters; DataNodes answer and redirect no further.
        options = {name: value for name, value in options.items() if name != "params"}
        final: requests.Response = super()._request(method, location, allow_redirects=False, **options)
        return final


def exact_location(location: str, request_url: str) -> str:
    """Return the address to which a request is redirected, with the path exactly as it was asked for.

    Parameters
    ----------
    location : str
        The redirect's ``Location``.
    request_url : str
        URL of the request that was redirected.

    Raises
    ------
    ServerError
        If the redirect names another file.
    """
    target, path = urlsplit(location), unquote(urlsplit(request_url).path, errors="surrogateescape")
    offered = unquote(target.path, errors="surrogateescape")
    if not target.netloc or unicodedata.normalize("NFC", offered) != unicodedata.normalize("NFC", path):
        raise ServerError(
            f"WebHDFS redirects to another file: {offered or 'none'}",
            where=path.removeprefix(_PREFIX),
            remedy="is there a proxy between here and HDFS?",
        )
    exact = quote(path, safe="/", errors="surrogateescape")
    return urlunsplit((target.scheme, target.netloc, exact, target.query, ""))
