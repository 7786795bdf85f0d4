"""What the connection to Cassandra does with errors that pass; the server is played here, no real one starts slowly."""

from __future__ import annotations

from typing import Any

import pytest
from cassandra import ReadFailure

from apbatch.errors import ServerError
from apbatch.index.cassandra import session as cassandra_session
from apbatch.index.cassandra.session import CassandraSession

NOT_YET = ReadFailure("Operation failed - received 0 responses and 1 failures: INDEX_NOT_AVAILABLE from /127.0.0.1")


class Played:
    """Fails so many times, then answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left, self.error, self.calls = failures, error, 0

    def prepare(self, cql: str) -> str:
        return cql

    def execute(self, statement: str, values: Any) -> list[dict[str, Any]]:
        self.calls += 1
        if self.calls <= self.left:
            raise self.error
        return [{"path": "/e/s/a"}]


def session(played: Played) -> CassandraSession:
    made = object.__new__(CassandraSession)
    made._url, made._prepared, made._session = "cassandra://h:1/k", {}, played  # type: ignore[assignment]
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cassandra_session.time, "sleep", lambda seconds: None)


def test_an_index_that_was_just_made_is_waited_for() -> None:
    played = Played(3, NOT_YET)
    assert list(session(played).run("SELECT")) == [{"path": "/e/s/a"}]
    assert played.calls == 4


def test_an_index_that_never_comes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cassandra_session, "_INDEX_WAIT_S", 0.01)
    with pytest.raises(ServerError, match="INDEX_NOT_AVAILABLE"):
        list(session(Played(10**9, NOT_YET)).run("SELECT"))


def test_another_failure_is_told_at_once() -> None:
    played = Played(1, ReadFailure("Operation failed: READ_TOO_MANY_TOMBSTONES"))
    with pytest.raises(ServerError, match="TOMBSTONES"):
        list(session(played).run("SELECT"))
    assert played.calls == 1
