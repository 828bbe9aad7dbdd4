#!/usr/bin/env python3
"""Write docs/benchmarks.md and its pictures from asv's results: ``python asv_bench/report.py``.

Run it with the Python that ran the benchmarks, after ``asv run --environment existing:python ...`` (see README.md): the
page names the versions that are installed there. The ratios are those of the newest commit with results from such an
environment. The history keeps its rows; commits that asv has built since then are added. Needs asv and matplotlib.
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
TEMPLATE = HERE / "benchmarks_page.md"
PAGE = HERE.parent / "docs" / "benchmarks.md"
PICTURES = PAGE.parent / "pictures"

VERSIONS = (
    *("numpy", "scipy", "numba", "torch", "jax", "optax"),
    *("ndoptimize", "lumafit", "optimistix", "quantecon", "optimagic"),
)

TABLES = {  # benchmark: heading of its table
    "ratios.UpdateOverFloor.track_in_cache": "Update time relative to the arithmetic floor (in cache)",
    "ratios.UpdateOverFloor.track_in_memory": "Update time relative to the memory-traffic floor (beyond the caches)",
    "ratios.VariantOverPlain.track_in_cache": "Variants of the rule relative to the plain rule (in cache)",
    "ratios.UpdateOverPeer.track_time": "One update relative to other libraries, called from Python",
    "ratios.StepOverPeer.track_time": "`RMSprop.step`, with all its checks, relative to one update in other libraries",
    "ratios.LoopOverHand.track_evaluation": "Compiled loop relative to a loop written by hand",
    "specialised.LoopOverSpecialised.track_evaluation": "Compiled loop relative to one compiled around its objective",
    "specialised.LbfgsOverTraffic.track_iteration": "`rmsprop-lbfgs` relative to its memory traffic, per iteration",
    "specialised.Chunks.track_long_over_short": "Long runs relative to short runs, per evaluation",
    "ratios.LoopOverPeer.track_iteration": "Textbook RMSprop relative to loops in other libraries, per iteration",
    "ratios.OverScipy.track_evaluation": "Evaluations relative to SciPy's L-BFGS-B, same compiled objective",
    "ratios.OverScipy.track_start": "Runs of a single evaluation relative to SciPy's L-BFGS-B",
    "startup.ImportOverFloor.track_time": "Imports in a new process relative to those of the libraries needed",
    "startup.FirstResultOverPeer.track_time": "First result in a new process relative to two steps of another library",
    "ratios.RunOverQuantecon.track_time": "Runs on Rosenbrock's function relative to QuantEcon's Nelder-Mead",
    "ratios.Differences.track_over_scipy": "Gradients by differences relative to SciPy's",
    "gradients.GradientOverValue.track_ratio": "f and its exact gradient relative to f alone",
    "gradients.GradientOverJax.track_ratio": "f and its exact gradient relative to JAX's, jitted",
    "startup.NewObjectiveOverNumba.track_ratio": "A new objective relative to what Numba takes to compile it",
    "fits.Fits.track_over_evaluations": "A batch of 20,000 decay fits relative to its evaluations alone",
    "fits.FitsOverPeers.track_ratio": "Decay fits in a batch relative to other libraries, per fit",
    "curve_fits.CurveFits.track_over_evaluations": "`fit` of 20,000 decay curves relative to its evaluations alone",
    "curve_fits.CurveFitsOverPeers.track_ratio": "`fit` of decay curves relative to other libraries, per curve",
}

HISTORY = {  # heading: benchmark, parameters
    "update / floor in cache, float32": ("ratios.UpdateOverFloor.track_in_cache", ("'float32'",)),
    "update / floor in memory, float64": ("ratios.UpdateOverFloor.track_in_memory", ("'float64'",)),
    "textbook loop / by hand, n=2": ("ratios.LoopOverHand.track_evaluation", ("'textbook'", "2")),
    "auto / by hand, n=100": ("ratios.LoopOverHand.track_evaluation", ("'auto'", "100")),
    "start / SciPy's, n=10": ("ratios.OverScipy.track_start", ("'auto'", "10")),
    "unsolved, %": ("convergence.Solved.track_unsolved", ("'rmsprop'",)),
}


MOST_COLUMNS = 6


class Row(NamedTuple):
    """One number of a benchmark."""

    params: tuple[str, ...]
    value: float


# -- asv's results ----------------------------------------------------------------------------------------------------


def all_results(existing: bool) -> list[Results]:
    """Return the results by commit, oldest first, of existing environments or of those that asv has built."""
    found = [r for r in iter_results(RESULTS) if r.env_name.startswith("existing") == existing]
    return sorted(found, key=lambda r: committed(r.commit_hash))


def committed(commit: str) -> dt.datetime:
    text = subprocess.run(
        ["git", "show", "-s", "--format=%cI", commit], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout
    return dt.datetime.fromisoformat(text.strip())


def rows(results: Results, benchmark: str) -> Iterator[Row]:
    """Yield every number of a benchmark that was measured."""
    if benchmark not in results.get_all_result_keys():
        return
    params = results.get_result_params(benchmark)
    values = results.get_result_value(benchmark, params)
    for combination, value in zip(itertools.product(*params), values, strict=True):
        if value is not None and math.isfinite(value):
            yield Row(combination, value)


# -- tables -----------------------------------------------------------------------------------------------------------


def table(measured: Iterable[Row]) -> list[str]:
    """Return a table in Markdown, whose columns are the values of the last parameter, or its rows if they are many."""
    cells = {row.params or ("",): row.value for row in measured}
    if all(len(params) == 1 for params in cells) and len(cells) > MOST_COLUMNS:
        cells = {(*params, ""): value for params, value in cells.items()}
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
    """Return a parameter as it is shown: without quotes, large numbers as powers."""
    text = param.strip("'")
    return f"10^{len(text) - 1}" if text.startswith("1000") and not text.strip("10") else text


def figure(value: float | None) -> str:
    """Return a number with two significant digits."""
    if value is None:
        return ""
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def history(commits: Iterable[Results], page: str) -> list[str]:
    """Return the table of commits: the rows that stand in the page, and what was measured since, ordered by date."""
    found = {row["commit"]: row for row in history_rows(page)}
    for results in commits:
        name, when = f"`{results.commit_hash[:8]}`", committed(results.commit_hash).date().isoformat()
        found[name] = {"commit": name, "date": when, **dict(zip(HISTORY, measured_history(results), strict=True))}
    columns = ["commit", "date", *HISTORY]
    ordered = sorted(found.values(), key=lambda row: row["date"])
    return [
        line(columns),
        line(["---"] * len(columns)),
        *(line([row.get(column, "") for column in columns]) for row in ordered),
    ]


def history_rows(page: str) -> Iterator[dict[str, str]]:
    """Read the table of commits in the page, the only one whose first column is headed "commit"."""
    head: list[str] = []
    for text in page.splitlines():
        cells = [cell.strip() for cell in text.strip("|").split("|")]
        if cells[0] == "commit":
            head = cells
        elif head and cells[0].startswith("`"):
            yield dict(zip(head, cells, strict=True))


def measured_history(results: Results) -> Iterator[str]:
    for benchmark, params in HISTORY.values():
        yield figure(next((row.value for row in rows(results, benchmark) if row.params == params), None))


# -- pictures ---------------------------------------------------------------------------------------------------------


def draw_throughput(results: Results, path: Path) -> None:
    """Draw each library's throughput in one update relative to the floor, by size."""
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
    picture.axes[0].set_ylabel("throughput relative to the floor")
    picture.axes[1].legend(fontsize="small")
    save(picture, path)


