"""Functions for compiled callers alone: their code is linked into the caller's, and no machine code is made of them."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

_ENVIRONMENT = "_ZN08NumbaEnv"  # how the names begin of the symbols that hold the address of a function's environment


class _OptimizedCode(JITCodeLibrary):
    """Optimised as it stands, so that its sums are added up in the same order whatever calls it."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._define_environments()
        self._finalized = True

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


class LinkedCompiler(Compiler):
    """Compile a function that only compiled code calls, and which is optimised with it."""

    _library = _PlainCode

    def compile_extra(self, func: Any) -> Any:
        self.state.library = self._library(self.state.targetctx.codegen(), func.__qualname__)
        return super().compile_extra(func)


class ReductionCompiler(LinkedCompiler):
    """Compile a function with sums that only compiled code calls."""

    _library = _OptimizedCode
