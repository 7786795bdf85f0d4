"""Files, changes and hashes as JSON between an agent, an aggregator and readers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from apbatch.errors import FormatError
from apbatch.formats.reader import Attribute
from apbatch.index.attributes import COMMON
from apbatch.index.changes import Change, ChangeKind
from apbatch.index.files import COMMON_FIELDS, FileRecord, State
from apbatch.index.records import from_plain, to_plain

#: Header of an agent's refusal that concerns the file that was asked for, not the agent; and its value.
CONCERNS, ITS_FILE = "apbatch-concerns", "file"


def record_to_json(record: FileRecord) -> dict[str, Any]:
    """Return a file as JSON takes it; times are UTC."""
    common = {name: to_plain(getattr(record, name)) for name in COMMON_FIELDS}
    return {**common, "attributes": {name: to_plain(value) for name, value in record.attributes.items()}}


def record_from_json(content: Any, attributes: Mapping[str, Attribute]) -> FileRecord:
    """Return the file that JSON describes.

    Parameters
    ----------
    content : object
        What `record_to_json` returned, by way of a network.
    attributes : Mapping
        Declarations of the sender.

    Raises
    ------
    FormatError
        If it is none.
    """
    try:
        declarations = {**COMMON, **attributes}
        values = {name: from_plain(declarations[name], content[name]) for name in COMMON_FIELDS if name != "revision"}
        values["state"] = State(values["state"])
        more = {name: from_plain(declarations[name], value) for name, value in content["attributes"].items()}
        return FileRecord(**values, attributes=more)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"not a file of the catalogue: {type(error).__name__}: {error}") from None


def attribute_to_json(attribute: Attribute) -> dict[str, Any]:
    """Return the declaration of an attribute as JSON takes it."""
    return {name: getattr(attribute, name) for name in ("name", "type", "description", "unit")}


def attribute_from_json(content: Any) -> Attribute:
    """Return the declaration that JSON describes.

    Raises
    ------
    FormatError
        If it is none.
    """
    try:
        name, kind, description, unit = (content[key] for key in ("name", "type", "description", "unit"))
        texts = all(isinstance(value, str) for value in (name, description, unit or ""))
        if not texts or kind not in ("string", "integer", "number", "boolean", "date", "time"):
            raise ValueError(kind)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"not an attribute: {type(error).__name__}: {error}") from None
    return Attribute(name, kind, description, unit)


def change_to_json(change: Change) -> dict[str, Any]:
    """Return a change as JSON takes it."""
    record = None if change.record is None else record_to_json(change.record)
    return {
        "revision": change.revision,
        "kind": change.kind.value,
        "key": change.key,
        "detail": change.detail,
        "record": record,
    }


def change_from_json(content: Any, attributes: Mapping[str, Attribute]) -> Change:
    """Return the change that JSON describes.

    Raises
    ------
    FormatError
        If it is none.
    """
    try:
        record = None if content["record"] is None else record_from_json(content["record"], attributes)
        revision, key, detail = content["revision"], content["key"], content["detail"]
        if type(revision) is not int or not isinstance(key, str) or not isinstance(detail, str):
            raise ValueError(revision)
        return Change(revision, ChangeKind(content["kind"]), key, detail, record)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"not a change: {type(error).__name__}: {error}") from None


def sse_event(change: Change) -> bytes:
    """Return a change as a server-sent event, whose id is the revision."""
    content = json.dumps(change_to_json(change), ensure_ascii=False)  # one line: JSON escapes line ends
    return f"id: {change.revision}\nevent: {change.kind.value}\ndata: {content}\n\n".encode()


def weak_tag(record: FileRecord) -> str:
    """Return the entity tag of a file of which only size and time are known."""
    return f'W/"{record.size:x}-{record.mtime_ns:x}"'
