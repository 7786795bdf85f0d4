"""The token that sites' agents are shown: from the environment, in this process and in those that work for it.

It goes to agents alone: requests below other addresses carry none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from apbatch.errors import ServerError

#: The environment's names for the token, and for a file with it, which counts more.
TOKEN_VARIABLE, TOKEN_FILE_VARIABLE = "APBATCH_AGENT_TOKEN", "APBATCH_AGENT_TOKEN_FILE"
#: Addresses of agents whose files are read by URL, with spaces between; processes that this one starts inherit it.
_ROOTS_VARIABLE = "APBATCH_AGENT_ROOTS"


def agent_token() -> str:
    """Return the token; empty if there is none.

    Raises
    ------
    ServerError
        If the file with it can't be read.
    """
    named = os.environ.get(TOKEN_FILE_VARIABLE)
    if named:
        try:
            return Path(named).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ServerError(f"the token can't be read: {error}", where=named) from None
    return os.environ.get(TOKEN_VARIABLE, "")


def show_below(root: str) -> None:
    """Let requests for files below the address of an agent carry the token.

    Parameters
    ----------
    root : str
        Such as ``https://taiga.example.org:8000``.
    """
    roots = _roots()
    if root not in roots:
        os.environ[_ROOTS_VARIABLE] = " ".join((*roots, root))


def authorization(url: str) -> dict[str, str]:
    """Return the header that shows the token, for a URL below an agent's address; else nothing."""
    if any(url.startswith(f"{root}/") for root in _roots()) and (token := agent_token()):
        return {"Authorization": f"Bearer {token}"}
    return {}


@dataclass(frozen=True)
class ShownToken:
    """The token of one process, on its way to another one that works for it.

    Attributes
    ----------
    roots : tuple of str
        Addresses of agents.
    """

    roots: tuple[str, ...]
    _token: str = field(repr=False)

    @classmethod
    def of_this_process(cls) -> ShownToken:
        """Return what this process shows.

        Raises
        ------
        ServerError
            If the file with the token can't be read.
        """
        return cls(_roots(), agent_token())

    def take_over(self) -> None:
        """Show in this process what the other one shows; a token of its own stays where the other has none."""
        for root in self.roots:
            show_below(root)
        if self._token:
            os.environ.pop(TOKEN_FILE_VARIABLE, None)
            os.environ[TOKEN_VARIABLE] = self._token


def _roots() -> tuple[str, ...]:
    return tuple(os.environ.get(_ROOTS_VARIABLE, "").split())
