"""Spark's history server: the pages of jobs that have ended, from their event logs."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import ClassVar

from apbatch.cluster.artifacts import require_java
from apbatch.cluster.process import Daemon
from apbatch.cluster.server import Server
from apbatch.cluster.spark import DAEMON_ENVIRONMENT, require_pyspark, spark_class
from apbatch.config import event_logs


class History(Server):
    """The history server on loopback; it reads the event logs of this state folder."""

    name: ClassVar[str] = "history"

    def prepare(self) -> None:
        """Make the folder of event logs."""
        require_java()
        require_pyspark()
        event_logs().mkdir(parents=True, exist_ok=True)
        (self.folder / "store").mkdir(parents=True, exist_ok=True)
        settings = {
            "spark.history.fs.logDirectory": event_logs().as_uri(),
            "spark.history.ui.port": str(self.port(60)),
            "spark.history.fs.update.interval": "2s",
            "spark.history.store.path": str(self.folder / "store"),
            "spark.history.fs.cleaner.enabled": "true",
            "spark.history.fs.cleaner.maxAge": "90d",
        }
        self._settings.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    @property
    def _settings(self) -> Path:
        return self.folder / "history.conf"

    def daemons(self) -> list[Daemon]:
        """Return the server."""
        main = "org.apache.spark.deploy.history.HistoryServer"
        command = [spark_class(), main, "--properties-file", str(self._settings)]
        return [Daemon("history", command, self.folder, DAEMON_ENVIRONMENT, [self.port(60)])]

    def unhealthy(self) -> str | None:
        """Its list of applications must come."""
        try:
            with urllib.request.urlopen(f"{self._web}/api/v1/applications?limit=1", timeout=5) as answer:
                json.load(answer)
        except (OSError, ValueError) as error:
            return f"the history server does not answer ({error})"
        return None

    @property
    def _web(self) -> str:
        return f"http://127.0.0.1:{self.port(60)}"

    def addresses(self) -> dict[str, str]:
        """Return the URL of its page."""
        return {"history": self._web}
