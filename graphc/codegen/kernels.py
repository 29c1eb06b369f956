"""emit: a planned program becomes LLVM text, one native function for the whole graph.

In:   a `Program` with offsets.
Out:  the text of a module that exports `ENTRY(ptr args) -> i32`: 0, or 1 if an index was out of bounds.
Invariant: every operation keeps its bits at any width, so a loop's last, partial vector is one more iteration of the
same body under a mask.

The arguments are 64-bit slots: a wrong index, the size it was held against, the arena, then the inputs, outputs and
named sizes in the program's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.codegen import accumulators as accs
from graphc.codegen.gemm import emit_contract
from graphc.codegen.llvm import (
    MEMORY,
    REGISTER,
    Function,
    Module,
    emit_instruction,
    literal,
    register,
    splat,
    vector,
)
from graphc.ir.scalar import Instruction
from graphc.ir.types import Dim, DType, Size, bool_, i64
from graphc.lower.loops import (
    Acc,
    Add,
    Buffer,
    Contract,
    Fill,
    For,
    Index,
    Iota,
    Kernel,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    without,
)
from graphc.lower.plan import tree_stride

ENTRY = "graphc_run"
HEADER_SLOTS = 3  # wrong index, its size, arena
UNROLLED = 64  # statements up to which a short loop is written out


def emit(program: Program, isa: str = "host", entry: str = ENTRY) -> str:
    module = Module()
    slots = slots_of(program)
    for b in program.of_role("constant"):
        module.globals.append(_constant(b))
    names = []
    for kernel in program.kernels:
        names.append(f"gc.{kernel.name}")
        _KernelWriter(program, module, slots, kernel, names[-1]).write()
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
    return f"@gc.const.{b.name} = internal constant [{len(parts)} x {ty}] [{values}], align 64"


def _entry(module: Module, kernels: Sequence[str], entry: str) -> None:
    fn = Function(module, entry, "i32", [("ptr", "args")], linkage="")
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


@dataclass
class _Known:
    """A value: its register, dtype, and width (1 for a scalar)."""

    register: str
    dtype: DType
    width: int


@dataclass
class _Sum:
    """The state of an accumulator while its loop is written."""

    acc: Acc
    kind: str  # "register", "leaf", "stage", "array"
    value: str = ""  # the register; or the address of the array
    levels: str = ""
    stages: list[str] = field(default_factory=list)
    iteration: str = ""


class _KernelWriter:
    """Writes one kernel function."""

    def __init__(
        self, program: Program, module: Module, slots: dict[str, int], kernel: Kernel, name: str
    ) -> None:
        self.program, self.module, self.slots, self.kernel = program, module, slots, kernel
        self.fn = Function(module, name, "i32", [("ptr", "args")])
        self.known: dict[str, _Known] = {}
        self.sums: dict[str, _Sum] = {}
        self.symbols: dict[str, str] = {}
        self.pointers: dict[str, str] = {}
        self.offsets: dict[object, str] = {}  # parts of sizes that the entry block computes
        self.local: dict[str, Buffer] = {}  # on the stack: values of a block of iterations
        self.block: Any = None  # the loop in blocks whose rows are being written
        self.preloaded: dict[
            tuple[Load, str], str
        ] = {}  # vectors of written-out loops, by statement and iteration

    def buffer(self, name: str) -> Buffer:
        return self.local[name] if name in self.local else self.program.buffer(name)

    def write(self) -> None:
        with self.fn.in_entry():
            for s in self.program.sizes:
                self.symbols[s] = self._slot(self.slots[f"size {s}"], "i64")
        self.body(self.kernel.body)
        self.fn.say("ret i32 0")
        self.fn.close()

    # -- addresses ------------------------------------------------------------------------------------------------

    def _slot(self, slot: int, ty: str) -> str:
        return self.fn.do(
            f"load {ty}, ptr {self.fn.do(f'getelementptr i64, ptr %args, i64 {slot}')}"
        )

    def pointer(self, name: str) -> str:
        """The first element of a buffer."""
        found = self.pointers.get(name)
        if found is None:
            with self.fn.in_entry():
                found = self.pointers[name] = self._pointer(self.buffer(name))
        return found

    def _pointer(self, b: Buffer) -> str:
        if b.role == "constant":
            return f"@gc.const.{b.name}"
        if b.role != "temp":
            return self._slot(self.slots[b.name], "ptr")
        if "arena" not in self.pointers:
            self.pointers["arena"] = self._slot(2, "ptr")
        assert b.offset is not None
        offset = self.fn.size(b.offset, self.symbols, self.offsets)
        if offset.startswith("%"):
            offset = self.fn.do(
                f"freeze i64 {offset}"
            )  # a plain number to LLVM's analysis of loops, else slow
        return self.fn.do(f"getelementptr i8, ptr {self.pointers['arena']}, i64 {offset}")

    def size(self, size: Size) -> str:
        return self.fn.size(size, self.symbols)

    def address(self, buffer: str, index: Size) -> str:
        ty = MEMORY[self.buffer(buffer).type.dtype.name]
        base = self.pointer(buffer)
        return (
            base
            if index == 0
            else self.fn.do(f"getelementptr {ty}, ptr {base}, i64 {self.size(index)}")
        )

    # -- scalar statements ------------------------------------------------------------------------------------------

    def body(self, statements: Sequence[Statement]) -> None:
        for s in statements:
            self.statement(s)

    def statement(self, s: Statement) -> None:
        """One statement outside of vector loops."""
        fn = self.fn
        match s:
            case Let():
                self._let(s, 1)
            case Iota():
                self.known[s.name] = _Known(self.size(s.value), i64, 1)
            case Load():
                address = self._gathered(s.buffer, s.index, s.at)
                self.known[s.name] = _Known(self._load(address, s.dtype), s.dtype, 1)
            case Store():
                self._store(self.address(s.buffer, s.index), s.value)
            case Index():
                self.known[s.name] = _Known(
                    self._index(self.known[s.value].register, s.size, 1, ""), i64, 1
                )
            case Add():
                self._add(s)
            case Scatter():
                self._scatter(s)
            case Fill():
                self._fill(s)
            case Contract():
                emit_contract(self, s)
            case For(mode="vector"):
                _VectorLoop(self, s).write()
            case For(mode="blocks"):
                from graphc.codegen.blocks import BlockLoop

                BlockLoop(self, s).write()
            case For():
                self._rows(s)
            case _:
                raise AssertionError(fn.head)

    def _let(self, s: Let, width: int) -> None:
        args = [self.known[a] for a in s.args]
        ins = Instruction(s.op, (), s.dtype, s.attr)
        made = emit_instruction(
            self.fn, ins, [a.register for a in args], [a.dtype for a in args], width
        )
        self.known[s.name] = _Known(made, s.dtype, width)

    def _gathered(self, buffer: str, index: Size, at: Sequence[tuple[str, Size]]) -> str:
        address = self.address(buffer, index)
        ty = MEMORY[self.buffer(buffer).type.dtype.name]
        for value, stride in at:
            offset = self.fn.do(f"mul i64 {self.known[value].register}, {self.size(stride)}")
            address = self.fn.do(f"getelementptr {ty}, ptr {address}, i64 {offset}")
        return address

    def _load(self, address: str, dtype: DType) -> str:
        if dtype is bool_:
            return self.fn.do(f"icmp ne i8 {self.fn.do(f'load i8, ptr {address}')}, 0")
        return self.fn.do(f"load {MEMORY[dtype.name]}, ptr {address}, align {dtype.itemsize}")

    def _store(self, address: str, value: str) -> None:
        v = self.known[value]
        text = self.fn.do(f"zext i1 {v.register} to i8") if v.dtype is bool_ else v.register
        self.fn.say(f"store {MEMORY[v.dtype.name]} {text}, ptr {address}, align {v.dtype.itemsize}")

    def _index(self, value: str, size: Size, width: int, mask: str) -> str:
        """Wrap negatives; a lane that is out of bounds ends the kernel, and the whole run."""
        fn, ty, ones = self.fn, vector("i64", width), vector("i1", width)
        n = fn.spread_type(self.size(size), "i64", width)
        wrapped = fn.do(f"add {ty} {value}, {n}")
        negative = fn.do(f"icmp slt {ty} {value}, {splat('0', 'i64', width)}")
        index = fn.do(f"select {ones} {negative}, {ty} {wrapped}, {ty} {value}")
        wrong = fn.do(f"icmp uge {ty} {index}, {n}")
        if mask:
            wrong = fn.do(f"and {ones} {wrong}, {mask}")
        bad, good = fn.label("bad"), fn.label("good")
        fn.branch(fn.any_lane(wrong, width), bad, good)
        fn.open_block(bad)
        self._report(value, wrong, size, width)
        fn.open_block(good)
        return index

    def _report(self, value: str, wrong: str, size: Size, width: int) -> None:
        fn = self.fn
        if width > 1:
            bits = fn.do(f"bitcast <{width} x i1> {wrong} to i{width}")
            count = fn.module.intrinsic(f"llvm.cttz.i{width}", f"i{width}", (f"i{width}", "i1"))
            lane = fn.do(f"call i{width} @{count}(i{width} {bits}, i1 true)")
            value = fn.do(f"extractelement <{width} x i64> {value}, i{width} {lane}")
        fn.say(f"store i64 {value}, ptr %args")
        fn.say(f"store i64 {self.size(size)}, ptr {fn.do('getelementptr i64, ptr %args, i64 1')}")
        fn.say("ret i32 1")

    def _scatter(self, s: Scatter) -> None:
        address = self._gathered(s.buffer, s.index, s.at)
        v = self.known[s.value]
        before = self._load(address, v.dtype)
        total = accs.combine(self.fn, "sum", v.dtype, before, v.register, 1)
        self.fn.say(
            f"store {MEMORY[v.dtype.name]} {total}, ptr {address}, align {v.dtype.itemsize}"
        )

    def _fill(self, s: Fill) -> None:
        b = self.buffer(s.buffer)
        dtype = b.type.dtype
        value = str(s.bits) if dtype is bool_ else literal(s.bits, dtype)
        self._fill_region(self.pointer(s.buffer), self.size(b.type.size), dtype, value)

    def _fill_region(self, address: str, count: str, dtype: DType, value: str) -> None:
        name = accs.fill(self.module, dtype)
        self.fn.say(f"call void @{name}(ptr {address}, i64 {count}, {MEMORY[dtype.name]} {value})")

    # -- loops, one iteration after the other ------------------------------------------------------------------------

    def _rows(self, loop: For) -> None:
        n = self.size(loop.size)
        sums = [self._open(a) for a in loop.accs]
        carried = [s for s in sums if s.kind == "register"]

        def body(i: str, values: list[str]) -> list[str]:
            self.symbols[loop.var] = i
            for s in sums:
                s.iteration = i
            for s, v in zip(carried, values, strict=True):
                s.value = v
            self.body(loop.body)
            for s in sums:
                self._end_of_iteration(s, i)
            return [s.value for s in carried]

        types = [
            (register(s.acc.dtype, 1), accs.identity(s.acc.monoid, s.acc.dtype)) for s in carried
        ]
        last = self.fn.loop("0", n, 1, types, body)
        for s, v in zip(carried, last, strict=True):
            s.value = v
        for s in sums:
            self._close(s, n)

    def _open(self, acc: Acc) -> _Sum:
        """What an accumulator needs before a loop of rows."""
        state = self.sums[acc.name] = _Sum(acc, "register")
        if acc.into:
            state.kind, state.value = "array", self.address(acc.into, acc.index)
            start = accs.identity(acc.monoid, acc.dtype)
            start = str(int(start == "true")) if acc.dtype is bool_ else start
            self._fill_region(state.value, self.size(acc.size), acc.dtype, start)
        elif acc.order == "lanes":
            state.kind = "stage"
            lanes = accs.lanes_of(acc.dtype)
            ty = register(acc.dtype, lanes)
            state.levels = self.fn.alloca(ty, accs.LEVELS)
            state.stages = [
                self.fn.alloca(ty, accs.LEAF) for _ in range(2 if acc.monoid == "fma" else 1)
            ]
        return state

    def _add(self, s: Add) -> None:
        state = self.sums[s.acc]
        acc, values = state.acc, [self.known[v].register for v in s.values]
        if state.kind == "stage":
            slot = self.fn.do(
                f"and i64 {state.iteration}, {accs.LEAF * accs.lanes_of(acc.dtype) - 1}"
            )
            for stage, v in zip(state.stages, values, strict=True):
                at = self.fn.do(f"getelementptr {MEMORY[acc.dtype.name]}, ptr {stage}, i64 {slot}")
                self.fn.say(f"store {MEMORY[acc.dtype.name]} {v}, ptr {at}")
        elif state.kind == "array":
            ty = MEMORY[acc.dtype.name]
            at = self.fn.do(f"getelementptr {ty}, ptr {state.value}, i64 {self.size(s.index)}")
            total = self._folded(acc, self._load(at, acc.dtype), values, 1)
            stored = self.fn.do(f"zext i1 {total} to i8") if acc.dtype is bool_ else total
            self.fn.say(f"store {ty} {stored}, ptr {at}")
        else:
            state.value = self._folded(acc, state.value, values, 1)

    def _folded(self, acc: Acc, before: str, values: Sequence[str], width: int) -> str:
        if acc.monoid == "fma":
            return accs.fma(self.fn, acc.dtype, values[0], values[1], before, width)
        return accs.combine(self.fn, acc.monoid, acc.dtype, before, values[0], width)

    def _end_of_iteration(self, state: _Sum, i: str) -> None:
        acc, fn = state.acc, self.fn
        if state.kind == "stage":
            per_leaf = accs.LEAF * accs.lanes_of(acc.dtype)
            done = fn.do(f"add i64 {i}, 1")
            full = fn.do(f"icmp eq i64 {fn.do(f'and i64 {done}, {per_leaf - 1}')}, 0")
            with fn.when(full):
                self._push_stage(state, fn.do(f"lshr i64 {i}, {per_leaf.bit_length() - 1}"), "")
        elif state.kind == "array" and accs.is_ordered(acc.monoid, acc.order, acc.dtype):
            leaf = accs.leaf_of(acc.order)
            done = fn.do(f"add i64 {i}, 1")
            full = fn.do(f"icmp eq i64 {fn.do(f'and i64 {done}, {leaf - 1}')}, 0")
            with fn.when(full):
                self._tree("push", state, fn.do(f"lshr i64 {i}, {leaf.bit_length() - 1}"))

    def _tree(self, what: str, state: _Sum, t: str) -> None:
        acc = state.acc
        make = accs.tree_push if what == "push" else accs.tree_finish
        name = make(self.module, acc.monoid, acc.dtype)
        tree = self.pointer(f"{acc.into}.tree")
        count, stride = self.size(acc.size), self.size(tree_stride(acc.size))
        self.fn.say(
            f"call void @{name}(ptr {state.value}, ptr {tree}, i64 {count}, i64 {t}, i64 {stride})"
        )

    def _push_stage(self, state: _Sum, t: str, remaining: str) -> None:
        """Fold the staged elements into a leaf; of a partial one, only the first `remaining`."""
        acc, fn = state.acc, self.fn
        lanes = accs.lanes_of(acc.dtype)
        ty = register(acc.dtype, lanes)
        leaf = accs.identity(acc.monoid, acc.dtype, lanes)
        for q in range(accs.LEAF):
            at = [fn.do(f"getelementptr {ty}, ptr {stage}, i64 {q}") for stage in state.stages]
            values = [fn.do(f"load {ty}, ptr {a}") for a in at]
            total = self._folded(acc, leaf, values, lanes)
            if remaining:
                left = fn.spread_type(fn.do(f"sub i64 {remaining}, {q * lanes}"), "i64", lanes)
                mask = fn.do(f"icmp slt <{lanes} x i64> {fn.iota(lanes)}, {left}")
                total = fn.do(f"select <{lanes} x i1> {mask}, {ty} {total}, {ty} {leaf}")
            leaf = total
        accs.push(fn, state.levels, leaf, t, acc.monoid, acc.dtype, lanes)

    def _close(self, state: _Sum, n: str) -> None:
        """After the loop: the accumulator's value."""
        acc, fn = state.acc, self.fn
        if state.kind == "register":
            self.known[acc.name] = _Known(state.value, acc.dtype, 1)
        elif state.kind == "stage":
            lanes = accs.lanes_of(acc.dtype)
            shift = (accs.LEAF * lanes).bit_length() - 1
            whole = fn.do(f"lshr i64 {n}, {shift}")
            rest = fn.do(f"and i64 {n}, {accs.LEAF * lanes - 1}")
            partial = fn.do(f"icmp ne i64 {rest}, 0")
            with fn.when(partial):
                self._push_stage(state, whole, rest)
            count = fn.do(f"add i64 {whole}, {fn.do(f'zext i1 {partial} to i64')}")
            total = accs.collapse(fn, state.levels, count, acc.monoid, acc.dtype, lanes)
            total = accs.horizontal(fn, acc.monoid, acc.dtype, total, lanes)
            self.known[acc.name] = _Known(self.sum_of_none(acc, total, n), acc.dtype, 1)
        elif accs.is_ordered(acc.monoid, acc.order, acc.dtype):
            self._close_array(state, n)

    def _close_array(self, state: _Sum, n: str) -> None:
        acc, fn = state.acc, self.fn
        leaf = accs.leaf_of(acc.order)
        whole = fn.do(f"lshr i64 {n}, {leaf.bit_length() - 1}")
        partial = fn.do(f"icmp ne i64 {fn.do(f'and i64 {n}, {leaf - 1}')}, 0")
        with fn.when(partial):
            self._tree("push", state, whole)
        self._tree("finish", state, fn.do(f"add i64 {whole}, {fn.do(f'zext i1 {partial} to i64')}"))
        if acc.monoid in ("sum", "fma"):
            with fn.when(fn.do(f"icmp eq i64 {n}, 0")):
                self._fill_region(state.value, self.size(acc.size), acc.dtype, "0x0000000000000000")

    def sum_of_none(self, acc: Acc, total: str, n: str) -> str:
        """A float sum of nothing is +0, not the identity -0."""
        if acc.monoid not in ("sum", "fma") or not acc.dtype.is_float or (n.isdigit() and int(n)):
            return total
        ty = REGISTER[acc.dtype.name]
        return self.fn.do(
            f"select i1 {self.fn.do(f'icmp eq i64 {n}, 0')}, {ty} 0x0000000000000000, {ty} {total}"
        )


