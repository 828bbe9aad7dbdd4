"""What is recorded: the inputs, and the ways to call each library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

DTYPES = ("float64", "float32")
STEPS = (1, 2, 3, 10, 25, 50)
N_STEPS = STEPS[-1]

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
