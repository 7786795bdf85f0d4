"""Clients that ask a server over connections that stay open: answers are compared, the server's memory is watched."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.api.service import ServiceProcess
from apbatch.bench.runner import Group
from apbatch.bench.sizes import Size
from apbatch.errors import VerificationError

CLIENTS = 64
_TIMEOUT_S = 120.0
#: What the server may take more at the end than after the first stretch: a part, and MB.
_MOST_GROWTH, _MOST_GROWTH_MB = 0.1, 20.0


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks.

    Attributes
    ----------
    address : str
        Path and query of the URL.
    body : bytes
        The right answer.
    accept : str
        Kind of the answer that is asked for.
    """

    address: str
    body: bytes
    accept: str = "*/*"


#: Returns what clients ask, once the server is up.
Questions = Callable[[], Sequence[Question]]


def many_clients(
    suite: str, name: str, peer: str, size: Size, ask: Questions, service: ServiceProcess
) -> Iterator[Group]:
    """Yield the groups of 64 clients: how many answers they get, and the server's memory meanwhile.

    Parameters
    ----------
    suite : str
    name : str
        Of the operation; that of the memory is ``memory under NAME``.
    peer : str
    size : Size
        How long the load lasts.
    ask : callable
        Returns the questions, which the clients ask in turn.
    service : ServiceProcess
        The server that is asked.
    """
    stretch = size.clients_s / (size.repeats + 1)
    memory: list[float] = []
    operation = Operation(
        suite,
        name,
        f"Answers in a second to {CLIENTS} clients that ask again as soon as they are "
        f"answered, on connections that stay open, for {size.clients_s:g} s without a pause; each round is a stretch "
        f"of {stretch:.3g} s. Every answer is compared. A wrong answer, a failure, or memory that has grown by a tenth "
        f"and {_MOST_GROWTH_MB:g} MB in the end fails the operation.",
        "requests/s",
        1.0,
    )
    yield Group(operation, [_Clients(operation, peer, stretch, size.repeats, ask, service, memory)])
    resident = Operation(
        suite,
        f"memory under {name}",
        "Resident memory of the server at the end of each stretch of the operation before, 10⁶ bytes.",
        "MB",
        1.0,
    )
    yield Group(resident, [_Recorded(resident, peer, memory)])


class Connection:
    """One client's connection, which stays open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)

    def ask(self, question: Question) -> None:
        """Ask, and compare the answer.

        Raises
        ------
        VerificationError
            If the answer is another one.
        """
        self._connection.request("GET", question.address, headers={"Accept": question.accept})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200 or body != question.body:
            raise VerificationError(f"status {answer.status}: {body[:200]!r}", where=question.address)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Load(Case):
    """Threads that ask; proof: no answer is missing or wrong."""

    def __init__(self, operation: Operation, peer: str, ask: Questions, service: ServiceProcess) -> None:
        super().__init__(operation, peer)
        self._ask, self._service = ask, service
        self._questions: Sequence[Question] = ()
        self._errors: list[str] = []
        self._connections: list[Connection] = []

    def set_up(self) -> None:
        """Get the questions, and a connection for each client."""
        self._questions = self._ask()
        self._connections = [Connection(self._service.url) for _ in range(CLIENTS)]

    def _threads(self, ask: Callable[[int, Connection], None]) -> list[threading.Thread]:
        def body(number: int, connection: Connection) -> None:
            try:
                ask(number, connection)
            except Exception as error:  # of whatever kind: it is counted, and fails the operation
                self._errors.append(f"{type(error).__name__}: {error}")

        threads = [
            threading.Thread(target=body, args=(number, connection), daemon=True)
            for number, connection in enumerate(self._connections)
        ]
        for thread in threads:
            thread.start()
        return threads

    def check(self) -> None:
        """Raise if any client failed, or was given a wrong answer."""
        if self._errors:
            raise VerificationError(f"{len(self._errors)} clients failed, the first: {self._errors[0]}")

    def tear_down(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()


class _Clients(Load):
    """Clients from the first round to the last; a round waits for a stretch of that."""

    def __init__(
        self,
        operation: Operation,
        peer: str,
        stretch: float,
        repeats: int,
        ask: Questions,
        service: ServiceProcess,
        memory: list[float],
    ) -> None:
        super().__init__(operation, peer, ask, service)
        self._stretch, self._repeats, self._memory = stretch, repeats, memory
        self._answered = [0] * CLIENTS
        self._end = threading.Event()
        self._clients: list[threading.Thread] = []
        self._rate = 0.0

    def set_up(self) -> None:
        super().set_up()

        def ask(number: int, connection: Connection) -> None:
            turn = number
            while not self._end.is_set():
                connection.ask(self._questions[turn % len(self._questions)])
                self._answered[number] += 1
                turn += 1

        self._clients = self._threads(ask)

    def run(self) -> None:
        start, before = time.perf_counter(), sum(self._answered)
        self._end.wait(self._stretch)
        self._rate = (sum(self._answered) - before) / (time.perf_counter() - start)
        self._memory.append(self._service.memory_mb)

    def figure(self, seconds: float) -> float:
        return self._rate

    def check(self) -> None:
        super().check()
        first, now = self._memory[min(1, len(self._memory) - 1)], self._memory[-1]
        if len(self._memory) > self._repeats and now > first * (1 + _MOST_GROWTH) + _MOST_GROWTH_MB:
            raise VerificationError(f"the server's memory grew from {first:.0f} to {now:.0f} MB")

    def tear_down(self) -> None:
        self._end.set()
        for client in self._clients:
            client.join(_TIMEOUT_S)
        with suppress(OSError):
            super().tear_down()


class _Recorded(Case):
    """Figures that an operation before has kept, one a round."""

    def __init__(self, operation: Operation, peer: str, figures: Sequence[float]) -> None:
        super().__init__(operation, peer)
        self._figures, self._round = figures, -1

    def prepare(self) -> None:
        self._round += 1

    def run(self) -> None:
        if self._round >= len(self._figures):
            raise VerificationError("the operation before has not measured it")

    def figure(self, seconds: float) -> float:
        return self._figures[self._round]

    def check(self) -> None:
        """The operation before has checked."""
