"""What the times are of: the card, its driver, the libraries, and the bandwidth of a copy on the device."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np

from device_steps.timing import is_simulated, medians, seconds_between_events

LIBRARIES = ("numba", "numba-cuda", "numpy", "scipy", "torch", "cupy-cuda13x", "jax", "optax")


def run(write: Callable[[dict[str, Any]], None]) -> None:
    """Write what there is, then the bandwidth."""
    from numba import cuda

    write({"python": platform.python_version(), "machine": platform.machine(), **_versions()})
    write({"card": _card()})
    count = 2**14 if is_simulated() else 2**31
    source, target = (cuda.to_device(np.ones(count // 8)) for _ in range(2))
    seconds = medians({"copy": (lambda: target.copy_to_device(source), seconds_between_events)})["copy"]
    write({"copy, bytes": count, "bandwidth, GB/s": 2 * count / seconds / 1e9})


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _card() -> str:
    if is_simulated() or not shutil.which("nvidia-smi"):
        return "none: the simulator"
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
