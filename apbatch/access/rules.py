"""The rules of a policy file: checked YAML, compiled to conditions of the query language (``docs/policy.md``).

Rules only allow; what no rule allows is denied. So their order means nothing, and a rule can be read alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from apbatch.access.principals import Principal
from apbatch.config import Section
from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.attributes import known_attribute
from apbatch.index.events.columns import event_attributes
from apbatch.index.parser import parse
from apbatch.yamlfile import parse_yaml, validate

#: Most rules of a policy: SQLite takes conditions that are nested a thousand deep.
_MOST_RULES = 200
_EMBARGO = re.compile(r"(\d{1,3}) (day|month|year)s? after ([a-z][a-z0-9_]*)")
#: Attributes of files that mean the same of an event, under the name that they have there.
_OF_EVENTS = {"experiment": "experiment", "run": "run", "night": "night", "telescope": "telescope", "path": "file",
              "checksum": "content"}  # fmt: skip


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Holders(Section):
    """Whom a rule is for: any of these.

    Attributes
    ----------
    users, groups, roles : tuple of str
        Names as tokens have them; of groups also those of the policy file.
    """

    users: Names = ()
    groups: Names = ()
    roles: Names = ()

    @model_validator(mode="after")
    def _someone(self) -> Holders:
        if not (self.users or self.groups or self.roles):
            raise ValueError("name 'users', 'groups' or 'roles', or write 'anyone'")
        return self


class RuleText(Section):
    """A rule as it is written.

    Attributes
    ----------
    name : str
        By which messages call it.
    who : ``anyone`` or Holders
    may : str
        ``metadata``: see names, sizes, attributes; ``data``: read bytes and events as well.
    below : tuple of str
        Folders of the merged tree; by default the whole tree.
    query : str
        Condition on files; by default all.
    embargo : str, optional
        Such as ``2 years after night``: only what is older.
    events : str, optional
        Condition on events that stands for the others; by default they are translated as far as events have the
        attributes, and no event is allowed where they have not.
    """

    name: str = Field(min_length=1, max_length=200)
    who: Literal["anyone"] | Holders
    may: Literal["metadata", "data"]
    below: Names = ()
    query: str = ""
    embargo: str | None = None
    events: str | None = None

    @field_validator("below")
    @classmethod
    def _folders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for folder in value:
            if not folder.startswith("/") or "//" in folder or set(folder.split("/")) & {".", ".."}:
                raise ValueError(f"'{folder}' is not a folder of the merged tree, such as /taiga/raw")
        return tuple(folder.rstrip("/") for folder in value)

    @field_validator("embargo")
    @classmethod
    def _embargo(cls, value: str | None) -> str | None:
        if value is not None and not _EMBARGO.fullmatch(value):
            raise ValueError("write it as '2 years after night' (days, months or years; an attribute with a date)")
        return value

    @model_validator(mode="after")
    def _events_are_data(self) -> RuleText:
        if self.events is not None and self.may == "metadata":
            raise ValueError("'events' goes with 'may: data': image parameters are data")
        return self


class PolicyText(Section):
    """A policy as it is written.

    Attributes
    ----------
    groups : dict
        Names of users by group, besides the groups that tokens tell.
    rules : tuple of RuleText
    """

    groups: dict[str, Names] = Field(default_factory=dict)
    rules: tuple[RuleText, ...] = Field(default=(), max_length=_MOST_RULES)

    @model_validator(mode="after")
    def _names_differ(self) -> PolicyText:
        names = [rule.name for rule in self.rules]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two rules are called '{twice}'")
        return self


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule whose conditions are parsed; `at` gives them for a day."""

    text: RuleText
    files: q.Query
    events: q.Query | None
    embargo: tuple[int, str, str, str] | None

    def is_for(self, who: Principal, groups: frozenset[str]) -> bool:
        """Tell whether a rule is for somebody with these groups."""
        holders = self.text.who
        if isinstance(holders, str):
            return True
        return who.name in holders.users or bool(groups & {*holders.groups}) or bool(who.roles & {*holders.roles})

    def of_files(self, today: date) -> q.Query:
        """Return the condition on files, as it is on a day (UTC)."""
        parts = [self.files] if not isinstance(self.files, q.Everything) else []
        if self.embargo is not None:
            number, unit, name, kind = self.embargo
            limit = _before(today, number, unit)
            end = datetime.combine(limit, time(), UTC) if kind == "time" else limit
            parts.append(q.Compare(name, "<=", end))
        return parts[0] if len(parts) == 1 else q.And(tuple(parts)) if parts else q.Everything()

    def of_events(self, today: date) -> q.Query:
        """Return the condition on events, as it is on a day."""
        if self.events is not None:
            return self.events
        return _translated(q.normalise(self.of_files(today)))


