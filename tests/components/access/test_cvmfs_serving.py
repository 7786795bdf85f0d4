"""A repository over HTTP: a client that knows only the public key reads every byte, which lie at the site alone."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

import pytest
import uvicorn

from apbatch.access.exports.cvmfs.publish import publish
from apbatch.access.exports.cvmfs.repository import Repository
from apbatch.access.exports.cvmfs.serving import Pieces, application
from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import ANYONE
from apbatch.access.reader import Fault, Reader
from apbatch.index.contents import LARGE_PIECE, SMALL_PIECE
from tests.cvmfs_reader import content_of, read_repository
from tests.merged import Merged
from tests.waits import until

NAME = "taiga.example.org"
DRAW = random.Random(7)
FILES = {
    b"a.001": DRAW.randbytes(156), b"empty": b"", b"night/b": DRAW.randbytes(SMALL_PIECE),
    b"night/c": DRAW.randbytes(2 * SMALL_PIECE + 1), b"night/zeros": bytes(3 * SMALL_PIECE),
    b"odd/\xff #?%41\n": b"odd", b"large": DRAW.randbytes(LARGE_PIECE + 5),
}  # fmt: skip
OPEN = "rules: [{name: all, who: anyone, may: data}]"


class Served:
    """A merged tree, its repository, and a server of it on loopback."""

    def __init__(self, merged: Merged, folder: Path, rules: Path) -> None:
        self.merged, self.folder, self.rules = merged, folder, rules
        self.faults: list[Fault] = []
        self.url = ""

    def publish(self, **settings: object) -> None:
        publish(self.merged.guard, "/taiga/one", self.repository(), **settings)  # type: ignore[arg-type]

    def repository(self) -> Repository:
        return Repository(self.folder, NAME, self.folder.parent / "keys")

    def get(self, url: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Message]:
        request = urllib.request.Request(f"{self.url}/{url}", method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def fetch(self, url: str) -> bytes | None:
        status, body, _ = self.get(url)
        assert status in (200, 404)
        return body if status == 200 else None

    def read(self):  # type: ignore[no-untyped-def]
        return read_repository(self.fetch, NAME, self.folder.parent / "keys" / f"{NAME}.pub")

    def piece(self, path: bytes, number: int = 0) -> str:
        url: str = self.read().nodes[path].pieces[number][2]
        return url


@contextmanager
def running(application: object) -> Iterator[str]:
    """Serve an application on loopback in a thread; give its URL."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))  # type: ignore[arg-type]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started, "the server starts")
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def served(tmp_path: Path, home: Path) -> Iterator[Served]:
    merged = Merged(tmp_path / "sites", home)
    for source, data in FILES.items():
        merged.add(source, data)
    rules = tmp_path / "policy.yaml"
    rules.write_text(OPEN)
    served = Served(merged, tmp_path / "repo", rules)
    served.publish()
    guard = Guard(merged.catalogue, None, Policy.load(rules, merged.catalogue), ANYONE)
    with (
        Reader(guard, report=served.faults.append) as reader,
        running(application({NAME: (served.folder, Pieces(served.folder, guard, reader))})) as url,
    ):
        served.url = f"{url}/cvmfs/{NAME}"
        yield served
    merged.catalogue.close()


@pytest.mark.parametrize("piece", [SMALL_PIECE, LARGE_PIECE])
def test_every_byte_comes_from_the_site_in_place(served: Served, piece: int) -> None:
    served.publish(piece=piece)
    repository = served.read()
    contents = {path: content_of(served.fetch, node) for path, node in repository.nodes.items() if not node.is_folder}
    assert contents == {b"/" + source: data for source, data in FILES.items()}
    stored = sum(path.stat().st_size for path in (served.folder / "data").rglob("*") if path.is_file())
    assert stored < 20_000  # catalogs and certificate; no content


def test_answers_can_be_kept_for_ever_and_documents_for_seconds(served: Served) -> None:
    url = served.piece(b"/night/c", 1)
    status, body, headers = served.get(url)
    hash = hashlib.sha1(body).hexdigest()
    assert (status, headers["ETag"], headers["Content-Length"]) == (200, f'"{hash}"', str(SMALL_PIECE))
    assert "immutable" in headers["Cache-Control"] and headers["Date"]
    assert served.get(url, "HEAD")[0::2][0] == 200 and served.get(url, "HEAD")[2]["Content-Length"] == str(SMALL_PIECE)
    assert served.get(url, **{"If-None-Match": f'"{hash}"'})[0] == 304
    assert "max-age=15" in served.get(".cvmfspublished")[2]["Cache-Control"]


def test_nothing_else_is_served(served: Served) -> None:
    for url in (
        "", "data/", ".apbatch/pieces.sqlite", "data/../.apbatch/pieces.sqlite", "data/%2e%2e/.apbatch/lock",
        "data/00/" + "0" * 38, "data/00/" + "0" * 38 + "C", "data/ZZ/" + "0" * 38, "../keys", "data/00/" + "0" * 39,
    ):  # fmt: skip
        status, _, headers = served.get(url)
        assert status == 404, url
        if url.startswith("data/00"):
            assert headers["Cache-Control"] == "no-store"


def test_a_file_that_changed_in_place_is_not_sent(served: Served) -> None:
    first, second = served.piece(b"/night/c", 0), served.piece(b"/night/c", 2)
    file = served.merged.site() / "night" / "c"
    status = file.stat()
    with file.open("r+b") as stream:
        stream.seek(2 * SMALL_PIECE)
        stream.write(bytes([FILES[b"night/c"][-1] ^ 1]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if nothing had happened
    assert served.get(first)[0] == 200
    assert served.get(second)[0] == 404 and served.faults
    os.utime(file, ns=(0, 0))
    assert served.get(served.piece(b"/night/c", 1))[0] == 404


def test_pieces_of_older_revisions_stay_while_some_file_has_them(served: Served) -> None:
    old, shared = served.piece(b"/a.001"), served.piece(b"/night/zeros")
    served.merged.add(b"b/copy", FILES[b"a.001"])
    served.merged.add(b"a.001", b"new content")
    served.publish()
    assert served.get(old)[1] == FILES[b"a.001"]  # the copy has it
    assert served.get(served.piece(b"/a.001"))[1] == b"new content"
    assert served.get(shared)[1] == bytes(SMALL_PIECE)
    served.merged.catalogue.remove(["/taiga/one/b/copy"])
    assert served.get(old)[0] == 404


def test_a_piece_comes_from_another_site_where_the_first_lost_it(served: Served) -> None:
    served.merged.add(b"elsewhere", FILES[b"night/b"], "two", place="/taiga/one/night/b")
    served.publish()
    shutil.rmtree(served.merged.site() / "night")
    assert served.get(served.piece(b"/night/b"))[1] == FILES[b"night/b"]


def test_what_the_policy_takes_back_is_not_sent_any_longer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    url = served.piece(b"/night/b")
    assert served.get(url)[0] == 200
    served.rules.write_text('rules: [{name: some, who: anyone, may: data, query: "size < 1000"}]')
    monkeypatch.setattr("apbatch.access.policy.PERIOD_S", 0.0)
    until(lambda: served.get(url)[0] == 404, "the policy is in force")
    assert served.get(url, "HEAD")[0] == 404 and served.get(served.piece(b"/a.001"))[0] == 200
