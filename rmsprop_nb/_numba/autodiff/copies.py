"""Copies of compiled functions that take dual numbers.

A copy is the function itself, with stand-ins for the functions of NumPy that do not know dual numbers, and with copies
of the compiled functions that it calls. The user's own functions are not touched.
"""

from __future__ import annotations

import operator
import types as python_types
from typing import Any

from numba import types
from numba.core import cgutils, ir, postproc
from numba.core.compiler import DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.ir_utils import build_definitions
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import NopythonRewrites
from numba.core.untyped_passes import MakeFunctionToJitFunction
from numba.extending import intrinsic

from rmsprop_nb._numba.autodiff import array_expressions, making, products, reductions, selection, stand_ins
from rmsprop_nb._numba.autodiff.dual import DualDType, is_dual
from rmsprop_nb._numba.linked_code import WITHOUT_ENTRY, LinkedCompiler

_REGISTERED = (reductions, selection)
"""Modules that are imported for the stand-ins that they register."""

_DROPPED_OPTIONS = ("parallel", "inline", "cache")
"""Options of a function that its copy does not have: parallel loops cannot add up dual numbers."""


_ARRAY_EXPRESSION = "rmsprop_nb_arrayexpr"


class Setting:
    """What the copies of a function and of those that it calls share.

    Attributes
    ----------
    dtype : DualDType
        The type of the dual numbers.
    dual_buffers : bool
        Whether arrays of plain numbers that the functions allocate are arrays of dual numbers instead.
    allocates : bool
        Whether a function that was compiled allocates such arrays.
    """

    def __init__(self, dtype: DualDType, dual_buffers: bool) -> None:
        self.dtype = dtype
        self.dual_buffers = dual_buffers
        self.allocates = False
        self._copies: dict[Any, Any] = {}
        setting = self

        class Pipeline(LinkedCompiler):
            def define_pipelines(self) -> Any:
                self.state["differentiation"] = setting
                passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
                passes.add_pass_after(_StandIns, MakeFunctionToJitFunction)
                if not self.state["flags"].no_rewrites:
                    passes.add_pass_after(_OwnArrayExpressions, NopythonRewrites)
                passes.finalize()
                return [passes]

        self._pipeline = Pipeline

    def copy_of(self, dispatcher: Any) -> Any:
        """Return the copy of a compiled function."""
        found = self._copies.get(dispatcher)
        if found is None:
            options = {name: value for name, value in dispatcher.targetoptions.items() if name not in _DROPPED_OPTIONS}
            found = CPUDispatcher(
                dispatcher.py_func,
                dict(dispatcher._compiler.locals),
                options | WITHOUT_ENTRY | {"_nrt": True},
                pipeline_class=self._pipeline,
            )
            self._copies[dispatcher] = found
            self._copies[found] = found
        return found

    def intrinsic_arguments(self) -> Any:
        """Return a function for compiled code that puts copies in the place of compiled functions among arguments."""

        def converted(ty: Any) -> Any:
            if isinstance(ty, types.Dispatcher):
                return types.Dispatcher(self.copy_of(ty.dispatcher))
            return types.Tuple(tuple(map(converted, ty.types))) if isinstance(ty, types.BaseTuple) else ty

        def convert(context: Any, builder: Any, ty: Any, value: Any) -> Any:
            if isinstance(ty, types.Dispatcher):
                return context.get_dummy_value()
            if not isinstance(ty, types.BaseTuple) or converted(ty) == ty:
                return value
            items = zip(ty.types, cgutils.unpack_tuple(builder, value), strict=True)
            return context.make_tuple(builder, converted(ty), [convert(context, builder, *item) for item in items])

        @intrinsic
        def with_copies(typingctx: Any, args: Any) -> Any:
            has_functions = any(isinstance(ty, types.Dispatcher | types.BaseTuple) for ty in args.types)
            result = converted(args) if has_functions else args

            def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
                made = convert(context, builder, args, values[0]) if has_functions else values[0]
                if context.enable_nrt:
                    context.nrt.incref(builder, result, made)
                return made

            return result(args), codegen

        return with_copies


@register_pass(mutates_CFG=False, analysis_only=False)
class _StandIns(FunctionPass):
    """Put stand-ins in the place of functions, methods and operators that do not know dual numbers."""

    _name = "rmsprop_nb_stand_ins"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        func_ir, setting = state["func_ir"], state["differentiation"]
        for block in func_ir.blocks.values():
            block.body = [new for old in block.body for new in _Rewriter(func_ir, setting, block.scope).rewrite(old)]
        func_ir._definitions = build_definitions(func_ir.blocks)
        postproc.PostProcessor(func_ir).run()
        return True


@register_pass(mutates_CFG=False, analysis_only=False)
class _OwnArrayExpressions(FunctionPass):
    """Mark the array expressions with dual numbers among their operands, which are lowered in a way of their own."""

    _name = "rmsprop_nb_array_expressions"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        state["targetctx"].special_ops[_ARRAY_EXPRESSION] = array_expressions.lower_array_expression
        typemap = state["typemap"]
        for block in state["func_ir"].blocks.values():
            for expr in block.find_exprs(op="arrayexpr"):
                if any(is_dual(typemap[variable.name]) for variable in expr.list_vars()):
                    expr.op = _ARRAY_EXPRESSION
                    expr.expr = _with_each_view_once(expr, state["func_ir"])
        return True


