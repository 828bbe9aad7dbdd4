"""A small run of every kind of kernel, for compute-sanitizer to watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from device_steps.models import MODELS, chain


def run(write: Callable[[dict[str, Any]], None]) -> None:
    """Take steps on one array and on many, and minimize a batch of each kind."""
    from numba import cuda

    from rmsprop_nb import RMSprop, minimize_batch
    from rmsprop_nb.cuda import Team

    rng = np.random.default_rng(0)
    for dtype in ("float16", "float32", "float64"):
        x = [cuda.to_device(rng.normal(size=n).astype(dtype)) for n in (37, 1003, 8192)]
        g = [cuda.to_device(rng.normal(size=a.size).astype(dtype)) for a in x]
        for arrays, grads in ((x, g), (x[1][1:], g[1][1:])):
            optimizer = RMSprop(0.01, momentum=0.9, centered=True, clip_norm=1.0)
            state = optimizer.init(arrays)
            optimizer.step(arrays, grads, state)
            optimizer.step(arrays, grads, state)
    cuda.synchronize()
    write({"kernels": "updates", "done": True})
    model = MODELS["decay, n = 2"]
    starts, points, data, _ = model.problems(8, "float32")
    for method in ("rmsprop", "rmsprop-lbfgs"):
        minimize_batch(
            model.fun, starts, (points,), batch_args=(data,), jac="inplace", method=method, device="cuda",
            options={"maxiter": 20},
        )  # fmt: skip
        minimize_batch(
            chain, rng.uniform(0.5, 1.5, (3, 40)), (Team(),), jac="inplace", method=method, device="cuda",
            options={"maxiter": 5},
        )  # fmt: skip
        write({"kernels": f"batches, {method}", "done": True})
