"""The C entries of a library, around the kernels' own: a caller's structure becomes the slots that
kernels read.

In:   planned programs of the value and, where there is one, of the value and gradient; the fields
      of the structure.
Out:  the text of one module that exports NAME, NAME_value_and_grad, NAME_workspace and
      NAME_graphc_info.
Invariant: all else is internal; nothing is called, allocated or kept between calls, and a call that
is refused has written nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.aot.interface import INVALID, Field, Interface
from graphc.codegen import target
from graphc.codegen.kernels import emit, slots_of
from graphc.codegen.llvm import Function, Module
from graphc.codegen.slots import ARENA, HEADER_SLOTS, POOL
from graphc.ir.types import Size
from graphc.lower.loops import Program

RUN = "gc.run"  # a kernel module's entry, before its names get their prefix
ALIGNMENT = 64


@dataclass(frozen=True)
class Part:
    """A program of the library: which entry it serves, and the prefix of its internal names."""

    entry: str
    prefix: str
    program: Program


def emit_library(
    interface: Interface,
    value: Program,
    gradient: Program | None,
    captured: Mapping[str, np.ndarray],
    info: str,
    isa: str,
) -> str:
    """The text of the module. `captured` are the arrays that the function brought along."""
    parts = [Part(interface.name, "gc.v.", value)]
    if gradient is not None:
        parts.append(Part(f"{interface.name}_value_and_grad", "gc.g.", gradient))
    texts = [_renamed(emit(p.program, isa, RUN), p.prefix) for p in parts]
    module = Module(target.of(isa))
    module.globals[f"{interface.name}_graphc_info"] = (
        f"constant {_bytes(info.encode() + bytes(1))}, align 1"
    )
    module.globals.update(
        (f"gc.{name}", f"internal constant {_bytes(x.tobytes())}, align 64")
        for name, x in captured.items()
    )
    for part in parts:
        _Entry(module, interface, part, frozenset(captured)).write()
    _workspace(module, interface, [p.program.arena or 0 for p in parts])
    return merged([*texts, module.text()])


def _renamed(text: str, prefix: str) -> str:
    """A kernel module with internal names of its own."""
    text = text.replace(f"define i32 @{RUN}(", f"define internal i32 @{RUN}(")
    return re.sub(r"@gc\.", f"@{prefix}", text)


def merged(texts: Sequence[str]) -> str:
    """One module of several: what each of them declares is declared once."""
    shared: dict[str, None] = {}
    own: list[str] = []
    for line in "\n".join(texts).split("\n"):
        if line.startswith(("declare ", "attributes ")):
            shared[line] = None
        elif line:
            own.append(line)
    return "\n".join([*own, *shared, ""])


def _bytes(data: bytes) -> str:
    return f'[{len(data)} x i8] c"' + "".join(f"\\{b:02X}" for b in data) + '"'


class _Entry:
    """Writes NAME or NAME_value_and_grad."""

    def __init__(
        self, module: Module, interface: Interface, part: Part, captured: frozenset[str]
    ) -> None:
        self.interface, self.part, self.captured = interface, part, captured
        self.fn = Function(module, part.entry, "i32", [("ptr", "args")], linkage="")
        self.sizes: dict[str, str] = {}

    def write(self) -> None:
        fn = self.fn
        refused, given, valid = fn.label("refused"), fn.label("given"), fn.label("valid")
        fn.branch(fn.do("icmp eq ptr %args, null"), refused, given)
        fn.open_block(given)
        self.sizes = _load_sizes(fn, self.interface)
        pointers = {
            f: fn.do(f"load ptr, ptr {_address(fn, self.interface, f)}") for f in self._pointers()
        }
        fn.branch(self._is_wrong(pointers), refused, valid)
        fn.open_block(refused)
        fn.say(f"ret i32 {INVALID}")
        fn.open_block(valid)
        status = fn.do(f"call i32 @{self.part.prefix}run(ptr {self._slots(pointers)})")
        fn.say(f"ret i32 {status}")
        fn.close()

    def _pointers(self) -> list[Field]:
        """The fields that this entry reads, sizes apart."""
        outputs = {b.name.removesuffix(".out") for b in self.part.program.of_role("output")}
        wanted = self.interface.of_role("input", "output", "gradient", "workspace")
        return [f for f in wanted if f.role in ("input", "workspace") or f.of in outputs]

    def _is_wrong(self, pointers: Mapping[Field, str]) -> str:
        """A size below 0, or a null pointer to something."""
        fn = self.fn
        wrong = [fn.do(f"icmp slt i64 {n}, 0") for n in self.sizes.values()]
        for f, pointer in pointers.items():
            count: Size = (self.part.program.arena or 0) if f.type is None else f.type.size
            if count == 0:
                continue
            null = fn.do(f"icmp eq ptr {pointer}, null")
            if not isinstance(count, int):
                some = fn.do(f"icmp ne i64 {fn.size(count, self.sizes)}, 0")
                null = fn.do(f"and i1 {null}, {some}")
            wrong.append(null)
        total = "false"
        for w in wrong:
            total = fn.do(f"or i1 {total}, {w}")
        return total

    def _slots(self, pointers: Mapping[Field, str]) -> str:
        """The kernels' arguments."""
        fn, places = self.fn, slots_of(self.part.program)
        slots = fn.alloca("i64", HEADER_SLOTS + len(places))
        self._store(slots, POOL, "i64 0")
        for f, pointer in pointers.items():
            place = f.of if f.role == "input" else f"{f.of}.out"
            if f.type is None:
                self._store(slots, ARENA, f"ptr {self._aligned(pointer)}")
            else:
                self._store(slots, places[place], f"ptr {pointer}")
        for name in sorted(self.captured):
            self._store(slots, places[name], f"ptr @gc.{name}")
        for name, register in self.sizes.items():
            self._store(slots, places[f"size {name}"], f"i64 {register}")
        return slots

    def _store(self, slots: str, place: int, value: str) -> None:
        self.fn.say(
            f"store {value}, ptr {self.fn.do(f'getelementptr i64, ptr {slots}, i64 {place}')}"
        )

    def _aligned(self, pointer: str) -> str:
        """The first address from `pointer` on that is a multiple of 64."""
        fn = self.fn
        address = fn.do(f"ptrtoint ptr {pointer} to i64")
        up = fn.do(f"and i64 {fn.do(f'add i64 {address}, {ALIGNMENT - 1}')}, {-ALIGNMENT}")
        return fn.do(f"inttoptr i64 {up} to ptr")


