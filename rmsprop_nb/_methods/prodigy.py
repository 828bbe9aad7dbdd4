"""The automatic learning rate of mini-batch RMSprop, from an estimate of the distance to the minimum.

    c = 1 - k/K                                R = sqrt(d*D)
    S <- beta*S + (1 - beta)*g**2              x <- x - c*R*g/(sqrt(S) + eps*max|g|)
    r <- b*r + (1 - b)*c*g*(x0 - x)            q <- b*q + (1 - b)*c*g                    b = sqrt(beta)
    d <- max(d, min(sum(r)/sum|q|, 2*d))       D <- max(D, min(r/|q|, 2*D))

d is the estimate of K. Mishchenko, A. Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", ICML 2024,
algorithm 4, without its first moment: the direction is RMSprop's. D is the same estimate for each variable alone. Where
variables differ by orders of magnitude d serves none of them; D, which is noisy, would let the others diverge; their
geometric mean does neither. As in the paper the past counts with the square of the distance that was known then, so S
shrinks by (R_old/R)**2 where R grows, r and q by (d_old/d)**2. No estimate grows by more than a factor of 2 in a step:
while it grows S knows only the newest gradients, so steps are long, and where f grows exponentially one that is much
too long is never made good. The rate falls linearly to 0 over the K steps planned, or, once early stopping has seen
enough, over fewer.

From the 11th step on a gradient whose largest component exceeds ten times the largest sqrt(S) is scaled down to that.
Where gradients have heavy tails, as in variational inference and regressions on exponentials, a single one could make
the estimates, or S, useless for the rest of the run. If gradients are to stay that large, S follows within some steps.
"""

from __future__ import annotations

import math

import numpy as np

from rmsprop_nb._methods.minibatch import norm_scale
from rmsprop_nb._numba.decorators import inline_jit, reduction_jit

BETA = 0.99
FIRST_DISTANCE = 1e-4
LARGEST_GROWTH = 2.0
LARGEST_SURPRISE = 10.0
FIRST_STEPS = 10
"""How many times its usual size a gradient counts at most, and the steps after which it is known what is usual."""


@inline_jit
def step(arrays, p, settings):
    """Update x and the estimates."""
    decay = _decay(p, settings)
    p.step += 1
    p.rate = decay * p.distance
    shrinkage = p.distance_before / p.distance
    p.distance_before = p.distance
    scale = norm_scale(arrays.g_eval, p, settings)
    if p.step > FIRST_STEPS and scale * p.gnorm > LARGEST_SURPRISE * p.usual > 0.0:
        scale = LARGEST_SURPRISE * p.usual / p.gnorm
    inner, norm, largest = _update(arrays, p.distance, shrinkage, decay, scale, p, settings)
    p.usual = math.sqrt(largest)
    if norm > 0.0:
        p.distance = max(p.distance, min(inner / norm, LARGEST_GROWTH * p.distance))


@inline_jit
def _decay(p, settings):
    """Return c: from 1 to 0 over all steps, or from where it was to 0 over the last ones of a run that stops early."""
    if settings.horizon == 0:
        return 1.0
    if p.cooling_steps > 0:
        left = 1.0 - (p.step - p.cooling_from) / p.cooling_steps
        return max((1.0 - p.cooling_from / settings.horizon) * left, 0.0)
    return max(1.0 - p.step / settings.horizon, 0.0)


@reduction_jit
def _update(arrays, distance, shrinkage, decay, scale, p, settings):
    """Take the step; return the sums of r and |q|, and the largest S."""
    x, g, square_avg, start = arrays.x, arrays.g_eval, arrays.square_avg, arrays.start
    r, q, own_distance = arrays.inner_avg, arrays.grad_avg, arrays.own_distance
    real = x.dtype.type
    b = math.sqrt(np.float64(settings.hyper.beta))
    keep, take, keep_square = real(b * shrinkage**2), real((1.0 - b) * decay), real(shrinkage)
    factor, limit = real(scale), real(settings.clip_value)
    floor = real(np.float64(settings.hyper.eps) * min(scale * p.gnorm, settings.clip_value))
    rate, d, growth = real(decay), real(distance), real(LARGEST_GROWTH)
    inner = norm = largest = 0.0
    for i in range(x.size):
        g_i = min(max(factor * g[i], -limit), limit)
        r[i] = keep * r[i] + take * g_i * (start[i] - x[i])
        q[i] = keep * q[i] + take * g_i
        inner += np.float64(r[i])
        norm += abs(np.float64(q[i]))
        s = settings.hyper.beta * (keep_square * square_avg[i]) + settings.hyper.one_minus_beta * g_i * g_i
        denominator = real(math.sqrt(s)) + floor
        if denominator > 0:
            x[i] = x[i] - rate * real(math.sqrt(d * own_distance[i])) * g_i / denominator
        before = own_distance[i]
        if q[i] != 0:
            own_distance[i] = max(before, min(r[i] / abs(q[i]), growth * before))
        square_avg[i] = s * (before / own_distance[i])
        largest = max(largest, np.float64(square_avg[i]))
    return inner, norm, largest
