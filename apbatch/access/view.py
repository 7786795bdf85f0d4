"""A part of the merged tree that is shown alone: below a folder, or what a query picks, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from apbatch.access.rules import in_folder
from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.parser import parse


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of the merged tree; the rest is as if it were not there.

    Attributes
    ----------
    select : str
        Condition on files, as `apbatch find` takes it; empty: all.
    below : str
        Folder of the merged tree; empty: the whole tree.
    """

    select: str = ""
    below: str = ""

    @property
    def folder(self) -> str:
        """The folder as the merged tree names it: the root is the empty text."""
        inner = self.below.strip("/")
        return f"/{inner}" if inner else ""

    def scope(self, attributes: Mapping[str, Attribute]) -> q.Query | None:
        """Return the condition on files for `Guard`; None if everything is shown.

        Parameters
        ----------
        attributes : Mapping
            Attributes that the condition may name.

        Raises
        ------
        UsageError
            If the condition is wrong, or the folder is none.
        """
        if "//" in self.folder or {".", ".."}.intersection(self.folder.split("/")):
            raise UsageError("not a folder of the merged tree, such as /taiga/raw", where=self.below)
        parts = [parse(self.select, attributes)] if self.select.strip() else []
        parts += [in_folder(self.folder)] if self.folder else []
        return q.And(tuple(parts)) if len(parts) > 1 else parts[0] if parts else None


WHOLE = View()
