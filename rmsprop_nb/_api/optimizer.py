"""RMSprop for your own training loop: hyper-parameters that never change, and a state outside of them."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.frozen import explain_assignment
from rmsprop_nb._core.names_elsewhere import advice, explain_keywords
from rmsprop_nb._core.option_docs import with_option_docs
from rmsprop_nb._core.options import Rule
from rmsprop_nb._core.validate import as_number, as_workers
from rmsprop_nb._training.arguments import as_rate, as_steps, check_clipping
from rmsprop_nb._training.arrays import NamedArray, is_on_device
from rmsprop_nb._training.host_leaves import new_leaves
from rmsprop_nb._training.host_step import HostStep
from rmsprop_nb._training.presets import preset_options
from rmsprop_nb._training.pytree import leaves, names, paths, structure_of
from rmsprop_nb._training.state import RMSpropState
from rmsprop_nb._training.step import ArrayOptions, Keeps, OptimizerStep, Scale, Work

_RULE = tuple(field.name for field in dataclasses.fields(Rule))
_ARRAY_OPTIONS = ("learning_rate", *_RULE)


@explain_assignment
@explain_keywords()
@with_option_docs
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RMSprop(Rule):
    """RMSprop for a training loop of your own, on arrays that are updated in place.

    The object holds hyper-parameters and never changes; what RMSprop remembers between steps is in the state that
    `init` makes. Parameters are one array or several in nested dicts, lists, tuples and named tuples, such as the W
    and b of a layer.

    Parameters
    ----------
    learning_rate : float, callable or array_like, default 0.01
        A positive number; a schedule ``step -> rate`` with step counted from 0, see `rmsprop_nb.schedules`; or one rate
        for each element, an array of the shape of the parameters. While a number or a schedule is 0, parameters and
        what is kept for them stay as they are.
    %(rule)s
    maximize : bool, default False
        Maximize the objective instead of minimizing it.
    workers : int, default 1
        Number of threads that share arrays of 100,000 elements or more, at most Numba's ``NUMBA_NUM_THREADS``; -1 means
        one for each processor. The result is the same. For arrays on a CUDA device it must be 1.
    clip_value : float, optional
        Clip each element of the gradients to [-clip_value, clip_value].
    clip_norm : float, optional
        Scale the gradients of all arrays together so that their Euclidean norm is at most clip_norm.
    clip_array_norm : float, optional
        Scale the gradient of each array by itself so that its Euclidean norm is at most clip_array_norm. At most one of
        the three ways to clip may be given.
    accumulate_steps : int, default 1
        Update only in every accumulate_steps-th call of `step`, with the mean of the gradients since the last update.
    ema : float, optional
        Keep moving averages of the parameters, ``A <- ema*A + (1 - ema)*x`` after every update, in `state.params_avg`;
        from 0 to below 1. After the first update they are the parameters themselves. They often generalise better than
        the last parameters.
    check_finite : bool, default True
        Check all gradients before anything is written, and raise if one is NaN, infinite, or so large that its square
        is infinite. This reads the gradients once more before the update: an eighth of the time of a step in cache, a
        quarter beyond. Without it such a gradient makes the state useless from then on, as it does in other libraries.
    deterministic : bool, default False
        On a CUDA device: round as the CPU does, for the same bits from the same gradients. On the host this is always
        so.
    per_block : mapping of str to mapping, optional
        Other options for some of the arrays, by name: ``{"b": {"weight_decay": 0.0}, "layers/0": {"eps": 1e-6}}``. The
        name of an array is its path, keys and positions joined by slashes, as in `RMSpropState.to_arrays`; the name of
        a container stands for all arrays in it, and a longer name takes precedence. The options are those from
        learning_rate to lr_in_momentum.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    See Also
    --------
    rmsprop_nb.minimize : The same rule with the loop, stopping tests, and a learning rate that chooses itself.

    Notes
    -----
    The textbook rule, element by element [1]_, after the gradient has been scaled and clipped::

        S <- beta*S + (1 - beta)*g*g            x <- x - learning_rate*g/(sqrt(S) + eps)

    The options are those of `rmsprop_nb.rmsprop`; the centered form is that of [2]_, and clip_norm is the clipping of
    [3]_: g*clip_norm/max(norm, clip_norm). PyTorch adds 1e-6 to the norm, optax does not. clip_array_norm is the
    ``clipnorm`` of Keras, and ema its ``use_ema`` with ``ema_momentum``. The mean of accumulate_steps gradients is that
    of ``optax.MultiSteps``. Gradients are clipped after taking the mean. On the host `weight_decay` may be a schedule
    ``step -> number``, too.

    References
    ----------
    .. [1] G. Hinton, N. Srivastava, K. Swersky, "Neural Networks for Machine Learning", Coursera 2012, lecture 6e.
    .. [2] A. Graves, "Generating Sequences With Recurrent Neural Networks", arXiv:1308.0850, eq. 38-45.
    .. [3] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop_nb import RMSprop
    >>> params = {"W": np.ones((2, 3)), "b": np.zeros(3)}
    >>> optimizer = RMSprop(0.1, per_block={"b": {"learning_rate": 0.2}})
    >>> state = optimizer.init(params)
    >>> optimizer.step(params, {"W": np.full((2, 3), 5.0), "b": np.ones(3)}, state)
    >>> params["W"][0].round(4), params["b"].round(4)
    (array([0.6838, 0.6838, 0.6838]), array([-0.6325, -0.6325, -0.6325]))
    >>> optimizer
    RMSprop(learning_rate=0.1, per_block={'b': {'learning_rate': 0.2}})
    """

    learning_rate: float | Callable[[int], float] | NDArray[Any] = dataclasses.field(default=0.01, kw_only=False)
    maximize: bool = False
    workers: int = 1
    clip_value: float | None = None
    clip_norm: float | None = None
    clip_array_norm: float | None = None
    accumulate_steps: int = 1
    ema: float | None = None
    check_finite: bool = True
    deterministic: bool = False
    per_block: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        """Check all options; nothing changes them later."""
        super().__post_init__()
        object.__setattr__(self, "learning_rate", as_rate(self.learning_rate))
        as_workers(self.workers)
        object.__setattr__(self, "accumulate_steps", as_steps(self.accumulate_steps))
        check_clipping(clip_value=self.clip_value, clip_norm=self.clip_norm, clip_array_norm=self.clip_array_norm)
        if self.ema is not None:
            as_number("ema", self.ema, 0.0, 1.0, open_high=True)
        if self.per_block is not None:
            object.__setattr__(self, "per_block", self._checked_per_block(self.per_block))

    def _checked_per_block(self, per_block: Any) -> dict[str, dict[str, Any]]:
        """Return a copy of per_block, after trying its options together with the others."""
        if not isinstance(per_block, Mapping) or not all(isinstance(value, Mapping) for value in per_block.values()):
            msg = f"per_block must map names of arrays to options, as {{'b': {{'eps': 1e-6}}}}, got {per_block!r}."
            raise TypeError(msg)
        checked = {}
        for name, options in per_block.items():
            unknown = [option for option in options if option not in _ARRAY_OPTIONS]
            if unknown:
                msg = f"per_block[{name!r}] must hold options of arrays, got {unknown[0]!r}; "
                msg += f"{advice(unknown[0], _ARRAY_OPTIONS) or 'they are ' + ', '.join(_ARRAY_OPTIONS)}."
                raise ValueError(msg)
            checked[str(name)] = dict(options)
            if "learning_rate" in options:
                checked[str(name)]["learning_rate"] = as_rate(options["learning_rate"])
            self._rule_with(options)
        return checked

    def _check_weight_decay(self) -> None:
        if not callable(self.weight_decay):  # otherwise it is checked at every step
            super()._check_weight_decay()

    def _rule_with(self, options: Mapping[str, Any]) -> Rule:
        chosen = {name: options.get(name, getattr(self, name)) for name in _RULE}
        if callable(chosen["weight_decay"]):
            chosen["weight_decay"] = 1.0  # the rule has a decay, and every step its own
        return Rule(**chosen)

    def _choose(self, name: str) -> ArrayOptions:
        """Return the options of the array of this name."""
        options: dict[str, Any] = {}
        for prefix in sorted(self.per_block or {}, key=len):
            if name == prefix or name.startswith(f"{prefix}/"):
                options |= (self.per_block or {})[prefix]
        rate = options.get("learning_rate", self.learning_rate)
        decay = options.get("weight_decay", self.weight_decay)
        return ArrayOptions(
            self._rule_with(options), rate, "learning_rate" in options, decay if callable(decay) else None
        )

    @classmethod
    def preset(cls, library: str, **overrides: Any) -> RMSprop:
        """Make RMSprop as another library has it: with its formula and its default values.

        Parameters
        ----------
        library : {"torch", "keras", "optax", "tensorflow1"}
            ``torch.optim.RMSprop``, ``keras.optimizers.RMSprop`` (Keras 3), ``optax.rmsprop``, or
            ``tf.compat.v1.train.RMSPropOptimizer``.
        **overrides
            Options of `RMSprop`, by the names they have here. optax and TensorFlow 1 have no default learning rate;
            without one it is 0.01.

        Returns
        -------
        optimizer : RMSprop
            With these options.

        Raises
        ------
        TypeError
            If an option has another name here, or does not exist.
        ValueError
            If the library is not among these, or an option is out of its range.

        Notes
        -----
        Values are those of PyTorch 2.13, Keras 3.15, optax 0.2.8 and TensorFlow 2.21, and the tests hold each against
        recorded runs of these. TensorFlow 1 rounds its hyper-parameters to float32, whatever the parameters are, and so
        does this preset. Two differences are on purpose: the variance of the centered form is never below 0, where
        those libraries can give NaN, and Keras adds weight decay only to variables that it was not told to exclude.

        Examples
        --------
        >>> from rmsprop_nb import RMSprop
        >>> RMSprop.preset("torch", momentum=0.9)
        RMSprop(learning_rate=0.01, beta=0.99, momentum=0.9)
        """
        known = tuple(field.name for field in dataclasses.fields(cls))
        return cls(**preset_options(library, overrides, known))

    def init(self, params: Any) -> RMSpropState:
        """Make the state for parameters, of which only the nesting, shapes and dtypes are kept.

        Parameters
        ----------
        params : ndarray, or nested dict, list, tuple or NamedTuple of ndarray
            The arrays that `step` will update, of any shape; float32 or float64, which then is the dtype of its
            arithmetic, or float16 or bfloat16 (of the package ml_dtypes), with arithmetic and state in float32. Complex
            numbers, on the host, are pairs of real ones, as in PyTorch: averages have one more axis, of length 2. Keys
            of dicts are strings.

        Returns
        -------
        state : RMSpropState
            At step 0.

        Raises
        ------
        TypeError, ValueError
            If an array cannot be updated in place, two share memory, or per_block names one that does not exist.
        """
        structure = structure_of(params, "params")
        arrays = leaves(structure, params, "params")
        if not arrays:
            msg = f"params must hold at least one array, got {params!r}."
            raise ValueError(msg)
        rules = [self._choose(name).rule for name in names(structure)]
        named = [NamedArray(f"params{path}", a) for a, path in zip(arrays, paths(structure), strict=True)]
        if is_on_device(arrays[0]):
            from rmsprop_nb._cuda.step import new_device_leaves

            made = new_device_leaves(named, rules, self._keeps)
        else:
            made = new_leaves(named, rules, self._keeps)
        state = RMSpropState(structure, tuple(made))
        self._prepared(state)  # raises now for what does not fit, such as rates of another shape
        return state

    def step(self, params: Any, grads: Any, state: RMSpropState, *, learning_rate: float | None = None) -> None:
        """Update params and state in place, once.

        Parameters
        ----------
        params : ndarray, or nested containers of ndarray
            As given to `init`, or others of the same nesting, shapes and dtypes. Contiguous arrays (C order) are
            updated where they are; others go through a copy.
        grads : ndarray, or nested containers of ndarray
            Gradients, nested like params and with the same shapes and dtypes, or float32 for parameters of half
            precision. They are not changed. None in the place of an array leaves its parameters, and what is kept for
            them, as they are; it cannot be added up by `accumulate_steps`.
        state : RMSpropState
            From `init` or `RMSpropState.from_arrays`.
        learning_rate : float, optional
            The rate of this step, in the place of the optimizer's; arrays with a rate of their own in `per_block` keep
            that. A rate of 0 leaves parameters, and what is kept for them, as they are.

        Raises
        ------
        TypeError, ValueError
            If the arguments do not fit each other, or share memory where one is written; or if a schedule gives a rate
            that is negative or not finite. Nothing has been changed then.
        FloatingPointError
            If a gradient cannot be used and `check_finite` is set. Nothing has been changed then.
        """
        prepared = self._prepared(state)
        rate = None if learning_rate is None else self._rate_of_step(learning_rate)
        work = prepared.take(params, grads)
        if self.check_finite:
            prepared.check_gradients(work)
        accumulated = state._accumulated + 1
        if accumulated < self.accumulate_steps:
            prepared.accumulate(work)
            state._accumulated = accumulated
            return
        rates = prepared.rates_of_step(state._step, rate)
        accumulates = self._accumulates
        if accumulates:
            work = prepared.accumulate(work)
        limit = None if self.clip_value is None else float(self.clip_value)
        prepared.update(work, rates, state._step + 1, self._scale(prepared, work, accumulated), limit)
        if accumulates:
            prepared.forget_sums(work)
            state._accumulated = 0
        state._step += 1

    def _rate_of_step(self, rate: Any) -> float:
        if isinstance(self.learning_rate, np.ndarray):
            msg = "step takes no learning_rate where the optimizer's is an array of one for each element; leave it out."
            raise TypeError(msg)
        return as_number("learning_rate", rate, 0.0, math.inf, open_high=True)

    def _scale(self, prepared: OptimizerStep[Work], work: Work, accumulated: int) -> Scale:
        """Return what to multiply the gradients by, or the sums of `accumulated` of them; None if nothing."""
        most = self.clip_array_norm
        if not self.maximize and self.clip_norm is None and most is None and not self._accumulates:
            return None
        scale = (-1.0 if self.maximize else 1.0) / accumulated
        if most is not None:
            return [scale * most / max(norm / accumulated, most) for norm in prepared.norms(work)]
        if self.clip_norm is not None:
            norm = prepared.norm(work) / accumulated
            if norm > self.clip_norm:
                scale *= self.clip_norm / norm
        return scale

    @property
    def _accumulates(self) -> bool:
        return self.accumulate_steps > 1

    @property
    def _keeps(self) -> Keeps:
        return Keeps(self._accumulates, self.ema is not None)

    def _check_device_options(self) -> None:
        for name in ("clip_array_norm", "ema"):
            if getattr(self, name) is not None:
                msg = f"{name} is for arrays on the host, got {getattr(self, name)!r} for arrays on a CUDA device."
                raise NotImplementedError(msg)
        if self.workers != 1:
            msg = f"workers must be 1 for arrays on a CUDA device, which has its own, got {self.workers!r}."
            raise ValueError(msg)

    def _prepared(self, state: Any) -> OptimizerStep[Any]:
        """Return the step for this state, which is worked out once and kept with it."""
        if not isinstance(state, RMSpropState):
            msg = f"state must be an RMSpropState, made by init, got {type(state).__name__}."
            raise TypeError(msg)
        prepared = state._prepared
        if prepared is not None and prepared.owner() is self and prepared.process == os.getpid():  # no fork since then
            return prepared
        self._check_names(names(state._structure))
        state._prepared = self._new_step(state)
        return state._prepared

    def _new_step(self, state: RMSpropState) -> OptimizerStep[Any]:
        clipped_to = self.clip_value or self.clip_norm or self.clip_array_norm
        if self._accumulates:
            clipped_to = None  # sums are not clipped before they are complete
        if is_on_device(state._leaves[0].square_avg):
            self._check_device_options()
            from rmsprop_nb._cuda.step import DeviceStep

            return DeviceStep(
                self,
                state,
                self._choose,
                keeps=self._keeps,
                clipped_to=clipped_to,
                deterministic=self.deterministic,
            )
        return HostStep(
            self,
            state,
            self._choose,
            workers=as_workers(self.workers),
            keeps=self._keeps,
            clipped_to=clipped_to,
            ema=None if self.ema is None else float(self.ema),
        )

    def _check_names(self, existing: list[str]) -> None:
        """Raise if per_block has a name that is neither that of an array nor of a container."""
        for name in self.per_block or {}:
            if not any(leaf == name or leaf.startswith(f"{name}/") for leaf in existing):
                msg = f"per_block names {name!r}, which is not in params; there are {', '.join(map(repr, existing))}."
                raise ValueError(msg)

    def __repr__(self) -> str:
        shown = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in sorted(dataclasses.fields(self), key=lambda field: field.name != "learning_rate")
            if field.name == "learning_rate" or getattr(self, field.name) != field.default
        ]
        return f"RMSprop({', '.join(shown)})"
