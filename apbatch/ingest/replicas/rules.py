"""Rules that say which files have replicas in which store: a checked YAML file (``conf/replicas.yaml``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pydantic import Field, model_validator

from apbatch.config import Section, Settings
from apbatch.errors import ApbatchError, UsageError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.files import FileRecord
from apbatch.index.parser import parse
from apbatch.ingest.replicas.stores import replica_path, target_store
from apbatch.storage.store import Store
from apbatch.yamlfile import read_yaml, validate


class RuleText(Section):
    """A rule as it is written.

    Attributes
    ----------
    name : str
        By which messages call it.
    query : str
        Which files; as everywhere, only registered ones unless it names `state`.
    nights : int, optional
        Of these only the last so many nights, the present one included.
    to : str
        Store, as ``apbatch mirror --to`` takes it.
    under : str
        Folder in the store.
    """

    name: str = Field(min_length=1, max_length=200)
    query: str
    nights: int | None = Field(default=None, ge=1, le=100_000)
    to: str
    under: str = ""


class Retired(Section):
    """A folder of a store that no rule fills any more, and that pruning empties."""

    to: str
    under: str = ""


class RulesText(Section):
    """The file of rules as it is written."""

    rules: tuple[RuleText, ...] = Field(min_length=1, max_length=1000)
    retired: tuple[Retired, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> RulesText:
        names = [rule.name for rule in self.rules]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two rules are called '{twice}'")
        return self


@dataclass(frozen=True)
class ReplicaRule:
    """Which files have a replica in a folder of a store.

    Attributes
    ----------
    name : str
    query : Query
        As it is today; `NOTHING` for a retired folder.
    store : Store
    under : str
    """

    name: str
    query: q.Query
    store: Store
    under: str = ""

    def wants(self, record: FileRecord) -> bool:
        """Tell whether a file is to have a replica by this rule."""
        return q.matches(q.of_registered(self.query), record.flat())

    def url(self, record: FileRecord) -> str:
        """Return the URL of the replica that a file has or would have by this rule."""
        return self.store.url_of(replica_path(record, self.under))


@dataclass(frozen=True)
class ReplicaRules:
    """All rules, and the retired folders as rules that want nothing."""

    rules: tuple[ReplicaRule, ...]
    retired: tuple[ReplicaRule, ...] = ()

    def unwanted(self, record: FileRecord, urls: Sequence[str]) -> dict[str, ReplicaRule]:
        """Return, by URL, those of a file's replicas that lie where rules put them and that no rule wants."""
        by_url: dict[str, ReplicaRule] = {}
        targets: set[str] = set()
        for rule in (*self.rules, *self.retired):
            url = rule.url(record)
            by_url.setdefault(url, rule)
            if url in urls and rule.wants(record):
                targets.add(url)
        return {url: by_url[url] for url in urls if url in by_url and url not in targets}


def load_rules(
    path: Path, attributes: Mapping[str, Attribute], settings: Settings | None = None, night: date | None = None
) -> ReplicaRules:
    """Read a file of rules.

    Parameters
    ----------
    path : pathlib.Path
    attributes : Mapping
        What queries may name, as `Catalogue.attributes` returns it.
    settings : Settings, optional
        Whose store `store` stands for.
    night : datetime.date, optional
        The present night, from which ``nights`` counts; by default that of the clock (noon to noon, UTC).

    Raises
    ------
    NotFoundError, UsageError
        With the line of what is wrong.
    ServerError
        If a rule names a development server that is not up.
    """
    content, lines = read_yaml(path)
    text = validate(path, content, lines, RulesText)
    tonight = night or (datetime.now(UTC) - timedelta(hours=12)).date()
    rules = []
    for number, rule in enumerate(text.rules):
        try:
            rules.append(_compiled(rule, attributes, settings, tonight))
        except ApbatchError as error:
            inner = f", {error.where}" if error.where else ""
            error.what = f"rule '{rule.name}': {error.what}"
            error.where = f"{path}:{lines.get(('rules', number), 1)}{inner}"
            raise
    retired = tuple(
        ReplicaRule("retired", q.NOTHING, target_store(one.to, settings), one.under) for one in text.retired
    )
    return ReplicaRules(tuple(rules), retired)


def _compiled(
    rule: RuleText, attributes: Mapping[str, Attribute], settings: Settings | None, tonight: date
) -> ReplicaRule:
    query = parse(rule.query, attributes)
    if rule.nights is not None:
        if rule.nights > (tonight - date.min).days:
            raise UsageError("there are not so many nights")
        recent = q.Compare("night", ">", tonight - timedelta(days=rule.nights))
        query = recent if isinstance(query, q.Everything) else q.And((query, recent))
    return ReplicaRule(rule.name, query, target_store(rule.to, settings), rule.under)
