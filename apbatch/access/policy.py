"""The policy in force: read from a file or from the catalogue, read again when it changes (``docs/policy.md``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from apbatch.access.principals import Principal
from apbatch.access.rules import Rule, RuleText, compile_rules
from apbatch.config import load_settings
from apbatch.errors import ApbatchError, NotFoundError, UsageError
from apbatch.index import query as q
from apbatch.index.attributes import COMMON
from apbatch.index.catalogue import Catalogue
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.index.files import FileRecord
from apbatch.progress import say

#: The name under which the catalogue holds the policy that all hosts share.
SHARED = "policy"
#: Seconds after which a change of the policy is in force at the latest.
PERIOD_S = 15.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of a file.

    Attributes
    ----------
    rule : str
        Its name.
    may : str
        ``metadata`` or ``data``.
    applies : bool
        Whether the rule is for whoever asks.
    holds : bool
        Whether its condition holds for the file today.
    condition : str
        As a query, the embargo included.
    """

    rule: str
    may: str
    applies: bool
    holds: bool
    condition: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why somebody may see or read a file, or may not."""

    sees: bool
    reads: bool
    verdicts: tuple[Verdict, ...]


class Policy:
    """Who may see and read what. Without a file and without a shared policy only the owner sees anything.

    A policy is looked at again after `PERIOD_S` and compared by its text. One that became unreadable or wrong is
    reported and the last good one stays in force, so that a slip of the pen opens nothing and closes nothing.

    Parameters
    ----------
    read : callable
        Returns the text, or None where there is no policy, and what messages call it.
    catalogue : Catalogue, optional
        Whose attributes rules may name.
    today : callable, optional
        The day in UTC, for embargoes.
    """

    def __init__(
        self,
        read: Callable[[], tuple[str | None, Path]],
        catalogue: Catalogue | None = None,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._read, self._catalogue, self._today = read, catalogue, today
        self._lock = threading.Lock()
        self._text: str | None = None
        self._groups: dict[str, frozenset[str]] = {}
        self._rules: tuple[Rule, ...] = ()
        self._wrong: str | None = None
        self._next = 0.0
        self._take(first=True)

    @classmethod
    def load(cls, path: Path | None, catalogue: Catalogue | None = None) -> Policy:
        """Return the policy of a file; without one, that which the catalogue holds for all hosts, if there is any.

        Raises
        ------
        NotFoundError, UsageError
            If the file is missing or the policy is wrong; it names the line.
        """

        def of_file() -> tuple[str | None, Path]:
            assert path is not None
            try:
                return path.read_text(encoding="utf-8-sig"), path
            except FileNotFoundError:
                raise NotFoundError("no such policy file", where=str(path)) from None
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"can't be read: {error}", where=str(path)) from None

        def of_catalogue() -> tuple[str | None, Path]:
            return None if catalogue is None else shared(catalogue), Path("policy of the catalogue")

        return cls(of_file if path is not None else of_catalogue, catalogue)

    @classmethod
    def in_force(cls, catalogue: Catalogue, file: Path | None = None) -> Policy:
        """Return the policy that every command goes by: of a file, else of the settings, else of the catalogue.

        Parameters
        ----------
        catalogue : Catalogue
            Holds the policy that all hosts share, and the attributes that rules may name.
        file : pathlib.Path, optional
            What the command's ``--policy`` names; by default the file of ``service: policy:`` in the settings.

        Raises
        ------
        NotFoundError, UsageError
            If the file is missing or the policy is wrong; it names the line.
        """
        named = load_settings().service.policy
        return cls.load(file or (Path(named) if named else None), catalogue)

    @property
    def exists(self) -> bool:
        """Whether there is a policy at all."""
        self._fresh()
        return self._text is not None

    @property
    def fault(self) -> str | None:
        """What is wrong with the newest text, so that an older one is in force; None if nothing is."""
        self._fresh()
        return self._wrong

    def metadata(self, who: Principal) -> q.Query | None:
        """Return the condition on files that somebody may see; None if all."""
        return self._condition(who, ("metadata", "data"), Rule.of_files)

    def data(self, who: Principal) -> q.Query | None:
        """Return the condition on files that somebody may read; None if all."""
        return self._condition(who, ("data",), Rule.of_files)

    def events(self, who: Principal) -> q.Query | None:
        """Return the condition on events that somebody may read; None if all. Image parameters are data."""
        return self._condition(who, ("data",), Rule.of_events)

    def rules_today(self) -> list[tuple[RuleText, q.Query, q.Query]]:
        """Return the rules in force, each with its conditions on files and on events of today."""
        rules, today = self._fresh(), self._today()
        return [(rule.text, rule.of_files(today), rule.of_events(today)) for rule in rules]

    def explain(self, who: Principal, record: FileRecord) -> Explanation:
        """Say why somebody may see and read a file, rule by rule."""
        rules, today = self._fresh(), self._today()
        values = record.flat()
        verdicts = []
        for rule in rules:
            condition = rule.of_files(today)
            holds = q.matches(q.normalise(condition), values)
            applies = self._applies(rule, who)
            verdicts.append(Verdict(rule.text.name, rule.text.may, applies, holds, q.written(condition)))
        allowed = {one.may for one in verdicts if one.applies and one.holds}
        return Explanation(who.is_owner or bool(allowed), who.is_owner or "data" in allowed, tuple(verdicts))

    def _condition(self, who: Principal, may: tuple[str, ...], part: Callable[[Rule, date], q.Query]) -> q.Query | None:
        if who.is_owner:
            return None
        rules, today = self._fresh(), self._today()
        parts = [part(rule, today) for rule in rules if rule.text.may in may and self._applies(rule, who)]
        if any(isinstance(one, q.Everything) for one in parts):
            return None
        parts = list(dict.fromkeys(parts))
        return q.NOTHING if not parts else parts[0] if len(parts) == 1 else q.Or(tuple(parts))

    def _applies(self, rule: Rule, who: Principal) -> bool:
        return rule.is_for(who, who.groups | self._groups.get(who.name, frozenset()))

    def _fresh(self) -> tuple[Rule, ...]:
        if time.monotonic() >= self._next:
            with self._lock:
                if time.monotonic() >= self._next:
                    self._take()
        return self._rules

    def _take(self, first: bool = False) -> None:
        """Read the policy; if it is wrong, the one in force stays, and there must be one."""
        try:
            text, where = self._read()
            if first or text != self._text:
                attributes = COMMON if self._catalogue is None else self._catalogue.attributes()
                self._groups, self._rules = ({}, ()) if text is None else compile_rules(text, where, attributes)
                self._text = text
            self._wrong = None
        except ApbatchError as error:
            if first:
                raise
            if str(error) != self._wrong:
                say(f"the policy that was in force before stays: {error}")
            self._wrong = str(error)
        self._next = time.monotonic() + PERIOD_S


def shared(catalogue: Catalogue) -> str | None:
    """Return the text of the policy that the catalogue holds for all hosts; None if there is none."""
    descriptions = catalogue.descriptions(DescriptionKind.POLICY)
    return next((one.text for one in descriptions if one.name == SHARED), None)


def share(catalogue: Catalogue, text: str, where: Path) -> None:
    """Check a policy and put it into the catalogue, for all hosts.

    Parameters
    ----------
    catalogue : Catalogue
    text : str
        YAML.
    where : Path
        File that it came from, for messages.

    Raises
    ------
    UsageError
        With the line of what is wrong.
    """
    compile_rules(text, where, catalogue.attributes())
    catalogue.put_description(Description(DescriptionKind.POLICY, SHARED, text))
