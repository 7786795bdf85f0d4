"""One run of the benchmark: servers, peers, what has to be left out and why, samples."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from apbatch.bench.index import index_groups
from apbatch.bench.machine import machine, software
from apbatch.bench.runner import Group, run_group
from apbatch.bench.samples import SampleFile, write_about
from apbatch.bench.sizes import Size
from apbatch.bench.storage import storage_groups
from apbatch.config import home
from apbatch.errors import ApbatchError, UsageError, nearest_word
from apbatch.index.catalogue import Catalogue, open_catalogue
from apbatch.progress import progress
from apbatch.storage.store import Store, open_store

SUITES = ("storage", "index")

#: Name in the report, server that it needs, endpoint of that server.
_STORE_PEERS = (("HDFS (hdfs-native)", "hdfs", "hdfs"), ("HDFS (WebHDFS)", "hdfs", "webhdfs"), ("AFS", "afs", "afs"))
LOCAL, SQLITE, CASSANDRA = "local store", "SQLite", "Cassandra"
_OPERATIONS = {"storage": 5, "index": 6}


class Servers(Protocol):
    """What the benchmark wants of development servers (see `apbatch.bench.servers`)."""

    def endpoint(self, server: str, name: str) -> str:
        """Return the address `name` of a server, starting it if that is allowed.

        Raises
        ------
        ApbatchError
            If it can't be had.
        """
        ...


@dataclass
class Peers:
    """Who takes part, and who had to be left out and why."""

    stores: dict[str, Store] = field(default_factory=dict)
    catalogues: dict[str, Catalogue] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def new_folder() -> Path:
    """Return the folder of a run that begins now."""
    return runs_folder() / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def runs_folder() -> Path:
    """Return the folder of all runs."""
    return home() / "bench"


def latest_folder() -> Path:
    """Return the folder of the latest run.

    Raises
    ------
    UsageError
        If there is none.
    """
    runs = sorted(runs_folder().glob("*/run.json"))
    if not runs:
        raise UsageError(
            "there is no benchmark run yet", where=str(runs_folder()), remedy="apbatch bench run storage index"
        )
    return runs[-1].parent


def require_suites(suites: Sequence[str]) -> None:
    """Raise unless every suite is known.

    Raises
    ------
    UsageError
        With the nearest known one.
    """
    for suite in suites:
        if suite not in SUITES:
            raise UsageError(
                f"unknown suite '{suite}'", nearest=nearest_word(suite, SUITES), remedy=f"known are {', '.join(SUITES)}"
            )


def run(suites: Sequence[str], size_name: str, size: Size, servers: Servers, folder: Path) -> Peers:
    """Run the benchmark into `folder`; return who took part.

    Raises
    ------
    UsageError
        For an unknown suite, or a folder that holds a run already.
    """
    require_suites(suites)
    if (folder / "run.json").exists():
        raise UsageError("this folder holds a run already", where=str(folder), remedy="give another by --out")
    folder.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "suites": list(suites),
        "size": {"name": size_name, **size.model_dump()},
        "machine": machine(folder),
        "software": software(),
        "left out": {},
        "finished": None,
    }
    write_about(folder, about, [])
    with _peers(suites, servers, folder) as peers, _kept(folder) as samples:
        about["left out"] = peers.left_out
        operations = []
        with progress("bench", sum(_OPERATIONS[suite] for suite in set(suites))) as task:
            for group in _groups(suites, size, peers, folder):
                task.note(f"{group.operation.suite}: {group.operation.name}")
                operations.append(group.operation)
                write_about(folder, about, operations)
                run_group(group, size.repeats, samples.add)
                task.advance()
        about["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_about(folder, about, operations)
    return peers


def _groups(suites: Sequence[str], size: Size, peers: Peers, folder: Path) -> Iterator[Group]:
    if "storage" in suites:
        yield from storage_groups(size, peers.stores, folder / "scratch")
    if "index" in suites:
        yield from index_groups(size, peers.catalogues)


@contextmanager
def _kept(folder: Path) -> Iterator[SampleFile]:
    samples = SampleFile(folder)
    try:
        yield samples
    finally:
        samples.close()


@contextmanager
def _peers(suites: Sequence[str], servers: Servers, folder: Path) -> Iterator[Peers]:
    """Find who takes part; whatever they made is removed at the end."""
    import shutil

    peers = Peers()
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    cleaners: list[Callable[[], None]] = [lambda: shutil.rmtree(scratch, ignore_errors=True)]
    try:
        if "storage" in suites:
            peers.stores[LOCAL] = open_store(f"file://{scratch.absolute()}/store")
            for peer, server, name in _STORE_PEERS:
                try:
                    store = open_store(f"{servers.endpoint(server, name).rstrip('/')}/bench")
                    store.info("")  # it must answer
                    peers.stores[peer] = store
                except ApbatchError as error:
                    peers.left_out[peer] = str(error)
        if "index" in suites:
            peers.catalogues[SQLITE] = open_catalogue(f"sqlite:///{scratch.absolute()}/catalogue.sqlite")
            try:
                address = servers.endpoint("cassandra", "cassandra")
                _add_cassandra(peers, address.rstrip("/"), cleaners)
            except ApbatchError as error:
                peers.left_out[CASSANDRA] = str(error)
        yield peers
    finally:
        for catalogue in peers.catalogues.values():
            catalogue.close()
        for clean in cleaners:
            clean()


def _add_cassandra(peers: Peers, address: str, cleaners: list[Callable[[], None]]) -> None:
    """Take part in a keyspace of its own, dropped at the end."""
    keyspace = f"bench_{secrets.token_hex(4)}"

    def drop() -> None:
        from cassandra.cluster import Cluster

        host, _, port = address.partition("://")[2].partition(":")
        cluster = Cluster([host], port=int(port or 9042))
        try:
            cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {keyspace}", timeout=60)
        finally:
            cluster.shutdown()

    cleaners.append(drop)
    peers.catalogues[CASSANDRA] = open_catalogue(f"{address}/{keyspace}")
