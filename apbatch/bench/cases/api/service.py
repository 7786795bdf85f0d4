"""`apbatch serve` in a process of its own over a catalogue of the benchmark, and the memory that it takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from apbatch.config import CATALOGUE_VARIABLE
from apbatch.errors import ServerError

_START_S = 600.0
_STOP_S = 60.0
_PROGRAM = "from apbatch.cli.main import main; main()"
_ADDRESS = re.compile(r"serv(?:ing on|ed at) (\S+)")
#: Bytes of a megabyte, as the report has them.
MEGABYTE = 1_000_000


class ServiceProcess:
    """A service over one catalogue, on the loopback interface, with a home of its own.

    Parameters
    ----------
    catalogue : str
        URL of the catalogue.
    folder : pathlib.Path
        For the service's home, its cache and its log.
    command : sequence of str
        What is started, another server of `apbatch` if not the service.
    """

    def __init__(self, catalogue: str, folder: Path, command: Sequence[str] = ("serve",)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            CATALOGUE_VARIABLE: catalogue,
            "APBATCH_HOME": str(folder / "home"),
            "APBATCH_CACHE": str(folder / "cache"),
        }
        environment.pop("APBATCH_CONFIG", None)
        self._command, self._log = command[0], folder / "serve.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *command, "--port", "0"],
                env=environment,
                stderr=log,
                stdout=subprocess.DEVNULL,
            )
        self.url = ""

    def wait_until_up(self) -> None:
        """Wait until it listens, and set `url`.

        Raises
        ------
        ServerError
            If it ends instead.
        """
        limit = time.monotonic() + _START_S
        while not (address := _ADDRESS.search(text := self._log.read_text("utf-8", "replace"))):
            if self._process.poll() is not None or time.monotonic() > limit:
                lines = text.strip().splitlines() or ["it says nothing"]
                raise ServerError(f"apbatch {self._command} did not start: {lines[-1][:300]}")
            time.sleep(0.05)
        self.url = address[1]

    @property
    def memory_mb(self) -> float:
        """Resident memory now, 10⁶ bytes."""
        return float(psutil.Process(self._process.pid).memory_info().rss) / MEGABYTE

    @property
    def peak_mb(self) -> float:
        """Most resident memory since it began, 10⁶ bytes."""
        return peak_mb(self._process.pid)

    def stop(self) -> None:
        """End it; one that does not drain is killed."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def peak_mb(process: int | str) -> float:
    """Return the most resident memory that a process has had since its program began, 10⁶ bytes.

    The kernel's ``VmHWM``: unlike ``ru_maxrss`` it does not count what the parent had before the program was started.

    Parameters
    ----------
    process : int or str
        Its number, or ``self``.
    """
    text = Path(f"/proc/{process}/status").read_text()
    kilobytes = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
    if kilobytes is None:
        raise ServerError("the kernel does not tell the peak of a process' memory", where=f"/proc/{process}/status")
    return int(kilobytes[1]) * 1024 / MEGABYTE
