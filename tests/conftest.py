"""Settings for the whole suite."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib.util
import os
import shutil
import tempfile
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

if "NUMBA_CACHE_DIR" not in os.environ:
    # Nothing may be taken from, or left in, anybody's cache. Numba reads this once, when it is imported, and processes
    # that the tests start inherit it. To keep compiled code from run to run, set the variable yourself.
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="rmsprop_nb-tests-")
    atexit.register(shutil.rmtree, os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)

if os.environ.get("NUMBA_DISABLE_JIT") == "1":
    np.seterr(all="ignore")  # compiled code says nothing of overflow, and here it runs as Python

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    if hasattr(os, "sched_setaffinity"):  # one of its threads runs at a time: on one core they need not wake another
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    with contextlib.suppress(ImportError):  # numba-cuda is not installed
        from numba.cuda.simulator.kernel import BlockThread

        def is_alive(thread):
            """Look whether a thread lives, but let it work first: the simulator asks so again and again, in a loop."""
            if not thread.syncthreads_blocked:
                thread.join(5e-5)
            return threading.Thread.is_alive(thread)

        BlockThread.is_alive = is_alive

# Numba makes many objects while it compiles, and next to none of them is garbage.
gc.set_threshold(300_000, 5, 100)

# The first call of an example compiles: neither its time nor the time to draw data says anything.
settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", settings.get_profile("ci"), derandomize=False, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def _compiled_at_once():
    """Loops are compiled, as in any process but the first; test_first_runs.py is about that one."""
    first_runs = importlib.import_module("rmsprop_nb._drivers.first_runs")  # not before coverage has begun
    first_runs.STEPS = 0


@pytest.fixture
def others_stay():
    """What is there already is not looked at by ``gc.collect()``: it takes a second over those of Numba."""
    gc.freeze()
    yield
    gc.unfreeze()


def pytest_sessionfinish():
    """Collect what is left once, for the plugins that warn of what went wrong meanwhile: they do it several times."""
    gc.collect()
    gc.freeze()


def pytest_ignore_collect(collection_path):
    """Look for tests where they are, not for doctests in what they share, which cannot be imported everywhere."""
    if collection_path.suffix != ".py" or collection_path.name.startswith("test_"):
        return None
    simulated = collection_path.name.startswith("simulated_") and os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
    return None if simulated else True  # test_simulator.py starts those


def pytest_collection_modifyitems(items):
    """Begin with the files that take long, so that no core waits at the end for one; leave out what cannot run."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)
    if importlib.util.find_spec("xarray") is None:
        for item in items:
            if item.path.parts[-2:] == ("rmsprop_nb", "xarray.py"):  # its doctests
                item.add_marker(pytest.mark.skip(reason="xarray is not installed"))
