"""The scalar language: the machine operations out of which every gate body is made.

In:   a gate's body, a Python function over `Scalar` handles.
Out:  a `ScalarGraph`, a straight line of machine operations and calls of other gates.
Invariant: each machine operation has one meaning, bit for bit: here in words, in `ir.reference`
over NumPy arrays, in `codegen.llvm` as vector instructions. Nothing else has an emission.

>>> from graphc.ir.types import f64
>>> print(trace_scalar("hinge", lambda x: select(x < 1.0, 1.0 - x, 0.0 * x), (f64,)))
scalar hinge(%0: f64)
  %1 = const 1.0 : f64
  %2 = lt %0, %1 : bool
  %3 = sub %1, %0 : f64
  %4 = const 0.0 : f64
  %5 = mul %4, %0 : f64
  %6 = select %2, %3, %5 : f64
return %6
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import GateError
from graphc.ir.types import DTYPES, DType, bool_, f32, f64, i32, i64

if TYPE_CHECKING:
    from graphc.gates.gate import Gate

# The machine operations: name -> (operands, meaning). Those on floats round to nearest even, once.
MACHINE: dict[str, tuple[int, str]] = {
    "add": (2, "float sum, or wrapping integer sum"),
    "sub": (2, "float difference, or wrapping integer difference"),
    "mul": (2, "float product, or wrapping integer product"),
    "div": (2, "float quotient"),
    "fma": (3, "a*b + c with one rounding"),
    "neg": (1, "sign bit flipped, or wrapping integer negation"),
    "abs": (1, "sign bit cleared, or wrapping integer absolute value"),
    "sqrt": (1, "correctly rounded square root"),
    "rint": (1, "nearest integral float, ties to even"),
    "floor": (1, "largest integral float that is not larger"),
    "lt": (2, "a < b, false on NaN"),
    "le": (2, "a <= b, false on NaN"),
    "eq": (2, "a == b, false on NaN"),
    "select": (3, "b where the bool a, else c; operands are values, never branches"),
    "and": (2, "bitwise, on bools and integers"),
    "or": (2, "bitwise, on bools and integers"),
    "xor": (2, "bitwise, on bools and integers"),
    "shl": (2, "shift left; 0 for counts outside of the width"),
    "lshr": (2, "shift right, filling zeros; 0 for counts outside of the width"),
    "ashr": (2, "shift right, filling the sign; all sign for counts outside of the width"),
    "quot": (2, "integer quotient truncated to zero; 0 by a zero divisor, wraps for INT_MIN / -1"),
    "convert": (1, "to another dtype, nearest even; to integer truncates, saturates, NaN gives 0"),
    "bitcast": (1, "the same bits as f64/i64 or f32/i32"),
    "scale": (
        2,
        "a * 2^floor(b), rounded once, for |b| up to SCALED and an exact a * 2^(b/2); by `attr` b "
        "is a whole number, and where it says between which, |a| is at most SCALABLE, and where b "
        "is below 0, at least its inverse or 0",
    ),
    "exponent": (1, "floor(log2 |x|) as a float; -inf for 0, inf for infinities, NaN for NaN"),
    "mantissa": (
        1,
        "x / 2^exponent; with the sign of x, 1 for zeros; 1 for inf; NaN for NaN, below 0",
    ),
    "lookup": (1, "the entry of a table of 2^k floats that the lowest k bits of an integer name"),
    "const": (0, "raw bits"),
}
SCALED = {"f64": 2000, "f32": 240}
SCALABLE = 2.0**16
# `lookup` has its table in `attr`, as the bits of the entries in hexadecimal, joined by commas.
# Two more forms name a gate in `attr`: "call" runs its body; "rare" takes (condition, default,
# *operands) and is select(condition, gate(operands), default), emitted as a branch taken when any
# lane's condition holds.

WITH_ATTR = ("call", "rare", "lookup")  # forms whose text names `attr` before the operands

Number = int | float | bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation: `args` are positions of values, `attr` a const's bits or a gate's name."""

    op: str
    args: tuple[int, ...]
    dtype: DType
    attr: int | str | None = None


@dataclass(frozen=True)
class ScalarGraph:
    """A straight line: the first values are the parameters, then comes one value an instruction."""

    name: str
    params: tuple[DType, ...]
    code: tuple[Instruction, ...]
    result: int

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.params, self.code, self.result))

    @property
    def dtype(self) -> DType:
        return self.dtype_of(self.result)

    def dtype_of(self, value: int) -> DType:
        n = len(self.params)
        return self.params[value] if value < n else self.code[value - n].dtype

    def __str__(self) -> str:
        params = ", ".join(f"%{i}: {d}" for i, d in enumerate(self.params))
        lines = [f"scalar {self.name}({params})"]
        for i, ins in enumerate(self.code, start=len(self.params)):
            lines.append(f"  %{i} = {instruction_text(ins, lambda a: f'%{a}')}")
        return "\n".join([*lines, f"return %{self.result}"])


def instruction_text(ins: Instruction, name: Callable[[int], str]) -> str:
    operands = ", ".join(name(a) for a in ins.args)
    if ins.op == "const":
        assert isinstance(ins.attr, int)
        return f"const {bits_text(ins.attr, ins.dtype)} : {ins.dtype}"
    head = ins.op if ins.attr is None else f"{ins.op} {ins.attr}"
    return f"{head} {operands} : {ins.dtype}"


# Constants are raw bits: 0.0 and -0.0, 1 and True and all NaNs are told apart or not by intention.

EXACT = 1 << 24  # integers up to here are numbers of every float type
_PACK = {"f64": "<d", "f32": "<f", "i64": "<q", "i32": "<i", "bool": "<?"}


def to_bits(value: Number, dtype: DType) -> int:
    """The bits of a number in a dtype; floats round to nearest even, NaN is canonical and quiet."""
    if dtype is f64 and type(value) is float and value == value:
        return int.from_bytes(struct.pack("<d", value), "little")
    if dtype.is_float and type(value) is int and -EXACT <= value <= EXACT:
        return int.from_bytes(struct.pack(_PACK[dtype.name], value), "little")
    if dtype.is_float:
        with np.errstate(over="ignore"):
            rounded = dtype.numpy.type(value)
        if rounded != rounded:
            return 0x7FF8 << 48 if dtype is f64 else 0x7FC0 << 16
        return int.from_bytes(rounded.tobytes(), "little")
    return int.from_bytes(struct.pack(_PACK[dtype.name], value), "little")


def from_bits(bits: int, dtype: DType) -> Number:
    return struct.unpack(_PACK[dtype.name], bits.to_bytes(dtype.itemsize, "little"))[0]


def bits_text(bits: int, dtype: DType) -> str:
    """Decimal text from which `parse_bits` gets the same bits back."""
    value = from_bits(bits, dtype)
    if dtype.is_bool:
        return "true" if value else "false"
    return repr(value)


def parse_bits(text: str, dtype: DType) -> int:
    if dtype.is_bool:
        return int(text == "true")
    return to_bits(float(text) if dtype.is_float else int(text), dtype)


class ScalarBuilder:
    """Collects interned instructions while a body runs."""

    def __init__(self, params: tuple[DType, ...]) -> None:
        self.params = params
        self.code: list[Instruction] = []
        self._interned: dict[Instruction, int] = {}

    def add(
        self, op: str, args: tuple[int, ...], dtype: DType, attr: int | str | None = None
    ) -> Scalar:
        ins = Instruction(op, args, dtype, attr)
        found = self._interned.get(ins)
        if found is None:
            found = self._interned[ins] = len(self.params) + len(self.code)
            self.code.append(ins)
        return Scalar(self, found, dtype)

    def constant(self, value: Number, dtype: DType) -> Scalar:
        return self.add("const", (), dtype, to_bits(value, dtype))


