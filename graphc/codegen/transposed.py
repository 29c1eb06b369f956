"""Rows and columns in registers: which vectors hold what is side by side in each lane's row.

In:   a row for each lane, in memory or in a register; or a vector of each column.
Out:  a vector of each column; or rows in memory.

Everywhere rows are zipped, halves first: the first elements of two, then the second ones, and so on, in log2 steps.
Registers of 32 bytes are two halves of 16, between which a step is slow, while it is free to read or write a half: each
register takes halves of two rows, so that all steps stay inside of halves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.llvm import MEMORY, Function, vector
from graphc.ir.types import DType

HALF = 16  # bytes


def load_columns(fn: Function, addresses: Sequence[str], columns: int, dtype: DType) -> list[str]:
    """A vector of each column, from the addresses of all lanes' rows."""
    ty, width = MEMORY[dtype.name], len(addresses)
    if columns == 1:
        made = "poison"
        wide = vector(ty, width)
        for lane, address in enumerate(addresses):
            value = fn.do(f"load {ty}, ptr {address}, align {dtype.itemsize}")
            made = fn.do(f"insertelement {wide} {made}, {ty} {value}, i64 {lane}")
        return [made]
    if in_halves(fn, dtype, width, columns):
        few = vector(ty, HALF // dtype.itemsize)

        def half(lane: int, column: int) -> str:
            at = _element(fn, ty, addresses[lane], column)
            return fn.do(f"load {few}, ptr {at}, align {dtype.itemsize}")

        return _columns_of_halves(fn, half, width, columns, dtype)
    row = vector(ty, columns)
    rows = [[fn.do(f"load {row}, ptr {a}, align {dtype.itemsize}")] for a in addresses]
    return _zipped(fn, rows, ty, columns, width)


def store_columns(
    fn: Function, values: Sequence[str], addresses: Sequence[str], dtype: DType
) -> None:
    """Every lane's row, from a vector of each column."""
    ty, width, columns = MEMORY[dtype.name], len(addresses), len(values)
    if columns == 1:
        for lane, address in enumerate(addresses):
            one = fn.do(f"extractelement {vector(ty, width)} {values[0]}, i64 {lane}")
            fn.say(f"store {ty} {one}, ptr {address}, align {dtype.itemsize}")
        return
    if in_halves(fn, dtype, width, columns):
        _store_halves(fn, values, addresses, dtype)
        return
    parts = _zipped(fn, [[v] for v in values], ty, width, width)
    per_vector = width // columns
    for lane, address in enumerate(addresses):
        source, first = parts[lane // per_vector], lane % per_vector * columns
        row = source if columns == width else _cut(fn, source, ty, width, first, columns)
        fn.say(f"store {vector(ty, columns)} {row}, ptr {address}, align {dtype.itemsize}")


def transposed(fn: Function, rows: Sequence[str], columns: int, dtype: DType) -> list[str]:
    """A vector of each column, from rows of so many in registers."""
    ty, width = MEMORY[dtype.name], len(rows)
    if in_halves(fn, dtype, width, columns):

        def half(lane: int, column: int) -> str:
            return _cut(fn, rows[lane], ty, columns, column, HALF // dtype.itemsize)

        return _columns_of_halves(fn, half, width, columns, dtype)
    longest = max(width, columns)
    mixed = _zipped(fn, [[row] for row in rows], ty, columns, longest)
    if width == longest:
        return mixed
    places = [divmod(column * width, longest) for column in range(columns)]
    return [_cut(fn, mixed[vector_], ty, longest, first, width) for vector_, first in places]


# -- zipped -----------------------------------------------------------------------------------------------------------


def _zipped(fn: Function, parts: list[list[str]], ty: str, length: int, width: int) -> list[str]:
    """The first elements of all parts, then the second ones, and so on; from vectors of `length`,
    vectors of up to `width`."""
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [
            _zip(fn, a, b, ty, length, width)
            for a, b in zip(parts[:half], parts[half:], strict=True)
        ]
        length = min(2 * length, width)
    return parts[0]


def _zip(
    fn: Function, a: Sequence[str], b: Sequence[str], ty: str, length: int, width: int
) -> list[str]:
    """Two sequences of elements, spread over vectors of `length`, element by element in turns."""
    made = []
    for x, y in zip(a, b, strict=True):
        lanes = [k for i in range(length) for k in (i, length + i)]
        pieces = [lanes] if 2 * length <= width else [lanes[:length], lanes[length:]]
        made += [shuffled(fn, vector(ty, length), x, y, piece) for piece in pieces]
    return made


def joined(fn: Function, parts: Sequence[str], ty: str, length: int) -> str:
    """Vectors of so many elements, one after the other in one."""
    found = list(parts)
    while len(found) > 1:
        pairs = zip(found[::2], found[1::2], strict=True)
        found = [shuffled(fn, vector(ty, length), a, b, range(2 * length)) for a, b in pairs]
        length *= 2
    return found[0]


def shuffled(fn: Function, ty: str, a: str, b: str, lanes: Sequence[int]) -> str:
    picked = ", ".join(f"i32 {k}" for k in lanes)
    return fn.do(f"shufflevector {ty} {a}, {ty} {b}, <{len(lanes)} x i32> <{picked}>")


def _cut(fn: Function, value: str, ty: str, width: int, first: int, count: int) -> str:
    """Some lanes of a vector."""
    return shuffled(fn, vector(ty, width), value, "poison", range(first, first + count))


def _element(fn: Function, ty: str, address: str, k: int) -> str:
    return address if k == 0 else fn.do(f"getelementptr {ty}, ptr {address}, i64 {k}")


# -- halves -----------------------------------------------------------------------------------------------------------


def in_halves(fn: Function, dtype: DType, lanes: int, columns: int) -> bool:
    """Are there registers of two halves, and whole ones of them?"""
    t = HALF // dtype.itemsize
    return (
        fn.module.register_bytes == 2 * HALF
        and dtype.itemsize >= 4
        and lanes % (2 * t) == 0
        and columns % t == 0
    )


def _columns_of_halves(
    fn: Function, half: Callable[[int, int], str], lanes: int, columns: int, dtype: DType
) -> list[str]:
    """A vector of each column; `half` gives what a lane has from some column on."""
    ty, t = MEMORY[dtype.name], HALF // dtype.itemsize
    made = []
    for column in range(0, columns, t):
        groups = []
        for lane in range(0, lanes, 2 * t):
            few = [half(lane + k, column) for k in range(2 * t)]
            both = [joined(fn, pair, ty, t) for pair in zip(few[:t], few[t:], strict=True)]
            groups.append(_inside_of_halves(fn, both, dtype))
        made += [joined(fn, parts, ty, 2 * t) for parts in zip(*groups, strict=True)]
    return made


def _store_halves(
    fn: Function, values: Sequence[str], addresses: Sequence[str], dtype: DType
) -> None:
    ty, t, width = MEMORY[dtype.name], HALF // dtype.itemsize, len(addresses)
    for lane in range(0, width, 2 * t):
        for column in range(0, len(values), t):
            few = [_cut(fn, v, ty, width, lane, 2 * t) for v in values[column : column + t]]
            for k, both in enumerate(_inside_of_halves(fn, few, dtype)):
                for upper in (0, t):
                    part = _cut(fn, both, ty, 2 * t, upper, t)
                    at = _element(fn, ty, addresses[lane + k + upper], column)
                    fn.say(f"store {vector(ty, t)} {part}, ptr {at}, align {dtype.itemsize}")


def _inside_of_halves(fn: Function, vectors: Sequence[str], dtype: DType) -> list[str]:
    """As many vectors as a half has elements: what was element k of the v-th becomes element v of the k-th."""
    ty, t = MEMORY[dtype.name], HALF // dtype.itemsize
    lower = [k for h in (0, t) for e in range(h, h + t // 2) for k in (e, 2 * t + e)]
    masks = lower, [k + t // 2 for k in lower]

    def zip_(a: Sequence[str], b: Sequence[str]) -> list[str]:
        return [
            shuffled(fn, vector(ty, 2 * t), x, y, mask)
            for x, y in zip(a, b, strict=True)
            for mask in masks
        ]

    parts = [[v] for v in vectors]
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [zip_(a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
    return parts[0]


__all__ = ["in_halves", "joined", "load_columns", "shuffled", "store_columns", "transposed"]