def draw_iteration(results: Results, path: Path) -> None:
    """Draw the time per iteration of loops in other libraries relative to ours."""
    from matplotlib.figure import Figure

    ratios: dict[str, list[tuple[int, float]]] = {}
    for (peer, n), ratio in rows(results, "ratios.LoopOverPeer.track_iteration"):
        ratios.setdefault(plain(peer), []).append((int(n), 1.0 / ratio))
    picture = Figure(figsize=(6, 3.6), layout="constrained")
    axes = picture.subplots()
    for name, points in ratios.items():
        axes.loglog(*zip(*sorted(points), strict=True), marker="o", ms=4, label=name)
    axes.axhline(1.0, color="black", lw=0.8, ls="--", label="rmsprop_nb")
    axes.set(title="textbook RMSprop, per iteration", xlabel="n", ylabel="time relative to ours")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save(picture, path)


def save(picture: Any, path: Path) -> None:
    """Write an SVG whose bytes depend only on the numbers."""
    from matplotlib import rc_context

    path.parent.mkdir(exist_ok=True)
    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        picture.savefig(path, metadata={"Date": None})


# -- the page ---------------------------------------------------------------------------------------------------------


def versions() -> str:
    """List the versions installed for this interpreter."""
    found = [f"Python {platform.python_version()}"]
    for name in VERSIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    measured = all_results(existing=True)
    if not measured:
        msg = f"report.py: {RESULTS} has no results of an existing environment; see README.md for how to get them"
        raise SystemExit(msg)
    newest = measured[-1]
    draw_throughput(newest, PICTURES / "update-throughput.svg")
    draw_iteration(newest, PICTURES / "iteration-time.svg")
    page = TEMPLATE.read_text(encoding="utf-8").format(
        commit=newest.commit_hash[:8],
        cpu=newest.params.get("cpu") or newest.params["arch"],
        versions=versions(),
        tables="\n".join(tables(newest)).strip(),
        history="\n".join(history(all_results(existing=False), PAGE.read_text(encoding="utf-8"))),
    )
    PAGE.write_text(page, encoding="utf-8")


def tables(results: Results) -> Iterator[str]:
    """Yield the lines of all tables that were measured, with their headings."""
    for benchmark, title in TABLES.items():
        measured = list(rows(results, benchmark))
        if measured:
            yield from [f"## {title}", "", f"`{benchmark}`", "", *table(measured), ""]


if __name__ == "__main__":
    main()