def _with_each_view_once(expr: Any, func_ir: Any) -> Any:
    """Return the operations of an array expression, in which x[1:] is one operand also where it is written twice."""
    definitions = func_ir._definitions
    operands: dict[Any, Any] = {}

    def view(variable: Any) -> Any:
        found = definitions[variable.name]
        is_view = len(found) == 1 and getattr(found[0], "op", "") == "static_getitem"
        if is_view and len(definitions[found[0].value.name]) == 1:
            return found[0].value.name, repr(found[0].index)
        return variable.name

    def with_first(operation: Any) -> Any:
        if isinstance(operation, tuple):
            return operation[0], [with_first(operand) for operand in operation[1]]
        return operands.setdefault(view(operation), operation) if isinstance(operation, ir.Var) else operation

    return with_first(expr.expr)


class _Rewriter:
    """Rewrites one statement."""

    def __init__(self, func_ir: Any, setting: Setting, scope: Any) -> None:
        self._func_ir = func_ir
        self._setting = setting
        self._scope = scope

    def rewrite(self, statement: Any) -> list[Any]:
        if isinstance(statement, ir.Print):
            return self._print(statement)
        if not isinstance(statement, ir.Assign):
            return [statement]
        value = statement.value
        if isinstance(value, ir.Global | ir.FreeVar) or (isinstance(value, ir.Expr) and value.op == "getattr"):
            found = self._constant(value)
            if isinstance(found, Dispatcher):
                statement.value = ir.Global(found.py_func.__name__, self._setting.copy_of(found), statement.loc)
            return [statement]
        if isinstance(value, ir.Expr) and value.op == "call":
            return self._call(statement, value)
        if isinstance(value, ir.Expr) and value.op == "binop" and value.fn is operator.matmul:
            return self._replaced(statement, products.dot, [value.lhs, value.rhs], ())
        return [statement]

    def _print(self, statement: Any) -> list[Any]:
        """Print values: Python, which does it, knows no dual numbers."""
        reading = self._constant_variable(selection.values, statement.loc)
        statements = [reading]
        printed = []
        for item in statement.args:
            target = self._scope.redefine("$stand_in", statement.loc)
            statements.append(ir.Assign(ir.Expr.call(reading.target, [item], (), statement.loc), target, statement.loc))
            printed.append(target)
        return [*statements, ir.Print(tuple(printed), statement.vararg, statement.loc)]

    def _call(self, statement: Any, call: Any) -> list[Any]:
        if call.vararg is not None:
            return [statement]
        definition = self._definition(call.func)
        function = self._constant(definition)
        if function is None and isinstance(definition, ir.Expr) and definition.op == "getattr":
            method = stand_ins.METHODS.get(definition.attr)
            if method is not None:
                return self._replaced(statement, method, [definition.value, *call.args], call.kws)
            return [statement]
        allocator = self._lookup(stand_ins.ALLOCATORS, function)
        self._setting.allocates = self._setting.allocates or allocator is not None
        if allocator is not None and self._setting.dual_buffers:
            marker = self._constant_variable(self._setting.dtype, statement.loc)
            return [marker, *self._replaced(statement, allocator, [marker.target, *call.args], call.kws)]
        stand_in = self._lookup(stand_ins.FUNCTIONS, function)
        if stand_in is making.array and call.args:
            lists, first = self._as_tuple(call.args[0], statement.loc)
            return [*lists, *self._replaced(statement, stand_in, [first, *call.args[1:]], call.kws)]
        if stand_in is not None:
            return self._replaced(statement, stand_in, call.args, call.kws)
        return [statement]

    def _as_tuple(self, variable: Any, loc: Any) -> tuple[list[Any], Any]:
        """Make tuples of the lists that np.array is given: they may hold both dual and plain numbers."""
        definition = self._definition(variable)
        if not (variable.is_temp and isinstance(definition, ir.Expr) and definition.op == "build_list"):
            return [], variable
        statements: list[Any] = []
        items = []
        for item in definition.items:
            before, converted = self._as_tuple(item, loc)
            statements += before
            items.append(converted)
        target = self._scope.redefine("$stand_in", loc)
        return [*statements, ir.Assign(ir.Expr.build_tuple(items, loc), target, loc)], target

    @staticmethod
    def _lookup(table: dict[Any, Any], function: Any) -> Any:
        try:
            return table.get(function)
        except TypeError:  # not hashable
            return None

    def _replaced(self, statement: Any, function: Any, args: Any, kws: Any) -> list[Any]:
        callee = self._constant_variable(function, statement.loc)
        statement.value = ir.Expr.call(callee.target, list(args), tuple(kws), statement.loc)
        return [callee, statement]

    def _constant_variable(self, value: Any, loc: Any) -> Any:
        target = self._scope.redefine("$stand_in", loc)
        return ir.Assign(ir.Global(getattr(value, "__name__", "dtype"), value, loc), target, loc)

    def _definition(self, variable: Any) -> Any:
        try:
            return self._func_ir.get_definition(variable)
        except KeyError:
            return None

    def _constant(self, definition: Any) -> Any:
        """Return the object that an expression refers to, such as a function in a module, or None."""
        if isinstance(definition, ir.Global | ir.FreeVar):
            return definition.value
        if isinstance(definition, ir.Expr) and definition.op == "getattr":
            owner = self._constant(self._definition(definition.value))
            if isinstance(owner, python_types.ModuleType):
                return getattr(owner, definition.attr, None)
        return None
