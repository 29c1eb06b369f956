"""Inlining: a declared graph's nodes over another trace's operands and sizes.

In:   a `Traced` with sizes such as n, and values whose sizes are numbers, other names, or n again.
Out:  its outputs over those values.
Invariant: types are derived anew, so a graph means inside of another what it means alone.

>>> from graphc.ir.types import Dim, parse_size
>>> replaced(parse_size("max(n-1,0)+m"), {"n": 5, "m": Dim.symbol("k")})
Dim('k+4')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.dsl.promote import mismatch
from graphc.dsl.recorder import Recorder, place_text, user_place
from graphc.dsl.tensor import Tensor
from graphc.dsl.trace import Traced
from graphc.errors import DTypeError, SignatureError
from graphc.ir.graph import Builder, Graph, Node, Value
from graphc.ir.types import Dim, Size, TensorType, size_floordiv, size_max, size_min

Sizes = Mapping[str, Size]
_ATOMS = {"floordiv": size_floordiv, "max": size_max, "min": size_min}


def replaced(size: Size, env: Sizes) -> Size:
    """A size with other sizes in place of its names."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, c in size.terms:
        term: Size = c
        for atom in monomial:
            if isinstance(atom, str):
                term = term * env.get(atom, Dim.symbol(atom))
            else:
                term = term * _ATOMS[atom[0]](replaced(atom[1], env), replaced(atom[2], env))
        total = total + term
    return total


def inline(
    recorder: Recorder, traced: Traced, operands: Sequence[Tensor], names: Sequence[str]
) -> list[Tensor]:
    """The outputs of a traced function for these operands."""
    env = _sizes(recorder, traced, operands, names)
    values = [
        _fitted(recorder, x, n, env, name) for x, n, name in zip(operands, traced.arguments, names)
    ]
    values += [recorder.lift(array) for array in traced.captured]
    made = dict(zip(traced.graph.inputs, (v.node for v in values), strict=True))
    outputs = copied(recorder, traced.graph, made, env)
    return [Tensor(Value(recorder, n)) for n in outputs]


def _sizes(
    recorder: Recorder, traced: Traced, operands: Sequence[Tensor], names: Sequence[str]
) -> Sizes:
    """The operands' sizes by the declared names."""
    env: dict[str, Size] = {}
    for x, node, name in zip(operands, traced.arguments, names):
        if x.ndim != node.type.rank:
            recorder.fail(
                SignatureError,
                f"{traced.name}: argument {name} is {node.type}, got {x.type}",
                **{"got": x.value},
            )
        for declared, size in zip(node.type.shape, x.shape):
            if (
                isinstance(declared, Dim)
                and declared.text.isidentifier()
                and env.setdefault(declared.text, size) != size
            ):
                text = f"{traced.name}: argument {name} is {node.type}, got {x.type}"
                text = f"{text}; {declared} is {env[declared.text]} before"
                raise mismatch(recorder, text, {"got": x.value}, env[declared.text], size)
    return env


def _fitted(recorder: Recorder, x: Tensor, node: Node, env: Sizes, name: str) -> Value:
    """An operand in the declared dtype, its shape checked."""
    for declared, size in zip(node.type.shape, x.shape):
        if replaced(declared, env) != size:
            wanted = replaced(declared, env)
            text = f"argument {name} is {node.type}, got {x.type}: sizes {wanted} and {size}"
            raise mismatch(recorder, text, {"got": x.value}, wanted, size)
    if not _holds(node.type, x):
        raise DTypeError(
            f"argument {name} is {node.type}, got {x.type} at {place_text(user_place())}: convert "
            "it with .astype(...)"
        )
    return x.value.cast(node.type.dtype)


def _holds(ty: TensorType, x: Tensor) -> bool:
    import numpy as np

    casting = "same_kind" if x.weak else "safe"
    return np.can_cast(x.dtype, ty.dtype.numpy, casting)  # type: ignore[arg-type]


def copied(builder: Builder, graph: Graph, made: dict[Node, Node], env: Sizes) -> list[Node]:
    """A graph's outputs in another builder; `made` maps its inputs."""
    regions: dict[Graph, Graph] = {}
    before = builder.at
    for node in graph.nodes:
        if node not in made:
            attrs = {k: _attribute(v, env, regions) for k, v in node.attrs}
            builder.at = graph.origins.get(node, before)
            made[node] = builder.add(node.op, tuple(made[a] for a in node.args), attrs)
    builder.at = before
    return [made[n] for n in graph.output_nodes]


def _attribute(value: Any, env: Sizes, regions: dict[Graph, Graph]) -> Any:
    """An attribute under other sizes; a region becomes another region."""
    if isinstance(value, Dim):
        return replaced(value, env)
    if isinstance(value, TensorType):
        return value.with_shape(replaced(s, env) for s in value.shape)
    if isinstance(value, tuple):
        return tuple(_attribute(v, env, regions) for v in value)
    if isinstance(value, Graph):
        if value not in regions:
            regions[value] = resized(value, env)
        return regions[value]
    return value


def resized(graph: Graph, env: Sizes) -> Graph:
    """The same graph for other sizes."""
    builder = Builder()
    made: dict[Node, Node] = {}
    for n in graph.inputs:
        made[n] = builder.input(n["name"], _attribute(n.type, env, {})).node
    outputs = copied(builder, graph, made, env)
    named = {name: Value(builder, n) for (name, _), n in zip(graph.outputs, outputs)}
    return builder.graph(graph.name, named)
