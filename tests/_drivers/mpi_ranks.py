"""What is checked on real MPI ranks: PYTHONPATH=tests mpiexec -n 2 python -m mpi4py tests/_drivers/mpi_ranks.py

Every check runs on all ranks and asserts on each. test_mpi.py starts this and looks at the outcome.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from minibatch_runs import python_ridge, ridge_inplace
from mpi4py import MPI
from numba import njit

from rmsprop_nb import RankError, Status, minimize, minimize_minibatch, schedules
from rmsprop_nb._methods.registry import OPTIONS, option_names

COMM = MPI.COMM_WORLD
RANK, SIZE, LAST = COMM.rank, COMM.size, COMM.size - 1
N_ROWS = 101
CUTS = [0, *np.linspace(1, N_ROWS, SIZE).astype(int)] if SIZE > 1 else [0, N_ROWS]  # the first rank has one row
HERE = slice(CUTS[RANK], CUTS[RANK + 1])
COUNT = HERE.stop - HERE.start
L2 = 1e-3

_rng = np.random.default_rng(0)
A = _rng.normal(size=(N_ROWS, 3))
B = A @ np.array([1.0, -2.0, 3.0]) + 0.1 * _rng.normal(size=N_ROWS)


def value(x, a, b, l2):
    return python_ridge(x, a, b, l2)[0]


@njit
def compiled_value(x, a, b, l2):
    r = a @ x - b
    return 0.5 * np.mean(r**2) + 0.5 * l2 * np.sum(x**2)


def same_everywhere(result):
    mine = [result[name] for name in ("x", "fun", "nit", "nfev", "status")]
    mine += result.state.arrays._replace(x_eval=0)  # who is stopped has chosen the next point already
    for theirs in COMM.allgather(mine):
        for a, b in zip(theirs, mine, strict=True):
            np.testing.assert_array_equal(a, b)


def fails_on_all(on_last, text, run):
    """The last rank gets its own exception, the others one that names that rank."""
    with pytest.raises(on_last if RANK == LAST else RankError) as caught:
        run()
    assert text in str(caught.value)
    assert str(caught.value).startswith(f"rank {LAST}: ") == (RANK != LAST)


def shared(fun=ridge_inplace, x0=(0.0, 0.0, 0.0), jac="inplace", **kwargs):
    return minimize(fun, np.array(x0), (A[HERE], B[HERE], L2), jac=jac, comm=COMM, weight=COUNT, **kwargs)


def check_minimize_is_that_of_one_process():
    for options in ({}, {"learning_rate": 0.05, "maxiter": 50}, {"memory": 3}):
        method = "rmsprop-lbfgs" if "memory" in options else "rmsprop"
        for bounds in (None, [(0.0, 2.0)] * 3):
            run = {"method": method, "bounds": bounds, "options": options}
            alone = minimize(ridge_inplace, np.zeros(3), (A, B, L2), jac="inplace", **run)
            found = shared(**run)
            same_everywhere(found)
            np.testing.assert_allclose(found.x, alone.x, rtol=0.0, atol=1e-6)
            assert found.status == alone.status


def check_every_form_of_the_objective():
    expected = shared().x
    for fun, jac, gradient in (
        (python_ridge, True, "given"),
        (value, "3-point", "differences"),
        (ridge_inplace, "inplace", "given"),
        (compiled_value, "autodiff", "autodiff"),
        (compiled_value, None, "autodiff"),
    ):
        found = shared(fun, jac=jac)
        same_everywhere(found)
        assert found.gradient == gradient
        np.testing.assert_allclose(found.x, expected, atol=1e-4)


def check_batches_with_exact_derivatives():
    found = batches(compiled_value, "autodiff")
    same_everywhere(found)
    np.testing.assert_allclose(found.x, batches().x, rtol=1e-9, atol=1e-12)


def check_float32():
    a, b = A[HERE].astype(np.float32), B[HERE].astype(np.float32)
    run = {"jac": "inplace", "options": {"gtol": 1e-3}}
    found = minimize(ridge_inplace, np.zeros(3, np.float32), (a, b, L2), comm=COMM, weight=COUNT, **run)
    same_everywhere(found)
    assert found.success
    assert found.x.dtype == np.float32


def check_resumed():
    options = {"learning_rate": 0.05}
    whole = shared(options={**options, "maxiter": 20})
    begun = shared(options={**options, "maxiter": 12})
    resumed = shared(options={**options, "maxiter": 8, "state": begun.state})
    np.testing.assert_array_equal(resumed.state.arrays.x, whole.state.arrays.x)


def batches(fun=ridge_inplace, jac="inplace", **kwargs):
    settings = {"batch_size": 8, "epochs": 5, "rng": 7, **kwargs}
    return minimize_minibatch(fun, np.zeros(3), (A[HERE], B[HERE]), (L2,), jac=jac, comm=COMM, **settings)


def check_batches_are_those_of_one_process():
    for kwargs in (
        {},
        {"shuffle": False},
        {"learning_rate": schedules.cosine_decay(0.1, 60), "accumulate": 3, "clip_norm": 1.0},
        {"learning_rate": 0.01, "averaging": True, "final_evaluation": False},
        {"batch_size": 1000},
    ):
        settings = {"batch_size": 8, "epochs": 5, "rng": 7, **kwargs}
        alone = minimize_minibatch(ridge_inplace, np.zeros(3), (A, B), (L2,), jac="inplace", **settings)
        found = batches(**kwargs)
        same_everywhere(found)
        np.testing.assert_allclose(found.x, alone.x, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.epoch_fun, alone.epoch_fun, rtol=1e-7)
        np.testing.assert_allclose(found.fun, alone.fun, rtol=1e-7)


def check_validation():
    held_out = (A[HERE] + 1.0, B[HERE])
    settings = {"batch_size": 8, "epochs": 20, "rng": 7, "patience": 2, "learning_rate": 0.5}
    alone = minimize_minibatch(
        ridge_inplace, np.zeros(3), (A, B), (L2,), jac="inplace", validation=(A + 1.0, B), **settings
    )  # fmt: skip
    found = batches(validation=held_out, **settings)
    same_everywhere(found)
    assert found.status == alone.status == Status.EARLY_STOP
    np.testing.assert_allclose(found.validation_fun, alone.validation_fun, rtol=1e-6)


def check_batches_are_resumed():
    whole = batches(epochs=6)
    begun = batches(epochs=6, callback=stop_at(2))
    resumed = batches(epochs=6, state=begun.state)
    np.testing.assert_array_equal(resumed.x, whole.x)


def check_data_of_minimize_are_args_with_their_weight():
    found = minimize(ridge_inplace, np.zeros(3), L2, jac="inplace", comm=COMM, data=(A[HERE], B[HERE]))
    np.testing.assert_array_equal(found.x, shared().x)


def check_deterministic_runs_have_the_bits_of_one_process():
    ends = np.array([0, 17, 33, 48])[[0, *range(4 - SIZE, 4)]] * N_ROWS // 48 if SIZE > 1 else [0, N_ROWS]
    here = slice(ends[RANK], ends[RANK + 1])
    for fun, jac in ((ridge_inplace, "inplace"), (python_ridge, True)):
        for options in ({}, {"learning_rate": 0.05, "maxiter": 50}):
            run = {"jac": jac, "options": options, "deterministic": True}
            alone = minimize(fun, np.zeros(3), L2, data=(A, B), **run)
            found = minimize(fun, np.zeros(3), L2, data=(A[here], B[here]), comm=COMM, **run)
            same_everywhere(found)
            assert (found.x.tobytes(), found.fun, found.nit) == (alone.x.tobytes(), alone.fun, alone.nit)
        for chosen in ({}, {"shuffle": False}, {"batch_size": 1000, "learning_rate": 0.01}):
            run = {"jac": jac, "batch_size": 20, "epochs": 4, "rng": 7, "deterministic": True, **chosen}
            held_out, mine = (A + 1.0, B), (A[here] + 1.0, B[here])
            alone = minimize_minibatch(fun, np.zeros(3), (A, B), (L2,), validation=held_out, **run)
            found = minimize_minibatch(fun, np.zeros(3), (A[here], B[here]), (L2,), validation=mine, comm=COMM, **run)
            same_everywhere(found)
            for name in ("x", "fun", "jac", "epoch_fun", "validation_fun"):
                np.testing.assert_array_equal(found[name], alone[name])


def check_deterministic_runs_need_whole_blocks():
    if SIZE > 1:
        with pytest.raises(ValueError, match="got an end of rank 0 at row 1 of all; 0 and 2 would do"):
            minimize(
                ridge_inplace, np.zeros(3), L2, data=(A[HERE], B[HERE]), jac="inplace", comm=COMM, deterministic=True
            )
        with pytest.raises(ValueError, match="got an end of rank 0 at row 1 of all; 0 and 2 would do"):
            batches(deterministic=True)


def stop_at(call, error=StopIteration):
    """A callback that ends the run, on the last rank."""
    calls = []

    def callback(x):
        calls.append(x)
        if RANK == LAST and len(calls) == call:
            raise error("on purpose")

    return callback


def check_what_one_rank_decides_holds_for_all():
    for run, status in (
        (lambda: shared(callback=stop_at(3) if RANK == LAST else None), Status.CALLBACK_STOP),
        (lambda: batches(callback=stop_at(3) if RANK == LAST else None), Status.CALLBACK_STOP),
        (lambda: shared(options={"maxtime": 0.0 if RANK == LAST else None}), Status.MAXTIME),
        (lambda: batches(maxtime=0.0 if RANK == LAST else None), Status.MAXTIME),
        (lambda: shared(interrupted(4), jac=True), Status.INTERRUPTED),
        (lambda: batches(interrupted(4), jac=True), Status.INTERRUPTED),
        (lambda: shared(spoilt(4), jac=True, options={"learning_rate": 0.05}), Status.NONFINITE),
        (lambda: batches(spoilt(4), jac=True), Status.NONFINITE),
    ):
        found = run()
        assert found.status == status, (found.status, status)
        same_everywhere(found)


def at_call(number, act):
    calls = []

    def fun(x, a, b, l2):
        calls.append(1)
        f, g = python_ridge(x, a, b, l2)
        return act(f, g) if RANK == LAST and len(calls) == number else (f, g)

    return fun


def interrupted(number):
    def act(f, g):
        os.kill(os.getpid(), signal.SIGINT)
        return f, g

    return at_call(number, act)


def spoilt(number):
    return at_call(number, lambda f, g: (np.nan, g))


def raising(number):
    def act(f, g):
        raise ZeroDivisionError("on purpose")

    return at_call(number, act)


def check_exceptions_reach_all():
    for number in range(1, 9):
        fails_on_all(ZeroDivisionError, "on purpose", lambda k=number: shared(raising(k), jac=True))
        fails_on_all(ZeroDivisionError, "on purpose", lambda k=number: batches(raising(k), jac=True))
    fails_on_all(ValueError, "shape (3,)", lambda: shared(at_call(3, lambda f, g: (f, g[:2])), jac=True))
    fails_on_all(OSError, "on purpose", lambda: shared(callback=stop_at(2, OSError)))
    fails_on_all(OSError, "on purpose", lambda: batches(callback=stop_at(2, OSError)))


def check_bad_arguments_reach_all():
    fails_on_all(ValueError, "x0 must be finite", lambda: shared(x0=[np.nan if RANK == LAST else 0.0, 0.0, 0.0]))
    weight = -1.0 if RANK == LAST else 1.0
    run = {"jac": "inplace", "comm": COMM, "weight": weight}
    fails_on_all(ValueError, "weight", lambda: minimize(ridge_inplace, np.zeros(3), (A, B, L2), **run))
    fails_on_all(ValueError, "epochs", lambda: batches(epochs=0 if RANK == LAST else 1))


def check_disagreement_is_said_on_all():
    for name, run in (
        ("x0", lambda: shared(x0=[float(RANK == LAST), 0.0, 0.0])),
        ("x0", lambda: shared(x0=np.zeros(4 if RANK == LAST else 3))),
        ("gtol", lambda: shared(options={"gtol": 1e-3 if RANK == LAST else 1e-4})),
        ("bounds", lambda: shared(bounds=[(0, 1)] * 3 if RANK == LAST else None)),
        ("batch_size", lambda: batches(batch_size=5 if RANK == LAST else 6)),
        ("validation", lambda: batches(validation=0.3 if RANK == LAST else None)),
        ("method", lambda: shared(method="rmsprop-lbfgs" if RANK == LAST else "rmsprop")),
        ("the function", lambda: (batches if RANK == LAST else shared)()),
    ):
        if SIZE == 1:
            return
        with pytest.raises(ValueError, match=rf"^{name} must be the same on all ranks.* on rank {LAST}\.$"):
            run()


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def check_exceptions_without_text_reach_all():
    with pytest.raises(Unprintable if RANK == LAST else RankError) as caught:
        shared(callback=stop_at(2, Unprintable))
    assert RANK == LAST or f"rank {LAST}" in str(caught.value)


WRONG = [None, object(), "nonsense", b"", -1, 0, 2.5, 2**70, np.nan, True, [], (), {}, set(), [[1.0], [2.0, 3.0]]]
WRONG += [np.zeros(5), np.zeros((0, 3)), np.array(["a"]), np.ma.masked_array([1.0, 2.0, 3.0], [1, 0, 0]), len, dict]


PASSED_ON = {"fun", "args", "data", "jac", "callback"}  # whose errors may be Python's, in the user's own functions


def outcome(run):
    """The exception that a run raises, or its result."""
    try:
        return run()
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, OSError) as error:
        return error


def check_whatever_is_wrong_on_one_rank_ends_all():
    if SIZE == 1:
        return  # test_wrong_arguments.py does the same
    common = {"fun": python_ridge, "x0": np.zeros(3), "jac": True, "comm": COMM}
    whole = common | {"args": (A[HERE], B[HERE], L2), "weight": COUNT}
    rows = common | {"args": (L2,), "data": (A[HERE], B[HERE]), "batch_size": 60, "epochs": 2, "rng": 7}
    short = {"maxiter": 3}
    calls = [(minimize, whole | {"options": short}, name, lambda wrong, name=name: {name: wrong})
             for name in (*inspect.signature(minimize).parameters, "nobody_knows_this")]  # fmt: skip
    calls += [(minimize_minibatch, rows, name, lambda wrong, name=name: {name: wrong})
              for name in (*inspect.signature(minimize_minibatch).parameters, "nobody_knows_this")]  # fmt: skip
    calls += [(minimize, whole | {"method": method, "options": short}, name,
               lambda wrong, name=name: {"options": short | {name: wrong}})
              for method in OPTIONS for name in option_names(method)]  # fmt: skip
    home, folder = Path.cwd(), tempfile.mkdtemp()
    os.chdir(folder)
    try:
        for front_end, given, name, chosen in calls:
            for wrong in WRONG if name != "comm" else ():
                changed = given | (chosen(wrong) if RANK == LAST else {})
                with contextlib.redirect_stdout(io.StringIO()):
                    found = outcome(lambda call=front_end, changed=changed: call(**changed))
                failed = COMM.allgather(isinstance(found, Exception))
                assert len(set(failed)) == 1, (front_end, name, wrong, failed, found)
                if failed[0] and RANK != LAST:
                    assert f"rank {LAST}" in str(found), (name, wrong, found)
                    assert re.search(f"{name}|must be the same", str(found)) or name in PASSED_ON, (name, wrong, found)
    finally:
        os.chdir(home)


def check_checkpoint_is_written_by_the_first_rank():
    folder = COMM.bcast(tempfile.mkdtemp() if RANK == 0 else None)
    shared(options={"checkpoint": Path(folder) / "a", "maxiter": 3})
    batches(checkpoint=Path(folder) / "b")
    COMM.Barrier()
    assert sorted(path.name for path in Path(folder).iterdir()) == ["a", "b"]
    expected, text = (FileNotFoundError, "nowhere") if RANK == 0 else (RankError, "^rank 0: FileNotFoundError")
    with pytest.raises(expected, match=text):
        shared(options={"checkpoint": Path(folder) / "nowhere" / "a"})


def check_what_is_no_communicator_is_refused():
    for run in (minimize, minimize_minibatch):
        with pytest.raises(TypeError, match=r"comm must be a communicator such as mpi4py.MPI.COMM_WORLD, got 'world'"):
            run(value, [0.0], A, comm="world")


def main():
    if sys.argv[1:] == ["raise"]:
        shared(raising(5), jac=True)
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            COMM.Barrier()
            if RANK == 0:
                print(name, flush=True)


if __name__ == "__main__":
    main()
