"""A whole listing as a stream: its rate against reading the catalogue here, and the memory of both sides."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.api.read_stream import totals_of_batches, totals_of_lines
from apbatch.bench.cases.api.service import ServiceProcess
from apbatch.bench.runner import Group
from apbatch.client.local import LocalTransport
from apbatch.client.remote import RemoteTransport
from apbatch.errors import ServerError, VerificationError
from apbatch.index.files import FileRecord

LOCAL, REST = "local", "REST"
#: The forms of a stream, as ``?format=`` takes them, and their names in the report.
FORMS = {"arrow": "Arrow", "ndjson": "NDJSON"}
_READER = "apbatch.bench.cases.api.read_stream"


def rate_groups(records: Sequence[FileRecord], local: LocalTransport, remote: RemoteTransport) -> Iterator[Group]:
    """Yield the groups of reading a whole listing, as batches and as rows.

    Parameters
    ----------
    records : sequence of FileRecord
        What the catalogue holds.
    local : LocalTransport
        Reads in this process.
    remote : RemoteTransport
        Reads over HTTP.
    """
    expected = len(records), sum(record.size for record in records)
    arrow = Operation(
        "api",
        "stream a listing as Arrow",
        f"{len(records)} files with their usual columns as batches: by the client "
        "in one process with the catalogue, and over HTTP. The aim is half of the rate.",
        "records/s",
        float(len(records)),
        baseline=LOCAL,
    )
    batches = [
        _Stream(arrow, peer, expected, lambda one=one: totals_of_batches(one))  # type: ignore[misc]
        for peer, one in ((LOCAL, local), (REST, remote))
    ]
    yield Group(arrow, batches)
    rows = Operation(
        "api",
        "stream a listing as NDJSON",
        f"The same {len(records)} files as a dict each: made of the catalogue's "
        "batches here, and parsed from the lines of a stream. The aim is half of the rate.",
        "records/s",
        float(len(records)),
        baseline=LOCAL,
    )
    yield Group(
        rows,
        [
            _Stream(rows, LOCAL, expected, lambda: _totals_of_rows(local)),
            _Stream(rows, REST, expected, lambda: totals_of_lines(remote)),
        ],
    )


def memory_groups(
    records: int, catalogue: str, folder: Path, at_end: Callable[[Callable[[], None]], Any]
) -> Iterator[Group]:
    """Yield the groups of the memory that a stream takes, one a form and side; the sides share its readings.

    Parameters
    ----------
    records : int
        Of the catalogue; a quarter of them is the smaller stream.
    catalogue : str
        Its URL.
    folder : pathlib.Path
        For the services, one a size, each new, so that neither holds what the other needed.
    at_end : callable
        Is given what ends a service.
    """
    services = {number: ServiceProcess(catalogue, folder / f"service-{number}") for number in (records // 4, records)}
    for service in services.values():
        at_end(service.stop)
    for service in services.values():
        service.wait_until_up()
    for form, name in FORMS.items():
        readers = {f"{number} records": _Reader(service, form, number) for number, service in services.items()}
        for side in ("service", "client"):
            operation = Operation(
                "api",
                f"memory of a {side}, {name}",
                f"The most resident memory of the {side} since it began, 10⁶ "
                "bytes, for two lengths of a stream: flat if both, above two pages of 10,000 records, take as much; "
                "the client adds up what comes.",
                "MB",
                1.0,
                reference=next(iter(readers)),
            )
            yield Group(operation, [_Memory(operation, peer, reader, side) for peer, reader in readers.items()])


def _totals_of_rows(transport: LocalTransport) -> tuple[int, int]:
    number = total = 0
    for batch in transport.batches("", None, None, False):
        for row in batch.to_pylist():
            number, total = number + 1, total + row["size"]
    return number, total


class _Stream(Case):
    """Read everything; proof: number and sum of sizes."""

    def __init__(
        self, operation: Operation, peer: str, expected: tuple[int, int], read: Callable[[], tuple[int, int]]
    ) -> None:
        super().__init__(operation, peer)
        self._expected, self._read = expected, read
        self._totals = (0, 0)

    def run(self) -> None:
        self._totals = self._read()

    def check(self) -> None:
        if self._totals != self._expected:
            raise VerificationError(
                f"files and the sum of their sizes are {self._totals}, not {self._expected}", where=self.peer
            )


class _Reader:
    """A client in a process of its own, which reads a stream once a round; the peaks of both sides, MB, by round.

    Parameters
    ----------
    service : ServiceProcess
    form : str
    number : int
        Files to read.
    """

    def __init__(self, service: ServiceProcess, form: str, number: int) -> None:
        self.service, self.form, self.number = service, form, number
        self._process: subprocess.Popen[str] | None = None
        self._rounds: list[dict[str, float]] = []

    def peaks(self, number: int) -> dict[str, float]:
        """Return the peaks after a round; whoever asks for them first has the stream read.

        Raises
        ------
        ServerError, VerificationError
            If the stream can't be read, or is not whole.
        """
        if number == len(self._rounds):
            if self._process is None:
                command = [sys.executable, "-m", _READER, self.service.url, self.form, str(self.number)]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write("read\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            if not line:
                raise ServerError("the client ended", where=self.service.url)
            answer = json.loads(line)
            if answer["files"] != self.number:
                raise VerificationError(f"{answer['files']} files came, not {self.number}")
            self._rounds.append({"service": self.service.peak_mb, "client": answer["peak_mb"]})
        return self._rounds[number]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()  # closes its input, at which it ends
            self._process = None


class _Memory(Case):
    """One side of a stream; proof: the number of files."""

    def __init__(self, operation: Operation, peer: str, reader: _Reader, side: str) -> None:
        super().__init__(operation, peer)
        self._reader, self._side, self._round = reader, side, -1

    def prepare(self) -> None:
        self._round += 1

    def run(self) -> None:
        self._reader.peaks(self._round)

    def figure(self, seconds: float) -> float:
        return self._reader.peaks(self._round)[self._side]

    def check(self) -> None:
        """The reading has compared the number of files."""

    def tear_down(self) -> None:
        self._reader.close()
