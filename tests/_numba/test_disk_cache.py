"""The disk cache: found again by new processes, never stale, never in the way."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from marks import needs_jit
from objectives import distance
from processes import run_python

import rmsprop_nb
from rmsprop_nb import minimize
from rmsprop_nb._numba import decorators as _jit
from rmsprop_nb._numba.decorators import kernel_jit

pytestmark = needs_jit
PACKAGE = Path(rmsprop_nb.__file__).parent


# -- seen by a new process --------------------------------------------------------------------------------------------


# Each prints what was found, and which functions of the package were compiled rather than loaded.
RUNS = """
    import json
    from numba import njit
    from numba.core import event
    import numpy as np
    from rmsprop_nb import minimize

    @njit
    def fun(x, scale):
        return scale * np.sum(x ** 4)

    @njit
    def jac(x, scale):
        return 4.0 * scale * x ** 3

    with event.install_recorder("numba:compile") as recorder:
        for method, options in {runs}:
            result = minimize(fun, [3.0, -2.0], (0.25,), method, jac, options=options)
    compiled = [e.data["dispatcher"].py_func for _, e in recorder.buffer if e.is_start]
    print(json.dumps([result.x.tolist(), [(f.__module__, f.__qualname__) for f in compiled]]))
"""
STEPS = """
    import json
    from numba.core import event
    import numpy as np
    from rmsprop_nb import RMSprop

    params, optimizer = np.ones(2), RMSprop(0.1, momentum=0.5)
    with event.install_recorder("numba:compile") as recorder:
        optimizer.step(params, np.array([3.0, -2.0]), optimizer.init(params))
    compiled = [e.data["dispatcher"].py_func for _, e in recorder.buffer if e.is_start]
    print(json.dumps([params.tolist(), [(f.__module__, f.__qualname__) for f in compiled]]))
