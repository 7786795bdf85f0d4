"""`apbatch mirror` and `apbatch verify`: verified copies of selected files in stores, and whether they are right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apbatch.cli.analysis.on_spark import ConfigOption, DebugOption, spark_session
from apbatch.cli.output import ColumnsOption, Format, FormatOption, note, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_FILES = ("path", "url", "size", "outcome", "reason")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("mirror")(mirror)
    app.command("verify")(verify)


def mirror(
    query: Annotated[
        str | None, typer.Argument(help="Which files, such as \"experiment = 'TAIGA' and night = 2017-10-28\".")
    ] = None,
    to: Annotated[str, typer.Option("--to", help="hdfs, webhdfs, afs, local, store, or a URL.")] = "",
    under: Annotated[str, typer.Option("--under", help="Folder in the store.")] = "",
    rules: Annotated[
        Path | None, typer.Option("--rules", help="Instead of QUERY and --to: rules, such as conf/replicas.yaml.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="With --rules: then remove replicas that no rule wants.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read and compare what is there; mend it.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, max=64, help="Files at the same time, if small.")] = 32,
    files: Annotated[bool, typer.Option("--files", help="Show every file, not only the sums.")] = False,
    spark: Annotated[bool, typer.Option("--spark", help="Have Spark's workers copy.")] = False,
    config: ConfigOption = None,
    debug: DebugOption = False,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
) -> int:
    """Copy the files of QUERY into a store, verify and record them. Go on with it after a break: nothing is done twice.

    Ends with status 1 if any file has no good copy, or a replica could not be removed.
    """
    from contextlib import ExitStack
    from dataclasses import asdict

    from apbatch.config import load_settings
    from apbatch.errors import UsageError
    from apbatch.index.backends import open_catalogue
    from apbatch.index.parser import parse
    from apbatch.ingest.replicas.rules import ReplicaRule, ReplicaRules, load_rules
    from apbatch.ingest.replicas.stores import target_store
    from apbatch.ingest.replicas.upkeep import Mirroring, Upkeep

    if (rules is None) == (query is None) or (query is None) == bool(to) or (rules is not None and under):
        remedy = "apbatch mirror QUERY --to hdfs, or apbatch mirror --rules FILE"
        raise UsageError("a query and a store are wanted, or rules", remedy=remedy)
    if prune and rules is None:
        raise UsageError("--prune goes with --rules: without rules every replica would be unwanted")
    settings = load_settings(config)
    store = target_store(to, settings) if rules is None else None
    with ExitStack() as stack:
        catalogue = stack.enter_context(open_catalogue(settings.catalogue))
        if store is not None:
            replica_rules = ReplicaRules((ReplicaRule("", parse(query or "", catalogue.attributes()), store, under),))
        else:
            assert rules is not None
            replica_rules = load_rules(rules, catalogue.attributes(), settings)
        mirroring: Mirroring | None = None
        if spark:
            from apbatch.spark.mirroring import mirror_on_spark

            session = stack.enter_context(spark_session("mirror", settings))
            mirroring = lambda records, rule: mirror_on_spark(  # noqa: E731
                session, catalogue, records, rule, verify=verify, dry_run=dry_run
            )
        upkeep = Upkeep(
            catalogue, replica_rules, prune=prune, dry_run=dry_run, verify=verify, threads=threads, mirroring=mirroring
        )
        if files:
            show(map(asdict, upkeep.run()), format, _FILES, few=("path", "outcome", "reason"), subset=columns)
        else:
            upkeep.finish()
            names = list(dict.fromkeys(name for row in upkeep.sums for name in row))
            show(upkeep.sums, format, names, subset=columns)
    return 1 if upkeep.failed else 0


def verify(
    query: Annotated[str, typer.Argument(help="Which files, such as \"experiment = 'TAIGA'\"; empty for all.")],
    sources: Annotated[bool, typer.Option("--sources", help="Read the files at their sites as well.")] = False,
    older_than: Annotated[
        float | None, typer.Option("--older-than", min=0, metavar="DAYS", help="Pass over what was found right since.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.001, metavar="MB/S", help="Read so much a second at most.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the last run of this query stopped.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Show what is right, too.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, max=64, help="Copies at the same time.")] = 4,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
) -> int:
    """Read the replicas of QUERY again, and show every one that differs from what was registered.

    Readers pass over what is wrong from then on, and `apbatch mirror` makes it anew. Ends with status 1 if anything
    differs or could not be checked.
    """
    from dataclasses import fields
    from datetime import timedelta

    from apbatch.config import home, load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.pages import identity
    from apbatch.index.parser import parse
    from apbatch.ingest.replicas.checking import CheckedCopy, Finding, Rate, check

    settings = load_settings()
    counts = dict.fromkeys(Finding, 0)

    def differences(copies: Iterable[CheckedCopy]) -> Iterator[dict[str, Any]]:
        for copy in copies:
            counts[copy.finding] += 1
            if every or copy.finding is not Finding.RIGHT:
                yield {field.name: getattr(copy, field.name) for field in fields(copy)}

    with open_catalogue(settings.catalogue) as catalogue:
        copies = check(
            catalogue,
            parse(query, catalogue.attributes()),
            sources=sources,
            older_than=None if older_than is None else timedelta(days=older_than),
            rate=Rate(None if rate is None else rate * 1e6),
            threads=threads,
            resume=resume,
            position=home() / "verify" / f"{identity(settings.catalogue, query, sources)}.json",
        )
        names = [field.name for field in fields(CheckedCopy)]
        show(differences(copies), format, names, few=("copy", "finding", "reason"), subset=columns)
    note(", ".join(f"{number} {finding}" for finding, number in counts.items() if number) or "nothing to verify")
    return 1 if any(counts[finding] for finding in Finding if finding is not Finding.RIGHT) else 0
