"""What happens at `import rmsprop_nb`."""

from __future__ import annotations

from processes import run_program


def test_python_without_the_global_interpreter_lock_is_refused():
    told = run_program(
        """
        import sys
        sys._is_gil_enabled = lambda: False
        try:
            import rmsprop_nb
        except ImportError as error:
            print(error)
        """
    )
    assert "needs the global interpreter lock; start Python with PYTHON_GIL=1" in told
