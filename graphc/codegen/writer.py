"""Statements outside of vector loops: scalars, memory, and loops that run one iteration after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import filterfalse

from graphc.codegen import accumulators as accs
from graphc.codegen.ahead import RowsAhead
from graphc.codegen.blocks import BlockLoop
from graphc.codegen.gemm import emit_contract
from graphc.codegen.lanes import LanesLoop
from graphc.codegen.llvm import (
    MEMORY,
    PIECE,
    REGISTER,
    Function,
    Module,
    literal,
    register,
    splat,
    vector,
)
from graphc.codegen.operations import emit_instruction
from graphc.codegen.pairs import PairsOfBlocks, RowsOfPairs
from graphc.codegen.parallel import ParallelLoop
from graphc.codegen.slots import ARENA
from graphc.codegen.state import BEGIN, FIRST, OWNER, Known, Sum
from graphc.codegen.sweep import Sweep
from graphc.codegen.turned import TurnedColumns
from graphc.codegen.vectors import VectorLoop
from graphc.ir.types import DType, Size, at_least, bool_, i64, product
from graphc.lower.loops import (
    RUNNING,
    Acc,
    Add,
    Buffer,
    Contract,
    Fill,
    For,
    Index,
    Inside,
    Iota,
    Kernel,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Step,
    Store,
    is_turned,
)
from graphc.lower.pairs import is_paired
from graphc.lower.plan import tree_name, tree_stride

BRIEF = 16  # statements up to which a kernel without loops is not worth much effort


def _effort(kernel: Kernel) -> str:
    """How much work a kernel's own function deserves: parts of loops and products have theirs."""
    here = [s for s in kernel.body if not isinstance(s, Contract) and not _in_parts(s)]
    loops = any(isinstance(s, For) for s in here)
    return "usual" if loops or len(here) > BRIEF else "brief"


def _in_parts(s: Statement) -> bool:
    return isinstance(s, For) and (s.parallel or s.ordered)