@dataclass
class Kept:
    """Where an accumulator stays while a loop is cut into blocks: a counter, or one vector."""

    levels: str = ""
    slot: str = ""


class _VectorLoop:
    """An innermost loop whose iterations are lanes.

    In a block of a larger loop it begins at the size that `start` names, and its accumulators are `kept`.
    """

    def __init__(
        self, kernel: _KernelWriter, loop: For, start: str = "", kept: dict[str, Kept] | None = None
    ) -> None:
        self.kernel, self.loop, self.fn = kernel, loop, kernel.fn
        self.start, self.kept = start, kept
        self.lanes = [a for a in loop.accs if a.order == "lanes"]
        self.others = [a for a in loop.accs if a.order != "lanes"]
        self.width = self._width()
        self.bases: dict[int, str] = {}  # statement position -> address at iteration 0
        self.steps: dict[int, str] = {}

    def _width(self) -> int:
        if self.lanes:
            return accs.lanes_of(self.lanes[0].dtype)
        dtypes = [a.dtype for a in self.loop.accs]
        for s in self.loop.body:
            if isinstance(s, (Let, Load)):
                dtypes.append(s.dtype)
            elif isinstance(s, (Iota, Index)):
                dtypes.append(i64)
            elif isinstance(s, Store):
                dtypes.append(self.kernel.buffer(s.buffer).type.dtype)
        return 8 if any(d.itemsize == 8 for d in dtypes) else 16

    def write(self) -> None:
        kernel, loop = self.kernel, self.loop
        outer = dict(kernel.known)
        n = kernel.size(loop.size)
        self._prepare()
        if self._short():
            outer.update(self._unrolled(int(n)))
        elif self.kept is not None:
            self._kept_loop(n)
        else:
            outer.update(self._counted(n))
        kernel.known = outer

    def _counted(self, n: str) -> dict[str, _Known]:
        """A loop over vectors; the accumulators' values."""
        kernel, fn, width = self.kernel, self.fn, self.width
        levels = [fn.alloca(register(a.dtype, width), self._levels()) for a in self.lanes]
        single = n.isdigit() and int(n) <= self._step()  # one leaf: no counter
        values, leaves = self._run(
            n, [accs.identity(a.monoid, a.dtype, width) for a in self.others], levels, single
        )
        found = {}
        for acc, value in zip(self.others, values, strict=True):
            found[acc.name] = _Known(
                accs.horizontal(fn, acc.monoid, acc.dtype, value, width), acc.dtype, 1
            )
        for i, acc in enumerate(self.lanes):
            total = (
                leaves[i] if single and leaves else self._collapsed(acc, levels[i], n, self._step())
            )
            total = accs.horizontal(fn, acc.monoid, acc.dtype, total, width)
            found[acc.name] = _Known(kernel.sum_of_none(acc, total, n), acc.dtype, 1)
        return found

    def _kept_loop(self, n: str) -> None:
        """A block's share of a loop: accumulators come from and go back to where they are kept."""
        assert self.kept is not None
        fn, width = self.fn, self.width
        slots = [(register(a.dtype, width), self.kept[a.name].slot) for a in self.others]
        before = [fn.do(f"load {ty}, ptr {slot}") for ty, slot in slots]
        after, _ = self._run(
            n, before, [self.kept[a.name].levels for a in self.lanes], single=False
        )
        for (ty, slot), value in zip(slots, after, strict=True):
            fn.say(f"store {ty} {value}, ptr {slot}")

    def _step(self) -> int:
        return self.width * (accs.LEAF if self.lanes else 1)

    def _run(
        self, n: str, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """Whole vectors or leaves, then the rest under a mask."""
        step = self._step()
        main = str(int(n) // step * step) if n.isdigit() else self.fn.do(f"and i64 {n}, {-step}")
        leaves: list[str] = []
        if not main.isdigit() or int(main):
            values, leaves = self._main(main, step, values, levels, single)
        if not (n.isdigit() and main == n):
            values, leaves = self._tail(main, n, step, values, levels, single)
        return values, leaves

    # -- short loops ----------------------------------------------------------------------------------------------

    def _short(self) -> bool:
        """Few vectors and few statements: written out, with sums folded as their tree says, without a counter."""
        n = self.loop.size
        if self.kept is not None or not isinstance(n, int) or n == 0:
            return False
        vectors = -(-n // self.width)
        calls = sum(isinstance(s, Let) and s.op in ("call", "rare") for s in self.loop.body)
        return vectors * (len(self.loop.body) + 6 * calls) <= UNROLLED

    def _unrolled(self, n: int) -> dict[str, _Known]:
        fn, width = self.fn, self.width
        values = [accs.identity(a.monoid, a.dtype, width) for a in self.others]
        leaves: list[list[str]] = []
        for i in range(0, n, self._step()):
            now = [*values, *self._identities()]
            for j in range(i, min(i + self._step(), n), width):
                now = self._iteration(str(j), now, self._constant_mask(n - j))
            values = now[: len(values)]
            leaves.append(now[len(values) :])
        found = {}
        for acc, value in zip(self.others, values, strict=True):
            found[acc.name] = _Known(
                accs.horizontal(fn, acc.monoid, acc.dtype, value, width), acc.dtype, 1
            )
        for acc, parts in zip(self.lanes, zip(*leaves, strict=True), strict=True):
            total = accs.counter(fn, acc.monoid, acc.dtype, parts, width)
            found[acc.name] = _Known(
                accs.horizontal(fn, acc.monoid, acc.dtype, total, width), acc.dtype, 1
            )
        return found

    def preload(self, s: Load) -> None:
        """Load all vectors of a written-out loop's statement now."""
        base = self.kernel.address(s.buffer, without(s.index, self.loop.var))
        ty, n = MEMORY[s.dtype.name], int(str(self.loop.size))
        for i in range(0, n, self.width):
            address = self.fn.do(f"getelementptr {ty}, ptr {base}, i64 {i}")
            self.kernel.preloaded[s, str(i)] = self._load(
                address, s.dtype, self._constant_mask(n - i)
            )

    def _constant_mask(self, left: int) -> str:
        if left >= self.width:
            return ""
        return "<" + ", ".join(f"i1 {int(i < left)}" for i in range(self.width)) + ">"

    def _levels(self) -> int:
        n = self.loop.size
        return accs.LEVELS if not isinstance(n, int) else max(1, n.bit_length())

    def _collapsed(self, acc: Acc, levels: str, n: str, step: int) -> str:
        fn = self.fn
        count = fn.do(f"lshr i64 {fn.do(f'add i64 {n}, {step - 1}')}, {step.bit_length() - 1}")
        return accs.collapse(fn, levels, count, acc.monoid, acc.dtype, self.width)

    def _carried(self, accumulators: Sequence[Acc], values: Sequence[str]) -> list[tuple[str, str]]:
        return [
            (register(a.dtype, self.width), v) for a, v in zip(accumulators, values, strict=True)
        ]

    def _identities(self) -> list[str]:
        return [accs.identity(a.monoid, a.dtype, self.width) for a in self.lanes]

    def _main(
        self, main: str, step: int, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """Whole vectors; with sums in lanes, whole leaves."""
        fn = self.fn
        if not self.lanes:
            return fn.loop(
                "0",
                main,
                step,
                self._carried(self.others, values),
                lambda i, v: self._iteration(i, v, ""),
            ), []
        kept: list[str] = []

        def leaf(i: str, before: list[str]) -> list[str]:
            carried = self._carried([*self.others, *self.lanes], [*before, *self._identities()])
            end = fn.do(f"add i64 {i}, {step}")
            after = fn.loop(i, end, self.width, carried, lambda j, v: self._iteration(j, v, ""))
            kept[:] = after[len(before) :]
            if not single:
                self._push(kept, levels, i, step)
            return after[: len(before)]

        if single:
            return leaf("0", values), kept
        return fn.loop("0", main, step, self._carried(self.others, values), leaf), kept

    def _tail(
        self, main: str, n: str, step: int, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """What is left, under a mask."""
        fn, width = self.fn, self.width
        carried = self._carried([*self.others, *self.lanes], [*values, *self._identities()])

        def masked(i: str, before: list[str]) -> list[str]:
            left = fn.spread_type(fn.do(f"sub i64 {n}, {i}"), "i64", width)
            mask = fn.do(f"icmp slt <{width} x i64> {fn.iota(width)}, {left}")
            return self._iteration(i, before, mask)

        after = fn.loop(main, n, width, carried, masked)
        leaves = after[len(values) :]
        if self.lanes and not single:
            with fn.when(fn.do(f"icmp slt i64 {main}, {n}")):
                self._push(leaves, levels, main, step)
        return after[: len(values)], leaves

    def _push(self, leaves: Sequence[str], levels: Sequence[str], i: str, step: int) -> None:
        if self.start:
            i = self.fn.do(f"add i64 {i}, {self.kernel.symbols[self.start]}")
        t = self.fn.do(f"lshr i64 {i}, {step.bit_length() - 1}")
        for acc, leaf, level in zip(self.lanes, leaves, levels, strict=True):
            accs.push(self.fn, level, leaf, t, acc.monoid, acc.dtype, self.width)

    # -- before the loop ----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Addresses at iteration 0, values that no iteration changes, and outer values in every lane."""
        kernel, var = self.kernel, self.loop.var
        for position, s in enumerate(self.loop.body):
            if isinstance(s, (Load, Store, Scatter)):
                self._prepare_access(position, s.buffer, s.index, s)
            elif (
                isinstance(s, Add)
                and kernel.sums.get(s.acc) is not None
                and kernel.sums[s.acc].kind == "array"
            ):
                acc = kernel.sums[s.acc].acc
                self._prepare_access(position, acc.into, acc.index + s.index, s)
            elif isinstance(s, Iota):
                self.bases[position] = kernel.size(self._first(s.value))
                self.steps[position] = kernel.size(coefficient(s.value, var))
        inside = {s.name for s in self.loop.body if isinstance(s, (Let, Load, Iota, Index))}
        for s in self.loop.body:
            for name in _used(s):
                if name not in inside:
                    self._spread(name)

    def _prepare_access(self, position: int, buffer: str, index: Size, s: Statement) -> None:
        kernel, var = self.kernel, self.loop.var
        step = coefficient(index, var)
        self.bases[position] = kernel.address(buffer, self._first(index))
        self.steps[position] = kernel.size(step)
        if isinstance(s, Load) and step == 0 and not s.at:
            value = kernel._load(self.bases[position], s.dtype)
            kernel.known[s.name] = _Known(
                self.fn.spread(value, s.dtype, self.width), s.dtype, self.width
            )

    def _first(self, index: Size) -> Size:
        """An index at the loop's first iteration."""
        first = without(index, self.loop.var)
        return (
            first + coefficient(index, self.loop.var) * Dim.symbol(self.start)
            if self.start
            else first
        )

    def _spread(self, name: str) -> None:
        value = self.kernel.known[name]
        if value.width == 1:
            wide = self.fn.spread(value.register, value.dtype, self.width)
            self.kernel.known[name] = _Known(wide, value.dtype, self.width)

    # -- one iteration --------------------------------------------------------------------------------------------------

    def _iteration(self, i: str, values: Sequence[str], mask: str) -> list[str]:
        """The body for `width` iterations from i on; gives the accumulators' next values."""
        state = dict(zip([a.name for a in (*self.others, *self.lanes)], values, strict=False))
        for position, s in enumerate(self.loop.body):
            self._statement(position, s, i, mask, state)
        return list(state.values())

    def _statement(
        self, position: int, s: Statement, i: str, mask: str, state: dict[str, str]
    ) -> None:
        kernel, width = self.kernel, self.width
        match s:
            case Let():
                kernel._let(s, width)
            case Iota():
                kernel.known[s.name] = _Known(self._offsets(position, i), i64, width)
            case Load():
                if (s, i) in kernel.preloaded:
                    kernel.known[s.name] = _Known(kernel.preloaded[s, i], s.dtype, width)
                elif self.steps[position] != "0" or s.at:
                    address = self._addresses(position, s.at, i)
                    if (
                        kernel.block is not None
                        and i.isdigit()
                        and int(i) // width % 2 == 0
                        and not address.startswith("many ")
                    ):
                        kernel.block.prefetch(s, address)
                    kernel.known[s.name] = _Known(
                        self._load(address, s.dtype, mask), s.dtype, width
                    )
            case Store():
                self._store(self._addresses(position, (), i), kernel.known[s.value], mask)
            case Index():
                index = kernel._index(kernel.known[s.value].register, s.size, width, mask)
                kernel.known[s.name] = _Known(index, i64, width)
            case Scatter():
                self._read_modify_write(
                    position,
                    s.at,
                    i,
                    mask,
                    kernel.known[s.value].dtype,
                    "sum",
                    [kernel.known[s.value].register],
                )
            case Add() if s.acc in state:
                state[s.acc] = self._folded(s, state[s.acc], mask)
            case Add():
                acc = kernel.sums[s.acc].acc
                operands = [kernel.known[v].register for v in s.values]
                self._read_modify_write(position, (), i, mask, acc.dtype, acc.monoid, operands)
            case _:
                raise AssertionError(f"{s} in a vector loop")

    def _folded(self, s: Add, before: str, mask: str) -> str:
        kernel = self.kernel
        acc = next(a for a in self.loop.accs if a.name == s.acc)
        total = kernel._folded(
            acc, before, [kernel.known[v].register for v in s.values], self.width
        )
        if not mask:
            return total
        ty = register(acc.dtype, self.width)
        return self.fn.do(f"select <{self.width} x i1> {mask}, {ty} {total}, {ty} {before}")

    def _read_modify_write(
        self,
        position: int,
        at: Sequence,
        i: str,
        mask: str,
        dtype: DType,
        monoid: str,
        operands: Sequence[str],
    ) -> None:
        address = self._addresses(position, at, i)
        before = self._load(address, dtype, mask)
        acc = Acc("", dtype, monoid, "any")
        total = self.kernel._folded(acc, before, operands, self.width)
        self._store(address, _Known(total, dtype, self.width), mask)

    # -- memory ---------------------------------------------------------------------------------------------------------

    def _offsets(self, position: int, i: str) -> str:
        """start + step * iteration in each lane."""
        fn, width, step = self.fn, self.width, self.steps[position]
        first = fn.do(f"add i64 {self.bases[position]}, {fn.do(f'mul i64 {i}, {step}')}")
        return fn.do(
            f"add <{width} x i64> {fn.spread_type(first, 'i64', width)}, {self._lane_steps(step)}"
        )

    def _lane_steps(self, step: str) -> str:
        fn, width = self.fn, self.width
        if step == "1":
            return fn.iota(width)
        return fn.do(f"mul <{width} x i64> {fn.iota(width)}, {fn.spread_type(step, 'i64', width)}")

    def _addresses(self, position: int, at: Sequence[tuple[str, Size]], i: str) -> str:
        """One address, marked by being a plain register, or a vector of addresses."""
        fn, width, step = self.fn, self.width, self.steps[position]
        ty = self._memory_type(position)
        if not at and step == "1":
            return fn.do(f"getelementptr {ty}, ptr {self.bases[position]}, i64 {i}")
        first = fn.do(f"mul i64 {i}, {step}")
        offsets = fn.do(
            f"add <{width} x i64> {fn.spread_type(first, 'i64', width)}, {self._lane_steps(step)}"
        )
        for value, stride in at:
            wide = fn.spread_type(self.kernel.size(stride), "i64", width)
            scaled = fn.do(f"mul <{width} x i64> {self.kernel.known[value].register}, {wide}")
            offsets = fn.do(f"add <{width} x i64> {offsets}, {scaled}")
        return "many " + fn.do(
            f"getelementptr {ty}, ptr {self.bases[position]}, <{width} x i64> {offsets}"
        )

    def _memory_type(self, position: int) -> str:
        s = self.loop.body[position]
        buffer = self.kernel.sums[s.acc].acc.into if isinstance(s, Add) else s.buffer  # type: ignore[union-attr]
        return MEMORY[self.kernel.buffer(buffer).type.dtype.name]

    def _load(self, address: str, dtype: DType, mask: str) -> str:
        fn, width = self.fn, self.width
        ty = vector(MEMORY[dtype.name], width)
        many, ones = address.startswith("many "), vector("i1", width)
        zero = "zeroinitializer"
        if many:
            name = fn.module.intrinsic(
                f"llvm.masked.gather.{_over(dtype, width)}.v{width}p0",
                ty,
                (f"<{width} x ptr>", "i32", ones, ty),
            )
            raw = fn.do(
                f"call {ty} @{name}(<{width} x ptr> {address[5:]}, i32 {dtype.itemsize}, {ones} {mask or 'splat (i1 true)'}, {ty} {zero})"
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

    def _store(self, address: str, value: _Known, mask: str) -> None:
        fn, width, dtype = self.fn, self.width, value.dtype
        ty, ones = vector(MEMORY[dtype.name], width), vector("i1", width)
        text = fn.do(f"zext {ones} {value.register} to {ty}") if dtype is bool_ else value.register
        if address.startswith("many "):
            name = fn.module.intrinsic(
                f"llvm.masked.scatter.{_over(dtype, width)}.v{width}p0",
                "void",
                (ty, f"<{width} x ptr>", "i32", ones),
            )
            fn.say(
                f"call void @{name}({ty} {text}, <{width} x ptr> {address[5:]}, i32 {dtype.itemsize}, {ones} {mask or 'splat (i1 true)'})"
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


def _over(dtype: DType, width: int) -> str:
    return f"v{width}{'i8' if dtype is bool_ else dtype.name}"


def _used(s: Statement) -> tuple[str, ...]:
    match s:
        case Let():
            return s.args
        case Load():
            return tuple(v for v, _ in s.at)
        case Store():
            return (s.value,)
        case Index():
            return (s.value,)
        case Add():
            return s.values
        case Scatter():
            return (s.value, *(v for v, _ in s.at))
    return ()
