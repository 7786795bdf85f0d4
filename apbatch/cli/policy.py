"""`apbatch policy`: who may see and read what, checked, shared and explained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from apbatch.cli.output import Format, FormatOption, note, show, show_text

policy_app = typer.Typer(no_args_is_help=True, help="Who may see and read which files and events.")
_FILE = Annotated[Path, typer.Argument(help="Policy file, such as conf/policy.yaml.")]
_VERDICT = ("rule", "may", "applies", "holds", "condition")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(policy_app, name="policy")


@policy_app.command("check")
def check(file: _FILE, format: FormatOption = Format.TABLE) -> None:
    """Check a policy file against this catalogue, and list its rules as they are today."""
    from apbatch.access.policy import Policy
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.query import NOTHING, written

    with open_catalogue(load_settings().catalogue) as catalogue:
        policy = Policy.load(file, catalogue)
        rows = []
        for rule, files, events in policy.rules_today():
            allows_events = rule.events is not None or rule.may == "metadata" or events != NOTHING
            if not allows_events:
                note(f"rule '{rule.name}' allows no events: events lack what it asks for; give it 'events' of its own")
            who = rule.who if isinstance(rule.who, str) else rule.who.model_dump(exclude_defaults=True)
            row: dict[str, Any] = {"rule": rule.name, "who": str(who), "may": rule.may, "files": written(files)}
            rows.append({**row, "events": written(events) if rule.may == "data" else "none"})
        show(rows, format, ("rule", "who", "may", "files", "events"))


@policy_app.command("share")
def share(file: _FILE) -> None:
    """Check a policy file and put it into the catalogue: in force on all hosts that use it, within a minute."""
    from apbatch.access.policy import Policy, share
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue

    with open_catalogue(load_settings().catalogue) as catalogue:
        Policy.load(file, catalogue)
        share(catalogue, file.read_text(encoding="utf-8-sig"), file)
    note("the policy is shared: services without a policy file of their own follow within a minute")


@policy_app.command("show")
def show_policy() -> None:
    """Show the policy that the catalogue holds for all hosts."""
    from apbatch.access.policy import shared
    from apbatch.config import load_settings
    from apbatch.errors import NotFoundError
    from apbatch.index.backends import open_catalogue

    with open_catalogue(load_settings().catalogue) as catalogue:
        text = shared(catalogue)
    if text is None:
        raise NotFoundError("no policy is shared: only the owner sees anything", remedy="apbatch policy share FILE")
    show_text(text.rstrip("\n"))


@policy_app.command("remove")
def remove() -> None:
    """Take the shared policy out of the catalogue: then only the owner sees anything."""
    from apbatch.access.policy import SHARED
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.descriptions import DescriptionKind

    with open_catalogue(load_settings().catalogue) as catalogue:
        catalogue.remove_description(DescriptionKind.POLICY, SHARED)
    note("no policy is shared any more: only the owner sees anything")


@policy_app.command("explain")
def explain(
    user: Annotated[str, typer.Argument(help="Name of a user, as tokens have it; 'anyone' for who shows none.")],
    what: Annotated[str, typer.Argument(help="Path of a file, or a query.", metavar="PATH|QUERY")] = "",
    group: Annotated[list[str] | None, typer.Option("--group", help="A group that the token tells.")] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="A role that the token tells.")] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy file; default: of the settings, or of the catalogue.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Say what a user may see and read, and for one file which rules decide it."""
    from apbatch.access.guard import Guard
    from apbatch.access.policy import Policy
    from apbatch.access.principals import OWNER, Principal
    from apbatch.config import load_settings
    from apbatch.errors import NotFoundError
    from apbatch.index import query as q
    from apbatch.index.backends import open_catalogue
    from apbatch.index.parser import parse

    who = Principal(user, frozenset(group or ()), frozenset(role or ()))
    with open_catalogue(load_settings().catalogue) as catalogue:
        rules = Policy.in_force(catalogue, policy)
        if not rules.exists:
            note("there is no policy: only the owner sees anything")
        guard, owner = Guard(catalogue, None, rules, who), Guard(catalogue, None, rules, OWNER)
        if not what.startswith("/"):
            query = parse(what, catalogue.attributes())
            data = rules.data(who)
            reads = query if data is None else q.Allowed(query, data)
            counts = {"matching": owner.count(query), "sees": guard.count(query), "reads": owner.count(reads)}
            show([{"user": user, **{name: count[None] for name, count in counts.items()}}], format)
            return
        sources = owner.sources(what) or [one for one in (owner.get(what),) if one is not None]
        if not sources:
            raise NotFoundError("no such file in the merged tree", where=what)
        rows = []
        for record in sources:
            explanation = rules.explain(who, record)
            may = "may see and read" if explanation.reads else "may see" if explanation.sees else "may not see"
            note(f"{user} {may} {record.path}")
            rows += [
                {"path": record.path, **{name: getattr(one, name) for name in _VERDICT}} for one in explanation.verdicts
            ]
        show(rows, format, ("path", *_VERDICT))
