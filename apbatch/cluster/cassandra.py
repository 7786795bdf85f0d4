"""Real Apache Cassandra 5, one node or a ring of three, from Maven's artifacts."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import ClassVar

import yaml

from apbatch.cluster.artifacts import jars, jars_folder, java, require_java
from apbatch.cluster.process import Daemon
from apbatch.cluster.server import Server, replace_text
from apbatch.errors import UsageError

VERSION = "5.0.9"
_HEAP, _HEAP_IN_RING = "768m", "512m"
#: Sizes that a ring can have.
SIZES = (1, 3)

# What Java 17 must open to Cassandra, as its own jvm17-server.options has it.
_EXPORTS = (
    "java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry "
    "java.rmi/sun.rmi.server java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc "
    "jdk.compiler/com.sun.tools.javac.file jdk.attach/sun.tools.attach"
)
_OPENS = (
    "java.base/java.lang.module java.base/jdk.internal.loader java.base/jdk.internal.ref "
    "java.base/jdk.internal.reflect java.base/jdk.internal.math java.base/jdk.internal.module "
    "java.base/jdk.internal.util.jar jdk.management/com.sun.management.internal java.base/sun.nio.ch "
    "java.base/java.io java.base/java.lang.reflect jdk.compiler/com.sun.tools.javac java.base/java.lang "
    "java.base/java.util java.base/java.nio"
)

_LOGBACK = """<configuration><appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
<encoder><pattern>%-5level [%thread] %date{ISO8601} %F:%L - %msg%n</pattern></encoder></appender>
<root level="INFO"><appender-ref ref="OUT"/></root></configuration>
"""


class Cassandra(Server):
    """One node on loopback, or three (127.0.0.1 to 3), without passwords."""

    name: ClassVar[str] = "cassandra"

    @staticmethod
    def fetch() -> Path:
        """Return the folder of Cassandra's jars, fetched on first use."""
        return jars("cassandra", VERSION, [f"org.apache.cassandra:cassandra-all:{VERSION}"])

    @property
    def nodes(self) -> int:
        """How many nodes it has, as it was first started."""
        try:
            return int((self.folder / "nodes").read_text())
        except (FileNotFoundError, ValueError):
            return 1

    def choose_nodes(self, number: int) -> None:
        """Choose how many nodes it has, before it first starts.

        Raises
        ------
        UsageError
            If it can't have so many, or holds data on another number of nodes.
        """
        if number not in SIZES:
            raise UsageError(f"Cassandra on one machine has 1 node or 3, not {number}")
        if number != self.nodes and self._homes(self.nodes)[0].joinpath("data").exists():
            raise UsageError(
                f"Cassandra holds data on {self.nodes} node(s) here, not on {number}",
                where=str(self.folder),
                remedy="name another APBATCH_HOME, or take it down and remove the folder",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_text(self.folder / "nodes", f"{number}\n")

    def _homes(self, nodes: int) -> list[Path]:
        """Return the folder of each node."""
        return [self.folder] if nodes == 1 else [self.folder / f"node{number}" for number in range(1, nodes + 1)]

    def _hosts(self) -> list[str]:
        return [f"127.0.0.{number}" for number in range(1, self.nodes + 1)]

    def prepare(self) -> None:
        """Fetch Cassandra and write its configuration."""
        require_java()
        self.fetch()
        for folder, host in zip(self._homes(self.nodes), self._hosts(), strict=True):
            (folder / "data").mkdir(parents=True, exist_ok=True)
            (folder / "logback.xml").write_text(_LOGBACK)
            (folder / "cassandra.yaml").write_text(yaml.safe_dump(self._settings(folder / "data", host)))

    def _settings(self, data: Path, host: str) -> dict[str, object]:
        seeds = {"class_name": "org.apache.cassandra.locator.SimpleSeedProvider"}
        memtables = {
            "skiplist": {"class_name": "SkipListMemtable"},
            "trie": {"class_name": "TrieMemtable"},
            "default": {"inherits": "trie"},
        }
        return {
            "cluster_name": "apbatch development",
            "num_tokens": 16,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [{**seeds, "parameters": [{"seeds": ",".join(self._hosts())}]}],
            "listen_address": host,
            "rpc_address": host,
            "native_transport_port": self.port(30),
            "storage_port": self.port(31),
            "storage_compatibility_mode": "NONE",
            "sstable": {"selected_format": "bti"},
            "default_secondary_index": "sai",
            "default_secondary_index_enabled": True,
            "auto_snapshot": False,
            "data_file_directories": [str(data / "data")],
            "commitlog_directory": str(data / "commitlog"),
            "saved_caches_directory": str(data / "saved_caches"),
            "hints_directory": str(data / "hints"),
            "cdc_raw_directory": str(data / "cdc_raw"),
            # An acknowledged write is on disk. "periodic" is three times quicker, but a killed node lost the last tenth
            # of a second: replay stops at the last marker in the log. "group" kept all too, and was slower than this.
            "commitlog_sync": "batch",
            "commitlog_total_space": "512MiB",
            "memtable": {"configurations": memtables},
            "memtable_allocation_type": "offheap_objects",
            "memtable_heap_space": "128MiB",
            "memtable_offheap_space": "256MiB",
            "memtable_flush_writers": 1,
            "file_cache_size": "128MiB",
            "networking_cache_size": "32MiB",
            "key_cache_size": "0MiB",
            "concurrent_reads": 16,
            "concurrent_writes": 32,
            "concurrent_compactors": 1,
            "compaction_throughput": "64MiB/s",
            "disk_access_mode": "mmap_index_only",
            # the default of 1 GiB a segment ends a small heap at the first compaction
            "sai_options": {"segment_write_buffer_size": "32MiB"},
        }

    def daemons(self) -> list[Daemon]:
        """Return the nodes."""
        return [self._node(number, folder) for number, folder in enumerate(self._homes(self.nodes))]

    def _node(self, number: int, folder: Path) -> Daemon:
        lib = jars_folder("cassandra", VERSION)
        jamm = next(iter(sorted(lib.glob("jamm-*.jar"))), Path("jamm.jar"))
        alone = self.nodes == 1
        jmx = self.port(32 + number)
        options = {
            "cassandra.config": (folder / "cassandra.yaml").as_uri(),
            "logback.configurationFile": str(folder / "logback.xml"),
            "cassandra.storagedir": str(folder / "data"),
            "cassandra.logdir": str(folder),
            "cassandra.jmx.local.port": str(jmx),
            "cassandra.available_processors": "2",
            # one node: nobody to gossip with; of three, all are seeds and start at the same time
            "cassandra.skip_wait_for_gossip_to_settle": "0" if alone else "-1",
            "cassandra.ring_delay_ms": "100" if alone else "5000",
            "cassandra.superuser_setup_delay_ms": "100",
            "cassandra-foreground": "yes",
            "java.net.preferIPv4Stack": "true",
            "java.io.tmpdir": str(folder / "data"),
            "jdk.attach.allowAttachSelf": "true",
            "io.netty.tryReflectionSetAccessible": "true",
        }
        heap = _HEAP if alone else _HEAP_IN_RING
        command = [java(), f"-Xms{heap}", f"-Xmx{heap}", "-Xss256k", "-XX:+UseG1GC", "-XX:+PerfDisableSharedMem"]
        command += ["-XX:MaxDirectMemorySize=512m", "-XX:+ExitOnOutOfMemoryError", f"-javaagent:{jamm}"]
        for module in _EXPORTS.split():
            command += ["--add-exports", f"{module}=ALL-UNNAMED"]
        for module in _OPENS.split():
            command += ["--add-opens", f"{module}=ALL-UNNAMED"]
        command += [f"-D{name}={value}" for name, value in options.items()]
        command += ["-cp", f"{folder}:{lib}/*", "org.apache.cassandra.service.CassandraDaemon"]
        # the others have the first node's ports, on addresses of their own
        ports = [self.port(30), self.port(31), jmx] if number == 0 else [jmx]
        return Daemon("cassandra" if number == 0 else f"cassandra{number + 1}", command, folder, ports=ports)

    def unhealthy(self) -> str | None:
        """Every node must answer the OPTIONS request of the CQL protocol."""
        for host in self._hosts():
            try:
                with socket.create_connection((host, self.port(30)), timeout=2) as connection:
                    connection.sendall(b"\x04\x00\x00\x00\x05\x00\x00\x00\x00")
                    answer = connection.recv(9)
            except OSError as error:
                return f"no CQL on {host}, port {self.port(30)} ({error})"
            if len(answer) != 9 or answer[4] != 0x06:
                return f"the node on {host} does not speak CQL yet"
        return None

    def addresses(self) -> dict[str, str]:
        """Return the CQL address."""
        return {"cassandra": f"cassandra://{','.join(self._hosts())}:{self.port(30)}"}
