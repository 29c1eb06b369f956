"""Scans: the running values of a recurrence along an axis, one element after the other.

Every element is combined with what came before it, strictly in sequence from the first on (with
`reverse`, from the last): `cumsum` and `cumprod` have NumPy's bits, and no schedule or thread can
change one. `recurrence` is s[i] = a[i] * s[i-1] + b[i]. It is linear in b, and its transpose is a
recurrence that runs the other way; the tangents of all scans are scans. So the gradient of cumprod
takes two scans, divides by nothing, and is exact where elements are zero (or where a cotangent is,
whatever the elements are: the product is `mul0`).

>>> run_scan("cumsum", [np.array([[1.0, 2.0], [3.0, 4.0]])], 0)
array([[1., 2.],
       [4., 6.]])
>>> run_scan("recurrence", [np.array([9.0, 2.0, 0.0]), np.array([1.0, 1.0, 5.0])], 0)
array([1., 3., 5.])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

import graphc.ir.scalar as s
from graphc.errors import DTypeError, ShapeError
from graphc.gates.elementwise import _ACCEPTS, mul0
from graphc.gates.gate import Attrs, Gate, caller, check_one_shape, register, registry
from graphc.ir.scalar import Scalar, ScalarGraph, from_bits, to_bits, trace_scalar
from graphc.ir.types import DTYPES, DType, TensorType, bool_, size_max

if TYPE_CHECKING:
    from graphc.ir.graph import Node, Value


@dataclass(frozen=True, eq=False)
class Scan(Gate):
    """The running values of one step, made again and again along an axis."""

    step: Callable[..., Scalar] | None = None  # (value before, operands) -> value
    start: Callable[[DType], float | int] | None = None  # before the first: it changes no bit of it
    tangents: Callable[[Node, Sequence[Value], Value, Sequence[Value | None]], Value] | None = None
    transposed: Callable[[Node, Sequence[Value], Value], Sequence[Value | None]] | None = None
    accepts: str = "number"
    jacobian: str = "triangle"

    kind: ClassVar[str] = "scan"

    @property
    def structure(self) -> str:  # type: ignore[override]
        return self.jacobian

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        check_one_shape(self.name, types)
        axis = attrs["axis"]
        if not 0 <= axis < types[0].rank:
            raise ShapeError(f"{self.name}: axis {axis} of {types[0]}")
        for t in types:
            if t.dtype is not types[0].dtype or not _ACCEPTS[self.accepts](t.dtype):
                raise DTypeError(f"{self.name} is not defined on {', '.join(map(str, types))}")
        return types[0]

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        return run_scan(self.name, args, node["axis"], node["reverse"])

    def tangent(
        self, node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
    ) -> Value | None:
        if all(t is None for t in tangents):
            return None
        assert self.tangents is not None
        return self.tangents(node, values, out, tangents)

    def transpose(
        self, node: Node, values: Sequence[Value], ct: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        if self.transposed is None:
            return super().transpose(node, values, ct, linear)
        return self.transposed(node, values, ct)


def scan_gate(name: str) -> Scan:
    gate = registry()[name]
    assert isinstance(gate, Scan)
    return gate


@cache
def step_of(name: str, dtype: DType) -> ScalarGraph:
    """One step: the value before and an element of each operand -> the value."""
    gate = scan_gate(name)
    assert gate.step is not None
    return trace_scalar(f"{name}.{dtype}", gate.step, (dtype,) * (1 + len(gate.params)))


@cache
def start_of(name: str, dtype: DType) -> int:
    """The bits of the value before the first."""
    gate = scan_gate(name)
    assert gate.start is not None
    return to_bits(gate.start(dtype), dtype)


def run_scan(
    name: str, operands: Sequence[np.ndarray], axis: int, reverse: bool = False
) -> np.ndarray:
    """A scan's values over arrays, step after step."""
    from graphc.ir.reference import run_scalar

    dtype = DTYPES[{"f": "f", "i": "i"}[operands[0].dtype.kind] + str(8 * operands[0].itemsize)]
    step, along = step_of(name, dtype), [np.moveaxis(x, axis, 0) for x in operands]
    out = np.empty(along[0].shape, dtype.numpy)
    value = np.full(out.shape[1:], from_bits(start_of(name, dtype), dtype), dtype.numpy)
    for i in range(len(out))[:: -1 if reverse else 1]:
        out[i] = value = run_scalar(step, value, *(x[i] for x in along))
    return np.moveaxis(out, 0, axis)


