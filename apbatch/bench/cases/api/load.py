"""Many clients at once: answers under arrivals that nobody delays, and 64 clients that never stop asking."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from apbatch.bench.case import Operation
from apbatch.bench.cases.api.service import ServiceProcess
from apbatch.bench.cases.catalogue.records import SEED, SyntheticRecords
from apbatch.bench.cases.clients import CLIENTS, Connection, Load, Question, many_clients
from apbatch.bench.runner import Group
from apbatch.bench.sizes import Size
from apbatch.client.remote import RemoteTransport
from apbatch.errors import VerificationError

#: Requests in a second, on average, of the load whose times are taken.
RATE = 20.0
#: Of the questions: entries, folders and searches of a night; how many different ones there are.
_QUESTIONS = 60
_KIND = "application/json"


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
    """Yield the groups of 64 clients; see `apbatch.bench.cases.clients.many_clients`.

    Parameters
    ----------
    size : Size
        How long the load lasts.
    records : SyntheticRecords
        What the catalogue holds.
    service : ServiceProcess
        The service that is asked.
    """
    yield from many_clients("api", f"{CLIENTS} clients", "REST", size, lambda: questions(records, service.url), service)


def _question(path: str, parameters: dict[str, Any], service: str) -> Question:
    """Return a question with the body that answers it: the catalogue does not change."""
    body = RemoteTransport(service).request(path, parameters, {"Accept": _KIND}).data
    return Question(f"/api/v1{path}?{urlencode(parameters)}", body, _KIND)


def questions(records: SyntheticRecords, service: str) -> list[Question]:
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
    some: list[Question] = []
    for number in range(_QUESTIONS):
        place = draw.randrange(len(records))
        record = records[place]
        if number % 5 < 3:
            question, proof = _question("/entry", {"path": record.path}, service), f'"size":{record.size}'
        elif number % 5 == 3:
            folder, _, proof = records[records.night_of(place)[0]].path.rpartition("/")  # the first that is listed
            question = _question("/entries", {"folder": folder, "limit": 500}, service)
        else:
            query = f"experiment = '{record.experiment}' and night = {record.night}"
            question, proof = _question("/files", {"q": query, "limit": 50}, service), f'"night":"{record.night}"'
        if proof.encode() not in question.body:
            raise VerificationError("an answer is not the right one", where=question.address)
        some.append(question)
    draw.shuffle(some)
    return some


class _OpenLoop(Load):
    """Requests at times that were drawn before."""

    def __init__(
        self, operation: Operation, peer: str, seconds: float, records: SyntheticRecords, service: ServiceProcess
    ) -> None:
        super().__init__(operation, peer, lambda: questions(records, service.url), service)
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

        def ask(number: int, connection: Connection) -> None:
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
