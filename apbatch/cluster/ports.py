"""Ports of the development servers, counted from ``$APBATCH_PORT_BASE``, and who holds one that is taken."""

from __future__ import annotations

import os
import socket

import psutil

from apbatch.errors import ServerError, UsageError

_DEFAULT_BASE = 19800


def base() -> int:
    """Return the first port, from which the others are counted.

    Raises
    ------
    UsageError
        If ``$APBATCH_PORT_BASE`` is no usable number.
    """
    text = os.environ.get("APBATCH_PORT_BASE", str(_DEFAULT_BASE))
    if not text.isdigit() or not 1024 <= int(text) <= 65000:
        raise UsageError(f"APBATCH_PORT_BASE={text} is not a port from 1024 to 65000")
    return int(text)


def require_free(number: int, what: str) -> None:
    """Make sure that nobody holds a port.

    Raises
    ------
    ServerError
        With the process that holds it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            raise ServerError(
                f"port {number} for {what} is taken by {_holder(number)}",
                remedy="stop that, or choose other ports: APBATCH_PORT_BASE=21800 apbatch cluster up",
            ) from None


def _holder(number: int) -> str:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return "a process that only root may see"
    for connection in connections:
        if connection.laddr and connection.laddr.port == number and connection.pid:
            try:
                command = " ".join(psutil.Process(connection.pid).cmdline())
            except psutil.Error:
                command = "?"
            return f"process {connection.pid} ({command[:120]})"
    return "another process"
