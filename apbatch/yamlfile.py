"""YAML files checked against a pydantic model: all faults at once, each with its line and the nearest right key.

Files are read as YAML 1.2 with its core schema: ``no``, ``on`` and ``22:00:52`` are text, ``0123`` is 123, ``1e3`` is
1000. Beyond the core schema, dates and times (``2017-10-28``) are what they look like, and ``<<`` merges mappings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from apbatch.errors import NotFoundError, UsageError, nearest_word
from apbatch.messages import with_article

Model = TypeVar("Model", bound=BaseModel)
Lines = dict[tuple[Hashable, ...], int]

_MOST_BYTES = 10 << 20
#: Values after aliases are replaced by what they stand for, so that a small file can't fill the memory.
_MOST_VALUES = 100_000
_DEEPEST = 60
_TAG = "tag:yaml.org,2002:"


def _whole_number(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("the number is too large")
    return value


def _time(text: str) -> datetime:
    return datetime.fromisoformat(re.sub(r"[ \t]+", " ", text))


_NULLS = ("", "~", "null", "Null", "NULL")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
#: Plain scalars that are not text, in the order in which they are tried.
_SCALARS: tuple[tuple[str, re.Pattern[str], Callable[[str], Any]], ...] = (
    ("null", re.compile("|".join(map(re.escape, _NULLS))), lambda text: None),
    ("bool", re.compile("|".join(_BOOLEANS)), _BOOLEANS.__getitem__),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), _whole_number),
    ("float", re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), _number),
    ("float", re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
    ("timestamp", re.compile(r"\d{4}-\d\d-\d\d"), date.fromisoformat),
    ("timestamp", re.compile(r"\d{4}-\d\d-\d\d(?:[Tt]|[ \t]+)\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[-+]\d\d:\d\d)?"), _time),
)


@dataclass
class _Value:
    """A value with the line of each key and item below it, and how many values it is made of."""

    content: Any
    lines: Lines
    size: int = 1


class _Builder:
    """Makes values of the events of a YAML parser."""

    def __init__(self, path: Path, events: Iterator[Any]) -> None:
        self._path, self._events = path, events
        self._anchors: dict[str, _Value] = {}
        self._size = 0

    def document(self) -> _Value:
        """Return the only document of the file; None for an empty one."""
        root: _Value | None = None
        for event in self._events:
            kind = _kind(event)
            if kind == "DocumentStart":
                if root is not None:
                    self._refuse("a second document begins here; one is wanted", event)
                if event.version not in (None, (1, 2)):
                    self._refuse("files are read as YAML 1.2; leave the %YAML line out", event)
                root = self._value(next(self._events), 0)
        return root or _Value(None, {(): 1})

    def _refuse(self, what: str, event: Any) -> NoReturn:
        mark = event.start_mark
        raise UsageError(f"not valid YAML: {what}", where=f"{self._path}:{mark.line + 1}:{mark.column + 1}")

    def _value(self, event: Any, depth: int) -> _Value:
        kind = _kind(event)
        if depth > _DEEPEST:
            self._refuse(f"more than {_DEEPEST} levels", event)
        if kind == "Alias":
            if event.anchor not in self._anchors:
                self._refuse(f"*{event.anchor} stands for nothing before it, or for what it is part of", event)
            value = self._anchors[event.anchor]
        elif kind == "Scalar":
            value = _Value(self._scalar(event), {(): event.start_mark.line + 1})
        elif kind == "SequenceStart":
            value = self._sequence(event, depth)
        else:
            value = self._mapping(event, depth)
        self._size += value.size if kind == "Alias" else 1
        if self._size > _MOST_VALUES:
            self._refuse(f"more than {_MOST_VALUES} values", event)
        if kind != "Alias" and event.anchor:
            self._anchors[event.anchor] = value
        return value

    def _scalar(self, event: Any) -> Any:
        tag, text = self._tag(event), event.value
        if tag == "str" or (tag is None and event.style is not None):
            return text
        for name, pattern, convert in _SCALARS:
            if tag in (None, name) and pattern.fullmatch(text):
                try:
                    return convert(text)
                except ValueError as error:
                    self._refuse(f"'{text[:40]}': {error}", event)
        if tag is not None:
            self._refuse(f"'{text[:40]}' is not {with_article(tag)}", event)
        return text

    def _tag(self, event: Any) -> str | None:
        tag = None if event.tag is None or event.tag == "!" else str(event.tag)
        if tag is None:
            return "str" if event.tag == "!" else None
        name = tag.removeprefix(_TAG)
        if name not in ("null", "bool", "int", "float", "timestamp", "str", "seq", "map") or name == tag:
            self._refuse(f"the tag {tag.replace(_TAG, '!!')} has no meaning here", event)
        return name

    def _sequence(self, event: Any, depth: int) -> _Value:
        self._tag(event)
        found = _Value([], {(): event.start_mark.line + 1})
        while _kind(item := next(self._events)) != "SequenceEnd":
            self._add(found, len(found.content), item.start_mark.line + 1, value := self._value(item, depth + 1))
            found.content.append(value.content)
        return found

    def _mapping(self, event: Any, depth: int) -> _Value:
        self._tag(event)
        found = _Value({}, {(): event.start_mark.line + 1})
        merged: list[tuple[Any, _Value]] = []
        while _kind(key_event := next(self._events)) != "MappingEnd":
            if _kind(key_event) != "Scalar":
                self._refuse("a key must be a plain word", key_event)
            key, line = key_event.value, key_event.start_mark.line + 1
            value = self._value(next(self._events), depth + 1)
            if key == "<<" and key_event.style is None:
                merged.append((key_event, value))
                continue
            if key in found.content:
                self._refuse(f"key '{key}' is given twice (first on line {found.lines[(key,)]})", key_event)
            self._add(found, key, line, value)
            found.content[key] = value.content
        for key_event, value in merged:
            self._merge(found, key_event, value)
        return found

    @staticmethod
    def _add(parent: _Value, key: Hashable, line: int, value: _Value) -> None:
        parent.size += value.size
        parent.lines |= {(key, *below): at for below, at in value.lines.items()}
        parent.lines[(key,)] = line

    def _merge(self, target: _Value, event: Any, value: _Value) -> None:
        """Put the keys of a mapping, or of each of a list of mappings, beside those that are there."""
        many = isinstance(value.content, list)
        for index, content in enumerate(value.content if many else [value.content]):
            if not isinstance(content, dict):
                self._refuse("<< takes a mapping, or a list of mappings", event)
            for key in content.keys() - target.content.keys():
                at = (index, key) if many else (key,)
                below = {place[len(at) :]: line for place, line in value.lines.items() if place[: len(at)] == at}
                self._add(target, key, below.get((), 1), _Value(content[key], below))
                target.content[key] = content[key]


def _kind(event: Any) -> str:
    return type(event).__name__.removesuffix("Event")


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """Read a YAML file; return its content and the line of every key and item by its location.

    Raises
    ------
    NotFoundError
        If there is no such file.
    UsageError
        If it is not YAML (with line and column).
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFoundError("no such file", where=str(path)) from error
    except (UnicodeDecodeError, OSError) as error:
        raise UsageError(f"can't be read: {error}", where=str(path)) from error
    if len(content) > _MOST_BYTES:
        raise UsageError(f"larger than {_MOST_BYTES >> 20} MiB: no file of settings", where=str(path))
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> tuple[Any, Lines]:
    """Return the content of YAML, and lines, as `read_yaml` does; `path` is what messages call the text.

    Raises
    ------
    UsageError
        If it is not YAML (with line and column).
    """
    try:
        value = _Builder(path, YAML(typ="safe", pure=True).parse(text)).document()
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise UsageError(f"not valid YAML: {reason}", where=f"{path}{place}") from error
    except (ValueError, IndexError, AttributeError, RecursionError, StopIteration) as error:
        # The parser is not proof against every text.
        raise UsageError(f"not valid YAML: {type(error).__name__}: {error}", where=str(path)) from error
    return value.content, value.lines


