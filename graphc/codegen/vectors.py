"""Innermost loops: iterations are lanes, and what is left at the end runs under a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.apart import Pieces
from graphc.codegen.llvm import MEMORY, register, vector
from graphc.codegen.state import Kept, Known
from graphc.codegen.strided import Rows, load_columns, rows_of, store_columns
from graphc.codegen.vector_memory import EACH, load_vector, many, store_vector
from graphc.gates.gate import registry
from graphc.ir.types import Dim, DType, Size, at_least, bool_, i64
from graphc.lower.loops import (
    VARIABLES,
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
    Store,
    coefficient,
    without,
)
from graphc.lower.names import defined, used_by
from graphc.lower.parallel import cost
from graphc.lower.pieces import in_pieces

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

UNROLLED = 64  # statements up to which a short loop is written out
LONG = 100  # instructions from which on a body is written once, under a mask that is nearly always full
# Where a body is longer than a processor looks ahead, two vectors take turns, statement by statement, up to where that is
# not worth what it takes to compile. In registers of 32 bytes, a vector is two as it is.
PAIRED = (250, 500)
# Picoseconds that a loop takes at least, if that is known: an eighth of it, a thousand times, is what it takes.
REPAID = 40_000_000
TRUE, FALSE = "splat (i1 true)", "splat (i1 false)"


@dataclass
class Range:
    """The iterations of a loop that are inside of a range."""

    most: bool  # are they nearly all?
    first: str = ""  # empty where none is below
    last: str = ""  # the one behind them
    always: str = ""  # all or none: which


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
        self.stages: dict[str, str] = {}  # of each sum in rows, the vectors of one leaf of lanes
        self.width = width or self._width()
        self.bases: dict[int, str] = {}  # statement position -> address at iteration 0
        self.steps: dict[int, str] = {}
        self.strided: dict[
            int, Rows
        ] = {}  # statement position -> the neighbours it shares rows with
        self.columns: dict[int, str] = {}  # what this iteration's rows were found to hold
        self.left = ""  # lanes that are in use, where there is a mask
        self.spare: dict[
            int, str
        ] = {}  # where the stores of a partial vector go, in a body written once
        self.vectors = 1  # that an iteration of a body written once takes
        self.place = 0  # of the one among them that is written
        self.partial = ""  # is the last of them partial?
        self.chosen: dict[
            int, str
        ] = {}  # statement position -> the first one's place, or its spare
        self.pieces: Pieces | None = None  # of a body too long for one function
        self.ranges: dict[int, Range] = {}  # statement position -> the iterations inside
        self.interior = False  # do all ranges agree about what is being written?

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
        if self.kept is None and in_pieces(loop):
            self.pieces = Pieces(self)
        else:
            self._prepare()
        found: list[tuple[Acc, str, int]] = []
        if self.short():
            found = self._unrolled(int(n))
        elif self.kept is not None:
            self._kept_loop(n)
        else:
            found = self._counted(n)
        kernel.known = outer
        for acc, total, width in found:
            kernel.closed(acc, total, width, n)

    def _counted(self, n: str) -> list[tuple[Acc, str, int]]:
        """A loop over vectors; the accumulators, the lanes that they end in, and how many these are."""
        fn, width = self.fn, self.width
        levels = [fn.alloca(register(a.dtype, width), self._levels()) for a in self.lanes]
        levels += [fn.alloca(register(a.dtype, 1), self._levels()) for a in self.rows]
        # one leaf: no counter
        single = n.isdigit() and int(n) <= self._step() and not self.rows
        values, leaves = self._run(
            n, [accs.identity(a.monoid, a.dtype, width) for a in self.others], levels, single
        )
        found = [(a, value, width) for a, value in zip(self.others, values, strict=True)]
        for i, acc in enumerate(self.lanes):
            total = (
                leaves[i] if single and leaves else self._collapsed(acc, levels[i], n, self._step())
            )
            found.append((acc, total, width))
        for acc, level in zip(self.rows, levels[len(self.lanes) :], strict=True):
            found.append((acc, self._collapsed(acc, level, n, self._step(), 1), 1))
        return found

    def _kept_loop(self, n: str) -> None:
        """A block's share of a loop: accumulators come from and go back to where they are kept."""
        assert self.kept is not None
        fn, width = self.fn, self.width
        for acc in self.rows:
            self.kept[acc.name].width = width
        slots = [(register(a.dtype, width), self.kept[a.name].slot) for a in self.others]
        before = [fn.do(f"load {ty}, ptr {slot}") for ty, slot in slots]
        after, _ = self._run(
            n, before, [self.kept[a.name].levels for a in (*self.lanes, *self.rows)], single=False
        )
        for (ty, slot), value in zip(slots, after, strict=True):
            fn.say(f"store {ty} {value}, ptr {slot}")

    def _step(self) -> int:
        return self.width * (accs.LEAF if self.lanes or self.rows else 1)

    def _run(
        self, n: str, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """Whole vectors or leaves, then the rest under a mask."""
        if self.ranges:
            return self._with_edges(n, values, levels, single)
        if self._written_once():
            return self._once(n, values, levels, single)
        step = self._step()
        main = str(int(n) // step * step) if n.isdigit() else self.fn.do(f"and i64 {n}, {-step}")
        leaves: list[str] = []
        if not main.isdigit() or int(main):
            values, leaves = self._main(main, step, values, levels, single)
        if not (n.isdigit() and main == n):
            values, leaves = self._tail(main, n, step, values, levels, single)
        return values, leaves

    # -- ranges: stencils, where elements near the ends lack a neighbour -------------------------------------------

    def _with_edges(
        self, n: str, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """Vectors in the interior, where all ranges agree, as they are; the others under masks."""
        fn, width, step, accumulators = (
            self.fn,
            self.width,
            self._step(),
            [*self.others, *self.lanes],
        )
        agree = self._interior(n)

        def some(i: str, before: list[str]) -> list[str]:
            inner, edge, after = fn.label("interior"), fn.label("edge"), fn.label("joined")
            fn.branch(agree(i), inner, edge)
            fn.open_block(inner)
            self.interior = True
            first = self._iteration(i, before, "")
            self.interior = False
            fn.jump(after)
            came = fn.block
            fn.open_block(edge)
            second = self._iteration(i, before, self._mask(n, i))
            fn.jump(after)
            also = fn.block
            fn.open_block(after)
            return [
                fn.phi(register(acc.dtype, width), (a, came), (b, also))[0]
                for acc, a, b in zip(accumulators, first, second, strict=True)
            ]

        leaves: list[str] = []

        def leaf(i: str, before: list[str]) -> list[str]:
            full = fn.do(f"add i64 {i}, {step}")
            whole = fn.do(f"icmp sle i64 {full}, {n}")
            if self.rows:
                with fn.when(fn.do(f"xor i1 {whole}, true")):
                    for acc in self.rows:
                        self._empty_stage(acc)
            carried = self._carried(accumulators, [*before, *self._identities()])
            end = fn.do(f"select i1 {whole}, i64 {full}, i64 {n}")
            found = fn.loop(i, end, width, carried, some)
            leaves[:] = found[len(before) :]
            if not single:
                self._push(leaves, levels, i, step)
            return found[: len(before)]

        if single and self.lanes:
            return leaf("0", values), leaves
        each = leaf if self.lanes or self.rows else some
        return fn.loop("0", n, step, self._carried(self.others, values), each), leaves

    def _interior(self, n: str) -> Callable[[str], str]:
        """A test of the vector at i: is it whole, in each range that is most of the loop, and in no
        other?"""
        fn, first, last = self.fn, "0", n
        least, most = (
            fn.module.intrinsic(f"llvm.{name}.i64", "i64", ("i64", "i64"))
            for name in ("smax", "smin")
        )
        for r in self.ranges.values():
            if r.always:
                yes, no = (last, "-1") if r.most else ("-1", last)
                last = fn.do(f"select i1 {r.always}, i64 {yes}, i64 {no}")
            elif r.most:
                first = (
                    fn.do(f"call i64 @{least}(i64 {first}, i64 {r.first})") if r.first else first
                )
                last = fn.do(f"call i64 @{most}(i64 {last}, i64 {r.last})")
        narrow = [r for r in self.ranges.values() if not r.most and not r.always]

        def agree(i: str) -> str:
            end = fn.do(f"add i64 {i}, {self.width}")
            tests = [fn.do(f"icmp sle i64 {end}, {last}")]
            tests += [fn.do(f"icmp sge i64 {i}, {first}")] if first != "0" else []
            for r in narrow:
                behind = fn.do(f"icmp sge i64 {i}, {r.last}")
                before = fn.do(f"icmp sle i64 {end}, {r.first}") if r.first else "false"
                tests.append(fn.do(f"or i1 {behind}, {before}"))
            found, *rest = tests
            for test in rest:
                found = fn.do(f"and i1 {found}, {test}")
            return found

        return agree

    def _range(self, s: Inside) -> Range:
        """The iterations of this loop that are in a range."""
        kernel, size, extent = self.kernel, self.loop.size, s.high - s.low
        most = not isinstance(extent, int) or (isinstance(size, int) and 2 * extent >= size)
        if coefficient(s.value, self.loop.var) == 0:
            return Range(most, always=kernel.inside(s))
        before = without(s.value, self.loop.var) + (Dim.symbol(self.start) if self.start else 0)
        first = "" if at_least(s.value, s.low) else kernel.size(s.low - before)
        return Range(most, first, kernel.size(s.high - before))

    def _inside(self, position: int, i: str) -> str:
        """In each lane: is this iteration in the range?"""
        fn, width, r = self.fn, self.width, self.ranges[position]
        if self.interior:
            return TRUE if r.most else FALSE
        if r.always:
            return fn.spread_type(r.always, "i1", width)
        place = fn.do(f"add <{width} x i64> {fn.spread_type(i, 'i64', width)}, {fn.iota(width)}")
        inside = fn.do(f"icmp slt <{width} x i64> {place}, {fn.spread_type(r.last, 'i64', width)}")
        if not r.first:
            return inside
        above = fn.do(f"icmp sge <{width} x i64> {place}, {fn.spread_type(r.first, 'i64', width)}")
        return fn.do(f"and <{width} x i1> {inside}, {above}")

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

    # -- long bodies: one copy for whole and partial vectors ------------------------------------------------------

    def _written_once(self) -> bool:
        """Would the body of the last vector take longer to compile than a mask for all takes to run?"""
        n, own = self.loop.size, {a.name for a in self.loop.accs}
        if self.rows or self.strided or self.pieces is not None:
            return False
        if isinstance(n, int) and n % self._step() == 0:
            return False
        loaded, stored = set(), set()
        for position, s in enumerate(self.loop.body):
            match s:
                case Load() if not s.at and self.steps[position] in ("0", "1"):
                    loaded.add(s.buffer)
                case Store() if self.steps[position] == "1":
                    stored.add(s.buffer)
                case Let() | Iota():
                    pass
                case Add() if s.acc in own:
                    pass
                case _:
                    return False
        return not loaded & stored and sum(self._instructions()) >= LONG

    def _instructions(self) -> tuple[int, int]:
        """Of the body: those of the gates that it calls, and its own."""
        types = {name: known.dtype for name, known in self.kernel.known.items()}
        gates, own = 0, 0
        for s in self.loop.body:
            if isinstance(s, (Let, Load)):
                types[s.name] = s.dtype
            elif isinstance(s, Iota):
                types[s.name] = i64
            if isinstance(s, Let) and s.op == "call":
                dtypes = tuple(types[a] for a in s.args)
                gates += len(registry()[str(s.attr)].body_graph(dtypes).code)
            else:
                own += 1
        return gates, own

    def _in_pairs(self) -> bool:
        """Is it worth writing two vectors into an iteration?"""
        n, added = self.loop.size, [s.acc for s in self.loop.body if isinstance(s, Add)]
        gates, own = self._instructions()
        return (
            self.fn.module.avx512
            and PAIRED[0] <= gates + own <= PAIRED[1]
            and 2 * gates <= self.fn.module.inline_left
            and len(set(added)) == len(added)
            and not (isinstance(n, int) and n <= self.width)
            and not self._is_brief()
        )

    def _is_brief(self) -> bool:
        """Does a loop that no other one runs again take so little that few calls would notice?"""
        alone = self.start == "" and self.kernel.symbols.keys().isdisjoint(VARIABLES)
        return alone and isinstance(n := self.loop.size * cost(self.loop), int) and n < REPAID

    def _once(
        self, n: str, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """All vectors. A partial one at the end is loaded and stored by way of the stack."""
        fn, step = self.fn, self._step()
        self.vectors = 2 if self._in_pairs() else 1
        taken = self.width * self.vectors
        whole = str(int(n) // taken * taken) if n.isdigit() else fn.do(f"and i64 {n}, {-taken}")
        partial = "" if whole == n else fn.do(f"icmp slt i64 {whole}, {n}")
        if partial:
            self._load_spare(n, whole, partial)

        def some(i: str, before: list[str]) -> list[str]:
            if partial:
                self.partial = fn.do(f"icmp eq i64 {i}, {whole}")
            after = self._vectors(i, before)
            if partial and before:
                return self._only_lanes_in_use(before, after, n, i)
            return after[-1]

        def leaf(i: str, before: list[str]) -> list[str]:
            carried = self._carried([*self.others, *self.lanes], [*before, *self._identities()])
            end = n
            if not single:
                full = fn.do(f"add i64 {i}, {step}")
                end = fn.do(f"select i1 {fn.do(f'icmp slt i64 {full}, {n}')}, i64 {full}, i64 {n}")
            after = fn.loop(i, end, taken, carried, some)
            leaves[:] = after[len(before) :]
            if not single:
                self._push(leaves, levels, i, step)
            return after[: len(before)]

        leaves: list[str] = []
        carried = self._carried(self.others, values)
        if not self.lanes:
            values = fn.loop("0", n, taken, carried, some)
        elif single:
            values = leaf("0", values)
        else:
            values = fn.loop("0", n, step, carried, leaf)
        self._store_spare(n, whole, partial)
        return values, leaves

    def _vectors(self, i: str, before: Sequence[str]) -> list[list[str]]:
        """An iteration of a body written once: the accumulators after each of its vectors.

        Two of them take turns, statement by statement.
        """
        kernel, names = self.kernel, [a.name for a in (*self.others, *self.lanes)]
        outside, state = kernel.known, dict(zip(names, before, strict=True))
        starts = [i, *(self.fn.do(f"add i64 {i}, {at}") for at in self._further())]
        known = [dict(outside) for _ in starts]
        after: list[dict[str, str]] = [{} for _ in starts]
        for position, s in enumerate(self.loop.body):
            for self.place, start in enumerate(starts):
                kernel.known = known[self.place]
                self._statement(position, s, start, "", state)
                if isinstance(s, Add):
                    after[self.place][s.acc] = state[s.acc]
        kernel.known, self.place = outside, 0
        return [[found.get(a, value) for a, value in zip(names, before)] for found in after]

    def _further(self) -> list[int]:
        """How far behind the first vector of an iteration the others are."""
        return [k * self.width for k in range(1, self.vectors)]

    def write_vector(self, count: str) -> None:
        """One vector, of which so many lanes are in use."""
        self._prepare()
        self.partial = self.fn.do(f"icmp slt i64 {count}, {self.width}")
        self._load_spare(count, "0", self.partial)
        self._iteration("0", [], "")
        self._store_spare(count, "0", self.partial)

    def _only_lanes_in_use(
        self, before: Sequence[str], after: Sequence[Sequence[str]], n: str, i: str
    ) -> list[str]:
        """Accumulators after some vectors: where these are partial, other lanes stay as they were.

        A branch, as a blend in every iteration would wait for the end of the body.
        """
        fn, width, accumulators = self.fn, self.width, (*self.others, *self.lanes)
        came, full = fn.block, fn.label("full")
        part = fn.label("part")
        fn.branch(self.partial, part, full)
        fn.open_block(part)
        chosen = list(before)
        for at, values in zip((0, *self._further()), after, strict=True):
            mask = self._mask(n, fn.do(f"add i64 {i}, {at}") if at else i)
            for k, acc in enumerate(accumulators):
                ty = register(acc.dtype, width)
                chosen[k] = fn.do(
                    f"select <{width} x i1> {mask}, {ty} {values[k]}, {ty} {chosen[k]}"
                )
        fn.jump(full)
        fn.open_block(full)
        return [
            fn.phi(register(acc.dtype, width), (new, came), (kept, part))[0]
            for acc, new, kept in zip(accumulators, after[-1], chosen, strict=True)
        ]

    def _mask(self, n: str, i: str) -> str:
        """The lanes of the vector at i that are in use."""
        fn, width = self.fn, self.width
        self.left = fn.do(f"sub i64 {n}, {i}")
        left = fn.spread_type(self.left, "i64", width)
        return fn.do(f"icmp slt <{width} x i64> {fn.iota(width)}, {left}")

    def _load_spare(self, n: str, whole: str, partial: str) -> None:
        """What partial vectors load goes to the stack, with zeros in the lanes that are not in use."""
        for position, s in enumerate(self.loop.body):
            if isinstance(s, (Load, Store)) and s.buffer in self.kernel.slot_of:
                continue  # whole vectors on their own
            if isinstance(s, Store) or (isinstance(s, Load) and self.steps[position] == "1"):
                count = self.width * self.vectors
                self.spare[position] = self.fn.alloca(self._memory_type(position), count)
        if not self.spare:
            return
        with self.fn.when(partial):
            for start, at, mask in self._parts(n, whole):
                for position, place in self.spare.items():
                    s = self.loop.body[position]
                    if isinstance(s, Load):
                        loaded = self.load(self._addresses(position, (), start), s.dtype, mask)
                        value = Known(loaded, s.dtype, self.width)
                        self.store(self._behind(position, place, at), value, "")

    def _store_spare(self, n: str, whole: str, partial: str) -> None:
        """What partial vectors have stored goes from the stack to its place."""
        stores = {p: s for p in self.spare if isinstance(s := self.loop.body[p], Store)}
        if not stores:
            return
        with self.fn.when(partial):
            for start, at, mask in self._parts(n, whole):
                for position, s in stores.items():
                    dtype = self.kernel.buffer(s.buffer).type.dtype
                    spare = self._behind(position, self.spare[position], at)
                    value = Known(self.load(spare, dtype, ""), dtype, self.width)
                    self.store(self._addresses(position, (), start), value, mask)

    def _parts(self, n: str, whole: str) -> Iterator[tuple[str, int, str]]:
        """The vectors behind the whole ones: where each begins, in the loop and here, and its mask."""
        for at in (0, *self._further()):
            start = self.fn.do(f"add i64 {whole}, {at}") if at else whole
            yield start, at, self._mask(n, start)

    def _behind(self, position: int, address: str, at: int) -> str:
        ty = self._memory_type(position)
        return self.fn.do(f"getelementptr {ty}, ptr {address}, i64 {at}") if at else address

    def _or_spare(self, position: int, i: str) -> str:
        """Where a vector lies: a partial one on the stack."""
        if not self.place:
            spare, address = self.spare[position], self._addresses(position, (), i)
            self.chosen[position] = self.fn.do(
                f"select i1 {self.partial}, ptr {spare}, ptr {address}"
            )
        return self._behind(position, self.chosen[position], self.place * self.width)

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
        values = [accs.identity(a.monoid, a.dtype, width) for a in self.others]
        leaves: list[list[str]] = []
        for i in range(0, n, self._step()):
            now = [*values, *self._identities()]
            for j in range(i, min(i + self._step(), n), width):
                self.left = str(n - j)
                now = self._iteration(str(j), now, self._constant_mask(n - j))
            values = now[: len(values)]
            leaves.append(now[len(values) :])
        found = [(a, value, width) for a, value in zip(self.others, values, strict=True)]
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
        if not self.lanes and not self.rows:
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
        for acc in self.rows:
            self._empty_stage(acc)

        def masked(i: str, before: list[str]) -> list[str]:
            return self._iteration(i, before, self._mask(n, i))

        after = fn.loop(main, n, width, carried, masked)
        leaves = after[len(values) :]
        if (self.lanes or self.rows) and not single:
            with fn.when(fn.do(f"icmp slt i64 {main}, {n}")):
                self._push(leaves, levels, main, step)
        return after[: len(values)], leaves

    def _push(self, leaves: Sequence[str], levels: Sequence[str], i: str, step: int) -> None:
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

    def _empty_stage(self, acc: Acc) -> None:
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

    def _prepare(self) -> None:
        """Addresses at iteration 0, values that no iteration changes, and outer values in every lane."""
        kernel, var = self.kernel, self.loop.var
        self.strided = {
            position: rows
            for position, rows in rows_of(self.loop, self.width).items()
            if kernel.buffer(self.loop.body[position].buffer).type.dtype is not bool_  # type: ignore[union-attr]
        }
        for position, s in enumerate(self.loop.body):
            if isinstance(s, (Load, Store, Scatter)):
                self._prepare_access(position, s.buffer, s.index, s)
            elif (
                isinstance(s, Add)
                and kernel.sums.get(s.acc) is not None
                and kernel.sums[s.acc].kind == "array"
            ):
                acc = kernel.sums[s.acc].acc
                self.bases[position] = kernel.element(acc, self._first(s.index))
                self.steps[position] = kernel.size(coefficient(s.index, var))
            elif isinstance(s, Inside):
                self.ranges[position] = self._range(s)
            elif isinstance(s, Iota):
                self.bases[position] = kernel.size(self._first(s.value))
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
        self.bases[position] = kernel.address(buffer, self._first(index))
        if isinstance(s, Load) and step == 0 and not s.at and not s.only:
            value = kernel.load(self.bases[position], s.dtype)
            kernel.known[s.name] = Known(
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

    def spread(self, name: str) -> None:
        value = self.kernel.known[name]
        if value.width == 1:
            wide = self.fn.spread(value.register, value.dtype, self.width)
            self.kernel.known[name] = Known(wide, value.dtype, self.width)

    # -- one iteration --------------------------------------------------------------------------------------------------

    def _iteration(self, i: str, values: Sequence[str], mask: str) -> list[str]:
        """The body for `width` iterations from i on; gives the accumulators' next values."""
        state = dict(zip([a.name for a in (*self.others, *self.lanes)], values, strict=False))
        self.columns = {}
        if self.pieces is not None:
            self.pieces.call(i, self._in_use() if mask else str(self.width))
            for add in self.pieces.cut.adds:
                state[add.acc] = self.folded(add, state[add.acc], mask)
            return list(state.values())
        for position, s in enumerate(self.loop.body):
            self._statement(position, s, i, mask, state)
        return list(state.values())

    def _in_use(self) -> str:
        """How many lanes of a vector are in use, where there is a mask."""
        if not self.left.startswith("%"):
            return str(min(int(self.left), self.width))
        partial = self.fn.do(f"icmp slt i64 {self.left}, {self.width}")
        return self.fn.do(f"select i1 {partial}, i64 {self.left}, i64 {self.width}")

    def _statement(
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
                kernel.known[s.name] = Known(self._inside(position, i), bool_, width)
            case Load() if s.buffer in kernel.slot_of:
                kernel.known[s.name] = Known(self.load(self._slot(s), s.dtype, ""), s.dtype, width)
            case Load():
                if kernel.preloaded and (s, i) in kernel.preloaded:
                    kernel.known[s.name] = Known(kernel.preloaded[s, i], s.dtype, width)
                elif position in self.strided:
                    kernel.known[s.name] = Known(self._column(position, i, mask), s.dtype, width)
                elif position in self.spare:
                    place = self._or_spare(position, i)
                    kernel.known[s.name] = Known(self.load(place, s.dtype, ""), s.dtype, width)
                elif self.steps[position] != "0" or s.at or s.only:
                    address = self._addresses(position, s.at, i)
                    if (
                        kernel.block is not None
                        and i.isdigit()
                        and int(i) // width % 2 == 0
                        and not address.startswith(EACH)
                    ):
                        kernel.block.prefetch(s, address)
                    loaded = self.load(address, s.dtype, self._where(mask, s.only))
                    kernel.known[s.name] = Known(loaded, s.dtype, width)
            case Store() if s.buffer in kernel.slot_of:
                self.store(self._slot(s), kernel.known[s.value], "")
            case Store() if position in self.strided:
                if position == max(self.strided[position].positions):
                    self._store_rows(self.strided[position], i, mask)
            case Store() if position in self.spare:
                place = self._or_spare(position, i)
                self.store(place, kernel.known[s.value], "")
            case Store():
                where = self._where(mask, s.only)
                self.store(self._addresses(position, (), i), kernel.known[s.value], where)
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
        address = self._addresses(position, at, i)
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

    def _addresses(self, position: int, at: Sequence[tuple[str, Size]], i: str) -> str:
        """One address, marked by being a plain register, or a vector of addresses."""
        fn, width, step = self.fn, self.width, self.steps[position]
        ty = self._memory_type(position)
        if not at and step == "1":
            return fn.do(f"getelementptr {ty}, ptr {self.bases[position]}, i64 {i}")
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

    # -- rows of neighbouring elements ------------------------------------------------------------------------------------

    def _column(self, position: int, i: str, mask: str) -> str:
        if position not in self.columns:
            rows = self.strided[position]
            s = self.loop.body[position]
            assert isinstance(s, Load)
            found = load_columns(self.fn, self._row_addresses(rows, i, mask), rows.columns, s.dtype)
            self.columns.update(zip(rows.positions, found, strict=True))
        return self.columns[position]

    def _row_addresses(self, rows: Rows, i: str, mask: str) -> list[str]:
        """Where each lane's row begins; lanes that are not in use read the last one that is."""
        fn, first = self.fn, rows.positions[0]
        ty, step = self._memory_type(first), self.steps[first]
        start = fn.do(
            f"getelementptr {ty}, ptr {self.bases[first]}, i64 {fn.do(f'mul i64 {i}, {step}')}"
        )
        last = fn.do(f"sub i64 {self.left}, 1") if mask else ""
        addresses = [start]
        for lane in range(1, self.width):
            place = str(lane)
            if mask:
                inside = fn.do(f"icmp slt i64 {lane}, {self.left}")
                place = fn.do(f"select i1 {inside}, i64 {lane}, i64 {last}")
            constant = place.isdigit() and step.isdigit()
            offset = str(lane * int(step)) if constant else fn.do(f"mul i64 {place}, {step}")
            addresses.append(fn.do(f"getelementptr {ty}, ptr {start}, i64 {offset}"))
        return addresses

    def _store_rows(self, rows: Rows, i: str, mask: str) -> None:
        """Rows go to their places at once; where a mask is, those in use by way of the stack."""
        fn, known = self.fn, self.kernel.known
        stores = [
            s for s in map(self.loop.body.__getitem__, rows.positions) if isinstance(s, Store)
        ]
        values = [known[s.value] for s in stores]
        dtype, registers = values[0].dtype, [v.register for v in values]
        if not mask:
            store_columns(fn, registers, self._row_addresses(rows, i, ""), dtype)
            return
        row = vector(MEMORY[dtype.name], rows.columns)
        stack = fn.alloca(MEMORY[dtype.name], self.width * rows.columns)
        element = MEMORY[dtype.name]

        def at(base: str, offset: str) -> str:
            return fn.do(f"getelementptr {element}, ptr {base}, i64 {offset}")

        places = [at(stack, str(lane * rows.columns)) for lane in range(self.width)]
        store_columns(fn, registers, places, dtype)
        first, step = rows.positions[0], self.steps[rows.positions[0]]
        start = at(self.bases[first], fn.do(f"mul i64 {i}, {step}"))
        end = self.left
        if not end.startswith("%"):
            end = str(min(int(end), self.width))

        def one(lane: str, _: object) -> list[str]:
            source = at(stack, fn.do(f"mul i64 {lane}, {rows.columns}"))
            target = at(start, fn.do(f"mul i64 {lane}, {step}"))
            value = fn.do(f"load {row}, ptr {source}, align {dtype.itemsize}")
            fn.say(f"store {row} {value}, ptr {target}, align {dtype.itemsize}")
            return []

        fn.loop("0", end, 1, [], one)

    def _memory_type(self, position: int) -> str:
        s = self.loop.body[position]
        buffer = self.kernel.sums[s.acc].acc.into if isinstance(s, Add) else s.buffer  # type: ignore[union-attr]
        return MEMORY[self.kernel.buffer(buffer).type.dtype.name]

    def load(self, address: str, dtype: DType, mask: str) -> str:
        return load_vector(self.fn, address, dtype, self.width, mask)

    def store(self, address: str, value: Known, mask: str) -> None:
        store_vector(self.fn, address, value, mask)
