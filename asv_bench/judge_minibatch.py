"""Compare the automatic learning rate of mini-batches with tuned rates and with Adam, on tasks it was not tuned on.

    python judge_minibatch.py            # all tasks; some need scikit-learn
    python judge_minibatch.py --quick    # one seed, one batch size
    python judge_minibatch.py --heavy    # tasks whose gradients have heavy tails, ten seeds, the worst of them too
    python judge_minibatch.py --small    # small data: the default batches and epochs, and 10 epochs of batches of 128

Prints tables in Markdown. Their entries are the excess loss (f - f*)/(f(x0) - f*) on the training data, with f* from
long runs of L-BFGS on all of the data. "held-out" is the arithmetic mean over the tasks of the same on data kept apart,
with the lowest loss that any of the methods attains there in the place of f*.
"""

from __future__ import annotations

import argparse
import functools
import itertools

import numpy as np
import scipy.optimize
from minibatch_tasks import heavy_tailed_tasks, sklearn_tasks, small_tasks, synthetic_tasks

from rmsprop_nb import minimize, minimize_minibatch, schedules

EPOCHS = 10
RATES = np.logspace(-4, 0, 9)
SEEDS = (10, 11)
MANY_SEEDS = range(10, 20)
BATCH_SIZES = (32, 128)


def lowest(task):
    """Find f* with L-BFGS, from the start, on all training data."""
    if task.best is not None:
        return _full(task, task.best)[0]
    value = functools.partial(_full, task)
    options = {"gtol": 1e-10, "maxfev": 5000}
    ours = minimize(value, task.start, jac=True, method="rmsprop-lbfgs", options=options)
    options = {"ftol": 0.0, "gtol": 1e-10, "maxiter": 5000, "maxfun": 5000, "maxcor": 30}
    theirs = scipy.optimize.minimize(value, task.start, jac=True, method="L-BFGS-B", options=options)
    return min(ours.fun, theirs.fun)


def _full(task, w):
    return task.fun(w, *task.train)


# -- methods: (task, batch_size, seed) -> w ---------------------------------------------------------------------------


