"""Drivers, chunks, resuming, limits, records: how a run is driven never changes its numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from numba import njit
from objectives import ARGS, FORMS, X0, as_python, fun, fun_inplace, jac
from variants import DTYPES, VARIANTS

from rmsprop_nb import Status, minimize, schedules
from rmsprop_nb._core.run_state import RunState
from rmsprop_nb._core.types import Arrays
from rmsprop_nb._drivers import loop as _loop
from rmsprop_nb._numba.decorators import JIT_ENABLED
from rmsprop_nb._objectives.objective import CompiledObjective

needs_jit = pytest.mark.skipif(not JIT_ENABLED, reason="is about compiled code, and the JIT is disabled")

CONTROLS = {
    "auto": {},
    "auto_beta": {"beta": 0.99, "eps": 1e-3},
    "lbfgs": {"method": "rmsprop-lbfgs"},
    "lbfgs_memory": {"method": "rmsprop-lbfgs", "memory": 2, "beta": 0.9},
    **{f"textbook_{name}": {"learning_rate": 0.01, **options} for name, options in VARIANTS.items()},
    "schedule": {"learning_rate": schedules.cosine_decay(0.02, 150), "momentum": 0.5},
}


THREE = {"auto": {}, "textbook": {"learning_rate": 0.01}, "lbfgs": {"method": "rmsprop-lbfgs"}}


def same(a, b):
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.jac, b.jac)
    assert (a.fun, a.nit, a.nfev, a.njev, a.status) == (b.fun, b.nit, b.nfev, b.njev, b.status)
    for left, right in zip(a.state.arrays, b.state.arrays, strict=True):
        np.testing.assert_array_equal(left, right)


def run(form="callable", python=False, dtype=np.float64, bounds=None, callback=None, method="rmsprop", **options):
    function, gradient = FORMS[form]
    if python:
        function, gradient = as_python(function), as_python(gradient)
    options = {"maxiter": 200, **options}
    return minimize(function, np.array(X0, dtype), ARGS, method, gradient, bounds, None, callback, options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", CONTROLS.values(), ids=CONTROLS)
def test_compiled_is_interpreted_bit_for_bit(options, dtype):
    same(run(dtype=dtype, **options), run(python=True, dtype=dtype, **options))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", THREE.values(), ids=THREE)
def test_every_form_has_both_drivers(form, options):
    compiled, interpreted = run(form, **options), run(form, python=True, **options)
    same(compiled, interpreted)
    assert compiled.fun < 1.0


@pytest.mark.parametrize("options", THREE.values(), ids=THREE)
def test_bounded_drivers_agree(options):
    bounds = [(-2, 0.5), (None, 0.1), (0.2, None)]
    same(run(bounds=bounds, **options), run(bounds=bounds, python=True, **options))


@needs_jit
def test_forms_run_compiled(monkeypatch):
    used = []
    drive = _loop.drive
    monkeypatch.setattr(
        "rmsprop_nb._drivers.solve.drive",
        lambda a, s, objective, *rest: (used.append(type(objective)), drive(a, s, objective, *rest))[1],
    )
    for form in FORMS:
        run(form)
    assert used == [CompiledObjective] * len(FORMS)


@pytest.mark.parametrize("chunk", [1, 7, None])
@pytest.mark.parametrize("options", [*THREE.values(), CONTROLS["schedule"]], ids=[*THREE, "schedule"])
def test_chunk_size_never_changes_the_numbers(chunk, options, monkeypatch):
    expected = run(**options)
    if chunk is None:
        monkeypatch.setattr(_loop, "next_budget", lambda *_: 10**6)
    else:
        monkeypatch.setattr(_loop, "next_budget", lambda *_: chunk)
    same(run(**options), expected)


@pytest.mark.parametrize("options", CONTROLS.values(), ids=CONTROLS)
@pytest.mark.parametrize("stop", [{"maxiter": 1}, {"maxiter": 13}, {"maxfev": 1}, {"maxfev": 17}], ids=str)
def test_resumed_run_is_the_uninterrupted_one(options, stop):
    whole = run(gtol=0.0, maxfev=60, **options)
    first = run(gtol=0.0, **options, **stop)
    kept = first.state.copy()
    second = run(gtol=0.0, maxfev=60 - first.nfev, state=first.state, **options)
    np.testing.assert_array_equal(second.x, whole.x)
    assert (second.fun, first.nfev + second.nfev, first.nit + second.nit) == (whole.fun, whole.nfev, whole.nit)
    for left, right in zip(first.state.arrays, kept.arrays, strict=True):
        np.testing.assert_array_equal(left, right)  # going on leaves the old state as it was


def test_resume_refuses_what_does_not_fit():
    state = run(maxiter=3).state
    with pytest.raises(ValueError, match="resume with the options"):
        run(state=state, learning_rate=0.1)
    with pytest.raises(ValueError, match="float32"):
        run(state=state, dtype=np.float32)
    with pytest.raises(ValueError, match="other bounds"):
        run(state=state, bounds=[(0, 1)] * 3)
    with pytest.raises(TypeError, match="state must be"):
        run(state={"x": 1})


@pytest.mark.parametrize("name", Arrays._fields[:8])
def test_resume_refuses_a_state_with_vectors_of_other_sizes(name):
    state = run(maxiter=3, learning_rate=0.1, centered=True).state
    vector = getattr(state.arrays, name)
    for wrong in (vector[:-1], vector.astype(np.float32), vector.reshape(1, -1), np.empty(0)):
        changed = RunState(state.kind, state.arrays._replace(**{name: wrong}), state.record)
        with pytest.raises(ValueError, match="state"):
            run(state=changed, learning_rate=0.1, centered=True)


def test_resume_refuses_a_record_that_points_outside_of_the_memory():
    state = run(maxiter=3, method="rmsprop-lbfgs").state
    state.progress.newest = 10
    with pytest.raises(ValueError, match="unchanged state"):
        run(state=state, method="rmsprop-lbfgs")


@pytest.mark.parametrize("python", [False, True])
def test_limits(python):
    assert run(python=python, maxiter=0).status == Status.MAXITER
    assert run(python=python, maxiter=0).nfev == 1
    result = run(python=python, maxfev=5)
    assert (result.status, result.nfev, result.success) == (Status.MAXFEV, 5, False)
    result = run(python=python, maxiter=4)
    assert (result.status, result.nit) == (Status.MAXITER, 4)
    result = run(python=python, f_target=0.5)
    assert (result.status, result.success) == (Status.F_TARGET, True)
    assert result.fun <= 0.5
    result = run(python=python, ftol=1e-2)
    assert (result.status, result.success) == (Status.FTOL, True)
    result = run(python=python, xtol=1e-2)
    assert (result.status, result.success) == (Status.XTOL, True)
    result = run(python=python, learning_rate=0.3, patience=20, maxiter=10**5)
    assert (result.status, result.success) == (Status.STALLED, False)


@pytest.mark.parametrize("python", [False, True])
def test_maxtime(python):
    start = time.perf_counter()
    result = run(python=python, learning_rate=0.05, maxiter=10**12, gtol=0.0, maxtime=0.2)
    assert result.status == Status.MAXTIME
    assert time.perf_counter() - start < 60.0  # a limit was obeyed; how fast is not for a test to say


@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("options", THREE.values(), ids=THREE)
def test_history_and_allvecs(python, options):
    seen = []
    result = run(python=python, history=True, return_all=True, callback=lambda xk: seen.append(xk), **options)
    history = result.history
    assert list(history) == ["nit", "nfev", "fun", "gnorm", "learning_rate"]
    np.testing.assert_array_equal(history["nit"], np.arange(result.nit + 1))
    np.testing.assert_array_equal(result.allvecs[0], X0)
    np.testing.assert_array_equal(result.allvecs[1:], seen)
    np.testing.assert_array_equal(history["fun"], [fun(x, *ARGS) for x in result.allvecs])
    np.testing.assert_allclose(history["gnorm"], [np.abs(jac(x, *ARGS)).max() for x in result.allvecs], rtol=1e-12)
    assert min(history["fun"]) == result.fun or result.success
    every_third = run(python=python, history=3, **options).history
    np.testing.assert_array_equal(every_third["fun"], history["fun"][::3])


def test_watching_changes_nothing():
    same(run(), run(history=True, return_all=True, callback=lambda xk: None, disp=False))


def test_best_point_is_returned():
    values = []

    def recording(x, *args):
        values.append(fun(x, *args))
        return values[-1]

    for options in ({"learning_rate": 0.2}, {"learning_rate": 1.0, "momentum": 0.9}, {"maxfev": 9}):
        values.clear()
        result = minimize(recording, X0, ARGS, jac=jac, options={"maxiter": 50, "gtol": 0.0, **options})
        assert result.fun == min(values) == fun(result.x, *ARGS)
        np.testing.assert_array_equal(result.jac, jac(result.x, *ARGS))


@pytest.mark.parametrize("call", [1, 2, 3, 7])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("python", [False, True])
def test_textbook_stops_at_a_value_that_is_not_finite(call, bad, python):
    @njit
    def objective(x, grad, counter):
        counter[0] += 1
        grad[:] = x
        return bad if counter[0] == call else 0.5 * np.sum(x * x)

    function = as_python(objective) if python else objective
    result = minimize(function, [3.0, 4.0], (np.zeros(1),), jac="inplace", options={"learning_rate": 0.1})
    assert (result.status, result.success, result.nfev) == (Status.NONFINITE, False, call)
    assert np.isfinite(result.x).all()
    assert result.fun == 0.5 * np.sum(result.x**2) if call > 1 else not np.isfinite(result.fun)


def test_auto_treats_values_that_are_not_finite_as_a_wall():
    def log_barrier(x):
        return (x[0] - np.log(x[0]), np.array([1.0 - 1.0 / x[0]])) if x[0] > 0 else (np.nan, np.array([np.nan]))

    result = minimize(log_barrier, [20.0], jac=True)
    assert result.success
    assert result.x == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"learning_rate": 0.1}], ids=["auto", "textbook"])
@pytest.mark.parametrize(("dtype", "huge"), [(np.float64, 1e160), (np.float32, 1e25)])
def test_gradient_too_large_to_square_is_no_convergence(options, dtype, huge):
    method, options = options.get("method", "rmsprop"), {k: v for k, v in options.items() if k != "method"}
    result = minimize(lambda x: (x.sum(), np.full(2, huge)), np.ones(2, dtype), (), method, True, options=options)
    assert (result.status, result.success) == (Status.NONFINITE, False)


def test_unbounded_below():
    result = minimize(lambda x: -(x**2).sum(), [1.0, 2.0], jac=lambda x: -2 * x)
    assert (result.status, result.success) == (Status.UNBOUNDED, False)


def test_noise_is_a_loss_of_precision_and_no_success():
    rng = np.random.default_rng(6)
    result = minimize(lambda x: (x @ x + 0.1 * rng.normal(), 2 * x + rng.normal(size=2)), [3.0, 1.0], jac=True)
    assert result.status in (Status.PRECISION_LOSS, Status.MAXITER)
    assert not result.success


INTERRUPT = """
    import os, signal, threading, time
    import numpy as np
    from numba import njit
    from rmsprop_nb import minimize, Status, rmsprop
    @njit
    def fun(x, grad):
        grad[:] = np.cos(x)
        return np.sum(np.sin(x)) + 3.0
    objective = fun if {compiled} else (lambda x, grad: fun(x, grad))
    options = dict(learning_rate=0.5, gtol=0.0, maxiter=10**12)
    minimize(objective, [1.0, 2.0], jac="inplace", options=dict(options, maxiter=10))
    sent = []
    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Timer(0.3, interrupt).start()
    result = minimize(objective, [1.0, 2.0], jac="inplace", options=options)
    print(time.perf_counter() - sent[0], result.status, result.fun < 3.0 + np.sin([1.0, 2.0]).sum(), result.success)
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("compiled", [True, False])
def test_ctrl_c_returns_the_best_point(compiled):
    program = textwrap.dedent(INTERRUPT.format(compiled=compiled))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    seconds, status, better, success = done.stdout.split()
    assert float(seconds) < 30.0  # the run would last for hours
    assert (int(status), better, success) == (Status.INTERRUPTED, "True", "False")


