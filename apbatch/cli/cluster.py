"""`apbatch cluster`: development servers."""

from __future__ import annotations

import shlex
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import ColumnsOption, Format, FormatOption, note, show, show_text

_NAMES = Annotated[
    list[str] | None,
    typer.Argument(help="hdfs, cassandra, spark, postgres, yarn, history, afs, squid; none: the first three."),
]


def register(app: typer.Typer) -> None:
    """Add the command group to the application."""
    group = typer.Typer(
        no_args_is_help=True, help="Real servers on loopback: HDFS, Cassandra, Spark, PostgreSQL, YARN, OpenAFS."
    )
    group.command("up")(up)
    group.command("status")(status)
    group.command("down")(down)
    group.command("env")(env)
    app.add_typer(group, name="cluster")


def up(
    names: _NAMES = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", help="Nodes of Cassandra, 1 or 3, chosen when it first starts.")
    ] = None,
) -> None:
    """Start servers and wait until they are healthy; those that are up stay as they are."""
    from apbatch.cluster import registry, server
    from apbatch.cluster.cassandra import Cassandra

    servers = registry.named(names or registry.DEFAULT)
    with registry.exclusively():
        for one in servers:
            if nodes is not None and isinstance(one, Cassandra):
                one.choose_nodes(nodes)
        server.up(servers)


def status(names: _NAMES = None, columns: ColumnsOption = "", format: FormatOption = Format.TABLE) -> None:
    """Show every process with its pid, memory, address and log."""
    from apbatch.cluster import registry
    from apbatch.cluster.server import ProcessStatus

    servers = registry.named(names or registry.SERVERS)
    names_of_columns = [field.name for field in fields(ProcessStatus)]
    rows = (asdict(row) for server in servers for row in server.status())
    show(rows, format, names_of_columns, few=("process", "state", "pid", "memory_mb", "address"), subset=columns)


def down(names: _NAMES = None) -> None:
    """Stop what `up` started; data stay."""
    from apbatch.cluster import registry

    servers = registry.named(names or registry.SERVERS)
    with registry.exclusively():
        for server in servers[::-1]:
            was_up = any(row.state == "up" for row in server.status())
            server.down()
            if was_up:
                note(f"{server.name}: down")


def env(
    config: Annotated[Path | None, typer.Option("--config", help="Settings, such as conf/yarn.yaml.")] = None,
) -> None:
    """Print variables for spark-submit: eval "$(apbatch cluster env --config conf/yarn.yaml)"."""
    from apbatch.config import load_settings
    from apbatch.spark.connect.environment import write_environment

    variables = write_environment(load_settings(config))
    show_text("\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items()))
