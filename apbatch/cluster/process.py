"""One daemon: started detached, known by its pid and a mark it carries, so that a re-used pid is never signalled."""

from __future__ import annotations

import os
import re
import signal
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
    end : signal.Signals
        What asks it to end.
    """

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[int] = ()
    end: signal.Signals = signal.SIGTERM

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
            if process.status() != psutil.STATUS_ZOMBIE and self._carried_by(process.pid):
                return process
        except (OSError, ValueError, psutil.Error):
            pass
        return self._lost()

    def _carried_by(self, pid: int) -> bool:
        # its children inherit the mark, but only the daemon itself leads the session
        return os.getsid(pid) == pid and f"{_MARK}={self._mark}".encode() in _environment(pid)

    def _lost(self) -> psutil.Process | None:
        """Return the process if it runs without a pid file: its starter was killed before it could write one."""
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self._carried_by(int(entry.name)):
                    process = psutil.Process(int(entry.name))
                    return process if process.status() != psutil.STATUS_ZOMBIE else None
            except (OSError, psutil.Error):
                continue
        return None

    def start(self) -> None:
        """Start it, unless it runs already."""
        if self.process() is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.old"))
        with self.log.open("wb") as log:
            started = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, _MARK: self._mark},
                cwd=self.folder,
                start_new_session=True,
            )
        part = self._identity.with_suffix(".part")
        part.write_text(f"{started.pid}\n")
        part.replace(self._identity)

    def signal_end(self) -> None:
        """Ask it to end."""
        process = self.process()
        if process is not None:
            process.send_signal(self.end)

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


def _environment(pid: int) -> list[bytes]:
    """Return the environment of a process; for a moment, while it turns into another program, the kernel shows none."""
    file = Path(f"/proc/{pid}/environ")
    deadline = time.monotonic() + 0.1
    while not (content := file.read_bytes()) and _user_program(pid) and time.monotonic() < deadline:
        time.sleep(0.002)
    return content.split(b"\0")


def _user_program(pid: int) -> bool:
    """Tell a program from a thread of the kernel and from a process that has ended: these never have an environment."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    kernel_thread = 0x00200000  # PF_KTHREAD
    return fields[0] not in "ZX" and not int(fields[6]) & kernel_thread
