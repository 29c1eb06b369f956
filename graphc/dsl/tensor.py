"""The traced array: what stands for an array while a user's function is traced.

In:   a `Value` of the graph that is being built.
Out:  more of them: Python operators, methods, indexing and NumPy functions make nodes.
Invariant: shapes, dtypes and errors are NumPy's; what would need the numbers themselves is a
TraceError that names the user's line. A Python number's traced form is *weak*: it takes the dtype
of what it meets (NEP 50).

>>> import numpy as np
>>> from graphc.dsl.trace import trace
>>> from graphc.ir.types import f32
>>> graph = trace(lambda x: np.tanh(x) * 2.0, (f32[3],), ("x",)).graph
>>> [(n.op, n.type) for n in graph.nodes]
[('input', f32[3]), ('tanh', f32[3]), ('constant', f32[3]), ('mul', f32[3])]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from graphc.dsl.recorder import Recorder, place_text, user_place
from graphc.errors import DTypeError, TraceError
from graphc.ir.graph import Value
from graphc.ir.types import Dim, Size, TensorType

if TYPE_CHECKING:
    from graphc.gates.gate import Gate


def apply_eagerly(gate: Gate, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Any:
    """A gate called on arrays: compiled, cached, and run; inside of a trace, recorded."""
    from graphc.dsl.public import evaluate

    return evaluate(gate, args, attrs)


class Tensor:
    """A value of a trace. It has NumPy's operators and methods, but no numbers in it."""

    __slots__ = ("__weakref__", "value", "weak")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Value, weak: bool = False) -> None:
        self.value, self.weak = value, weak

    @property
    def recorder(self) -> Recorder:
        recorder = self.value.builder
        assert isinstance(recorder, Recorder)
        if not recorder.is_open:
            recorder.enter_line()
        return recorder

    def apply_gate(self, gate: Gate, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Tensor:
        from graphc.dsl.apply import apply_gate

        return apply_gate(gate, args, attrs)

    # -- what is known ----------------------------------------------------------------------------

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.value.shape

    @property
    def ndim(self) -> int:
        return len(self.value.shape)

    @property
    def size(self) -> Size:
        return self.value.type.size

    @property
    def dtype(self) -> np.dtype:
        return self.value.dtype.numpy

    @property
    def T(self) -> Tensor:
        return _functions().transpose(self)

    @property
    def mT(self) -> Tensor:
        return _functions().swapaxes(self, -1, -2)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        if not isinstance(self.shape[0], int):
            self._unknown(
                "len() of an axis whose size is a name",
                f"use x.shape[0], which is {self.shape[0]} here",
            )
        return self.shape[0]

    def __repr__(self) -> str:
        recorder = self.value.builder
        text = (
            recorder.text(self.value.node) if isinstance(recorder, Recorder) else repr(self.value)
        )
        return f"<traced {self.type}: {text}>"

    # -- what a trace cannot know -----------------------------------------------------------------

    def _unknown(self, what: str, instead: str) -> NoReturn:
        recorder = self.value.builder
        described = (
            recorder.describe({"value": self.value}) if isinstance(recorder, Recorder) else []
        )
        known = "a traced value has no numbers until the graph runs"
        head = f"{what} at {place_text(user_place())}: {known}"
        raise TraceError("\n".join([head, *described, f"  instead: {instead}"]))

    def __bool__(self) -> bool:
        self._unknown(
            f"a traced {self.type} was read as a Python bool (by if, while, and, or, not, or a "
            "chained comparison)",
            "graphc.where(condition, x, y), the operators & | ~, or a condition on shapes",
        )

    def __int__(self) -> int:
        self._unknown(
            f"a traced {self.type} was read as a Python int",
            "x.astype(int), or a plain Python argument",
        )

    def __float__(self) -> float:
        self._unknown(
            f"a traced {self.type} was read as a Python float",
            "x.astype(float), or graphc.numpy for math",
        )

    def __complex__(self) -> complex:
        self._unknown(f"a traced {self.type} was read as a Python complex", "real arithmetic")

    def __index__(self) -> int:
        self._unknown(
            f"a traced {self.type} was read as an index or a size of Python",
            "x[i] on a traced x, graphc.numpy.take, or a plain Python number",
        )

    def __format__(self, spec: str) -> str:
        if spec:
            self._unknown(
                f"a traced {self.type} was formatted with {spec!r}", "print what the graph returns"
            )
        return str(self)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        self._unknown(
            f"a traced {self.type} was read as a NumPy array",
            "graphc.numpy functions; graphc.numpy.stack for a list of traced values",
        )

    def item(self, *_: Any) -> Any:
        self._unknown(f"a traced {self.type} was read by item()", "the traced value itself")

    def tolist(self) -> Any:
        self._unknown(f"a traced {self.type} was read by tolist()", "the traced value itself")

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        if not isinstance(self.shape[0], int):
            self._unknown(
                f"a loop over an axis of size {self.shape[0]}",
                "array operations over the whole axis",
            )
        return (self[i] for i in range(self.shape[0]))

    def __contains__(self, _: Any) -> bool:
        self._unknown("`in` on a traced value", "graphc.numpy.any(x == y)")

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        self._unknown(
            "an assignment to elements",
            "graphc.where(mask, new, x), or graphc.numpy.concatenate of parts",
        )

    def __getitem__(self, index: Any) -> Tensor:
        from graphc.dsl.index import get

        return get(self, index)

    # -- NumPy's protocols ------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from graphc.dsl.protocols import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(
        self, func: Any, types: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        from graphc.dsl.protocols import call_function

        return call_function(func, args, kwargs)

    # -- operators --------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return _operate("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _operate("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _operate("sub", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _operate("sub", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _operate("mul", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _operate("mul", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _operate("div", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        if type(other) in (int, float) and other == 1 and self.value.dtype.is_float:
            return inverse(self)
        return _operate("div", other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return _operate("floor_divide", self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return _operate("floor_divide", other, self)

    def __mod__(self, other: Any) -> Tensor:
        return _operate("remainder", self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return _operate("remainder", other, self)

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return other // self, other % self

    def __pow__(self, other: Any) -> Tensor:
        from graphc.dsl.power import raised

        return raised(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return _operate("power", other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return _functions().matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _functions().matmul(other, self)

    def __neg__(self) -> Tensor:
        return _operate("neg", self)

    def __pos__(self) -> Tensor:
        return _functions().positive(self)

    def __abs__(self) -> Tensor:
        return self if self.value.dtype.is_bool else _operate("abs", self)

    def __invert__(self) -> Tensor:
        return _logical("logical_not", self)

    def __and__(self, other: Any) -> Tensor:
        return _logical("logical_and", self, other)

    def __or__(self, other: Any) -> Tensor:
        return _logical("logical_or", self, other)

    def __xor__(self, other: Any) -> Tensor:
        return _logical("logical_xor", self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __lt__(self, other: Any) -> Tensor:
        return _compare("lt", self, other)

    def __le__(self, other: Any) -> Tensor:
        return _compare("le", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return _compare("gt", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _compare("ge", self, other)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return _compare("eq", self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return _compare("ne", self, other)

    # -- methods ----------------------------------------------------------------------------------

    def astype(self, dtype: Any, copy: bool = True) -> Tensor:
        return _functions().astype(self, dtype)

    def reshape(self, *shape: Any) -> Tensor:
        return _functions().reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        return _functions().transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def copy(self) -> Tensor:
        return self

    # As the functions of the same names; set below.
    all: Callable[..., Tensor]
    any: Callable[..., Tensor]
    argmax: Callable[..., Tensor]
    argmin: Callable[..., Tensor]
    clip: Callable[..., Tensor]
    cumprod: Callable[..., Tensor]
    cumsum: Callable[..., Tensor]
    dot: Callable[..., Tensor]
    flatten: Callable[..., Tensor]
    max: Callable[..., Tensor]
    mean: Callable[..., Tensor]
    min: Callable[..., Tensor]
    prod: Callable[..., Tensor]
    ravel: Callable[..., Tensor]
    round: Callable[..., Tensor]
    squeeze: Callable[..., Tensor]
    sum: Callable[..., Tensor]
    swapaxes: Callable[..., Tensor]
    take: Callable[..., Tensor]
    var: Callable[..., Tensor]


def _method(name: str) -> Any:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return getattr(_functions(), name)(self, *args, **kwargs)

    method.__name__, method.__qualname__ = name, f"Tensor.{name}"
    return method


METHODS = (
    "all", "any", "argmax", "argmin", "clip", "cumprod", "cumsum", "dot", "flatten", "max", "mean",
    "min", "prod", "ravel", "round", "squeeze", "sum", "swapaxes", "take", "var",
)  # fmt: skip
for _name in METHODS:
    setattr(Tensor, _name, _method(_name))


def _functions() -> Any:
    import graphc.dsl.functions

    return graphc.dsl.functions


_OPERANDS = (bool, int, float, complex, np.ndarray, np.generic, Tensor, Dim, list, tuple)


def _known(other: Any) -> bool:
    """Whether arithmetic with an operand is ours; else Python asks the other side."""
    return isinstance(other, _OPERANDS) or (
        hasattr(other, "__array__") and not hasattr(other, "__array_ufunc__")
    )


def _operate(name: str, *args: Any) -> Any:
    from graphc.dsl import apply
    from graphc.gates.gate import registry

    if not all(map(_known, args)):
        return NotImplemented
    record = registry()[name]
    assert isinstance(record, apply.Record)
    return apply.operate(record, *args)


def inverse(x: Tensor) -> Tensor:
    """1 / x of a float: a gate whose derivative needs no second division.

    1 / sqrt(x) is a gate of its own, which rounds once and needs no division at all.
    """
    node = x.value.node
    if node.op != "sqrt":
        return _operate("reciprocal", x)
    return _operate("rsqrt", Tensor(Value(x.recorder, node.args[0]), x.weak))


def _compare(name: str, *args: Any) -> Any:
    from graphc.dsl import apply

    if not all(map(_known, args)):
        return NotImplemented
    return apply.compare(getattr(apply.gates, name), *args)


def _logical(name: str, *args: Any) -> Any:
    from graphc.dsl import apply

    if not all(map(_known, args)):
        return NotImplemented
    for a in args:
        if np.dtype(getattr(a, "dtype", type(a))).kind != "b":
            raise DTypeError(
                f"{name} of {getattr(a, 'dtype', type(a).__name__)} at "
                f"{place_text(user_place())}: the operators "
                "& | ^ ~ are for bools here; compare first, or use graphc.numpy." + name
            )
    return apply.operate(getattr(apply.gates, name), *args)
