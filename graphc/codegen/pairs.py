"""Loops of the mode `pairs`: the pairs of two blocks of points are visited once, for the sums of both blocks.

Points come in blocks of 2^k, four blocks at most, or two for no more than two threads. A part of the work is a pair of blocks (a, b), a <= b, and that a
square of as many points as a vector has lanes, one after the other:

    for some vectors of rows i of a, for as many columns j of b:
        values of all (i, j), added to the sums of the rows over these columns,
        and those of (j, i), most of which are the same ones, to the sums of the columns over these rows

Every sum of a point is a tree for each lane, and a block is a subtree of all of them; all leaves of one come in their
order. Where a part has ended, the block's subtrees are numbers in memory, some for each point, from which the point's
trees go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.lanes import LanesLoop, LaneSum
from graphc.codegen.llvm import Function, register
from graphc.codegen.own_sums import Layout, OwnSums, PartialSums, shifted_up
from graphc.codegen.parallel import parallel, portion, threads, used_inside
from graphc.codegen.state import FIRST, Known
from graphc.codegen.visits import Visits
from graphc.gates.reduction import LEAF, lanes_of
from graphc.ir.types import DType, Size
from graphc.lower.loops import Acc, For
from graphc.lower.pairs import (
    BLOCKS,
    COLUMNS,
    IN_TWO,
    MOST,
    REAL,
    UNUSED,
    Pairing,
    block_vectors,
    components,
    least_points,
    own_name,
    pairing,
    pairs_name,
    row_stride,
)
from graphc.lower.parallel import cost

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter


def bits_of_block(fn: Function, n: Size, points: str, dtype: DType) -> str:
    """k, where blocks have 2^k of so many points; 0 where they are too few or too many for pairs of blocks."""
    least = least_points(dtype)
    if isinstance(n, int):
        bits = str((n - 1).bit_length() - (BLOCKS - 1).bit_length())
    else:
        count = fn.module.intrinsic("llvm.ctlz.i64", "i64", ("i64", "i1"))
        zeros = fn.do(f"call i64 @{count}(i64 {fn.do(f'sub i64 {points}, 1')}, i1 false)")
        bits = fn.do(f"sub i64 {64 - (BLOCKS - 1).bit_length()}, {zeros}")
    few = fn.do(f"icmp ule i64 {fn.do(f'call i64 @{threads(fn.module)}(ptr %args)')}, 2")
    over = fn.do(f"sub i64 {points}, {2 * least}")
    for_two = fn.do(f"icmp ule i64 {over}, {IN_TWO - 2 * least}")
    # The second block should not be much smaller than the first.
    even = fn.do(f"icmp uge i64 {fn.do(f'mul i64 {points}, 2')}, {fn.do(f'shl i64 5, {bits}')}")
    for_two = fn.do(f"and i1 {for_two}, {fn.do(f'and i1 {few}, {even}')}")
    bits = fn.do(f"add i64 {bits}, {fn.do(f'zext i1 {for_two} to i64')}")
    if isinstance(n, int):
        return bits
    above = fn.do(f"sub i64 {points}, {least}")
    inside = fn.do(f"icmp ule i64 {above}, {MOST - least}")
    return fn.do(f"select i1 {inside}, i64 {bits}, i64 0")


def bits_of(power: int) -> int:
    return power.bit_length() - 1


def partial_sums_of(writer: KernelWriter, found: Pairing) -> PartialSums:
    dtype, n = found.inner.accs[0].dtype, found.inner.size
    base, stride = writer.pointer(pairs_name(writer.kernel)), writer.size(row_stride(n, dtype))
    return PartialSums(writer.fn, dtype, base, stride, components(found.inner))


class PairsOfBlocks(Visits):
    """One such loop, before the loop around it: what its blocks give each other."""

    def __init__(self, writer: KernelWriter, loop: For) -> None:
        found = pairing(loop)
        assert found is not None
        super().__init__(writer, loop, found)

    # -- in the kernel ------------------------------------------------------------------------------------------------

    def write(self) -> None:
        fn, writer = self.fn, self.writer
        n = writer.size(self.inner.size)
        bits = bits_of_block(fn, self.inner.size, n, self.dtype)
        names = dict.fromkeys(used_inside((*self.found.rows, self.inner)))
        handed = [
            name for name in names if name in writer.known and writer.known[name].register.startswith("%")
        ]  # fmt: skip
        part = self._function(handed)
        with fn.when(fn.do(f"icmp ne i64 {bits}, 0")):
            context = fn.alloca("i64", 1 + len(handed))
            fn.say(f"store ptr %args, ptr {context}")
            for i, name in enumerate(handed):
                at = fn.do(f"getelementptr i64, ptr {context}, i64 {1 + i}")
                known = writer.known[name]
                fn.say(f"store {register(known.dtype, 1)} {known.register}, ptr {at}")
            blocks = shifted_up(fn, n, bits)
            more = fn.do(f"add i64 {blocks}, 1")
            parts = fn.do(f"lshr i64 {fn.do(f'mul i64 {blocks}, {more}')}, 1")
            self._run(part, context, parts, n)

    def _run(self, part: str, context: str, parts: str, n: str) -> None:
        """By all threads, or by this one alone where it is not worth more."""
        fn = self.fn
        work = fn.do(f"mul i64 {n}, {self.writer.size(cost(self.loop))}")
        nanoseconds = fn.do(f"udiv i64 {work}, 2000")  # a pair is visited once
        asked = f"i64 {parts}, i64 {nanoseconds}"
        taken = fn.do(f"call i64 @{portion(fn.module)}(ptr %args, {asked})")
        alone = fn.do(f"icmp uge i64 {taken}, {parts}")
        mine, shared = (
            fn.do(f"select i1 {alone}, i64 {a}, i64 {b}") for a, b in ((parts, "0"), ("0", parts))
        )

        def one(index: str, _: object) -> list[str]:
            fn.do(f"call i32 @{part}(ptr {context}, i64 {index}, i64 0)")
            return []

        fn.loop("0", mine, 1, [], one)
        called = f"ptr %args, ptr @{part}, ptr {context}, i64 {shared}"
        fn.do(f"call i32 @{parallel(fn.module)}({called})")

    def _function(self, handed: Sequence[str]) -> str:
        """That of one pair of blocks."""
        outer = self.writer
        name = f"{outer.fn.name}.part{outer.parts}"
        outer.parts += 1
        part = self.writer = outer.for_part(name)
        fn = self.fn = part.fn
        with fn.in_entry():
            part.symbols[FIRST] = "0"  # so that memory is this thread's
            for constant, value in outer.known.items():
                if not value.register.startswith("%"):
                    part.known[constant] = value
            for i, given in enumerate(handed):
                dtype = outer.known[given].dtype
                at = fn.do(f"getelementptr i64, ptr %context, i64 {1 + i}")
                loaded = fn.do(f"load {register(dtype, 1)}, ptr {at}")
                part.known[given] = Known(loaded, dtype, 1)
        self.outside = part.known
        self._pair_of_blocks()
        part.end()
        self.writer, self.fn = outer, outer.fn
        return name

    # -- a pair of blocks ---------------------------------------------------------------------------------------------

    def _pair_of_blocks(self) -> None:
        fn, writer = self.fn, self.writer
        n = self.n = writer.size(self.inner.size)
        bits = bits_of_block(fn, self.inner.size, n, self.dtype)
        shift = bits_of(self.lanes)
        vectors = shifted_up(fn, n, str(shift))
        per_block = fn.do(f"lshr i64 {fn.do(f'shl i64 1, {bits}')}, {shift}")
        a, b = self._blocks(shifted_up(fn, n, bits))
        first_a, first_b = (fn.do(f"mul i64 {block}, {per_block}") for block in (a, b))
        count_a, count_b = (
            self.least(per_block, fn.do(f"sub i64 {vectors}, {first}"))
            for first in (first_a, first_b)
        )
        same = fn.do(f"icmp eq i64 {a}, {b}")
        own = self._open_own_sums()

        def begin(k: str, _: object) -> list[str]:
            own.begin(fn.do(f"add i64 {k}, {COLUMNS}"))
            return []

        fn.loop("0", count_b, 1, [], begin)

        def leaf_of_rows(q: str, _: object) -> list[str]:
            start = fn.do(f"mul i64 {q}, {LEAF}")
            stop = self.least(fn.do(f"add i64 {start}, {LEAF}"), count_a)
            self._leaf_of_rows((start, stop), (first_a, first_b), count_b, (same, b))
            return []

        fn.loop("0", shifted_up(fn, count_a, str(bits_of(LEAF))), 1, [], leaf_of_rows)

        def column(j: str, _: object) -> list[str]:
            mine = fn.do(f"add i64 {j}, {COLUMNS}")
            own.finish(mine, count_a)
            own.turn(mine, "0")
            first = fn.do(f"mul i64 {fn.do(f'add i64 {first_b}, {j}')}, {self.lanes}")
            own.leave(mine, a, first)
            return []

        fn.loop("0", fn.do(f"select i1 {same}, i64 0, i64 {count_b}"), 1, [], column)

    def _blocks(self, count: str) -> tuple[str, str]:
        """The part's pair: first those of two blocks, row by row, then each block with itself."""
        fn = self.fn

        def row(r: str, state: list[str]) -> list[str]:
            left, a, b = state
            others = fn.do(f"sub i64 {fn.do(f'sub i64 {count}, 1')}, {r}")
            here = fn.do(f"icmp ult i64 {left}, {others}")  # below 0 it was in a row before
            column = fn.do(f"add i64 {fn.do(f'add i64 {r}, 1')}, {left}")
            a = fn.do(f"select i1 {here}, i64 {r}, i64 {a}")
            b = fn.do(f"select i1 {here}, i64 {column}, i64 {b}")
            return [fn.do(f"sub i64 {left}, {others}"), a, b]

        start = [("i64", "%index"), ("i64", "0"), ("i64", "0")]
        left, a, b = fn.loop("0", count, 1, start, row)
        alone = fn.do(f"icmp sge i64 {left}, 0")
        a = fn.do(f"select i1 {alone}, i64 {left}, i64 {a}")
        return a, fn.do(f"select i1 {alone}, i64 {left}, i64 {b}")

    def _open_own_sums(self) -> OwnSums:
        writer, n = self.writer, self.inner.size
        layout = Layout(self.fn.name, self.dtype, self.lanes, self.inner.accs)
        base = writer.pointer(own_name(writer.kernel))
        vectors = writer.size(block_vectors(n, self.dtype) + COLUMNS)
        partial = partial_sums_of(writer, self.found)
        self.own = OwnSums(self.fn, layout, base, vectors, partial)
        return self.own

    # -- squares ------------------------------------------------------------------------------------------------------

    def _leaf_of_rows(
        self, between: tuple[str, str], firsts: tuple[str, str], end: str, block: tuple[str, str]
    ) -> None:
        """Vectors of rows with vectors of columns: squares up to a leaf of the rows' sums, then whole leaves, then
        squares for what is left, which may be a vector that is not full. All rows have a leaf before the next, so that
        the sums of its columns are near; where the rows are no whole leaf, they have none but squares.
        """
        fn, own = self.fn, self.own
        start, stop = between
        first_a, first_b = firsts
        same, b = block
        # The own leaf of rows begins with sums that they have had as columns.
        head = fn.do(f"select i1 {same}, i64 {self.least(stop, end)}, i64 0")
        full = fn.do(f"lshr i64 {self.n}, {bits_of(self.lanes)}")
        room = self.least(fn.do(f"sub i64 {full}, {first_b}"), end)
        leaves = fn.do(f"ashr i64 {fn.do(f'sub i64 {room}, {head}')}, {bits_of(LEAF)}")
        whole = fn.do(
            f"icmp sle i64 {fn.do(f'add i64 {first_a}, {start}')}, {fn.do(f'sub i64 {full}, {LEAF}')}"
        )
        some = fn.do(f"and i1 {whole}, {fn.do(f'icmp sgt i64 {leaves}, 0')}")
        leaves = fn.do(f"select i1 {some}, i64 {leaves}, i64 0")
        late = fn.do(f"add i64 {head}, {fn.do(f'mul i64 {leaves}, {LEAF}')}")
        last = fn.do(f"add i64 {leaves}, 1")
        sums = fn.do(f"select i1 {same}, i64 {fn.do(f'add i64 {start}, {COLUMNS}')}, i64 {REAL}")

        def unit(u: str, _: object) -> list[str]:
            is_first, is_last = (fn.do(f"icmp eq i64 {u}, {k}") for k in ("0", last))
            is_leaf = fn.do(f"xor i1 {fn.do(f'or i1 {is_first}, {is_last}')}, true")
            with fn.when(is_leaf):
                before = fn.do(f"mul i64 {fn.do(f'sub i64 {u}, 1')}, {LEAF}")
                j = fn.do(f"add i64 {head}, {before}")
                rows, columns = (
                    fn.do(f"add i64 {f}, {k}") for f, k in ((first_a, start), (first_b, j))
                )
                of_rows, of_columns = (fn.do(f"lshr i64 {k}, {bits_of(LEAF)}") for k in (j, start))
                others = fn.do(f"add i64 {j}, {COLUMNS}")
                self.leaf(rows, columns, (sums, others), (of_rows, of_columns))
            to = fn.do(f"select i1 {is_leaf}, i64 {start}, i64 {stop}")
            fn.loop(start, to, 1, [], lambda i, _: row(i, is_first, is_last))
            return []

        def row(i: str, is_first: str, is_last: str) -> list[str]:
            mine = fn.do(f"add i64 {sums}, {fn.do(f'sub i64 {i}, {start}')}")
            rows = fn.do(f"add i64 {first_a}, {i}")
            with fn.when(is_first):
                with fn.when(same):  # its sums over the columns so far were those of a column
                    own.turn(mine, i)
                with fn.when(fn.do(f"xor i1 {same}, true")):
                    own.begin(mine)
            first = fn.do(f"select i1 {same}, i64 {i}, i64 0")
            first = fn.do(f"select i1 {is_first}, i64 {first}, i64 {late}")
            behind = fn.do(f"select i1 {is_first}, i64 {head}, i64 {end}")

            def square(j: str, _: object) -> list[str]:
                self._square(rows, fn.do(f"add i64 {first_b}, {j}"), mine, i, j)
                return []

            fn.loop(first, behind, 1, [], square)
            with fn.when(is_last):
                own.finish(mine, end)
                own.leave(mine, b, fn.do(f"mul i64 {rows}, {self.lanes}"))
            return []

        fn.loop("0", fn.do(f"add i64 {last}, 1"), 1, [], unit)

    def _square(self, rows: str, columns: str, mine: str, i: str, j: str) -> None:
        fn, own = self.fn, self.own
        diagonal = fn.do(f"icmp eq i64 {rows}, {columns}")
        other = fn.do(f"add i64 {j}, {COLUMNS}")
        left = fn.do(f"sub i64 {self.n}, {fn.do(f'mul i64 {columns}, {self.lanes}')}")
        short = fn.do(f"icmp slt i64 {left}, {self.lanes}")
        with fn.when(fn.do(f"xor i1 {diagonal}, true")):
            taken = fn.do(f"select i1 {short}, i64 {UNUSED}, i64 {mine}")
            self.square(rows, columns, (taken, other))
            own.end_of_square(i, other)
            own.end_of_square(j, taken)
        with fn.when(fn.do(f"or i1 {diagonal}, {short}")):
            self.square(rows, columns, (mine, ""), self.least(left, str(self.lanes)))
            own.end_of_square(j, mine)


