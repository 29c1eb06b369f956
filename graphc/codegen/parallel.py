"""Work for several threads: how kernels hand it over, and loops cut into parts.

A part is a function `i32 part(ptr context, i64 index, i64 worker)`; its result is 0, or not where an index was out of
bounds. `@gc.parallel` calls it for each index, with the pool that a caller passes in its slot, or alone.

A parallel loop becomes such a function, which runs some of the iterations: 2^k units, each of whole leaves of every
sum. So a part's sums are nodes of the trees that the whole loop's sums are, and the kernel goes on from there with the
same binary counter. With one part, all iterations are in it, and nothing is left to add up. Where an ordered loop
follows, as of scatters, a part goes on with it when it is its turn: when all parts before it have. So a thread scatters
while others compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.llvm import MEMORY, Function, Module, overload, register, vector
from graphc.codegen.slots import ARENA, POOL
from graphc.codegen.state import BEGIN, FIRST, OWNER, Known
from graphc.codegen.vectors import VectorLoop
from graphc.ir.types import Dim, DType, bool_
from graphc.lower.loops import Acc, For, Index, Statement, walk
from graphc.lower.names import defined, used
from graphc.lower.parallel import MOST_PARTS, cost, unit
from graphc.lower.partials import ALIGNMENT, partial_elements, partials_of
from graphc.lower.pieces import resized

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

COUNT = "_count_of_part"  # the symbol of how many iterations a part has

# The words of a pool's structure: see `runtime.workers`.
RUN, THREADS, PORTION, FOLD, IN_ORDER, PAUSE = range(6)

# The context of a loop's parts, in 64-bit words; values that the loop reads follow, then reports of wrong indices.
ARGS, TOTAL, EXTENT, SINGLE, RESULTS, WRONG, OWNER_WORD, BEGIN_WORD, TURN, VALUES = range(10)


def parallel(module: Module) -> str:
    """@gc.parallel(args, part, context, parts): calls of the part for all indices below `parts`; 1 if one failed."""

    def make() -> None:
        params = [("ptr", "args"), ("ptr", "part"), ("ptr", "context"), ("i64", "parts")]
        fn = Function(module, "gc.parallel", "i32", params, effort="brief")
        pool = fn.do(f"load ptr, ptr {fn.do(f'getelementptr i64, ptr %args, i64 {POOL}')}")
        several = fn.do("icmp sgt i64 %parts, 1")
        shared = fn.do(f"and i1 {several}, {fn.do(f'icmp ne ptr {pool}, null')}")
        alone, together = fn.label("alone"), fn.label("together")
        fn.branch(shared, together, alone)
        fn.open_block(together)
        run = fn.do(f"load ptr, ptr {pool}")
        status = fn.do(f"call i32 {run}(ptr {pool}, ptr %part, ptr %context, i64 %parts)")
        fn.say(f"ret i32 {status}")
        fn.open_block(alone)
        failed = fn.label("failed")

        def one(i: str, _: object) -> list[str]:
            status = fn.do(f"call i32 %part(ptr %context, i64 {i}, i64 0)")
            good = fn.label("good")
            fn.branch(fn.do(f"icmp eq i32 {status}, 0"), good, failed)
            fn.open_block(good)
            return []

        fn.loop("0", "%parts", 1, [], one)
        fn.say("ret i32 0")
        fn.open_block(failed)
        fn.say("ret i32 1")
        fn.close()

    return module.once("gc.parallel", make)


def portion(module: Module) -> str:
    """@gc.portion(args, units, cost): how many units a part should take, a power of two, or all of them; at least 1.

    `cost` is the time of all units, in nanoseconds: less than the pool's least is not shared.
    """

    def make() -> None:
        fn = Function(
            module,
            "gc.portion",
            "i64",
            [("ptr", "args"), ("i64", "units"), ("i64", "cost")],
            effort="brief",
        )
        pool = fn.do(f"load ptr, ptr {fn.do(f'getelementptr i64, ptr %args, i64 {POOL}')}")
        alone, asked = fn.label("alone"), fn.label("asked")
        fn.branch(fn.do(f"icmp eq ptr {pool}, null"), alone, asked)
        fn.open_block(asked)
        ask = of_pool(fn, pool, PORTION)
        fn.say(f"ret i64 {fn.do(f'call i64 {ask}(ptr {pool}, i64 %units, i64 %cost)')}")
        fn.open_block(alone)
        largest = fn.module.intrinsic("llvm.smax.i64", "i64", ("i64", "i64"))
        fn.say(f"ret i64 {fn.do(f'call i64 @{largest}(i64 %units, i64 1)')}")
        fn.close()

    return module.once("gc.portion", make)


def threads(module: Module) -> str:
    """@gc.threads(args): how many threads may share what a kernel does."""

    def make() -> None:
        fn = Function(module, "gc.threads", "i64", [("ptr", "args")], effort="brief")
        pool = fn.do(f"load ptr, ptr {fn.do(f'getelementptr i64, ptr %args, i64 {POOL}')}")
        alone, asked = fn.label("alone"), fn.label("asked")
        fn.branch(fn.do(f"icmp eq ptr {pool}, null"), alone, asked)
        fn.open_block(asked)
        fn.say(f"ret i64 {of_pool(fn, pool, THREADS, 'i64')}")
        fn.open_block(alone)
        fn.say("ret i64 1")
        fn.close()

    return module.once("gc.threads", make)


def _turn(module: Module) -> str:
    """@gc.turn(args, turn, wrong, index): wait for the turn of a part, or a wrong index in one."""

    def make() -> None:
        params = [("ptr", "args"), ("ptr", "turn"), ("ptr", "wrong"), ("i64", "index")]
        fn = Function(module, "gc.turn", "void", params, effort="brief")
        head, others, wait, after = (fn.label(x) for x in ("head", "others", "wait", "after"))
        before = fn.block
        fn.jump(head)
        fn.open_block(head)
        looks, again = fn.phi("i64", ("0", before))
        now = fn.do("load atomic i64, ptr %turn acquire, align 8")
        fn.branch(fn.do(f"icmp eq i64 {now}, %index"), after, others)
        fn.open_block(others)
        failed = fn.do("load atomic i64, ptr %wrong monotonic, align 8")
        fn.branch(fn.do(f"icmp ne i64 {failed}, 0"), after, wait)
        fn.open_block(wait)
        pool = fn.do(f"load ptr, ptr {fn.do(f'getelementptr i64, ptr %args, i64 {POOL}')}")
        fn.say(f"call void {of_pool(fn, pool, PAUSE)}(ptr {pool}, i64 {looks})")
        again(fn.do(f"add i64 {looks}, 1"), wait)
        fn.jump(head)
        fn.open_block(after)
        fn.say("ret void")
        fn.close()

    return module.once("gc.turn", make)


def of_pool(fn: Function, pool: str, word: int, ty: str = "ptr") -> str:
    """What a pool's structure holds: see `runtime.workers`."""
    return fn.do(f"load {ty}, ptr {fn.do(f'getelementptr i64, ptr {pool}, i64 {word}')}")


