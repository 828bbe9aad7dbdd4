"""Trajectories of RMSprop as other libraries really run it, for the conformance tests.

    python make_golden.py            # runs the libraries, rewrites golden.json beside this file, checks it
    python make_golden.py --check    # checks golden.json against rmsprop_nb.testing; needs NumPy only

The first form needs torch, jax, optax, keras and tensorflow (``pip install torch jax optax keras tensorflow-cpu``);
they are not installed where the tests run, which read golden.json. Each library and dtype gets a process of its own,
because jax and keras fix their precision once for a process.

golden.json holds one case a line. Its hyper-parameters are those of `rmsprop_nb.rmsprop`, with the values that the
library effectively used. Numbers of x and of gradients are `float.hex` strings: lossless for both dtypes. "x" holds x
after each of "steps". Gradients are given, not computed, so that no deviation feeds back into them.

Left out on purpose is bias correction, centered, with eps outside the root and S starting at 0. There the variance is
exactly 0 after the first step, and for ever where the gradient is constant; the libraries take the root of what
rounding leaves, which may be NaN.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(
    0, str(Path(__file__).resolve().parents[2])
)  # the environment of the libraries need not have the project

from rmsprop_nb.testing import reference_rmsprop

GOLDEN = Path(__file__).with_name("golden.json")
DTYPES = ("float64", "float32")
STEPS = (1, 2, 3, 10, 25, 50)
N_STEPS = STEPS[-1]
LARGEST_DEVIATION = {"float64": 16.0, "float32": 64.0}  # ulps of max |x|

# Neither monotone nor slow, so that a rate inside the momentum buffer and one outside of it soon part.
SCHEDULE = [round(0.02 * (0.55 + 0.45 * float(np.cos(k / 3))), 6) for k in range(N_STEPS)]

# The rule of this project without any of its options.
PLAIN = {
    "learning_rate": 0.01,
    "beta": 0.9,
    "eps": 1e-8,
    "momentum": 0.0,
    "nesterov": False,
    "centered": False,
    "eps_inside_sqrt": False,
    "bias_correction": False,
    "initial_accumulator": 0.0,
    "weight_decay": 0.0,
    "decoupled_weight_decay": False,
    "lr_in_momentum": False,
}


# -- inputs -----------------------------------------------------------------------------------------------------------


class Inputs(NamedTuple):
    """Where to start, and the gradient of each step, in the dtype of the run."""

    x0: np.ndarray
    gradients: np.ndarray


def make_inputs(dtype: str) -> Inputs:
    """Return 7 parameters with gradients from 1e-6 to 1e3, the fourth constant, three with zeros."""
    rng = np.random.default_rng(20121106)
    x0 = rng.normal(size=7)
    gradients = rng.normal(size=(N_STEPS, 7)) * [1e-6, 1e-3, 0.1, 1.0, 1.0, 30.0, 1e3]
    gradients[:, 3] = 0.3
    gradients[[1, 5, 6, 7, 20, 40, 49], 4] = 0.0
    # A centered and bias-corrected variance is 0 after the first step, but for rounding errors of eps_mach*g*g. The
    # eps inside the root is to be far above these, hence no large gradients yet. Also: 0/(sqrt(0) + eps) happens.
    gradients[0, 5:] = 0.0
    return Inputs(x0.astype(dtype), gradients.astype(dtype))


# -- cases ------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """One way to call one library; `rule` has this project's names and all of its options."""

    name: str
    library: str
    api: str
    rule: dict[str, Any]
    own_defaults: bool = False  # pass the library nothing but a learning rate, and that only if it must have one