def test_interrupt_before_the_first_value_propagates():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minimize(interrupted, [1.0], jac="2-point")


@pytest.mark.parametrize("form", ["2-point", "3-point", "cs", "joint", "inplace"])
@pytest.mark.parametrize("interrupt_at", [20, 21, 22, 23])
def test_interrupted_in_python_objective_can_be_resumed(form, interrupt_at):
    calls = []
    function, gradient = FORMS[form]

    def objective(*arguments):
        calls.append(1)
        if len(calls) == interrupt_at:
            raise KeyboardInterrupt
        return function(*arguments)

    whole = minimize(as_python(function), X0, ARGS, jac=gradient)
    first = minimize(objective, X0, ARGS, jac=gradient)
    assert first.status == Status.INTERRUPTED
    second = minimize(objective, X0, ARGS, jac=gradient, options={"state": first.state})
    np.testing.assert_array_equal(second.x, whole.x)


@pytest.mark.parametrize("clean_calls", [0, 1, 7])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", THREE.values(), ids=THREE)
def test_objective_may_scribble_on_x(options, form, clean_calls):
    function, gradient = FORMS[form]

    @njit
    def spoil(x, calls):
        calls[0] += 1
        if calls[0] > clean_calls:
            x[:] = 7.0

    @njit
    def scribbling(x, scale, target, calls):
        f = function(x, scale, target)
        spoil(x, calls)
        return f

    @njit
    def scribbling_inplace(x, grad, scale, target, calls):
        f = function(x, grad, scale, target)
        spoil(x, calls)
        return f

    @njit
    def scribbling_jac(x, scale, target, calls):
        return scribbling_of(gradient, x, scale, target, calls)

    @njit
    def scribbling_of(original, x, scale, target, calls):
        g = original(x, scale, target)
        spoil(x, calls)
        return g

    method, options = options.get("method", "rmsprop"), {k: v for k, v in options.items() if k != "method"}
    options["maxiter"] = 20
    clean = minimize(function, X0, ARGS, method, gradient, options=options)
    for hide in (lambda f: f, as_python):
        spoiled = minimize(
            hide(scribbling_inplace if form == "inplace" else scribbling), X0, (*ARGS, np.zeros(1)), method,
            hide(scribbling_jac) if callable(gradient) else gradient, options=options,
        )  # fmt: skip
        np.testing.assert_array_equal(spoiled.x, clean.x)
        assert (spoiled.fun, spoiled.nit) == (clean.fun, clean.nit)