def place_of_partials(fn: Function, args: str, pool: str, arena: str, private: str) -> str:
    """Where parts leave their results: in the arena, behind what each thread has of its own."""
    first = fn.do(f"load ptr, ptr {fn.do(f'getelementptr i64, ptr {args}, i64 {ARENA}')}")
    others = fn.do(f"sub i64 {of_pool(fn, pool, THREADS, 'i64')}, 1")
    behind = fn.do(f"add i64 {fn.do(f'mul i64 {others}, {private}')}, {arena}")
    return fn.do(f"getelementptr i8, ptr {first}, i64 {behind}")


def both(module: Module, monoid: str, dtype: DType) -> str:
    """@gc.both(out, a, b, n): one step of a monoid on the elements of two arrays."""
    name = f"gc.both.{monoid}.{dtype.name}"

    def make() -> None:
        fn = Function(
            module, name, "void", [("ptr", "out"), ("ptr", "a"), ("ptr", "b"), ("i64", "n")]
        )
        width = 1 if dtype is bool_ else accs.lanes_of(dtype)

        def at(base: str, j: str) -> str:
            return fn.do(f"getelementptr {MEMORY[dtype.name]}, ptr {base}, i64 {j}")

        def some(j: str, _: object) -> list[str]:
            mask = ""
            if width > 1:
                left = fn.spread_type(fn.do(f"sub i64 %n, {j}"), "i64", width)
                mask = fn.do(f"icmp slt <{width} x i64> {fn.iota(width)}, {left}")
            a, b = (load_elements(fn, at(base, j), dtype, width, mask) for base in ("%a", "%b"))
            _store(
                fn, at("%out", j), accs.combine(fn, monoid, dtype, a, b, width), dtype, width, mask
            )
            return []

        fn.loop("0", "%n", width, [], some)
        fn.say("ret void")
        fn.close()

    return module.once(name, make)