def torch_cases() -> Iterator[Case]:
    """PyTorch: eps outside the root, learning rate outside the momentum buffer, coupled weight decay."""
    variants = {
        "plain": {"learning_rate": 0.02, "eps": 1e-6},
        "large_eps": {"eps": 1e-2, "beta": 0.97},
        "schedule": {"learning_rate": SCHEDULE},
        "centered": {"centered": True, "beta": 0.95},
        "momentum": {"momentum": 0.9},
        "momentum_schedule": {"momentum": 0.9, "learning_rate": SCHEDULE},
        "momentum_centered": {"momentum": 0.8, "centered": True, "beta": 0.95},
        "weight_decay": {"weight_decay": 0.1},
        "everything": {
            "learning_rate": SCHEDULE,
            "beta": 0.95,
            "eps": 1e-5,
            "momentum": 0.7,
            "centered": True,
            "weight_decay": 0.03,
        },
    }
    for prefix, foreach in (("torch", False), ("torch_foreach", True)):
        api = f"torch.optim.RMSprop({foreach=})"
        yield Case(f"{prefix}_default", "torch", api, {**PLAIN, "beta": 0.99}, own_defaults=True)
        for name, options in variants.items():
            yield Case(f"{prefix}_{name}", "torch", api, {**PLAIN, **options})


def optax_cases() -> Iterator[Case]:
    """Optax: a switch for everything; learning rate inside the momentum buffer."""
    base = {**PLAIN, "eps_inside_sqrt": True, "lr_in_momentum": True}
    outside = {"eps_inside_sqrt": False}
    centered = {"centered": True, "beta": 0.95}
    variants = {
        "plain": {"learning_rate": 0.02, "eps": 1e-6},
        "eps_outside": outside,
        "large_eps": {"eps": 1e-2, "beta": 0.97},
        "schedule": {"learning_rate": SCHEDULE},
        "s0_one": {"initial_accumulator": 1.0},
        "s0_one_eps_outside": {"initial_accumulator": 1.0, **outside},
        "s0_third": {"initial_accumulator": 0.3, "eps": 1e-3},
        "centered": centered,
        "centered_eps_outside": {**centered, **outside},
        "momentum": {"momentum": 0.9},
        "momentum_schedule": {"momentum": 0.9, "learning_rate": SCHEDULE},
        "momentum_centered": {"momentum": 0.8, **centered},
        "nesterov": {"momentum": 0.9, "nesterov": True},
        "nesterov_schedule": {"momentum": 0.9, "nesterov": True, "learning_rate": SCHEDULE},
        "nesterov_centered": {"momentum": 0.8, "nesterov": True, **centered},
        "bias_correction": {"bias_correction": True},
        "bias_correction_eps_outside": {"bias_correction": True, **outside},
        "bias_correction_momentum": {"bias_correction": True, "momentum": 0.9},
        "bias_correction_centered": {"bias_correction": True, **centered, "eps": 1e-2},
        "bias_correction_centered_s0_one": {
            "bias_correction": True,
            **centered,
            **outside,
            "initial_accumulator": 1.0,
        },
        "weight_decay": {"weight_decay": 0.1},
        "everything": {
            "learning_rate": SCHEDULE,
            "beta": 0.95,
            "eps": 1e-5,
            "momentum": 0.7,
            "nesterov": True,
            "centered": True,
            "eps_inside_sqrt": False,
            "bias_correction": True,
            "initial_accumulator": 1.0,
            "weight_decay": 0.03,
        },
    }
    yield Case("optax_default", "optax", "optax.rmsprop", base, own_defaults=True)
    for name, options in variants.items():
        api = "optax.chain(add_decayed_weights, rmsprop)" if "weight_decay" in options else "optax.rmsprop"
        yield Case(f"optax_{name}", "optax", api, {**base, **options})


def keras_cases() -> Iterator[Case]:
    """Keras 3: eps inside the root, learning rate inside the momentum buffer, decoupled weight decay."""
    api = "keras.optimizers.RMSprop, tensorflow backend"
    base = {**PLAIN, "eps_inside_sqrt": True, "lr_in_momentum": True, "decoupled_weight_decay": True}
    variants = {
        "plain": {"learning_rate": 0.02, "eps": 1e-6},
        "large_eps": {"eps": 1e-2, "beta": 0.97},
        "schedule": {"learning_rate": SCHEDULE},
        "centered": {"centered": True, "beta": 0.95},
        "momentum": {"momentum": 0.9},
        "momentum_schedule": {"momentum": 0.9, "learning_rate": SCHEDULE},
        "momentum_centered": {"momentum": 0.8, "centered": True, "beta": 0.95},
        "weight_decay": {"weight_decay": 0.1},
        "weight_decay_schedule": {"weight_decay": 0.1, "learning_rate": SCHEDULE},
        "everything": {
            "learning_rate": SCHEDULE,
            "beta": 0.95,
            "eps": 1e-5,
            "momentum": 0.7,
            "centered": True,
            "weight_decay": 0.03,
        },
    }
    default = {**base, "learning_rate": 0.001, "eps": 1e-7}
    yield Case("keras_default", "keras", api, default, own_defaults=True)
    for name, options in variants.items():
        yield Case(f"keras_{name}", "keras", api, {**base, **options})


