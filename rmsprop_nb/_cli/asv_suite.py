"""Write a suite for asv (https://asv.readthedocs.io) that follows the speed of the user's objective over commits."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import rmsprop_nb
from rmsprop_nb._cli.bench import find

IGNORED = "/.asv/env/\n/.asv/html/\n"
TIMEOUT = 1200  # seconds, for a benchmark and for the installation of a commit


def write_suite(folder: Path, fun: str, x0: str, args: str | None, jac: str | None) -> list[Path]:
    """Write the suite for what the command line says; return the files that were written.

    Raises ValueError if a file exists already, or if the objective is in no commit that asv could check out.
    """
    module, _, name = fun.partition(":")
    folder = folder.resolve()
    repository = _repository()
    source = _source(repository, module)
    constants = {
        "FUN": fun,
        "X0": _constant(x0),
        "ARGS": () if args is None else _constant(args),
        "JAC": True if jac == "True" else jac,
        "PREPARE": ["--float32"] if np.asarray(find(x0)).dtype == np.float32 else [],
        "REPOSITORY": _relative(repository, folder / "benchmarks"),
        "SOURCE": source,
    }
    files = {
        folder / "asv.conf.json": json.dumps(_configuration(repository, folder), indent=2) + "\n",
        folder / ".gitignore": IGNORED,
        folder / "benchmarks" / "__init__.py": "",
        folder / "benchmarks" / f"minimize_{name}.py": _benchmark(constants),
    }
    existing = [str(path) for path in files if path.exists()]
    if existing:
        msg = f"--asv overwrites nothing, but {existing[0]} exists; give another folder."
        raise ValueError(msg)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def next_steps(files: list[Path]) -> str:
    """Say what has been written, and what to do with it."""
    shown = [Path(os.path.relpath(path)) for path in files]
    return "\n".join(
        [
            "Written:",
            *(f"  {path}" for path in shown),
            "",
            "Next:",
            "  pip install asv virtualenv",
            f"  cd {shlex.quote(str(shown[0].parent))}",
            "  asv machine --yes",
            "  asv run HEAD^!               # measure the newest commit",
            "  asv continuous HEAD~1 HEAD   # compare two commits; the exit code is 1 if the second is slower",
        ]
    )


def _benchmark(constants: dict[str, Any]) -> str:
    """Return the template with these constants."""
    text = Path(__file__).with_name("asv_template.py").read_text(encoding="utf-8")
    text = text.removeprefix("# mypy: ignore-errors\n").replace("FUN", constants["FUN"], 1)  # in the docstring
    for name, value in constants.items():
        line = f"{name} = {json.dumps(value) if isinstance(value, str | list) else repr(value)}"
        text = re.sub(rf"^{name} = (\S+|\[.*\])(?=  #|$)", line.replace("\\", r"\\"), text, count=1, flags=re.MULTILINE)
    return text


def _constant(text: str) -> str | list[float]:
    """Return what stands for an argument of the command line in the benchmark: a name, or numbers."""
    return text if ":" in text else find(text).tolist()


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


# -- the repository ---------------------------------------------------------------------------------------------------


def _git(*arguments: str) -> str | None:
    """Return what git prints, or None where it fails."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        msg = "--asv needs git, and the command git is not found."
        raise ValueError(msg) from None
    return done.stdout.strip() if done.returncode == 0 else None


def _repository() -> Path:
    top = _git("rev-parse", "--show-toplevel")
    if not top:
        msg = f"{Path.cwd()} is in no git repository, but asv measures commits; run git init, and commit your code."
        raise ValueError(msg)
    return Path(top).resolve()


def _source(repository: Path, module: str) -> str:
    """Return the folder of the repository where the import of `module` begins."""
    file = Path(inspect.getfile(sys.modules[module])).resolve()
    levels = len(module.split(".")) + (file.name == "__init__.py")
    if repository in file.parents and _git("ls-files", "--error-unmatch", str(file)) is not None:
        return _relative(file.parents[levels - 1], repository)
    if _is_installable(repository):
        return "."
    msg = f"asv measures commits, but {file} is in none of {repository}; git add and commit it first."
    raise ValueError(msg)


def _project(repository: Path) -> dict[str, Any]:
    path = repository / "pyproject.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _is_installable(repository: Path) -> bool:
    return bool({"project", "build-system"} & _project(repository).keys()) or (repository / "setup.py").exists()


# -- asv's configuration ----------------------------------------------------------------------------------------------


def _configuration(repository: Path, folder: Path) -> dict[str, Any]:
    """Return the configuration: each commit is installed if it can be, and otherwise imported from its checkout."""
    install = f"in-dir={{env_dir}} python -m pip install {shlex.quote(requirement())}"
    commands: dict[str, list[str]] = {"build_command": [], "install_command": [install], "uninstall_command": []}
    if _is_installable(repository):
        commands = {
            "build_command": ["python -m pip wheel --no-deps --wheel-dir {build_cache_dir} {build_dir}"],
            "install_command": [f"{install} {{wheel_file}}"],
        }
    return {
        "version": 1,
        "project": _project(repository).get("project", {}).get("name", repository.name),
        "repo": _relative(repository, folder),
        "dvcs": "git",
        "branches": ["HEAD"],
        "environment_type": "virtualenv",
        **commands,
        # BLAS with many threads makes the times of SciPy's small runs vary tenfold on a busy machine
        "matrix": {"env_nobuild": {"OMP_NUM_THREADS": ["1"]}},
        "install_timeout": TIMEOUT,
        "default_benchmark_timeout": TIMEOUT,
        "benchmark_dir": "benchmarks",
        "env_dir": ".asv/env",
        "results_dir": ".asv/results",
        "html_dir": ".asv/html",
    }


def requirement() -> str:
    """Return what pip installs to get this rmsprop_nb: a checkout, a URL, or a version."""
    checkout = Path(rmsprop_nb.__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").exists():
        return str(checkout)
    text = metadata.distribution("rmsprop-nb").read_text("direct_url.json")
    if text is None:
        return f"rmsprop-nb=={rmsprop_nb.__version__}"
    origin = json.loads(text)
    commit = origin.get("vcs_info")
    return f"{commit['vcs']}+{origin['url']}@{commit['commit_id']}" if commit else str(origin["url"])
