"""The task runner: its table names what exists, and its environment is made once and touches no other."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "run.py"

pytestmark = [pytest.mark.house, pytest.mark.skipif(not RUN.exists(), reason="this is no checkout")]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py as a module, with an environment below `tmp_path` that is made in no time."""
    spec = importlib.util.spec_from_file_location("run", RUN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    env = tmp_path / "env"
    for name, value in {"ENV": env, "STAMP": env / module.STAMP.name, "PYTHON": module.python_of(env)}.items():
        monkeypatch.setattr(module, name, value)

    def make_environment(env: Path) -> Path:
        python = module.python_of(env)
        python.parent.mkdir(parents=True)
        python.touch()
        return python

    module.installed = []
    monkeypatch.setattr(module, "make_environment", make_environment)
    monkeypatch.setattr(module, "install", lambda python, what, groups: module.installed.append(groups))
    return module


def test_table_names_what_exists(runner: ModuleType) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    for job in runner.JOBS.values():
        assert set(job.groups) <= groups.keys()
        words = [word.rpartition("=")[2] for command in job.commands for word in shlex.split(command)]
        named = [name for word in words for name in word.split(",") if name.startswith(("tests/", "rmsprop_nb/"))]
        missing = [name for name in named if not [*ROOT.glob(name)]]
        assert not missing


def test_help_lists_every_job() -> None:
    done = subprocess.run([sys.executable, RUN, "--help"], capture_output=True, text=True, check=True)
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert listed >= {"demo", "test", "lint", "coverage", "wheel", "oldest", "ci"}
    assert subprocess.run([sys.executable, RUN, "tset"], capture_output=True, check=False).returncode == 2


def test_environment_is_made_once_and_grows(runner: ModuleType) -> None:
    runner.set_up([])
    runner.set_up(["unit"])
    runner.set_up([])
    runner.set_up(["style"])
    runner.set_up(["unit"])
    assert runner.installed == [[], ["unit"], ["style"]]
    assert json.loads(runner.STAMP.read_text())["groups"] == ["style", "unit"]


def test_interrupted_installation_starts_afresh(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(runner, "install", lambda *_: sys.exit("no connection"))
        with pytest.raises(SystemExit):
            runner.set_up(["unit"])
    left_over = runner.ENV / "lib" / "half a package"
    left_over.mkdir(parents=True)
    runner.set_up(["unit"])
    assert runner.installed == [["unit"]]
    assert not left_over.exists()


def test_directory_that_it_did_not_make_is_left_alone(runner: ModuleType) -> None:
    runner.ENV.mkdir()
    (runner.ENV / "thesis.tex").touch()
    with pytest.raises(SystemExit, match=r"was not made by run\.py"):
        runner.set_up([])
    assert [path.name for path in runner.ENV.iterdir()] == ["thesis.tex"]


def test_quiet_commands_print_one_line_unless_they_fail(runner: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('first'); print('last'); sys.exit({})"
    runner.call([sys.executable, "-c", code.format(0)], quiet=True)
    assert capfd.readouterr().out == "last\n"
    with pytest.raises(SystemExit) as failed:
        runner.call([sys.executable, "-c", code.format(3)], quiet=True)
    assert failed.value.code == 3
    assert "first\nlast\n" in capfd.readouterr().out


def test_arguments_that_nothing_takes_are_refused(runner: ModuleType) -> None:
    with pytest.raises(SystemExit, match="memcheck takes no arguments"):
        runner.run("memcheck", ["-v"])
