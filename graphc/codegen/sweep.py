"""Kernels that are one sweep: panels of some rows, each through all statements, shared between threads.

A part is 2^k times 256 rows, which are one panel or some; with few rows there is one part, and threads share its loops and products instead. The sums of
panels are nodes of the trees that one pass over all rows would build: they meet in a binary counter, within a part and
then between parts. A product's sums, whose tree has leaves of 256 rows, go on from panel to panel in such a leaf. Buffers that live for a panel only begin where its first row would lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.codegen.gemm import emit_contract
from graphc.codegen.parallel import (
    ARGS,
    BEGIN_WORD,
    COUNT,
    EXTENT,
    FOLD,
    OWNER_WORD,
    PORTION,
    RESULTS,
    RUN,
    SINGLE,
    TOTAL,
    VALUES,
    ParallelLoop,
    both,
    load_elements,
    of_pool,
    place_of_partials,
)
from graphc.codegen.product import nobody, put
from graphc.codegen.slots import POOL
from graphc.codegen.state import BEGIN, FIRST, OWNER
from graphc.ir.types import Dim, Size
from graphc.lower.loops import PANEL_ROWS, Contract, For, Statement
from graphc.lower.partials import SweepSum, partials_of_sweep
from graphc.lower.plan import levels_name
from graphc.lower.sweep import adds_up, cost_of_row, iterations, of_panel

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

BITS = PANEL_ROWS.bit_length() - 1


class Sweep:
    """A kernel that is a sweep."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer, self.fn, self.kernel = writer, writer.fn, writer.kernel
        assert self.kernel.sweep is not None
        self.rows = self.kernel.sweep
        self.sums, self.stride = partials_of_sweep(self.kernel)
        self.loops = {
            i: ParallelLoop(writer, s) for i, s in enumerate(self.kernel.body) if isinstance(s, For)
        }
        self.products = [s for s in self.kernel.body if isinstance(s, Contract)]

    def write(self) -> None:
        fn, n = self.fn, self.writer.size(self.rows)
        if isinstance(self.rows, int) and self.rows > self.kernel.panel:
            self._swept(n)
            return
        few, many, after = (fn.label(x) for x in ("few", "sweep", "swept"))
        one = fn.do(f"icmp sle i64 {n}, {self.kernel.panel}")
        if self.kernel.panel < PANEL_ROWS:  # some panels, but one part
            pool = fn.do(f"load ptr, ptr {fn.do(f'getelementptr i64, ptr %args, i64 {POOL}')}")
            shared = fn.do(f"icmp ne ptr {pool}, null")
            part = fn.do(f"icmp sle i64 {n}, {PANEL_ROWS}")
            one = fn.do(f"or i1 {one}, {fn.do(f'and i1 {shared}, {part}')}")
        fn.branch(one, few, many)
        fn.open_block(few)
        for i, s in enumerate(self.kernel.body):
            if i in self.loops:
                self.loops[i].write()
            elif isinstance(s, Contract):
                emit_contract(self.writer, s, alone=True)
            else:
                self.writer.statement(s)
        fn.jump(after)
        fn.open_block(many)
        self._swept(n)
        fn.jump(after)
        fn.open_block(after)

    # -- all panels ---------------------------------------------------------------------------------------------------

    def _swept(self, n: str) -> None:
        fn, writer = self.fn, self.writer
        part = _Part(self).write()
        context = fn.alloca("i64", VALUES)
        put(fn, context, ARGS, "ptr", "%args")
        put(fn, context, TOTAL, "i64", n)
        mine = writer.pointer(levels_name(self.kernel)) if self.sums else "null"
        ask, many, one, after = (fn.label(x) for x in ("ask", "many", "one", "shared"))
        pool = fn.do(f"load ptr, ptr {fn.do(f'getelementptr i64, ptr %args, i64 {POOL}')}")
        fn.branch(fn.do(f"icmp eq ptr {pool}, null"), one, ask)

        fn.open_block(ask)
        units = fn.do(f"lshr i64 {fn.do(f'add i64 {n}, {PANEL_ROWS - 1}')}, {BITS}")
        portion = of_pool(fn, pool, PORTION)
        time = self._nanoseconds(n)
        taken = fn.do(f"call i64 {portion}(ptr {pool}, i64 {units}, i64 {time})")
        fn.branch(fn.do(f"icmp ult i64 {taken}, {units}"), many, one)

        fn.open_block(one)
        self._cut(context, n, "true", mine)
        fn.do(f"call i32 @{part}(ptr {context}, i64 0, i64 0)")
        fn.jump(after)

        fn.open_block(many)
        extent = fn.do(f"shl i64 {taken}, {BITS}")
        whole = fn.do(f"udiv i64 {n}, {extent}")
        rest = fn.do(f"icmp ne i64 {fn.do(f'mul i64 {whole}, {extent}')}, {n}")
        rest = fn.do(f"zext i1 {rest} to i64")
        parts = fn.do(f"add i64 {whole}, {rest}")
        program, size = writer.program, writer.size
        arena, private = size(program.arena or 0), size(program.private)
        results = place_of_partials(fn, "%args", pool, arena, private) if self.sums else "null"
        self._cut(context, extent, "false", results)
        run = of_pool(fn, pool, RUN)
        fn.do(f"call i32 {run}(ptr {pool}, ptr @{part}, ptr {context}, i64 {parts})")
        self._fold(pool, results, whole, rest)
        together = fn.block
        fn.jump(after)

        fn.open_block(after)
        found = fn.phi("ptr", (mine, one), (results, together))[0]
        for total in self.sums:
            if not total.into:
                assert total.acc is not None
                width = int(str(total.elements))
                place = self._at(found, total.place)
                value = load_elements(fn, place, total.dtype, width)
                writer.closed(total.acc, value, width, n)
        for s in self.kernel.body:
            if not isinstance(s, (For, Contract)):
                writer.statement(s)

    def _cut(self, context: str, extent: str, single: str, results: str) -> None:
        put(self.fn, context, EXTENT, "i64", extent)
        put(self.fn, context, SINGLE, "i1", single)
        put(self.fn, context, RESULTS, "ptr", results)

    def _nanoseconds(self, n: str) -> str:
        """Of all rows, on one thread."""
        each = Dim.symbol("_row")
        self.writer.symbols["_row"] = n
        row = cost_of_row(self.writer.program, self.kernel)
        return self.fn.do(f"udiv i64 {self.writer.size(row * each)}, 1000")

    def _fold(self, pool: str, results: str, whole: str, rest: str) -> None:
        """The parts' sums become those of all rows, each in its place."""
        fn, writer = self.fn, self.writer
        for total in self.sums:
            source = self._at(results, total.place)
            out = writer.address(total.into, total.index) if total.into else source
            step = both(fn.module, total.monoid, total.dtype)
            stride, count = writer.size(self.stride), writer.size(total.elements)
            numbers = (
                f"i64 {stride}, i64 {count}, i64 {total.dtype.itemsize}, i64 {whole}, i64 {rest}"
            )
            fold = of_pool(fn, pool, FOLD)
            fn.say(f"call void {fold}(ptr @{step}, ptr {out}, ptr {source}, {numbers})")

    def _at(self, base: str, place: Size) -> str:
        return self.fn.do(f"getelementptr i8, ptr {base}, i64 {self.writer.size(place)}")


