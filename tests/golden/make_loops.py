"""Record what other libraries do in training loops: some rows, missing gradients, averages, clipping per array.

Run it where torch, keras and tensorflow are installed, in this folder: ``python make_loops.py``.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from golden_cases import DTYPES, N_STEPS, STEPS, Inputs, make_inputs
from golden_libraries import version

BLOCKS = [4]  # where the seven parameters are split into two arrays
CLIP, EMA, RATE, MOMENTUM = 0.5, 0.9, 0.02, 0.9


def rows_of_step(step: int) -> np.ndarray:
    """Return the rows that a step has gradients for; one of them twice."""
    return np.array([step % 7, (step * step + 3) % 7, step % 7])


def is_missing(step: int) -> bool:
    """Return whether the second array has no gradient in a step."""
    return step < 3 or step % 5 == 0


def clipped(inputs: Inputs) -> Iterator[np.ndarray]:
    """Keras, each of two arrays clipped by its own norm."""
    return run_keras(inputs, clipnorm=CLIP)


def averaged(inputs: Inputs) -> Iterator[np.ndarray]:
    """Keras, the moving averages of the parameters."""
    return run_keras(inputs, use_ema=True, ema_momentum=EMA)


def run_keras(inputs: Inputs, **options: float) -> Iterator[np.ndarray]:
    """Run `keras.optimizers.RMSprop` on two arrays, and yield them, or their averages."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    keras.config.set_floatx(inputs.x0.dtype.name)
    optimizer = keras.optimizers.RMSprop(learning_rate=RATE, momentum=MOMENTUM, **options)
    arrays = [keras.Variable(part, dtype=part.dtype.name) for part in np.split(inputs.x0, BLOCKS)]
    for gradient in inputs.gradients:
        optimizer.apply([keras.ops.convert_to_tensor(part) for part in np.split(gradient, BLOCKS)], arrays)
        shown = optimizer._model_variables_moving_average if "use_ema" in options else arrays
        yield np.concatenate([keras.ops.convert_to_numpy(part) for part in shown])


def frozen(inputs: Inputs) -> Iterator[np.ndarray]:
    """PyTorch, the second array without a gradient in some steps."""
    import torch

    arrays = [torch.from_numpy(part.copy()).requires_grad_() for part in np.split(inputs.x0, BLOCKS)]
    optimizer = torch.optim.RMSprop(arrays, lr=RATE, momentum=MOMENTUM, weight_decay=0.1)
    for step, gradient in enumerate(inputs.gradients):
        first, second = np.split(gradient, BLOCKS)
        arrays[0].grad = torch.from_numpy(first.copy())
        arrays[1].grad = None if is_missing(step) else torch.from_numpy(second.copy())
        optimizer.step()
        yield torch.cat(arrays).detach().numpy()


def some_rows(inputs: Inputs) -> Iterator[np.ndarray]:
    """TensorFlow's operation for some rows, after it has added up those that stand there twice, as its classes do."""
    import tensorflow as tf

    dtype = inputs.x0.dtype
    x, ms, mom = (tf.Variable(start) for start in (inputs.x0, np.zeros(7, dtype), np.zeros(7, dtype)))
    numbers = {"lr": RATE, "rho": 0.9, "momentum": MOMENTUM, "epsilon": 1e-7}
    arguments = {name: tf.constant(number, dtype) for name, number in numbers.items()}
    for step, gradient in enumerate(inputs.gradients):
        rows = rows_of_step(step)
        unique, places = tf.unique(tf.constant(rows))
        values = tf.math.unsorted_segment_sum(tf.constant(gradient[rows]), places, tf.size(unique))
        tf.raw_ops.ResourceSparseApplyRMSProp(
            var=x.handle, ms=ms.handle, mom=mom.handle, grad=values, indices=unique, **arguments
        )
        yield x.numpy()


def complex_numbers(inputs: Inputs) -> Iterator[np.ndarray]:
    """PyTorch, three complex numbers, which are shown as six real ones."""
    import torch

    real = f"f{inputs.x0.dtype.itemsize}"
    x = torch.from_numpy(inputs.x0[:6].copy().view(f"c{2 * inputs.x0.dtype.itemsize}")).requires_grad_()
    optimizer = torch.optim.RMSprop([x], lr=RATE, momentum=MOMENTUM, centered=True)
    for gradient in inputs.gradients:
        x.grad = torch.from_numpy(gradient[:6].copy().view(f"c{2 * inputs.x0.dtype.itemsize}"))
        optimizer.step()
        yield x.detach().numpy().copy().view(real)


LOOPS = {
    "clipped": clipped,
    "averaged": averaged,
    "frozen": frozen,
    "some_rows": some_rows,
    "complex_numbers": complex_numbers,
}


def record(name: str, dtype: str) -> list[list[str]]:
    """Run a loop, and return what is recorded of it, without loss."""
    path = list(LOOPS[name](make_inputs(dtype)))
    assert len(path) == N_STEPS
    return [[float(number).hex() for number in path[step - 1]] for step in STEPS]


def main() -> None:
    """Write loops.json; each run has a process of its own, because libraries do not always bear one another."""
    runs = list(itertools.product(LOOPS, DTYPES))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        found = pool.map(record, *zip(*runs, strict=True))
        recorded = {f"{name}_{dtype}": x for (name, dtype), x in zip(runs, found, strict=True)}
    versions = {library: version(library) for library in ("torch", "keras", "tensorflow")}
    text = json.dumps({"versions": versions, "steps": STEPS, "x": recorded}, indent=1)
    (Path(__file__).parent / "loops.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
