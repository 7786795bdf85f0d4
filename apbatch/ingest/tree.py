"""Places: where a site's files stand in the merged tree, which may be other than where they lie at the site."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from apbatch.formats.reader import Scalar
from apbatch.ingest.patterns import PathPattern, compile_pattern

_FIELD = re.compile(r"\{(?P<name>\w+)(?::(?P<format>[^{}]*))?\}")
_NO_PLACE = re.compile(r"//|/\.\.?(?:/|\Z)|/\Z|[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class PlaceRule:
    """One rule: files in a folder, or files whose path matches a pattern as a whole.

    Attributes
    ----------
    folder : str, optional
        Folder of the site; what follows it in a file's path follows `place` in the merged tree. Empty: the whole site.
    pattern : PathPattern, optional
        Instead of a folder.
    place : str
        Absolute path; with a pattern, ``{name}`` is the text of that part and ``{name:FORMAT}`` its value, formatted.
    """

    folder: str | None
    pattern: PathPattern | None
    place: str

    def place_of(self, source: str) -> str | None:
        """Return the place of a file by its path below the root; None if the rule is not for it."""
        if self.folder is not None:
            if not self.folder:
                return f"{self.place}/{source}"
            return f"{self.place}{source[len(self.folder) :]}" if source.startswith(f"{self.folder}/") else None
        assert self.pattern is not None
        match = self.pattern.expression.match(source)
        if match is None:
            return None
        values = self.pattern.values(source)
        if len(values) < len(self.pattern.types):
            return None  # a part that has no value, such as a day that no calendar has
        place = _FIELD.sub(lambda field: _fill(field, match, values), self.place)
        return None if _NO_PLACE.search(place) else place


def _fill(field: re.Match[str], match: re.Match[str], values: Mapping[str, Scalar]) -> str:
    return format(values[field["name"]], field["format"]) if field["format"] else match[field["name"]]


def compile_tree(tree: str | Mapping[str, str]) -> tuple[PlaceRule, ...]:
    """Return the rules of a site's ``tree``: a place for the whole site, or places by folders and patterns.

    Raises
    ------
    ValueError
        If a place is no absolute path, or names what its pattern does not have.
    """
    pairs: Iterable[tuple[str, str]] = [("", tree)] if isinstance(tree, str) else tree.items()
    return tuple(_rule(key, place) for key, place in pairs)


def _rule(key: str, place: str) -> PlaceRule:
    if not place.startswith("/") or _NO_PLACE.search(place):
        raise ValueError(f"'{place}' is not a place: an absolute path without '.', '..' and '/' at its end is wanted")
    if "{" not in key and "*" not in key and "?" not in key:
        if _FIELD.search(place):
            raise ValueError(f"'{place}' names a part, but '{key}' is a folder: write a pattern such as '{{name}}/*'")
        return PlaceRule(key.strip("/"), None, place)
    pattern = compile_pattern(key.strip("/"))
    for field in _FIELD.finditer(place):
        name = field["name"]
        if name not in pattern.types:
            raise ValueError(f"the pattern '{key}' has no part '{name}'")
        if field["format"]:
            kind = pattern.types[name]
            examples: dict[str, Scalar] = {"integer": 1, "number": 1.0, "date": date(2017, 10, 28)}
            example = examples.get(kind, "text")
            try:
                format(example, field["format"])
            except ValueError as error:
                raise ValueError(f"'{field[0]}' is not a format for a {kind}: {error}") from error
    if _NO_PLACE.search(_FIELD.sub("x", place)):
        raise ValueError(f"'{place}' is not a place")
    return PlaceRule(None, pattern, place)