class RowsOfPairs(LanesLoop):
    """The loop around it: every point's sums, from those over blocks where there are any."""

    def _inner(self, loop: For) -> None:
        if loop.mode != "pairs":
            super()._inner(loop)
            return
        fn, known = self.fn, self.writer.known
        n = self.writer.size(loop.size)
        places = {acc.name: fn.alloca(register(acc.dtype, self.width), 1) for acc in loop.accs}

        def keep() -> None:
            for acc in loop.accs:
                ty = register(acc.dtype, self.width)
                fn.say(f"store {ty} {known[acc.name].register}, ptr {places[acc.name]}")

        bits = bits_of_block(fn, loop.size, n, loop.accs[0].dtype)
        blocks, points, after = fn.label("blocks"), fn.label("points"), fn.label("sums")
        fn.branch(fn.do(f"icmp ne i64 {bits}, 0"), blocks, points)
        fn.open_block(blocks)
        found = pairing(self.loop)
        assert found is not None
        partial = partial_sums_of(self.writer, found)
        for acc in loop.accs:
            known[acc.name] = Known(self._from_blocks(partial, acc, n, bits), acc.dtype, self.width)
        keep()
        fn.jump(after)
        fn.open_block(points)
        super()._inner(loop)
        keep()
        fn.jump(after)
        fn.open_block(after)
        for acc in loop.accs:
            value = fn.do(f"load {register(acc.dtype, self.width)}, ptr {places[acc.name]}")
            known[acc.name] = Known(value, acc.dtype, self.width)

    def _from_blocks(self, partial: PartialSums, acc: Acc, n: str, bits: str) -> str:
        """A sum in all lanes: whole blocks enter a counter, what is left begins what it is folded into."""
        fn = self.fn
        slots = lanes_of(acc.dtype)
        ty = register(acc.dtype, self.width)
        levels = fn.alloca(ty, slots * BLOCKS.bit_length())
        s = LaneSum(acc, slots, self.width, 1, fn.alloca(ty, slots), levels)
        whole = fn.do(f"lshr i64 {n}, {bits}")
        rest = fn.do(f"icmp ne i64 {fn.do(f'shl i64 {whole}, {bits}')}, {n}")
        first = self.writer.symbols[self.loop.var]
        nothing = accs.identity(acc.monoid, acc.dtype, self.width)

        def sums_over(block: str, k: str) -> str:
            at = partial.address(acc.name, block, k, first)
            return fn.do(f"load {ty}, ptr {at}, align {acc.dtype.itemsize}")

        def total(k: str) -> None:
            counter = self._counter(s, k)

            def enter(block: str, _: object) -> list[str]:
                accs.push_all(fn, [(counter, sums_over(block, k))], block)
                return []

            fn.loop("0", whole, 1, [], enter)
            last = fn.do(f"select i1 {rest}, i64 {whole}, i64 0")
            left = fn.do(f"select i1 {rest}, {ty} {sums_over(last, k)}, {ty} {nothing}")
            value = accs.collapse(
                fn, counter.levels, whole, acc.monoid, acc.dtype, self.width, counter.stride, left
            )
            fn.say(f"store {ty} {value}, ptr {self._slot(s, k)}")

        self._for_slots(slots, total)
        return self._halved(s)


__all__ = ["PairsOfBlocks", "RowsOfPairs"]
