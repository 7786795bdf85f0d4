"""Many clients at once: answers under arrivals that nobody delays, and 64 clients that never stop asking."""

from __future__ import annotations

import http.client
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.api.service import ServiceProcess
from apbatch.bench.cases.catalogue.records import SEED, SyntheticRecords
from apbatch.bench.runner import Group
from apbatch.bench.sizes import Size
from apbatch.client.remote import RemoteTransport
from apbatch.errors import VerificationError

CLIENTS = 64
#: Requests in a second, on average, of the load whose times are taken.
RATE = 20.0
#: Of the questions: entries, folders and searches of a night; how many different ones there are.
_QUESTIONS = 60
_TIMEOUT_S = 120.0
#: What the service may take more at the end than after the first stretch: a part, and MB.
_MOST_GROWTH, _MOST_GROWTH_MB = 0.1, 20.0


def load_group(size: Size, records: SyntheticRecords, service: ServiceProcess) -> Group:
    """Return the group of the 99th percentile under an open-loop load.

    Parameters
    ----------
    size : Size
        How long the load lasts.
    records : SyntheticRecords
        What the catalogue holds.
    service : ServiceProcess
        The service that is asked.
    """
    operation = Operation(
        "api",
        "slowest answers under load",
        f"The 99th percentile of the times of {round(RATE * size.load_s)} answers "
        "(three in five are entries, one a folder, one the first files of a night). Requests arrive at random, "
        f"{RATE:g} in a second on average for {size.load_s:g} s, whether or not earlier ones were answered; a time "
        "counts from the arrival, so that a stall shows in all that wait for it.",
        "ms",
        1.0,
    )
    return Group(operation, [_OpenLoop(operation, "REST", size.load_s, records, service)])


def client_groups(size: Size, records: SyntheticRecords, service: ServiceProcess) -> Iterator[Group]:
    """Yield the groups of 64 clients: how many answers they get, and the service's memory meanwhile.

    Parameters
    ----------
    size : Size
        How long the load lasts.
    records : SyntheticRecords
        What the catalogue holds.
    service : ServiceProcess
        The service that is asked.
    """
    stretch = size.clients_s / (size.repeats + 1)
    memory: list[float] = []
    operation = Operation(
        "api",
        f"{CLIENTS} clients",
        f"Answers in a second to {CLIENTS} clients that ask again as soon as they are "
        f"answered, on connections that stay open, for {size.clients_s:g} s without a pause; each round is a stretch "
        f"of {stretch:.3g} s. Every answer is compared. A wrong answer, a failure, or memory that has grown by a tenth "
        f"and {_MOST_GROWTH_MB:g} MB in the end fails the operation.",
        "requests/s",
        1.0,
    )
    yield Group(operation, [_Clients(operation, "REST", stretch, size.repeats, records, service, memory)])
    resident = Operation(
        "api",
        f"memory under {CLIENTS} clients",
        "Resident memory of the service at the end of each stretch of the operation before, 10⁶ bytes.",
        "MB",
        1.0,
    )
    yield Group(resident, [_Recorded(resident, "REST", memory)])


class _Question:
    """An address, and the body that answers it: the catalogue does not change."""

    def __init__(self, path: str, parameters: dict[str, Any], service: str) -> None:
        self.address = f"/api/v1{path}?{urlencode(parameters)}"
        self.body = RemoteTransport(service).request(path, parameters, {"Accept": "application/json"}).data


def questions(records: SyntheticRecords, service: str) -> list[_Question]:
    """Return what the clients ask, in a fixed mixture, and how it is to be answered.

    Parameters
    ----------
    records : SyntheticRecords
        What the catalogue holds.
    service : str
        URL of the service, which is asked each once.

    Raises
    ------
    VerificationError
        If one of these answers is not right.
    """
    draw = random.Random(SEED + 3)
    some: list[_Question] = []
    for number in range(_QUESTIONS):
        place = draw.randrange(len(records))
        record = records[place]
        if number % 5 < 3:
            question, proof = _Question("/entry", {"path": record.path}, service), f'"size":{record.size}'
        elif number % 5 == 3:
            folder, _, proof = records[records.night_of(place)[0]].path.rpartition("/")  # the first that is listed
            question = _Question("/entries", {"folder": folder, "limit": 500}, service)
        else:
            query = f"experiment = '{record.experiment}' and night = {record.night}"
            question, proof = _Question("/files", {"q": query, "limit": 50}, service), f'"night":"{record.night}"'
        if proof.encode() not in question.body:
            raise VerificationError("an answer is not the right one", where=question.address)
        some.append(question)
    draw.shuffle(some)
    return some


