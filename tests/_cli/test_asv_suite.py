"""The suite that ``python -m rmsprop_nb bench --asv`` writes: it runs, asv accepts it, and nothing is overwritten."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize

from rmsprop_nb import __main__ as command
from rmsprop_nb import __version__, minimize
from rmsprop_nb._cli import asv_suite, asv_template

PACKAGE = Path(asv_suite.__file__).parents[2]

MODULE = """
import numpy as np

start = np.array([3.0, 2.0])
single = start.astype(np.float32)
data = (np.array([1.0, -1.0]),)


def misfit(x, grad, target):
    grad[:] = 2.0 * (x - target)
    return np.sum((x - target) ** 2)


def with_gradient(x, target):
    return np.sum((x - target) ** 2), 2.0 * (x - target)


def alone(x):
    return np.sum((x - 1.0) ** 2)


def slope(x):
    return 2.0 * (x - 1.0)
"""

IN_PLACE = ["{}:misfit", "--x0", "{}:start", "--args", "{}:data", "--jac", "inplace"]


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a repository with a module in its folder src, the current one, and return the module's name."""
    name = f"problem_{tmp_path.name}"
    source = tmp_path / "src"
    source.mkdir()
    (source / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(source)
    monkeypatch.setattr(sys, "path", [*sys.path])
    git("init", str(tmp_path))
    git("add", ".")
    git("commit", "-m", "A module")
    return name


def write(module: str, arguments: list[str], folder: str = "suite") -> int:
    return command.main(["bench", *(text.format(module) for text in arguments), "--asv", folder])


def load(path: Path) -> Any:
    """Import a benchmark as asv does: from its file, knowing nothing of where the objective is."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    return benchmark


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "jac"),
    [
        (IN_PLACE, "inplace"),
        (["{}:with_gradient", "--x0", "3,2", "--args", "{}:data", "--jac", "True"], True),
        (["{}:alone", "--x0", "{}:start", "--jac", "{}:slope"], "{}:slope"),
        (["{}:alone", "--x0", "3,2", "--jac", "3-point"], "3-point"),
        (["{}:alone", "--x0", "3,2"], None),
    ],
    ids=["inplace", "pair", "function", "differences", "nothing"],
)
def test_every_benchmark_runs(module: str, arguments: list[str], jac: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write(module, arguments) == 0
    benchmark = load(next(Path("suite/benchmarks").glob("minimize_*.py")))
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    monkeypatch.setattr(benchmark.timeit.Timer, "autorange", lambda timer: (1, timer.timeit(1)))
    given = jac.format(module) if isinstance(jac, str) else jac
    assert given == benchmark.JAC
    fun, args = benchmark.value(benchmark.FUN), benchmark.value(benchmark.ARGS)
    for method in benchmark.Minimization.params:
        suite = benchmark.Minimization()
        suite.setup(method)
        suite.time_run(method)
        suite.peakmem_run(method)
        expected = minimize(fun, [3.0, 2.0], args, method, benchmark.value(benchmark.JAC))
        assert suite.track_evaluations(method) == expected.nfev
        assert suite.track_time_over_scipy(method) > 0.0


def test_scipy_gets_the_gradient_that_was_given() -> None:
    fun, jac = asv_template.as_scipy_takes_it(lambda x, grad, c: grad.fill(c) or c * x.sum(), "inplace")
    value, grad = fun(np.ones(2), 3.0)
    assert (value, grad.tolist(), jac) == (6.0, [3.0, 3.0], True)
    fun, jac = asv_template.as_scipy_takes_it(scipy.optimize.rosen, "autodiff")
    assert (fun, jac) == (scipy.optimize.rosen, None)
    assert asv_template.as_scipy_takes_it(fun, "cs") == (fun, "cs")


def test_ratio_is_ours_over_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        """A timer that reads 2 for us and 8 for the other, with different numbers of calls."""

        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def autorange(self) -> tuple[int, float]:
            return round(16.0 / self.seconds), 16.0

        def timeit(self, number: int) -> float:
            return number * self.seconds

    monkeypatch.setattr(asv_template.timeit, "Timer", Clock)
    assert asv_template.ratio_of_times(2.0, 8.0) == 0.25


def test_commit_without_the_objective_is_skipped(module: str) -> None:
    sys.path.append(str(Path.cwd()))
    for missing in (f"{module}:nothing", "no_such_module:fun", "no_such_module.inner:fun"):
        with pytest.raises(NotImplementedError, match=f"this commit has no {missing}"):
            asv_template.value(missing)
    Path("needs.py").write_text("import no_such_module")
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError):  # an environment that lacks something must not pass for an old commit
        asv_template.value("needs:fun")


def test_loops_for_float32_are_prepared(module: str) -> None:
    assert write(module, ["{}:misfit", "--x0", "{}:single", *IN_PLACE[3:]]) == 0
    assert load(Path("suite/benchmarks/minimize_misfit.py")).PREPARE == ["--float32"]


def test_plain_module_is_imported_from_the_checkout(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(module, IN_PLACE) == 0
    shown = capsys.readouterr().out
    for file in ("asv.conf.json", ".gitignore", "benchmarks/__init__.py", "benchmarks/minimize_misfit.py"):
        assert f"  {Path('suite', file)}\n" in shown
        assert Path("suite", file).exists()
    settings = json.loads(Path("suite/asv.conf.json").read_text())
    assert settings["repo"] == "../.."
    assert settings["matrix"] == {"env_nobuild": {"OMP_NUM_THREADS": ["1"]}}
    assert settings["build_command"] == settings["uninstall_command"] == []
    assert settings["install_command"] == [f"in-dir={{env_dir}} python -m pip install {asv_suite.requirement()}"]
    benchmark = load(Path("suite/benchmarks/minimize_misfit.py"))
    assert (Path("suite/benchmarks") / benchmark.REPOSITORY / benchmark.SOURCE).resolve() == Path.cwd()


def test_project_is_installed(module: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "decay-fits"\nversion = "1"\n')
    assert write(module, IN_PLACE) == 0
    settings = json.loads(Path("suite/asv.conf.json").read_text())
    assert settings["project"] == "decay-fits"
    assert settings["install_command"][0].endswith(" {wheel_file}")
    assert "uninstall_command" not in settings


def test_settings_of_tools_make_no_project(module: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert write(module, IN_PLACE) == 0
    assert json.loads(Path("suite/asv.conf.json").read_text())["build_command"] == []


@pytest.mark.parametrize("file", ["asv.conf.json", ".gitignore", "benchmarks/minimize_misfit.py"])
def test_nothing_is_overwritten(module: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("suite", file)
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert write(module, IN_PLACE) == 2
    assert f"{path.resolve()} exists; give another folder." in capsys.readouterr().err
    assert [p for p in Path("suite").rglob("*") if p.is_file()] == [path]
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere:misfit", "--x0", "1,2"], "There is no module 'nowhere' here or on the path."),
        (["{}:nothing", "--x0", "1,2"], "has no 'nothing'."),
        (["misfit", "--x0", "1,2"], "'misfit' must be module:name"),
        (["{}:misfit", "--x0", "1,-1", *IN_PLACE[3:]], "x0 must be a point from which a run goes on"),
        (["{}:start", "--x0", "1,1"], "fun must be callable"),
        (["objectives:bowl", "--x0", "1,2", "--jac", "inplace"], "git add and commit it first."),
    ],
)
def test_wrong_arguments_are_said(
    module: str, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(module, arguments) == 2
    assert text in capsys.readouterr().err
    assert not Path("suite").exists()


def test_module_in_no_commit_is_refused(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"new_{module}"
    Path(f"{name}.py").write_text(MODULE)
    assert write(name, IN_PLACE) == 2
    assert "git add and commit it first." in capsys.readouterr().err


def test_folder_without_repository_is_refused(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_DIR", "nowhere")
    assert write(module, IN_PLACE) == 2
    assert "is in no git repository, but asv measures commits" in capsys.readouterr().err


def test_missing_git_is_said(module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert write(module, IN_PLACE) == 2
    assert "the command git is not found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, f"rmsprop-nb=={__version__}"),
        ('{"url": "file:///a/checkout", "dir_info": {}}', "file:///a/checkout"),
        ('{"url": "https://a.b/c", "vcs_info": {"vcs": "git", "commit_id": "1f"}}', "git+https://a.b/c@1f"),
    ],
    ids=["a version", "a folder", "a commit"],
)
def test_same_package_is_installed(
    origin: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Distribution:
        def read_text(self, name: str) -> str | None:
            return origin if name == "direct_url.json" else None

    monkeypatch.setattr(asv_suite.rmsprop_nb, "__file__", str(tmp_path / "rmsprop_nb" / "__init__.py"))
    monkeypatch.setattr(asv_suite.metadata, "distribution", lambda name: Distribution())
    assert asv_suite.requirement() == expected


@pytest.mark.slow
@pytest.mark.house
def test_asv_accepts_the_suite(module: str, tmp_path: Path) -> None:
    pytest.importorskip("asv")
    assert write(module, IN_PLACE) == 0
    environment = {**os.environ, "HOME": str(tmp_path), "ASV_PYTHONPATH": str(PACKAGE)}
    asv = [sys.executable, "-m", "asv"]
    where = ["--environment", f"existing:{sys.executable}"]
    for arguments in (["machine", "--yes"], ["check", *where]):
        command_line = [*asv, *arguments]
        done = subprocess.run(command_line, cwd="suite", env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout
