"""Fits of many curves by `rmsprop_nb.fit`, derivatives included, beside other libraries.

Curves are those of `fits`: 20 points, 3 parameters, ``a*exp(-k*t) + c``. `fit` is given the model alone; SciPy's loop
and lumafit are given the same model and make differences, ndoptimize is given a Jacobian written by hand.
"""

from __future__ import annotations

import numpy as np
import scipy.optimize
from numba import njit

from benchmarks._interleaved import compare
from benchmarks._peers import optional
from benchmarks.fits import START, TIMES, by_ndoptimize, make_curves, only_evaluate, ratio

try:
    from rmsprop_nb import fit
except ImportError:  # a commit before there was one
    fit = None


@njit(error_model="numpy")
def decay(t, a, k, c):
    return a * np.exp(-k * t) + c


def loop_of_scipy(curves):
    """Fit with MINPACK in a Python loop."""
    return lambda: np.array([scipy.optimize.curve_fit(decay.py_func, TIMES, y, START)[0] for y in curves])


@njit
def decay_of_vector(p, t):
    return p[0] * np.exp(-p[1] * t) + p[2]


def by_lumafit(curves):
    """Fit each as a pixel of an image with lumafit, which makes differences."""
    lumafit = optional("lumafit")
    image = curves[:, None, :]
    return lambda: lumafit.levenberg_marquardt_pixelwise(decay_of_vector, START, image, args_for_each_pixel=(TIMES,))[
        0
    ][:, 0]


def vmapped_optimistix(curves):
    """Fit all with optimistix' Levenberg-Marquardt under `jax.vmap`."""
    jax, optimistix = optional("jax"), optional("optimistix")
    jax.config.update("jax_enable_x64", True)
    t, start, data = (jax.numpy.array(a) for a in (TIMES, START, curves))
    solver = optimistix.LevenbergMarquardt(rtol=1e-8, atol=1e-8)

    def fit_one(y):
        def residuals(p, _):
            return p[0] * jax.numpy.exp(-p[1] * t) + p[2] - y

        return optimistix.least_squares(residuals, solver, start, throw=False).value

    fit_each = jax.jit(jax.vmap(fit_one))
    return lambda: np.asarray(fit_each(data))


PEERS = {
    "scipy": (loop_of_scipy, 200),
    "ndoptimize": (by_ndoptimize, 20_000),
    "lumafit": (by_lumafit, 20_000),
    "vmap of optimistix": (vmapped_optimistix, 20_000),
}


class CurveFits:
    """A batch of fits with covariances, relative to its evaluations alone: f and a gradient by hand, of one thread.

    Floor: 1, but for the matrix J'J, which an evaluation of a fit adds up and the other does not.
    """

    many = 20_000

    def setup(self):
        if fit is None:
            raise NotImplementedError
        self.curves = make_curves(self.many)
        self.result = fit(decay, TIMES, self.curves, START)
        only_evaluate(self.result.popt[:1], self.result.nfev[:1], TIMES, self.curves)

    def track_over_evaluations(self):
        """Compare with the same number of evaluations and nothing else. Aim: 1.4."""
        return compare(
            lambda: fit(decay, TIMES, self.curves, START),
            lambda: only_evaluate(self.result.popt, self.result.nfev, TIMES, self.curves),
        )

    def track_evaluations(self):
        """Count evaluations per fit."""
        return float(self.result.nfev.mean())

    track_over_evaluations.unit = "of the evaluations' time"
    track_evaluations.unit = "evaluations"


class CurveFitsOverPeers:
    """Time per fit relative to other libraries, each given enough curves to reach its full speed.

    SciPy's loop has one thread, because it holds the interpreter; the others use all cores they find. Floor: see
    CurveFits. Aims, on two threads: 1/150 of SciPy's time, 0.6 of ndoptimize's.
    """

    params = (tuple(PEERS), (1, 2))
    param_names = ("peer", "workers")
    timeout = 600
    many = 20_000

    def setup(self, peer, workers):
        if fit is None:
            raise NotImplementedError
        make, most = PEERS[peer]
        self.curves = make_curves(self.many)
        self.count = min(most, self.many)
        self.other = make(self.curves[: self.count])
        found = fit(decay, TIMES, self.curves, START, workers=workers).popt[: self.count]
        np.testing.assert_allclose(self.other(), found, atol=1e-3)

    def track_ratio(self, peer, workers):
        run = compare if workers == 1 else ratio
        value = run(lambda: fit(decay, TIMES, self.curves, START, workers=workers), self.other, rounds=3)
        return value * self.count / self.many

    track_ratio.unit = "of the other's time"
