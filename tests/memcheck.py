"""Go once through every kind of kernel, at sizes that leave remainders; `python3 run.py memcheck` runs Valgrind."""

from __future__ import annotations

import numpy as np
from numba import njit
from objectives import distance, valley

from rmsprop_nb import RMSprop, minimize, minimize_batch, minimize_minibatch


@njit
def loss(x, grad, rows):
    grad[:] = 0.0
    for k in range(rows.shape[0]):
        for i in range(x.size):
            grad[i] += (x[i] - rows[k, i]) / rows.shape[0]
    return 0.5 * np.sum(grad * grad)


def main() -> None:
    target = np.arange(7.0)
    automatic = {"jac": "inplace", "options": {"maxiter": 5}}
    textbook = {"jac": "inplace", "options": {"learning_rate": 0.1, "momentum": 0.9, "centered": True, "maxiter": 5}}
    for run in (automatic, {"method": "rmsprop-lbfgs", "bounds": [(-1.0, 3.0)] * 7, **automatic}, textbook):
        minimize(valley, target, **run)
    minimize_batch(distance, np.zeros((3, 7)), batch_args=(np.stack([target] * 3),), workers=2, **automatic)
    rows = np.arange(77.0).reshape(11, 7)
    minimize_minibatch(loss, np.zeros(7), rows, jac="inplace", batch_size=4, epochs=2, rng=0)
    params, optimizer = {"W": np.ones((3, 3), np.float32), "b": np.ones(1)}, RMSprop(0.1, nesterov=True, momentum=0.9)
    optimizer.step(params, {name: 0.5 * value for name, value in params.items()}, optimizer.init(params))
    many, optimizer = np.ones(100_001), RMSprop(0.1, workers=2)
    optimizer.step(many, 0.5 * many, optimizer.init(many))


if __name__ == "__main__":
    main()
