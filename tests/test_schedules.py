"""Schedules: the values of PyTorch's where it has the same one, and what cannot be a schedule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

from rmsprop_nb import load, minimize, minimize_minibatch, schedules

# What torch.optim.lr_scheduler of PyTorch 2.13.0 gives, step by step.
ONE_CYCLE = {
    (0.1, 20): [
        0.004, 0.013167184270002533, 0.037167184270002526, 0.06683281572999747, 0.09083281572999748, 0.1,
        0.09874640062350874, 0.09504846320134738, 0.089091617757105, 0.0811745653949763, 0.07169430017913009,
        0.06112620219362893, 0.0500002, 0.03887419780637107, 0.028306099820869922, 0.0188258346050237,
        0.010908782242895003, 0.004951936798652629, 0.0012539993764912555, 4e-07,
    ],
    (2.0, 37, 0.25, 10.0, 100.0): [
        0.2, 0.26446886028553473, 0.44863936570543683, 0.7261264882983021, 1.0571762757586316, 1.3943611669856795,
        1.6893746605507565, 1.899951903789431, 1.995924730315776, 1.9964010910539838, 1.9804582093133654,
    ],
}  # fmt: skip

PLATEAU_LOSSES = [5, 4, 4, 4, 4, 3.9999, 4, 4, *[3] * 9, math.nan, 3, 3, *[2] * 6]
PLATEAU_RATES = [*[0.1] * 4, *[0.05] * 7, *[0.025] * 5, *[0.02] * 10]


@pytest.mark.parametrize(("args", "rates"), ONE_CYCLE.items(), ids=str)
def test_one_cycle_is_torchs(args, rates):
    schedule = schedules.one_cycle(*args)
    np.testing.assert_allclose([schedule(k) for k in range(len(rates))], rates, rtol=1e-12)
    assert schedule(10**9) == pytest.approx(schedule(args[1] - 1))


def test_plateau_is_torchs():
    schedule = schedules.ReduceOnPlateau(0.1, factor=0.5, patience=2, threshold=1e-3, cooldown=2, least=0.02)
    assert [schedule.update(loss) for loss in PLATEAU_LOSSES] == PLATEAU_RATES
    assert schedule(3) == 0.02


def test_plateau_lowers_the_rate_between_epochs():
    @njit
    def stuck(x, grad, rows):
        grad[:] = 1.0
        return 5.0

    schedule = schedules.ReduceOnPlateau(0.1, factor=0.5, patience=0)
    result = minimize_minibatch(
        stuck, [0.0], np.zeros(8), jac="inplace", batch_size=4, epochs=4, learning_rate=schedule, history=True
    )
    np.testing.assert_allclose(result.history["learning_rate"], np.repeat([0.1, 0.1, 0.05, 0.025], 2))


def test_plateau_in_minimize():
    schedule = schedules.ReduceOnPlateau(0.1, factor=0.5, patience=1)
    rates = []

    def tell(intermediate_result):
        rates.append(schedule.rate)
        schedule.update(intermediate_result.fun)

    options = {"learning_rate": schedule, "maxiter": 60, "history": True}
    result = minimize(lambda x: abs(x[0] - 0.3), [1.0], callback=tell, options=options)
    np.testing.assert_array_equal(result.history["learning_rate"][1:], rates)
    assert schedule.rate < 0.01


def test_plateau_goes_on_from_its_attributes():
    whole, first, second = (schedules.ReduceOnPlateau(0.1, 0.5, patience=2, cooldown=2) for _ in range(3))
    expected = [whole.update(loss) for loss in PLATEAU_LOSSES]
    rates = [first.update(loss) for loss in PLATEAU_LOSSES[:9]]
    for name in ("rate", "best", "waiting", "cooling"):
        setattr(second, name, getattr(first, name))
    assert rates + [second.update(loss) for loss in PLATEAU_LOSSES[9:]] == expected


def test_plateau_goes_on_with_the_state_of_a_run(tmp_path):
    def go(maxiter, **options):
        schedule = schedules.ReduceOnPlateau(0.1, factor=0.5, patience=1)

        def tell(intermediate_result):
            schedule.update(intermediate_result.fun)

        options = {"learning_rate": schedule, "maxiter": maxiter, **options}
        return minimize(lambda x: abs(x[0] - 0.3), [1.0], callback=tell, options=options), schedule

    (whole, end), (first, middle) = go(60), go(50, checkpoint=tmp_path / "run.npz")
    assert end.rate < middle.rate < 0.1
    for state in (first.state, load(tmp_path / "run.npz")):
        again, schedule = go(10, state=state)
        np.testing.assert_array_equal(again.x, whole.x)
        np.testing.assert_array_equal(schedule.state, end.state)


def test_plateau_takes_an_equal_negative_loss_for_none_that_is_better():
    schedule = schedules.ReduceOnPlateau(1.0, patience=2)
    assert [schedule.update(loss) for loss in (-1.0, -2.0, -2.0, -2.0001, -2.0)] == [1.0] * 4 + [0.1]


@pytest.mark.parametrize("total_steps", [7, 10, 1001])
@pytest.mark.parametrize("rising", [0.3, 0.5, 0.9])
def test_one_cycle_rises_once(total_steps, rising):
    schedule = schedules.one_cycle(0.1, total_steps, rising)
    changes = np.sign(np.diff([schedule(step) for step in range(total_steps)]))
    assert (np.diff(changes) <= 0).all()


def test_linear_decay():
    schedule = schedules.linear_decay(1.0, 4, final=0.5)
    assert [schedule(k) for k in range(6)] == [1.0, 0.875, 0.75, 0.625, 0.5, 0.5]


def test_warm_up_leads_to_the_schedule():
    after = schedules.exponential_decay(0.8, 10, 0.5)
    schedule = schedules.warm_up(after, 3, start=0.4)
    np.testing.assert_allclose([schedule(k) for k in range(3)], [0.5, 0.6, 0.7])
    assert [schedule(k) for k in range(3, 30)] == [after(k) for k in range(27)]


def test_piecewise():
    schedule = schedules.piecewise([2, 5], [3.0, 2.0, 1.0])
    assert [schedule(k) for k in range(7)] == [3.0, 3.0, 2.0, 2.0, 2.0, 1.0, 1.0]
    assert schedules.piecewise([], [0.5])(10) == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.linear_decay(0.1, 0), r"decay_steps must be a number in \(0, inf\)"),
        (lambda: schedules.linear_decay(0.1, 10, 0.2), r"final must be a number in \[0, 0.1\]"),
        (lambda: schedules.warm_up(schedules.constant(1.0), 0), r"steps must be a number in \(0, inf\)"),
        (lambda: schedules.warm_up(schedules.constant(1.0), 3, -1.0), "start must be"),
        (lambda: schedules.piecewise([1, 1], [1.0, 2.0, 3.0]), "boundaries must increase"),
        (lambda: schedules.piecewise([1], [1.0]), "learning_rates must have one more element"),
        (lambda: schedules.piecewise([1], [1.0, -1.0]), r"learning_rates must be a number in \(0, inf\)"),
        (lambda: schedules.one_cycle(0.0, 10), r"largest must be a number in \(0, inf\)"),
        (lambda: schedules.one_cycle(0.1, 1), "total_steps and rising"),
        (lambda: schedules.one_cycle(0.1, 100, 0.01), "total_steps and rising"),
        (lambda: schedules.one_cycle(0.1, 100, 1.1), "rising must be"),
        (lambda: schedules.one_cycle(0.1, 100, last_divisor=0.5), r"last_divisor must be a number in \[1, inf\)"),
        (lambda: schedules.ReduceOnPlateau(0.0), r"learning_rate must be a number in \(0, inf\)"),
        (lambda: schedules.ReduceOnPlateau(0.1, factor=1.0), r"factor must be a number in \(0, 1\)"),
        (lambda: schedules.ReduceOnPlateau(0.1, patience=-1), "patience must be"),
        (lambda: schedules.ReduceOnPlateau(0.1, least=0.2), "least must be at most learning_rate=0.1, got 0.2"),
        (lambda: schedules.ReduceOnPlateau(0.1, threshold=math.inf), "threshold must be"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_number_is_no_schedule():
    with pytest.raises(TypeError, match=r"schedule must be a callable step -> rate, got 0\.1"):
        schedules.warm_up(0.1, 5)