class Scalar:
    """A handle on a value of a scalar graph, with operators; numbers take the handle's dtype."""

    __slots__ = ("builder", "dtype", "index")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, builder: ScalarBuilder, index: int, dtype: DType) -> None:
        self.builder, self.index, self.dtype = builder, index, dtype

    def apply_gate(self, gate: Gate, args: tuple[Any, ...], attrs: dict[str, Any]) -> Scalar:
        """A gate called inside a body: a `call` of the other body."""
        assert not attrs
        operands = _alike(*args) if gate.same_dtype else args
        dtype = gate.result_dtype(tuple(a.dtype for a in operands))
        return self.builder.add("call", tuple(a.index for a in operands), dtype, gate.name)

    def __add__(self, other: Operand) -> Scalar:
        return _machine("add", self, other)

    def __radd__(self, other: Operand) -> Scalar:
        return _machine("add", other, self)

    def __sub__(self, other: Operand) -> Scalar:
        return _machine("sub", self, other)

    def __rsub__(self, other: Operand) -> Scalar:
        return _machine("sub", other, self)

    def __mul__(self, other: Operand) -> Scalar:
        return _machine("mul", self, other)

    def __rmul__(self, other: Operand) -> Scalar:
        return _machine("mul", other, self)

    def __truediv__(self, other: Operand) -> Scalar:
        return _machine("div", self, other)

    def __rtruediv__(self, other: Operand) -> Scalar:
        return _machine("div", other, self)

    def __neg__(self) -> Scalar:
        return _machine("neg", self)

    def __abs__(self) -> Scalar:
        return _machine("abs", self)

    def __lt__(self, other: Operand) -> Scalar:
        return _machine("lt", self, other)

    def __le__(self, other: Operand) -> Scalar:
        return _machine("le", self, other)

    def __gt__(self, other: Operand) -> Scalar:
        return _machine("lt", other, self)

    def __ge__(self, other: Operand) -> Scalar:
        return _machine("le", other, self)

    def __and__(self, other: Operand) -> Scalar:
        return _machine("and", self, other)

    def __or__(self, other: Operand) -> Scalar:
        return _machine("or", self, other)

    def __xor__(self, other: Operand) -> Scalar:
        return _machine("xor", self, other)

    def __invert__(self) -> Scalar:
        return _machine("xor", self, True if self.dtype is bool_ else -1)

    def __lshift__(self, other: Operand) -> Scalar:
        return _machine("shl", self, other)

    def __rshift__(self, other: Operand) -> Scalar:
        return _machine("ashr", self, other)


Operand = Scalar | int | float | bool
_COMPARISONS = ("lt", "le", "eq")
_FLOAT_ONLY = ("div", "fma", "sqrt", "rint", "floor", "scale", "exponent", "mantissa")
_INT_ONLY = ("shl", "lshr", "ashr", "quot")
_BITWISE = ("and", "or", "xor")


def _alike(*operands: Operand) -> tuple[Scalar, ...]:
    """Numbers become constants of the dtype that the handles share."""
    handles = [x for x in operands if isinstance(x, Scalar)]
    dtype = handles[0].dtype
    if any(h.dtype is not dtype for h in handles):
        raise GateError(
            f"a body mixes dtypes: {', '.join(str(h.dtype) for h in handles)}; use convert"
        )
    builder = handles[0].builder
    return tuple(x if isinstance(x, Scalar) else builder.constant(x, dtype) for x in operands)


def _machine(op: str, *operands: Operand) -> Scalar:
    args = _alike(*operands)
    dtype = args[0].dtype
    legal = (
        dtype.is_float
        if op in _FLOAT_ONLY
        else dtype.is_int
        if op in _INT_ONLY
        else not dtype.is_float
        if op in _BITWISE
        else op in _COMPARISONS or not dtype.is_bool
    )
    if not legal:
        raise GateError(f"machine operation {op} is not defined on {dtype}")
    result = bool_ if op in _COMPARISONS else dtype
    return args[0].builder.add(op, tuple(a.index for a in args), result)


def fma(a: Operand, b: Operand, c: Operand) -> Scalar:
    return _machine("fma", a, b, c)


def sqrt(x: Scalar) -> Scalar:
    return _machine("sqrt", x)


def rint(x: Scalar) -> Scalar:
    return _machine("rint", x)


def floor(x: Scalar) -> Scalar:
    return _machine("floor", x)


def equal(a: Operand, b: Operand) -> Scalar:
    return _machine("eq", a, b)


def is_nan(x: Scalar) -> Scalar:
    return ~_machine("eq", x, x)


def lshr(a: Scalar, b: Operand) -> Scalar:
    return _machine("lshr", a, b)


def quot(a: Operand, b: Operand) -> Scalar:
    return _machine("quot", a, b)


def select(condition: Scalar, a: Operand, b: Operand) -> Scalar:
    """a where condition, else b; at least one of a and b must be a handle."""
    a, b = _alike(a, b)
    return condition.builder.add("select", (condition.index, a.index, b.index), a.dtype)


def convert(x: Scalar, dtype: DType) -> Scalar:
    return x if x.dtype is dtype else x.builder.add("convert", (x.index,), dtype)


_SAME_WIDTH = {f64: i64, i64: f64, f32: i32, i32: f32}


def bitcast(x: Scalar) -> Scalar:
    """The same bits as the other dtype of that width: f64 <-> i64, f32 <-> i32."""
    return x.builder.add("bitcast", (x.index,), _SAME_WIDTH[x.dtype])


