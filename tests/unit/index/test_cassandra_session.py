"""What the connection to Cassandra does with errors that pass; the server is played here, no real one starts slowly."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from cassandra import ConsistencyLevel, ReadFailure, WriteType
from cassandra.policies import RetryPolicy
from cassandra.protocol import ErrorMessage

from apbatch.errors import CancelledQueryError, ServerError
from apbatch.index.cancelling import Cancellation, interruptible
from apbatch.index.cassandra import session as cassandra_session
from apbatch.index.cassandra.session import CassandraSession, _Patience

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


def test_a_statement_waits_until_a_dead_node_is_noticed_and_keeps_its_consistency() -> None:
    patience = _Patience()
    level, log = ConsistencyLevel.LOCAL_QUORUM, ConsistencyLevel.TWO
    for attempt in range(cassandra_session._RETRIES):
        again = patience.on_write_timeout(None, log, WriteType.BATCH_LOG, 2, 1, retry_num=attempt)
        assert again == (RetryPolicy.RETRY, None)
        assert patience.on_read_timeout(None, level, 2, 1, True, retry_num=attempt) == (RetryPolicy.RETRY, None)
    last = cassandra_session._RETRIES
    assert patience.on_write_timeout(None, log, WriteType.SIMPLE, 2, 1, retry_num=last)[0] == RetryPolicy.RETHROW
    # a read that no node answers is asked once more
    answers = [patience.on_read_timeout(None, level, 2, 0, False, retry_num=n)[0] for n in range(2)]
    assert answers == [RetryPolicy.RETRY, RetryPolicy.RETHROW]


@pytest.mark.parametrize("name", ["on_read_timeout", "on_write_timeout"])
def test_the_driver_names_what_it_tells(name: str) -> None:
    wanted = inspect.signature(getattr(RetryPolicy, name)).parameters
    told = {key: 0 for key in wanted if key not in ("self", "query")}
    assert getattr(_Patience(), name)(None, **told)[0] in (RetryPolicy.RETRY, RetryPolicy.RETHROW)


@pytest.mark.parametrize(("code", "failures", "calls"), [(0x1700, 3, 4), (0x1700, 10**6, 40), (0x1500, 1, 1)])
def test_a_transaction_that_met_another_is_done_again_and_any_failure_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, code: int, failures: int, calls: int
) -> None:
    monkeypatch.setattr(cassandra_session.time, "sleep", lambda seconds: None)
    played = Played(failures, ErrorMessage(code=code, message="CAS operation result is unknown", info=None))
    if calls > failures:
        assert session(played).do("UPDATE") == [{"path": "/e/s/a"}]
    else:
        with pytest.raises(ServerError, match="result is unknown"):
            session(played).do("UPDATE")
    assert played.calls == calls


def test_no_row_is_read_for_a_request_that_is_cancelled() -> None:
    played, request = Played(0, NOT_YET), Cancellation()
    with request.active():
        rows = interruptible(iter(range(5)))
        assert next(rows) == 0
        assert list(session(played).run("SELECT")) == [{"path": "/e/s/a"}]
        request.cancel()
        with pytest.raises(CancelledQueryError):
            next(rows)
        with pytest.raises(CancelledQueryError):
            session(played).do("SELECT")
    assert played.calls == 1
    assert list(interruptible(iter(range(2)))) == [0, 1]  # what belongs to no request goes on
