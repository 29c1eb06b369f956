"""Sources: nodes without operands. Inputs, constants, sizes as numbers, the index along an axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.errors import GateError
from graphc.gates.gate import Attrs, Gate, caller, register
from graphc.ir.graph import Node
from graphc.ir.types import TensorType, evaluate, i64


@dataclass(frozen=True, eq=False)
class Source(Gate):
    """A node without operands: its Jacobian is empty."""

    typed: Callable[[Attrs], TensorType] | None = None
    meaning: Callable[[Node, tuple[int, ...], Mapping[str, int]], np.ndarray] | None = None

    kind: ClassVar[str] = "source"
    structure: ClassVar[str] = "empty"

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        if self.typed is None:
            raise GateError(f"{self.name} is made by a builder alone")
        return self.typed(attrs)

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        assert self.meaning is not None
        return self.meaning(node, tuple(evaluate(s, sizes) for s in node.type.shape), sizes)

    def tangent(self, *_: object) -> None:
        return None


def constant_array(node: Node, shape: tuple[int, ...], _: object = None) -> np.ndarray:
    """The array of a constant node; one number stands for all."""
    data = np.frombuffer(node["data"], node.type.dtype.numpy)
    return np.broadcast_to(data[0], shape) if data.size == 1 else data.reshape(shape)


def _iota(node: Node, shape: tuple[int, ...], _: object) -> np.ndarray:
    axis = node["axis"]
    along = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.broadcast_to(along, shape)


input_ = register(
    Source(name="input", doc="A value given at the call.", attrs=("name",), source=caller(1))
)
constant = register(
    Source(
        name="constant", doc="A number everywhere, or a small array.", attrs=("data", "type"),
        source=caller(1), typed=lambda attrs: attrs["type"], meaning=constant_array,
    )
)  # fmt: skip
size = register(
    Source(
        name="size", doc="A size known at the call, as an i64.", attrs=("size",), source=caller(1),
        typed=lambda attrs: TensorType(i64),
        meaning=lambda node, shape, sizes: np.asarray(evaluate(node["size"], sizes), np.int64),
    )
)  # fmt: skip
iota = register(
    Source(
        name="iota", doc="The index along an axis.", attrs=("axis", "shape"), source=caller(1),
        typed=lambda attrs: TensorType(i64, tuple(attrs["shape"])), meaning=_iota,
    )
)  # fmt: skip
