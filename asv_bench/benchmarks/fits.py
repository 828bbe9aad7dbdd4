"""A realistic batch: fits of noisy decay curves, relative to SciPy, a vmapped optax loop and Levenberg-Marquardt.

Every curve has 20 points and 3 parameters: ``a*exp(-k*t) + c``. All fits run to a gradient of 1e-5 (ndoptimize, which
knows that the objective is a sum of squares, to its own tolerance), and setup checks that the answers agree.
"""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.optimize
from numba import njit

from benchmarks._interleaved import compare, samples
from benchmarks._peers import optional
from rmsprop_nb import minimize_batch

METHODS = ("rmsprop", "rmsprop-lbfgs")
TIMES = np.linspace(0.0, 4.0, 20)
START = np.array([1.0, 1.0, 0.0])


@njit(error_model="numpy")
def misfit(p, grad, t, y):
    f = da = dk = dc = 0.0
    for i in range(t.size):
        e = np.exp(-p[1] * t[i])
        r = p[0] * e + p[2] - y[i]
        f += r * r
        da += 2.0 * r * e
        dk -= 2.0 * r * p[0] * t[i] * e
        dc += 2.0 * r
    grad[0], grad[1], grad[2] = da, dk, dc
    return f


@njit(error_model="numpy")
def misfit_and_gradient(p, t, y):
    grad = np.empty(3)
    return misfit(p, grad, t, y), grad


@njit(error_model="numpy", nogil=True)
def only_evaluate(points, counts, t, curves):
    """Evaluate as often as the fits did, and nothing else: no optimizer can save that."""
    grad = np.empty(3)
    total = 0.0
    for b in range(len(points)):
        for _ in range(counts[b]):
            total += misfit(points[b], grad, t, curves[b])
    return total


def make_curves(count):
    """Make decays with a background and 1 % noise."""
    rng = np.random.default_rng(0)
    a, k, c = rng.uniform(1, 3, (count, 1)), rng.uniform(0.5, 2.0, (count, 1)), rng.uniform(0, 1, (count, 1))
    return a * np.exp(-k * TIMES) + c + 0.01 * rng.normal(size=(count, TIMES.size))


def fit_all(curves, method, workers=1):
    starts = np.tile(START, (len(curves), 1))
    return minimize_batch(misfit, starts, (TIMES,), batch_args=(curves,), method=method, jac="inplace", workers=workers)


class Fits:
    """A batch of fits relative to its evaluations alone (the floor), and on two threads relative to one."""

    params = (METHODS,)
    param_names = ("method",)
    many = 20_000

    def setup(self, method):
        self.curves = make_curves(self.many)
        self.result = fit_all(self.curves, method)
        only_evaluate(self.result.x[:1], self.result.nfev[:1], TIMES, self.curves)

    def track_over_evaluations(self, method):
        """Compare with the same number of evaluations and nothing else. Aim: 1.25."""
        return compare(
            lambda: fit_all(self.curves, method),
            lambda: only_evaluate(self.result.x, self.result.nfev, TIMES, self.curves),
        )

    def track_two_threads_over_one(self, method):
        """Aim: 0.56; the floor is what the evaluations alone reach, below."""
        return ratio(lambda: fit_all(self.curves, method, workers=2), lambda: fit_all(self.curves, method))

    def track_two_threads_over_one_of_evaluations(self, method):
        """Split the evaluations alone between two threads: what this machine can reach."""
        half = self.many // 2
        halves = slice(half), slice(half, None)
        parts = [(self.result.x[k], self.result.nfev[k], TIMES, self.curves[k]) for k in halves]
        with ThreadPoolExecutor(2) as pool:
            return ratio(
                lambda: list(pool.map(lambda part: only_evaluate(*part), parts)),
                lambda: [only_evaluate(*part) for part in parts],
            )

    track_over_evaluations.unit = "of the evaluations' time"
    track_two_threads_over_one.unit = track_two_threads_over_one_of_evaluations.unit = "of one thread's time"


