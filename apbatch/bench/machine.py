"""On what was measured: without it a figure means nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from apbatch.provenance import versions

_CLIENTS = ("fsspec", "hdfs-native", "hdfs", "psycopg", "cassandra-driver", "blake3", "numba", "ctapipe")


def machine(folder: Path) -> dict[str, Any]:
    """Return what is known of this machine and of the disk that holds `folder`."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory GB": round(psutil.virtual_memory().total / 1e9, 1),
        "file system": _file_system(folder),
        "load average at start": [round(load, 2) for load in os.getloadavg()],
    }


def software() -> dict[str, str]:
    """Return versions of everything between the figure and the disk that Python knows of."""
    packages = versions()
    for name in _CLIENTS:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return packages


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _file_system(folder: Path) -> str:
    path = str(folder.resolve())
    mounts = [mount for mount in psutil.disk_partitions(all=True) if path.startswith(mount.mountpoint)]
    if not mounts:
        return "unknown"
    mount = max(mounts, key=lambda mount: len(mount.mountpoint))
    return f"{mount.fstype} on {mount.mountpoint}"
