"""Innermost loops: iterations are lanes, and what is left at the end runs under a mask.

Parts of their own: bodies that are written once (written_once.py), stencils (ranges.py), scans (scans.py), elements
that do not lie beside each other (strided.py), stores past the caches (streams.py), and bodies too long for one
function (apart.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.apart import Pieces
from graphc.codegen.llvm import MEMORY, register
from graphc.codegen.ranges import FALSE, TRUE, Ranges
from graphc.codegen.scans import Scans
from graphc.codegen.state import Kept, Known
from graphc.codegen.streams import Streams
from graphc.codegen.strided import StridedRows
from graphc.codegen.vector_memory import backwards, in_place, load_vector, many, store_vector
from graphc.codegen.written_once import WrittenOnce
from graphc.ir.types import Dim, DType, Size, align_up, bool_, i64
from graphc.lower.loops import (
    RUNNING,
    WHOLE,
    Acc,
    Add,
    For,
    Index,
    Inside,
    Iota,
    Let,
    Load,
    Scatter,
    Statement,
    Step,
    Store,
    coefficient,
    without,
)
from graphc.lower.names import defined, used_by
from graphc.lower.pieces import in_pieces

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

UNROLLED = 64  # statements up to which a short loop is written out
TURNS = 4  # accumulators of an extremum, so that a vector need not wait for the one before


def _more(acc: Acc) -> list[Acc]:
    """Accumulators that take turns with it."""
    if acc.order != "any" or not acc.dtype.is_float:
        return []
    return [replace(acc, name=f"{acc.name}.{k}") for k in range(1, TURNS)]


class VectorLoop:
    """An innermost loop whose iterations are lanes.

    In a block of a larger loop it begins at the size that `start` names, and its accumulators are `kept`.
    """

    def __init__(
        self,
        kernel: KernelWriter,
        loop: For,
        start: str = "",
        kept: dict[str, Kept] | None = None,
        width: int = 0,
    ) -> None:
        self.kernel, self.loop, self.fn = kernel, loop, kernel.fn
        self.start, self.kept = start, kept
        self.lanes = [a for a in loop.accs if a.order == "lanes"]
        self.rows = [a for a in loop.accs if a.order == "rows"]
        self.others = [a for a in loop.accs if a.order not in ("lanes", "rows")]
        self.turns = {a.name: [a, *_more(a)] for a in self.others if a.monoid in ("max", "min")}
        self.others += [a for turns in self.turns.values() for a in turns[1:]]
        self.stages: dict[str, str] = {}  # of each sum in rows, the vectors of one leaf of lanes
        self.width = width or self._width()
        self.bases: dict[int, str] = {}  # statement position -> address at iteration 0
        self.steps: dict[int, str] = {}
        self.fixed: dict[str, str] = {}  # numbers that no iteration changes
        self.in_a_row: set[int] = set()  # accesses at such numbers: elements lie beside each other
        self.left = ""  # lanes that are in use, where there is a mask
        self.once = WrittenOnce(self)
        self.pieces: Pieces | None = None  # of a body too long for one function
        self.ranges = Ranges(self)
        self.strided = StridedRows(self)
        self.streams = Streams(self)
        self.scans = Scans(self)

    def _width(self) -> int:
        if self.lanes:
            return accs.lanes_of(self.lanes[0].dtype)
        dtypes = [a.dtype for a in self.loop.accs]
        for s in self.loop.body:
            if isinstance(s, (Let, Load, Step)):
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
        if self.kept is None and in_pieces(loop):
            self.pieces = Pieces(self)
        else:
            self.prepare()
        found: list[tuple[Acc, str, int]] = []
        if self.short():
            found = self._unrolled(int(n))
        elif self.kept is not None:
            self._kept_loop(n)
        else:
            found = self._counted(n)
        kernel.known = outer
        self.streams.end()
        for acc, total, width in found:
            if acc.order != RUNNING:
                kernel.closed(acc, total, width, n)

    def _counted(self, n: str) -> list[tuple[Acc, str, int]]:
        """A loop over vectors; the accumulators, the lanes that they end in, and how many these are."""
        fn, width = self.fn, self.width
        levels = [fn.alloca(register(a.dtype, width), self._levels()) for a in self.lanes]
        levels += [fn.alloca(register(a.dtype, 1), self._levels()) for a in self.rows]
        # one leaf: no counter
        single = n.isdigit() and int(n) <= self.step() and not self.rows
        values, leaves = self._run(n, self._starts(), levels, single)
        found = self._without_turns(values)
        for i, acc in enumerate(self.lanes):
            total = (
                leaves[i] if single and leaves else self._collapsed(acc, levels[i], n, self.step())
            )
            found.append((acc, total, width))
        for acc, level in zip(self.rows, levels[len(self.lanes) :], strict=True):
            found.append((acc, self._collapsed(acc, level, n, self.step(), 1), 1))
        return found

    def lanes_of(self, acc: Acc) -> int:
        """How many an accumulator has: a running one has no lanes of its own."""
        return self.scans.lanes_of(acc) if acc.order == RUNNING else self.width

    def state_type(self, acc: Acc) -> str:
        return register(acc.dtype, self.lanes_of(acc))

    def _starts(self) -> list[str]:
        """Of the accumulators that are no sums in lanes or rows."""
        return [accs.identity(a.monoid, a.dtype, self.lanes_of(a)) for a in self.others]

    def _without_turns(self, values: Sequence[str]) -> list[tuple[Acc, str, int]]:
        """The loop's own accumulators, the lanes that they end in, and how many these are."""
        state = dict(zip([a.name for a in self.others], values, strict=True))
        for name, (acc, *more) in self.turns.items():
            for other in more:
                monoid, dtype = acc.monoid, acc.dtype
                both = state[name], state.pop(other.name)
                state[name] = accs.combine(self.fn, monoid, dtype, *both, self.width)
        return [(a, state[a.name], self.lanes_of(a)) for a in self.others if a.name in state]

    def _kept_loop(self, n: str) -> None:
        """A block's share of a loop: accumulators come from and go back to where they are kept."""
        assert self.kept is not None
        fn, width = self.fn, self.width
        for acc in self.rows:
            self.kept[acc.name].width = width
        before = self._starts()
        for k, acc in enumerate(self.others):
            if acc.name in self.kept:
                ty, slot = register(acc.dtype, width), self.kept[acc.name].slot
                before[k] = fn.do(f"load {ty}, ptr {slot}")
        after, _ = self._run(
            n, before, [self.kept[a.name].levels for a in (*self.lanes, *self.rows)], single=False
        )
        for acc, value, _ in self._without_turns(after):
            ty = register(acc.dtype, width)
            fn.say(f"store {ty} {value}, ptr {self.kept[acc.name].slot}")

    def step(self) -> int:
        return self.width * (accs.LEAF if self.lanes or self.rows else 1)

    def _run(
        self, n: str, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """Whole vectors or leaves, then the rest under a mask."""
        if self.ranges.found:
            return self.ranges.write(n, values, levels, single)
        if self.once.fits():
            return self.once.write(n, values, levels, single)
        step = self.step()
        main = str(int(n) // step * step) if n.isdigit() else self.fn.do(f"and i64 {n}, {-step}")
        leaves: list[str] = []
        if not main.isdigit() or int(main):
            values, leaves = self._main(main, step, values, levels, single)
        if not (n.isdigit() and main == n):
            values, leaves = self._tail(main, n, step, values, levels, single)
        return values, leaves

    def _all_or_none(self, s: Let) -> str:
        """Of ranges that agree: do all iterations lie in both? Empty where that is not known."""
        both = {self.kernel.known[a].register for a in s.args}
        return "" if both - {TRUE, FALSE} else FALSE if FALSE in both else TRUE

    def _where(self, mask: str, only: str) -> str:
        """The lanes that are in use, and of those the ones where a load or store takes place."""
        given = self.kernel.known[only].register if only else TRUE
        if given == TRUE or not mask:
            return mask if given == TRUE else given
        return self.fn.do(f"and <{self.width} x i1> {given}, {mask}")

    def mask(self, n: str, i: str) -> str:
        """The lanes of the vector at i that are in use."""
        fn, width = self.fn, self.width
        self.left = fn.do(f"sub i64 {n}, {i}")
        left = fn.spread_type(self.left, "i64", width)
        return fn.do(f"icmp slt <{width} x i64> {fn.iota(width)}, {left}")

    def write_vector(self, count: str) -> None:
        """One vector, of which so many lanes are in use."""
        self.prepare()
        self.once.write_partial(count)

    # -- short loops ----------------------------------------------------------------------------------------------

    def short(self) -> bool:
        """Few vectors and few statements: written out, with sums folded as their tree says, without a counter."""
        n = self.loop.size
        if self.kept is not None or self.rows or not isinstance(n, int) or n == 0:
            return False
        vectors = -(-n // self.width)
        calls = sum(isinstance(s, Let) and s.op in ("call", "rare") for s in self.loop.body)
        return vectors * (len(self.loop.body) + 6 * calls) <= UNROLLED

    def _unrolled(self, n: int) -> list[tuple[Acc, str, int]]:
        fn, width = self.fn, self.width
        values = self._starts()
        leaves: list[list[str]] = []
        for i in range(0, n, self.step()):
            now = [*values, *self.identities()]
            for j in range(i, min(i + self.step(), n), width):
                self.left = str(n - j)
                now = self.iteration(str(j), now, self._constant_mask(n - j))
            values = now[: len(values)]
            leaves.append(now[len(values) :])
        found = self._without_turns(values)
        for acc, parts in zip(self.lanes, zip(*leaves, strict=True), strict=True):
            found.append((acc, accs.counter(fn, acc.monoid, acc.dtype, parts, width), width))
        return found

    def preload(self, s: Load) -> None:
        """Load all vectors of a written-out loop's statement now."""
        base = self.kernel.address(s.buffer, without(s.index, self.loop.var))
        ty, n = MEMORY[s.dtype.name], int(str(self.loop.size))
        for i in range(0, n, self.width):
            address = self.fn.do(f"getelementptr {ty}, ptr {base}, i64 {i}")
            self.kernel.preloaded[s, str(i)] = self.load(
                address, s.dtype, self._constant_mask(n - i)
            )

    def _constant_mask(self, left: int) -> str:
        if left >= self.width:
            return ""
        return "<" + ", ".join(f"i1 {int(i < left)}" for i in range(self.width)) + ">"

    def _levels(self) -> int:
        n = self.loop.size
        return accs.LEVELS if not isinstance(n, int) else max(1, n.bit_length())

    def _collapsed(self, acc: Acc, levels: str, n: str, step: int, width: int = 0) -> str:
        fn = self.fn
        count = fn.do(f"lshr i64 {fn.do(f'add i64 {n}, {step - 1}')}, {step.bit_length() - 1}")
        return accs.collapse(fn, levels, count, acc.monoid, acc.dtype, width or self.width)

    def carried(self, accumulators: Sequence[Acc], values: Sequence[str]) -> list[tuple[str, str]]:
        return [(self.state_type(a), v) for a, v in zip(accumulators, values, strict=True)]

    def identities(self) -> list[str]:
        return [accs.identity(a.monoid, a.dtype, self.width) for a in self.lanes]

    def _main(
        self, main: str, step: int, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """Whole vectors; with sums in lanes, whole leaves."""
        fn = self.fn
        if not self.lanes and not self.rows:
            return fn.loop(
                "0",
                main,
                step,
                self.carried(self.others, values),
                lambda i, v: self.iteration(i, v, ""),
            ), []
        kept: list[str] = []

        def leaf(i: str, before: list[str]) -> list[str]:
            carried = self.carried([*self.others, *self.lanes], [*before, *self.identities()])
            end = fn.do(f"add i64 {i}, {step}")
            after = fn.loop(i, end, self.width, carried, lambda j, v: self.iteration(j, v, ""))
            kept[:] = after[len(before) :]
            if not single:
                self.push(kept, levels, i, step)
            return after[: len(before)]

        if single:
            return leaf("0", values), kept
        return fn.loop("0", main, step, self.carried(self.others, values), leaf), kept

    def _tail(
        self, main: str, n: str, step: int, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """What is left, under a mask."""
        fn, width = self.fn, self.width
        carried = self.carried([*self.others, *self.lanes], [*values, *self.identities()])
        for acc in self.rows:
            self.empty_stage(acc)

        def masked(i: str, before: list[str]) -> list[str]:
            return self.iteration(i, before, self.mask(n, i))

        after = fn.loop(main, n, width, carried, masked)
        leaves = after[len(values) :]
        if (self.lanes or self.rows) and not single:
            with fn.when(fn.do(f"icmp slt i64 {main}, {n}")):
                self.push(leaves, levels, main, step)
        return after[: len(values)], leaves

    def push(self, leaves: Sequence[str], levels: Sequence[str], i: str, step: int) -> None:
        if self.kept is not None:
            i = self.fn.do(f"add i64 {i}, {self.kernel.symbols[self.start]}")
            i = self.kernel.since_first(i)
        t = self.fn.do(f"lshr i64 {i}, {step.bit_length() - 1}")
        entered = [
            (accs.Counter(level, acc.monoid, acc.dtype, self.width), leaf)
            for acc, leaf, level in zip(self.lanes, leaves, levels)
        ]
        for acc, level in zip(self.rows, levels[len(self.lanes) :], strict=True):
            node = accs.neighbours(self.fn, acc.monoid, acc.dtype, self._staged(acc), self.width)
            entered.append((accs.Counter(level, acc.monoid, acc.dtype, 1), node))
        accs.push_all(self.fn, entered, t)

    # -- sums in rows: neighbouring iterations, which are neighbouring lanes, are added ---------------------------

    def _stage(self, acc: Acc) -> str:
        if acc.name not in self.stages:
            self.stages[acc.name] = self.fn.alloca(register(acc.dtype, self.width), accs.LEAF)
        return self.stages[acc.name]

    def empty_stage(self, acc: Acc) -> None:
        ty = register(acc.dtype, self.width)
        for at in self._stage_slots(acc):
            self.fn.say(f"store {ty} {accs.identity(acc.monoid, acc.dtype, self.width)}, ptr {at}")

    def _staged(self, acc: Acc) -> list[str]:
        ty = register(acc.dtype, self.width)
        return [self.fn.do(f"load {ty}, ptr {at}") for at in self._stage_slots(acc)]

    def _stage_slots(self, acc: Acc) -> list[str]:
        ty, stage = register(acc.dtype, self.width), self._stage(acc)
        return [self.fn.do(f"getelementptr {ty}, ptr {stage}, i64 {k}") for k in range(accs.LEAF)]

    def _into_stage(self, s: Add, i: str, mask: str) -> None:
        fn, width = self.fn, self.width
        acc = next(a for a in self.rows if a.name == s.acc)
        ty, (value,) = register(acc.dtype, width), (self.kernel.known[v].register for v in s.values)
        if mask:
            nothing = accs.identity(acc.monoid, acc.dtype, width)
            value = fn.do(f"select <{width} x i1> {mask}, {ty} {value}, {ty} {nothing}")
        place = fn.do(f"and i64 {i}, {accs.LEAF * width - 1}")
        at = fn.do(f"getelementptr {MEMORY[acc.dtype.name]}, ptr {self._stage(acc)}, i64 {place}")
        fn.say(f"store {ty} {value}, ptr {at}")

    # -- before the loop ----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Addresses at iteration 0, values that no iteration changes, and outer values in every lane."""
        kernel, var = self.kernel, self.loop.var
        self.strided.find()
        for position, s in enumerate(self.loop.body):
            if isinstance(s, Let):  # most of them
                continue
            if isinstance(s, (Load, Store, Scatter)):
                self._prepare_access(position, s.buffer, s.index, s)
            elif isinstance(s, Index):
                self._prepare_index(s)
            elif (
                isinstance(s, (Add, Step))
                and kernel.sums.get(s.acc) is not None
                and kernel.sums[s.acc].kind == "array"
            ):
                acc = kernel.sums[s.acc].acc
                self.bases[position] = kernel.element(acc, self.at_first(s.index))
                self.steps[position] = kernel.size(coefficient(s.index, var))
            elif isinstance(s, Inside):
                self.ranges.add(position, s)
            elif isinstance(s, Iota):
                self.bases[position] = kernel.size(self.at_first(s.value))
                self.steps[position] = kernel.size(coefficient(s.value, var))
        inside = {name for name, _ in defined(self.loop.body)}
        for s in self.loop.body:
            for name in used_by(s):
                if name not in inside:
                    self.spread(name)

    def _prepare_access(self, position: int, buffer: str, index: Size, s: Statement) -> None:
        kernel, var = self.kernel, self.loop.var
        step = coefficient(index, var)
        self.steps[position] = kernel.size(step)
        if buffer in kernel.slot_of:
            return
        base = self.bases[position] = kernel.address(buffer, self.at_first(index))
        at = s.at if isinstance(s, (Load, Scatter)) else ()
        if at and step == 1 and all(value in self.fixed for value, _ in at):
            ty = MEMORY[kernel.buffer(buffer).type.dtype.name]
            for value, stride in at:
                offset = self.fn.do(f"mul i64 {self.fixed[value]}, {kernel.size(stride)}")
                base = self.fn.do(f"getelementptr {ty}, ptr {base}, i64 {offset}")
            self.bases[position] = base
            self.in_a_row.add(position)
        if isinstance(s, Store) and not s.only and step == 1:
            self.streams.add(position, s)
        if isinstance(s, Load) and step == 0 and not s.at and not s.only:
            self._fix(s.name, kernel.load(self.bases[position], s.dtype), s.dtype)

    def _fix(self, name: str, value: str, dtype: DType) -> None:
        self.fixed[name] = value
        wide = self.fn.spread(value, dtype, self.width)
        self.kernel.known[name] = Known(wide, dtype, self.width)

    def _prepare_index(self, s: Index) -> None:
        """One that no iteration changes is checked once."""
        outer = self.kernel.known.get(s.value)
        value = self.fixed.get(s.value, outer.register if outer and outer.width == 1 else "")
        if value:
            self._fix(s.name, self.kernel.checked_index(value, s.size, 1, ""), i64)

    def at_first(self, index: Size) -> Size:
        """An index at the loop's first iteration."""
        first = without(index, self.loop.var)
        return (
            first + coefficient(index, self.loop.var) * Dim.symbol(self.start)
            if self.start
            else first
        )

    def spread(self, name: str) -> None:
        value = self.kernel.known[name]
        if value.width == 1:
            wide = self.fn.spread(value.register, value.dtype, self.width)
            self.kernel.known[name] = Known(wide, value.dtype, self.width)

    # -- one iteration --------------------------------------------------------------------------------------------------

    def iteration(self, i: str, values: Sequence[str], mask: str) -> list[str]:
        """The body for `width` iterations from i on; gives the accumulators' next values."""
        state = dict(zip([a.name for a in (*self.others, *self.lanes)], values, strict=False))
        self.strided.columns = {}
        if self.pieces is not None:
            self.pieces.call(i, self.in_use() if mask else str(self.width))
            for add in self.pieces.cut.adds:
                state[add.acc] = self.folded(add, state[add.acc], mask)
            return list(state.values())
        for position, s in enumerate(self.loop.body):
            self.statement(position, s, i, mask, state)
        for turns in self.turns.values():
            names = [a.name for a in turns]
            values = [state[name] for name in names]
            state.update(zip(names, [*values[1:], values[0]], strict=True))
        return list(state.values())

    def in_use(self) -> str:
        """How many lanes of a vector are in use, where there is a mask."""
        if not self.left.startswith("%"):
            return str(min(int(self.left), self.width))
        partial = self.fn.do(f"icmp slt i64 {self.left}, {self.width}")
        return self.fn.do(f"select i1 {partial}, i64 {self.left}, i64 {self.width}")

    def statement(
        self, position: int, s: Statement, i: str, mask: str, state: dict[str, str]
    ) -> None:
        kernel, width = self.kernel, self.width
        match s:
            case Let(op="select") if kernel.known[s.args[0]].register in (TRUE, FALSE):
                chosen = s.args[1 if kernel.known[s.args[0]].register == TRUE else 2]
                kernel.known[s.name] = kernel.known[chosen]
            case Let(op="and") if self._all_or_none(s):
                kernel.known[s.name] = Known(self._all_or_none(s), bool_, width)
            case Let():
                kernel.let(s, width)
            case Iota():
                kernel.known[s.name] = Known(self._offsets(position, i), i64, width)
            case Inside():
                kernel.known[s.name] = Known(self.ranges.inside(position, i), bool_, width)
            case Load() if s.buffer in kernel.slot_of:
                kernel.known[s.name] = Known(self.load(self._slot(s), s.dtype, ""), s.dtype, width)
            case Load():
                if kernel.preloaded and (s, i) in kernel.preloaded:
                    kernel.known[s.name] = Known(kernel.preloaded[s, i], s.dtype, width)
                elif position in self.strided.found:
                    column = self.strided.column(position, i, mask)
                    kernel.known[s.name] = Known(column, s.dtype, width)
                elif position in self.once.spare:
                    place = self.once.place_of(position, i)
                    kernel.known[s.name] = Known(self.load(place, s.dtype, ""), s.dtype, width)
                elif self.steps[position] != "0" or s.at or s.only:
                    address = self.addresses(position, s.at, i)
                    if (
                        kernel.block is not None
                        and i.isdigit()
                        and int(i) // width % 2 == 0
                        and (plain := in_place(address))
                    ):
                        kernel.block.prefetch(s, plain)
                    if kernel.ahead is not None:
                        kernel.ahead.ask(s, address)
                    loaded = self.load(address, s.dtype, self._where(mask, s.only))
                    kernel.known[s.name] = Known(loaded, s.dtype, width)
            case Store() if s.buffer in kernel.slot_of:
                self.store(self._slot(s), kernel.known[s.value], "")
            case Store() if position in self.strided.found:
                self.strided.store(position, i, mask)
            case Store() if position in self.once.spare:
                place = self.once.place_of(position, i)
                self.store(place, kernel.known[s.value], "")
            case Store() if position in self.streams.found and not mask:
                address = self.addresses(position, (), i)
                self.streams.store(position, address, kernel.known[s.value])
            case Store():
                where = self._where(mask, s.only)
                self.store(self.addresses(position, (), i), kernel.known[s.value], where)
            case Index() if s.name in self.fixed:
                pass
            case Index():
                index = kernel.checked_index(kernel.known[s.value].register, s.size, width, mask)
                kernel.known[s.name] = Known(index, i64, width)
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
            case Step() if s.acc in state:
                self.scans.write(position, state)
            case Step():
                acc = kernel.sums[s.acc].acc
                address = self.addresses(position, (), i)
                values = [kernel.known[v].register for v in s.values]
                inside = "" if self._has_room(s, acc) else mask
                before = self.load(address, s.dtype, inside)
                made = Known(accs.step(self.fn, acc, before, values, width), s.dtype, width)
                self.store(address, made, inside)
                kernel.known[s.name] = made
            case Add() if any(a.name == s.acc for a in self.rows):
                self._into_stage(s, i, mask)
            case Add() if s.acc in state:
                state[s.acc] = self.folded(s, state[s.acc], mask)
            case Add():
                acc = kernel.sums[s.acc].acc
                operands = [kernel.known[v].register for v in s.values]
                self._read_modify_write(position, (), i, mask, acc.dtype, acc.monoid, operands)
            case _:
                raise AssertionError(f"{s} in a vector loop")

    def _has_room(self, s: Step, acc: Acc) -> bool:
        """Is there memory for whole vectors, behind which nothing of a row of running values comes?"""
        room = self.kernel.buffer(acc.into).type.shape[-1]
        return s.index == Dim.symbol(self.loop.var) and room == align_up(acc.size, WHOLE)

    def folded(self, s: Add, before: str, mask: str) -> str:
        kernel = self.kernel
        acc = next(a for a in self.loop.accs if a.name == s.acc)
        total = kernel.folded(acc, before, [kernel.known[v].register for v in s.values], self.width)
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
        address = self.addresses(position, at, i)
        before = self.load(address, dtype, mask)
        acc = Acc("", dtype, monoid, "any")
        total = self.kernel.folded(acc, before, operands, self.width)
        self.store(address, Known(total, dtype, self.width), mask)

    # -- memory ---------------------------------------------------------------------------------------------------------

    def _offsets(self, position: int, i: str) -> str:
        """start + step * iteration in each lane."""
        fn, width, step = self.fn, self.width, self.steps[position]
        first = fn.do(f"add i64 {self.bases[position]}, {fn.do(f'mul i64 {i}, {step}')}")
        return fn.do(
            f"add <{width} x i64> {fn.spread_type(first, 'i64', width)}, {self.lane_steps(step)}"
        )

    def lane_steps(self, step: str) -> str:
        fn, width = self.fn, self.width
        if step == "1":
            return fn.iota(width)
        return fn.do(f"mul <{width} x i64> {fn.iota(width)}, {fn.spread_type(step, 'i64', width)}")

    def _slot(self, s: Load | Store) -> str:
        return self.fn.do(f"getelementptr i8, ptr {self.kernel.slot_of[s.buffer]}")

    def addresses(self, position: int, at: Sequence[tuple[str, Size]], i: str) -> str:
        """Where the vector at iteration i lies, as `vector_memory` says."""
        fn, width, step = self.fn, self.width, self.steps[position]
        ty = self.memory_type(position)
        if step == "1" and (not at or position in self.in_a_row):
            return fn.do(f"getelementptr {ty}, ptr {self.bases[position]}, i64 {i}")
        if not at and step == "-1":
            last = fn.do(f"sub i64 {1 - width}, {i}")
            return backwards(fn.do(f"getelementptr {ty}, ptr {self.bases[position]}, i64 {last}"))
        first = fn.do(f"mul i64 {i}, {step}")
        offsets = fn.do(
            f"add <{width} x i64> {fn.spread_type(first, 'i64', width)}, {self.lane_steps(step)}"
        )
        for value, stride in at:
            wide = fn.spread_type(self.kernel.size(stride), "i64", width)
            scaled = fn.do(f"mul <{width} x i64> {self.kernel.known[value].register}, {wide}")
            offsets = fn.do(f"add <{width} x i64> {offsets}, {scaled}")
        return many(
            fn.do(f"getelementptr {ty}, ptr {self.bases[position]}, <{width} x i64> {offsets}")
        )

    def memory_type(self, position: int) -> str:
        s = self.loop.body[position]
        buffer = self.kernel.sums[s.acc].acc.into if isinstance(s, (Add, Step)) else s.buffer  # type: ignore[union-attr]
        return MEMORY[self.kernel.buffer(buffer).type.dtype.name]

    def load(self, address: str, dtype: DType, mask: str) -> str:
        return load_vector(self.fn, address, dtype, self.width, mask)

    def store(self, address: str, value: Known, mask: str) -> None:
        store_vector(self.fn, address, value, mask)