"""
EVERY_KIND = [("rmsprop", {"learning_rate": 0.1, "maxiter": 2}), ("rmsprop", {}), ("rmsprop-lbfgs", {})]


def new_process(program=STEPS, package=PACKAGE, **environment):
    """Run it; return what it found, the functions of the package that were compiled, and what went to stderr."""
    # no bytecode: Python would take a file that was changed within the same second, to the same length, for the old one
    environment = {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = run_python("-P", "-c", textwrap.dedent(program), **environment)
    assert done.returncode == 0, done.stderr
    x, compiled = json.loads(done.stdout)
    return x, {f"{module}.{name}" for module, name in compiled if module.startswith("rmsprop_nb.")}, done.stderr


def copied_package(directory):
    target = directory / "rmsprop_nb"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_new_process_with_a_new_objective_compiles_no_kernel():
    for method, options in EVERY_KIND:
        minimize(distance, [1.0], (np.zeros(1),), method, "inplace", options=options)
    _, compiled, complaints = new_process(RUNS.format(runs=EVERY_KIND))
    assert complaints == ""
    assert {name.rpartition(".")[2] for name in compiled} == {"adapter", "_store"}


@pytest.mark.thorough
@pytest.mark.slow
def test_change_in_another_file_is_no_reason_to_run_old_code(tmp_path):
    package = copied_package(tmp_path)
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    before, compiled, _ = new_process(package=package, **cache)
    assert "rmsprop_nb._kernels.update.make_update.<locals>.serial_update" in compiled
    assert not new_process(package=package, **cache)[1]  # the cache is in use
    # The rule has a file of its own; the kernels, with Numba's stamps, are in other files. Same length, same date.
    rule = package / "_core/rule.py"
    stamp, text = rule.stat(), rule.read_text()
    assert "u = g / denominator" in text
    rule.write_text(text.replace("u = g / denominator", "u = g * denominator"))
    os.utime(rule, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after, compiled_again, _ = new_process(package=package, **cache)
    assert compiled_again == compiled
    assert after != before


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="other variables say there where a user's cache is")
def test_no_place_for_a_cache_is_a_warning_and_no_error(tmp_path):
    package = copied_package(tmp_path)
    file = tmp_path / "file"
    file.touch()  # below a file even root can write nothing
    for directory in [package, *filter(Path.is_dir, package.iterdir())]:
        (directory / "__pycache__").touch()
    nowhere = dict.fromkeys(("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"), str(file / "below"))
    x, _, complaints = new_process(package=package, **nowhere)
    assert np.isfinite(x).all()
    assert "RuntimeWarning: No directory for compiled code can be written" in complaints
    assert "set NUMBA_CACHE_DIR" in complaints


@pytest.mark.thorough
@pytest.mark.slow
def test_processes_that_start_together_compile_at_the_same_time(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: new_process(**cache), range(2))
    assert first[0] == second[0]
    assert first[1] | second[1]
    x, compiled, complaints = new_process(**cache)
    assert x == first[0]
    assert complaints == ""
    assert not compiled  # what the two have left is whole


# -- seen by one kernel -----------------------------------------------------------------------------------------------


@pytest.fixture
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def make_kernel(factor):
    """Make a kernel anew, as a new process would."""

    @kernel_jit("times", factor)
    def times(a):
        return factor * a

    return times


def hits(kernel):
    return sum(kernel.stats.cache_hits.values())


def test_closures_are_told_apart_by_their_key(cache_dir):
    for expected_hits in (0, 1):
        for factor in (2.0, 3.0):
            kernel = make_kernel(factor)
            assert kernel(1.0) == factor
            assert hits(kernel) == expected_hits


def with_a_sector_of_zeros(content, at):
    """The file as it is where one sector never reached the disk."""
    return content[:at] + bytes(512) + content[at + 512 :]


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "overwritten": lambda content: bytes(range(256)) * 4,
    "one_bit": lambda content: content[:-9] + bytes([content[-9] ^ 16]) + content[-8:],
    **{f"sector_{k}": lambda content, k=k: with_a_sector_of_zeros(content, k * len(content) // 8) for k in range(8)},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_cache_file_is_compiled_again(damage, cache_dir, caplog):
    make_kernel(2.0)(1.0)
    [path] = cache_dir.rglob("*.nbc")
    path.write_bytes(damage(path.read_bytes()))
    assert make_kernel(2.0)(1.0) == 2.0
    assert "damaged" in caplog.text
    repaired = make_kernel(2.0)
    assert repaired(1.0) == 2.0
    assert hits(repaired) == 1


def test_files_that_change_places_are_compiled_again(cache_dir, caplog):
    make_kernel(2.0)(1.0)
    [two] = cache_dir.rglob("*.nbc")
    make_kernel(3.0)(1.0)
    [three] = set(cache_dir.rglob("*.nbc")) - {two}
    content = two.read_bytes()
    two.write_bytes(three.read_bytes())
    three.write_bytes(content)
    assert [make_kernel(factor)(1.0) for factor in (2.0, 3.0)] == [2.0, 3.0]
    assert caplog.text.count("another kernel") == 2
    assert [hits(kernel) for kernel in (make_kernel(2.0), make_kernel(3.0)) if kernel(1.0)] == [1, 1]


def test_cache_of_another_version_of_numba_is_compiled_again(cache_dir, monkeypatch):
    with monkeypatch.context() as other:
        other.setattr(numba, "__version__", "0.0")
        make_kernel(2.0)(1.0)
    again = make_kernel(2.0)
    assert again(1.0) == 2.0
    assert hits(again) == 0
    repaired = make_kernel(2.0)
    assert repaired(1.0) == 2.0
    assert hits(repaired) == 1


def test_full_disk_is_no_error_and_leaves_nothing(cache_dir, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert make_kernel(2.0)(1.0) == 2.0
    assert not [path for path in cache_dir.rglob("*") if path.is_file()]


def test_missing_cache_is_said_once(monkeypatch):
    def no_place(*_):
        raise RuntimeError("no locator available")

    monkeypatch.setattr(_jit, "PackageCache", no_place)
    _jit._warn_without_cache.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for factor in (5.0, 6.0):
            assert make_kernel(factor)(1.0) == factor
    assert [w.category for w in said] == [RuntimeWarning]
