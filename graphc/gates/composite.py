"""Composite gates: written in other gates, with a derivative of their own.

`forward` is the meaning; `simplify` puts it in place of the node. `backward`, where there is one,
is the adjoint; without one the forward is differentiated. A user's `graphc.Gate` is the composite
`call`, whose forward and backward are graphs that the node carries.

>>> from graphc.ir.types import f64
>>> logsumexp.infer([f64["n", 3]], {"axis": 1})
f64[n]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import DTypeError, GateError, ShapeError
from graphc.gates.elementwise import eq, isfinite, isnan, logical_or, mul0, reciprocal, where
from graphc.gates.exponential import exp, log
from graphc.gates.gate import Attrs, Gate, caller, register
from graphc.ir.types import TensorType, i64

if TYPE_CHECKING:
    from graphc.ir.graph import Node, Value


@dataclass(frozen=True, eq=False)
class Composite(Gate):
    """A gate that stands for a piece of graph."""

    typed: Callable[[Sequence[TensorType], Attrs], TensorType] | None = None
    forward: Callable[..., Value] | None = None  # (*values, **attrs) -> value
    # (ct, out, *values, **attrs) -> cotangents
    backward: Callable[..., tuple[Value | None, ...]] | None = None
    jacobian: str = "of its parts"

    kind: ClassVar[str] = "composite"

    @property
    def structure(self) -> str:  # type: ignore[override]
        return self.jacobian

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        assert self.typed is not None
        return self.typed(types, attrs)

    def expand(self, node: Node, values: Sequence[Value]) -> Value:
        """The graph that the node stands for, over values of the builder that it goes into."""
        assert self.forward is not None
        return self.forward(*values, **dict(node.attrs))

    def has_backward(self, node: Node) -> bool:
        return self.backward is not None

    def cotangents(
        self, node: Node, values: Sequence[Value], out: Value, ct: Value
    ) -> Sequence[Value | None]:
        assert self.backward is not None
        return self.backward(ct, out, *values, **dict(node.attrs))

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        return _run_expanded(self.expand, node, args, sizes)

    def tangent(
        self, node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
    ) -> Value | None:
        """A linear node that stands for the Jacobian; its transpose is the backward."""
        if not out.dtype.is_float or all(t is None for t in tangents):
            return None
        dense = [
            v.zeros_like() if t is None else t
            for v, t in zip(values, tangents, strict=True)
            if v.dtype.is_float
        ]
        return out.builder.apply(
            "jacobian", *dense, out, *values, op=node.op, items=node.attrs, operands=len(values)
        )


def _run_expanded(
    expand: Callable[[Node, Sequence[Value]], Value],
    node: Node,
    args: Sequence[np.ndarray],
    sizes: Mapping[str, int],
) -> np.ndarray:
    from graphc.ir.graph import Builder
    from graphc.ir.reference import run_graph

    builder = Builder()
    inputs = [builder.input(f"x{i}", a.type) for i, a in enumerate(node.args)]
    graph = builder.graph(node.op, {"out": expand(node, inputs)}, inputs)
    return run_graph(graph, args, sizes)[0]


@dataclass(frozen=True, eq=False)
class Jacobian(Gate):
    """The Jacobian of a composite gate, applied to tangents.

    Its operands are the tangents of the gate's float operands, its result, and its operands.
    """

    kind: ClassVar[str] = "composite"
    structure: ClassVar[str] = "of its gate"

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        return types[len(types) - attrs["operands"] - 1]

    def expand(self, node: Node, values: Sequence[Value]) -> Value:
        """The backward, transposed once more, by a cotangent that belongs to no graph."""
        from graphc.ir.graph import Node as NodeOf
        from graphc.ir.graph import Value as ValueOf
        from graphc.transforms.transpose import transpose_linear

        tangents, out, _ = self.parts(node, values)
        builder = out.builder
        ct = ValueOf(builder, NodeOf("input", (), (("name", "ct"),), out.type))
        cts = self.transpose(node, values, ct, ())[: len(tangents)]
        return transpose_linear(builder, cts, tangents, [ct], "")[0]

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        return _run_expanded(self.expand, node, args, sizes)

    def parts(
        self, node: Node, values: Sequence[Value]
    ) -> tuple[Sequence[Value], Value, Sequence[Value]]:
        """Tangents, result and operands of the composite."""
        tangents = len(values) - node["operands"] - 1
        return values[:tangents], values[tangents], values[tangents + 1 :]

    def transpose(
        self, node: Node, values: Sequence[Value], ct: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        _, out, operands = self.parts(node, values)
        of = ct.builder.apply(node["op"], *operands, **dict(node["items"])).node
        gate = of.gate
        assert isinstance(gate, Composite)
        cts = gate.cotangents(of, operands, out, ct)
        of_floats = [c for c, v in zip(cts, operands, strict=True) if v.dtype.is_float]
        return [*of_floats, *(None for _ in range(len(values) - len(of_floats)))]


jacobian = register(
    Jacobian(
        name="jacobian", doc="The Jacobian of a composite gate, applied to tangents.",
        params=("...",), attrs=("items", "op", "operands"), source=caller(1),
    )
)  # fmt: skip


def composite(name: str, doc: str, **fields: Any) -> Composite:
    return register(
        Composite(name=name, doc=doc, params=("x",), attrs=("axis",), source=caller(), **fields)
    )


def _like_operand(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    if not types[0].dtype.is_float:
        raise DTypeError(f"softmax and log_softmax are defined on floats, not on {types[0].dtype}")
    return types[0]


def _without_axis(dtype: Any = None) -> Callable[[Sequence[TensorType], Attrs], TensorType]:
    def typed(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        x, axis = types[0], attrs["axis"]
        if x.dtype.is_bool or not (dtype or x.dtype.is_float):
            raise DTypeError(
                f"{'argmax and argmin are' if dtype else 'logsumexp is'} not defined on {x.dtype}"
            )
        if x.shape[axis] == 0:
            raise ShapeError(f"nothing to choose from along axis {axis} of {x}")
        return TensorType(dtype or x.dtype, tuple(s for i, s in enumerate(x.shape) if i != axis))

    return typed


def _max(x: Value, axis: int) -> Value:
    return x.builder.apply("max", x, axis=axis, order="any")


def _shifted(x: Value, axis: int) -> tuple[Value, Value, Value]:
    """exp(x - shift), its sum, and the shift: the maximum where that is finite, else 0."""
    top = _max(x, axis)
    shift = where(isfinite(top), top, 0.0)
    e = exp(x - shift.along(axis, x))
    return e, e.sum(axis), shift


def _logsumexp(x: Value, axis: int) -> Value:
    _, total, shift = _shifted(x, axis)
    return log(total) + shift


def _logsumexp_backward(ct: Value, out: Value, x: Value, axis: int) -> tuple[Value]:
    """Softmax, 0 where every element is -inf."""
    e, total, _ = _shifted(x, axis)
    scale = where(eq(total, 0.0), total.zeros_like(), reciprocal(total))
    return (mul0(ct.along(axis, x), e * scale.along(axis, x)),)


def _softmax(x: Value, axis: int) -> Value:
    e = exp(x - _max(x, axis).along(axis, x))
    return e / e.sum(axis).along(axis, x)


def _softmax_backward(ct: Value, out: Value, x: Value, axis: int) -> tuple[Value]:
    weighted = mul0(ct, out)
    return (weighted - mul0(weighted.sum(axis).along(axis, x), out),)


def _log_softmax(x: Value, axis: int) -> Value:
    z = x - _max(x, axis).along(axis, x)
    return z - log(exp(z).sum(axis)).along(axis, x)


def _log_softmax_backward(ct: Value, out: Value, x: Value, axis: int) -> tuple[Value]:
    return (ct - mul0(ct.sum(axis).along(axis, x), _softmax(x, axis)),)


def _argmax(x: Value, axis: int, op: str = "max") -> Value:
    """The first index at which the extremum, or a NaN, stands."""
    builder = x.builder
    extreme = builder.apply(op, x, axis=axis, order="any").along(axis, x)
    found = eq(x, extreme)
    found = logical_or(found, isnan(x)) if x.dtype.is_float else found
    index = builder.apply("iota", axis=axis, shape=x.shape)
    return builder.apply(
        "min", where(found, index, index.constant(2**63 - 1)), axis=axis, order="any"
    )


logsumexp = composite(
    "logsumexp", "log(sum(exp(x))) along an axis without overflow; -inf where all are.",
    typed=_without_axis(), forward=_logsumexp, backward=_logsumexp_backward,
    jacobian="dense row: softmax",
)  # fmt: skip
softmax = composite(
    "softmax", "exp(x) / sum(exp(x)) along an axis.", typed=_like_operand,
    forward=_softmax, backward=_softmax_backward, jacobian="diagonal minus rank one",
)  # fmt: skip
log_softmax = composite(
    "log_softmax", "x - logsumexp(x) along an axis.", typed=_like_operand,
    forward=_log_softmax, backward=_log_softmax_backward, jacobian="identity minus rank one",
)  # fmt: skip
argmax = composite(
    "argmax", "The first index of the largest along an axis; of the first NaN if there is one.",
    typed=_without_axis(i64), forward=_argmax, backward=None, jacobian="zero",
)  # fmt: skip
argmin = composite(
    "argmin", "The first index of the smallest along an axis; of the first NaN if there is one.",
    typed=_without_axis(i64), forward=lambda x, axis: _argmax(x, axis, "min"), backward=None,
    jacobian="zero",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Call(Composite):
    """A user's gate: forward and backward are closed graphs, traced on the operands' types.

    The backward's inputs are the cotangent and then the operands; its outputs are the operands'
    cotangents, one for each float operand.
    """

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        forward = attrs["forward"]
        if [n.type for n in forward.inputs] != list(types):
            raise GateError(
                f"gate {attrs['label']} was traced on other types: {', '.join(map(str, types))}"
            )
        return forward.outputs[0][1].type

    def expand(self, node: Node, values: Sequence[Value]) -> Value:
        forward = node["forward"]
        return values[0].builder.inline(forward, values)[forward.outputs[0][1]]

    def has_backward(self, node: Node) -> bool:
        return node["backward"] is not None

    def cotangents(
        self, node: Node, values: Sequence[Value], out: Value, ct: Value
    ) -> Sequence[Value | None]:
        backward = node["backward"]
        inlined = ct.builder.inline(backward, [ct, *values])
        results = iter([inlined[n] for _, n in backward.outputs])
        return [next(results) if v.dtype.is_float else None for v in values]


call = register(
    Call(
        name="call", doc="A user's gate, with the graphs of its forward and backward.",
        params=("...",), attrs=("backward", "forward", "label"), source=caller(1),
    )
)  # fmt: skip