def compile_rules(
    text: str, where: Path, attributes: Mapping[str, Attribute]
) -> tuple[dict[str, frozenset[str]], tuple[Rule, ...]]:
    """Return the groups of each user and the rules of a policy.

    Parameters
    ----------
    text : str
        YAML.
    where : Path
        What messages call it.
    attributes : Mapping
        Attributes that a rule may name, as `Catalogue.attributes` returns them.

    Raises
    ------
    UsageError
        With the line of what is wrong.
    """
    content, lines = parse_yaml(text, where)
    written = validate(where, content, lines, PolicyText)
    rules = []
    for number, rule in enumerate(written.rules):
        line = lines.get(("rules", number), 1)
        try:
            rules.append(_compiled(rule, attributes))
        except UsageError as error:
            place = f"{where}:{line}" + (f", {error.where}" if error.where else "")
            what = f"rule '{rule.name}': {error.what}"
            raise UsageError(what, where=place, nearest=error.nearest, remedy=error.remedy) from None
    groups: dict[str, set[str]] = {}
    for group, users in written.groups.items():
        for user in users:
            groups.setdefault(user, set()).add(group)
    return {user: frozenset(names) for user, names in groups.items()}, tuple(rules)


def _compiled(rule: RuleText, attributes: Mapping[str, Attribute]) -> Rule:
    parts: list[q.Query] = []
    below = [in_folder(folder) for folder in rule.below]
    if below and not any(isinstance(one, q.Everything) for one in below):
        parts.append(below[0] if len(below) == 1 else q.Or(tuple(below)))
    if rule.query.strip():
        parts.append(parse(rule.query, attributes))
    files = parts[0] if len(parts) == 1 else q.And(tuple(parts)) if parts else q.Everything()
    events = None if rule.events is None else parse(rule.events, event_attributes())
    embargo = None
    if rule.embargo is not None:
        match = _EMBARGO.fullmatch(rule.embargo)
        assert match is not None  # the model made sure
        attribute = known_attribute(match[3], attributes)
        if attribute.type not in ("date", "time"):
            raise UsageError(f"an embargo counts from a date or a time, which '{attribute.name}' is not")
        embargo = (int(match[1]), match[2], attribute.name, attribute.type)
    return Rule(rule, files, events, embargo)


def in_folder(folder: str) -> q.Query:
    """Return the condition that a file lies in a folder of the merged tree, or is that file itself."""
    if not folder:
        return q.Everything()
    return q.Or((q.Compare("place", "=", folder), q.Like("place", f"{_plain(folder)}/%")))


def _plain(text: str) -> str:
    """Return text as a `like` pattern that only it fits."""
    return re.sub(r"([\\%_])", r"\\\1", text)


def _before(today: date, number: int, unit: str) -> date:
    """Return the last day that is so long ago; of a month that has no such day, its last."""
    if unit == "day":
        return today - timedelta(days=number)
    months = today.year * 12 + today.month - 1 - number * (12 if unit == "year" else 1)
    if months < 12:
        return date.min
    first = date(months // 12, months % 12 + 1, 1)
    following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
    return min(first.replace(day=1) + timedelta(days=today.day - 1), following - timedelta(days=1))


def _translated(query: q.Query) -> q.Query:
    """Return a normalised condition on files as one on events: a part that events have no attribute for never holds."""
    match query:
        case q.And(parts):
            parts = tuple(map(_translated, parts))
            return q.NOTHING if q.NOTHING in parts else q.And(parts)
        case q.Or(parts):
            parts = tuple(part for part in map(_translated, parts) if part != q.NOTHING)
            return q.Or(parts) if parts else q.NOTHING
        case q.Everything() | q.Not(q.Everything()):
            return query
        case q.Not(part):
            inner = _translated(part)
            return q.NOTHING if inner == q.NOTHING else q.Not(inner)
        case q.Cone():
            return q.NOTHING
        case q.Compare(name) | q.Between(name) | q.In(name) | q.Like(name) if name in _OF_EVENTS:
            return _renamed(query, _OF_EVENTS[name])
        case _:
            return q.NOTHING


def _renamed(query: Any, name: str) -> q.Query:
    renamed: q.Query = replace(query, name=name)
    return renamed
