"""What a suite of the benchmark is, and what it is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from apbatch.bench.runner import Group
from apbatch.bench.sizes import Size


class Servers(Protocol):
    """What the benchmark wants of development servers (see `apbatch.bench.servers`)."""

    def endpoint(self, server: str, name: str) -> str:
        """Return the address `name` of a server, starting it if that is allowed.

        Raises
        ------
        ApbatchError
            If it can't be had.
        """
        ...


@dataclass
class Setting:
    """What the suites of one run have to work with.

    Attributes
    ----------
    size : Size
    servers : Servers
    scratch : pathlib.Path
        An empty folder, removed at the end.
    data : pathlib.Path, optional
        Folder of real data; suites make up what they need where there is none.
    left_out : dict of str to str
        Peers that can't take part, and why; suites add to it.
    at_end : contextlib.ExitStack
        What is undone when the run ends.
    """

    size: Size
    servers: Servers
    scratch: Path
    data: Path | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    at_end: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True)
class Suite:
    """One entry of the table of suites.

    Attributes
    ----------
    title : str
        Headline in the report.
    groups : callable
        Yields the groups to run, one an operation. It finds its peers by itself when the first group is asked for.
    operations : int
        How many groups that will be, for the progress bar.
    servers : tuple of str
        Development servers that are started for it.
    choices : tuple of pairs of str
        Peers between which a user has to choose; the report gives advice where samples agree.
    limits : tuple of str
        What its figures can't tell, for the reader of the report.
    """

    title: str
    groups: Callable[[Setting], Iterator[Group]]
    operations: int
    servers: tuple[str, ...] = ()
    choices: tuple[tuple[str, str], ...] = ()
    limits: tuple[str, ...] = ()
