"""Matrix products: a register-blocked kernel over packed operands, the same bits for every shape, stride and size.

The result is made in regions of some tiles of rows by some panels of two vectors of columns (`codegen.region`). For each
block of 256 along k, tiles (`codegen.tile`) run over the region, and blocks meet in a binary counter: the order `chain`.
Every element belongs to one region, or to two that give it the same bits, so threads may share the regions. What a region
reads is packed by the thread that makes it, into memory of its own: from another core's cache it would come too slowly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphc.codegen.depths import Depths, SharedDepth
from graphc.codegen.llvm import Function, Module
from graphc.codegen.panels import Panels
from graphc.codegen.parallel import parallel, portion, threads
from graphc.codegen.product import FIELDS, KNOWN, PART, POINTERS, ContextWriter, Kind, nobody, put
from graphc.codegen.region import Region
from graphc.gates.contraction import BLOCK
from graphc.ir.types import Size
from graphc.ir.types import product as size_product
from graphc.lower.loops import Contract
from graphc.lower.matrix import (
    COLUMN_BYTES,
    COLUMN_BYTES_OF_ONE_BLOCK,
    ROWS,
    ROWS_OF_ONE_BLOCK,
    Matrices,
    matrices,
)
from graphc.lower.parallel import BYTES_PER_NS, FEW, PARTS_PER_THREAD
from graphc.lower.plan import work_name

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

LETTER = ("size", "c", "a", "b")  # of an outer letter: its extent, and its stride in each operand


def emit_contract(
    writer: KernelWriter,
    s: Contract,
    args: str = "%args",
    alone: bool = False,
    carry: str = "",
) -> None:
    """A product of two matrices, or one for each point of the outer letters. What is part of a
    sweep is `alone`: its k is not shared out. If `carry` is not 0, the sums go on from the result.
    """
    p, fn, program = replace(matrices(s), alone=alone), writer.fn, writer.program
    kind = replace(Kind.of(writer.module, p), carried=bool(carry))
    extents = (p.rows, p.columns, p.depth, *p.result_strides, *p.left_strides, *p.right_strides)
    values: list[tuple[str, str]] = [
        *(("ptr", writer.address(o.buffer, o.index)) for o in (p.result, p.left, p.right)),
        ("ptr", writer.pointer(work_name(s)) if program.has(work_name(s)) else "null"),
        ("ptr", args),
        *(("i64", writer.size(x)) for x in (*extents, program.private, program.arena or 0)),
        ("i64", carry or "0"),
    ]
    fields: tuple[str, ...] = FIELDS
    if p.outer:
        fields = _outer_fields(len(p.outer))
        letters = [writer.size(x) for letter in p.outer for x in _letter(p, *letter)]
        values += [("i64", x) for x in letters]
    context = fn.alloca("i64", len(fields))
    given = (*KNOWN, *fields[len(FIELDS) + 1 :])
    for field, (ty, value) in zip(given, values, strict=True):
        put(fn, context, fields.index(field), ty, value)
    if not p.outer:
        fn.say(f"call void @{product(writer.module, kind)}(ptr {context})")
        return
    count = writer.size(size_product(size for _, size in p.outer))
    cost = writer.size(size_product((p.rows, p.columns, p.depth, *(size for _, size in p.outer))))
    share = fn.do(
        f"call i64 @{portion(fn.module)}(ptr {args}, i64 {count}, i64 {_nanoseconds(fn, kind, cost)})"
    )
    _share_out(fn, _outer(writer.module, kind, len(p.outer)), context, count, share, args)


def _nanoseconds(fn: Function, kind: Kind, products: str) -> str:
    return fn.do(f"sdiv i64 {products}, {BYTES_PER_NS // kind.dtype.itemsize}")


# -- products around products -----------------------------------------------------------------------------------------


def _letter(p: Matrices, letter: str, size: Size) -> tuple[Size, ...]:
    return (size, *(dict(o.strides).get(letter, 0) for o in (p.result, p.left, p.right)))


def _outer_fields(letters: int) -> tuple[str, ...]:
    """A context that has, besides, how many products a part makes, and the letters, the last one the fastest."""
    return (*FIELDS, "products", *(f"{what} {i}" for i in range(letters) for what in LETTER))


def _share_out(fn: Function, part: str, context: str, count: str, share: str, args: str) -> None:
    """Several threads, which then make whole products alone; or one part, which may share each product."""
    one = fn.do(f"icmp sge i64 {share}, {count}")
    mine = fn.do(f"select i1 {one}, ptr {args}, ptr {nobody(fn)}")
    put(fn, context, FIELDS.index("args"), "ptr", mine)
    put(fn, context, len(FIELDS), "i64", share)
    together = fn.do(f"add i64 {count}, {fn.do(f'sub i64 {share}, 1')}")
    parts = fn.do(f"sdiv i64 {together}, {share}")
    fn.do(f"call i32 @{parallel(fn.module)}(ptr {args}, ptr @{part}, ptr {context}, i64 {parts})")


def _outer(module: Module, kind: Kind, letters: int) -> str:
    """@gc.product.outer(context, index, worker): the products of one part, one after the other."""
    name = f"{kind.name}.outer{letters}"
    one = product(module, kind)
    return module.once(name, lambda: _Outer(module, kind, letters).write(one))


class _Outer(ContextWriter):
    def __init__(self, module: Module, kind: Kind, letters: int) -> None:
        super().__init__(module, kind, f".outer{letters}", "i32", PART)
        self.letters, self.fields = letters, _outer_fields(letters)

    def write(self, one: str) -> None:
        fn = self.fn
        own = fn.alloca("i64", len(FIELDS))
        private = self.get("private")[0]
        mine = fn.do(f"mul i64 %worker, {private}")
        for field in KNOWN:
            (value,) = self.get(field)
            if field == "work":
                value = fn.do(f"getelementptr i8, ptr {value}, i64 {mine}")
            put(fn, own, FIELDS.index(field), "ptr" if field in POINTERS else "i64", value)
        starts = self.get("c", "a", "b")
        letters = [self._letter(i) for i in range(self.letters)]
        count, share = fn.do("add i64 0, 1"), self._at("products")
        for size, *_ in letters:
            count = fn.do(f"mul i64 {count}, {size}")
        begin, end = self.share(share, count)

        def single(t: str, _: object) -> list[str]:
            rest, places = t, list(starts)
            for size, *strides in reversed(letters):
                i, rest = fn.do(f"srem i64 {rest}, {size}"), fn.do(f"sdiv i64 {rest}, {size}")
                places = [
                    self.at(place, (i, stride))
                    for place, stride in zip(places, strides, strict=True)
                ]
            for place, pointer in enumerate(places):
                put(fn, own, place, "ptr", pointer)
            fn.say(f"call void @{one}(ptr {own})")
            return []

        fn.loop(begin, end, 1, [], single)
        fn.say("ret i32 0")
        fn.close()

    def _letter(self, i: int) -> list[str]:
        return [self._at(f"{what} {i}") for what in LETTER]

    def _at(self, field: str) -> str:
        at = self.fn.do(f"getelementptr i64, ptr %context, i64 {self.fields.index(field)}")
        return self.fn.do(f"load i64, ptr {at}")


# -- one product ------------------------------------------------------------------------------------------------------


def product(module: Module, kind: Kind) -> str:
    """@gc.product(context)."""

    def make() -> None:
        if kind.packs_right != "never":
            Panels(module, kind).write()
        Region(module, kind).write()
        _Driver(module, kind).write()

    def make_shared() -> None:
        alone = product(module, replace(kind, splits_depth=False))
        Depths(module, kind).write(alone)
        SharedDepth(module, kind).write(alone, BYTES_PER_NS)

    return module.once(kind.name, make_shared if kind.splits_depth else make)


class _Driver(ContextWriter):
    """How the work is cut, and the calls of its parts."""

    def __init__(self, module: Module, kind: Kind) -> None:
        super().__init__(module, kind, "", "void", (("ptr", "context"),))

    def write(self) -> None:
        fn = self.fn
        self.m, self.n, self.k, self.args = self.get("M", "N", "K", "args")
        products = fn.do(f"mul i64 {fn.do(f'mul i64 {self.m}, {self.n}')}, {self.k}")
        with fn.when(fn.do(f"icmp eq i64 {products}, 0")):
            self._nothing()
            fn.say("ret void")
            fn.open_block(fn.label("never"))
        self.panels = self.ceiling(self.n, str(self.across))
        with fn.when(fn.do(f"icmp sle i64 {products}, {FEW}")):
            self._one_thread()
            fn.say("ret void")
            fn.open_block(fn.label("never"))
        self._regions(products)
        fn.say("ret void")
        fn.close()

    def _nothing(self) -> None:
        """The sum of nothing is +0."""
        fn = self.fn
        c, cm, cn = self.get("c", "cm", "cn")
        zero = "0x0000000000000000" if self.dtype.is_float else "0"

        def row(i: str, _: object) -> list[str]:
            def element(j: str, _: object) -> list[str]:
                fn.say(f"store {self.one} {zero}, ptr {self.at(c, (i, cm), (j, cn))}")
                return []

            fn.loop("0", self.n, 1, [], element)
            return []

        fn.loop("0", self.m, 1, [], row)

    def _one_thread(self) -> None:
        """Regions as large as can be, without a division: what is small has no time for one."""
        fn, rows, columns = self.fn, self.shape.rows, COLUMN_BYTES // self.dtype.itemsize
        tiles = self.ceiling(self.m, str(rows))
        high = self.smaller(tiles, str(ROWS // rows))
        across = self.smaller(self.panels, str(columns // self.across))
        below = self.ceiling(self.m, str(ROWS))
        regions = fn.do(f"mul i64 {below}, {self.ceiling(self.n, str(columns))}")
        self._cut(high, below, across, below, regions, regions)
        fn.do(f"call i32 @{self.kind.name}.region(ptr %context, i64 0, i64 0)")

    def _regions(self, products: str) -> None:
        """Regions of about equal size, about as high as they are wide, and as many for each thread. Each packs its part of
        both operands, so they are few; where one block of k is all, nothing waits, and they may be larger.
        """
        fn, args, rows = self.fn, self.args, self.shape.rows
        tiles = self.ceiling(self.m, str(rows))
        one_block = fn.do(f"icmp sle i64 {self.k}, {BLOCK}")
        highest = self.either(one_block, "i64", str(ROWS_OF_ONE_BLOCK // rows), str(ROWS // rows))
        units = fn.do(f"mul i64 {tiles}, {self.panels}")
        time = _nanoseconds(fn, self.kind, products)
        least = fn.do(f"call i64 @{portion(fn.module)}(ptr {args}, i64 {units}, i64 {time})")
        alone = fn.do(f"icmp sge i64 {least}, {units}")
        count = fn.do(f"call i64 @{threads(fn.module)}(ptr {args})")
        count = self.either(alone, "i64", "1", count)
        parts = fn.do(f"sdiv i64 {units}, {fn.do(f'mul i64 {least}, {PARTS_PER_THREAD}')}")
        wanted = fn.do(f"sdiv i64 {units}, {self.larger(parts, count)}")
        wanted = self.larger(wanted, "1")

        # Of as many rows as columns: a panel is about as wide as a tile is high, or twice as wide.
        square = fn.do(f"udiv i64 {wanted}, {8 // self.dtype.itemsize}")
        zeros = fn.module.intrinsic("llvm.ctlz.i64", "i64", ("i64", "i1"))
        left = fn.do(f"call i64 @{zeros}(i64 {self.larger(square, '1')}, i1 true)")
        half = fn.do(f"lshr i64 {fn.do(f'sub i64 63, {left}')}, 1")
        least = self.ceiling(wanted, self.smaller(tiles, highest))
        widest, far = (
            str(x // self.dtype.itemsize // self.across)
            for x in (COLUMN_BYTES, COLUMN_BYTES_OF_ONE_BLOCK)
        )
        widest = self.either(one_block, "i64", far, widest)
        across = self.larger(fn.do(f"shl i64 1, {half}"), least)
        across = self._even(self.panels, self.smaller(across, widest))
        beside = self.ceiling(self.panels, across)

        high = self.smaller(self.ceiling(wanted, across), highest)
        below = self.ceiling(tiles, high)
        # As many for each thread, where rows are enough; of an even number, half may lie beside the others.
        odd = fn.do(f"and i64 {fn.do(f'or i64 {count}, {beside}')}, 1")
        halved = fn.do(f"lshr i64 {count}, {fn.do(f'sub i64 1, {odd}')}")
        for_all = fn.do(f"mul i64 {self.ceiling(below, halved)}, {halved}")
        below = self.smaller(for_all, tiles)
        high = self.ceiling(tiles, below)
        missing = fn.do(f"sub i64 {fn.do(f'mul i64 {below}, {high}')}, {tiles}")
        tall = fn.do(f"sub i64 {below}, {missing}")
        regions = fn.do(f"mul i64 {below}, {beside}")
        share = self.either(alone, "i64", regions, "1")
        self._cut(high, tall, across, below, regions, share)
        run, part = parallel(fn.module), f"{self.kind.name}.region"
        pieces = self.ceiling(regions, share)
        fn.do(f"call i32 @{run}(ptr {args}, ptr @{part}, ptr %context, i64 {pieces})")

    def _cut(self, high: str, tall: str, across: str, below: str, regions: str, share: str) -> None:
        fn = self.fn
        rows = fn.do(f"mul i64 {high}, {self.shape.rows}")
        level = fn.do(f"mul i64 {fn.do(f'mul i64 {across}, {self.across}')}, {rows}")
        for field, value in (("rows", rows), ("tall", tall), ("across", across), ("below", below),
                             ("regions", regions), ("share", share), ("level", level)):  # fmt: skip
            put(fn, "%context", FIELDS.index(field), "i64", value)

    def _even(self, total: str, most: str) -> str:
        """`total` in as few pieces of at most `most` as can be, all of about one size."""
        return self.ceiling(total, self.ceiling(total, most))
