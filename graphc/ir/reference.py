"""The reference interpreter: what every graph means, bit for bit.

In:   a `ScalarGraph` or a `Graph` and NumPy arrays.
Out:  NumPy arrays.
Invariant: compiled code equals this. It is slow, has no schedule and no buffer, and is written to
be read.

>>> import numpy as np
>>> from graphc.ir.scalar import trace_scalar, fma
>>> from graphc.ir.types import f64
>>> axpy = trace_scalar("axpy", lambda a, x, y: fma(a, x, y), (f64,) * 3)
>>> run_scalar(axpy, np.r_[2.0], np.r_[3.0], np.r_[1.0])
array([7.])
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.scalar import (
    SCALABLE,
    Instruction,
    ScalarGraph,
    from_bits,
    promised,
    table_bits,
)
from graphc.ir.types import DType, bool_, f32, f64, named_sizes

if TYPE_CHECKING:
    from graphc.ir.graph import Graph, Node

Array = np.ndarray


def run_scalar(graph: ScalarGraph, *args: Array) -> Array:
    """Evaluate a scalar graph elementwise over arrays that all have one shape."""
    shape = np.broadcast_shapes(*(np.shape(a) for a in args)) if args else ()
    values: list[Array] = [np.broadcast_to(a, shape) for a in args]
    with np.errstate(all="ignore"):
        for ins in graph.code:
            values.append(run_instruction(ins, [values[a] for a in ins.args], shape))
    return values[graph.result]


def run_instruction(ins: Instruction, args: list[Array], shape: tuple[int, ...] = ()) -> Array:
    """One instruction over arrays of one shape; the caller silences NumPy's warnings."""
    if ins.op == "const":
        assert isinstance(ins.attr, int)
        return np.full(shape, from_bits(ins.attr, ins.dtype), dtype=ins.dtype.numpy)
    if ins.op == "call":
        return np.asarray(run_scalar(_body(str(ins.attr), args), *args))
    if ins.op == "rare":
        condition, default, *operands = args
        return np.where(condition, run_scalar(_body(str(ins.attr), operands), *operands), default)
    if ins.op == "convert":
        return convert_array(np.asarray(args[0]), ins.dtype)
    if ins.op == "scale":
        _hold_to_promise(ins, *args)
    if ins.op == "lookup":
        table = np.array(table_bits(ins.attr), f"u{ins.dtype.itemsize}").view(ins.dtype.numpy)
        return table[np.asarray(args[0]) & (table.size - 1)]
    if ins.op == "bitcast":
        return np.ascontiguousarray(args[0]).view(ins.dtype.numpy).reshape(np.shape(args[0]))
    return np.asarray(_MEANING[ins.op](*args), dtype=ins.dtype.numpy)


def _body(gate: str, args: list[Array]) -> ScalarGraph:
    from graphc.gates.gate import registry
    from graphc.ir.types import from_numpy

    return registry()[gate].body_graph(tuple(from_numpy(np.asarray(a).dtype) for a in args))


def convert_array(x: Array, to: DType) -> Array:
    """The `convert` operation: saturating from float to integer, wrapping between integers."""
    if to is bool_:
        return x != 0
    if x.dtype.kind == "f" and to.is_int:
        info = np.iinfo(to.numpy)
        whole = np.trunc(x.astype(np.float64))
        below, above = whole < float(info.min), whole >= float(info.max) + (to.itemsize == 4)
        inside = np.where(below | above | np.isnan(whole), 0.0, whole).astype(to.numpy)
        return np.where(below, info.min, np.where(above, info.max, inside)).astype(to.numpy)
    return x.astype(to.numpy)


def _shift(op: Callable[[Array, Array], Array], fill: Callable[[Array], Array]) -> Callable:
    def shifted(a: Array, count: Array) -> Array:
        width = 8 * a.dtype.itemsize
        legal = (count >= 0) & (count < width)
        return np.where(legal, op(a, np.where(legal, count, 0)), fill(a))

    return shifted


def _lshr(a: Array, count: Array) -> Array:
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return (a.view(unsigned) >> count.astype(unsigned)).view(a.dtype)


def _select(condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition, a, b)


def _quot(a: Array, b: Array) -> Array:
    safe = np.where(b == 0, 1, np.where(b == -1, 1, b)).astype(a.dtype)
    magnitude = a // safe
    truncated = np.where((a % safe != 0) & ((a < 0) != (safe < 0)), magnitude + 1, magnitude)
    return np.where(b == 0, 0, np.where(b == -1, np.negative(a), truncated)).astype(a.dtype)


def _scale(a: Array, n: Array) -> Array:
    whole = np.floor(np.clip(np.where(np.isnan(n), 0, n), -4000, 4000))
    return np.ldexp(a, whole.astype(np.int32))


