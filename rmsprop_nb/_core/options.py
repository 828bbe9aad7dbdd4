"""The options of the methods: their names and defaults, and what follows from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.progress import RunOptions
from rmsprop_nb._core.settings import Hyper, StoppingTests, Variant
from rmsprop_nb._core.validate import as_count, as_number, as_rel_steps, check_learning_rate, check_switches_of

_NEVER = np.iinfo(np.int64).max
_DEFAULT_MAXITER = 15_000
_TEXTBOOK_GTOL = 1e-5
GAIN_TOL = 1e-7
_GAIN_ULPS = 100.0  # of what has been gained: in float32 the gradient has an error of some ten
_BETA, _AUTO_BETA = 0.9, 0.99  # conjugate directions need a metric that changes slowly
_LARGEST_RATIO = 1e3  # of the root of the largest number to the largest usable gradient

# Options that have no meaning with an automatic learning rate.
_TEXTBOOK_ONLY = (
    "momentum",
    "nesterov",
    "centered",
    "eps_inside_sqrt",
    "bias_correction",
    "initial_accumulator",
    "weight_decay",
    "decoupled_weight_decay",
    "lr_in_momentum",
    "parallel",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Options of every method, as the user gave them: when to stop, and what to record."""

    gtol: float | None = None
    ftol: float = 0.0
    xtol: float = 0.0
    f_target: float | None = None
    maxiter: int | None = None
    maxfev: int | None = None
    patience: int | None = None
    finite_diff_rel_step: Any = None
    x_scale: Any = "auto"
    f_noise: float = 0.0
    return_all: bool = False
    disp: bool = False
    state: Any = None

    @property
    def kind(self) -> tuple[Any, ...]:
        """The name of the method among the kinds of states, and its parameters."""
        raise NotImplementedError

    def hyper(self, dtype: Any) -> Hyper:
        """Return the numbers of the rule, in the dtype of x."""
        raise NotImplementedError

    @property
    def schedule(self) -> Callable[[int], float] | None:
        """The learning rate as a function of the step."""
        return None

    @property
    def rate(self) -> float:
        """The learning rate if it is one number, otherwise 0."""
        return 0.0

    @property
    def first_square_avg(self) -> float:
        """S at the start."""
        return 0.0

    @property
    def threaded(self) -> bool:
        """Whether updates of long vectors are to use several threads."""
        return False

    def stopping_tests(self, dtype: Any) -> StoppingTests:
        """Return the limits for compiled code."""
        ftol = as_number("ftol", self.ftol, 0.0, math.inf)
        xtol = as_number("xtol", self.xtol, 0.0, math.inf)
        target = -math.inf if self.f_target is None else self.f_target
        return StoppingTests(
            gtol=-1.0 if self.gtol is None else as_number("gtol", self.gtol, 0.0, math.inf),
            gain_tol=max(GAIN_TOL, _GAIN_ULPS * float(np.finfo(dtype).eps)) if self.gtol is None else -1.0,
            guessed_sizes=self.gtol is None and isinstance(self.x_scale, str),
            ftol=ftol if ftol > 0.0 else -1.0,
            xtol=xtol if xtol > 0.0 else -1.0,
            f_target=as_number("f_target", target, -math.inf, math.inf),
            maxiter=as_count("maxiter", self.maxiter, _DEFAULT_MAXITER if self.maxiter is None else _NEVER),
            maxfev=as_count("maxfev", self.maxfev, _NEVER, least=1),
            patience=as_count("patience", self.patience, _NEVER, least=1),
            largest_gradient=largest_gradient(dtype),
        )

    @property
    def noise(self) -> float:
        """The error of f."""
        return as_number("f_noise", self.f_noise, 0.0, math.inf, open_high=True)

    def own_steps(self, n: int) -> NDArray[np.float64]:
        """Return the user's relative steps of difference gradients, one for each variable; none have size 0."""
        return as_rel_steps(self.finite_diff_rel_step, n)

    def quiet(self) -> Self:
        """Return a copy without what rank 0 alone takes care of."""
        return dataclasses.replace(super().quiet(), disp=False)

    def refuse(self, names: Collection[str], reason: str, remedy: str = "leave it out") -> None:
        """Raise if one of these options, which would be ignored, is not what it is by default."""
        defaults = self.__dataclass_fields__
        for name in names:
            default: Any = defaults[name].default if name in defaults else None
            value = getattr(self, name, default)
            if isinstance(value, list | np.ndarray) or value != default:
                msg = f"{name} {reason}, got {value!r}; {remedy}."
                raise ValueError(msg)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Numbers and switches of the textbook rule, except for the learning rate."""

    beta: Any = _BETA
    eps: float = 1e-8
    momentum: float | None = 0.0
    nesterov: bool = False
    centered: bool = False
    eps_inside_sqrt: bool = False
    bias_correction: bool = False
    initial_accumulator: float = 0.0
    weight_decay: float = 0.0
    decoupled_weight_decay: bool = False
    lr_in_momentum: bool = False

    def __post_init__(self) -> None:
        check_switches_of(self)
        check_average(self.beta, self.eps)
        as_number("initial_accumulator", self.initial_accumulator, 0.0, math.inf, open_high=True)
        self._check_weight_decay()
        if self.momentum is not None:
            as_number("momentum", self.momentum, 0.0, 1.0, open_high=True)
        self._refuse_contradictions()

    def _check_weight_decay(self) -> None:
        as_number("weight_decay", self.weight_decay, 0.0, math.inf, open_high=True)

    def _refuse_contradictions(self) -> None:
        if self.nesterov and not self.momentum:
            msg = "nesterov=True needs momentum > 0, got no momentum; give momentum=0.9, say."
            raise ValueError(msg)

    @property
    def variant(self) -> Variant:
        """The switches of the rule."""
        return Variant(
            centered=bool(self.centered),
            momentum=bool(self.momentum),
            nesterov=bool(self.nesterov),
            eps_inside_sqrt=bool(self.eps_inside_sqrt),
            bias_correction=bool(self.bias_correction),
            weight_decay=self.weight_decay > 0.0,
            decoupled_weight_decay=bool(self.decoupled_weight_decay),
            lr_in_momentum=bool(self.lr_in_momentum),
        )

    def hyper(self, dtype: Any) -> Hyper:
        """Return the numbers of the rule, in the dtype of x."""
        return Hyper.of(dtype, self.beta, self.eps, self.momentum or 0.0, self.weight_decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RmspropOptions(Rule, Options):
    """Options of method "rmsprop"."""

    learning_rate: float | str | Callable[[int], float] = "auto"
    beta: float | None = None
    momentum: float | None = None
    parallel: bool = False
    check_every: int | None = None

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        if not self.auto:
            self.refuse(("x_scale", "f_noise"), f"has no meaning with learning_rate={self.learning_rate!r}")
            if self.gtol is None:
                object.__setattr__(self, "gtol", _TEXTBOOK_GTOL)
        if self.beta is None:
            object.__setattr__(self, "beta", _AUTO_BETA if self.auto else _BETA)
        super().__post_init__()

    def _refuse_contradictions(self) -> None:
        for name in _TEXTBOOK_ONLY if self.auto else ():
            value = getattr(self, name)
            if value != getattr(RmspropOptions, name):  # the default
                msg = (
                    f"{name}={value!r} has no meaning with learning_rate='auto', which chooses the momentum itself; "
                    "give learning_rate a number or a schedule for the textbook rule."
                )
                raise ValueError(msg)
        super()._refuse_contradictions()

    @property
    def auto(self) -> bool:
        """Whether learning rate and momentum are chosen automatically."""
        return isinstance(self.learning_rate, str)

    @property
    def kind(self) -> tuple[Any, ...]:
        """The automatic method, or the textbook rule and its variant."""
        return ("rmsprop",) if self.auto else ("textbook", self.variant)

    @property
    def schedule(self) -> Callable[[int], float] | None:
        """The learning rate as a function of the step."""
        return self.learning_rate if callable(self.learning_rate) else None

    @property
    def rate(self) -> float:
        """The learning rate if it is one number, otherwise 0."""
        return 0.0 if isinstance(self.learning_rate, str) or callable(self.learning_rate) else self.learning_rate

    @property
    def first_square_avg(self) -> float:
        """S at the start."""
        return self.initial_accumulator

    @property
    def threaded(self) -> bool:
        """Whether updates of long vectors are to use several threads."""
        return self.parallel


def check_average(beta: float, eps: float) -> None:
    as_number("beta", beta, 0.0, 1.0, open_high=True)
    as_number("eps", eps, 0.0, math.inf, open_high=True)


def largest_gradient(dtype: Any) -> float:
    """Return the largest usable component of a gradient, whose square is far from overflow."""
    return math.sqrt(float(np.finfo(dtype).max)) / _LARGEST_RATIO
