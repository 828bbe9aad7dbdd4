"""How the libraries are run: each function takes a case and its inputs, and yields x after each step."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from golden_cases import Case, Inputs, first_rate, rates


def run_torch(case: Case, inputs: Inputs) -> Iterator[np.ndarray]:
    """Run `torch.optim.RMSprop` on two tensors, so that the foreach form has something to loop over."""
    import torch

    rule = case.rule
    blocks = [torch.from_numpy(block.copy()).requires_grad_() for block in np.split(inputs.x0, [4])]
    options = {
        "lr": first_rate(rule),
        "alpha": rule["beta"],
        "eps": rule["eps"],
        "momentum": rule["momentum"],
        "centered": rule["centered"],
        "weight_decay": rule["weight_decay"],
    }
    foreach = "True" in case.api
    optimizer = torch.optim.RMSprop(blocks, foreach=foreach, **({} if case.own_defaults else options))
    for rate, gradient in zip(rates(rule), inputs.gradients, strict=True):
        if not case.own_defaults:
            optimizer.param_groups[0]["lr"] = rate
        for block, part in zip(blocks, np.split(gradient, [4]), strict=True):
            block.grad = torch.from_numpy(part.copy())
        optimizer.step()
        yield torch.cat(blocks).detach().numpy()


def run_optax(case: Case, inputs: Inputs) -> Iterator[np.ndarray]:
    """Run `optax.rmsprop` eagerly: under `jax.jit` XLA contracts multiplications and additions."""
    import jax
    import jax.numpy as jnp
    import optax

    jax.config.update("jax_enable_x64", inputs.x0.dtype == np.float64)
    optimizer = make_optax(optax, jnp, case)
    x = jnp.asarray(inputs.x0)
    state = optimizer.init(x)
    for gradient in inputs.gradients:
        updates, state = optimizer.update(jnp.asarray(gradient), state, x)
        x = optax.apply_updates(x, updates)
        yield np.asarray(x)


def make_optax(optax: Any, jnp: Any, case: Case) -> Any:
    """Return the transformation of a case."""
    rule = case.rule
    if case.own_defaults:
        return optax.rmsprop(rule["learning_rate"])
    schedule = jnp.asarray(rates(rule))
    optimizer = optax.rmsprop(
        (lambda count: schedule[count]) if isinstance(rule["learning_rate"], list) else rule["learning_rate"],
        decay=rule["beta"],
        eps=rule["eps"],
        initial_scale=rule["initial_accumulator"],
        eps_in_sqrt=rule["eps_inside_sqrt"],
        centered=rule["centered"],
        momentum=rule["momentum"] or None,
        nesterov=rule["nesterov"],
        bias_correction=rule["bias_correction"],
    )
    return optax.chain(optax.add_decayed_weights(rule["weight_decay"]), optimizer) if "chain" in case.api else optimizer


def run_keras(case: Case, inputs: Inputs) -> Iterator[np.ndarray]:
    """Run `keras.optimizers.RMSprop` on the TensorFlow backend, as it is outside of `tf.function`."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    rule = case.rule
    keras.config.set_floatx(inputs.x0.dtype.name)  # the dtype of the optimizer's own variables, its rate among them
    options = {
        "learning_rate": first_rate(rule),
        "rho": rule["beta"],
        "epsilon": rule["eps"],
        "momentum": rule["momentum"],
        "centered": rule["centered"],
        "weight_decay": rule["weight_decay"] or None,
    }
    optimizer = keras.optimizers.RMSprop(**({} if case.own_defaults else options))
    x = keras.Variable(inputs.x0, dtype=inputs.x0.dtype.name)
    for rate, gradient in zip(rates(rule), inputs.gradients, strict=True):
        if not case.own_defaults:
            optimizer.learning_rate = rate
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [x])
        yield keras.ops.convert_to_numpy(x)


def run_tensorflow(case: Case, inputs: Inputs) -> Iterator[np.ndarray]:
    """Run TensorFlow 1's optimizer class, or the operation behind it with slots of our own."""
    return run_tensorflow_op(case, inputs) if "raw_ops" in case.api else run_tensorflow_class(case, inputs)


def run_tensorflow_class(case: Case, inputs: Inputs) -> Iterator[np.ndarray]:
    """Run `RMSPropOptimizer` eagerly, which calls the learning rate anew in each step."""
    import tensorflow as tf

    rule = case.rule
    options = {name: rule[ours] for name, ours in (("decay", "beta"), ("epsilon", "eps"))}
    options |= {name: rule[name] for name in ("momentum", "centered")}
    schedule = iter(rates(rule))
    optimizer = tf.compat.v1.train.RMSPropOptimizer(lambda: next(schedule), **({} if case.own_defaults else options))
    x = tf.Variable(inputs.x0)
    for gradient in inputs.gradients:
        optimizer.apply_gradients([(tf.constant(gradient), x)])
        yield x.numpy()


def run_tensorflow_op(case: Case, inputs: Inputs) -> Iterator[np.ndarray]:
    """Run the operation, whose hyper-parameters have the dtype of x."""
    import tensorflow as tf

    rule, dtype = case.rule, inputs.x0.dtype
    x, mg, mom = (tf.Variable(start) for start in (inputs.x0, np.zeros(7, dtype), np.zeros(7, dtype)))
    ms = tf.Variable(np.full(7, rule["initial_accumulator"], dtype))
    for rate, gradient in zip(rates(rule), inputs.gradients, strict=True):
        numbers = {"lr": rate, "rho": rule["beta"], "momentum": rule["momentum"], "epsilon": rule["eps"]}
        arguments = {name: tf.constant(number, dtype) for name, number in numbers.items()}
        arguments |= {"var": x.handle, "ms": ms.handle, "mom": mom.handle, "grad": tf.constant(gradient)}
        if rule["centered"]:
            tf.raw_ops.ResourceApplyCenteredRMSProp(mg=mg.handle, **arguments)
        else:
            tf.raw_ops.ResourceApplyRMSProp(**arguments)
        yield x.numpy()


RUNNERS: dict[str, Callable[[Case, Inputs], Iterator[np.ndarray]]] = {
    "torch": run_torch,
    "optax": run_optax,
    "keras": run_keras,
    "tensorflow": run_tensorflow,
}
DISTRIBUTIONS = {"tensorflow": ("tensorflow", "tensorflow-cpu")}


def version(library: str) -> str:
    """Return the installed version, under whatever name the library was installed."""
    for distribution in DISTRIBUTIONS.get(library, (library,)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise importlib.metadata.PackageNotFoundError(library)
