"""The gate record: everything graphc knows of an operation stands in one object.

A kind of gate (elementwise, movement, reduction, scan, contraction, indexing, composite, source) is
a subclass that derives types, tangents, transposes and the reference from what its records declare.
Adding an elementwise gate is one record in one file. The registry fills at import and is then
read-only.

Invariant: a record is complete or the import fails, naming the record's file and line.

>>> registry()["exp"].doc, registry()["exp"].structure
('e^x.', 'diagonal')
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import numpy as np

from graphc.errors import GateError
from graphc.ir.types import DType, Size, TensorType

if TYPE_CHECKING:
    from graphc.ir.graph import Node, Value
    from graphc.ir.scalar import ScalarGraph

Attrs = Mapping[str, Any]
Kind = TypeVar("Kind", bound="Gate")

_REGISTRY: dict[str, Gate] = {}


@dataclass(frozen=True, eq=False)
class Gate:
    """One operation. Subclasses are the kinds; instances are the records."""

    name: str
    doc: str
    params: tuple[str, ...] = ()
    attrs: tuple[str, ...] = ()
    source: str = field(default="", repr=False)  # file:line of the record

    kind: ClassVar[str] = ""
    structure: ClassVar[str] = ""  # of the Jacobian, in words
    same_dtype: ClassVar[bool] = True

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """Apply the gate to handles of any layer: scalars, graph values, traced or plain arrays."""
        for a in args:
            apply = getattr(a, "apply_gate", None)
            if apply is not None:
                return apply(self, args, attrs)
        from graphc.dsl.tensor import apply_eagerly

        return apply_eagerly(self, args, attrs)

    # What each kind answers.

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        """The result's type; a ShapeError or DTypeError where the operands do not fit."""
        self._lacks("infer")

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """The meaning, over arrays."""
        self._lacks("reference")

    def tangent(
        self, node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
    ) -> Value | None:
        """The directional derivative, linear in the tangents; None where it is zero."""
        self._lacks("tangent")

    def transpose(
        self, node: Node, values: Sequence[Value], ct: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        """For a node that is linear in the operands marked so: the cotangent of each of those."""
        raise GateError(f"{self.name} is not linear and has no transpose")

    def result_dtype(self, dtypes: tuple[DType, ...]) -> DType:
        raise GateError(f"{self.name} is not an elementwise gate and cannot stand in a scalar body")

    def body_graph(self, dtypes: tuple[DType, ...]) -> ScalarGraph:
        raise GateError(f"{self.name} is not an elementwise gate and has no scalar body")

    def _lacks(self, what: str) -> NoReturn:
        raise GateError(
            f"{self.source}: gate {self.name!r} has no {what!r}: its kind, "
            f"{type(self).__name__}, must define that method"
        )


def registry() -> Mapping[str, Gate]:
    """All gates by name, in order of definition."""
    _load()
    return _REGISTRY


@cache
def _load() -> None:
    import graphc.gates.composite
    import graphc.gates.contraction
    import graphc.gates.elementwise
    import graphc.gates.error
    import graphc.gates.exponential
    import graphc.gates.gamma
    import graphc.gates.hyperbolic
    import graphc.gates.indexing
    import graphc.gates.movement
    import graphc.gates.pairs
    import graphc.gates.reduction
    import graphc.gates.roots
    import graphc.gates.scan
    import graphc.gates.source
    import graphc.gates.trigonometric  # noqa: F401


def register(gate: Kind) -> Kind:
    """Enter a record; its completeness is checked here, at import."""
    if gate.name in _REGISTRY:
        raise GateError(
            f"{gate.source}: gate {gate.name!r} is already defined at {_REGISTRY[gate.name].source}"
        )
    if not gate.doc:
        raise GateError(f"{gate.source}: gate {gate.name!r} needs a line of doc")
    _REGISTRY[gate.name] = gate
    return gate


def caller(depth: int = 2) -> str:
    """file:line of the code that defines a record."""
    frame = sys._getframe(depth)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def parameters_of(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def check_one_shape(name: str, types: Sequence[TensorType]) -> tuple[Size, ...]:
    from graphc.errors import ShapeError

    shape = types[0].shape
    for t in types[1:]:
        if t.shape != shape:
            raise ShapeError(f"{name}: operands have the shapes {', '.join(str(t) for t in types)}")
    return shape
