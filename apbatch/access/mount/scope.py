"""What a mount shows: a part of the tree, under a policy, for somebody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import ANYONE, OWNER, Principal
from apbatch.access.view import WHOLE, View
from apbatch.errors import UsageError
from apbatch.index.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class MountScope:
    """What a mount shows.

    Attributes
    ----------
    view : View
    policy : pathlib.Path, optional
        A policy of its own; by default the one that the settings name, or the catalogue holds.
    user : str
        For whom; empty: the owner, or anyone if there is a policy of its own.
    groups : tuple of str
        Of the user.
    catalogue : str
        URL of the catalogue, or of a server; empty: what the settings say.
    """

    view: View = WHOLE
    policy: Path | None = None
    user: str = ""
    groups: tuple[str, ...] = ()
    catalogue: str = ""

    def __post_init__(self) -> None:
        if self.groups and not self.user:
            raise UsageError("'--group' goes with '--as USER'")

    @property
    def who(self) -> Principal:
        """For whom the mount looks at the tree."""
        if self.user:
            return Principal(self.user, frozenset(self.groups))
        return OWNER if self.policy is None else ANYONE

    def doors(self, catalogue: Catalogue) -> tuple[Guard, Guard]:
        """Return what may be seen and read, and what the feed tells: of the whole tree, since a feed knows no places.

        Raises
        ------
        UsageError
            If the policy or the view is wrong.
        """
        rules = Policy.in_force(catalogue, self.policy)
        scope = self.view.scope(catalogue.attributes())
        return Guard(catalogue, None, rules, self.who, scope), Guard(catalogue, None, rules, self.who)

    def check_server(self) -> None:
        """Make sure that a server can show this: whom it shows what is its own affair.

        Raises
        ------
        UsageError
        """
        if self.view.select or self.policy is not None or self.user:
            what = "a server decides itself what it shows: --select, --policy and --as are for a catalogue of one's own"
            raise UsageError(what, remedy="search with DIR/.find/QUERY/; apbatch gateway --select serves a part")

    def options(self) -> list[str]:
        """Return the options of the command line that say the same."""
        return list(self._options())

    def _options(self) -> Iterator[str]:
        named = {
            "--select": self.view.select,
            "--below": self.view.below,
            "--as": self.user,
            "--catalogue": self.catalogue,
        }
        for name, value in named.items():
            if value:
                yield f"{name}={value}"
        if self.policy is not None:
            yield f"--policy={self.policy}"
        for group in self.groups:
            yield f"--group={group}"
