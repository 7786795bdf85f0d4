"""Runs a server until a signal ends it: what is under way is finished, nobody new is let in, and the status is 0."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from apbatch.errors import NotFoundError, ServerError, UsageError

#: Seconds for which requests that are under way may go on after the signal.
DRAIN_S = 20
#: Connections that are served at once; more wait to be accepted.
_CONNECTIONS = 1000


@dataclass(frozen=True, slots=True)
class Tls:
    """What a server encrypts with.

    Attributes
    ----------
    certfile, keyfile : pathlib.Path
        The certificate and its key, PEM.
    """

    certfile: Path
    keyfile: Path

    @classmethod
    def of(cls, certfile: Path | None, keyfile: Path | None) -> Tls | None:
        """Return what two options say; None if neither is given.

        Parameters
        ----------
        certfile, keyfile : pathlib.Path, optional

        Raises
        ------
        UsageError
            If one of them is missing.
        NotFoundError
            If there is no such file.
        """
        if certfile is None and keyfile is None:
            return None
        if certfile is None or keyfile is None:
            raise UsageError("TLS needs a certificate and its key", remedy="--certfile FILE --keyfile FILE")
        for file in (certfile, keyfile):
            if not file.is_file():
                raise NotFoundError("no such file", where=str(file))
        return cls(certfile, keyfile)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; port 0 takes a free one.

    Raises
    ------
    ServerError
        If the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)  # who comes before the server is up waits
    except OSError as error:
        where, remedy = f"{host}:{port}", "choose another --port, or 0 for a free one"
        raise ServerError(f"can't listen: {error.strerror}", where=where, remedy=remedy) from None
    return listener


def address_of(listener: socket.socket, host: str, tls: Tls | None = None) -> str:
    """Return the URL at which a socket is reached.

    Parameters
    ----------
    host : str
        Address, as it was asked for.
    listener : socket.socket
        Bound; it knows the port.
    tls : Tls, optional
        Makes it ``https``.
    """
    scheme = "http" if tls is None else "https"
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}:{listener.getsockname()[1]}"


def serve(app: ASGIApp, listener: socket.socket, draining: threading.Event, tls: Tls | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    The first signal closes the listening socket at once and sets `draining`, at which endless answers end by
    themselves; requests under way go on for `DRAIN_S` seconds at most. A second SIGINT ends them at once. systemd is
    told when the server is ready and when it stops (``Type=notify``).

    Parameters
    ----------
    app : ASGI application
    listener : socket
        As `listen` returns it.
    draining : threading.Event
    tls : Tls, optional
        What it encrypts with; without, it speaks plain HTTP.
    """
    certfile, keyfile = (tls.certfile, tls.keyfile) if tls else (None, None)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=30,
        limit_concurrency=_CONNECTIONS, h11_max_incomplete_event_size=65_536, proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_S, ssl_certfile=certfile, ssl_keyfile=keyfile,
    )  # fmt: skip
    _Draining(config, draining).run(sockets=[listener])


class _Draining(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, draining: threading.Event) -> None:
        super().__init__(config)
        self._draining = draining

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        tell_systemd("READY=1")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal; uvicorn's own would raise it again at the end, and the status would be no 0."""
        tell_systemd("STOPPING=1")
        self._draining.set()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def tell_systemd(state: str) -> None:
    """Send a state to the service manager, where one asked for it (``sd_notify(3)``)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect("\0" + address[1:] if address[0] == "@" else address)
        channel.sendall(state.encode())
