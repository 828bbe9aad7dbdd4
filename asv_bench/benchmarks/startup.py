"""What users wait for once in a process: imports, and the first result of a new objective.

Every sample is a new process. The numbers include the start of Numba, which no library that uses it can avoid.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from numba import njit

import rmsprop_nb
from benchmarks._interleaved import compare
from benchmarks._package import COMPILE_AT_ONCE, compile_at_once
from benchmarks._peers import optional

SETUP_PRIVATE_CACHE = """
import atexit, os, shutil, tempfile
os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()
atexit.register(shutil.rmtree, os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)
"""

FIRST_RESULT = """
from numba import njit
from rmsprop_nb import minimize

@njit
def bowl(x, grad):
    grad[0], grad[1] = 2.0 * x[0], 20.0 * x[1]
    return x[0] * x[0] + 10.0 * x[1] * x[1]

minimize(bowl, [1.0, 1.0], jac="inplace", method={method!r}, options={options!r})
"""

METHODS = {
    "textbook": ("rmsprop", {"learning_rate": 0.1, "maxiter": 10}),
    "auto": ("rmsprop", {}),
    "lbfgs": ("rmsprop-lbfgs", {}),
}


def first_result(method):
    name, options = METHODS[method]
    return FIRST_RESULT.format(method=name, options=options)


class Import:
    """Floor: importing nothing. `import rmsprop_nb` loads neither NumPy nor Numba before something is used."""

    repeat = (3, 5, 10.0)

    def timeraw_nothing(self):
        return "pass"

    def timeraw_numpy(self):
        return "import numpy"

    def timeraw_rmsprop_nb(self):
        return "import rmsprop_nb"

    def timeraw_minimize(self):
        return "from rmsprop_nb import minimize"

    def timeraw_numba(self):
        return "import numba"

    def timeraw_scipy_optimize(self):
        return "import scipy.optimize"


IMPORTS = {  # our import, and the imports that it cannot avoid
    "rmsprop_nb": ("import rmsprop_nb", "pass"),
    "minimize": ("from rmsprop_nb import minimize", "import numba, scipy.optimize"),
}

COUNT_MODULES = """
import sys
{1}
before = set(sys.modules)
{0}
print(sum(name.partition(".")[0] != "rmsprop_nb" for name in set(sys.modules) - before))
"""


class ImportOverFloor:
    """Our imports in a new process relative to importing the libraries that they need. Floor: 1."""

    params = (tuple(IMPORTS),)
    param_names = ("name",)

    def track_time(self, name):
        ours, floor = IMPORTS[name]
        return compare(lambda: python(ours), lambda: python(floor), rounds=3)

    def track_modules(self, name):
        """Count the modules of other packages that our import loads beyond those of the floor."""
        return int(python(COUNT_MODULES.format(*IMPORTS[name])))

    track_time.unit = "times the floor"
    track_modules.unit = "modules"


def python(code, **environment):
    """Run code in a new process and return what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True).stdout


class LoopOnDisk:
    """Base class: a machine where the library has been used before, so that its compiled code is in `cache`."""

    def setup(self, method, *_):
        self.cache = tempfile.mkdtemp()
        self.python(COMPILE_AT_ONCE + first_result(method))

    def teardown(self, *_):
        shutil.rmtree(self.cache, ignore_errors=True)

    def python(self, code):
        python(code, NUMBA_CACHE_DIR=self.cache)


class FirstResult(LoopOnDisk):
    """Floor: the class Numba below, which does the same without this library."""

    params = (tuple(METHODS),)
    param_names = ("method",)
    repeat = (2, 3, 20.0)

    def timeraw_loop_on_disk(self, method):
        """Minimize a new objective on a machine where the library has been used before."""
        return first_result(method), f"import os; os.environ['NUMBA_CACHE_DIR'] = {self.cache!r}"


class VeryFirstResult:
    """The same on a machine where the library has never been used, so that the loop compiles too. Floor: the same."""

    params = (tuple(METHODS),)
    param_names = ("method",)
    repeat = (2, 3, 20.0)

    def timeraw_nothing_on_disk(self, method):
        return first_result(method), SETUP_PRIVATE_CACHE