class KernelWriter:
    """Writes one kernel function, or one that runs a part of a loop for a thread."""

    def __init__(
        self,
        program: Program,
        module: Module,
        slots: dict[str, int],
        kernel: Kernel,
        name: str,
        params: Sequence[tuple[str, str]] = (("ptr", "args"),),
    ) -> None:
        self.program, self.module, self.slots, self.kernel = program, module, slots, kernel
        self.fn = Function(module, name, "i32", params)
        self.known: dict[str, Known] = {}
        self.sums: dict[str, Sum] = {}
        self.symbols: dict[str, str] = {}
        self.pointers: dict[str, str] = {}
        self.offsets: dict[object, str] = {}  # parts of sizes that the entry block computes
        self.local: dict[str, Buffer] = {}  # on the stack: values of a block of iterations
        self.slot_of: dict[str, str] = {}  # buffer of one vector, for another piece -> its address
        self.block: BlockLoop | None = None  # the loop in blocks whose rows are being written
        self.ahead: RowsAhead | None = None  # of the loop of rows that is being written
        self.preloaded: dict[
            tuple[Load, str], str
        ] = {}  # vectors of written-out loops, by statement and iteration
        self.parts = 0  # functions for parts of this kernel's loops
        self.report, self.wrong = (
            "%args",
            "",
        )  # where a wrong index goes; of a part, the word that says so
        # Of a part:
        self.part_of = ""  # the loop's variable
        self.arrays: dict[str, str] = {}  # accumulator -> the array it fills
        self.results: dict[str, str] = {}  # accumulator -> where its tree's last vector goes

    def for_part(self, name: str) -> KernelWriter:
        """The writer of `part(context, index, worker)`; the context begins with the kernel's arguments."""
        params = [("ptr", "context"), ("i64", "index"), ("i64", "worker")]
        part = KernelWriter(self.program, self.module, self.slots, self.kernel, name, params)
        part.fn.entry.append("  %args = load ptr, ptr %context")
        part.begin()
        return part

    def beside(self, params: Sequence[tuple[str, str]]) -> KernelWriter:
        """The writer of a function that does some of this one's work; `args` is among its parameters."""
        name = f"{self.fn.name}{PIECE}{self.parts}"
        self.parts += 1
        writer = KernelWriter(self.program, self.module, self.slots, self.kernel, name, params)
        writer.part_of = self.part_of
        writer.begin()
        return writer

    def buffer(self, name: str) -> Buffer:
        return self.local[name] if name in self.local else self.program.buffer(name)

    def write(self) -> None:
        self.fn.effort = _effort(self.kernel)
        self.begin()
        if self.kernel.sweep is None:
            self.body(self.kernel.body)
        else:
            Sweep(self).write()
        self.end()

    def begin(self) -> None:
        with self.fn.in_entry():
            for s in self.program.sizes:
                self.symbols[s] = self._slot(self.slots[f"size {s}"], "i64")

    def end(self) -> None:
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
            self.pointers["arena"] = self._slot(ARENA, "ptr")
        assert b.offset is not None
        offset = self.fn.size(b.offset, self.symbols, self.offsets)
        if offset.startswith("%"):
            offset = self.fn.do(
                f"freeze i64 {offset}"
            )  # a plain number to LLVM's analysis of loops, else slow
        if b.private and FIRST in self.symbols:
            owner = self.symbols[OWNER] if b.panel else "%worker"
            mine = self.fn.do(
                f"mul i64 {owner}, {self.fn.size(self.program.private, self.symbols)}"
            )
            offset = self.fn.do(f"add i64 {offset}, {mine}")
            if b.panel and self.symbols[BEGIN] != "0":  # rows of the panel alone
                row = product(b.type.shape[1:]) * b.type.dtype.itemsize
                above = self.fn.do(f"mul i64 {self.symbols[BEGIN]}, {row}")
                offset = self.fn.do(f"sub i64 {offset}, {above}")
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
        for i, s in enumerate(statements):
            if isinstance(s, For) and is_paired(s):
                PairsOfBlocks(self, s).write()
            if isinstance(s, For) and s.parallel:
                then = statements[i + 1] if i + 1 < len(statements) else None
                after = then if isinstance(then, For) and then.ordered else None
                ParallelLoop(self, s, after).write()
            elif not (isinstance(s, For) and s.ordered):
                self.statement(s)

    def statement(self, s: Statement) -> None:
        """One statement outside of vector loops."""
        fn = self.fn
        match s:
            case Let():
                self.let(s, 1)
            case Iota():
                self.known[s.name] = Known(self.size(s.value), i64, 1)
            case Inside():
                self.known[s.name] = Known(self.inside(s), bool_, 1)
            case Load():
                address = self._gathered(s.buffer, s.index, s.at)
                if s.only:
                    address = fn.do(
                        f"select i1 {self.known[s.only].register}, ptr {address}, ptr {self._zero()}"
                    )
                self.known[s.name] = Known(self.load(address, s.dtype), s.dtype, 1)
            case Store(only=""):
                self.store(self.address(s.buffer, s.index), s.value)
            case Store():
                with fn.when(self.known[s.only].register):
                    self.store(self.address(s.buffer, s.index), s.value)
            case Index():
                self.known[s.name] = Known(
                    self.checked_index(self.known[s.value].register, s.size, 1, ""), i64, 1
                )
            case Add():
                self._add(s)
            case Step():
                self._step(s)
            case Scatter():
                self._scatter(s)
            case Fill():
                self._fill(s)
            case Contract():
                emit_contract(self, s)
            case For(mode="vector"):
                VectorLoop(self, s).write()
            case For(mode="blocks"):
                BlockLoop(self, s).write()
            case For(mode="lanes"):
                (RowsOfPairs if is_paired(s) else LanesLoop)(self, s).write()
            case For():
                self._rows(s)
            case _:
                raise AssertionError(fn.head)

    def let(self, s: Let, width: int) -> None:
        args = [self.known[a] for a in s.args]
        registers, dtypes = [a.register for a in args], [a.dtype for a in args]
        made = emit_instruction(self.fn, s, registers, dtypes, width)
        self.known[s.name] = Known(made, s.dtype, width)

    def inside(self, s: Inside) -> str:
        """Is one iteration in the range?"""
        fn, value = self.fn, self.size(s.value)
        below = fn.do(f"icmp slt i64 {value}, {self.size(s.high)}")
        if at_least(s.value, s.low):
            return below
        return fn.do(f"and i1 {below}, {fn.do(f'icmp sge i64 {value}, {self.size(s.low)}')}")

    def _zero(self) -> str:
        """The address of a zero of any dtype."""
        if "zero" not in self.pointers:
            self.pointers["zero"] = self.fn.alloca("i64", 1)
            self.fn.entry.append(f"  store i64 0, ptr {self.pointers['zero']}")
        return self.pointers["zero"]

    def _gathered(self, buffer: str, index: Size, at: Sequence[tuple[str, Size]]) -> str:
        address = self.address(buffer, index)
        ty = MEMORY[self.buffer(buffer).type.dtype.name]
        for value, stride in at:
            offset = self.fn.do(f"mul i64 {self.known[value].register}, {self.size(stride)}")
            address = self.fn.do(f"getelementptr {ty}, ptr {address}, i64 {offset}")
        return address

    def load(self, address: str, dtype: DType) -> str:
        if dtype is bool_:
            return self.fn.do(f"icmp ne i8 {self.fn.do(f'load i8, ptr {address}')}, 0")
        return self.fn.do(f"load {MEMORY[dtype.name]}, ptr {address}, align {dtype.itemsize}")

    def store(self, address: str, value: str) -> None:
        v = self.known[value]
        text = self.fn.do(f"zext i1 {v.register} to i8") if v.dtype is bool_ else v.register
        self.fn.say(f"store {MEMORY[v.dtype.name]} {text}, ptr {address}, align {v.dtype.itemsize}")

    def checked_index(self, value: str, size: Size, width: int, mask: str) -> str:
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
        fn.branch(fn.any_lane(wrong, width, 64), bad, good)
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
        fn.say(f"store i64 {value}, ptr {self.report}")
        beside = fn.do(f"getelementptr i64, ptr {self.report}, i64 1")
        fn.say(f"store i64 {self.size(size)}, ptr {beside}")
        if self.wrong:
            fn.do(f"atomicrmw or ptr {self.wrong}, i64 {fn.do('shl i64 1, %index')} monotonic")
        fn.say("ret i32 1")

    def _scatter(self, s: Scatter) -> None:
        address = self._gathered(s.buffer, s.index, s.at)
        v = self.known[s.value]
        before = self.load(address, v.dtype)
        total = accs.combine(self.fn, "sum", v.dtype, before, v.register, 1)
        self.fn.say(
            f"store {MEMORY[v.dtype.name]} {total}, ptr {address}, align {v.dtype.itemsize}"
        )

    def _fill(self, s: Fill) -> None:
        b = self.buffer(s.buffer)
        dtype = b.type.dtype
        value = str(s.bits) if dtype is bool_ else literal(s.bits, dtype)
        self.fill_region(self.address(s.buffer, s.index), self.size(s.size), dtype, value)

    def fill_region(self, address: str, count: str, dtype: DType, value: str) -> None:
        name = accs.fill(self.module, dtype)
        self.fn.say(f"call void @{name}(ptr {address}, i64 {count}, {MEMORY[dtype.name]} {value})")

    # -- loops, one iteration after the other ------------------------------------------------------------------------

    def _rows(self, loop: For) -> None:
        n = self.size(loop.size)
        sums = [self.open_acc(a) for a in loop.accs]
        carried = [s for s in sums if s.kind in ("register", "leaf")]
        columns = [TurnedColumns(self, s) for s in filter(is_turned, loop.body)]
        statements = list(filterfalse(is_turned, loop.body))
        outer, self.ahead = self.ahead, RowsAhead(self, loop)

        def body(i: str, values: list[str]) -> list[str]:
            self.symbols[loop.var] = self.from_first(i) if loop.var == self.part_of else i
            for c in columns:
                c.at(i, n)
            for s in sums:
                s.iteration = i
                if s.lanes:
                    self._go_to_lane(s)
            for s, v in zip(carried, values, strict=True):
                s.value = v
            self.body(statements)
            for s in sums:
                self.end_of_iteration(s, i)
            return [s.value for s in carried]

        types = [
            (register(s.acc.dtype, 1), accs.identity(s.acc.monoid, s.acc.dtype)) for s in carried
        ]
        last = self.fn.loop("0", n, 1, types, body)
        self.ahead = outer
        for c in columns:
            c.end()
        for s, v in zip(carried, last, strict=True):
            s.value = v
        for s in sums:
            self.close_acc(s, n)

    def open_acc(self, acc: Acc) -> Sum:
        """What an accumulator needs before a loop of rows."""
        state = self.sums[acc.name] = Sum(acc, "register")
        if acc.into and acc.order == "lanes":
            state.kind, state.lanes = "array", self.pointer(tree_name(acc))
            start = accs.identity(acc.monoid, acc.dtype)
            self.fill_region(state.lanes, self._array(state)[1], acc.dtype, start)
        elif acc.into:
            state.kind, state.value = "array", self.element(acc, 0)
            start = accs.identity(acc.monoid, acc.dtype)
            start = str(int(start == "true")) if acc.dtype is bool_ else start
            self.fill_region(state.value, self.size(acc.size), acc.dtype, start)
        elif acc.order == "lanes":
            state.kind = "stage"
            lanes = accs.lanes_of(acc.dtype)
            ty = register(acc.dtype, lanes)
            state.levels = self.fn.alloca(ty, accs.LEVELS)
            state.stages = [
                self.fn.alloca(ty, accs.LEAF) for _ in range(2 if acc.monoid == "fma" else 1)
            ]
        elif accs.is_ordered(acc.monoid, acc.order, acc.dtype):
            state.kind = "leaf"
            state.levels = self.fn.alloca(register(acc.dtype, 1), accs.LEVELS)
        return state

    def element(self, acc: Acc, index: Size) -> str:
        """The address of an element of an array accumulator."""
        if acc.name not in self.arrays:
            return self.address(acc.into, acc.index + index)
        ty, first = MEMORY[acc.dtype.name], self.arrays[acc.name]
        return self.fn.do(f"getelementptr {ty}, ptr {first}, i64 {self.size(index)}")

    def _array(self, state: Sum) -> tuple[str, str]:
        """What an array accumulator adds to in a leaf, and its elements: of order `lanes`, a whole number of vectors for
        each lane.
        """
        if not state.lanes:
            return state.value, self.size(state.acc.size)
        lanes = accs.lanes_of(state.acc.dtype)
        return state.lanes, self.size(tree_stride(state.acc.size) * lanes)

    def _go_to_lane(self, state: Sum) -> None:
        """Where this iteration adds."""
        acc, fn = state.acc, self.fn
        lane = fn.do(f"and i64 {state.iteration}, {accs.lanes_of(acc.dtype) - 1}")
        at = fn.do(f"mul i64 {lane}, {self.size(tree_stride(acc.size))}")
        ty = MEMORY[acc.dtype.name]
        state.value = fn.do(f"getelementptr {ty}, ptr {state.lanes}, i64 {at}")
        self.arrays[acc.name] = state.value

    def from_first(self, i: str) -> str:
        """The number of an iteration, given its place in a part."""
        return self.fn.do(f"add i64 {i}, {self.symbols[FIRST]}") if self.part_of else i

    def since_first(self, i: str) -> str:
        """The place of an iteration in a part."""
        return self.fn.do(f"sub i64 {i}, {self.symbols[FIRST]}") if self.part_of else i

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
            ty, at = MEMORY[acc.dtype.name], self._element(state, s.index)
            total = self.folded(acc, self.load(at, acc.dtype), values, 1)
            stored = self.fn.do(f"zext i1 {total} to i8") if acc.dtype is bool_ else total
            self.fn.say(f"store {ty} {stored}, ptr {at}")
        else:
            state.value = self.folded(acc, state.value, values, 1)

    def _element(self, state: Sum, index: Size) -> str:
        """The address of an element of an array accumulator whose loop is being written."""
        ty = MEMORY[state.acc.dtype.name]
        return self.fn.do(f"getelementptr {ty}, ptr {state.value}, i64 {self.size(index)}")

    def _step(self, s: Step) -> None:
        state = self.sums[s.acc]
        values, at = [self.known[v].register for v in s.values], ""
        if state.kind == "array":
            at = self._element(state, s.index)
        before = self.load(at, s.dtype) if at else state.value
        self.known[s.name] = Known(accs.step(self.fn, state.acc, before, values, 1), s.dtype, 1)
        if at:
            self.store(at, s.name)
        else:
            state.value = self.known[s.name].register

    def folded(self, acc: Acc, before: str, values: Sequence[str], width: int) -> str:
        if acc.monoid == "fma":
            return accs.fma(self.fn, acc.dtype, values[0], values[1], before, width)
        return accs.combine(self.fn, acc.monoid, acc.dtype, before, values[0], width)

    def end_of_iteration(self, state: Sum, i: str) -> None:
        acc, fn = state.acc, self.fn
        if state.kind == "stage":
            per_leaf = accs.LEAF * accs.lanes_of(acc.dtype)
            done = fn.do(f"add i64 {i}, 1")
            full = fn.do(f"icmp eq i64 {fn.do(f'and i64 {done}, {per_leaf - 1}')}, 0")
            with fn.when(full):
                self._push_stage(state, fn.do(f"lshr i64 {i}, {per_leaf.bit_length() - 1}"), "")
        elif state.kind == "leaf":
            leaf, ty = accs.leaf_of(acc.order), register(acc.dtype, 1)
            done = fn.do(f"add i64 {i}, 1")
            full = fn.do(f"icmp eq i64 {fn.do(f'and i64 {done}, {leaf - 1}')}, 0")
            with fn.when(full):
                self._push_leaf(state, fn.do(f"lshr i64 {i}, {leaf.bit_length() - 1}"))
            anew = accs.identity(acc.monoid, acc.dtype)
            state.value = fn.do(f"select i1 {full}, {ty} {anew}, {ty} {state.value}")
        elif state.kind == "array" and accs.is_ordered(acc.monoid, acc.order, acc.dtype):
            leaf = self._leaf(state)
            done = fn.do(f"add i64 {i}, 1")
            full = fn.do(f"icmp eq i64 {fn.do(f'and i64 {done}, {leaf - 1}')}, 0")
            with fn.when(full):
                self.tree("push", state, fn.do(f"lshr i64 {i}, {leaf.bit_length() - 1}"))

    def _leaf(self, state: Sum) -> int:
        """Iterations after which an array accumulator is a leaf."""
        leaf = accs.leaf_of(state.acc.order)
        return leaf * accs.lanes_of(state.acc.dtype) if state.lanes else leaf

    def tree(self, what: str, state: Sum, t: str) -> None:
        acc = state.acc
        make = accs.tree_push if what == "push" else accs.tree_finish
        name = make(self.module, acc.monoid, acc.dtype)
        tree, (array, count) = self.pointer(tree_name(acc)), self._array(state)
        stride = count if state.lanes else self.size(tree_stride(acc.size))
        if state.lanes:  # they come first
            tree = self.fn.do(f"getelementptr {MEMORY[acc.dtype.name]}, ptr {tree}, i64 {stride}")
        self.fn.say(
            f"call void @{name}(ptr {array}, ptr {tree}, i64 {count}, i64 {t}, i64 {stride})"
        )

    def _push_leaf(self, state: Sum, t: str) -> None:
        acc = state.acc
        accs.push(self.fn, state.levels, state.value, t, acc.monoid, acc.dtype, 1)

    def _push_stage(self, state: Sum, t: str, remaining: str) -> None:
        """Fold the staged elements into a leaf; of a partial one, only the first `remaining`."""
        acc, fn = state.acc, self.fn
        lanes = accs.lanes_of(acc.dtype)
        ty = register(acc.dtype, lanes)
        leaf = accs.identity(acc.monoid, acc.dtype, lanes)
        for q in range(accs.LEAF):
            at = [fn.do(f"getelementptr {ty}, ptr {stage}, i64 {q}") for stage in state.stages]
            values = [fn.do(f"load {ty}, ptr {a}") for a in at]
            total = self.folded(acc, leaf, values, lanes)
            if remaining:
                left = fn.spread_type(fn.do(f"sub i64 {remaining}, {q * lanes}"), "i64", lanes)
                mask = fn.do(f"icmp slt <{lanes} x i64> {fn.iota(lanes)}, {left}")
                total = fn.do(f"select <{lanes} x i1> {mask}, {ty} {total}, {ty} {leaf}")
            leaf = total
        accs.push(fn, state.levels, leaf, t, acc.monoid, acc.dtype, lanes)

    def close_acc(self, state: Sum, n: str) -> None:
        """After the loop: the accumulator's value."""
        acc, fn = state.acc, self.fn
        if acc.order == RUNNING:
            return
        if state.kind == "register":
            self.closed(acc, state.value, 1, n)
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
            self.closed(acc, total, lanes, n)
        elif state.kind == "leaf":
            leaf = accs.leaf_of(acc.order)
            whole = fn.do(f"lshr i64 {n}, {leaf.bit_length() - 1}")
            partial = fn.do(f"icmp ne i64 {fn.do(f'and i64 {n}, {leaf - 1}')}, 0")
            with fn.when(partial):
                self._push_leaf(state, whole)
            count = fn.do(f"add i64 {whole}, {fn.do(f'zext i1 {partial} to i64')}")
            total = accs.collapse(fn, state.levels, count, acc.monoid, acc.dtype, 1)
            self.closed(acc, total, 1, n)
        elif accs.is_ordered(acc.monoid, acc.order, acc.dtype):
            self._close_array(state, n)

    def _close_array(self, state: Sum, n: str) -> None:
        acc, fn = state.acc, self.fn
        leaf = self._leaf(state)
        whole = fn.do(f"lshr i64 {n}, {leaf.bit_length() - 1}")
        partial = fn.do(f"icmp ne i64 {fn.do(f'and i64 {n}, {leaf - 1}')}, 0")
        with fn.when(partial):
            self.tree("push", state, whole)
        self.tree("finish", state, fn.do(f"add i64 {whole}, {fn.do(f'zext i1 {partial} to i64')}"))
        if state.lanes:
            del self.arrays[acc.name]
            state.value = self.element(acc, 0)
            name = accs.array_of_lanes(self.module, acc.monoid, acc.dtype)
            count, stride = self.size(acc.size), self.size(tree_stride(acc.size))
            fn.say(
                f"call void @{name}(ptr {state.value}, ptr {state.lanes}, i64 {count}, i64 {stride})"
            )
        if acc.monoid in ("sum", "fma"):
            with fn.when(fn.do(f"icmp eq i64 {n}, 0")):
                self.fill_region(state.value, self.size(acc.size), acc.dtype, "0x0000000000000000")

    def closed(self, acc: Acc, total: str, width: int, n: str) -> None:
        """An accumulator has its value: the lanes in which its tree ends, folded. In a part of a loop, lanes that
        have an order go to where they meet those of other parts.
        """
        fn, there = self.fn, self.results.get(acc.name)
        if there is None or acc.order != "lanes":
            total = accs.horizontal(fn, acc.monoid, acc.dtype, total, width)
            width = 1
        if there is None:
            self.known[acc.name] = Known(self.sum_of_none(acc, total, n), acc.dtype, 1)
        elif acc.dtype is bool_:
            fn.say(f"store i8 {fn.do(f'zext i1 {total} to i8')}, ptr {there}")
        else:
            fn.say(
                f"store {register(acc.dtype, width)} {total}, ptr {there}, align {acc.dtype.itemsize}"
            )

    def sum_of_none(self, acc: Acc, total: str, n: str, width: int = 1) -> str:
        """A float sum of nothing is +0, not the identity -0."""
        if acc.monoid not in ("sum", "fma") or not acc.dtype.is_float or (n.isdigit() and int(n)):
            return total
        ty = register(acc.dtype, width)
        zero = splat("0x0000000000000000", REGISTER[acc.dtype.name], width)
        none = self.fn.do(f"icmp eq i64 {n}, 0")
        return self.fn.do(f"select i1 {none}, {ty} {zero}, {ty} {total}")