def tensorflow_cases() -> Iterator[Case]:
    """TensorFlow 1: eps inside the root, S starts at 1, learning rate inside the momentum buffer."""
    api = "tf.compat.v1.train.RMSPropOptimizer"
    base = {**PLAIN, "eps": 1e-10, "eps_inside_sqrt": True, "lr_in_momentum": True, "initial_accumulator": 1.0}
    centered = {"centered": True, "beta": 0.95}
    variants = {
        "plain": {"learning_rate": 0.02, "eps": 1e-6},
        "large_eps": {"eps": 1e-2, "beta": 0.97},
        "schedule": {"learning_rate": SCHEDULE},
        "centered": centered,
        "momentum": {"momentum": 0.9},
        "momentum_schedule": {"momentum": 0.9, "learning_rate": SCHEDULE},
        "momentum_centered": {"momentum": 0.8, **centered},
        "everything": {"learning_rate": SCHEDULE, "eps": 1e-5, "momentum": 0.7, **centered},
    }
    yield Case("tf1_default", "tensorflow", api, base, own_defaults=True)
    for name, options in variants.items():
        yield Case(f"tf1_{name}", "tensorflow", api, {**base, **options})
    op = {**base, "eps": 1e-8, "initial_accumulator": 0.0, "momentum": 0.9, "learning_rate": SCHEDULE}
    yield Case("tf_op_s0_zero", "tensorflow", "tf.raw_ops.ResourceApplyRMSProp", op)
    yield Case("tf_op_centered_s0_zero", "tensorflow", "tf.raw_ops.ResourceApplyCenteredRMSProp", {**op, **centered})


CASES = [*torch_cases(), *optax_cases(), *keras_cases(), *tensorflow_cases()]


def rates(rule: dict[str, Any]) -> list[float]:
    """Return the learning rate of each step."""
    rate = rule["learning_rate"]
    return rate if isinstance(rate, list) else [rate] * N_STEPS


def first_rate(rule: dict[str, Any]) -> float:
    """Return the learning rate that the optimizer is made with."""
    return rates(rule)[0]


# -- libraries --------------------------------------------------------------------------------------------------------

# Each function takes a case and its inputs, and yields x after each step.


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


# -- recording --------------------------------------------------------------------------------------------------------


def version(library: str) -> str:
    """Return the installed version, under whatever name the library was installed."""
    for distribution in DISTRIBUTIONS.get(library, (library,)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise importlib.metadata.PackageNotFoundError(library)


def hexadecimal(x: np.ndarray) -> list[str]:
    """Return the numbers without loss; every float32 is a float64."""
    return [float(number).hex() for number in x]


def through_float32(rule: dict[str, Any]) -> dict[str, Any]:
    """Return the rule with every number rounded to float32."""

    def rounded(value: Any) -> Any:
        if isinstance(value, list):
            return [rounded(entry) for entry in value]
        return float(np.float32(value)) if isinstance(value, float) else value

    return {name: rounded(value) for name, value in rule.items()}


def rounds_to_float32(case: Case, dtype: str) -> bool:
    """Tell whether 1 - beta is the complement of a beta in float32: TensorFlow's class does so for every dtype."""
    return case.library == "tensorflow" and (dtype == "float32" or "raw_ops" not in case.api)


def as_used(case: Case, dtype: str) -> dict[str, Any]:
    """Return the rule with the values that the library effectively used."""
    if rounds_to_float32(case, dtype):
        return through_float32(case.rule)
    if case.library == "keras":  # on TensorFlow, Keras makes a float32 of the weight decay, whatever the variable
        return {**case.rule, "weight_decay": float(np.float32(case.rule["weight_decay"]))}
    return case.rule


def record(case: Case, dtype: str) -> dict[str, Any]:
    """Run one case and return its entry."""
    after = [hexadecimal(x) for x in RUNNERS[case.library](case, make_inputs(dtype))]
    return {
        "name": case.name,
        "dtype": dtype,
        "library": case.library,
        "library_version": version(case.library),
        "api": case.api,
        "hyper_through_float32": rounds_to_float32(case, dtype),
        **as_used(case, dtype),
        "x": [after[step - 1] for step in STEPS],
    }


def record_all(library: str, dtype: str) -> list[dict[str, Any]]:
    """Run the cases of one library in one dtype; to be called in a fresh process."""
    return [record(case, dtype) for case in CASES if case.library == library]


def run_libraries() -> list[dict[str, Any]]:
    """Run everything, each library and dtype in a process of its own."""
    jobs = [(library, dtype) for library in RUNNERS for dtype in DTYPES]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1) as pool:
        parts = pool.map(record_all, *zip(*jobs, strict=True))
        return [entry for part in parts for entry in part]


