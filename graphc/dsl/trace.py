"""trace: a Python function -> Graph.

In:   a function, a tree of types for each of its arguments, and their names.
Out:  a `Traced`: the graph, the structures of arguments and results, and the arrays that it
      captured.
Invariant: the graph is closed. Captured arrays above 64 elements are its last inputs, copied at the
trace; smaller ones are constants.

>>> import numpy as np
>>> from graphc.ir.types import f64
>>> traced = trace(lambda p: {"y": p["x"] + np.arange(100.0)}, ({"x": f64[100]},), ("p",))
>>> [n["name"] for n in traced.graph.inputs], traced.graph.outputs[0][0], len(traced.captured)
(['p.x', 'captured_0'], 'y', 1)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc.dsl.protocols  # noqa: F401  what traced values ask for, before the clock of a trace
from graphc.dsl.promote import operand
from graphc.dsl.recorder import INSIDE, Recorder, place_text, recording, user_place
from graphc.dsl.signature import name_of
from graphc.dsl.tensor import Tensor
from graphc.dsl.tree import Structure, as_names, flatten, unflatten
from graphc.errors import SignatureError, TraceError
from graphc.ir.graph import Graph, Origin, Origins, Value, reachable
from graphc.ir.types import TensorType


@dataclass(frozen=True)
class Leaf:
    """The type of an argument that may be a Python number, which is weak."""

    type: TensorType
    weak: bool = False


@dataclass(frozen=True)
class Traced:
    """A function as a graph."""

    graph: Graph
    in_tree: Structure  # of the tuple of arguments
    out_tree: Structure
    captured: tuple[np.ndarray, ...] = ()  # the values of the last inputs

    @property
    def name(self) -> str:
        return self.graph.name

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The inputs that the caller gives."""
        return self.graph.inputs[: len(self.graph.inputs) - len(self.captured)]


def is_type(x: Any) -> bool:
    return isinstance(x, (TensorType, Leaf))


@dataclass
class Recording:
    """A trace whose recorder is still open."""

    recorder: Recorder
    in_tree: Structure
    inputs: list[Value]
    out_tree: Structure
    outputs: dict[str, Value]

    def add_output(self, name: str, value: Value) -> None:
        self.outputs[name] = value

    def closed(self) -> Traced:
        """The graph; nothing can be added any more."""
        self.recorder.is_open = False
        hidden = [value for _, _, value in self.recorder.captured]
        inputs = [*self.inputs, *hidden]
        _check_closed(self.recorder, inputs, self.outputs)
        graph = self.recorder.graph(self.recorder.name, self.outputs, inputs)
        return Traced(
            graph, self.in_tree, self.out_tree, tuple(copy for _, copy, _ in self.recorder.captured)
        )


def trace(
    function: Callable[..., Any],
    types: Sequence[Any],
    names: Sequence[str],
    name: str | None = None,
) -> Traced:
    """The graph of a function for arguments of these types."""
    return record(function, types, names, name).closed()


def record(
    function: Callable[..., Any],
    types: Sequence[Any],
    names: Sequence[str],
    name: str | None = None,
) -> Recording:
    """Run the function on traced arguments."""
    recorder = Recorder(name or name_of(function))
    recorder.at = definition_place(function)
    leaves, leaf_names, in_tree = flatten_arguments(types, names, is_type)
    tensors = [_argument(recorder, n, t) for n, t in zip(as_names(leaf_names), leaves)]
    with recording(recorder):
        result = function(*unflatten(in_tree, tensors))
        outputs, out_tree = lift_results(recorder, result)
    return Recording(recorder, in_tree, [t.value for t in tensors], out_tree, outputs)


def definition_place(function: Callable[..., Any]) -> Origins:
    """The line on which a user's function begins; for one of graphc's, the line that calls it."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or code.co_filename.startswith(INSIDE):
        return user_place()
    return (Origin(code.co_filename, code.co_firstlineno),)


def flatten_arguments(
    values: Sequence[Any], names: Sequence[str], is_leaf: Callable[[Any], bool] | None = None
) -> tuple[list[Any], list[str], Structure]:
    """Leaves of all arguments; a leaf's name begins with its parameter's."""
    leaves: list[Any] = []
    leaf_names: list[str] = []
    children = []
    for value, name in zip(values, names, strict=True):
        found, found_names, structure = flatten(value, name, is_leaf)
        leaves.extend(found)
        leaf_names.extend(found_names)
        children.append(structure)
    return leaves, leaf_names, Structure("tuple", None, tuple(children))


def _argument(recorder: Recorder, name: str, given: TensorType | Leaf) -> Tensor:
    ty, weak = (given.type, given.weak) if isinstance(given, Leaf) else (given, False)
    return Tensor(recorder.input(name, ty), weak)


def lift_results(recorder: Recorder, result: Any) -> tuple[dict[str, Value], Structure]:
    """Results by name: `out`, `out.0`, or the keys of a dict."""
    leaves, names, structure = flatten(result, "" if isinstance(result, dict) else "out")
    if not leaves:
        raise SignatureError(
            f"{recorder.name} returned {result!r}, which has no arrays in it: return what it "
            "computes"
        )
    values = [operand(recorder, leaf).lifted(recorder) for leaf in leaves]
    return dict(zip(as_names(names), values)), structure


def _check_closed(recorder: Recorder, inputs: Sequence[Value], outputs: dict[str, Value]) -> None:
    """Nominal inputs of nested transforms must not have escaped from them."""
    own = {v.node for v in inputs}
    for node in reachable(v.node for v in outputs.values()):
        if node.op == "input" and node not in own:
            raise TraceError(
                f"{recorder.name} returns a value that depends on {node['name']}, the argument of "
                "a nested transform "
                f"({place_text(recorder.origins.get(node))}): return such values through the "
                "transform (has_aux=True)"
            )
