"""How a run is driven, compiled or not and in which chunks, never changes its numbers."""

from __future__ import annotations

import functools
import signal
import threading

import numpy as np
import pytest
from driven_runs import CONTROLS, THREE, run, same
from marks import needs_jit
from numba import njit
from numba.core import event
from objectives import ARGS, FORMS, X0, as_python, fun, fun_inplace, jac
from variants import dtypes_in_turn

from rmsprop_nb import minimize
from rmsprop_nb._drivers import loop as _loop
from rmsprop_nb._objectives.compiled import CompiledObjective


@pytest.mark.parametrize(("options", "dtype"), dtypes_in_turn(CONTROLS))
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


@njit
def scribble(x, calls):
    """Overwrite x from call ``calls[1] + 1`` on."""
    calls[0] += 1
    if calls[0] > calls[1]:
        x[:] = 7.0


@functools.cache
def scribbling(form):
    """The functions of a form, which overwrite the x that they are given."""
    function, gradient = FORMS[form]

    @njit
    def fun(x, scale, target, calls):
        f = function(x, scale, target)
        scribble(x, calls)
        return f

    @njit
    def fun_inplace(x, grad, scale, target, calls):
        f = function(x, grad, scale, target)
        scribble(x, calls)
        return f

    @njit
    def jac(x, scale, target, calls):
        g = gradient(x, scale, target)
        scribble(x, calls)
        return g

    return fun_inplace if form == "inplace" else fun, jac if callable(gradient) else gradient


@pytest.mark.parametrize("clean_calls", [0, 1, 7])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", THREE.values(), ids=THREE)
def test_objective_may_scribble_on_x(options, form, clean_calls):
    function, gradient = FORMS[form]
    method, options = options.get("method", "rmsprop"), {k: v for k, v in options.items() if k != "method"}
    options["maxiter"] = 20
    clean = minimize(function, X0, ARGS, method, gradient, options=options)
    for hide in (lambda f: f, as_python):
        fun, jac = map(hide, scribbling(form))
        args = (*ARGS, np.array([0, clean_calls]))
        spoiled = minimize(fun, X0, args, method, jac, options=options)
        np.testing.assert_array_equal(spoiled.x, clean.x)
        assert (spoiled.fun, spoiled.nit) == (clean.fun, clean.nit)


@needs_jit
def test_second_run_compiles_nothing():
    run()
    with event.install_recorder("numba:compile") as recorder:
        result = minimize(fun, np.array([0.3, 0.2, 0.1]), (99.0, np.zeros(3)), jac=jac)
    assert result.nit > 0
    assert not recorder.buffer


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


def test_signals_module_is_left_alone():
    handler = signal.getsignal(signal.SIGINT)
    run()
    assert signal.getsignal(signal.SIGINT) is handler


def test_inplace_form_is_what_the_others_are():
    np.testing.assert_array_equal(run("inplace").x, run("callable").x)
    assert fun_inplace(np.array(X0), np.zeros(3), *ARGS) == fun(np.array(X0), *ARGS)