@needs_jit
def test_second_run_compiles_nothing():
    run()
    from rmsprop_nb._methods import conjugate_gradient as _auto
    from rmsprop_nb._objectives import objective as _objective

    adapters = _objective._compile_adapter.cache_info()
    before = len(_auto.tell.signatures)
    result = minimize(fun, np.array([0.3, 0.2, 0.1]), (99.0, np.zeros(3)), jac=jac)
    assert result.nit > 0
    assert len(_auto.tell.signatures) == before
    assert _objective._compile_adapter.cache_info().misses == adapters.misses


def test_threads_may_run_at_the_same_time():
    expected = run(learning_rate=0.01)
    results = [None] * 4

    def work(k):
        results[k] = run(learning_rate=0.01)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        same(result, expected)


@needs_jit
def test_parallel_update_gives_the_same_bits():
    n = 150_000
    x0 = np.random.default_rng(8).normal(size=n)

    @njit
    def objective(x, grad):
        total = 0.0
        for i in range(x.size):
            grad[i] = x[i]
            total += 0.5 * x[i] * x[i]
        return total

    options = {"learning_rate": 0.01, "maxiter": 20}
    serial = minimize(objective, x0, jac="inplace", options=options)
    parallel = minimize(objective, x0, jac="inplace", options={**options, "parallel": True})
    np.testing.assert_array_equal(serial.x, parallel.x)


