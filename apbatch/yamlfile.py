"""YAML files checked against a pydantic model: all faults at once, each with its line and the nearest right key."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from apbatch.errors import NotFoundError, UsageError, nearest_word

Model = TypeVar("Model", bound=BaseModel)
Lines = dict[tuple[Hashable, ...], int]


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses a key given twice."""


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: dict[Hashable, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key '{key}' is given twice (first on line {seen[key]})", key_node.start_mark
            )
        seen[key] = key_node.start_mark.line + 1
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """Read a YAML file; return its content and the line of every key and item by its location.

    Raises
    ------
    NotFoundError
        If there is no such file.
    UsageError
        If it is not YAML (with the line).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFoundError("no such file", where=str(path)) from error
    except (UnicodeDecodeError, PermissionError) as error:
        raise UsageError(f"can't be read: {error}", where=str(path)) from error
    try:
        # yaml.load with a subclass of SafeLoader is as safe as safe_load.
        content = yaml.load(text, Loader=_Loader)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"not valid YAML: {getattr(error, 'problem', error)}", where=f"{path}{line}") from error
    lines: Lines = {}
    if node is not None:
        _collect_lines(node, (), lines)
    return content, lines


def _collect_lines(node: yaml.Node, location: tuple[Hashable, ...], lines: Lines) -> None:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*location, key.value)] = key.start_mark.line + 1
            _collect_lines(value, (*location, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*location, index), lines)


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
    """Validate a part of a file, found at the location `at`, against `model`."""
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
