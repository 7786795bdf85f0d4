"""One daemon: started detached, known by its pid and a mark it carries, so that a re-used pid is never signalled."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_TERM_S = 20.0
_FAULT = re.compile(r"\b(ERROR|FATAL)\b|Exception\b|Error\b")
#: Each daemon carries its folder and name in this variable, which the kernel keeps in /proc/PID/environ.
_MARK = "APBATCH_DAEMON"
# The child writes its pid before it becomes the daemon: an `up` killed at any moment leaves no unknown process behind.
_LAUNCH = 'echo $$ >"$0.part" && mv "$0.part" "$0" && exec "$@"'


@dataclass(frozen=True)
class Daemon:
    """A process of a server.

    Attributes
    ----------
    name : str
    command : sequence of str
    folder : pathlib.Path
        Where its pid file and log lie.
    environment : mapping
        Added to this process's environment.
    ports : sequence of int
        Ports it listens on; they must be free before it starts.
    """

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[int] = ()

    @property
    def log(self) -> Path:
        """The file that takes all it prints."""
        return self.folder / f"{self.name}.log"

    @property
    def _identity(self) -> Path:
        return self.folder / f"{self.name}.pid"

    @property
    def _mark(self) -> str:
        return str(self.folder / self.name)

    def process(self) -> psutil.Process | None:
        """Return the running process, if it is the very one that was started."""
        try:
            process = psutil.Process(int(self._identity.read_text()))
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            # its children inherit the mark, but only the daemon itself leads the session
            ours = process.environ().get(_MARK) == self._mark and os.getsid(process.pid) == process.pid
        except (OSError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def start(self) -> None:
        """Start it, unless it runs already."""
        if self.process() is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.old"))
        with self.log.open("wb") as log:
            started = subprocess.Popen(
                ["sh", "-c", _LAUNCH, str(self._identity), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, _MARK: self._mark},
                cwd=self.folder,
                start_new_session=True,
            )
        part = self._identity.with_suffix(".new")  # the same pid: it need not be waited for
        part.write_text(f"{started.pid}\n")
        part.replace(self._identity)

    def signal_end(self) -> None:
        """Ask it to end."""
        process = self.process()
        if process is not None:
            process.terminate()

    def await_end(self) -> None:
        """Wait until it has ended; one that does not is killed."""
        process = self.process()
        if process is not None:
            deadline = time.monotonic() + _TERM_S
            while self.process() is not None and time.monotonic() < deadline:
                time.sleep(0.05)
            if self.process() is not None:
                process.kill()
                process.wait(10)
        self._identity.unlink(missing_ok=True)

    def has_logged(self, text: str) -> bool:
        """Tell whether a line of its log, since it was started last, has `text`."""
        try:
            with self.log.open(errors="replace") as lines:
                return any(text in line for line in lines)
        except FileNotFoundError:
            return False

    def last_lines(self, number: int = 5) -> str:
        """Return the end of its log: the last lines that tell of a fault, or, if none does, just the last ones."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        faults = [line for line in lines if _FAULT.search(line)]
        return "\n".join((faults or lines)[-number:])
