"""A real HDFS: one NameNode and three DataNodes, each its own process, replication 2."""

from __future__ import annotations

import getpass
import json
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import ClassVar

from apbatch.cluster.artifacts import jars, jars_folder, java, require_java
from apbatch.cluster.hadoop import VERSION, java_flags, write_configuration
from apbatch.cluster.process import Daemon
from apbatch.cluster.server import Server
from apbatch.errors import ServerError

DATANODES = 3
_ARTIFACTS = [
    # hadoop-hdfs names the other two as "provided", so all three are asked for; the web pages are in the tests jar
    *(f"org.apache.hadoop:{name}:{VERSION}" for name in ("hadoop-hdfs", "hadoop-common", "hadoop-hdfs-client")),
    f"org.apache.hadoop:hadoop-hdfs:{VERSION}:tests",
]


class Hdfs(Server):
    """HDFS on loopback."""

    name: ClassVar[str] = "hdfs"

    @property
    def _rpc(self) -> int:
        return self.port(20)

    @property
    def _web(self) -> int:
        return self.port(70)

    @staticmethod
    def fetch() -> Path:
        """Return the folder of Hadoop's jars, fetched on first use."""
        return jars("hadoop-hdfs", VERSION, _ARTIFACTS, webapps_from=f"hadoop-hdfs-{VERSION}-tests.jar")

    def prepare(self) -> None:
        """Fetch Hadoop, write the configuration, format the NameNode once."""
        require_java()
        lib = self.fetch()
        for node in range(DATANODES + 1):
            self._configure(node)
        name = self.folder / "name"
        if not name.exists():
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".format-") as scratch:
                self._format(lib, Path(scratch) / "name")
                (Path(scratch) / "name").rename(name)

    def _format(self, lib: Path, name: Path) -> None:
        command = [java(), "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{self._conf(0)}:{lib}/*"]
        command += ["org.apache.hadoop.hdfs.server.namenode.NameNode"]
        command += ["-D", f"dfs.namenode.name.dir={name.as_uri()}", "-format", "-nonInteractive"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise ServerError(f"the NameNode could not be formatted:\n{done.stderr[-800:]}", where=str(self.folder))

    def _conf(self, node: int) -> Path:
        return self.folder / (f"datanode{node}" if node else "namenode") / "conf"

    def _configure(self, node: int) -> None:
        common = {
            "fs.defaultFS": f"hdfs://127.0.0.1:{self._rpc}",
            "hadoop.tmp.dir": str(self.folder / "tmp"),
            "hadoop.http.staticuser.user": getpass.getuser(),
        }
        settings = {
            "dfs.namenode.name.dir": (self.folder / "name").as_uri(),
            "dfs.namenode.http-address": f"127.0.0.1:{self._web}",
            "dfs.namenode.rpc-bind-host": "127.0.0.1",
            "dfs.replication": "2",
            "dfs.blocksize": str(64 << 20),
            "dfs.namenode.fs-limits.min-block-size": "4096",
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.namenode.safemode.extension": "0",
            "dfs.namenode.safemode.min.datanodes": "1",
            # a node that died is noticed within seconds, not ten minutes
            "dfs.heartbeat.interval": "1",
            "dfs.namenode.heartbeat.recheck-interval": "2000",
            "dfs.namenode.stale.datanode.interval": "5000",
            "dfs.namenode.avoid.read.stale.datanode": "true",
            "dfs.namenode.avoid.write.stale.datanode": "true",
            "dfs.namenode.redundancy.interval.seconds": "1s",
            # a file closes before its last block is reported: else many closes wait 0.4 s
            "dfs.namenode.file.close.num-committed-allowed": "1",
            "dfs.namenode.handler.count": "8",
        }
        if node:
            base = self.port(100 + 10 * node)
            settings |= {
                "dfs.datanode.data.dir": (self.folder / f"datanode{node}" / "data").as_uri(),
                "dfs.datanode.hostname": "127.0.0.1",
                "dfs.datanode.address": f"127.0.0.1:{base}",
                "dfs.datanode.http.address": f"127.0.0.1:{base + 1}",
                "dfs.datanode.ipc.address": f"127.0.0.1:{base + 2}",
                "dfs.datanode.http.internal-proxy.port": str(base + 3),
                "dfs.datanode.handler.count": "4",
                "dfs.datanode.du.reserved": "0",
                # the default of 1 GB refuses every write on a small disk, with a message that reads as nonsense
                "dfs.datanode.round-robin-volume-choosing-policy.additional-available-space": "0",
            }
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        write_configuration(self._conf(node), core_site=common, hdfs_site=settings)

    def daemons(self) -> list[Daemon]:
        """Return NameNode and DataNodes."""
        package = "org.apache.hadoop.hdfs.server"
        daemons = [self._daemon("namenode", 0, f"{package}.namenode.NameNode", [self._rpc, self._web])]
        for node in range(1, DATANODES + 1):
            base = self.port(100 + 10 * node)
            ports = [base, base + 1, base + 2, base + 3]
            daemons.append(self._daemon(f"datanode{node}", node, f"{package}.datanode.DataNode", ports))
        return daemons

    def _daemon(self, name: str, node: int, main: str, ports: list[int]) -> Daemon:
        lib = jars_folder("hadoop-hdfs", VERSION)
        command = [java(), *java_flags(self.folder / "tmp"), "-cp", f"{self._conf(node)}:{lib}:{lib}/*", main]
        return Daemon(name, command, self._conf(node).parent, ports=ports)

    def unhealthy(self) -> str | None:
        """Safe mode must be off, and each DataNode must have reported its blocks."""
        try:
            url = f"http://127.0.0.1:{self._web}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
            with urllib.request.urlopen(url, timeout=5) as answer:
                (state,) = json.load(answer)["beans"]
        except (OSError, ValueError, urllib.error.URLError) as error:
            return f"the NameNode does not answer ({error})"
        if state["FSState"] != "Operational":
            return "the NameNode is in safe mode"
        # both are needed: after a NameNode's restart the logs still tell of the reports to the old one, and a DataNode
        # that was killed and came back is called live all along
        if state["NumLiveDataNodes"] < DATANODES:
            return f"{state['NumLiveDataNodes']} of {DATANODES} DataNodes have joined"
        for daemon in self.daemons()[1:]:
            if not daemon.has_logged("Successfully sent block report"):
                return f"{daemon.name} has not reported its blocks"
        return None

    def addresses(self) -> dict[str, str]:
        """Return the RPC and the HTTP address."""
        return {"hdfs": f"hdfs://127.0.0.1:{self._rpc}", "webhdfs": f"webhdfs://127.0.0.1:{self._web}"}
