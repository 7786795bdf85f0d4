"""A real YARN: one ResourceManager and two NodeManagers, each its own process."""

from __future__ import annotations

import json
import shutil
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psutil

from apbatch.cluster.artifacts import jars, jars_folder, java, require_java
from apbatch.cluster.hadoop import VERSION, java_flags, write_configuration
from apbatch.cluster.process import Daemon
from apbatch.cluster.server import Server
from apbatch.config import endpoints

NODES = 2
#: What each node lends out.
NODE_MEMORY_MB = 4096
NODE_CORES = 2
_ARTIFACTS = [
    *(
        f"org.apache.hadoop:hadoop-yarn-server-{name}:{VERSION}"
        for name in ("resourcemanager", "nodemanager", "timelineservice")
    ),
    *(f"org.apache.hadoop:{name}:{VERSION}" for name in ("hadoop-common", "hadoop-hdfs-client")),
]
#: Guice and Jersey look into classes of Java itself.
_OPENS = ("java.lang", "java.lang.reflect", "java.util", "java.net")
_END_S = 10.0


class Yarn(Server):
    """YARN on loopback."""

    name: ClassVar[str] = "yarn"

    @staticmethod
    def fetch() -> Path:
        """Return the folder of Hadoop's jars, fetched on first use."""
        return jars("hadoop-yarn", VERSION, _ARTIFACTS)

    @property
    def client_folder(self) -> Path:
        """Configuration for clients: what ``$HADOOP_CONF_DIR`` names."""
        return self.folder / "conf"

    def prepare(self) -> None:
        """Fetch Hadoop, write the configuration."""
        require_java()
        self.fetch()
        for name in ("tmp", "state", "staging"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        common = {
            # HDFS where it is up; else what jobs share lies in a folder of this machine
            "fs.defaultFS": endpoints().get("hdfs", "file:///"),
            "hadoop.tmp.dir": str(self.folder / "tmp"),
        }
        site = self._addresses() | _COMMON
        write_configuration(self.client_folder, core_site=common, yarn_site=site, hdfs_site={"dfs.replication": "2"})
        manager = {
            "yarn.resourcemanager.bind-host": "127.0.0.1",
            "yarn.resourcemanager.fs.state-store.uri": (self.folder / "state").as_uri(),
        }
        write_configuration(
            self._conf(0), core_site=common, yarn_site=site | _MANAGER | manager, capacity_scheduler=_QUEUE
        )
        for node in range(1, NODES + 1):
            write_configuration(self._conf(node), core_site=common, yarn_site=site | _NODE | self._node(node))

    def _conf(self, node: int) -> Path:
        return self.folder / (f"nodemanager{node}" if node else "resourcemanager") / "conf"

    def _addresses(self) -> dict[str, str]:
        names = ("scheduler.address", "address", "resource-tracker.address", "admin.address", "webapp.address")
        numbers = {f"yarn.resourcemanager.{name}": self.port(50 + offset) for offset, name in enumerate(names)}
        return {"yarn.resourcemanager.hostname": "127.0.0.1"} | {
            name: f"127.0.0.1:{number}" for name, number in numbers.items()
        }

    def _node_ports(self, node: int) -> list[int]:
        return [self.port(140 + 10 * node + offset) for offset in range(3)]

    def _node(self, node: int) -> dict[str, str]:
        names = ("address", "localizer.address", "webapp.address")
        here = self._conf(node).parent
        return {
            f"yarn.nodemanager.{name}": f"127.0.0.1:{number}"
            for name, number in zip(names, self._node_ports(node), strict=True)
        } | {
            "yarn.nodemanager.local-dirs": str(here / "local"),
            "yarn.nodemanager.log-dirs": str(here / "logs"),
            "yarn.nodemanager.recovery.dir": str(here / "recovery"),
        }

    def daemons(self) -> list[Daemon]:
        """Return ResourceManager and NodeManagers."""
        package = "org.apache.hadoop.yarn.server"
        ports = [self.port(50 + offset) for offset in range(5)]
        daemons = [self._daemon("resourcemanager", 0, f"{package}.resourcemanager.ResourceManager", ports)]
        for node in range(1, NODES + 1):
            main = f"{package}.nodemanager.NodeManager"
            daemons.append(self._daemon(f"nodemanager{node}", node, main, self._node_ports(node)))
        return daemons

    def _daemon(self, name: str, node: int, main: str, ports: list[int]) -> Daemon:
        lib = jars_folder("hadoop-yarn", VERSION)
        command = [java(), *java_flags(self.folder / "tmp")]
        for module in _OPENS:
            command += ["--add-opens", f"java.base/{module}=ALL-UNNAMED"]
        command += ["-cp", f"{self._conf(node)}:{lib}:{lib}/*", main]
        program = shutil.which(java())
        # handed on to the containers: what runs in them must not listen on this machine's other addresses
        environment = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_HOSTNAME": "localhost"}
        if program:
            environment["JAVA_HOME"] = str(Path(program).resolve().parents[1])
        return Daemon(name, command, self._conf(node).parent, environment, ports)

    def unhealthy(self) -> str | None:
        """The ResourceManager must count all nodes, and each must have joined the one that runs now."""
        try:
            with urllib.request.urlopen(f"{self._web}/ws/v1/cluster/metrics", timeout=5) as answer:
                active = json.load(answer)["clusterMetrics"]["activeNodes"]
        except (OSError, ValueError, KeyError) as error:
            return f"the ResourceManager does not answer ({error})"
        if active < NODES:
            return f"{active} of {NODES} NodeManagers have joined"
        # a node that was killed and came back is counted all along
        for daemon in self.daemons()[1:]:
            if not daemon.has_logged("Registered with ResourceManager"):
                return f"{daemon.name} has not joined"
        return None

    @property
    def _web(self) -> str:
        return f"http://127.0.0.1:{self.port(54)}"

    def addresses(self) -> dict[str, str]:
        """Return the folder of the clients' configuration, and the ResourceManager's page."""
        return {"yarn": str(self.client_folder), "yarn_web": self._web}

    def down(self) -> None:
        """Stop it; what still runs in containers, if a node was killed, ends too."""
        super().down()
        self.end_containers()

    def end_containers(self, node: int | None = None) -> None:
        """End what runs in containers of a node, or of all."""
        left = self.containers(node)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, _END_S)

    def containers(self, node: int | None = None) -> list[psutil.Process]:
        """Return the processes in containers of a node, or of all: each has the node's folder in ``$LOCAL_DIRS``."""
        nodes = [node] if node else range(1, NODES + 1)
        folders = tuple(str(self._conf(number).parent / "local") for number in nodes)
        processes = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if process.environ().get("LOCAL_DIRS", "").startswith(folders):
                    processes.append(process)
        return processes