def _address(fn: Function, interface: Interface, field: Field) -> str:
    return fn.do(f"getelementptr i64, ptr %args, i64 {interface.fields.index(field)}")


def _load_sizes(fn: Function, interface: Interface) -> dict[str, str]:
    return {
        f.of: fn.do(f"load i64, ptr {_address(fn, interface, f)}")
        for f in interface.of_role("size")
    }


def _workspace(module: Module, interface: Interface, arenas: Sequence[Size]) -> None:
    """NAME_workspace: the larger arena and room to align it; 0 where there is none."""
    fn = Function(module, f"{interface.name}_workspace", "i64", [("ptr", "args")], linkage="")
    given, none = fn.label("given"), fn.label("none")
    fn.branch(fn.do("icmp eq ptr %args, null"), none, given)
    fn.open_block(none)
    fn.say("ret i64 0")
    fn.open_block(given)
    sizes = _load_sizes(fn, interface)
    total = "0"
    for arena in arenas:
        bytes_ = fn.size(arena, sizes)
        larger = fn.do(f"icmp sgt i64 {bytes_}, {total}")
        total = fn.do(f"select i1 {larger}, i64 {bytes_}, i64 {total}")
    padded = fn.do(f"add i64 {total}, {ALIGNMENT}")
    none_needed = fn.do(f"icmp eq i64 {total}, 0")
    fn.say(f"ret i64 {fn.do(f'select i1 {none_needed}, i64 0, i64 {padded}')}")
    fn.close()
