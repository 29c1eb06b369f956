"""Lookups in the tables of gates: in registers, by rows of neighbouring tables, or lane by lane."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from graphc.codegen.llvm import MEMORY, REGISTER, Function, literal, register, splat
from graphc.codegen.registers import by_register
from graphc.codegen.transposed import in_halves, load_columns
from graphc.ir.types import DType, f32, f64, i32, i64


def lookup(
    fn: Function, entries: Sequence[int], index: str, index_type: DType, dtype: DType, width: int
) -> str:
    """The entries, patterns of numbers, that an index chooses in every lane."""
    lanes = 64 // dtype.itemsize
    if width >= 8 and fn.module.register_bytes == 32 and dtype is f32 and index_type is i32:
        return _permuted(fn, entries, index, width)
    if width < lanes or not fn.module.avx512:
        return _loads(fn, entries, index, index_type, dtype, width)
    entries = list(entries) * max(1, lanes // len(entries))
    ty, places = register(dtype, lanes), register(index_type, lanes)
    tables = [
        "<" + ", ".join(f"{REGISTER[dtype.name]} {literal(e, dtype)}" for e in part) + ">"
        for part in (entries[:lanes], entries[lanes:])
        if part
    ]
    if len(tables) == 1:
        suffix = "df" if dtype is f64 else "sf"
        name = fn.module.intrinsic(f"llvm.x86.avx512.permvar.{suffix}.512", ty, [ty, places])
        text = f"call {ty} @{name}({ty} {tables[0]}, {places} {{}})"
    else:
        suffix = "pd" if dtype is f64 else "ps"
        name = fn.module.intrinsic(f"llvm.x86.avx512.vpermi2var.{suffix}.512", ty, [ty, places, ty])
        text = f"call {ty} @{name}({ty} {tables[0]}, {places} {{}}, {ty} {tables[1]})"
    return by_register(
        fn, [index], [index_type], dtype, lanes, width, lambda part: fn.do(text.format(part[0]))
    )


def _permuted(fn: Function, entries: Sequence[int], index: str, width: int) -> str:
    """A table of f32 in registers of 8, chosen from by the bits of the index above the third."""
    lanes, ty, places = 8, register(f32, 8), register(i32, 8)
    entries = list(entries) * max(1, lanes // len(entries))
    name = fn.module.intrinsic("llvm.x86.avx2.permps", ty, [ty, places])

    def choose(args: Sequence[str]) -> str:
        (place,) = args
        found = []
        for start in range(0, len(entries), lanes):
            table = ", ".join(f"float {literal(e, f32)}" for e in entries[start : start + lanes])
            found.append(fn.do(f"call {ty} @{name}({ty} <{table}>, {places} {place})"))
        bit = 3
        while len(found) > 1:
            # the bit as the sign: a blend of floats reads nothing else
            raised = fn.do(f"shl {places} {place}, {splat(str(31 - bit), 'i32', lanes)}")
            upper = fn.do(f"icmp slt {places} {raised}, zeroinitializer")
            found = [
                fn.do(f"select <{lanes} x i1> {upper}, {ty} {high}, {ty} {low}")
                for low, high in zip(found[::2], found[1::2], strict=True)
            ]
            bit += 1
        return found[0]

    return by_register(fn, [index], [i32], f32, lanes, width, choose)


def _loads(
    fn: Function, entries: Sequence[int], index: str, index_type: DType, dtype: DType, width: int
) -> str:
    """A table in memory, read lane by lane."""
    name = f"gc.table.{_named(entries)}.{dtype}"
    ty, memory, integer = register(dtype, width), MEMORY[dtype.name], REGISTER[index_type.name]
    values = ", ".join(f"{memory} {literal(e, dtype)}" for e in entries)
    fn.module.globals[name] = f"internal constant [{len(entries)} x {memory}] [{values}], align 64"
    wide = register(index_type, width)
    masked = fn.do(f"and {wide} {index}, {splat(str(len(entries) - 1), integer, width)}")
    result = "poison"
    for lane in range(width):
        place = masked if width == 1 else fn.do(f"extractelement {wide} {masked}, i64 {lane}")
        address = fn.do(f"getelementptr {memory}, ptr @{name}, {integer} {place}")
        entry = fn.do(f"load {memory}, ptr {address}")
        if width == 1:
            return entry
        result = fn.do(f"insertelement {ty} {result}, {memory} {entry}, i64 {lane}")
    return result


def _named(entries: Sequence[int]) -> str:
    """A name for a table: tables of the same entries are one."""
    return hashlib.sha256(repr(tuple(entries)).encode()).hexdigest()[:16]


def by_rows(fn: Function, dtype: DType, width: int) -> bool:
    """Are tables that are asked for by one index read row by row?"""
    return dtype is f64 and in_halves(fn, dtype, width, 2)


def look_up_rows(
    fn: Function, tables: Sequence[Sequence[int]], index: str, width: int
) -> list[str]:
    """Tables of f64 and one length side by side in memory: a lane reads neighbouring entries at once."""
    columns = [*tables, tables[0]] if len(tables) % 2 else tables
    rows = [bits for row in zip(*columns, strict=True) for bits in row]
    name = f"gc.rows.{_named(rows)}"
    values = ", ".join(f"double {literal(bits, f64)}" for bits in rows)
    fn.module.globals[name] = f"internal constant [{len(rows)} x double] [{values}], align 64"
    wide = register(i64, width)
    row = fn.do(f"and {wide} {index}, {splat(str(len(tables[0]) - 1), 'i64', width)}")
    place = fn.do(f"mul {wide} {row}, {splat(str(len(columns)), 'i64', width)}")
    addresses = []
    for lane in range(width):
        first = fn.do(f"extractelement {wide} {place}, i64 {lane}")
        addresses.append(fn.do(f"getelementptr double, ptr @{name}, i64 {first}"))
    return load_columns(fn, addresses, len(columns), f64)[: len(tables)]


__all__ = ["by_rows", "look_up_rows", "lookup"]
