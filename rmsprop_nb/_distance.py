"""The learning rate of mini-batch RMSprop, from an estimate of the distance to the minimum.

    c = 1 - k/K
    S <- beta*S + (1 - beta)*(d*g)**2
    r <- b*r + (1 - b)*c*d**2*g.(x0 - x)          q <- b*q + (1 - b)*c*d**2*g          b = sqrt(beta)
    x <- x - c*d*(d*g)/(sqrt(S) + d*eps)          d <- max(d, r/|q|_1)

K. Mishchenko, A. Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", ICML 2024, algorithm 4 without
its first moment: the direction is RMSprop's. The rate falls linearly to 0 over the K steps that are planned.
"""

from __future__ import annotations

import math

import numpy as np

from rmsprop_nb._jit import inline_jit, reduction_jit
from rmsprop_nb._minibatch_steps import norm_scale

__all__ = ["BETA", "FIRST_DISTANCE", "step"]

BETA = 0.99
FIRST_DISTANCE = 1e-6


@inline_jit
def step(arrays, p, settings):  # type: ignore[no-untyped-def]
    """Update x and the estimate."""
    decay = 1.0 - p.step / settings.horizon if settings.horizon > 0 else 1.0
    p.step += 1
    d = p.distance
    p.rate = decay * d
    scale = norm_scale(arrays.g_eval, p, settings)
    moment_beta = math.sqrt(np.float64(settings.hyper.beta))
    inner, norm = _update(arrays, d, decay, moment_beta, scale, settings)
    p.distance_sum = moment_beta * p.distance_sum + (1.0 - moment_beta) * decay * d * d * inner
    if norm > 0.0:
        p.distance = max(d, p.distance_sum / norm)


@reduction_jit
def _update(arrays, d, decay, moment_beta, scale, settings):  # type: ignore[no-untyped-def]
    """Take the step; return g.(x0 - x) and the 1-norm of q."""
    x, g, square_avg, q, start = arrays.x, arrays.g_eval, arrays.square_avg, arrays.distance_avg, arrays.start
    real = x.dtype.type
    d_real, rate, floor = real(d), real(decay * d), real(d * np.float64(settings.hyper.eps))
    keep, take = real(moment_beta), real((1.0 - moment_beta) * decay * d * d)
    factor, limit = real(scale), real(settings.clip_value)
    inner = norm = 0.0
    for i in range(x.size):
        g_i = min(max(factor * g[i], -limit), limit)
        inner += np.float64(g_i) * (np.float64(start[i]) - np.float64(x[i]))
        q[i] = keep * q[i] + take * g_i
        norm += abs(np.float64(q[i]))
        scaled = d_real * g_i
        square_avg[i] = settings.hyper.beta * square_avg[i] + settings.hyper.one_minus_beta * scaled * scaled
        x[i] = x[i] - rate * scaled / (real(math.sqrt(square_avg[i])) + floor)
    return inner, norm