def test_gradient_that_is_never_filled_is_seen():
    def forgetful(x, grad):
        grad[0] = x[0]
        return 0.5 * x @ x

    for function in (forgetful, njit(forgetful)):
        assert minimize(function, [1.0, 1.0], jac="inplace").status == Status.NONFINITE


def test_signals_module_is_left_alone():
    handler = signal.getsignal(signal.SIGINT)
    run()
    assert signal.getsignal(signal.SIGINT) is handler


def test_inplace_form_is_what_the_others_are():
    np.testing.assert_array_equal(run("inplace").x, run("callable").x)
    assert fun_inplace(np.array(X0), np.zeros(3), *ARGS) == fun(np.array(X0), *ARGS)


@pytest.mark.parametrize("method", ["rmsprop", "rmsprop-lbfgs"])
def test_last_evaluation_allowed_may_still_tell_why_the_run_ends(method):
    @njit
    def rough(x, grad):
        grad[:] = 4.0 * (x - 1.0) ** 3 + 1e-7  # disagrees with f where f is flat
        return 1e6 + np.sum((x - 1.0) ** 4)

    free = minimize(rough, [3.0, 4.0], (), method, "inplace", options={"gtol": 0.0})
    assert free.status == Status.PRECISION_LOSS
    limited = minimize(rough, [3.0, 4.0], (), method, "inplace", options={"gtol": 0.0, "maxfev": free.nfev})
    assert (limited.status, limited.nfev) == (Status.PRECISION_LOSS, free.nfev)
