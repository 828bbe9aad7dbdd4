"""Ctrl-C at counted passes of Numba's compiler: the compilation ends first, and what follows is as it should be.

The signals are sent in a process of its own, as in test_interrupts.py.
"""

from __future__ import annotations

import os

import pytest
from marks import needs_jit
from processes import run_program

pytestmark = [needs_jit, pytest.mark.skipif(os.name == "nt", reason="sends signals to itself")]

PROGRAM = """
    import signal, traceback
    import numpy as np
    from numba import njit
    from numba.core import event
    from rmsprop_nb import minimize, value_and_grad

    class Passes(event.Listener):
        '''Counts the passes of Numba's compiler, and sends SIGINT at one of them.'''

        def __init__(self, at):
            self.count, self.at = 0, at

        def on_start(self, event):
            self.count += 1
            if self.count == self.at:
                signal.raise_signal(signal.SIGINT)

        def on_end(self, event):
            pass

    def new_objective():
        @njit
        def fun(x, rows):
            return np.sum((x - np.mean(rows)) ** 2)

        return fun

    x0, rows = np.zeros(2), np.ones((4, 1))

    def run(fun):
        return minimize(fun, x0, rows, jac="2-point")

    def outcome(run, fun, at):
        passes = Passes(at)
        event.register("numba:run_pass", passes)
        try:
            run(fun)
        except KeyboardInterrupt as interrupt:
            inside = any("compiler_machinery" in f.filename for f in traceback.extract_tb(interrupt.__traceback__))
            return passes.count, "in a pass" if inside else "raised"
        finally:
            event.unregister("numba:run_pass", passes)
        return passes.count, "returned"

    run(new_objective())  # compiles what all objectives share
    whole, _ = outcome(run, new_objective(), 0)
    for at in np.linspace(1, whole, 4).astype(int):
        fun = new_objective()
        print(outcome(run, fun, at)[1])
        np.testing.assert_allclose(run(fun).x, 1.0, rtol=1e-6)
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    print(outcome(lambda fun: value_and_grad(fun)(x0, np.empty(2), rows), new_objective(), 20)[1])
    print(outcome(lambda fun: fun(x0, rows), new_objective(), 20)[1])
"""


@pytest.mark.thorough
@pytest.mark.slow
def test_compilation_ends_before_ctrl_c_comes():
    *outcomes, is_restored, of_gradient, in_own_code = run_program(PROGRAM).splitlines()
    assert outcomes == ["raised"] * 4
    assert is_restored == "True"
    assert of_gradient == "raised"
    assert in_own_code == "in a pass"  # what the user compiles without this package is left alone
