"""Elements of XML that comes from strangers: no declarations of types, no entities, and limits on everything.

What declares a document type is refused whole, since nothing here needs one and entities, which can grow without limit
or read files, need one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from apbatch.errors import FormatError

#: Elements within one another, elements and characters of one wanted element.
_DEEPEST, _MOST, _LONGEST = 100, 20_000, 4_000_000


def elements(pieces: Iterable[bytes], names: Iterable[str], where: str) -> Iterator[Element]:
    """Yield the elements of some names, each whole, as soon as it ends; nothing else is kept.

    Parameters
    ----------
    pieces : iterable of bytes
        The document, in pieces of any length.
    names : iterable of str
        Names, ``{namespace}name``; those within a wanted one come as a part of it.
    where : str
        Name of the document, for errors.

    Raises
    ------
    FormatError
        If it is no whole XML, has a document type, or is beyond the limits.
    """
    collector = _Collector(frozenset(names))
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = collector.start, collector.end
    parser.CharacterDataHandler = collector.data
    parser.StartDoctypeDeclHandler = collector.doctype
    try:
        for piece in pieces:
            parser.Parse(piece, False)
            yield from collector.complete()
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        reason = expat.errors.messages.get(error.code, "not well formed")
        raise FormatError(f"no whole XML: {reason}", where=f"{where}:{error.lineno}") from None
    except _RefusedError as error:
        raise FormatError(str(error), where=f"{where}:{parser.CurrentLineNumber}") from None
    yield from collector.complete()


class _RefusedError(Exception):
    """The document asks for too much."""


class _Collector:
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._depth = self._level = self._count = self._length = 0
        self._builder: TreeBuilder | None = None
        self._complete: list[Element] = []

    def complete(self) -> list[Element]:
        """Return the elements that ended since the last call."""
        complete, self._complete = self._complete, []
        return complete

    def doctype(self, *_: Any) -> None:
        """Refuse it."""
        raise _RefusedError("a document type is declared, which could define entities")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Take the begin of an element."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _RefusedError(f"elements lie within one another more than {_DEEPEST} deep")
        tag = _named(name)
        if self._builder is None and tag in self._names:
            self._builder, self._level, self._count, self._length = TreeBuilder(), self._depth, 0, 0
        if self._builder is not None:
            self._count += 1
            self._add(len(name) + sum(len(key) + len(value) for key, value in attributes.items()))
            if self._count > _MOST:
                raise _RefusedError(f"a record has more than {_MOST} elements")
            self._builder.start(tag, {_named(key): value for key, value in attributes.items()})

    def end(self, name: str) -> None:
        """Take the end of an element."""
        if self._builder is not None:
            self._builder.end(_named(name))
            if self._depth == self._level:
                self._complete.append(self._builder.close())
                self._builder = None
        self._depth -= 1

    def data(self, text: str) -> None:
        """Take text."""
        if self._builder is not None:
            self._add(len(text))
            self._builder.data(text)

    def _add(self, length: int) -> None:
        self._length += length
        if self._length > _LONGEST:
            raise _RefusedError(f"a record is longer than {_LONGEST} characters")


def _named(name: str) -> str:
    return "{" + name if "}" in name else name
