"""One daemon: started detached, known by pid and start time, so that a re-used pid is never signalled."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_TERM_S = 20.0


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

    def process(self) -> psutil.Process | None:
        """Return the running process, if it is the very one that was started."""
        try:
            identity = json.loads(self._identity.read_text())
            process = psutil.Process(identity["pid"])
            if abs(process.create_time() - identity["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except (FileNotFoundError, ValueError, KeyError, psutil.Error):
            pass
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
                env={**os.environ, **self.environment},
                cwd=self.folder,
                start_new_session=True,
            )
        process = psutil.Process(started.pid)
        part = self._identity.with_suffix(".part")
        part.write_text(json.dumps({"pid": started.pid, "started": process.create_time()}))
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

    def last_lines(self, number: int = 5) -> str:
        """Return the end of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-number:])
        except FileNotFoundError:
            return ""
