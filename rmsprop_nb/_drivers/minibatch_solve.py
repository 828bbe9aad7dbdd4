"""From checked options and data to the result of a run over mini-batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.callbacks import Report, asks_to_stop
from rmsprop_nb._core.progress import checkpoints_and_progress
from rmsprop_nb._core.result import Result
from rmsprop_nb._core.status import MESSAGES, Status
from rmsprop_nb._drivers.inner_runs import answers_interrupts, is_inner_run
from rmsprop_nb._drivers.loop import (
    TRACE_COLUMNS,
    Monitor,
    StopRun,
    as_history,
    kept_if_interrupted,
    run_chunks,
    taking_turns,
)
from rmsprop_nb._drivers.minibatch_loop import Target, make_advance, make_target
from rmsprop_nb._drivers.minibatch_options import MinibatchOptions, new_state, resumed_state
from rmsprop_nb._drivers.minibatch_shards import Shard, SharedTarget, make_shared_target
from rmsprop_nb._drivers.ranks import Ranks
from rmsprop_nb._drivers.row_order import Rows
from rmsprop_nb._drivers.shards import parts_in_all, parts_of
from rmsprop_nb._methods.run_state import RunState
from rmsprop_nb._objectives.problem import Problem

FEW_STEPS = 50
"""An automatic rate doubles at most in a step, and begins at 1e-4."""

ENDS_HIGHER = (
    "The mean of f over all rows is higher than in an earlier epoch: the automatic learning rate does not suit this "
    "objective. Give a learning_rate, or clip_norm."
)

AnyTarget = Target | SharedTarget
Data = tuple[Any, ...] | None


class Targets(NamedTuple):
    """The objective on the rows to learn from and on those to validate on, if there are any; the seed orders rows."""

    training: AnyTarget
    validation: AnyTarget | None
    seed: np.uint64


class BatchPlan(NamedTuple):
    """How rows are divided into batches; the seed orders them if they are shuffled."""

    batch_size_for: Callable[[int], int]  # of the number of rows to learn from
    shuffle: bool
    deterministic: bool
    seed: np.uint64


def local_targets(problem: Problem, rows: tuple[Data, Data], plan: BatchPlan) -> Targets:
    """Bind the objective to the rows of this process: `rows` are those to learn from and those to validate on."""
    assert rows[0] is not None
    batch_size = plan.batch_size_for(rows[0][0].shape[0])

    def target(data: Data) -> Any:
        if data is None:
            return None
        return make_target(problem, Rows(data, batch_size, plan.shuffle), problem.lower.dtype)

    training, validation = map(target, rows)
    return Targets(training, validation, plan.seed)


def shared_targets(
    ranks: Ranks, problem: Problem, rows: tuple[Data, Data], plan: BatchPlan, n: int, same: dict[str, str]
) -> Targets:
    """Bind the objective to the rows of all ranks, once they have agreed that `same` is the same on all of them.

    The seed of rank 0 holds for all.
    """
    same = {"the function": "minimize_minibatch"} | same | {"validation": "none" if rows[1] is None else "arrays"}
    same |= {name: str(getattr(plan, name)) for name in ("shuffle", "deterministic")}
    counts = [0 if data is None else data[0].shape[0] for data in rows]
    found = ranks.agree(n, parts_in_all(plan.deterministic), same, (plan.seed, *counts))
    batch_size = plan.batch_size_for(sum(own[1] for own in found))

    def target(k: int) -> Any:
        data = rows[k]
        if data is None:
            return None
        theirs = [own[1 + k] for own in found]
        here = parts_of(ranks.rank, theirs, plan.deterministic)
        local = Rows(data, batch_size, plan.shuffle)
        shard = Shard(local, sum(theirs[: ranks.rank]), sum(theirs), batch_size, here)
        return make_shared_target(problem, shard, ranks)

    return Targets(target(0), target(1), found[0][0])


def first_state(
    options: MinibatchOptions, problem: Problem, x: NDArray[Any], targets: Targets, state: RunState | None
) -> RunState:
    """Make the state of a new run from x, or copy that of the run to resume."""
    rows = targets.training.rows
    fresh = new_state(options, x, problem.lower, problem.upper, options.kind(rows.n_rows, rows.batches), targets.seed)
    return fresh if state is None else resumed_state(state, fresh, options)


def run(options: MinibatchOptions, state: RunState, targets: Targets, report: Report | None) -> NDArray[np.float64]:
    """Run until there is a status, which is left in the state; return the recorded rows."""
    accompanied = checkpoints_and_progress(state, options, options.schedule, total=options.epochs, unit="epoch")
    with kept_if_interrupted(state) as ended, accompanied as on_chunk:
        ended.append(_run_epochs(options, state, targets, report, on_chunk))
    return ended[0]


@answers_interrupts
def _run_epochs(
    options: MinibatchOptions,
    state: RunState,
    targets: Targets,
    report: Report | None,
    on_chunk: Callable[[], None] | None,
) -> NDArray[np.float64]:
    target, p = targets.training, state.progress
    observer = _EpochObserver(state, options, targets.validation, report)
    settings = options.settings(state.arrays.x, target.rows.batches)
    algorithm = options.algorithm(state.arrays.x)
    rows: list[NDArray[np.float64]] = []
    monitor = Monitor(
        observer.observe if observer.needed else None, options.schedule, options.seconds, options.stride, on_chunk
    )
    try:
        observer.catch_up()
        advance = make_advance(algorithm, state, target)
        run_chunks(taking_turns(advance, target.objective, settings), state, settings, monitor, rows)
    except StopRun as stop:
        p.status = int(stop.status)
    except KeyboardInterrupt:
        if is_inner_run():
            raise
        p.status = int(Status.INTERRUPTED)
    return np.concatenate(rows) if rows else np.empty((0, len(TRACE_COLUMNS)))


class _EpochObserver:
    """What happens after every epoch: f on the validation data, the best point so far, the user's callback."""

    def __init__(
        self, state: RunState, options: MinibatchOptions, validation: AnyTarget | None, report: Report | None
    ) -> None:
        self._state = state
        self._options = options
        self._validation = validation
        self._report = report
        self._update_schedule = getattr(options.schedule, "update", None)
        self._steps = options.steps(state.kind[3])

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return self._learns or self._report is not None

    @property
    def _learns(self) -> bool:
        """Whether the rest of the run depends on what is observed."""
        return self._validation is not None or self._update_schedule is not None

    def catch_up(self) -> None:
        """Take in the last epoch, if the run that is resumed was interrupted before it had done so."""
        p = self._state.progress
        if self._learns and p.observed < p.nit and self.observe(self._state.arrays.x.copy(), float(p.f)):
            p.status = int(Status.CALLBACK_STOP)

    def observe(self, x: NDArray[Any], f: float) -> bool:
        """Take in an epoch, and return whether the run is to end."""
        p, arrays = self._state.progress, self._state.arrays
        if self._options.averages:
            x = arrays.x_avg.copy()
        loss, more = f, dict[str, Any](nit=int(p.nit))
        if self._validation is not None:
            loss, _ = self._validation.mean(x, with_gradient=False)  # may take long, and be interrupted
            arrays.validation_fun[p.nit - 1] = more["validation_fun"] = loss
            self._keep_best(x, loss)
        if self._update_schedule is not None:
            self._update_schedule(loss)
        p.observed = p.nit
        return asks_to_stop(self._report, x, f, **more)

    def _keep_best(self, x: NDArray[Any], loss: float) -> None:
        if self._options.patience is None:
            return
        p = self._state.progress
        if loss < p.f_best:
            p.f_best, p.since_best = loss, 0
            self._state.arrays.x_best[:] = x
        else:
            p.since_best += 1
        if p.status == Status.RUNNING and self._has_seen_enough():
            p.status = int(Status.EARLY_STOP)

    def _has_seen_enough(self) -> bool:
        """Return whether the run is to stop early.

        A rate that would fall to 0 by the last epoch does so first, in as many epochs as the patience: with the rate of
        the middle of a run, f is that of a cloud around the minimum.
        """
        p, options = self._state.progress, self._options
        if p.cooling_steps:
            return bool(p.step >= p.cooling_from + p.cooling_steps)
        if p.since_best < options.patience or not options.falls:
            return bool(p.since_best >= options.patience)
        epochs = min(options.patience, len(self._state.arrays.epoch_fun) - p.nit)
        p.cooling_from, p.cooling_steps = p.step, epochs * self._steps
        return False


