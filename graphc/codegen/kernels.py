"""emit: a planned program becomes LLVM text, one native function for the whole graph.

In:   a `Program` with offsets.
Out:  the text of a module that exports `ENTRY(ptr args) -> i32`: 0, or 1 if an index was out of bounds.
Invariant: every operation keeps its bits at any width, so a loop's last, partial vector is one more iteration of the
same body under a mask.

The arguments are 64-bit slots: a wrong index, the size it was held against, the arena, a pool of threads or 0, then the
inputs, outputs and named sizes in the program's order.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> from graphc.lower.fuse import fuse
>>> from graphc.lower.plan import plan
>>> text = emit(plan(fuse(b.graph("energy", {"y": (x * x).sum(0)}))))
>>> [line for line in text.split("\\n") if "@graphc_run" in line]
['define i32 @graphc_run(ptr %args) #1 {']
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen import target
from graphc.codegen.llvm import MEMORY, Function, Module, literal
from graphc.codegen.slots import ENTRY, HEADER_SLOTS
from graphc.codegen.writer import KernelWriter
from graphc.ir.types import bool_
from graphc.lower.loops import Buffer, Program


def emit(program: Program, isa: str = "host", entry: str = ENTRY) -> str:
    module = Module(target.of(isa))
    slots = slots_of(program)
    for b in program.of_role("constant"):
        module.globals[f"gc.const.{b.name}"] = _constant(b)
    names = []
    for kernel in program.kernels:
        names.append(f"gc.{kernel.name}")
        KernelWriter(program, module, slots, kernel, names[-1]).write()
    _entry(module, names, entry)
    return module.text()


def slots_of(program: Program) -> dict[str, int]:
    """The slot of each input, output and named size."""
    named = [b.name for b in (*program.of_role("input"), *program.of_role("output"))]
    named += [f"size {s}" for s in program.sizes]
    return {name: HEADER_SLOTS + i for i, name in enumerate(named)}


def _constant(b: Buffer) -> str:
    dtype = b.type.dtype
    step = dtype.itemsize
    parts = [int.from_bytes(b.data[i : i + step], "little") for i in range(0, len(b.data), step)]
    ty = MEMORY[dtype.name]
    values = ", ".join(f"{ty} {int(v) if dtype is bool_ else literal(v, dtype)}" for v in parts)
    return f"internal constant [{len(parts)} x {ty}] [{values}], align 64"


def _entry(module: Module, kernels: Sequence[str], entry: str) -> None:
    fn = Function(module, entry, "i32", [("ptr", "args")], linkage="", effort="brief")
    failed = fn.label("failed")
    for name in kernels:
        status = fn.do(f"call i32 @{name}(ptr %args)")
        following = fn.label("next")
        fn.branch(fn.do(f"icmp eq i32 {status}, 0"), following, failed)
        fn.open_block(following)
    fn.say("ret i32 0")
    if kernels:
        fn.open_block(failed)
        fn.say("ret i32 1")
    fn.close()
