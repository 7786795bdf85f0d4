"""The policy: what its file says, what it means on a day, and that a change of it is in force."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from apbatch.access.policy import Policy, share
from apbatch.access.principals import ANYONE, OWNER, Principal
from apbatch.access.rules import _before, compile_rules
from apbatch.errors import NotFoundError, UsageError
from apbatch.index import query as q
from apbatch.index.attributes import COMMON
from apbatch.index.files import FileRecord
from apbatch.index.sql.sqlite import SqliteCatalogue

TAIGA = """
groups: {taiga: [alice]}
rules:
  - {name: names of all, who: anyone, may: metadata, below: /taiga}
  - {name: members read, who: {groups: taiga}, may: data, query: "experiment = 'TAIGA'"}
  - {name: old nights, who: anyone, may: data, below: [/taiga/raw], embargo: 2 years after night}
  - {name: shifters, who: {roles: [shift], users: bob}, may: data, query: "run > 7"}
"""


def record(**changes: Any) -> FileRecord:
    values = {
        "path": "/taiga/raw/f", "site": "raw", "source": "f", "size": 1, "mtime_ns": 1, "checksum": "c", "adler32": "0",
        "format": "taiga-raw", "experiment": "TAIGA", **changes,
    }  # fmt: skip
    return FileRecord(**values)


def policy(text: str, today: date = date(2020, 3, 1)) -> Policy:
    return Policy(lambda: (text, Path("policy.yaml")), today=lambda: today)


def sees(rules: Policy, who: Principal, file: FileRecord) -> tuple[bool, bool]:
    told = rules.explain(who, file)
    for rule, verdict in ((rules.metadata(who), told.sees), (rules.data(who), told.reads)):
        assert verdict is (rule is None or q.matches(q.normalise(rule), file.flat()))
    return told.sees, told.reads


def test_without_a_policy_only_the_owner_sees_anything() -> None:
    none = Policy.load(None)
    assert not none.exists
    assert sees(none, OWNER, record()) == (True, True)
    assert sees(none, ANYONE, record()) == (False, False)
    assert none.metadata(ANYONE) == q.NOTHING and none.events(ANYONE) == q.NOTHING
    assert sees(none, Principal("owner"), record()) == (False, False)  # a token's name makes nobody the owner


def test_rules_allow_by_group_role_user_and_place() -> None:
    rules = policy(TAIGA)
    assert sees(rules, ANYONE, record()) == (True, False)
    assert sees(rules, Principal("alice"), record()) == (True, True)
    assert sees(rules, Principal("carol", groups=frozenset({"taiga"})), record()) == (True, True)
    assert sees(rules, Principal("alice"), record(path="/fact/a/f", experiment="FACT")) == (False, False)
    assert sees(rules, Principal("bob"), record(path="/fact/a/f", run=8)) == (True, True)
    assert sees(rules, Principal("x", roles=frozenset({"shift"})), record(path="/fact/a/f", run=7)) == (False, False)
    assert sees(rules, ANYONE, record(path="/taigaX/f")) == (False, False)


@pytest.mark.parametrize(("night", "reads"), [(date(2018, 3, 1), True), (date(2018, 3, 2), False), (None, False)])
def test_an_embargo_ends_so_long_after_the_night(night: date | None, reads: bool) -> None:
    assert sees(policy(TAIGA), ANYONE, record(night=night))[1] is reads


@pytest.mark.parametrize(
    ("today", "number", "unit", "limit"),
    [
        (date(2024, 2, 29), 1, "year", date(2023, 2, 28)),
        (date(2024, 3, 31), 1, "month", date(2024, 2, 29)),
        (date(2024, 12, 31), 1, "month", date(2024, 11, 30)),
        (date(2024, 1, 1), 13, "month", date(2022, 12, 1)),
        (date(2024, 3, 1), 1, "day", date(2024, 2, 29)),
        (date(900, 1, 1), 950, "year", date.min),
    ],
)
def test_days_before(today: date, number: int, unit: str, limit: date) -> None:
    assert _before(today, number, unit) == limit


def test_rules_of_files_speak_of_events_only_where_events_have_the_attributes() -> None:
    rules = policy(TAIGA)
    member = q.normalise(rules.events(Principal("alice")) or q.Everything())
    assert q.matches(member, {"experiment": "TAIGA"}) and not q.matches(member, {"experiment": "FACT"})
    assert not q.matches(q.normalise(rules.events(ANYONE) or q.Everything()), {"night": date(2001, 1, 1)})
    bob = q.normalise(rules.events(Principal("bob")) or q.Everything())
    assert q.matches(bob, {"run": 8}) and not q.matches(bob, {"run": 7})
    negated = policy("rules: [{name: a, who: anyone, may: data, query: \"not (format = 'x' and run = 1)\"}]")
    assert q.matches(q.normalise(negated.events(ANYONE) or q.Everything()), {"run": 2})
    assert not q.matches(q.normalise(negated.events(ANYONE) or q.Everything()), {"run": 1})
    own = policy("rules: [{name: a, who: anyone, may: data, below: /t, events: 'width < 1'}]")
    assert own.events(ANYONE) == q.Compare("width", "<", 1.0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rules: [{name: a, who: anyone, may: read}]", "policy.yaml:1: rules.0.may"),
        ("rules: [{name: a, who: {}, may: data}]", "name 'users', 'groups' or 'roles'"),
        ("rules: [{name: a, who: everyone, may: data}]", "policy.yaml:1"),
        ("rules:\n- {name: a, who: anyone, may: data,\n   below: taiga}", "policy.yaml:3"),
        (
            "rules:\n- {name: a, who: anyone, may: data}\n- {name: a, who: anyone, may: data}",
            "two rules are called 'a'",
        ),
        (
            "rules:\n\n- {name: a, who: anyone, may: data, query: 'nigth = 2017-01-01'}",
            "policy.yaml:3, query, column 1",
        ),
        ("rules: [{name: a, who: anyone, may: data, embargo: 2 weeks after night}]", "2 years after night"),
        ("rules: [{name: a, who: anyone, may: data, embargo: 2 years after run}]", "'run' is not"),
        ("rules: [{name: a, who: anyone, may: metadata, events: ''}]", "'events' goes with 'may: data'"),
        ("rule: []", "did you mean 'rules'"),
        ("[1]", "a mapping of keys"),
        ("{", "not valid YAML"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line(text: str, wanted: str) -> None:
    with pytest.raises(UsageError) as refused:
        compile_rules(text, Path("policy.yaml"), COMMON)
    assert wanted in str(refused.value)


def test_a_changed_policy_is_in_force_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apbatch.access.policy.PERIOD_S", 0.0)
    file = tmp_path / "policy.yaml"
    file.write_text("rules: [{name: a, who: anyone, may: data}]")
    rules = Policy.load(file)
    assert rules.data(ANYONE) is None
    file.write_text("rules: [{name: a, who: anyone, may: metadata}]")
    assert (rules.metadata(ANYONE), rules.data(ANYONE)) == (None, q.NOTHING)
    file.write_text("rules: [{name: a, who")
    assert (rules.metadata(ANYONE), rules.data(ANYONE)) == (None, q.NOTHING)
    assert rules.fault is not None and str(file) in rules.fault
    file.write_text("")
    assert rules.metadata(ANYONE) == q.NOTHING and rules.fault is None
    with pytest.raises(NotFoundError):
        Policy.load(tmp_path / "other.yaml")


def test_all_hosts_share_the_policy_of_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apbatch.access.policy.PERIOD_S", 0.0)
    with SqliteCatalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        rules = Policy.load(None, catalogue)
        assert rules.metadata(ANYONE) == q.NOTHING
        share(catalogue, "rules: [{name: a, who: anyone, may: metadata}]", Path("p.yaml"))
        assert rules.metadata(ANYONE) is None
        with pytest.raises(UsageError):
            share(catalogue, "rules: 3", Path("p.yaml"))
