"""Rules for primitives that compute element by element, and what is known before any input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.onnx import rules_linear, rules_reduce, rules_select, rules_shape
from flowad_jax.onnx.layout import BATCH, Graph, Shape, Value, is_dynamic

Params = Mapping[str, Any]
Out = Sequence[jax.ShapeDtypeStruct]
Rule = Callable[[Graph, list[Value], Params, Out], "Value | list[Value]"]

# One node, whatever the dtype.
NODES = {
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min"},
    **{"pow": "Pow", "exp": "Exp", "log": "Log", "tanh": "Tanh", "atan": "Atan"},
    **{"sin": "Sin", "cos": "Cos", "tan": "Tan", "erf": "Erf", "logistic": "Sigmoid"},
    **{"sqrt": "Sqrt", "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil"},
    **{"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"},
}
LOGIC = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}
SAME = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "convert_element_type")
LATER = ("broadcast_in_dim", "dim_as_value")  # never computed here
_LARGE = 2**16  # elements of a product that is left to the runtime, which folds constants, too


def sizes(shape: Sequence[Any], batch: Any) -> Any:
    """Returns a shape, or other numbers, in which `BATCH` stands for the symbol ``batch``."""
    return tuple(_size(size, batch) for size in shape)


def _size(size: Any, batch: Any) -> Any:
    if batch is None or not isinstance(size, type(batch)):
        return size
    count, rest = divmod(size, batch)
    if isinstance(count, int) and isinstance(rest, int) and rest == 0:
        return count * BATCH
    raise UserError(f"ONNX: a size of {size}: only multiples of the batch are known")


def computed(equation: Any, values: Sequence[Value], out: Out) -> list[Value] | None:
    """Returns the results if no input decides about them, else None."""
    name = equation.primitive.name
    if any(value.const is None for value in values) or name in LATER:
        return None
    consts: list[Any] = [value.const for value in values]
    shapes = [*(value.shape for value in values), *(x.shape for x in out)]
    if name in ELEMENTWISE:
        joined = np.broadcast_shapes(*(x.shape for x in consts))
        consts = [np.broadcast_to(x, joined) if x.ndim else x for x in consts]
    elif any(map(is_dynamic, (size for shape in shapes for size in shape))):
        return None
    else:
        consts = [np.broadcast_to(x, v.shape) for x, v in zip(consts, values, strict=True)]
        given = sum(x.size for x in consts)
        if name == "dot_general" and math.prod(out[0].shape) > max(_LARGE, 2 * given):
            return None
    results = equation.primitive.bind(*consts, **equation.params)
    results = results if equation.primitive.multiple_results else [results]
    return [
        Value(x.shape, np.dtype(x.dtype), const=np.asarray(result))
        for x, result in zip(out, results, strict=True)
    ]


def elementwise(
    graph: Graph, op: str, values: Sequence[Value], shape: Shape, dtype: Any, **attrs: Any
) -> Value:
    """Adds a node whose operands broadcast, in the order of axes of the largest one."""
    tensors = [v for v in values if v.const is None and len(v.shape) == len(shape)]
    largest = max(tensors, key=lambda v: math.prod(graph.dims[v.name]), default=None)
    perm = largest.perm if largest else tuple(range(len(shape)))
    names = [graph.operand(value, perm) for value in values]
    dims = np.broadcast_shapes(*(graph.dims[name] for name in names))
    dims = (1,) * (len(shape) - len(dims)) + dims
    (name,) = graph.node(op, names, dims, **attrs)
    return Value(shape, np.dtype(dtype), name, perm)


def scalar(number: float, dtype: Any) -> Value:
    """Returns a constant without axes."""
    return Value((), np.dtype(dtype), const=np.asarray(number, dtype))


def cast(graph: Graph, value: Value, dtype: Any, through: Any = None) -> Value:
    """Converts the elements of a tensor, which bfloat16 only rounds."""
    from onnx import helper

    dtype = np.dtype(dtype)
    if through is None and dtype.name == "bfloat16":
        through = dtype
    steps = [through, np.float32 if dtype.name == "bfloat16" else dtype]
    for step in (step for step in steps if step is not None):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(step))
        value = elementwise(graph, "Cast", [value], value.shape, dtype, to=kind)
    return value


def _node(op: str) -> Rule:
    def rule(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
        return elementwise(graph, op, values, out[0].shape, out[0].dtype)

    return rule


def _logic(op: str) -> Rule:
    def rule(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
        name = op if out[0].dtype == bool else f"Bitwise{op}"
        return elementwise(graph, name, values, out[0].shape, out[0].dtype)

    return rule


def _composed(formula: Callable[..., Value]) -> Rule:
    """A rule from a formula of values, whose first argument adds a node for an operator's name."""

    def rule(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
        shape, dtype = out[0].shape, out[0].dtype

        def do(op: str, *operands: Value | float, kind: Any = dtype) -> Value:
            given = [x if isinstance(x, Value) else scalar(x, dtype) for x in operands]
            return elementwise(graph, op, given, shape, kind)

        return formula(do, *values)

    return rule


def _log1p(do: Any, x: Value) -> Value:
    # Exact where 1 + x is rounded: Kahan's correction; where it is 1, the result is x itself.
    total = do("Add", x, 1.0)
    rest = do("Sub", total, 1.0)
    ratio = do("Div", do("Mul", do("Log", total), x), rest)
    infinite = do("Greater", total, 3e38, kind=bool)
    ratio = do("Where", infinite, do("Log", total), ratio)
    return do("Where", do("Equal", rest, 0.0, kind=bool), x, ratio)


def _expm1(do: Any, x: Value) -> Value:
    half = do("Tanh", do("Mul", x, 0.5))
    small = do("Div", do("Mul", half, 2.0), do("Sub", 1.0, half))
    near = do("Less", do("Abs", x), 0.5, kind=bool)
    return do("Where", near, small, do("Sub", do("Exp", x), 1.0))


def _where(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
    which, *cases = values
    if len(cases) != 2 or which.dtype != bool:
        raise UserError("ONNX: JAX's primitive 'select_n' has a rule for a bool and 2 cases only")
    return elementwise(graph, "Where", [which, *cases[::-1]], out[0].shape, out[0].dtype)


def _clamp(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
    low, x, high = values
    shape, dtype = out[0].shape, out[0].dtype
    return elementwise(
        graph, "Min", [elementwise(graph, "Max", [x, low], shape, dtype), high], shape, dtype
    )


def _integer_pow(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
    (x,), power = values, params["y"]
    shape, dtype = out[0].shape, out[0].dtype
    if power in (2, 3):
        square = elementwise(graph, "Mul", [x, x], shape, dtype)
        return square if power == 2 else elementwise(graph, "Mul", [square, x], shape, dtype)
    return elementwise(graph, "Pow", [x, scalar(power, dtype)], shape, dtype)


def _neg(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
    minus = scalar(-1, out[0].dtype)
    return elementwise(graph, "Mul", [*values, minus], out[0].shape, out[0].dtype)


def _square(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
    return _integer_pow(graph, values, {"y": 2}, out)


def _convert(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
    (value,) = values
    return value if value.dtype == out[0].dtype else cast(graph, value, out[0].dtype)


def _same(graph: Graph, values: list[Value], params: Params, out: Out) -> list[Value]:
    return values


def _reduce_precision(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
    (value,) = values
    bits = params["exponent_bits"], params["mantissa_bits"]
    formats = {(8, 7): jax.numpy.bfloat16, (5, 10): np.float16}
    if bits[0] >= 8 and bits[1] >= (7 if value.dtype.name == "bfloat16" else 23):
        return value
    if bits not in formats:
        raise UserError(f"ONNX: JAX's primitive 'reduce_precision' to {bits} bits has no rule")
    return cast(graph, value, value.dtype, through=formats[bits])


def _round(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
    if int(params["rounding_method"]) != 1:
        raise UserError("ONNX: JAX's primitive 'round' has a rule for halves to even only")
    return elementwise(graph, "Round", values, out[0].shape, out[0].dtype)


def _rem(graph: Graph, values: list[Value], params: Params, out: Out) -> Value:
    return elementwise(graph, "Mod", values, out[0].shape, out[0].dtype, fmod=1)


POINTWISE: dict[str, Rule] = {
    **{name: _node(op) for name, op in NODES.items()},
    **{name: _logic(op) for name, op in LOGIC.items()},
    **dict.fromkeys(SAME, _same),
    "ne": _composed(lambda do, x, y: do("Not", do("Equal", x, y))),
    "rsqrt": _composed(lambda do, x: do("Reciprocal", do("Sqrt", x))),
    "erfc": _composed(lambda do, x: do("Sub", 1.0, do("Erf", x))),
    "exp2": _composed(lambda do, x: do("Pow", 2.0, x)),
    "log1p": _composed(_log1p),
    "expm1": _composed(_expm1),
    "is_finite": _composed(lambda do, x: do("Not", do("Or", do("IsNaN", x), do("IsInf", x)))),
    "add_any": _node("Add"),
    "select_n": _where,
    "clamp": _clamp,
    "integer_pow": _integer_pow,
    "square": _square,
    "neg": _neg,
    "convert_element_type": _convert,
    "reduce_precision": _reduce_precision,
    "round": _round,
    "rem": _rem,
}
ELEMENTWISE = frozenset(POINTWISE)
RULES: dict[str, Rule] = {
    **POINTWISE,
    **rules_linear.RULES,
    **rules_reduce.RULES,
    **rules_select.RULES,
    **rules_shape.RULES,
}
