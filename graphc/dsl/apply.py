"""Gates on traced values: dtypes by NEP 50, one shape, one node.

In:   a gate and operands as the user gave them.
Out:  a `Tensor`.
Invariant: this is the only place where the DSL makes elementwise nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dsl.promote import (
    Operand,
    broadcast_shape,
    common_float,
    fit,
    operand,
    result_dtype,
)
from graphc.dsl.recorder import Recorder, current, place_text, user_place
from graphc.dsl.tensor import Tensor
from graphc.errors import DTypeError, TraceError
from graphc.gates import elementwise as gates
from graphc.gates.gate import Gate
from graphc.ir.graph import Value
from graphc.ir.types import Dim, DType, TensorType, bool_, f64, i64

Record = gates.Elementwise
_OF_BOOL = {
    "add": gates.logical_or,
    "mul": gates.logical_and,
    "maximum": gates.logical_or,
    "minimum": gates.logical_and,
    "fmax": gates.logical_or,
    "fmin": gates.logical_and,
}
_HALF_FREE = ("div", "isnan", "isfinite", "isinf")  # of bools, these are not float16 in NumPy


def find_recorder(values: Sequence[Any]) -> Recorder | None:
    """The recorder of the first traced value, in lists and tuples too; else the running trace."""
    for v in values:
        if isinstance(v, Tensor):
            return v.recorder
        if isinstance(v, (list, tuple)):
            for inner in v:
                if isinstance(inner, Tensor):
                    return inner.recorder
    return current()


def need_recorder(values: Sequence[Any]) -> Recorder:
    recorder = find_recorder(values)
    if recorder is None:
        raise TraceError(f"nothing is traced at {place_text(user_place())}")
    return recorder


def apply_gate(gate: Gate, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Tensor:
    """Any gate of the registry; elementwise ones promote and broadcast their operands."""
    recorder = need_recorder(args)
    recorder.enter_line()
    operands = [operand(recorder, a) for a in args]
    if isinstance(gate, Record):
        return Tensor(elementwise(recorder, gate, operands, attrs))
    values = [o.lifted(recorder) for o in operands]
    return Tensor(recorder.apply(gate.name, *values, **attrs))


def operate(gate: Record, *args: Any) -> Tensor:
    """A Python operator: of weak operands alone, the result is weak again."""
    recorder = need_recorder(args)
    recorder.enter_line()
    operands = [operand(recorder, a) for a in args]
    weak = all([o.weak for o in operands])
    if weak and gate.accepts == "number":
        operands = [_as_python_integer(recorder, o) for o in operands]
    return Tensor(elementwise(recorder, gate, operands, {}), weak)


def _as_python_integer(recorder: Recorder, given: Operand) -> Operand:
    """In Python's arithmetic a bool is an integer."""
    if not given.dtype.is_bool:
        return given
    return Operand(given.lifted(recorder).cast(i64), True)


_OUTSIDE = {
    "lt": lambda v: v > 0,
    "le": lambda v: v > 0,
    "gt": lambda v: v < 0,
    "ge": lambda v: v < 0,
}


def compare(gate: Record, x: Any, y: Any) -> Tensor:
    """A comparison; with a Python integer outside of the dtype's range the result is known."""
    if type(y) is not int or not isinstance(x, Tensor) or not x.value.dtype.is_int or x.weak:
        return operate(gate, x, y)
    info = np.iinfo(x.dtype)
    if info.min <= y <= info.max:
        return operate(gate, x, y)
    x.recorder.enter_line()
    known = _OUTSIDE[gate.name](y) if gate.name in _OUTSIDE else gate.name == "ne"
    return Tensor(x.recorder.constant(known, x.type.with_dtype(bool_)))


def elementwise(
    recorder: Recorder, gate: Record, operands: Sequence[Operand], attrs: Mapping[str, Any]
) -> Value:
    """One elementwise node over promoted and broadcast operands."""
    if gate.accepts in ("number", "float") and not gate.choice:
        ty = common_float(operands)
        if ty is not None:  # nothing to promote, nothing to broadcast
            return recorder.apply(gate.name, *[fit(recorder, o, ty) for o in operands], **attrs)
    shape = broadcast_shape(recorder, gate.name, operands)
    picked = operands[1:] if gate.choice else operands
    gate, dtype = _typed(recorder, gate, picked)
    values = [fit(recorder, o, TensorType(dtype, shape)) for o in picked]
    if gate.choice:
        values.insert(0, fit(recorder, operands[0], TensorType(bool_, shape)))
    return recorder.apply(gate.name, *values, **attrs)


def _typed(recorder: Recorder, gate: Record, operands: Sequence[Operand]) -> tuple[Record, DType]:
    """The dtype that the operands take; of bools, some gates are others."""
    common = result_dtype(tuple(o.kind for o in operands))
    if gate.accepts == "bool":
        return gate, bool_
    if gate.accepts == "any":
        return gate, common
    if gate.accepts == "float" and (common.is_int or gate.name in _HALF_FREE):
        return gate, common if common.is_float else f64
    if common.is_bool and gate.accepts == "number" and gate.name in _OF_BOOL:
        return _OF_BOOL[gate.name], bool_
    if common.is_bool:
        raise undefined(recorder, gate.name, common, [o.lifted(recorder) for o in operands])
    return gate, common


_INSTEAD = {
    "sub": "use ^ or numpy.logical_xor",
    "neg": "use ~ or numpy.logical_not",
}


def undefined(recorder: Recorder, what: str, dtype: DType, values: Sequence[Value]) -> DTypeError:
    advice = _INSTEAD.get(what, "convert it first with .astype(...)")
    described = recorder.describe({f"arg {i}": v for i, v in enumerate(values)})
    return DTypeError(
        "\n".join(
            [
                f"{what} is not defined on {dtype}: {advice}",
                *described,
                f"  at     {place_text(user_place())}",
            ]
        )
    )


def lifted(value: Any) -> Tensor:
    """A traced value, an array or a number as a `Tensor` of the recorder in use."""
    if isinstance(value, Tensor):
        value.recorder  # noqa: B018  a leaked value fails here
        return value
    recorder = need_recorder((value,))
    given = operand(recorder, value)
    return Tensor(given.lifted(recorder), given.weak)


Dim.as_number = lifted
