#!/usr/bin/env python3
"""Write docs/benchmarks.md and its pictures from asv's results:  ``python asv_bench/report.py``

Run it with the Python that ran the benchmarks, after ``asv run --environment existing:python ...`` (see README.md): the
page names the versions that are installed there. The ratios are those of the newest commit with results from such an
environment; the history is that of all commits that asv has built itself. Needs asv and matplotlib.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import itertools
import math
import platform
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from asv.results import Results, iter_results

HERE = Path(__file__).resolve().parent
RESULTS = HERE / ".asv" / "results"
DOCS = HERE.parent / "docs"
PICTURES = DOCS / "pictures"

VERSIONS = ("numpy", "scipy", "numba", "torch", "jax", "optax", "ndoptimize", "quantecon", "optimagic")

TABLES = {  # benchmark: what its numbers are
    "ratios.UpdateOverFloor.track_in_cache": "The update over a square root and a division an element, in cache",
    "ratios.UpdateOverFloor.track_in_memory": "The update over the same five words an element moved, in memory",
    "ratios.VariantOverPlain.track_in_cache": "Variants of the rule over the plain one, in cache",
    "ratios.UpdateOverPeer.track_time": "One update over that of another library, called from Python",
    "ratios.StepOverPeer.track_time": "`RMSprop.step`, with all its checks, over one update of another library",
    "ratios.LoopOverHand.track_evaluation": "An evaluation in the compiled loop over one in a loop written by hand",
    "specialised.LoopOverSpecialised.track_evaluation": "The loop over the same one compiled around its objective",
    "specialised.LbfgsOverTraffic.track_iteration": "An iteration of rmsprop-lbfgs over the words it moves, in memory",
    "specialised.Chunks.track_long_over_short": "An evaluation in a run of many chunks over one in a short run",
    "ratios.LoopOverPeer.track_iteration": "An iteration of the textbook rule over one in another library's loop",
    "ratios.OverScipy.track_evaluation": "An evaluation over one of SciPy's L-BFGS-B, same compiled objective",
    "ratios.OverScipy.track_start": "A run of a single evaluation over one of SciPy's L-BFGS-B",
    "startup.FirstResultOverPeer.track_time": "A first result in a new process over two steps of another library",
    "ratios.RunOverQuantecon.track_time": "A whole run on Rosenbrock's function over QuantEcon's compiled Nelder-Mead",
    "ratios.Differences.track_over_scipy": "A gradient by differences over SciPy's",
    "fits.Fits.track_over_evaluations": "A batch of 20,000 decay fits over its evaluations alone",
    "fits.FitsOverPeers.track_ratio": "A decay fit in a batch over one of another library",
}

HISTORY = {  # heading: benchmark, parameters
    "update / floor in cache, float32": ("ratios.UpdateOverFloor.track_in_cache", ("'float32'",)),
    "update / floor in memory, float64": ("ratios.UpdateOverFloor.track_in_memory", ("'float64'",)),
    "textbook loop / by hand, n=2": ("ratios.LoopOverHand.track_evaluation", ("'textbook'", "2")),
    "auto / by hand, n=100": ("ratios.LoopOverHand.track_evaluation", ("'auto'", "100")),
    "start / SciPy's, n=10": ("ratios.OverScipy.track_start", ("'auto'", "10")),
    "unsolved, %": ("convergence.Solved.track_unsolved", ("'rmsprop'",)),
}


class Row(NamedTuple):
    """One number of a benchmark."""

    params: tuple[str, ...]
    value: float


# -- what asv has -----------------------------------------------------------------------------------------------------


def all_results(existing: bool) -> list[Results]:
    """Results by commit, oldest first, of environments that were there or of those that asv built."""
    found = [r for r in iter_results(RESULTS) if r.env_name.startswith("existing") == existing]
    if not found:
        msg = f"report.py: {RESULTS} has no such results; README.md says how to get them"
        raise SystemExit(msg)
    return sorted(found, key=lambda r: committed(r.commit_hash))


def committed(commit: str) -> dt.datetime:
    text = subprocess.run(
        ["git", "show", "-s", "--format=%cI", commit], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout
    return dt.datetime.fromisoformat(text.strip())


def rows(results: Results, benchmark: str) -> Iterator[Row]:
    """Every number of a benchmark that was measured."""
    if benchmark not in results.get_all_result_keys():
        return
    params = results.get_result_params(benchmark)
    values = results.get_result_value(benchmark, params)
    for combination, value in zip(itertools.product(*params), values, strict=True):
        if value is not None and math.isfinite(value):
            yield Row(combination, value)


# -- tables -----------------------------------------------------------------------------------------------------------


def table(measured: Iterable[Row]) -> list[str]:
    """A table in Markdown, whose columns are the values of the last parameter."""
    cells = {row.params: row.value for row in measured}
    columns = list(dict.fromkeys(params[-1] for params in cells))
    heads = list(dict.fromkeys(params[:-1] for params in cells))
    lines = [line(["", *map(plain, columns)]), line(["---"] * (len(columns) + 1))]
    for head in heads:
        numbers = [cells.get((*head, column)) for column in columns]
        lines.append(line([", ".join(map(plain, head)), *map(figure, numbers)]))
    return lines


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def plain(param: str) -> str:
    """A parameter as it is read: without quotes, large numbers as powers."""
    text = param.strip("'")
    return f"10^{len(text) - 1}" if text.startswith("1000") and not text.strip("10") else text


def figure(value: float | None) -> str:
    """Two significant digits."""
    if value is None:
        return ""
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def history(commits: list[Results]) -> list[str]:
    lines = [line(["commit", "date", *HISTORY]), line(["---"] * (len(HISTORY) + 2))]
    for results in commits:
        measured = [
            next((row.value for row in rows(results, benchmark) if row.params == params), None)
            for benchmark, params in HISTORY.values()
        ]
        when = committed(results.commit_hash).date().isoformat()
        lines.append(line([f"`{results.commit_hash[:8]}`", when, *map(figure, measured)]))
    return lines


# -- pictures ---------------------------------------------------------------------------------------------------------


def draw_throughput(results: Results, path: Path) -> None:
    """Share of the floor's throughput that each library reaches in one update, by size."""
    from matplotlib.figure import Figure

    ours = {row.params: 1.0 / row.value for row in rows(results, "ratios.UpdateBySize.track_over_floor")}
    theirs: dict[str, dict[tuple[str, ...], float]] = {}
    for (peer, *rest), ratio in rows(results, "ratios.UpdateOverPeer.track_time"):
        if tuple(rest) in ours:
            theirs.setdefault(plain(peer), {})[tuple(rest)] = ours[tuple(rest)] * ratio
    picture = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, dtype in zip(picture.subplots(1, 2, sharey=True), ("float32", "float64"), strict=True):
        for name, share in {"rmsprop_nb": ours, **theirs}.items():
            points = sorted((int(n), value) for (t, n), value in share.items() if plain(t) == dtype)
            axes.loglog(*zip(*points, strict=True), marker="o", ms=3, lw=2.5 if share is ours else 1.2, label=name)
        axes.axhline(1.0, color="black", lw=0.8, ls="--")
        axes.set(title=f"one update, {dtype}", xlabel="n")
        axes.grid(alpha=0.3)
    picture.axes[0].set_ylabel("throughput / that of the floor")
    picture.axes[1].legend(fontsize="small")
    save(picture, path)