def load_elements(fn: Function, address: str, dtype: DType, width: int, mask: str = "") -> str:
    """Of bools, one."""
    if dtype is bool_:
        return fn.do(f"icmp ne i8 {fn.do(f'load i8, ptr {address}')}, 0")
    ty, ones = register(dtype, width), vector("i1", width)
    if not mask:
        return fn.do(f"load {ty}, ptr {address}, align {dtype.itemsize}")
    name = f"llvm.masked.load.{overload(dtype, width)}.p0"
    fn.module.intrinsic(name, ty, ("ptr", "i32", ones, ty))
    return fn.do(
        f"call {ty} @{name}(ptr {address}, i32 {dtype.itemsize}, {ones} {mask}, {ty} zeroinitializer)"
    )


def _store(fn: Function, address: str, value: str, dtype: DType, width: int, mask: str) -> None:
    if dtype is bool_:
        fn.say(f"store i8 {fn.do(f'zext i1 {value} to i8')}, ptr {address}")
        return
    ty, ones = register(dtype, width), vector("i1", width)
    name = f"llvm.masked.store.{overload(dtype, width)}.p0"
    fn.module.intrinsic(name, "void", (ty, "ptr", "i32", ones))
    fn.say(f"call void @{name}({ty} {value}, ptr {address}, i32 {dtype.itemsize}, {ones} {mask})")


# -- loops ------------------------------------------------------------------------------------------------------------


