"""Products of a few rows and columns whose k is long: threads share k, not the result.

A part takes 2^j blocks of k and gives a result of its own: a node of the tree of the order `chain`. The parts' results
go through the rest of the same binary counter, as those of a loop's parts do (`codegen.parallel`).
"""

from __future__ import annotations

from graphc.codegen.llvm import Module
from graphc.codegen.parallel import FOLD, RUN, THREADS, both, of_pool, place_of_partials, portion
from graphc.codegen.product import FIELDS, KNOWN, PART, POINTERS, ContextWriter, Kind, nobody, put
from graphc.codegen.slots import POOL
from graphc.gates.contraction import BLOCK
from graphc.lower.matrix import SPLIT_BLOCKS, SPLIT_BYTES, VECTOR

PARTS_EACH = 3  # parts that a thread makes at least, if there are so many blocks


class SharedDepth(ContextWriter):
    """@gc.product.depths(context): the product by several threads, each some parts of k, or as any other."""

    def __init__(self, module: Module, kind: Kind) -> None:
        super().__init__(module, kind, "", "void", (("ptr", "context"),))

    def write(self, alone: str, bytes_per_ns: int) -> None:
        fn, dtype = self.fn, self.dtype
        m, n, k, args = self.get("M", "N", "K", "args")
        ask, few, many, other = (fn.label(x) for x in ("ask", "depth", "parts", "other"))
        pool = fn.do(f"load ptr, ptr {fn.do(f'getelementptr i64, ptr {args}, i64 {POOL}')}")
        elements = fn.do(f"mul i64 {m}, {n}")
        bytes_ = fn.do(f"mul i64 {elements}, {dtype.itemsize}")
        blocks = self.ceiling(k, str(BLOCK))
        fits = fn.do(f"icmp sle i64 {bytes_}, {SPLIT_BYTES}")
        deep = fn.do(f"icmp sge i64 {blocks}, {SPLIT_BLOCKS}")
        anyone = fn.do(f"icmp ne ptr {pool}, null")
        fn.branch(fn.do(f"and i1 {anyone}, {fn.do(f'and i1 {fits}, {deep}')}"), ask, other)

        fn.open_block(ask)
        products = fn.do(f"mul i64 {elements}, {k}")
        time = fn.do(f"sdiv i64 {products}, {bytes_per_ns // dtype.itemsize}")
        least = fn.do(f"call i64 @{portion(fn.module)}(ptr {args}, i64 {blocks}, i64 {time})")
        fn.branch(fn.do(f"icmp slt i64 {least}, {blocks}"), few, other)

        fn.open_block(few)
        taken = self.larger(self._blocks_each(blocks, of_pool(fn, pool, THREADS, "i64")), least)
        fn.branch(fn.do(f"icmp slt i64 {taken}, {blocks}"), many, other)

        fn.open_block(many)
        self._shared(pool, args, elements, k, fn.do(f"mul i64 {taken}, {BLOCK}"))
        fn.say("ret void")

        fn.open_block(other)
        fn.say(f"call void @{alone}(ptr %context)")
        fn.say("ret void")
        fn.close()

    def _blocks_each(self, blocks: str, threads: str) -> str:
        """Blocks of a part: a power of two, so that each thread makes some parts, and all about as many."""
        fn = self.fn
        each = fn.do(f"udiv i64 {blocks}, {fn.do(f'mul i64 {threads}, {PARTS_EACH}')}")
        zeros = fn.module.intrinsic("llvm.ctlz.i64", "i64", ("i64", "i1"))
        floor = fn.do(f"call i64 @{zeros}(i64 {self.larger(each, '1')}, i1 false)")
        taken = fn.do(f"shl i64 1, {fn.do(f'sub i64 63, {floor}')}")
        uneven = fn.do(f"urem i64 {self.ceiling(blocks, taken)}, {threads}")
        half = self.larger(fn.do(f"lshr i64 {taken}, 1"), "1")
        return self.either(fn.do(f"icmp eq i64 {uneven}, 0"), "i64", taken, half)

    def _shared(self, pool: str, args: str, elements: str, k: str, extent: str) -> None:
        """Parts, and the sum of what they leave."""
        fn, itemsize = self.fn, self.dtype.itemsize
        c, arena, private = self.get("c", "arena", "private")
        results = place_of_partials(fn, args, pool, arena, private)
        bytes_ = fn.do(f"mul i64 {elements}, {itemsize}")
        stride = fn.do(f"and i64 {fn.do(f'add i64 {bytes_}, {VECTOR - 1}')}, {-VECTOR}")
        for field, ty, value in (("extent", "i64", extent), ("first", "ptr", results), ("step", "i64", stride)):  # fmt: skip
            put(fn, "%context", FIELDS.index(field), ty, value)
        whole = fn.do(f"udiv i64 {k}, {extent}")
        left = fn.do(f"icmp ne i64 {fn.do(f'mul i64 {whole}, {extent}')}, {k}")
        rest = fn.do(f"zext i1 {left} to i64")
        parts = fn.do(f"add i64 {whole}, {rest}")
        run, fold = of_pool(fn, pool, RUN), of_pool(fn, pool, FOLD)
        part = f"{self.kind.name}.part"
        fn.do(f"call i32 {run}(ptr {pool}, ptr @{part}, ptr %context, i64 {parts})")
        step = both(fn.module, "sum", self.dtype)
        numbers = f"i64 {stride}, i64 {elements}, i64 {itemsize}, i64 {whole}, i64 {rest}"
        fn.say(f"call void {fold}(ptr @{step}, ptr {c}, ptr {results}, {numbers})")


class Depths(ContextWriter):
    """@gc.product.depths.part(context, index, worker): the product of a part of k, in memory of its own."""

    def __init__(self, module: Module, kind: Kind) -> None:
        super().__init__(module, kind, ".part", "i32", PART)

    def write(self, one: str) -> None:
        fn = self.fn
        own, args = fn.alloca("i64", len(FIELDS)), nobody(fn)
        known = dict(zip(KNOWN, self.get(*KNOWN), strict=True))
        extent, results, stride = self.get("extent", "first", "step")
        begin, end = self.share(extent, known["K"])
        known["K"] = fn.do(f"sub i64 {end}, {begin}")
        known["a"] = self.at(known["a"], (begin, known["ak"]))
        known["b"] = self.at(known["b"], (begin, known["bk"]))
        known["c"] = fn.do(
            f"getelementptr i8, ptr {results}, i64 {fn.do(f'mul i64 %index, {stride}')}"
        )
        mine = fn.do(f"mul i64 %worker, {known['private']}")
        known["work"] = fn.do(f"getelementptr i8, ptr {known['work']}, i64 {mine}")
        known["args"] = args
        for field, value in known.items():
            put(fn, own, FIELDS.index(field), "ptr" if field in POINTERS else "i64", value)
        fn.say(f"call void @{one}(ptr {own})")
        fn.say("ret i32 0")
        fn.close()