def scan(name: str, doc: str, **fields: object) -> Scan:
    return register(
        Scan(name=name, doc=doc, attrs=("axis", "reverse"), source=caller(), **fields)  # type: ignore[arg-type]
    )


# -- what came before ------------------------------------------------------------------------------


def moved_on(x: Value, axis: int, by: int, fill: float) -> Value:
    """x[i - by] along an axis; a number where there is no such element. `by` is 1 or -1."""
    rank, n = len(x.shape), x.shape[axis]

    def at(start: int) -> tuple[int, ...]:
        return tuple(start if i == axis else 0 for i in range(rank))

    kept = tuple(size_max(n - 1, 0) if i == axis else size for i, size in enumerate(x.shape))
    ones = (1,) * rank
    rest = x.builder.apply("slice", x, starts=at(max(-by, 0)), steps=ones, shape=kept)
    return x.builder.apply(
        "place", rest, starts=at(max(by, 0)), steps=ones, shape=x.shape, fill=to_bits(fill, x.dtype)
    )


def _before(node: Node, x: Value, fill: float) -> Value:
    """What the scan came through just before each element."""
    return moved_on(x, node["axis"], -1 if node["reverse"] else 1, fill)


def _recurrence(node: Node, a: Value, b: Value, turned: bool = False) -> Value:
    reverse = bool(node["reverse"]) != turned
    return b.builder.apply("recurrence", a, b, axis=node["axis"], reverse=reverse)


def _of_product(
    node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
) -> Value:
    (x,), (t,) = values, tangents
    assert t is not None
    return _recurrence(node, x, mul0(t, _before(node, out, 1.0)))


def _of_recurrence(
    node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
) -> Value:
    a, total = tangents[0], tangents[1]
    if a is not None:
        grown = mul0(a, _before(node, out, 0.0))
        total = grown if total is None else grown + total
    assert total is not None
    return _recurrence(node, values[0], total)


def _transposed_recurrence(
    node: Node, values: Sequence[Value], ct: Value
) -> Sequence[Value | None]:
    """An element's cotangent comes from the one after it, by that one's factor."""
    step = 1 if node["reverse"] else -1
    factors = moved_on(values[0], node["axis"], step, 0.0)
    return [None, _recurrence(node, factors, ct, turned=True)]


cumsum = scan(
    "cumsum", "The running sum along an axis, in sequence.", params=("x",),
    step=lambda before, x: before + x, start=lambda d: -0.0 if d.is_float else 0,
    tangents=lambda node, values, out, tangents: out.builder.apply(
        "cumsum", *tangents, **dict(node.attrs)),
    transposed=lambda node, values, ct: [
        ct.builder.apply("cumsum", ct, axis=node["axis"], reverse=not node["reverse"])
    ],
    jacobian="triangle of ones",
)  # fmt: skip
cumprod = scan(
    "cumprod", "The running product along an axis, in sequence.", params=("x",),
    step=lambda before, x: before * x, start=lambda d: 1, tangents=_of_product,
)  # fmt: skip
recurrence = scan(
    "recurrence", "s[i] = a[i] * s[i-1] + b[i] along an axis, rounded once; b[i] if s[i-1] is 0.",
    params=("a", "b"), accepts="float",
    step=lambda before, a, b: s.select(s.convert(before, bool_), s.fma(a, before, b), b),
    start=lambda d: 0.0, tangents=_of_recurrence, transposed=_transposed_recurrence,
)  # fmt: skip