class ParallelLoop:
    """A top-level loop whose iterations several threads may share, and perhaps an ordered one behind it."""

    def __init__(self, writer: KernelWriter, loop: For, then: For | None = None) -> None:
        self.writer, self.loop, self.fn, self.then = writer, loop, writer.fn, then
        self.all = (*loop.body, *(then.body if then else ()))
        self.unit = unit(loop)
        self.places, self.stride = partials_of(loop)
        self.handed = self._handed()
        self.name = ""  # of the function for parts
        self.panels = {b.name for b in writer.program.buffers if b.panel}
        self.can_fail = any(isinstance(s, Index) for s, _ in walk(self.all))

    def _handed(self) -> list[str]:
        """The values from before the loop that it reads, constants apart."""
        names = dict.fromkeys(used_inside(self.all))
        known = self.writer.known
        return [n for n in names if n in known and known[n].register.startswith("%")]

    def write(self) -> None:
        """One call of the part where one thread does it all; else calls of it, and what they give added up."""
        fn, writer = self.fn, self.writer
        n = writer.size(self.loop.size)
        part, context = self.part(), self._context()
        ask, many, one, after = (fn.label(x) for x in ("ask", "many", "one", "shared"))
        pool = fn.do(f"load ptr, ptr {fn.do(f'getelementptr i64, ptr %args, i64 {POOL}')}")
        fn.branch(fn.do(f"icmp eq ptr {pool}, null"), one, ask)
        fn.open_block(ask)
        units = fn.do(
            f"lshr i64 {fn.do(f'add i64 {n}, {self.unit - 1}')}, {self.unit.bit_length() - 1}"
        )
        work = fn.do(f"mul i64 {n}, {writer.size(cost(self.loop))}")
        nanoseconds = fn.do(f"udiv i64 {work}, 1000")
        portion = of_pool(fn, pool, PORTION)
        taken = fn.do(f"call i64 {portion}(ptr {pool}, i64 {units}, i64 {nanoseconds})")
        fn.branch(fn.do(f"icmp ult i64 {taken}, {units}"), many, one)

        fn.open_block(one)
        alone = self._place_for_one()
        self._put(context, ("i64", n), ("i64", n), ("i1", "true"), ("ptr", alone))
        status = fn.do(f"call i32 @{part}(ptr {context}, i64 0, i64 0)")
        fn.jump(after)

        fn.open_block(many)
        extent = fn.do(f"mul i64 {taken}, {self.unit}")
        whole = fn.do(f"udiv i64 {n}, {extent}")
        rest = fn.do(f"icmp ne i64 {fn.do(f'mul i64 {whole}, {extent}')}, {n}")
        rest = fn.do(f"zext i1 {rest} to i64")
        parts = fn.do(f"add i64 {whole}, {rest}")
        results = self._place_for_many(pool)
        self._put(context, ("i64", n), ("i64", extent), ("i1", "false"), ("ptr", results))
        run = of_pool(fn, pool, IN_ORDER if self.then else RUN)
        failed = fn.do(f"call i32 {run}(ptr {pool}, ptr @{part}, ptr {context}, i64 {parts})")
        self._fold(pool, results, whole, rest)
        fn.jump(after)

        fn.open_block(after)
        status, also = fn.phi("i32", (status, one))
        also(failed, many)
        found, also = fn.phi("ptr", (alone, one))
        also(results, many)
        if self.can_fail:
            with fn.when(fn.do(f"icmp ne i32 {status}, 0"), returns=True):
                self._report(context)
        for acc in self.loop.accs:
            if not acc.into:
                width = int(str(partial_elements(acc)))
                total = load_elements(fn, self._place(writer, found, acc), acc.dtype, width)
                writer.closed(acc, total, width, n)

    def _place_for_one(self) -> str:
        """Where a single part leaves its sums."""
        mine = [a for a in self.loop.accs if not a.into]
        return self.fn.alloca("i8", sum(map(self._bytes, mine))) if mine else "null"

    def _bytes(self, acc: Acc) -> int:
        """Of the result of an accumulator that is no array, up to the next."""
        size = partial_elements(acc) * acc.dtype.itemsize
        return -(-int(str(size)) // ALIGNMENT) * ALIGNMENT

    def _place_for_many(self, pool: str) -> str:
        """Where parts leave their sums."""
        if not self.loop.accs:
            return "null"
        program, size = self.writer.program, self.writer.size
        return place_of_partials(
            self.fn, "%args", pool, size(program.arena or 0), size(program.private)
        )

    def _context(self) -> str:
        """The structure that parts read, with what does not depend on their number."""
        fn = self.fn
        words = VALUES + len(self.handed) + (2 * MOST_PARTS if self.can_fail else 0)
        context = fn.alloca("i64", words)
        self._put_word(context, ARGS, "ptr", "%args")
        self._put_word(context, WRONG, "i64", "0")
        if self.then:
            self._put_word(context, TURN, "i64", "0")
        if self.panels:  # the rows are few, and all threads share the first one's memory
            self._put_word(context, OWNER_WORD, "i64", "0")
            self._put_word(context, BEGIN_WORD, "i64", "0")
        for i, name in enumerate(self.handed):
            known = self.writer.known[name]
            self._put_word(context, VALUES + i, register(known.dtype, 1), known.register)
        return context

    def _put(self, context: str, *values: tuple[str, str]) -> None:
        for word, (ty, value) in zip((TOTAL, EXTENT, SINGLE, RESULTS), values, strict=True):
            self._put_word(context, word, ty, value)

    def _put_word(self, context: str, word: int, ty: str, value: str) -> None:
        at = self.fn.do(f"getelementptr i64, ptr {context}, i64 {word}")
        self.fn.say(f"store {ty} {value}, ptr {at}")

    def _report(self, context: str) -> None:
        """The first wrong index of the first part that found one, as one thread would have found it."""
        fn = self.fn
        count = fn.module.intrinsic("llvm.cttz.i64", "i64", ("i64", "i1"))
        at = fn.do(f"getelementptr i64, ptr {context}, i64 {WRONG}")
        wrong = fn.do(f"load i64, ptr {at}")
        part = fn.do(f"call i64 @{count}(i64 {wrong}, i1 false)")
        first = fn.do(f"add i64 {fn.do(f'shl i64 {part}, 1')}, {VALUES + len(self.handed)}")
        for word in (0, 1):
            place = fn.do(f"add i64 {first}, {word}")
            value = fn.do(
                f"load i64, ptr {fn.do(f'getelementptr i64, ptr {context}, i64 {place}')}"
            )
            fn.say(f"store i64 {value}, ptr {fn.do(f'getelementptr i64, ptr %args, i64 {word}')}")
        fn.say("ret i32 1")

    def _fold(self, pool: str, results: str, whole: str, rest: str) -> None:
        """The parts' sums become the loop's, each in its place."""
        if not self.loop.accs:
            return
        fn, writer = self.fn, self.writer
        fold, stride = of_pool(fn, pool, FOLD), writer.size(self.stride)
        for acc in self.loop.accs:
            source = self._place(writer, results, acc)
            out = writer.address(acc.into, acc.index) if acc.into else source
            count = writer.size(partial_elements(acc))
            monoid = "sum" if acc.monoid == "fma" else acc.monoid
            step = both(fn.module, monoid, acc.dtype)
            numbers = (
                f"i64 {stride}, i64 {count}, i64 {acc.dtype.itemsize}, i64 {whole}, i64 {rest}"
            )
            fn.say(f"call void {fold}(ptr @{step}, ptr {out}, ptr {source}, {numbers})")

    def _place(self, writer: KernelWriter, results: str, acc: Acc) -> str:
        place = writer.size(self.places[acc.name])
        return writer.fn.do(f"getelementptr i8, ptr {results}, i64 {place}")

    # -- the part -----------------------------------------------------------------------------------------------------

    def part(self) -> str:
        """The function that runs some of the iterations."""
        if not self.name:
            self.name = self._part()
        return self.name

    def _part(self) -> str:
        name = f"{self.writer.fn.name}.part{self.writer.parts}"
        self.writer.parts += 1
        part = self.writer.for_part(name)
        with part.fn.in_entry():
            self._begin(part)
        loop = resized(self.loop, Dim.symbol(COUNT))
        part.part_of = loop.var
        if loop.mode == "vector":
            VectorLoop(part, loop, FIRST).write()
        else:
            part.statement(loop)
        if self.then:
            self._in_turn(part, self.then)
        part.end()
        return name

    def _in_turn(self, part: KernelWriter, loop: For) -> None:
        """The same iterations of the ordered loop, after those of all parts before."""
        fn = part.fn
        turn, wrong = (
            fn.do(f"getelementptr i64, ptr %context, i64 {word}") for word in (TURN, WRONG)
        )
        fn.say(f"call void @{_turn(fn.module)}(ptr %args, ptr {turn}, ptr {wrong}, i64 %index)")
        if self.can_fail:
            found = fn.do(f"load i64, ptr {wrong}")
            with fn.when(fn.do(f"icmp ne i64 {found}, 0"), returns=True):
                fn.say("ret i32 0")
        part.part_of = loop.var
        part.statement(replace(loop, size=Dim.symbol(COUNT), ordered=False))
        following = fn.do("add i64 %index, 1")
        fn.say(f"store atomic i64 {following}, ptr {turn} release, align 8")

    def _begin(self, part: KernelWriter) -> None:
        """What the context says, and where this part begins and ends."""
        fn = part.fn

        def word(place: int, ty: str) -> str:
            return fn.do(f"load {ty}, ptr {fn.do(f'getelementptr i64, ptr %context, i64 {place}')}")

        n, extent = word(TOTAL, "i64"), word(EXTENT, "i64")
        first = part.symbols[FIRST] = fn.do(f"mul i64 %index, {extent}")
        left = fn.do(f"sub i64 {n}, {first}")
        short = fn.do(f"icmp slt i64 {left}, {extent}")
        part.symbols[COUNT] = fn.do(f"select i1 {short}, i64 {left}, i64 {extent}")
        if self.panels:
            part.symbols[OWNER], part.symbols[BEGIN] = (
                word(OWNER_WORD, "i64"),
                word(BEGIN_WORD, "i64"),
            )
        for i, name in enumerate(self.handed):
            dtype = self.writer.known[name].dtype
            part.known[name] = Known(word(VALUES + i, register(dtype, 1)), dtype, 1)
        for name, known in self.writer.known.items():
            if not known.register.startswith("%"):
                part.known[name] = known
        if self.can_fail:
            place = fn.do(f"add i64 {fn.do('shl i64 %index, 1')}, {VALUES + len(self.handed)}")
            part.report = fn.do(f"getelementptr i64, ptr %context, i64 {place}")
            part.wrong = fn.do(f"getelementptr i64, ptr %context, i64 {WRONG}")
        if not self.loop.accs:
            return
        skipped = fn.do(f"mul i64 %index, {part.size(self.stride)}")
        results = fn.do(f"getelementptr i8, ptr {word(RESULTS, 'ptr')}, i64 {skipped}")
        single = word(SINGLE, "i1")
        for acc in self.loop.accs:
            place = self._place(part, results, acc)
            if acc.into:
                direct = part.address(acc.into, acc.index)
                part.arrays[acc.name] = fn.do(f"select i1 {single}, ptr {direct}, ptr {place}")
            else:
                part.results[acc.name] = place


def used_inside(body: Sequence[Statement]) -> list[str]:
    """The values that statements read and do not make themselves, those of inner loops included."""
    inside = {name for name, _ in defined(body)}
    return [n for n in used(body) if n not in inside]


__all__ = ["ParallelLoop", "parallel", "portion", "used_inside"]