def _hold_to_promise(ins: Instruction, a: Array, n: Array) -> None:
    """What a body says of a scale's operands must be so."""
    whole, within = promised(ins.attr)
    kept = np.isnan(n) | ((np.floor(n) == n) if whole else True)
    if within is not None:
        kept &= np.isnan(n) | ((within[0] <= n) & (n <= within[1]))
        small = (np.abs(a) < 1 / SCALABLE) & (a != 0) & (n < 0)
        kept &= ~small & ~(np.abs(a) > SCALABLE)
    if not np.all(kept):
        at = np.flatnonzero(~np.broadcast_to(kept, np.broadcast_shapes(a.shape, n.shape)))[0]
        a, n = (np.broadcast_to(v, np.broadcast_shapes(a.shape, n.shape)).flat[at] for v in (a, n))
        raise ValueError(f"scale {ins.attr}: of {a!r} by {n!r}")


def _exponent(x: Array) -> Array:
    _, above = np.frexp(x)
    return np.where(x == 0, -np.inf, np.where(np.isfinite(x), above - 1, np.abs(x)))


def _mantissa(x: Array) -> Array:
    half, _ = np.frexp(x)
    inside = np.where((x == 0) | np.isinf(x), np.copysign(1, x), half * 2)
    return np.where(x < 0, np.nan, inside)


def _fma(a: Array, b: Array, c: Array) -> Array:
    a, b, c = (np.asarray(v, order="C") for v in (a, b, c))
    out = np.empty(a.shape, a.dtype)
    native_fma(f64 if a.dtype == f64.numpy else f32)(
        a.ctypes.data, b.ctypes.data, c.ctypes.data, out.ctypes.data, a.size
    )
    return out


@cache
def native_fma(dtype: DType) -> Callable[..., None]:
    """(a, b, c, out, n): a loop of one instruction; tests hold it against exact rationals."""
    from graphc.runtime.jit import Jit

    ty, suffix = ("double", "f64") if dtype is f64 else ("float", "f32")
    library = Jit.link(
        f"""
declare {ty} @llvm.fma.{suffix}({ty}, {ty}, {ty})
define void @fma_loop(ptr %a, ptr %b, ptr %c, ptr %out, i64 %n) {{
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%next, %body]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %pa = getelementptr {ty}, ptr %a, i64 %i
  %pb = getelementptr {ty}, ptr %b, i64 %i
  %pc = getelementptr {ty}, ptr %c, i64 %i
  %po = getelementptr {ty}, ptr %out, i64 %i
  %va = load {ty}, ptr %pa
  %vb = load {ty}, ptr %pb
  %vc = load {ty}, ptr %pc
  %r = call {ty} @llvm.fma.{suffix}({ty} %va, {ty} %vb, {ty} %vc)
  store {ty} %r, ptr %po
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}}
""",
        ("fma_loop",),
    )
    pointer = ctypes.c_void_p
    prototype = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, pointer, ctypes.c_int64)
    function = prototype(library.address("fma_loop"))
    function.library = library  # type: ignore[attr-defined]
    return function


_MEANING: dict[str, Callable[..., Array]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "fma": _fma,
    "neg": lambda a: np.negative(a),
    "abs": lambda a: np.abs(a),
    "sqrt": lambda a: np.sqrt(a),
    "rint": lambda a: np.rint(a),
    "floor": lambda a: np.floor(a),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "select": _select,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": _shift(lambda a, n: a << n, np.zeros_like),
    "lshr": _shift(_lshr, np.zeros_like),
    "ashr": _shift(lambda a, n: a >> n, lambda a: np.where(a < 0, -1, 0).astype(a.dtype)),
    "quot": _quot,
    "scale": _scale,
    "exponent": _exponent,
    "mantissa": _mantissa,
}


def fma_array(a: Array, b: Array, c: Array) -> Array:
    """a*b + c elementwise with one rounding, over float arrays of one shape."""
    return _fma(a, b, c)


def sizes_of(graph: Graph, args: Sequence[Any]) -> dict[str, int]:
    """The values of the named sizes, from the shapes of the arguments."""
    return named_sizes([(n["name"], n.type) for n in graph.inputs], [x.shape for x in args])


def run_graph(
    graph: Graph, args: Sequence[Array], sizes: Mapping[str, int] | None = None
) -> list[Array]:
    """The outputs of a graph, one gate after the other."""
    arrays = [
        np.asarray(x, dtype=n.type.dtype.numpy) for n, x in zip(graph.inputs, args, strict=True)
    ]
    sizes = sizes_of(graph, arrays) if sizes is None else sizes
    values: dict[Node, Array] = dict(zip(graph.inputs, arrays, strict=True))
    for node in graph.nodes:
        if node not in values:
            values[node] = np.asarray(
                node.gate.reference(node, [values[a] for a in node.args], sizes)
            )
    return [np.array(values[n]) for n in graph.output_nodes]
