"""Vectors to and from memory: side by side or each element elsewhere, all lanes or those of a mask.

An address is a register: of the first element; marked by `backwards`, of the last lane's element, with those of the
others behind it; or, marked by `many`, a vector with one for each lane.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.llvm import MEMORY, REGISTER, Function, vector
from graphc.codegen.state import Known
from graphc.ir.types import DType, bool_

EACH = "many "  # before a register that holds an address for each lane
BACK = "backwards "  # before one that holds the last lane's, where lanes walk back through memory


def many(addresses: str) -> str:
    """Addresses, one for each lane, marked as such."""
    return EACH + addresses


def backwards(address: str) -> str:
    """The address of the last lane, where lanes walk back through memory, marked as such."""
    return BACK + address


def in_place(address: str) -> str:
    """A plain address of an element that is accessed; empty where each lane has its own."""
    return "" if address.startswith(EACH) else address.removeprefix(BACK)


def _turned(fn: Function, value: str, ty: str, width: int) -> str:
    """The last lane first."""
    lanes = ", ".join(f"i32 {lane}" for lane in reversed(range(width)))
    return fn.do(f"shufflevector {ty} {value}, {ty} poison, <{width} x i32> <{lanes}>")


def load_vector(fn: Function, address: str, dtype: DType, width: int, mask: str) -> str:
    """Lanes that a mask leaves out are zeros."""
    ty, ones, zero = vector(MEMORY[dtype.name], width), vector("i1", width), "zeroinitializer"
    if address.startswith(BACK):
        mask = _turned(fn, mask, ones, width) if mask else ""
        loaded = load_vector(fn, address.removeprefix(BACK), dtype, width, mask)
        return _turned(fn, loaded, vector(REGISTER[dtype.name], width), width)
    if address.startswith(EACH):
        name = fn.module.intrinsic(
            f"llvm.masked.gather.{_over(dtype, width)}.v{width}p0",
            ty,
            (f"<{width} x ptr>", "i32", ones, ty),
        )
        raw = fn.do(
            f"call {ty} @{name}(<{width} x ptr> {address[len(EACH) :]}, i32 {dtype.itemsize}, {ones} {mask or 'splat (i1 true)'}, {ty} {zero})"
        )
    elif mask:
        name = fn.module.intrinsic(
            f"llvm.masked.load.{_over(dtype, width)}.p0", ty, ("ptr", "i32", ones, ty)
        )
        raw = fn.do(
            f"call {ty} @{name}(ptr {address}, i32 {dtype.itemsize}, {ones} {mask}, {ty} {zero})"
        )
    else:
        raw = fn.do(f"load {ty}, ptr {address}, align {dtype.itemsize}")
    return fn.do(f"icmp ne {ty} {raw}, zeroinitializer") if dtype is bool_ else raw


def store_vector(fn: Function, address: str, value: Known, mask: str) -> None:
    width, dtype = value.width, value.dtype
    ty, ones = vector(MEMORY[dtype.name], width), vector("i1", width)
    if address.startswith(BACK):
        mask = _turned(fn, mask, ones, width) if mask else ""
        turned = _turned(fn, value.register, vector(REGISTER[dtype.name], width), width)
        store_vector(fn, address.removeprefix(BACK), replace(value, register=turned), mask)
        return
    text = fn.do(f"zext {ones} {value.register} to {ty}") if dtype is bool_ else value.register
    if mask.count("i1 1") == 1 and not address.startswith(EACH):
        _store_lane(fn, address, text, dtype, width, mask)
    elif address.startswith(EACH):
        name = fn.module.intrinsic(
            f"llvm.masked.scatter.{_over(dtype, width)}.v{width}p0",
            "void",
            (ty, f"<{width} x ptr>", "i32", ones),
        )
        fn.say(
            f"call void @{name}({ty} {text}, <{width} x ptr> {address[len(EACH) :]}, i32 {dtype.itemsize}, {ones} {mask or 'splat (i1 true)'})"
        )
    elif mask:
        name = fn.module.intrinsic(
            f"llvm.masked.store.{_over(dtype, width)}.p0", "void", (ty, "ptr", "i32", ones)
        )
        fn.say(
            f"call void @{name}({ty} {text}, ptr {address}, i32 {dtype.itemsize}, {ones} {mask})"
        )
    else:
        fn.say(f"store {ty} {text}, ptr {address}, align {dtype.itemsize}")


def _store_lane(
    fn: Function, address: str, vector_: str, dtype: DType, width: int, mask: str
) -> None:
    """The one lane of a mask that is known now. LLVM stores 8 bytes of a number that was cut to 4."""
    ty, lane = MEMORY[dtype.name], mask.strip("<>").split(", ").index("i1 1")
    one = fn.do(f"extractelement {vector(ty, width)} {vector_}, i64 {lane}")
    place = fn.do(f"getelementptr {ty}, ptr {address}, i64 {lane}") if lane else address
    fn.say(f"store {ty} {one}, ptr {place}, align {dtype.itemsize}")


def stream_vector(fn: Function, address: str, value: Known) -> None:
    """To an address that is a multiple of the vector's bytes, past the caches."""
    ty = vector(MEMORY[value.dtype.name], value.width)
    align = value.width * value.dtype.itemsize
    past = "!nontemporal !{i32 1}"
    fn.say(f"store {ty} {value.register}, ptr {address}, align {align}, {past}")


def _over(dtype: DType, width: int) -> str:
    return f"v{width}{'i8' if dtype is bool_ else dtype.name}"
