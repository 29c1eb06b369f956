"""Movement: the Jacobian is a selection of rows of the identity, its transpose moves back or adds.

A *view* reads each result element from one operand element through an affine index map, so it costs
nothing inside of a loop. `reshape` keeps the order of elements in memory; `place` and `concat`
write into a larger array.

>>> from graphc.ir.types import f64
>>> transpose.infer([f64["n", 3]], {"perm": (1, 0)})
f64[3,n]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from graphc.errors import ShapeError
from graphc.gates.gate import Attrs, Gate, caller, register
from graphc.ir.scalar import from_bits
from graphc.ir.types import Size, TensorType, evaluate, product

if TYPE_CHECKING:
    from graphc.ir.graph import Node, Value


Arrays = Sequence[np.ndarray]


class Along(NamedTuple):
    """An index of an operand's axis: start + step * (index of a result's axis), or start alone."""

    axis: int | None
    start: Size = 0
    step: int = 1


IndexMap = tuple[Along, ...]  # one entry for each axis of the operand


@cache
def identity_map(rank: int) -> IndexMap:
    return tuple(Along(i) for i in range(rank))


def compose(inner: IndexMap, outer: IndexMap) -> IndexMap:
    """inner reads a view at its axes; outer says where along the domain those axes are."""
    return tuple(
        entry if entry.axis is None
        else Along(outer[entry.axis].axis, entry.start + entry.step * outer[entry.axis].start,
                   entry.step * outer[entry.axis].step)
        for entry in inner
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Movement(Gate):
    """A linear gate that moves elements and computes nothing."""

    typed: Callable[[Sequence[TensorType], Attrs], TensorType] | None = None
    meaning: Callable[[Node, Arrays, tuple[int, ...], Mapping[str, int]], np.ndarray] | None = None
    transposed: Callable[[Node, Value], Sequence[Value]] | None = None
    view: Callable[[Node], IndexMap] | None = None

    kind: ClassVar[str] = "movement"
    structure: ClassVar[str] = "selection"

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        assert self.typed is not None
        return self.typed(types, attrs)

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        assert self.meaning is not None
        return self.meaning(node, args, tuple(evaluate(s, sizes) for s in node.type.shape), sizes)

    def tangent(
        self, node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
    ) -> Value | None:
        if all(t is None for t in tangents):
            return None
        operands = [
            v.zeros_like() if t is None else t for v, t in zip(values, tangents, strict=True)
        ]
        attrs = {**dict(node.attrs), **({"fill": 0} if node.op == "place" else {})}
        return operands[0].builder.apply(self.name, *operands, **attrs)

    def transpose(
        self, node: Node, values: Sequence[Value], ct: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        assert self.transposed is not None
        return self.transposed(node, ct)


def movement(name: str, doc: str, **fields: Any) -> Movement:
    return register(Movement(name=name, doc=doc, source=caller(), **fields))


# -- views -----------------------------------------------------------------------------------------


def _broadcast_type(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, shape = types[0], tuple(attrs["shape"])
    offset = len(shape) - x.rank
    if offset < 0 or any(s not in (1, shape[offset + i]) for i, s in enumerate(x.shape)):
        raise ShapeError(f"broadcast: {x} does not broadcast to ({', '.join(map(str, shape))})")
    return x.with_shape(shape)


def _broadcast_transposed(node: Node, ct: Value) -> list[Value]:
    """Sum over exactly the axes that were added or stretched, the last first."""
    operand = node.args[0].type
    offset = node.type.rank - operand.rank
    for axis in range(node.type.rank - 1, -1, -1):
        if axis < offset:
            ct = ct.sum(axis)
        elif operand.shape[axis - offset] != node.type.shape[axis]:
            ct = ct.sum(axis).expand(axis)
    return [ct]


def _broadcast_view(node: Node) -> IndexMap:
    offset = node.type.rank - node.args[0].type.rank
    return tuple(
        Along(offset + i) if s == node.type.shape[offset + i] else Along(None)
        for i, s in enumerate(node.args[0].type.shape)
    )


broadcast = movement(
    "broadcast", "Repeat along new leading axes and along axes of size 1, as NumPy does.",
    params=("x",), attrs=("shape",), typed=_broadcast_type,
    meaning=lambda node, args, shape, sizes: np.broadcast_to(args[0], shape),
    transposed=_broadcast_transposed, view=_broadcast_view,
)  # fmt: skip


def _transpose_type(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    perm = attrs["perm"]
    if sorted(perm) != list(range(types[0].rank)):
        raise ShapeError(f"transpose: {tuple(perm)} is not a permutation of the axes of {types[0]}")
    return types[0].with_shape(types[0].shape[p] for p in perm)


transpose = movement(
    "transpose", "Permute the axes.", params=("x",), attrs=("perm",), typed=_transpose_type,
    meaning=lambda node, args, shape, sizes: np.transpose(args[0], node["perm"]),
    transposed=lambda node, ct: [ct.transposed(tuple(np.argsort(node["perm"]).tolist()))],
    view=lambda node: tuple(Along(node["perm"].index(i)) for i in range(node.type.rank)),
)  # fmt: skip


def _expand_type(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    axes, rank = attrs["axes"], types[0].rank + len(attrs["axes"])
    if sorted(set(axes)) != list(axes) or any(not 0 <= a < rank for a in axes):
        raise ShapeError(f"expand_dims: axes {axes} of a result of rank {rank}")
    rest = iter(types[0].shape)
    return types[0].with_shape(1 if i in axes else next(rest) for i in range(rank))


expand_dims = movement(
    "expand_dims", "Insert axes of size 1.", params=("x",), attrs=("axes",), typed=_expand_type,
    meaning=lambda node, args, shape, sizes: args[0].reshape(shape),
    transposed=lambda node, ct: [ct.builder.apply("squeeze", ct, axes=node["axes"])],
    view=lambda node: tuple(Along(a) for a in range(node.type.rank) if a not in node["axes"]),
)  # fmt: skip


def _squeeze_type(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    axes = attrs["axes"]
    if any(not 0 <= a < types[0].rank or types[0].shape[a] != 1 for a in axes):
        raise ShapeError(f"squeeze: axes {axes} of {types[0]} are not all of size 1")
    return types[0].with_shape(s for i, s in enumerate(types[0].shape) if i not in axes)


def _squeeze_view(node: Node) -> IndexMap:
    rest = iter(range(node.type.rank))
    return tuple(
        Along(None) if a in node["axes"] else Along(next(rest))
        for a in range(node.args[0].type.rank)
    )


squeeze = movement(
    "squeeze", "Remove axes of size 1.", params=("x",), attrs=("axes",), typed=_squeeze_type,
    meaning=lambda node, args, shape, sizes: args[0].reshape(shape),
    transposed=lambda node, ct: [ct.builder.apply("expand_dims", ct, axes=node["axes"])],
    view=_squeeze_view,
)  # fmt: skip


def _index(
    starts: Sequence[Size], sizes: Sequence[int], steps: Sequence[int], env: Mapping[str, int]
) -> tuple:
    return np.ix_(
        *(
            evaluate(start, env) + step * np.arange(n)
            for start, n, step in zip(starts, sizes, steps, strict=True)
        )
    )


def _shape_given(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return types[0].with_shape(attrs["shape"])


def _places(node: Node) -> IndexMap:
    """Where the small array's elements lie in the large one: starts and steps, axis by axis."""
    pairs = zip(node["starts"], node["steps"], strict=True)
    return tuple(Along(i, start, step) for i, (start, step) in enumerate(pairs))


