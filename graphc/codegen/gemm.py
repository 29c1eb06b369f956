"""Matrix products: a register-blocked kernel over packed operands, the same bits for every shape, stride and size.

The result is made in regions of 48 rows by some panels of two vectors of columns (`codegen.product`). For each block of
256 along k, tiles (`codegen.tile`) run over the region, and blocks meet in a binary counter: the order `chain`. Every
element belongs to one region, or to two that give it the same bits, so threads may share the regions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphc.codegen.depths import Depths, SharedDepth
from graphc.codegen.llvm import Function, Module
from graphc.codegen.panels import Panels
from graphc.codegen.parallel import parallel, portion
from graphc.codegen.product import FIELDS, KNOWN, PART, POINTERS, ContextWriter, Kind, nobody, put
from graphc.codegen.region import Region
from graphc.ir.types import Size
from graphc.ir.types import product as size_product
from graphc.lower.loops import Contract
from graphc.lower.matrix import COLUMN_BYTES, IN_PLACE, ROWS, TILE_GAP, Matrices, matrices
from graphc.lower.plan import panel_name, work_name

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

BYTES_PER_NS = 128  # of products made, on one thread: the estimate that tells whether several pay
FEW = 1 << 15  # products of numbers that are never shared
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
        *(
            ("ptr", writer.pointer(name) if program.has(name) else "null")
            for name in (panel_name(s), work_name(s))
        ),
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
            if field in ("panels", "work"):
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
            self._right(alone=True)
            self._one_thread()
            fn.say("ret void")
            fn.open_block(fn.label("never"))
        self._right()
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

    def _right(self, alone: bool = False) -> None:
        """Where panels of the right operand begin, and how far their rows and they lie apart."""
        fn, kind = self.fn, self.kind
        b, packed, bk = self.get("b", "panels", "bk")
        lies = (b, bk, str(self.across))
        jump = fn.do(f"add i64 {fn.do(f'mul i64 {self.k}, {self.across}')}, {TILE_GAP}")
        copied = (packed, str(self.across), jump)
        chosen: tuple[str, ...] = lies
        if kind.packs_right != "never":
            pack, after = fn.label("pack"), fn.label("laid")
            large = "true"
            if kind.packs_right == "large":
                large = fn.do(f"icmp sgt i64 {self.m}, {IN_PLACE}")
            before = fn.block
            fn.branch(large, pack, after)
            fn.open_block(pack)
            if alone:
                self._part("copies", "panels", self.panels)
            else:
                elements = fn.do(f"mul i64 {self.k}, {self.n}")
                self._parts("copies", "panels", self.panels, self._portion(self.panels, elements))
            packing = fn.block
            fn.jump(after)
            fn.open_block(after)
            chosen = tuple(
                fn.do(f"phi {ty} [ {x}, %{before} ], [ {y}, %{packing} ]")
                for ty, x, y in zip(("ptr", "i64", "i64"), lies, copied, strict=True)
            )
        for field, ty, value in zip(
            ("first", "step", "jump"), ("ptr", "i64", "i64"), chosen, strict=True
        ):
            put(fn, "%context", FIELDS.index(field), ty, value)

    def _one_thread(self) -> None:
        """Regions as large as can be, without a division: what is small has no time for one."""
        rows, columns = str(ROWS), COLUMN_BYTES // self.dtype.itemsize
        across = self.smaller(self.panels, str(columns // self.across))
        below = self.ceiling(self.m, rows)
        regions = self.fn.do(f"mul i64 {below}, {self.ceiling(self.n, str(columns))}")
        self._cut(rows, across, below, regions)
        self._part("share", "region", regions)

    def _regions(self, products: str) -> None:
        """Regions of equal height, as large as caches like them, or smaller where there are several threads."""
        fn, rows = self.fn, self.shape.rows
        tiles = self.ceiling(self.m, str(rows))
        all_tiles = fn.do(f"mul i64 {tiles}, {self.panels}")
        wanted = self._portion(all_tiles, _nanoseconds(fn, self.kind, products))
        alone = fn.do(f"icmp sge i64 {wanted}, {all_tiles}")
        high = self._even(tiles, self.smaller(wanted, str(ROWS // rows)))
        widest = str(COLUMN_BYTES // self.dtype.itemsize // self.across)
        across = self.smaller(fn.do(f"sdiv i64 {wanted}, {high}"), widest)
        across = self.either(fn.do(f"icmp sgt i64 {across}, 1"), "i64", across, "1")
        across = self._even(self.panels, across)
        below = self.ceiling(tiles, high)
        regions = fn.do(f"mul i64 {below}, {self.ceiling(self.panels, across)}")
        self._cut(fn.do(f"mul i64 {high}, {rows}"), across, below, regions)
        self._parts("share", "region", regions, self.either(alone, "i64", regions, "1"))

    def _cut(self, rows: str, across: str, below: str, regions: str) -> None:
        level = self.fn.do(f"mul i64 {across}, {ROWS * self.across}")
        for field, value in (("rows", rows), ("across", across), ("below", below), ("regions", regions),
                             ("level", level)):  # fmt: skip
            put(self.fn, "%context", FIELDS.index(field), "i64", value)

    def _even(self, total: str, most: str) -> str:
        """`total` in as few pieces of at most `most` as can be, all of about one size."""
        return self.ceiling(total, self.ceiling(total, most))

    def _portion(self, units: str, nanoseconds: str) -> str:
        name = portion(self.fn.module)
        return self.fn.do(f"call i64 @{name}(ptr {self.args}, i64 {units}, i64 {nanoseconds})")

    def _parts(self, field: str, name: str, count: str, share: str) -> None:
        fn = self.fn
        put(fn, "%context", FIELDS.index(field), "i64", share)
        run, part = parallel(fn.module), f"{self.kind.name}.{name}"
        parts = self.ceiling(count, share)
        fn.do(f"call i32 @{run}(ptr {self.args}, ptr @{part}, ptr %context, i64 {parts})")

    def _part(self, field: str, name: str, count: str) -> None:
        """All of it, at once and alone."""
        put(self.fn, "%context", FIELDS.index(field), "i64", count)
        self.fn.do(f"call i32 @{self.kind.name}.{name}(ptr %context, i64 0, i64 0)")
