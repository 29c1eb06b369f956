"""Node, Graph and Builder: a computational graph of gates.

In:   gates applied to values, through a `Builder`.
Out:  a `Graph`: inputs, named outputs, and every node between, in order of creation.
Invariant: nodes are immutable and interned per builder (equal operation, operands and attributes
are one node), inputs are nominal, types are derived and never passed, and nothing here recurses.

>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> print(b.graph("twice", {"y": x + x}))
graph twice(x: f64[n])
  %1 = add %x, %x : f64[n]
return y=%1
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import GateError
from graphc.ir.scalar import from_bits, to_bits
from graphc.ir.types import Dim, DType, Size, TensorType, i64

if TYPE_CHECKING:
    from graphc.gates.gate import Gate

_serial = itertools.count()
_serial_of = operator.attrgetter("serial")


class Node:
    """One gate applied to operands. Identity is equality; a builder makes equal nodes identical."""

    __slots__ = ("__weakref__", "args", "attrs", "op", "serial", "type")

    def __init__(
        self, op: str, args: tuple[Node, ...], attrs: tuple[tuple[str, Any], ...], ty: TensorType
    ) -> None:
        self.op, self.args, self.attrs, self.type = op, args, attrs, ty
        self.serial = next(_serial)

    def __getitem__(self, attr: str) -> Any:
        for name, value in self.attrs:
            if name == attr:
                return value
        raise KeyError(f"{self.op} has no attribute {attr!r}")

    def __repr__(self) -> str:
        return f"<{self.op} : {self.type}>"

    @property
    def gate(self) -> Gate:
        return _gates()[self.op]


@cache
def _gates() -> Mapping[str, Gate]:
    from graphc.gates.gate import registry

    return registry()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node comes from: the user's line, and the part of graphc that made it, if any."""

    file: str
    line: int
    made_by: str = ""

    def __str__(self) -> str:
        place = f"{self.file.rsplit('/', 1)[-1]}:{self.line}"
        return f"{place} {self.made_by}".rstrip()