def make_result(
    options: MinibatchOptions, state: RunState, targets: Targets, trace: NDArray[np.float64], final_evaluation: bool
) -> Result:
    """Make the result of a run that has ended, with one more pass over the data if that is asked for."""
    p, arrays, ranks = state.progress, state.arrays, getattr(targets.training, "ranks", None)
    if ranks is not None:
        p.status = int(ranks.end(Status(int(p.status))))
    status = Status(int(p.status))
    message = _message(options, state, status)
    points = _points_found(options, state, status)
    x, f = points[0]
    result = Result(x=x, fun=f, nit=int(p.nit))
    if final_evaluation and status is not Status.INTERRUPTED:
        try:
            result["x"], result["fun"], result["jac"] = _first_finite(targets.training, points, status)
            if result.x is not x or not _is_finite(result.fun, result.jac):
                status, message = Status.NONFINITE, MESSAGES[Status.NONFINITE]
            elif status is Status.EPOCHS and options.auto and _has_risen(result.fun, arrays.epoch_fun[: p.nit]):
                status, message = Status.STALLED, ENDS_HIGHER
        except KeyboardInterrupt:
            if ranks is not None or is_inner_run():  # the other ranks must know
                raise
            status, message = Status.INTERRUPTED, MESSAGES[Status.INTERRUPTED]
    result["x"] = result.x.copy()
    if status.success and targets.validation is not None and p.nit:
        held_out = p.f_best if options.patience is not None else arrays.validation_fun[p.nit - 1]
        if not np.isfinite(held_out):
            status, message = Status.NONFINITE, "The objective is NaN or infinite on the validation data."
    result.update(nfev=int(p.nfev), status=int(status), success=status.success, message=message)
    result["epoch_fun"] = arrays.epoch_fun[: p.nit].copy()
    if targets.validation is not None:
        result["validation_fun"] = arrays.validation_fun[: p.nit].copy()
    if options.stride:
        result["history"] = as_history(trace)
    result["state"] = state
    return result