_COMMON = {
    "yarn.acl.enable": "false",
    "yarn.timeline-service.enabled": "false",
    "yarn.log-aggregation-enable": "false",
    "yarn.resourcemanager.am.max-attempts": "2",
}
_MANAGER = {
    # jobs go on after the ResourceManager was killed and is back
    "yarn.resourcemanager.recovery.enabled": "true",
    "yarn.resourcemanager.store.class": "org.apache.hadoop.yarn.server.resourcemanager.recovery.FileSystemRMStateStore",
    "yarn.resourcemanager.work-preserving-recovery.scheduling-wait-ms": "2000",
    "yarn.scheduler.minimum-allocation-mb": "128",
    "yarn.scheduler.maximum-allocation-mb": str(NODE_MEMORY_MB),
    "yarn.scheduler.maximum-allocation-vcores": str(NODE_CORES),
    # a node that died is noticed within seconds, not ten minutes
    "yarn.nm.liveness-monitor.expiry-interval-ms": "15000",
    "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": "250",
    "yarn.resourcemanager.max-completed-applications": "100",
}
_NODE = {
    "yarn.nodemanager.resource.memory-mb": str(NODE_MEMORY_MB),
    "yarn.nodemanager.resource.cpu-vcores": str(NODE_CORES),
    # containers go on while a NodeManager that was killed is away, and end when it is stopped
    "yarn.nodemanager.recovery.enabled": "true",
    "yarn.nodemanager.recovery.supervised": "false",
    # Java and numba map far more than they use
    "yarn.nodemanager.vmem-check-enabled": "false",
    # a development machine's disk may be nearly full; by default 90 % make a node unfit, without a word to the user
    "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "99.9",
    "yarn.nodemanager.disk-health-checker.min-free-space-per-disk-mb": "256",
    "yarn.nodemanager.disk-health-checker.disk-free-space-threshold.enabled": "true",
    "yarn.nodemanager.log.retain-seconds": str(7 * 86400),
    # what was shipped once stays unpacked on the node for the next jobs
    "yarn.nodemanager.localizer.cache.target-size-mb": "4096",
    "yarn.nodemanager.process-kill-wait.ms": "5000",
    "yarn.nodemanager.env-whitelist": "JAVA_HOME,PATH,LANG,TZ,SPARK_LOCAL_IP,SPARK_LOCAL_HOSTNAME",
}
_QUEUE = {
    "yarn.scheduler.capacity.root.queues": "default",
    "yarn.scheduler.capacity.root.default.capacity": "100",
    # two small jobs may run side by side
    "yarn.scheduler.capacity.maximum-am-resource-percent": "0.6",
    "yarn.scheduler.capacity.resource-calculator": "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator",
}