def draw_iteration(results: Results, path: Path) -> None:
    """Time of an iteration of a whole loop in other libraries, ours being 1."""
    from matplotlib.figure import Figure

    ratios: dict[str, list[tuple[int, float]]] = {}
    for (peer, n), ratio in rows(results, "ratios.LoopOverPeer.track_iteration"):
        ratios.setdefault(plain(peer), []).append((int(n), 1.0 / ratio))
    picture = Figure(figsize=(6, 3.6), layout="constrained")
    axes = picture.subplots()
    for name, points in ratios.items():
        axes.loglog(*zip(*sorted(points), strict=True), marker="o", ms=4, label=name)
    axes.axhline(1.0, color="black", lw=0.8, ls="--", label="rmsprop_nb")
    axes.set(title="an iteration of textbook RMSprop", xlabel="n", ylabel="time / ours")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save(picture, path)


def save(picture: Any, path: Path) -> None:
    """Write an SVG whose bytes depend on nothing but the numbers."""
    from matplotlib import rc_context

    path.parent.mkdir(exist_ok=True)
    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        picture.savefig(path, metadata={"Date": None})


# -- the page ---------------------------------------------------------------------------------------------------------


def versions() -> str:
    """What is installed beside this interpreter."""
    found = [f"Python {platform.python_version()}"]
    for name in VERSIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