def dump_yaml(content: dict[str, Any]) -> str:
    """Return content as YAML that `read_yaml` reads as it was: all text is quoted, so that none looks like a number."""

    def quoted(value: Any) -> Any:
        if isinstance(value, str):
            return DoubleQuotedScalarString(value)
        if isinstance(value, dict):
            return {key: quoted(item) for key, item in value.items()}
        return [quoted(item) for item in value] if isinstance(value, list | tuple) else value

    emitter = YAML(pure=True)
    emitter.width = 1 << 20
    sink = StringIO()
    emitter.dump({key: quoted(value) for key, value in content.items()}, sink)
    return sink.getvalue()


def load_model(path: Path, model: type[Model]) -> Model:
    """Read the YAML file at `path` and validate it against `model`.

    Raises
    ------
    NotFoundError, UsageError
        With one line a fault: file, line, what is wrong, the nearest right key.
    """
    content, lines = read_yaml(path)
    return validate(path, content, lines, model)


def validate(path: Path, content: Any, lines: Lines, model: type[Model], at: tuple[Hashable, ...] = ()) -> Model:
    """Validate a part of a YAML file against a model.

    Parameters
    ----------
    path : pathlib.Path
        The file, for errors.
    content : object
        The part, as read from YAML.
    lines : Lines
        Lines of the keys of the whole file.
    model : type
        A pydantic model.
    at : tuple
        Keys and indices that lead to the part.

    Raises
    ------
    UsageError
        With the lines of all faults.
    """
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UsageError("a mapping of keys to values is wanted here", where=f"{path}:{_line(lines, at)}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UsageError("\n".join(_fault(path, fault, lines, model, at) for fault in error.errors())) from None


def _line(lines: Lines, location: tuple[Hashable, ...]) -> int:
    while location not in lines and location:
        location = location[:-1]
    return lines.get(location, 1)


def _fault(path: Path, fault: Any, lines: Lines, model: type[BaseModel], at: tuple[Hashable, ...]) -> str:
    location = tuple(fault["loc"])
    place = f"{path}:{_line(lines, (*at, *location))}"
    name = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        near = nearest_word(str(location[-1]), _keys_at(model, location[:-1]))
        hint = f"; did you mean '{near}'?" if near else ""
        return f"{place}: unknown key '{name}'{hint}"
    if fault["type"] == "missing":
        return f"{place}: key '{name}' is missing"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_type" and isinstance(fault["input"], bool | int | float | date):
        message = f"text is wanted, and {fault['input']} is not: put it into quotes"
    return f"{place}: {name}: {message}" if name else f"{place}: {message}"


def _keys_at(model: type[BaseModel], location: tuple[Hashable, ...]) -> list[str]:
    """Keys that are known at a location, following nested models."""
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        annotation = field.annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        nested = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if nested:
            model = nested[0]
    return [field.alias or name for name, field in model.model_fields.items()]
