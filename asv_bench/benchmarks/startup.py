"""What a user waits for once in a process: imports, and the first result of a new objective.

Every sample is a new process. The numbers include the start of Numba, which no library upon it can avoid.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from benchmarks._interleaved import compare
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
    """Floor: the import of nothing. `import rmsprop_nb` loads neither NumPy nor Numba before something is used."""

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


class LoopOnDisk:
    """A machine where the library has been used before: its compiled code is in ``cache``. No benchmark by itself."""

    def setup(self, method, *_):
        self.cache = tempfile.mkdtemp()
        self.run(first_result(method))

    def teardown(self, *_):
        shutil.rmtree(self.cache, ignore_errors=True)

    def run(self, code):
        environment = {**os.environ, "NUMBA_CACHE_DIR": self.cache}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)


class FirstResult(LoopOnDisk):
    """Floor: the class Numba below, what the same takes without this library."""

    params = (tuple(METHODS),)
    param_names = ("method",)
    repeat = (2, 3, 20.0)

    def timeraw_loop_on_disk(self, method):
        """A new objective on a machine where the library has been used before."""
        return first_result(method), f"import os; os.environ['NUMBA_CACHE_DIR'] = {self.cache!r}"


class VeryFirstResult:
    """The same on a machine where the library has never been used: the loop compiles as well. Floor: the same."""

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
    """The floor of a first result: Numba compiles one small function, and SciPy is there."""

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
    """A new objective minimized in a new process, our loop being on disk, over two steps of another library in one.

    Floor: 1 for "numba", which is Numba and SciPy without this library. Aims: 1.1 of optax, 0.4 of torch.
    """

    params = (tuple(METHODS), tuple(OTHERS))
    param_names = ("method", "other")
    timeout = 300

    def setup(self, method, other):
        optional(other)
        super().setup(method)

    def track_time(self, method, other):
        return compare(lambda: self.run(first_result(method)), lambda: self.run(OTHERS[other]), rounds=5)

    track_time.unit = "of the other's time"
