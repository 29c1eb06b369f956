"""The oracle's gates that are no functions of elements: they move, choose, add up or multiply them.

In:   arrays of mpmath numbers, and the oracle's machine.
Out:  `LINEAR`, which do to derivatives what they do to values; `SPECIAL`, which give both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mpmath
import numpy as np

from graphc.gates.contraction import parse_spec
from graphc.gates.indexing import checked
from graphc.gates.movement import _index
from graphc.ir.graph import Node
from graphc.ir.scalar import from_bits
from graphc.ir.types import evaluate

if TYPE_CHECKING:
    from graphc.aot.oracle import Machine

Dual = tuple[
    np.ndarray, "np.ndarray | None"
]  # value; derivative, None where it is zero by structure


def _moved(
    m: Machine, node: Node, values: Sequence[np.ndarray], sizes: Mapping[str, int], tangent: bool
) -> np.ndarray:
    return np.asarray(node.gate.reference(node, values, sizes))


def _placed(
    m: Machine, node: Node, values: Sequence[np.ndarray], sizes: Mapping[str, int], tangent: bool
) -> np.ndarray:
    shape = tuple(evaluate(s, sizes) for s in node.type.shape)
    if not shape:
        return values[0]
    fill = 0 if tangent else from_bits(node["fill"], node.type.dtype)
    out = np.full(
        shape, m.context.mpf(fill) if values[0].dtype == object else fill, values[0].dtype
    )
    out[_index(node["starts"], values[0].shape, node["steps"], sizes)] = values[0]
    return out


def _taken(
    m: Machine, node: Node, values: Sequence[np.ndarray], sizes: Mapping[str, int], tangent: bool
) -> np.ndarray:
    x, index = values
    return np.asarray(np.take(x, checked(index, x.shape[node["axis"]]), node["axis"]))


def _scattered(
    m: Machine, node: Node, values: Sequence[np.ndarray], sizes: Mapping[str, int], tangent: bool
) -> np.ndarray:
    updates, index = values
    axis, shape = node["axis"], tuple(evaluate(s, sizes) for s in node["shape"])
    out = m.zeros(shape) if updates.dtype == object else np.zeros(shape, updates.dtype)
    rows, places = np.moveaxis(out, axis, 0), checked(index, shape[axis]).reshape(-1)
    parts = np.moveaxis(updates.reshape(*shape[:axis], places.size, *shape[axis + 1 :]), axis, 0)
    for i, part in zip(places, parts, strict=True):
        rows[i] = rows[i] + part
    return out


def _summed(
    m: Machine, node: Node, values: Sequence[np.ndarray], sizes: Mapping[str, int], tangent: bool
) -> np.ndarray:
    if values[0].dtype != object:
        return np.asarray(node.gate.reference(node, values, sizes))
    return np.asarray(np.add.reduce(values[0], node["axis"], initial=m.zero), object)


def _summed_on(
    m: Machine, node: Node, values: Sequence[np.ndarray], sizes: Mapping[str, int], tangent: bool
) -> np.ndarray:
    if values[0].dtype != object:
        return np.asarray(node.gate.reference(node, values, sizes))
    x = _in_order(node, values[0])
    out, total = np.empty(x.shape, object), m.zeros(x.shape[1:])
    for i, part in enumerate(x):
        out[i] = total = total + part
    return _back_in_place(node, out)


def _in_order(node: Node, x: np.ndarray) -> np.ndarray:
    """The axis of a scan first, in the order in which it goes along it."""
    return np.moveaxis(x, node["axis"], 0)[:: -1 if node["reverse"] else 1]


def _back_in_place(node: Node, x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x[:: -1 if node["reverse"] else 1], 0, node["axis"])


def _same(
    m: Machine, node: Node, values: Sequence[np.ndarray], sizes: Mapping[str, int], tangent: bool
) -> np.ndarray:
    return values[0]


LINEAR: dict[str, Callable[..., np.ndarray]] = {
    **dict.fromkeys(("broadcast", "transpose", "expand_dims", "squeeze", "slice"), _moved),
    "reshape": _moved, "concat": _moved,
    "place": _placed, "take": _taken, "scatter_add": _scattered, "sum": _summed,
    "sum0": _summed, "cumsum": _summed_on,
}  # fmt: skip


def _contract(m: Machine, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
    (a, ta), (b, tb) = args
    letters_a, letters_b, out = parse_spec(node["spec"])
    product = lambda x, y: _einsum(m, f"{letters_a},{letters_b}->{out}", x, y)  # noqa: E731
    terms = [product(x, y) for x, y in ((ta, b), (a, tb)) if x is not None and y is not None]
    return product(a, b), sum(terms[1:], terms[0]) if terms else None


def _einsum(m: Machine, spec: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum(spec, a, b) + m.zero, object)


def _compare(op: Callable[[Any, Any], Any]) -> Callable[..., Dual]:
    def apply(m: Machine, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
        (a, _), (b, _) = args
        return np.asarray(op(a, b), bool).reshape(a.shape), None

    return apply


def _test(op: Callable[[Any], bool]) -> Callable[..., Dual]:
    def apply(m: Machine, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
        a = args[0][0]
        return np.array([op(v) for v in a.reshape(-1)], bool).reshape(a.shape), None

    return apply


def _where(m: Machine, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
    (c, _), (a, ta), (b, tb) = args
    value = np.where(c, a, b)
    if ta is None and tb is None:
        return value, None
    zeros = m.zeros(value.shape)
    return value, np.where(c, zeros if ta is None else ta, zeros if tb is None else tb)


def _cast(m: Machine, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
    (x, t), to, of = args[0], node["dtype"], node.args[0].type.dtype
    if to.is_float:
        whole = (
            x if of.is_float else m.array([m.context.mpf(int(v)) for v in x.reshape(-1)], x.shape)
        )
        return whole, t
    if to.is_bool:
        return np.asarray(x != 0, bool).reshape(x.shape), None
    info = np.iinfo(to.numpy)
    clipped = [0 if v != v else int(min(max(v, info.min), info.max)) for v in x.reshape(-1)]
    return np.array(clipped, to.numpy).reshape(x.shape), None


def _stopped(m: Machine, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
    return args[0][0], None


def _prod(m: Machine, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
    """A product along an axis, one factor after the other."""
    (x, t), axis = args[0], node["axis"]
    value: Any = np.full(np.delete(x.shape, axis).astype(int), m.one, object)
    slope: Any = m.zeros(value.shape)
    for i in range(x.shape[axis]):
        factor = x.take(i, axis)
        slope = slope * factor + (0 if t is None else value * t.take(i, axis))
        value = value * factor
    return np.asarray(value, object), None if t is None else np.asarray(slope, object)


def _scanned(m: Machine, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
    """value[i] = a[i] * value[i-1] + b[i]; without a b, the product of what came so far."""
    a, ta, b, tb = (None if x is None else _in_order(node, x) for x in (*args[0], *args[-1]))
    assert a is not None and b is not None
    times = np.frompyfunc(m.times, 2, 1)
    first = m.one if len(args) == 1 else m.zero
    values, slopes = np.empty(a.shape, object), np.empty(a.shape, object)
    value: Any = m.zeros(a.shape[1:]) + first
    slope: Any = m.zeros(a.shape[1:])
    for i in range(len(a)):
        grown = 0 if ta is None else times(ta[i], value)
        slope = times(slope, a[i]) + grown + (0 if len(args) == 1 or tb is None else tb[i])
        value = value * a[i] if len(args) == 1 else times(value, a[i]) + b[i]
        values[i], slopes[i] = value, slope
    still = all(t is None for _, t in args)
    return _back_in_place(node, values), None if still else _back_in_place(node, slopes)


def _extremum(larger: bool) -> Callable[..., Dual]:
    """max or min along an axis: NaN if any is; ties share the derivative evenly."""

    def one(m: Machine, row: np.ndarray, along: np.ndarray) -> tuple[Any, Any]:
        if any(v != v for v in row) or not row.size:
            empty = -m.inf if larger else m.inf
            return (m.nan, m.nan) if row.size else (empty, m.zero)
        best = max(row) if larger else min(row)
        chosen = [t for v, t in zip(row, along, strict=True) if v == best]
        return best, sum(chosen[1:], chosen[0]) / len(chosen)

    def apply(m: Machine, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
        (x, t), axis = args[0], node["axis"]
        rows = np.moveaxis(x, axis, -1)
        along = np.moveaxis(m.zeros(x.shape) if t is None else t, axis, -1)
        shape, n = rows.shape[:-1], rows.shape[-1]
        count = int(np.prod(shape, dtype=int))
        found = [
            one(m, r, a)
            for r, a in zip(rows.reshape(count, n), along.reshape(count, n), strict=True)
        ]
        value = m.array([v for v, _ in found], shape)
        return value, None if t is None else m.array([s for _, s in found], shape)

    return apply


SPECIAL: dict[str, Callable[..., Dual]] = {
    "contract": _contract, "where": _where, "cast": _cast, "stop_gradient": _stopped, "prod": _prod,
    "cumprod": _scanned, "recurrence": _scanned,
    "max": _extremum(True), "min": _extremum(False),
    "lt": _compare(lambda a, b: a < b), "gt": _compare(lambda a, b: a > b),
    "le": _compare(lambda a, b: a <= b), "ge": _compare(lambda a, b: a >= b),
    "eq": _compare(lambda a, b: a == b), "ne": _compare(lambda a, b: a != b),
    "isnan": _test(lambda v: v != v), "isfinite": _test(mpmath.isfinite),
    "isinf": _test(mpmath.isinf),
}  # fmt: skip


__all__ = ["LINEAR", "SPECIAL", "Dual"]