class _Connection:
    """One client's connection, which stays open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)

    def ask(self, question: _Question) -> None:
        """Ask, and compare the answer.

        Raises
        ------
        VerificationError
            If the answer is another one.
        """
        self._connection.request("GET", question.address, headers={"Accept": "application/json"})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200 or body != question.body:
            raise VerificationError(f"status {answer.status}: {body[:200]!r}", where=question.address)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class _Load(Case):
    """Threads that ask; proof: no answer is missing or wrong."""

    def __init__(self, operation: Operation, peer: str, records: SyntheticRecords, service: ServiceProcess) -> None:
        super().__init__(operation, peer)
        self._records, self._service = records, service
        self._questions: list[_Question] = []
        self._errors: list[str] = []
        self._connections: list[_Connection] = []

    def set_up(self) -> None:
        self._questions = questions(self._records, self._service.url)
        self._connections = [_Connection(self._service.url) for _ in range(CLIENTS)]

    def _threads(self, ask: Callable[[int, _Connection], None]) -> list[threading.Thread]:
        def body(number: int, connection: _Connection) -> None:
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
        if self._errors:
            raise VerificationError(f"{len(self._errors)} clients failed, the first: {self._errors[0]}")

    def tear_down(self) -> None:
        for connection in self._connections:
            connection.close()


class _OpenLoop(_Load):
    """Requests at times that were drawn before."""

    def __init__(
        self, operation: Operation, peer: str, seconds: float, records: SyntheticRecords, service: ServiceProcess
    ) -> None:
        super().__init__(operation, peer, records, service)
        self._number, self._draw = round(RATE * seconds), random.Random(SEED + 4)
        self._arrivals: list[float] = []
        self._times: list[float] = []

    def prepare(self) -> None:
        at = 0.0
        self._arrivals = [at := at + self._draw.expovariate(RATE) for _ in range(self._number)]
        self._times = []

    def run(self) -> None:
        waiting = iter(list(enumerate(self._arrivals)))
        lock, start = threading.Lock(), time.perf_counter()

        def ask(number: int, connection: _Connection) -> None:
            while True:
                with lock:
                    place, arrival = next(waiting, (-1, 0.0))
                if place < 0:
                    return
                time.sleep(max(0.0, start + arrival - time.perf_counter()))
                connection.ask(self._questions[place % len(self._questions)])
                self._times.append(time.perf_counter() - start - arrival)

        for thread in self._threads(ask):
            thread.join()

    def figure(self, seconds: float) -> float:
        return 1000.0 * percentile(self._times, 0.99)

    def check(self) -> None:
        super().check()
        if len(self._times) != self._number:
            raise VerificationError(f"{len(self._times)} of {self._number} requests were answered")


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least a part of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else math.nan


class _Clients(_Load):
    """Clients from the first round to the last; a round waits for a stretch of that."""

    def __init__(
        self,
        operation: Operation,
        peer: str,
        stretch: float,
        repeats: int,
        records: SyntheticRecords,
        service: ServiceProcess,
        memory: list[float],
    ) -> None:
        super().__init__(operation, peer, records, service)
        self._stretch, self._repeats, self._memory = stretch, repeats, memory
        self._answered = [0] * CLIENTS
        self._end = threading.Event()
        self._clients: list[threading.Thread] = []
        self._rate = 0.0

    def set_up(self) -> None:
        super().set_up()

        def ask(number: int, connection: _Connection) -> None:
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
            raise VerificationError(f"the service's memory grew from {first:.0f} to {now:.0f} MB")

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