Origins = tuple[Origin, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """A closed graph. `origins` is a side table, no part of identity."""

    name: str
    inputs: tuple[Node, ...]
    outputs: tuple[tuple[str, Node], ...]
    origins: Mapping[Node, Origins] = field(default_factory=dict, repr=False)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Inputs first, then every node that an output needs, operands before users."""
        found = reachable(node for _, node in self.outputs)
        inputs = set(self.inputs)
        return (*self.inputs, *(n for n in found if n not in inputs))

    @property
    def output_nodes(self) -> tuple[Node, ...]:
        return tuple(node for _, node in self.outputs)

    @cached_property
    def sizes(self) -> tuple[str, ...]:
        """The named sizes of the inputs, sorted."""
        return tuple(
            sorted(
                {
                    s
                    for n in self.inputs
                    for d in n.type.shape
                    if isinstance(d, Dim)
                    for s in d.symbols()
                }
            )
        )

    def users(self) -> dict[Node, list[Node]]:
        users: dict[Node, list[Node]] = {n: [] for n in self.nodes}
        for n in self.nodes:
            for a in n.args:
                users[a].append(n)
        return users

    def origin(self, node: Node) -> Origin | None:
        found = self.origins.get(node)
        return found[0] if found else None

    def place(self, node: Node) -> str:
        """` at model.py:12`, for messages; nothing where the origin is not known."""
        found = self.origin(node)
        return f" at {found}" if found else ""

    def __str__(self) -> str:
        from graphc.ir.text import print_graph

        return print_graph(self)

    def __repr__(self) -> str:
        counts = {"inputs": self.inputs, "nodes": self.nodes, "outputs": self.outputs}
        return f"<graph {self.name}: {', '.join(f'{len(v)} {k}' for k, v in counts.items())}>"


def is_splat(node: Node) -> bool:
    """A constant that is one number everywhere."""
    return node.op == "constant" and len(node["data"]) == node.type.dtype.itemsize


def reachable(roots: Iterable[Node]) -> list[Node]:
    """Every node that the roots need, by order of creation, which puts operands before users."""
    pending = list(roots)
    seen = set(pending)
    for node in pending:  # grows while it runs
        for a in node.args:
            if a not in seen:
                seen.add(a)
                pending.append(a)
    return sorted(seen, key=_serial_of)


class _Places:
    """While it is open, a builder's nodes are said to come from these places."""

    __slots__ = ("at", "before", "builder")

    def __init__(self, builder: Builder, at: Origins) -> None:
        self.builder, self.at = builder, at

    def __enter__(self) -> None:
        self.before, self.builder.at = self.builder.at, self.at

    def __exit__(self, *_: object) -> None:
        self.builder.at = self.before


class Builder:
    """Makes nodes. Nodes of other graphs come in by `copy` alone."""

    def __init__(self) -> None:
        from graphc.gates.gate import registry

        self._registry = registry()
        self._interned: dict[tuple, Node] = {}
        self._types: dict[TensorType, TensorType] = {}  # equal types are one, and quick to compare
        self.inputs: list[Node] = []
        self.origins: dict[Node, Origins] = {}
        self.at: Origins = ()  # what new nodes are said to come from
        self._made: dict[tuple[str, int], tuple[Origins, Origins]] = {}

    def input(self, name: str, ty: TensorType) -> Value:
        """A new input, distinct from every other, even of the same name."""
        node = Node("input", (), (("name", name),), self._types.setdefault(ty, ty))
        self.inputs.append(node)
        if self.at:
            self.origins[node] = self.at
        return Value(self, node)

    def add(self, op: str, args: tuple[Node, ...], attrs: Mapping[str, Any] | None = None) -> Node:
        """The node of a gate and its operands, an earlier one where it is equal."""
        items = tuple(sorted(attrs.items())) if attrs else ()
        key = op, args, items
        node = self._interned.get(key)
        if node is None:
            ty = self._registry[op].infer([a.type for a in args], attrs or {})
            node = self._new(key, ty, self.at)
        return node

    def _new(
        self,
        key: tuple[str, tuple[Node, ...], tuple[tuple[str, Any], ...]],
        ty: TensorType,
        origins: Origins,
    ) -> Node:
        args = key[1]
        if not args or ty is not args[0].type:
            ty = self._types.setdefault(ty, ty)
        node = self._interned[key] = Node(*key, ty)
        if origins:
            self.origins[node] = origins
        return node

    def apply(self, op: str, /, *args: Value, **attrs: Any) -> Value:
        return Value(self, self.add(op, tuple([a.node for a in args]), attrs))

    def constant(self, value: Any, ty: TensorType) -> Value:
        """A number everywhere in a type."""
        data = to_bits(value, ty.dtype).to_bytes(ty.dtype.itemsize, "little")
        return Value(self, self._constant(data, ty))

    def _constant(self, data: bytes, ty: TensorType) -> Node:
        key = "constant", (), (("data", data), ("type", ty))
        return self._interned.get(key) or self._new(key, ty, self.at)

    def array(self, value: np.ndarray, ty: TensorType) -> Value:
        """A small constant array, copied."""
        data = np.ascontiguousarray(value, ty.dtype.numpy)
        flat = data.reshape(-1)
        if flat.size and all(v.tobytes() == flat[0].tobytes() for v in flat):
            return Value(self, self._constant(flat[0].tobytes(), ty))
        return Value(self, self._constant(data.tobytes(), ty))

    def size(self, size: Size) -> Value:
        """A size as an i64 value."""
        if isinstance(size, int):
            return self.constant(size, TensorType(i64))
        return Value(self, self.add("size", (), {"size": size}))

    def made_by(self, what: str, origins: Origins | None) -> _Places:
        """Nodes made inside come from these places, through this part of graphc."""
        return _Places(self, self.through(what, origins, self.at))

    def through(self, what: str, origins: Origins | None, unknown: Origins) -> Origins:
        """The same places, with what was made there; remembered, as many nodes share them."""
        if not origins:
            return unknown
        found = self._made.get((what, id(origins)))
        if found is None:
            made = tuple([Origin(o.file, o.line, what or o.made_by) for o in origins])
            found = self._made[what, id(origins)] = (made, origins)  # kept, so that the id is
        return found[0]

    def copy(self, node: Node, args: tuple[Node, ...], origins: Origins | None) -> Node:
        """The node of another graph over operands of this builder."""
        key = node.op, args, node.attrs
        found = self._interned.get(key)
        if found is not None:
            return found
        # A type is derived anew where an operand's has changed.
        ty = node.type
        for a, b in zip(args, node.args, strict=True):
            if a.type is not b.type and a.type != b.type:
                ty = self._registry[node.op].infer([a.type for a in args], dict(node.attrs))
                break
        return self._new(key, ty, origins or self.at)

    def inline(self, graph: Graph, operands: Sequence[Value]) -> dict[Node, Value]:
        """A graph's outputs over operands in place of its inputs: {node of the graph: value}."""
        mapping = {n: v.node for n, v in zip(graph.inputs, operands, strict=True)}
        origins = graph.origins
        for node in graph.nodes:
            if node not in mapping:
                args = tuple([mapping[a] for a in node.args])
                mapping[node] = self.copy(node, args, origins.get(node))
        return {n: Value(self, mapping[n]) for _, n in graph.outputs}

    def substitute(self, values: Sequence[Value], replaced: Mapping[Node, Value]) -> list[Value]:
        """The same values with nodes, such as the inputs of a nested trace, replaced by others."""
        mapping = {n: v.node for n, v in replaced.items()}
        for node in reachable(v.node for v in values):
            if node not in mapping:
                args = tuple([mapping[a] for a in node.args])
                mapping[node] = (
                    node if args == node.args else self.copy(node, args, self.origins.get(node))
                )
        return [Value(self, mapping[v.node]) for v in values]

    def graph(
        self, name: str, outputs: Mapping[str, Value], inputs: Sequence[Value] | None = None
    ) -> Graph:
        ins = tuple(self.inputs) if inputs is None else tuple(v.node for v in inputs)
        outs = tuple((n, v.node) for n, v in outputs.items())
        kept, own = reachable([*ins, *(n for _, n in outs)]), set(ins)
        for n in kept:
            if n.op == "input" and n not in own:
                raise GateError(
                    f"graph {name} uses the input {n['name']!r}, which is not one of its own"
                )
        made = Graph(name, ins, outs, {n: self.origins[n] for n in kept if n in self.origins})
        made.__dict__["nodes"] = (*ins, *[n for n in kept if n not in own])  # as it would find them
        return made


def open_graph(graph: Graph) -> tuple[Builder, dict[Node, Value]]:
    """A builder that holds fresh copies of a graph's inputs, to build a new graph over them."""
    builder = Builder()
    fresh = {}
    for n in graph.inputs:
        builder.at = graph.origins.get(n, ())
        fresh[n] = builder.input(n["name"], n.type)
    builder.at = ()
    return builder, fresh


class Value:
    """A handle on a node, with operators, for the passes and transforms.

    Nothing is promoted or broadcast; numbers become constants of the handle's own type.
    """

    __slots__ = ("builder", "node")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, builder: Builder, node: Node) -> None:
        self.builder, self.node = builder, node

    @property
    def type(self) -> TensorType:
        return self.node.type

    @property
    def dtype(self) -> DType:
        return self.node.type.dtype

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.node.type.shape

    def __repr__(self) -> str:
        return f"Value({self.node!r})"

    def apply_gate(self, gate: Gate, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Value:
        # A choice's first operand is a bool, whatever the others are.
        if all([isinstance(a, Value) for a in args]):
            nodes = tuple([a.node for a in args])
        else:
            choice = getattr(gate, "choice", False)
            like = next((a for a in args[choice:] if isinstance(a, Value)), self)
            nodes = tuple([a.node if isinstance(a, Value) else like.constant(a).node for a in args])
        return Value(self.builder, self.builder.add(gate.name, nodes, attrs))

    def constant(self, value: Any) -> Value:
        """A number in this value's type."""
        return self.builder.constant(value, self.type)

    def zeros_like(self) -> Value:
        return self.builder.constant(0, self.type)

    def is_splat(self) -> bool:
        return is_splat(self.node)

    def splat(self) -> Any:
        return from_bits(int.from_bytes(self.node["data"], "little"), self.dtype)

    def _binary(self, op: str, other: Operand, swapped: bool = False) -> Value:
        o = other if isinstance(other, Value) else self.constant(other)
        a, b = (o, self) if swapped else (self, o)
        return Value(self.builder, self.builder.add(op, (a.node, b.node)))

    def __add__(self, other: Operand) -> Value:
        return self._binary("add", other)

    def __radd__(self, other: Operand) -> Value:
        return self._binary("add", other, True)

    def __sub__(self, other: Operand) -> Value:
        return self._binary("sub", other)

    def __rsub__(self, other: Operand) -> Value:
        return self._binary("sub", other, True)

    def __mul__(self, other: Operand) -> Value:
        return self._binary("mul", other)

    def __rmul__(self, other: Operand) -> Value:
        return self._binary("mul", other, True)

    def __truediv__(self, other: Operand) -> Value:
        return self._binary("div", other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self._binary("div", other, True)

    def __neg__(self) -> Value:
        return Value(self.builder, self.builder.add("neg", (self.node,)))

    # Shapes, spelled as methods so that partials and transposes read as formulas.

    def broadcast(self, shape: Sequence[Size]) -> Value:
        shape = tuple(shape)
        return self if self.shape == shape else self.builder.apply("broadcast", self, shape=shape)

    def expand(self, axis: int) -> Value:
        return self.builder.apply("expand_dims", self, axes=(axis,))

    def along(self, axis: int, like: Value) -> Value:
        """A reduction's result, repeated along the reduced axis to the operand's shape."""
        return self.expand(axis).broadcast(like.shape)

    def sum(self, axis: int) -> Value:
        return self.builder.apply("sum", self, axis=axis, order=sum_order(self.type, axis))

    def cast(self, dtype: DType) -> Value:
        return self if self.dtype is dtype else self.builder.apply("cast", self, dtype=dtype)

    def reshape(self, shape: Sequence[Size]) -> Value:
        shape = tuple(shape)
        return self if self.shape == shape else self.builder.apply("reshape", self, shape=shape)

    def transposed(self, perm: Sequence[int]) -> Value:
        perm = tuple(perm)
        return (
            self
            if perm == tuple(range(len(perm)))
            else self.builder.apply("transpose", self, perm=perm)
        )


Operand = Value | int | float | bool


def sum_order(ty: TensorType, axis: int) -> str:
    """The order of a sum, set once: `lanes` over the last axis, `rows` over another."""
    if not ty.dtype.is_float:
        return "any"
    return "lanes" if axis == ty.rank - 1 else "rows"
