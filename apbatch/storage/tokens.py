"""Tokens that servers are shown: from the environment, in this process and in those that work for it.

There are two: one for sites' agents, one for a catalogue's server. Each goes there alone: requests below other
addresses carry none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from apbatch.errors import ServerError

#: The environment's names for the tokens; those for files with them, which count more, end in ``_FILE``.
AGENT_TOKEN, SERVER_TOKEN = "APBATCH_AGENT_TOKEN", "APBATCH_TOKEN"
#: Addresses of agents whose files are read by URL, with spaces between; processes that this one starts inherit it.
_ROOTS_VARIABLE = "APBATCH_AGENT_ROOTS"


def agent_token() -> str:
    """Return the token for agents; empty if there is none.

    Raises
    ------
    ServerError
        If the file with it can't be read.
    """
    return _token(AGENT_TOKEN)


def server_token() -> str:
    """Return the token for a catalogue's server; empty if there is none.

    Raises
    ------
    ServerError
        If the file with it can't be read.
    """
    return _token(SERVER_TOKEN)


def _token(variable: str) -> str:
    named = os.environ.get(_file_of(variable))
    if named:
        try:
            return Path(named).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ServerError(f"the token can't be read: {error}", where=named) from None
    return os.environ.get(variable, "")


def _file_of(variable: str) -> str:
    return f"{variable}_FILE"


def show_below(root: str) -> None:
    """Let requests for files below the address of an agent carry the token for agents.

    Parameters
    ----------
    root : str
        Such as ``https://taiga.example.org:8000``.
    """
    roots = _roots()
    if root not in roots:
        os.environ[_ROOTS_VARIABLE] = " ".join((*roots, root))


def authorization(url: str) -> dict[str, str]:
    """Return the header that shows the token for agents, for a URL below an agent's address; else nothing."""
    if any(url.startswith(f"{root}/") for root in _roots()) and (token := agent_token()):
        return {"Authorization": f"Bearer {token}"}
    return {}


@dataclass(frozen=True)
class ShownTokens:
    """The tokens of one process, on their way to another one that works for it.

    Attributes
    ----------
    roots : tuple of str
        Addresses of agents.
    """

    roots: tuple[str, ...]
    _agents: str = field(repr=False)
    _server: str = field(repr=False)

    @classmethod
    def of_this_process(cls) -> ShownTokens:
        """Return what this process shows.

        Raises
        ------
        ServerError
            If a file with a token can't be read.
        """
        return cls(_roots(), agent_token(), server_token())

    def take_over(self) -> None:
        """Show in this process what the other one shows; a token of its own stays where the other has none."""
        for root in self.roots:
            show_below(root)
        for variable, token in ((AGENT_TOKEN, self._agents), (SERVER_TOKEN, self._server)):
            if token:
                os.environ.pop(_file_of(variable), None)
                os.environ[variable] = token


def _roots() -> tuple[str, ...]:
    return tuple(os.environ.get(_ROOTS_VARIABLE, "").split())