class _Part:
    """@part(context, index, worker): some panels, one after the other."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.kernel, self.rows = sweep, sweep.kernel, sweep.rows
        self.name = f"{sweep.fn.name}.panels"
        self.writer = sweep.writer.for_part(self.name)
        self.fn = self.writer.fn
        self.local = [b.name for b in self.writer.program.buffers if b.panel]
        self.panel = self.kernel.panel

    def write(self) -> str:
        fn, writer = self.fn, self.writer
        with fn.in_entry():
            self._begin()
        last = fn.do(f"add i64 {self.first}, 1")  # no rows: one panel without any
        last = fn.do(
            f"select i1 {fn.do(f'icmp sgt i64 {last}, {self.end}')}, i64 {last}, i64 {self.end}"
        )

        def panel(row: str, _: object) -> list[str]:
            left = fn.do(f"sub i64 {self.end}, {row}")
            short = fn.do(f"icmp slt i64 {left}, {self.panel}")
            writer.symbols[FIRST] = row
            writer.symbols[COUNT] = fn.do(f"select i1 {short}, i64 {left}, i64 {self.panel}")
            self.depth |= {rows: self._ones(self._leaf(row, rows)) for rows in self.leaves}
            for i, s in enumerate(self.kernel.body):
                self._statement(i, s, row)
            for rows, sums in self.leaves.items():
                self._merge(sums, self.depth[rows], self._pairs(row, last, rows))
            return []

        fn.loop(self.first, last, self.panel, [], panel)
        for rows, sums in self.leaves.items():
            made = self._leaf(fn.do(f"add i64 {last}, {rows - 1}"), rows)
            waiting = fn.do(f"sub i64 {self._ones(made)}, 1")
            self._merge(sums, waiting, waiting)
        writer.end()
        return self.name

    def _pairs(self, row: str, last: str, rows: int) -> str:
        """How many sums a leaf of so many rows completes, when the panel at `row` is through."""
        fn = self.fn
        zeros = fn.module.intrinsic("llvm.cttz.i64", "i64", ("i64", "i1"))
        following = fn.do(f"add i64 {self._leaf(row, rows)}, 1")
        pairs = fn.do(f"call i64 @{zeros}(i64 {following}, i1 true)")
        if rows == self.panel:
            return pairs
        behind = fn.do(f"add i64 {row}, {self.panel}")
        inside = fn.do(f"and i64 {fn.do(f'sub i64 {behind}, {self.first}')}, {rows - 1}")
        whole = fn.do(f"icmp eq i64 {inside}, 0")
        through = fn.do(f"icmp sge i64 {behind}, {last}")
        return fn.do(f"select i1 {fn.do(f'or i1 {whole}, {through}')}, i64 {pairs}, i64 0")

    def _begin(self) -> None:
        """What the context says."""
        fn, writer = self.fn, self.writer

        def word(place: int, ty: str) -> str:
            return fn.do(f"load {ty}, ptr {fn.do(f'getelementptr i64, ptr %context, i64 {place}')}")

        writer.symbols[OWNER], writer.symbols[BEGIN] = "%worker", "0"
        self.n, extent = word(TOTAL, "i64"), word(EXTENT, "i64")
        self.first = writer.symbols[FIRST] = fn.do(f"mul i64 %index, {extent}")
        end = fn.do(f"add i64 {self.first}, {extent}")
        short = fn.do(f"icmp slt i64 {end}, {self.n}")
        self.end = fn.do(f"select i1 {short}, i64 {end}, i64 {self.n}")
        self.single = word(SINGLE, "i1")
        self.leaves: dict[int, list[SweepSum]] = {}
        for s in self.sweep.sums:
            self.leaves.setdefault(self._rows(s), []).append(s)
        self.depth: dict[int, str] = {}  # of each height of leaves, those that wait
        self.alone = nobody(fn) if self.sweep.products else ""
        self.contexts = {i: self._context(loop) for i, loop in self.sweep.loops.items()}
        if self.sweep.sums:
            self.stride = writer.size(self.sweep.stride)
            skipped = fn.do(f"mul i64 %index, {self.stride}")
            self.results = fn.do(f"getelementptr i8, ptr {word(RESULTS, 'ptr')}, i64 {skipped}")
            self.levels = writer.pointer(levels_name(self.kernel))
            self.direct = {id(s): self._direct(s) for s in self.sweep.sums}

    def _context(self, loop: ParallelLoop) -> str:
        """Of a loop's parts, which are its shares of panels."""
        fn = self.fn
        each = iterations(self.writer.program, loop.loop, self.rows)
        context = fn.alloca("i64", VALUES)
        put(fn, context, ARGS, "ptr", "%args")
        put(fn, context, TOTAL, "i64", fn.do(f"mul i64 {self.n}, {each}"))
        put(fn, context, EXTENT, "i64", str(self.panel * each))
        put(fn, context, OWNER_WORD, "i64", "%worker")
        return context

    def _direct(self, total: SweepSum) -> str:
        """Where the only part's sum goes in the end."""
        mine = self._in_bytes(self.results, total.place)
        if not total.into:
            return mine
        place = self.writer.address(total.into, total.index)
        return self.fn.do(f"select i1 {self.single}, ptr {place}, ptr {mine}")

    def _in_bytes(self, base: str, place: Size) -> str:
        return self.fn.do(f"getelementptr i8, ptr {base}, i64 {self.writer.size(place)}")

    def _leaf(self, row: str, rows: int) -> str:
        """The number of the leaf, of so many rows, that a row is in, among those of this part."""
        fn = self.fn
        since = fn.do(f"sub i64 {row}, {self.first}")
        return fn.do(f"lshr i64 {since}, {rows.bit_length() - 1}")

    def _ones(self, t: str) -> str:
        """Sums that wait when leaf t begins."""
        count = self.fn.module.intrinsic("llvm.ctpop.i64", "i64", ("i64",))
        return self.fn.do(f"call i64 @{count}(i64 {t})")

    # -- a panel ------------------------------------------------------------------------------------------------------

    def _statement(self, i: int, s: Statement, row: str) -> None:
        if isinstance(s, For):
            self._loop(i, row)
        elif isinstance(s, Contract):
            self._product(i, s, row)

    def _loop(self, i: int, row: str) -> None:
        fn, loop, context = self.fn, self.sweep.loops[i], self.contexts[i]
        number = fn.do(f"lshr i64 {row}, {self.panel.bit_length() - 1}")
        put(fn, context, BEGIN_WORD, "i64", row)
        mine = [s for s in self.sweep.sums if s.position == i]
        if mine:
            depth = self.depth[self.panel]
            lowest = fn.do(f"icmp eq i64 {depth}, 0")
            block = mine[0].place - loop.places[mine[0].acc.name]  # type: ignore[union-attr]
            base = fn.do(f"select i1 {lowest}, ptr {self.results}, ptr {self._level(depth)}")
            skipped = fn.do(f"mul i64 {number}, {self.writer.size(loop.stride)}")
            before = fn.do(f"sub i64 {self.writer.size(block)}, {skipped}")
            place = fn.do(f"getelementptr i8, ptr {base}, i64 {before}")
            put(fn, context, RESULTS, "ptr", place)
            put(fn, context, SINGLE, "i1", fn.do(f"and i1 {lowest}, {self.single}"))
        fn.do(f"call i32 @{loop.part()}(ptr {context}, i64 {number}, i64 %worker)")

    def _product(self, i: int, s: Contract, row: str) -> None:
        fn, writer, carry = self.fn, self.writer, ""
        panel = of_panel(s, self.rows, Dim.symbol(FIRST), Dim.symbol(COUNT), self.local)
        if adds_up(s, self.rows):
            (total,) = (t for t in self.sweep.sums if t.position == i)
            writer.pointers[s.out.buffer] = self._place(total, self.depth[self._rows(total)])
            if self._rows(total) > self.panel:
                since = fn.do(f"sub i64 {row}, {self.first}")
                carry = fn.do(f"and i64 {since}, {self._rows(total) - 1}")
        emit_contract(writer, panel, self.alone, alone=True, carry=carry)
        if adds_up(s, self.rows):
            del writer.pointers[s.out.buffer]

    # -- sums ---------------------------------------------------------------------------------------------------------

    def _level(self, depth: str) -> str:
        skipped = self.fn.do(f"mul i64 {depth}, {self.stride}")
        return self.fn.do(f"getelementptr i8, ptr {self.levels}, i64 {skipped}")

    def _place(self, total: SweepSum, depth: str) -> str:
        """Where a sum waits on top of so many others."""
        fn = self.fn
        above = self._in_bytes(self._level(depth), total.place)
        lowest = fn.do(f"icmp eq i64 {depth}, 0")
        return fn.do(f"select i1 {lowest}, ptr {self.direct[id(total)]}, ptr {above}")

    def _rows(self, total: SweepSum) -> int:
        """Of a leaf of a sum's tree, or of a panel, if that is more."""
        return max(total.block, self.panel)

    def _merge(self, sums: Sequence[SweepSum], top: str, times: str) -> None:
        """The uppermost of waiting sums is added to the one below, some times."""
        fn = self.fn

        def once(_: str, carried: list[str]) -> list[str]:
            upper = carried[0]
            lower = fn.do(f"sub i64 {upper}, 1")
            for s in sums:
                step = both(fn.module, s.monoid, s.dtype)
                into, other = self._place(s, lower), self._place(s, upper)
                count = self.writer.size(s.elements)
                fn.say(f"call void @{step}(ptr {into}, ptr {into}, ptr {other}, i64 {count})")
            return [lower]

        fn.loop("0", times, 1, [("i64", top)], once)
