"""The client of a stream as a process of its own: for each line of its input it reads the stream once.

It answers with a line of JSON: how many files came, the sum of their sizes, and its peak of memory.
"""

from __future__ import annotations

import json
import sys

import pyarrow.compute as pc

from apbatch.bench.cases.api.service import peak_mb
from apbatch.client.remote import RemoteTransport
from apbatch.client.transport import Transport
from apbatch.errors import VerificationError


def totals_of_batches(transport: Transport, limit: int | None = None) -> tuple[int, int]:
    """Read a listing batch by batch; return its files and the sum of their sizes."""
    number = total = 0
    for batch in transport.batches("", None, limit, False):
        number += batch.num_rows
        total += pc.sum(batch.column("size")).as_py() or 0
    return number, total


def totals_of_lines(transport: RemoteTransport, limit: int | None = None) -> tuple[int, int]:
    """Read a listing line by line; return its files and the sum of their sizes."""
    number = total = 0
    answer = transport.request("/files", {"limit": limit, "format": "ndjson"}, stream=True)
    rest = b""
    for piece in answer.stream(2**18):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            number, total = number + 1, total + json.loads(line)["size"]
    answer.release_conn()
    if rest:
        raise VerificationError("the stream does not end with a whole line")
    return number, total


def main(url: str, form: str, limit: int) -> None:
    """Read a listing whenever a line comes, until there are no more.

    Parameters
    ----------
    url : str
        Of the service.
    form : str
        ``arrow`` or ``ndjson``.
    limit : int
        Files at most.
    """
    read = totals_of_batches if form == "arrow" else totals_of_lines
    transport = RemoteTransport(url)
    for _ in sys.stdin:
        files, size = read(transport, limit)
        print(json.dumps({"files": files, "bytes": size, "peak_mb": peak_mb("self")}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
