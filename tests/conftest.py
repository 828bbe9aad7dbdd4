"""Settings for the whole suite."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import numpy as np
from hypothesis import HealthCheck, settings

if "NUMBA_CACHE_DIR" not in os.environ:
    # Nothing may be taken from, or left in, anybody's cache. Numba reads this once, when it is imported, and processes
    # that the tests start inherit it. To keep compiled code from run to run, set the variable yourself.
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="rmsprop_nb-tests-")
    atexit.register(shutil.rmtree, os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)

if os.environ.get("NUMBA_DISABLE_JIT") == "1":
    np.seterr(all="ignore")  # compiled code says nothing of overflow, and here it runs as Python

# The first call of an example compiles: neither its time nor the time to draw data says anything.
settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", settings.get_profile("ci"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

collect_ignore = ["_drivers/mpi_ranks.py"]  # a script for MPI ranks, which imports what may not be there
if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    simulated = ("cuda_simulated.py", "cuda_simulated_many.py", "simulated_callbacks.py", "simulated_options.py")
    collect_ignore += [f"_cuda/{name}" for name in simulated]  # for test_cuda_simulator.py to run


def pytest_collection_modifyitems(items):
    """Begin with the files that take long, so that no core waits at the end for another one to finish with them."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)
