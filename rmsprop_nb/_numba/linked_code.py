"""Functions for compiled callers alone: their code is linked into the caller's, and no machine code is made of them."""

from __future__ import annotations

import weakref
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.codegen import JITCodeLibrary, RuntimeLinker
from numba.core.compiler import Compiler

_ENVIRONMENT = "_ZN08NumbaEnv"  # how the names begin of the symbols that hold the address of a function's environment

_LINKED: weakref.WeakValueDictionary[str, _OptimizedCode] = weakref.WeakValueDictionary()
"""Code that was compiled, by the names of its functions."""

_CALLED_BY_ADDRESS: set[str] = set()
"""Names of functions that recursions call."""


class _OptimizedCode(JITCodeLibrary):
    """Optimised as it stands, so that its sums are added up in the same order whatever calls it."""

    _is_emitted = False

    def _finalize_final_module(self) -> None:
        if self._is_called_by_address():
            self._emit()
            return
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._define_environments()
        self._finalized = True

    def _is_called_by_address(self) -> bool:
        """Find out whether this is part of a recursion: Numba calls a function by address that is still compiled."""
        prefix = RuntimeLinker.PREFIX
        calls = {v.name.removeprefix(prefix) for v in self._final_module.global_variables if v.name.startswith(prefix)}
        for name in calls.intersection(_LINKED.keys()):
            _LINKED[name]._emit()
        _CALLED_BY_ADDRESS.update(calls)
        defined = [function.name for function in self.get_defined_functions()]
        for name in defined:
            _LINKED.setdefault(name, self)
        return bool(calls) or not _CALLED_BY_ADDRESS.isdisjoint(defined)

    def _emit(self) -> None:
        """Make machine code."""
        if not self._is_emitted:
            self._is_emitted = True
            super()._finalize_final_module()

    def _define_environments(self) -> None:
        """Make room for the environments' addresses: Numba writes them after each compilation."""
        engine = self._codegen._engine
        module = self._codegen._create_empty_module(self.name)
        for variable in self._final_module.global_variables:
            if variable.name.startswith(_ENVIRONMENT) and not engine.is_symbol_defined(variable.name):
                address = ir.GlobalVariable(module, ir.IntType(8).as_pointer(), variable.name)
                address.linkage = "common"  # as Numba declares it, also in each caller
                address.initializer = ir.Constant(address.value_type, None)
        if module.global_values:
            engine.add_module(llvm.parse_assembly(str(module)))
            engine.finalize_object()


class _PlainCode(_OptimizedCode):
    """Left to the optimisation of its callers: Numba would optimise it here, and in each of them once more."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass


WITHOUT_ENTRY = {"nopython": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of what only compiled code calls: to make entry points that nobody uses takes as long as the code itself."""


class LinkedCompiler(Compiler):
    """Compile a function that only compiled code calls, and which is optimised with it."""

    _library = _PlainCode

    def compile_extra(self, func: Any) -> Any:
        self.state.library = self._library(self.state.targetctx.codegen(), func.__qualname__)
        return super().compile_extra(func)


class ReductionCompiler(LinkedCompiler):
    """Compile a function with sums that only compiled code calls."""

    _library = _OptimizedCode