def as_json(entries: list[dict[str, Any]]) -> str:
    """Return the file: one line for each case and for the gradients of each step, so that differences are readable."""
    lines = ["{", f'"steps": {json.dumps(STEPS)},', '"inputs": {']
    for dtype in DTYPES:
        inputs = make_inputs(dtype)
        lines += [f'"{dtype}": {{', f'"x0": {json.dumps(hexadecimal(inputs.x0))},', '"gradients": [']
        lines += [",\n".join(json.dumps(hexadecimal(gradient)) for gradient in inputs.gradients)]
        lines += ["]}" if dtype == DTYPES[-1] else "]},"]
    lines += ["},", '"cases": [', ",\n".join(json.dumps(entry) for entry in entries), "]", "}"]
    return "\n".join(lines) + "\n"


# -- checking ---------------------------------------------------------------------------------------------------------


def deviation(entry: dict[str, Any], inputs: dict[str, Any]) -> float:
    """Return the largest difference between an entry and the reference, in ulps of the largest abs(x) of the entry."""
    dtype = np.dtype(entry["dtype"])
    x0, gradients = (unhexadecimal(inputs[entry["dtype"]][name], dtype) for name in ("x0", "gradients"))
    recorded = unhexadecimal(entry["x"], dtype)
    rule = {name: entry[name] for name in PLAIN}
    ours = np.array(list(reference_rmsprop(x0, gradients, **rule)))[np.array(STEPS) - 1]
    if ours.dtype != dtype:
        raise TypeError(f"{entry['name']}: the reference left {dtype}")
    return float(np.abs(recorded - ours).max() / np.spacing(np.abs(recorded).max()))


def unhexadecimal(numbers: list[Any], dtype: np.dtype) -> np.ndarray:
    """Return an array of hexadecimal numbers, nested one deep or not."""
    rows = [numbers] if isinstance(numbers[0], str) else numbers
    array = np.array([[float.fromhex(number) for number in row] for row in rows], dtype)
    return array[0] if isinstance(numbers[0], str) else array


def check(golden: dict[str, Any]) -> bool:
    """Write the deviation of every case and tell whether all are small."""
    good = True
    for entry in golden["cases"]:
        ulps = deviation(entry, golden["inputs"])
        fits = ulps <= LARGEST_DEVIATION[entry["dtype"]]  # false for NaN
        good = good and fits
        sys.stdout.write(f"{entry['name']:40} {entry['dtype']} {ulps:8.1f} ulps{'' if fits else '  TOO LARGE'}\n")
    return good


def main() -> int:
    """Make the file unless told only to check it; check it in any case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="do not run the libraries")
    if not parser.parse_args().check:
        GOLDEN.write_text(as_json(run_libraries()), encoding="utf-8")
    return 0 if check(json.loads(GOLDEN.read_text(encoding="utf-8"))) else 1


if __name__ == "__main__":
    sys.exit(main())
