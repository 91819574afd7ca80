"""Rules for primitives that contain programs: calls, branches, loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.extend import core

from flowad_jax.errors import UserError
from flowad_jax.onnx.layout import Value
from flowad_jax.onnx.rules_select import taken
from flowad_jax.onnx.rules_shape import stacked

if TYPE_CHECKING:
    from flowad_jax.onnx.convert import Walk

Rule = Callable[["Walk", Any, list[Value]], list[Value]]

MOST_STEPS = 256  # of a loop that is written out


def call(walk: Walk, equation: Any, values: list[Value]) -> list[Value]:
    """Visits the program that is called."""
    params = equation.params
    program = params.get("jaxpr") or params.get("call_jaxpr") or params.get("fun_jaxpr")
    consts = [walk.known(x) for x in getattr(program, "consts", ())]
    return walk.run(getattr(program, "jaxpr", program), consts, values)


def linear_solve(walk: Walk, equation: Any, values: list[Value]) -> list[Value]:
    """Visits the program that solves the system."""
    lengths, program = equation.params["const_lengths"], equation.params["jaxprs"].solve
    first = lengths.matvec + lengths.vecmat
    given, right = values[first : first + lengths.solve], values[sum(lengths) :]
    consts = [walk.known(x) for x in program.consts]
    return walk.run(program.jaxpr, consts, [*given, *right])


def platform(walk: Walk, equation: Any, values: list[Value]) -> list[Value]:
    """Chooses the branch for platforms that are not named, which has no detours for XLA."""
    return [walk.known(np.int32(len(equation.params["platforms"]) - 1))]


def branch(walk: Walk, equation: Any, values: list[Value]) -> list[Value]:
    """Visits the branch that a constant chooses."""
    index = values[0].const
    if index is None:
        raise UserError("ONNX: there is no rule for JAX's primitive 'cond' that an input decides")
    branches = equation.params["branches"]
    program = branches[min(max(int(index), 0), len(branches) - 1)]
    return walk.run(program.jaxpr, [walk.known(x) for x in program.consts], values[1:])


def scan(walk: Walk, equation: Any, values: list[Value]) -> list[Value]:
    """Takes all steps at once where they do not depend on each other, else one after the other."""
    consts, carried = _counts(equation.params)
    step = _step_by_step if carried else _at_once
    return step(walk, equation, values, consts)


def _counts(params: Any) -> tuple[int, int]:
    """How many inputs of a loop stay the same, and how many each step hands on to the next."""
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # jax 0.12
    return len(consts), len(carry)


def _at_once(walk: Walk, equation: Any, values: list[Value], consts: int) -> list[Value]:
    program = equation.params["jaxpr"]
    shapes = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in equation.invars]
    axes = [None] * consts + [0] * (len(values) - consts)
    body = jax.make_jaxpr(jax.vmap(core.jaxpr_as_fun(program), in_axes=axes))(*shapes)
    return walk.run(body.jaxpr, [walk.known(x) for x in body.consts], values)


def _step_by_step(walk: Walk, equation: Any, values: list[Value], first: int) -> list[Value]:
    params, graph = equation.params, walk.graph
    program, length = params["jaxpr"], params["length"]
    if not isinstance(length, int) or length > MOST_STEPS:
        raise UserError(f"ONNX: a loop (JAX's primitive 'scan') of {length} dependent steps")
    last = first + _counts(params)[1]
    given, carry, series = values[:first], values[first:last], values[last:]
    consts = [walk.known(x) for x in program.consts]
    steps = range(length)
    rows: list[list[Value]] = [[] for _ in steps]
    for step in reversed(steps) if params["reverse"] else steps:
        now = [taken(graph, value, 0, step) for value in series]
        results = walk.run(program.jaxpr, consts, [*given, *carry, *now])
        carry, rows[step] = results[: len(carry)], results[len(carry) :]
    columns = [stacked(graph, column) for column in zip(*rows, strict=True)]
    return [*carry, *columns]


CALLS = (
    *("pjit", "jit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call"),
    *("custom_vjp_call", "custom_vjp_call_jaxpr", "remat2"),
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(CALLS, call),
    "custom_linear_solve": linear_solve,
    "platform_index": platform,
    "cond": branch,
    "scan": scan,
}