def _points_found(options: MinibatchOptions, state: RunState, status: Status) -> list[tuple[NDArray[Any], float]]:
    """Return the points that may be returned, the best one first, each with the mean of f that is known for it."""
    p, arrays = state.progress, state.arrays
    last = arrays.x_avg if options.averages else arrays.x, float(p.f)
    if options.patience is not None:
        best = arrays.x_best, float(p.f)
        return [best, last] if np.isfinite(p.f_best) or status is Status.NONFINITE else [last, best]
    best = arrays.x_best, float(p.f_best if np.isfinite(p.f_best) else p.f)
    return [best, last] if status is Status.NONFINITE else [last, best]


def _first_finite(
    target: AnyTarget, points: list[tuple[NDArray[Any], float]], status: Status
) -> tuple[NDArray[Any], float, NDArray[Any]]:
    """Evaluate the points on all rows, up to the first with finite values; return it, or else the last one."""
    for x, _ in points:
        f, gradient = _mean_everywhere(target, x, status)
        if _is_finite(f, gradient):
            break
    return x, f, gradient


def _message(options: MinibatchOptions, state: RunState, status: Status) -> str:
    """Return the message of a status; after very few steps with an automatic rate it says so."""
    steps = int(state.progress.step)
    if status is Status.EPOCHS and options.auto and steps < FEW_STEPS:
        return (
            f"{MESSAGES[status]} There were only {steps} steps, most of which went into finding the learning "
            "rate; give more epochs, or a smaller batch_size."
        )
    return MESSAGES[status]


def _has_risen(f: float, epochs: NDArray[np.float64]) -> bool:
    """Return whether f is higher than it was, by more than a tenth of what the epochs had gained."""
    return bool(f - epochs.min() > 0.1 * (epochs[0] - epochs.min()) > 0.0)


def _is_finite(f: float, gradient: NDArray[Any]) -> bool:
    return bool(np.isfinite(f) and np.isfinite(gradient).all())


def _mean_everywhere(target: AnyTarget, x: NDArray[Any], status: Status) -> tuple[float, NDArray[Any]]:
    """Return the means of f and its gradient over all rows; ranks take a round of their own for it."""
    if isinstance(target, Target):
        return target.mean(x, with_gradient=True)
    target.ranks.begin_again()
    mean = target.mean(x, with_gradient=True)
    target.ranks.end(status)
    return mean