def steps_of(task, batch_size):
    return EPOCHS * -(-len(task.train[0]) // batch_size)


def ours(task, batch_size, seed, **kwargs):
    return minimize_minibatch(
        task.fun, task.start, task.train, jac=True, batch_size=batch_size, epochs=EPOCHS, rng=seed,
        final_evaluation=False, **kwargs,
    ).x  # fmt: skip


def constant(rate, beta, averaging=False):
    return functools.partial(ours, learning_rate=rate, averaging=averaging, options={"beta": beta})


def cosine(rate):
    def run(task, batch_size, seed):
        schedule = schedules.cosine_decay(rate, steps_of(task, batch_size))
        return ours(task, batch_size, seed, learning_rate=schedule, options={"beta": 0.99, "bias_correction": True})

    return run


def adam_cosine(rate, beta_1=0.9, beta_2=0.999, eps=1e-8):
    """Adam (D. Kingma, J. Ba, ICLR 2015) with cosine decay."""

    def run(task, batch_size, seed):
        rng, schedule = np.random.default_rng(seed), schedules.cosine_decay(rate, steps_of(task, batch_size))
        w, m, v, k = task.start.copy(), 0.0, 0.0, 0
        rows = len(task.train[0])
        for _ in range(EPOCHS):
            order = rng.permutation(rows)
            for begin in range(0, rows, batch_size):
                chosen = order[begin : begin + batch_size]
                g = task.fun(w, *(a[chosen] for a in task.train))[1]
                m, v = beta_1 * m + (1.0 - beta_1) * g, beta_2 * v + (1.0 - beta_2) * g * g
                k += 1
                corrected = m / (1.0 - beta_1**k)
                w = w - schedule(k - 1) * corrected / (np.sqrt(v / (1.0 - beta_2**k)) + eps)
        return w

    return run


METHODS = {
    "auto (default)": [functools.partial(ours, learning_rate="auto")],
    "auto-constant, averaged": [functools.partial(ours, learning_rate="auto-constant")],
    "PyTorch's defaults": [constant(0.01, 0.99)],
    "Keras's defaults": [constant(0.001, 0.9)],
    "constant": [constant(rate, 0.99) for rate in RATES],
    "cosine decay": [cosine(rate) for rate in RATES],
    "Adam, cosine decay": [adam_cosine(rate) for rate in RATES],
}


def measure(task, batch_sizes, seeds):
    """Return the geometric mean of the excess and the mean of the held-out loss, for every method and rate."""
    best, first = lowest(task), _full(task, task.start)[0]
    first_held_out = task.fun(task.start, *task.held_out)[0]
    found = {}
    for name, runs in METHODS.items():
        for k, run in enumerate(runs):
            with np.errstate(all="ignore"):
                ends = [run(task, batch_size, seed) for batch_size in batch_sizes for seed in seeds]
                excess = [(_full(task, w)[0] - best) / (first - best) for w in ends]
                held_out = np.mean([task.fun(w, *task.held_out)[0] for w in ends])
            excess = np.nan_to_num(np.clip(excess, 1e-7, None), nan=np.inf)
            found[name, k] = float(np.exp(np.mean(np.log(np.minimum(excess, 1e3))))), float(held_out)
    lowest_held_out = min(h for _, h in found.values() if np.isfinite(h))
    spread = first_held_out - lowest_held_out
    return {key: (excess, min((h - lowest_held_out) / spread, 1e3)) for key, (excess, h) in found.items()}


def columns(results):
    """Choose from the measured runs as users would: one rate for all tasks, or the best rate for each."""
    rows = {name: (lambda _, name=name: (name, 0)) for name, runs in METHODS.items() if len(runs) == 1}
    for name in (name for name, runs in METHODS.items() if len(runs) > 1):
        total = [np.mean([np.log(found[name, k][0]) for found in results.values()]) for k in range(len(RATES))]
        single = int(np.argmin(total))
        rows[f"{name}, best rate for all ({RATES[single]:.2g})"] = lambda _, name=name, k=single: (name, k)
        rows[f"{name}, best rate for each"] = functools.partial(best_of, name)
    return rows


def best_of(name, found):
    """Choose the rate that did best on a task."""
    return name, min(range(len(RATES)), key=lambda k: found[name, k][0])


def print_table(results):
    rows = columns(results)
    print("| | " + " | ".join(results) + " | geometric mean | worst | held-out |")
    print("|---|" + "---|" * (len(results) + 3))
    for label, pick in rows.items():
        chosen = {task: found[pick(found)] for task, found in results.items()}
        excess = [entry[0] for entry in chosen.values()]
        ends = [np.exp(np.mean(np.log(excess))), max(excess), np.mean([entry[1] for entry in chosen.values()])]
        print(f"| {label} | " + " | ".join(f"{value:.1e}" for value in [*excess, *ends]) + " |")


def print_spreads(tasks):
    """Print the excess of the automatic rate and of Adam over ten seeds: the geometric mean, and the worst run."""
    print("| | auto | worst | says success | Adam, best rate for all | worst |\n|---|---|---|---|---|---|")
    spreads = {name: (lowest(task), _full(task, task.start)[0]) for name, task in tasks.items()}
    adams = {}
    for k, rate in enumerate(RATES):
        for name, task in tasks.items():
            adams[name, k] = spread(task, adam_cosine(rate), *spreads[name])[0]
    best = min(range(len(RATES)), key=lambda k: np.mean([np.log(adams[name, k][0]) for name in tasks]))
    for name, task in tasks.items():
        (mean, worst), successes = spread(task, None, *spreads[name])
        theirs = " | ".join(f"{value:.1e}" for value in adams[name, best])
        print(f"| {name} | {mean:.1e} | {worst:.1e} | {successes} of {2 * len(MANY_SEEDS)} | {theirs} |")
    print(f"\nAdam's rate is {RATES[best]:.2g}.")


def spread(task, run, best, first):
    """Run with each seed and batch size; return the geometric mean and the worst of the excess, and the successes."""
    excess, successes = [], 0
    for batch_size, seed in itertools.product(BATCH_SIZES, MANY_SEEDS):
        with np.errstate(all="ignore"):
            if run is None:
                result = minimize_minibatch(
                    task.fun, task.start, task.train, jac=True, batch_size=batch_size, epochs=EPOCHS, rng=seed
                )
                w, successes = result.x, successes + result.success
            else:
                w = run(task, batch_size, seed)
            excess.append((_full(task, w)[0] - best) / (first - best))
    excess = np.minimum(np.nan_to_num(np.clip(excess, 1e-7, None), nan=np.inf), 1e3)
    return (float(np.exp(np.mean(np.log(excess)))), float(excess.max())), successes


def print_defaults(tasks):
    """Print what the default batches and epochs give, beside those for large data: geometric means over ten seeds."""
    print("| | rows | batches of 128, 10 epochs | default | its steps |\n|---|---|---|---|---|")
    for name, task in tasks.items():
        best, first = lowest(task), _full(task, task.start)[0]
        means = []
        for given in ({"batch_size": 128, "epochs": 10}, {}):
            ends = [minimize_minibatch(task.fun, task.start, task.train, jac=True, rng=k, **given) for k in MANY_SEEDS]
            excess = [max(result.fun - best, 0.0) / (first - best) for result in ends]
            means.append(float(np.exp(np.mean(np.log(np.maximum(excess, 1e-9))))))
        steps = int(ends[-1].state.progress.step)
        print(f"| {name} | {len(task.train[0])} | {means[0]:.1e} | {means[1]:.1e} | {steps} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed and one batch size")
    parser.add_argument("--heavy", action="store_true", help="heavy-tailed tasks, and the spread over ten seeds")
    parser.add_argument("--small", action="store_true", help="what the default batches and epochs give on small data")
    arguments = parser.parse_args()
    if arguments.small:
        print_defaults(dict([*small_tasks(), *sklearn_tasks()]))
        return
    if arguments.heavy:
        print_spreads(dict(heavy_tailed_tasks()))
        return
    tasks = dict([*synthetic_tasks(), *sklearn_tasks()])
    batch_sizes, seeds = (BATCH_SIZES[:1], SEEDS[:1]) if arguments.quick else (BATCH_SIZES, SEEDS)
    for tuned_on, title in (
        (False, "Tasks that the automatic rate was not tuned on"),
        (True, "Tasks that it was tuned on"),
    ):
        chosen = {name: task for name, task in tasks.items() if task.tuned_on == tuned_on}
        if chosen:
            print(f"\n{title} (batches of {' and '.join(map(str, batch_sizes))}, {EPOCHS} epochs):\n")
            print_table({name: measure(task, batch_sizes, seeds) for name, task in chosen.items()})


if __name__ == "__main__":
    main()
