"""What only the catalogue on PostgreSQL has to stand: a server that goes and comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apbatch.errors import ServerError, UsageError
from apbatch.index.backends import open_catalogue
from apbatch.index.parser import parse
from tests.contract.conftest import record
from tests.servers import Servers

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
