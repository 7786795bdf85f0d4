"""A web server for tests: ranges, versions, an index of each folder, and every way in which a server can fail."""

from __future__ import annotations

import html
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest


class WebServer:
    """Serves a folder on loopback.

    Attributes
    ----------
    fault : str
        ``cut`` (half of the body), ``stall`` (nothing more after half), ``trickle`` (a byte at a time), ``lie`` (a
        wrong byte), ``shift`` (another range), ``long`` (a wrong Content-Length), ``whole`` (ranges are ignored),
        ``error`` (503), ``nohead`` (no HEAD), ``packed`` (says that it is compressed), ``silent`` (never answers);
        empty: none.
    sent : int
        Bytes of bodies sent.
    requests : list of (method, path, range)
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.fault, self.sent = folder, "", 0
        self.requests: list[tuple[str, str, str]] = []
        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": self}))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: WebServer

    def log_message(self, format: str, *values: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        web = self.web
        path = unquote(urlsplit(self.path).path, errors="surrogateescape")
        web.requests.append((self.command, path, self.headers.get("Range", "")))
        file = web.folder / path.strip("/")
        if web.fault == "silent":
            web.ended.wait()
            return
        if web.fault == "error" or (web.fault == "nohead" and not body):
            self._send(503 if body else 405, {}, b"")
        elif file.is_dir() and not path.endswith("/"):
            self._send(301, {"Location": quote(path, errors="surrogateescape") + "/"}, b"")
        elif file.is_dir():
            names = sorted(os.listdir(file))  # noqa: PTH208
            links = "".join(f'<a href="{html.escape(_link(file, name))}">x</a>\n' for name in ["..", *names])
            self._send(200, {"Content-Type": "text/html"}, links.encode(), body)
        elif not file.is_file():
            self._send(404, {}, b"")
        else:
            self._file(file, body)

    def _file(self, file: Path, body: bool) -> None:
        content, status = file.read_bytes(), file.stat()
        etag = f'"{status.st_mtime_ns:x}-{len(content):x}"'
        headers = {"ETag": etag, "Last-Modified": self.date_time_string(int(status.st_mtime))}
        if self.headers.get("If-Match", etag) != etag:
            self._send(412, {}, b"")
            return
        asked, fault = self.headers.get("Range"), self.web.fault
        if asked is None or fault == "whole":
            self._send(200, headers, content, body)
            return
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        last = min(last, len(content) - 1)
        if fault == "shift":
            first, last = first + 1, last + 1
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, headers, content[first : last + 1], body)

    def _send(self, status: int, headers: dict[str, str], content: bytes, body: bool = True) -> None:
        fault = self.web.fault if status == 206 else ""
        if fault == "lie":
            content = bytes([content[0] ^ 1]) + content[1:]
        if fault == "packed":
            headers["Content-Encoding"] = "gzip"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) + (fault == "long")))
        self.end_headers()
        if not body:
            return
        with suppress(OSError):
            if fault == "trickle":
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    if self.web.ended.wait(0.05):
                        return
                return
            half = len(content) // 2 if fault in ("cut", "stall") else len(content)
            self.wfile.write(content[:half])
            self.web.sent += half
            if fault == "stall":
                self.web.ended.wait()
            if fault == "cut":
                self.close_connection = True


def _link(folder: Path, name: str) -> str:
    end = "/" if (folder / name).is_dir() else ""
    return f"./{quote(name, errors='surrogateescape')}{end}"


@contextmanager
def served(folder: Path) -> Iterator[WebServer]:
    """A server of a folder, while the block lasts."""
    server = WebServer(folder)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], WebServer]]:
    """Starts web servers of folders, which end with the session."""
    servers: list[WebServer] = []

    def start(folder: Path) -> WebServer:
        servers.append(WebServer(folder))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
