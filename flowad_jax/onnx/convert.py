"""From a JAX function to an ONNX model: traces it, walks through the program, writes the graph.

What does not depend on an input is computed here, by JAX, and becomes a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from flowad_jax.errors import UserError
from flowad_jax.onnx import control, fold, rules
from flowad_jax.onnx.layout import BATCH, Graph, Node, Shape, Value, is_dynamic, stored

IR_VERSION = 9  # of the file format, as of ONNX 1.14: what opset 18 needs


def convert(
    function: Callable[..., Sequence[Any]],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    outputs: Sequence[str],
    opset: int = 18,
    keep_weights: bool = False,
) -> Any:
    """Converts a JAX function to an ``onnx.ModelProto``; the same function gives the same bytes.

    Weights that the function closes over become initializers. Tensors have the shapes of JAX.

    Args:
      function: takes the inputs in order and returns a tuple of arrays.
      inputs: by name; the leading size may be ``jax.export.symbolic_shape("B")[0]``, the same for
        all inputs, which becomes a dimension of unknown size with this name.
      outputs: names of what the function returns.
      opset: version of the ONNX operators, at least 18.
      keep_weights: leaves it to what runs the graph to multiply weights by what follows them, so
        that they are stored with the values that they have in JAX.

    Raises:
      UserError: the function uses a primitive of JAX, or a form of one, that has no rule here; or
        the opset is too old.
    """
    if opset < 18:
        raise UserError(f"opset={opset}: the ONNX operators of version 18 or later are used")
    closed = jax.make_jaxpr(function)(*inputs.values())
    if len(outputs) != len(closed.out_avals):
        raise UserError(f"{len(outputs)} names for {len(closed.out_avals)} outputs")
    graph = Graph()
    batch = _batch([x.shape for x in inputs.values()])
    arguments = []
    for name, given in inputs.items():
        shape = rules.sizes(given.shape, batch)
        graph.dims[name] = shape
        if shape and shape[0] == BATCH:
            graph.batch_of = name
        arguments.append(Value(shape, np.dtype(given.dtype), name, tuple(range(len(shape)))))
    walk = Walk(graph, batch)
    found = walk.run(closed.jaxpr, [walk.known(x) for x in closed.consts], arguments)
    _name_outputs(graph, found, outputs)
    fold.simplify(graph, outputs, keep_weights)
    return _model(graph, arguments, [*zip(outputs, found, strict=True)], batch, opset)


class Walk:
    """Visits a program, equation by equation, and adds nodes to a graph."""

    def __init__(self, graph: Graph, batch: Any):
        """Takes the graph and the symbol of the batch size, or None."""
        self.graph, self.batch = graph, batch

    def known(self, array: Any) -> Value:
        """Returns a constant as a value."""
        array = np.asarray(array)
        return Value(array.shape, array.dtype, const=array)

    def run(self, jaxpr: Any, consts: Sequence[Value], args: Sequence[Value]) -> list[Value]:
        """Visits a program; returns its results."""
        found: dict[Any, Value] = {}
        found.update(zip(jaxpr.constvars, consts, strict=True))
        found.update(zip(jaxpr.invars, args, strict=True))

        def read(variable: Any) -> Value:
            if isinstance(variable, core.Literal):
                aval: Any = variable.aval
                return self.known(np.asarray(variable.val, aval.dtype))
            return found[variable]

        for equation in jaxpr.eqns:
            values = [read(variable) for variable in equation.invars]
            found.update(zip(equation.outvars, self._results(equation, values), strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _results(self, equation: Any, values: list[Value]) -> list[Value]:
        name = equation.primitive.name
        if name in control.RULES:
            return control.RULES[name](self, equation, values)
        out = [
            jax.ShapeDtypeStruct(rules.sizes(x.aval.shape, self.batch), x.aval.dtype)
            for x in equation.outvars
        ]
        if (computed := rules.computed(equation, values, out)) is not None:
            return computed
        if name not in rules.RULES:
            raise UserError(f"ONNX: there is no rule for JAX's primitive '{name}'")
        params = {
            key: rules.sizes(value, self.batch) if type(value) is tuple else value
            for key, value in equation.params.items()
        }
        results = rules.RULES[name](self.graph, values, params, out)
        return results if isinstance(results, list) else [results]


def _batch(shapes: Sequence[Sequence[Any]]) -> Any:
    """Returns the one symbol in these shapes, or None."""
    symbols = {str(size): size for shape in shapes for size in shape if not isinstance(size, int)}
    leading = {str(shape[0]) for shape in shapes if shape}
    if len(symbols) > 1 or not symbols.keys() <= leading:
        raise UserError(f"sizes {', '.join(symbols)}: only the batch, the leading one, may be open")
    return next(iter(symbols.values()), None)


def _name_outputs(graph: Graph, found: Sequence[Value], outputs: Sequence[str]) -> None:
    """Adds a node for each output that gives it its name, shape and order of axes."""
    for name, value in zip(outputs, found, strict=True):
        graph.nodes.append(Node("Identity", [graph.tensor(value)], [name]))
        graph.dims[name] = value.shape


def _model(
    graph: Graph,
    inputs: Sequence[Value],
    outputs: Sequence[tuple[str, Value]],
    batch: Any,
    opset: int,
) -> Any:
    import onnx
    from onnx import helper, numpy_helper

    def described(name: str, shape: Shape, dtype: Any) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(stored(np.zeros(0, dtype)).dtype)
        dims = [str(batch) if is_dynamic(size) else size for size in shape]
        return helper.make_tensor_value_info(name, kind, dims)

    nodes = [
        helper.make_node(node.op, node.inputs, node.outputs, name=node.outputs[0], **node.attrs)
        for node in graph.nodes
    ]
    used = {name for node in graph.nodes for name in node.inputs}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "detector",
            [described(value.name, value.shape, value.dtype) for value in inputs],
            [described(name, value.shape, value.dtype) for name, value in outputs],
            [
                numpy_helper.from_array(array, name)
                for name, array in graph.constants.items()
                if name in used
            ],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
        producer_name="flowad_jax",
    )
    onnx.checker.check_model(model)
    return model