NUMBA_ALONE = """
import scipy.optimize
from numba import njit

@njit("f8(f8[::1], f8[::1])")
def bowl(x, grad):
    grad[0], grad[1] = 2.0 * x[0], 20.0 * x[1]
    return x[0] * x[0] + 10.0 * x[1] * x[1]
"""


class Numba:
    """The floor of a first result: Numba compiles one small function, and SciPy is imported."""

    repeat = (2, 3, 20.0)

    def timeraw_one_function(self):
        return NUMBA_ALONE


TWO_STEPS_OF_OPTAX = """
import jax, optax

def bowl(x):
    return x[0] * x[0] + 10.0 * x[1] * x[1]

@jax.jit
def step(x, state):
    update, state = rule.update(jax.grad(bowl)(x), state, x)
    return optax.apply_updates(x, update), state

rule, x = optax.rmsprop(0.1), jax.numpy.array([1.0, 1.0])
x, state = step(x, rule.init(x))
x, state = step(x, state)
x.block_until_ready()
"""

TWO_STEPS_OF_TORCH = """
import torch

x = torch.tensor([1.0, 1.0], requires_grad=True)
rule = torch.optim.RMSprop([x], lr=0.1)
for _ in range(2):
    rule.zero_grad()
    (x[0] * x[0] + 10.0 * x[1] * x[1]).backward()
    rule.step()
"""

OTHERS = {"numba": NUMBA_ALONE, "optax": TWO_STEPS_OF_OPTAX, "torch": TWO_STEPS_OF_TORCH}


class FirstResultOverPeer(LoopOnDisk):
    """First result for a new objective in a new process, relative to two steps of another library in a new process.

    Our compiled loop is on disk. Floor: 1 for "numba", which is Numba and SciPy without this library. Aims: 1.1 of
    optax's time, 0.4 of torch's.
    """

    params = (tuple(METHODS), tuple(OTHERS))
    param_names = ("method", "other")
    timeout = 300

    def setup(self, method, other):
        optional(other)
        super().setup(method)

    def track_time(self, method, other):
        return compare(lambda: self.python(first_result(method)), lambda: self.python(OTHERS[other]), rounds=5)

    track_time.unit = "of the other's time"


T = np.linspace(0.0, 4.0, 50)


def new_chain():
    @njit
    def chain(x):
        s = 0.0
        for i in range(x.size - 1):
            s += 100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2
        return s

    return chain


def new_decay():
    @njit
    def decay(t, amplitude, rate):
        return amplitude * np.exp(-rate * t)

    return decay


def new_residuals():
    @njit
    def residuals(x, t):
        return x[0] * np.exp(-x[1] * t) - np.exp(-t)

    return residuals


START = np.array([1.0, 0.8])
NEW = {
    "exact": (new_chain, (START,), lambda f: rmsprop_nb.minimize(f, START)),
    "differences": (new_chain, (START,), lambda f: rmsprop_nb.minimize(f, START, jac="2-point")),
    "exact, n = 50": (new_chain, (np.zeros(50),), lambda f: rmsprop_nb.minimize(f, np.zeros(50))),
    "fit": (new_decay, (T, 1.0, 0.8), lambda f: rmsprop_nb.curve_fit(f, T, np.exp(-T), START)),
    "residuals": (new_residuals, (START, T), lambda f: rmsprop_nb.least_squares(f, START, args=(T,))),
}


class NewObjectiveOverNumba:
    """What a new objective costs over what Numba takes to compile it, in a process where all else is compiled.

    Floor: 1. Aim: 1.5.
    """

    params = (tuple(NEW),)
    param_names = ("use",)
    timeout = 300

    def setup(self, use):
        self.make, self.args, self.solve = NEW[use]
        compile_at_once()
        self.solve(self.make())

    def track_ratio(self, use):
        return compare(lambda: self.solve(self.make()), lambda: self.make()(*self.args), rounds=5)

    track_ratio.unit = "of Numba's time"
