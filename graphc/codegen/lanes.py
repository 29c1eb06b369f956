"""Loops around loops, in lanes: the iterations of the outer loop are lanes of all that is inside of it.

    for vectors of iterations of the outer loop: for j: values of all lanes; sums of all lanes

An inner sum whose order runs along j takes its values one after the other in every lane, as the scalar code would, so
that no lanes of one vector are ever added. The last vector runs under a mask: lanes that are not in use load zeros and
store nothing.

With AVX-512 two vectors take turns, so that a processor that looks 100 instructions ahead finds enough that need not
wait: to LLVM they are one vector of twice the lanes. In registers of 32 bytes, a vector is two as it is. The body of a
long inner loop is cut for the same reason (`codegen.chains`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.chains import Piece, pieces_of
from graphc.codegen.llvm import MEMORY, register
from graphc.codegen.state import Known
from graphc.codegen.vector_memory import load_vector, many, store_vector
from graphc.ir.types import Size, i64, product
from graphc.lower.loops import (
    Acc,
    Add,
    For,
    Iota,
    Let,
    Load,
    Statement,
    Store,
    coefficient,
    lane_count,
    walk,
    without,
)
from graphc.lower.names import defined, used, used_by

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

TOGETHER = 16  # iterations of a piece of a long body, one after the other


@dataclass
class LaneSum:
    """An accumulator, one value in every lane, on the stack.

    A sum of order `lanes` over an inner loop has a slot for each of its own lanes, which take turns; others have one.
    """

    acc: Acc
    slots: int
    width: int  # of its vectors
    adds: int  # vectors that an iteration adds, one after the other
    values: str  # the vectors, one for each slot
    levels: str = ""  # their binary counters, level by level
    turn: str = ""  # the number of the iteration that is being written

    @property
    def ordered(self) -> bool:
        return accs.is_ordered(self.acc.monoid, self.acc.order, self.acc.dtype)

    @property
    def period(self) -> int:
        """Iterations, a power of two, after which all slots hold a leaf."""
        return self.slots * accs.leaf_of(self.acc.order) // self.adds

    @property
    def type(self) -> str:
        return register(self.acc.dtype, self.width)


class LanesLoop:
    """One such loop of a kernel, or of a part of it."""

    def __init__(self, writer: KernelWriter, loop: For) -> None:
        self.writer, self.loop, self.fn = writer, loop, writer.fn
        self.width = lane_count(loop) * (2 if writer.fn.module.avx512 else 1)
        self.sums: dict[str, LaneSum] = {}
        self.mask = ""
        self.scratch: dict[str, str] = {}  # buffers of one iteration: a vector for each element

    def write(self) -> None:
        writer, loop, fn = self.writer, self.loop, self.fn
        outer = dict(writer.known)
        n = writer.size(loop.size)
        inside = {name for name, _ in defined(loop.body)}
        for name in dict.fromkeys(used(loop.body)):
            if name in outer and name not in inside:
                writer.known[name] = self._wide(outer[name])
        self._open_scratch()
        own = [self._open_own(acc) for acc in loop.accs]

        def vector(i: str, _: object) -> list[str]:
            writer.symbols[loop.var] = writer.from_first(i)
            left = fn.spread_type(fn.do(f"sub i64 {n}, {i}"), "i64", self.width)
            self.mask = fn.do(f"icmp slt <{self.width} x i64> {fn.iota(self.width)}, {left}")
            turn = fn.do(f"lshr i64 {i}, {self.width.bit_length() - 1}")
            self._iteration(loop.body, own, turn)
            return []

        fn.loop("0", n, self.width, [], vector)
        turns = fn.do(f"add i64 {n}, {self.width - 1}")
        turns = fn.do(f"lshr i64 {turns}, {self.width.bit_length() - 1}")
        totals = [self._total(s, turns) for s in own]
        writer.known = outer
        for s, total in zip(own, totals, strict=True):
            writer.closed(s.acc, total, s.width, n)

    def _open_scratch(self) -> None:
        for s, _ in walk(self.loop.body):
            if isinstance(s, (Load, Store)) and s.buffer not in self.scratch:
                b = self.writer.buffer(s.buffer)
                if b.scope == self.loop.var:
                    elements = int(str(product(b.type.shape)))
                    wide = f"<{self.width} x {MEMORY[b.type.dtype.name]}>"
                    self.scratch[s.buffer] = self.fn.alloca(wide, elements)

    # -- statements ---------------------------------------------------------------------------------------------------

    def _iteration(self, body: Iterable[Statement], sums: Sequence[LaneSum], turn: str) -> None:
        for mine in sums:
            mine.turn = turn
        for s in body:
            self._statement(s)
        self._end_of_iteration(sums, turn)

    def _statement(self, s: Statement) -> None:
        writer, known = self.writer, self.writer.known
        match s:
            case Let():
                for name in s.args:
                    known[name] = self._wide(known[name])
                writer.let(s, self.width)
            case Iota():
                known[s.name] = Known(self._numbers(s.value), i64, self.width)
            case Load():
                known[s.name] = self._loaded(s)
            case Store():
                value = self._wide(known[s.value])
                store_vector(
                    self.fn, self._address(s.buffer, s.index), value, self._mask_of(s.buffer)
                )
            case Add():
                self._add(s)
            case For():
                self._inner(s)
            case _:
                raise AssertionError(f"{s} in a loop in lanes")

    def _wide(self, value: Known) -> Known:
        if value.width > 1:
            return value
        return Known(
            self.fn.spread(value.register, value.dtype, self.width), value.dtype, self.width
        )

    def _numbers(self, value: Size) -> str:
        """An index in every lane."""
        fn, step = self.fn, coefficient(value, self.loop.var)
        first = fn.spread_type(self.writer.size(value), "i64", self.width)
        if step == 0:
            return first
        return fn.do(f"add <{self.width} x i64> {first}, {self._lane_steps(step)}")

    def _lane_steps(self, step: Size) -> str:
        fn, width = self.fn, self.width
        if step == 1:
            return fn.iota(width)
        wide = fn.spread_type(self.writer.size(step), "i64", width)
        return fn.do(f"mul <{width} x i64> {fn.iota(width)}, {wide}")

    # -- memory -------------------------------------------------------------------------------------------------------

    def _loaded(self, s: Load) -> Known:
        if s.buffer not in self.scratch and coefficient(s.index, self.loop.var) == 0:
            value = self.writer.load(self.writer.address(s.buffer, s.index), s.dtype)
            return self._wide(Known(value, s.dtype, 1))
        address = self._address(s.buffer, s.index)
        value = load_vector(self.fn, address, s.dtype, self.width, self._mask_of(s.buffer))
        return Known(value, s.dtype, self.width)

    def _address(self, buffer: str, index: Size) -> str:
        """Of the first lane's element, or marked addresses of all lanes' elements."""
        fn, ty = self.fn, MEMORY[self.writer.buffer(buffer).type.dtype.name]
        if buffer in self.scratch:
            place = self.writer.size(index)
            return fn.do(
                f"getelementptr <{self.width} x {ty}>, ptr {self.scratch[buffer]}, i64 {place}"
            )
        first, step = self.writer.address(buffer, index), coefficient(index, self.loop.var)
        if step == 1:
            return first
        steps = self._lane_steps(step)
        return many(fn.do(f"getelementptr {ty}, ptr {first}, <{self.width} x i64> {steps}"))

    def _mask_of(self, buffer: str) -> str:
        """Scratch has room for all lanes."""
        return "" if buffer in self.scratch else self.mask

    # -- inner loops --------------------------------------------------------------------------------------------------

    def _inner(self, loop: For) -> None:
        writer = self.writer
        n = writer.size(loop.size)
        fixed, moving = self.split(loop)
        for before in fixed:
            self._statement(before)
        sums = [
            self._open(acc, accs.lanes_of(acc.dtype) if acc.order == "lanes" else 1, self.width)
            for acc in loop.accs
        ]

        def one(j: str, _: object) -> list[str]:
            writer.symbols[loop.var] = j
            self._iteration(moving, sums, j)
            return []

        pieces = pieces_of(moving)
        if len(pieces) > 1:
            self._in_pieces(loop.var, pieces, sums, n)
        else:
            self.fn.loop("0", n, 1, [], one)
        for s in sums:
            total = writer.sum_of_none(s.acc, self._folded_slots(s, n), n, self.width)
            writer.known[s.acc.name] = Known(total, s.acc.dtype, self.width)

    def _in_pieces(
        self, var: str, pieces: Sequence[Piece], sums: Sequence[LaneSum], n: str
    ) -> None:
        """Each piece for some iterations, then the next one."""
        writer, fn = self.writer, self.fn
        kept = {
            name: (register(dtype, self.width), fn.alloca(register(dtype, self.width), TOGETHER))
            for piece in pieces
            for name, dtype in piece.keeps
        }

        def place(name: str, j: str) -> tuple[str, str]:
            ty, first = kept[name]
            at = fn.do(f"and i64 {j}, {TOGETHER - 1}")
            return ty, fn.do(f"getelementptr {ty}, ptr {first}, i64 {at}")

        def some(first: str, _: object) -> list[str]:
            end = fn.do(f"add i64 {first}, {TOGETHER}")
            end = fn.do(f"select i1 {fn.do(f'icmp slt i64 {end}, {n}')}, i64 {end}, i64 {n}")
            for piece in pieces:

                def one(j: str, _: object, piece: Piece = piece) -> list[str]:
                    writer.symbols[var] = j
                    for name, dtype in piece.takes:
                        ty, at = place(name, j)
                        taken = fn.do(f"load {ty}, ptr {at}")
                        writer.known[name] = Known(taken, dtype, self.width)
                    if piece is pieces[-1]:
                        self._iteration(piece.statements, sums, j)
                    else:
                        for s in piece.statements:
                            self._statement(s)
                    for name, _ in piece.keeps:
                        ty, at = place(name, j)
                        fn.say(f"store {ty} {self._wide(writer.known[name]).register}, ptr {at}")
                    return []

                fn.loop(first, end, 1, [], one)
            return []

        fn.loop("0", n, TOGETHER, [], some)

    def split(self, loop: For) -> tuple[list[Statement], list[Statement]]:
        """What no iteration of an inner loop changes, and the statements that are left."""
        stored = {s.buffer for s, _ in walk(loop.body) if isinstance(s, Store)}
        fixed: list[Statement] = []
        moving: list[Statement] = []
        varying = {a.name for a in loop.accs}
        for s in loop.body:
            if not any(name in varying for name in used_by(s)) and (
                isinstance(s, Let)
                or (isinstance(s, Iota) and coefficient(s.value, loop.var) == 0)
                or (
                    isinstance(s, Load)
                    and s.buffer not in stored
                    and without(s.index, loop.var) == s.index
                )
            ):
                fixed.append(s)
            else:
                moving.append(s)
                varying.update(name for name, _ in defined([s]))
        return fixed, moving

    # -- accumulators -------------------------------------------------------------------------------------------------

    def _open_own(self, acc: Acc) -> LaneSum:
        """Of the loop itself: a sum of order `lanes` takes its vectors one after the other."""
        width = accs.lanes_of(acc.dtype) if acc.order == "lanes" else self.width
        return self._open(acc, 1, width, self.width // width)

    def _open(self, acc: Acc, slots: int, width: int, adds: int = 1) -> LaneSum:
        ty = register(acc.dtype, width)
        made = self.sums[acc.name] = LaneSum(acc, slots, width, adds, self.fn.alloca(ty, slots))
        if made.ordered:
            made.levels = self.fn.alloca(ty, slots * accs.LEVELS)
        self._begin_leaf(made)
        return made

    def _begin_leaf(self, s: LaneSum) -> None:
        nothing = accs.identity(s.acc.monoid, s.acc.dtype, s.width)
        for k in range(s.slots):
            self.fn.say(f"store {s.type} {nothing}, ptr {self._slot(s, str(k))}")

    def _slot(self, s: LaneSum, k: str) -> str:
        return (
            s.values if k == "0" else self.fn.do(f"getelementptr {s.type}, ptr {s.values}, i64 {k}")
        )

    def _add(self, a: Add) -> None:
        fn, s = self.fn, self.sums[a.acc]
        at = self._slot(s, fn.do(f"and i64 {s.turn}, {s.slots - 1}") if s.slots > 1 else "0")
        total = fn.do(f"load {s.type}, ptr {at}")
        values = [self._wide(self.writer.known[v]) for v in a.values]
        own = any(acc.name == a.acc for acc in self.loop.accs)
        for k in range(s.adds):
            operands = [self._part(v.register, register(v.dtype, self.width), s, k) for v in values]
            before, total = total, self.writer.folded(s.acc, total, operands, s.width)
            if own:
                mask = self._part(self.mask, f"<{self.width} x i1>", s, k)
                total = fn.do(
                    f"select <{s.width} x i1> {mask}, {s.type} {total}, {s.type} {before}"
                )
        fn.say(f"store {s.type} {total}, ptr {at}")

    def _part(self, value: str, ty: str, s: LaneSum, k: int) -> str:
        """The k-th of the vectors that a sum adds, out of one with all lanes."""
        if s.adds == 1:
            return value
        lanes = ", ".join(f"i32 {i}" for i in range(k * s.width, (k + 1) * s.width))
        return self.fn.do(f"shufflevector {ty} {value}, {ty} poison, <{s.width} x i32> <{lanes}>")

    def _end_of_iteration(self, sums: Sequence[LaneSum], turn: str) -> None:
        """Leaves that are full enter their counters."""
        fn = self.fn
        for period in sorted({s.period for s in sums if s.ordered}):
            due = [s for s in sums if s.ordered and s.period == period]
            done = fn.do(f"add i64 {turn}, 1")
            full = fn.do(f"icmp eq i64 {fn.do(f'and i64 {done}, {period - 1}')}, 0")
            with fn.when(full):
                self._push(due, fn.do(f"lshr i64 {turn}, {period.bit_length() - 1}"))

    def _push(self, sums: Sequence[LaneSum], t: str) -> None:
        """What is in the slots of sums of one period becomes leaf number t; they begin anew."""
        for slots in sorted({s.slots for s in sums}):
            alike = [s for s in sums if s.slots == slots]

            def enter(k: str, alike: Sequence[LaneSum] = alike) -> None:
                leaves = [
                    (self._counter(s, k), self.fn.do(f"load {s.type}, ptr {self._slot(s, k)}"))
                    for s in alike
                ]
                accs.push_all(self.fn, leaves, t)

            self._for_slots(slots, enter)
        for s in sums:
            self._begin_leaf(s)

    def _for_slots(self, slots: int, action: Callable[[str], None]) -> None:
        def one(k: str, _: object) -> list[str]:
            action(k)
            return []

        if slots == 1:
            action("0")
        else:
            self.fn.loop("0", str(slots), 1, [], one)

    def _counter(self, s: LaneSum, k: str) -> accs.Counter:
        """The one of a slot; those of several lie level by level."""
        levels, stride = s.levels, ""
        if s.slots > 1:
            levels = self.fn.do(f"getelementptr {s.type}, ptr {levels}, i64 {k}")
            stride = str(s.slots * s.width)
        return accs.Counter(levels, s.acc.monoid, s.acc.dtype, s.width, stride)

    def _total(self, s: LaneSum, turns: str) -> str:
        """After a loop of so many iterations: the one slot's vector."""
        if not s.ordered:
            return self.fn.do(f"load {s.type}, ptr {s.values}")
        return accs.collapse_counter(self.fn, self._counter(s, "0"), self._leaves(s, turns))

    def _leaves(self, s: LaneSum, turns: str) -> str:
        """The last leaf, which may not be full, enters its counter; how many there are."""
        fn, shift = self.fn, s.period.bit_length() - 1
        whole = fn.do(f"lshr i64 {turns}, {shift}")
        some = fn.do(f"icmp ne i64 {fn.do(f'and i64 {turns}, {s.period - 1}')}, 0")
        with fn.when(some):
            self._push([s], whole)
        return fn.do(f"add i64 {whole}, {fn.do(f'zext i1 {some} to i64')}")

    def _folded_slots(self, s: LaneSum, turns: str) -> str:
        """After an inner loop: every slot's tree, then one sum of all slots."""
        if s.slots == 1:
            return self._total(s, turns)
        fn = self.fn
        count = self._leaves(s, turns)

        def collapsed(k: str) -> None:
            total = accs.collapse_counter(fn, self._counter(s, k), count)
            fn.say(f"store {s.type} {total}, ptr {self._slot(s, k)}")

        self._for_slots(s.slots, collapsed)
        return self._halved(s)

    def _halved(self, s: LaneSum) -> str:
        """Slot k takes slot k + half, and so on down to one."""
        fn, acc = self.fn, s.acc
        found = [fn.do(f"load {s.type}, ptr {self._slot(s, str(k))}") for k in range(s.slots)]
        return accs.folded_lanes(fn, acc.monoid, acc.dtype, found, s.width)