def _slice(
    node: Node, args: Arrays, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> np.ndarray:
    return args[0][_index(node["starts"], shape, node["steps"], sizes)] if shape else args[0]


def _counterpart(op: str, **attrs: int) -> Callable[[Node, Value], list[Value]]:
    """The transpose of `slice` is `place`, and the other way round."""
    return lambda node, ct: [
        ct.builder.apply(
            op,
            ct,
            starts=node["starts"],
            steps=node["steps"],
            shape=node.args[0].type.shape,
            **attrs,
        )
    ]


slice_ = movement(
    "slice", "Every step-th element from start on, along each axis; steps may be negative.",
    params=("x",), attrs=("starts", "shape", "steps"), typed=_shape_given, meaning=_slice,
    transposed=_counterpart("place", fill=0), view=_places,
)  # fmt: skip

# -- memory keeps its order ------------------------------------------------------------------------


def _reshape_type(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    if types[0].size != product(attrs["shape"]):
        shape = ", ".join(map(str, attrs["shape"]))
        raise ShapeError(f"reshape: {types[0]} to ({shape}) changes the count of elements")
    return _shape_given(types, attrs)


reshape = movement(
    "reshape", "The same elements in the same order under another shape.",
    params=("x",), attrs=("shape",), typed=_reshape_type,
    meaning=lambda node, args, shape, sizes: np.ascontiguousarray(args[0]).reshape(shape),
    transposed=lambda node, ct: [ct.reshape(node.args[0].type.shape)],
)  # fmt: skip

# -- into a larger array ---------------------------------------------------------------------------


def _place(
    node: Node, args: Arrays, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> np.ndarray:
    out = np.full(shape, from_bits(node["fill"], node.type.dtype), node.type.dtype.numpy)
    if shape:
        out[_index(node["starts"], args[0].shape, node["steps"], sizes)] = args[0]
        return out
    return args[0]


place = movement(
    "place", "Elements at start, start + step, ... of one number: a slice's transpose, and pad.",
    params=("x",), attrs=("fill", "shape", "starts", "steps"), typed=_shape_given, meaning=_place,
    transposed=_counterpart("slice"),
)  # fmt: skip


def _concat_type(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    axis, first = attrs["axis"], types[0]
    for t in types[1:]:
        if (
            t.dtype is not first.dtype
            or t.rank != first.rank
            or any(
                a != b
                for i, (a, b) in enumerate(zip(t.shape, first.shape, strict=True))
                if i != axis
            )
        ):
            raise ShapeError(
                f"concatenate along axis {axis}: {', '.join(map(str, types))} do not fit"
            )
    total: Size = 0
    for t in types:
        total = total + t.shape[axis]
    return first.with_shape(total if i == axis else s for i, s in enumerate(first.shape))


def _concat_transposed(node: Node, ct: Value) -> list[Value]:
    axis, start, parts = node["axis"], 0, []
    for a in node.args:
        starts = tuple(start if i == axis else 0 for i in range(node.type.rank))
        parts.append(
            ct.builder.apply(
                "slice", ct, starts=starts, steps=(1,) * node.type.rank, shape=a.type.shape
            )
        )
        start = start + a.type.shape[axis]
    return parts


concat = movement(
    "concat", "Join along an axis.", params=("x", "..."), attrs=("axis",), typed=_concat_type,
    meaning=lambda node, args, shape, sizes: np.concatenate(args, node["axis"]),
    transposed=_concat_transposed,
)  # fmt: skip