PAGE = """# Benchmarks

Every number is a ratio, our time divided by the other's, measured in turns in one process and on one core (two where
it says so): **lower is better**. 0.1 is ten times as fast as the peer, 1.05 times a floor is 95 % of what can be
reached. A floor is what no implementation can beat; the docstring of each benchmark in `asv_bench/benchmarks` says
which. `asv_bench/README.md` says how to measure this yourself, and how to follow it over time. No time in seconds
stands here, because none would be true on your machine.

Measured at commit `{commit}` on {cpu} with {versions}; one run on a machine that others use too. This page and its
pictures are written by `asv_bench/report.py`.

![Share of the floor's throughput that one update reaches, by size](pictures/update-throughput.svg)

![Time of an iteration of the whole loop in other libraries, ours being 1](pictures/iteration-time.svg)

{tables}

## Where the rest goes

What stands between these numbers and their floors, as read from the machine code (`valgrind --tool=callgrind`,
whose counts do not depend on what else the machine does):

* **Small objectives in the compiled loop.** `jac="inplace"` functions are part of the adapter that the loop calls,
  so that an evaluation is one call, with two addresses and a length in registers. What is left beside a loop that is
  compiled around its objective is that call; beside the loop by hand, the counters and the stopping tests, the
  best point, and loads and stores of the record, which stands in memory so that a run can be interrupted and saved.
  A copy of it on the stack, which the compiler takes apart into registers, was tried: there are more numbers than
  registers, and the loop executed more instructions, not fewer.
* **A batch of decay fits.** An evaluation takes about 1600 instructions, 20 exponentials among them; ask and tell
  take about 550 for `rmsprop`, of which 9 are divisions and roots, most of which wait for one another. 1.25 times
  the evaluations would leave them 400. Their time is spread over all of the search, with no part that stands out.
* **`rmsprop-lbfgs` in memory.** With ten pairs an iteration of one evaluation moves 110 vectors where it moved 136:
  each inner product is taken in the pass that changes its vector. Fewer would take other formulas, because every
  coefficient of the two-loop recursion waits for the pass before it. The words are counted as if a vector that is
  written and not read moved one; a processor reads it first, so that the last tenths are its reads.
* **A first result in a new process.** Numba by itself, with one function to compile, takes as long as two steps of
  optax, and the import of `scipy.optimize`, whose class of results every run returns, a sixth of that. What is this
  library's is the difference to the row "numba".

## Over the project's own commits

Built and measured by `asv run`, each commit in an environment of its own, with the benchmarks as they are now.

{history}
"""


def main() -> None:
    newest = all_results(existing=True)[-1]
    tables = []
    for benchmark, title in TABLES.items():
        measured = list(rows(newest, benchmark))
        if measured:
            tables += [f"## {title}", "", f"`{benchmark}`", "", *table(measured), ""]
    draw_throughput(newest, PICTURES / "update-throughput.svg")
    draw_iteration(newest, PICTURES / "iteration-time.svg")
    page = PAGE.format(
        commit=newest.commit_hash[:8],
        cpu=newest.params.get("cpu") or newest.params["arch"],
        versions=versions(),
        tables="\n".join(tables).strip(),
        history="\n".join(history(all_results(existing=False))),
    )
    (DOCS / "benchmarks.md").write_text(page)


if __name__ == "__main__":
    main()
