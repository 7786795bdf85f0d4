"""What only the catalogue on PostgreSQL has to stand: a server that goes and comes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest

from apbatch.errors import CancelledQueryError, ServerError, UsageError
from apbatch.index.backends import open_catalogue
from apbatch.index.cancelling import Cancellation
from apbatch.index.parser import parse
from tests.contract.conftest import record
from tests.servers import Servers
from tests.waits import PATIENCE_S, until

pytestmark = pytest.mark.postgres


def test_the_pool_recovers_when_the_server_is_restarted(new_url: Callable[[str], str], servers: Servers) -> None:
    with open_catalogue(new_url("postgres")) as catalogue:
        catalogue.upsert([record("E", "a")])
        for _ in range(2):
            for action in ("down", "up"):
                done = servers.command(action, "postgres")
                assert done.returncode == 0, done.stderr
            assert catalogue.get("/E/site/a") is not None
            assert catalogue.upsert([record("E", "b")]).written == 1
            assert [file.source for file in catalogue.select(parse("experiment = 'E'", catalogue.attributes()))] == [
                "a", "b"
            ]  # fmt: skip


def test_a_restart_under_load_loses_nothing_that_was_acknowledged(
    new_url: Callable[[str], str], servers: Servers
) -> None:
    with open_catalogue(new_url("postgres")) as catalogue:
        acknowledged: list[str] = []
        stop = Event()

        def write(who: str) -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                name = f"{who}/{number}"
                try:
                    catalogue.upsert([record("E", name)])
                    assert catalogue.get(f"/E/site/{name}") is not None
                except ServerError:
                    continue  # what was under way when the server went
                acknowledged.append(name)

        with ThreadPoolExecutor(2) as pool:
            writers = [pool.submit(write, who) for who in "ab"]
            try:
                until(lambda: len(acknowledged) > 20)
                for action in ("down", "up"):
                    done = servers.command(action, "postgres")
                    assert done.returncode == 0, done.stderr
                before = len(acknowledged)
                until(lambda: len(acknowledged) > before + 20)
            finally:
                stop.set()
            for writer in writers:
                writer.result()
        held = [file.source for file in catalogue.of_site("E-site")]
        assert set(acknowledged) <= set(held) and len(held) == len(set(held))
        revisions = [change.revision for change in catalogue.all_changes(0)]
        assert len(revisions) == len(set(revisions)) == len(held)


def test_the_plan_has_its_cost(new_url: Callable[[str], str]) -> None:
    with open_catalogue(new_url("postgres")) as catalogue:
        catalogue.upsert([record("E", "a")])
        assert "cost=" in catalogue.explain(parse("experiment = 'E' and events > 3", catalogue.attributes()))


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:1/x: the server does not answer"):
        open_catalogue("postgresql://apbatch@127.0.0.1:1/x")
    with pytest.raises(UsageError, match="names no database"):
        open_catalogue("postgresql://apbatch:secret@127.0.0.1:1")


def test_the_database_of_another_program_is_left_alone(new_url: Callable[[str], str]) -> None:
    import psycopg

    url = new_url("postgres")
    with psycopg.connect(f"{url.rpartition('/')[0]}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {url.rpartition('/')[2]}".encode())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE recipes (name text)")
    with pytest.raises(UsageError, match="another program"):
        open_catalogue(url)


def test_a_query_that_nobody_waits_for_is_ended(new_url: Callable[[str], str]) -> None:
    cancellation, ended = Cancellation(), []

    def ask() -> None:
        with cancellation.active(), pytest.raises(CancelledQueryError):
            database.ask("SELECT pg_sleep(?)", (PATIENCE_S,))
        with pytest.raises(CancelledQueryError), cancellation.active(), database.read():
            pass  # nor does another one begin
        ended.append(True)

    with open_catalogue(new_url("postgres")) as catalogue:
        database = catalogue._db  # type: ignore[attr-defined]
        thread = Thread(target=ask)
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        until(lambda: database.ask(waiting, ())[0][0])
        cancellation.cancel()
        thread.join(PATIENCE_S)
        assert ended and catalogue.count(parse("", catalogue.attributes())).get(None, 0) == 0