def ratio(ours, other, rounds=5):
    """Compare as `compare` does, but on all cores."""
    seconds = samples({"ours": ours, "other": other}, rounds)
    return statistics.median(a / b for a, b in zip(seconds["ours"], seconds["other"], strict=True))


def loop_of_scipy(curves):
    """Fit with L-BFGS-B in a Python loop around a compiled objective."""
    options = {"ftol": 0.0, "gtol": 1e-5}
    return lambda: np.array(
        [
            scipy.optimize.minimize(
                misfit_and_gradient, START, (TIMES, y), jac=True, method="L-BFGS-B", options=options
            ).x
            for y in curves
        ]
    )


def vmapped_optax(curves):
    """Return a function that fits all curves with optax.lbfgs under `jax.vmap`, each to a gradient of 1e-5."""
    jax, optax = optional("jax"), optional("optax")
    jax.config.update("jax_enable_x64", True)
    jnp, t = jax.numpy, jax.numpy.array(TIMES)
    transform = optax.lbfgs()

    def fit(y):
        def value(p):
            return jnp.sum((p[0] * jnp.exp(-p[1] * t) + p[2] - y) ** 2)

        value_and_grad = optax.value_and_grad_from_state(value)

        def step(carry):
            p, state, k = carry
            f, g = value_and_grad(p, state=state)
            update, state = transform.update(g, state, p, value=f, grad=g, value_fn=value)
            return optax.apply_updates(p, update), state, k + 1

        def goes_on(carry):
            _, state, k = carry
            return (k == 0) | ((jnp.max(jnp.abs(optax.tree_utils.tree_get(state, "grad"))) > 1e-5) & (k < 500))

        start = jnp.array(START)
        return jax.lax.while_loop(goes_on, step, (start, transform.init(start), 0))[0]

    fit_each, data = jax.jit(jax.vmap(fit)), jnp.array(curves)
    return lambda: np.asarray(fit_each(data))


def by_ndoptimize(curves):
    """Return a function that fits all curves with ndoptimize."""
    ndoptimize = optional("ndoptimize")

    @ndoptimize.model(["a", "k", "c"], inputs=["t"], cache=False)
    def decay(x, parameters, f, jacobian):
        for i in range(x.shape[0]):
            e = np.exp(-parameters[1] * x[i, 0])
            f[i] = parameters[0] * e + parameters[2]
            jacobian[i, 0] = e
            jacobian[i, 1] = -parameters[0] * x[i, 0] * e
            jacobian[i, 2] = 1.0

    times = np.broadcast_to(TIMES[:, None], (len(curves), TIMES.size, 1))
    guess = np.tile(START, (len(curves), 1))
    return lambda: ndoptimize.least_squares(decay, times, curves, np.ones_like(curves), guess).parameters


PEERS = {"scipy": (loop_of_scipy, 40), "vmap of optax": (vmapped_optax, 20_000), "ndoptimize": (by_ndoptimize, 20_000)}


class FitsOverPeers:
    """Time per fit relative to other libraries, each given enough curves to reach its full speed. Floor: see Fits.

    SciPy's loop has one thread, because it holds the interpreter; jax and ndoptimize use all cores they find.
    ndoptimize is Levenberg-Marquardt, made for sums of squares, of which our methods know nothing. Aims: 0.01 of
    SciPy's time on two threads, 0.33 of optax's.
    """

    params = (METHODS, tuple(PEERS), (1, 2))
    param_names = ("method", "peer", "workers")
    timeout = 600
    many = 20_000

    def setup(self, method, peer, workers):
        make, most = PEERS[peer]
        self.curves = make_curves(self.many)
        self.count = min(most, self.many)
        self.other = make(self.curves[: self.count])
        np.testing.assert_allclose(self.other(), fit_all(self.curves, method).x[: self.count], atol=1e-3)

    def track_ratio(self, method, peer, workers):
        run = compare if workers == 1 else ratio
        value = run(lambda: fit_all(self.curves, method, workers), self.other, rounds=3)
        return value * self.count / self.many

    track_ratio.unit = "of the other's time"