def scale(a: Operand, n: Operand) -> Scalar:
    """a * 2^floor(n), rounded once; see `MACHINE` for the range of both."""
    return _machine("scale", a, n)


def scale_by_whole(a: Operand, n: Operand, within: tuple[int, int] | None = None) -> Scalar:
    """a * 2^n, rounded once, for a whole n, which may be promised to be within two numbers, both
    included; then |a| is at most SCALABLE, and where n < 0 at least its inverse, or 0. Either may
    be NaN. A promise saves instructions where no single one does it all; the interpreter holds the
    body to it.
    """
    a, n = _alike(a, n)
    bounds = "" if within is None else f":{within[0]}..{within[1]}"
    return a.builder.add("scale", (a.index, n.index), a.dtype, f"whole{bounds}")


def promised(attr: int | str | None) -> tuple[bool, tuple[int, int] | None]:
    """What a `scale` promises of its second operand: that it is whole, and its bounds."""
    whole, _, bounds = str(attr or "").partition(":")
    if not bounds:
        return bool(whole), None
    low, high = bounds.split("..")
    return True, (int(low), int(high))


def exponent(x: Scalar) -> Scalar:
    return _machine("exponent", x)


def mantissa(x: Scalar) -> Scalar:
    return _machine("mantissa", x)


def lookup(index: Scalar, table: Sequence[float]) -> Scalar:
    """table[index mod len(table)]: 2 to 16 entries of f64 by i64, 2 to 32 of f32 by i32."""
    dtype = _SAME_WIDTH[index.dtype]
    most = 128 // dtype.itemsize
    if not index.dtype.is_int or len(table) not in (2, 4, 8, 16, 32) or len(table) > most:
        raise GateError(f"no lookup of {len(table)} entries of {dtype} by {index.dtype}")
    bits = ",".join(f"{to_bits(v, dtype):x}" for v in table)
    return index.builder.add("lookup", (index.index,), dtype, bits)


def table_bits(attr: int | str | None) -> list[int]:
    """The bits of the entries of a lookup's table."""
    return [int(entry, 16) for entry in str(attr).split(",")]


def constant(like: Scalar, value: Number, dtype: DType | None = None) -> Scalar:
    return like.builder.constant(value, dtype or like.dtype)


def rare(condition: Scalar, gate: Gate, args: tuple[Scalar, ...], default: Scalar) -> Scalar:
    """gate(*args) in lanes where condition holds, else default; a mere branch where none holds."""
    operands = (condition.index, default.index, *(a.index for a in args))
    return condition.builder.add("rare", operands, default.dtype, gate.name)


def trace_scalar(name: str, body: Callable[..., Scalar], params: tuple[DType, ...]) -> ScalarGraph:
    """Run a body on handles and keep what it computed, dead instructions left out."""
    builder = ScalarBuilder(params)
    result = body(*(Scalar(builder, i, d) for i, d in enumerate(params)))
    if not isinstance(result, Scalar):
        raise GateError(
            f"the body of {name} returned {result!r}, not a value computed from its operands"
        )
    return _without_dead(ScalarGraph(name, params, tuple(builder.code), result.index))


def _without_dead(graph: ScalarGraph) -> ScalarGraph:
    n = len(graph.params)
    live = {graph.result}
    for i in range(len(graph.code) - 1, -1, -1):
        if n + i in live:
            live.update(graph.code[i].args)
    position = {i: i for i in range(n)}
    code: list[Instruction] = []
    for i, ins in enumerate(graph.code, start=n):
        if i in live:
            position[i] = n + len(code)
            code.append(
                Instruction(ins.op, tuple(position[a] for a in ins.args), ins.dtype, ins.attr)
            )
    return ScalarGraph(graph.name, graph.params, tuple(code), position[graph.result])


__all__ = [
    "DTYPES",
    "MACHINE",
    "Instruction",
    "Scalar",
    "ScalarBuilder",
    "ScalarGraph",
    "bitcast",
    "bits_text",
    "constant",
    "convert",
    "equal",
    "exponent",
    "f32",
    "f64",
    "floor",
    "fma",
    "from_bits",
    "i32",
    "i64",
    "instruction_text",
    "is_nan",
    "lookup",
    "lshr",
    "mantissa",
    "parse_bits",
    "quot",
    "rare",
    "promised",
    "rint",
    "scale",
    "scale_by_whole",
    "select",
    "sqrt",
    "table_bits",
    "to_bits",
    "trace_scalar",
]
