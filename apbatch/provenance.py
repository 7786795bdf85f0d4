"""What an output was made from and with: inputs, parameters, versions, machine, time."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import apbatch

_PACKAGES = ("numpy", "pyarrow", "numba", "pyspark", "tensorflow-cpu", "keras", "horovod", "chromo")


def digest(content: Any) -> str:
    """Return a short stable hash of JSON-like content: the address of an output by its inputs and parameters."""
    text = json.dumps(content, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of apbatch, Python and the packages that shape results."""
    found = {"apbatch": apbatch.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def provenance(step: str, inputs: Any, parameters: Any) -> dict[str, Any]:
    """Return the record that is kept beside an output.

    Parameters
    ----------
    step : str
        Name of the step.
    inputs, parameters : object
        What went in, as JSON.
    """
    return {
        "step": step,
        "inputs": inputs,
        "parameters": parameters,
        "versions": versions(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
