"""What statements do, in numbers, piece by piece: operations by class, and bytes.

The classes are those of `lower.work`, which cuts kernels into pieces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, prod

from graphc.gates.contraction import BLOCK
from graphc.gates.reduction import LEAF, VECTOR_BYTES, lanes_of
from graphc.ir.types import DTYPES, DType, Size, bool_, evaluate
from graphc.lower.abreast import steps_abreast
from graphc.lower.distribute import is_nest
from graphc.lower.loops import (
    RUNNING,
    Acc,
    Add,
    Contract,
    Fill,
    For,
    Index,
    Inside,
    Iota,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Step,
    Store,
    coefficient,
    lane_count,
    walk,
)
from graphc.lower.matrix import (
    COLUMN_BYTES,
    COLUMN_BYTES_OF_ONE_BLOCK,
    IN_PLACE,
    ROWS,
    ROWS_OF_ONE_BLOCK,
    USES,
    matrices,
)
from graphc.lower.pairs import MOST, least_points, pairing
from graphc.lower.parallel import portion
from graphc.lower.schedule import BLOCK_ROWS
from graphc.lower.traffic import Traffic, touched_by

UNIT = VECTOR_BYTES
SLOW = ("div", "sqrt", "quot")  # operations that take many times what a plain one does
FREE = ("const", "bitcast")
TURNED = 3  # operations for each vector of rows that are transposed
WRITTEN_OUT = 64  # statements up to which a short loop in lanes is written out
TILE_ROWS = 8  # of a matrix product, with two vectors


@dataclass(frozen=True)
class Product:
    """A matrix product, or `count` of them: `rows` x `columns` sums of `depth` products."""

    count: int
    rows: int
    columns: int
    depth: int
    dtype: DType
    packed: int = 0  # bytes that are copied for each of them, so that they lie as they are read

    @property
    def vectors(self) -> int:
        return -(-self.columns * self.dtype.itemsize // UNIT)

    @property
    def steps(self) -> int:
        """Vectors of sums times their depth."""
        return self.count * self.rows * self.vectors * self.depth

    @property
    def tiles(self) -> int:
        blocks = -(-self.depth // BLOCK)
        return self.count * blocks * -(-self.rows // TILE_ROWS) * -(-self.vectors // 2)

    @property
    def multiply_adds(self) -> int:
        return self.count * self.rows * self.columns * self.depth


@dataclass(frozen=True)
class Share:
    """How several threads may share something: see `lower.parallel.portion`."""

    units: float  # the last one may be short
    nanoseconds: int  # the estimate that calls go by

    def busiest(self, threads: int, least: int) -> float:
        """Of the work, what the thread that has most of it does."""
        units = ceil(self.units)
        taken = portion(units, self.nanoseconds, threads, least)
        if threads == 1 or taken >= units:
            return 1.0
        parts = -(-units // taken)
        short = self.units - (parts - 1) * taken
        whole = (parts - 1) // threads  # rounds before the last part's
        return max(
            (whole * taken + (short if parts % threads == 1 else taken)) / self.units, 1 / threads
        )


@dataclass(frozen=True)
class Piece:
    """Statements that run together: of a loop that takes one iteration after the other, each inner
    loop for all of these; else a loop with all that is inside of it."""

    counts: Mapping[str, float] = field(default_factory=dict)  # by class
    products: tuple[Product, ...] = ()
    read: int = 0  # bytes of its buffers, each as often as it is swept over
    written: int = 0
    near: int = 0  # bytes loaded and stored by all of its statements
    near_set: int = 0  # bytes that one iteration of its outermost loop touches again
    share: Share | None = None  # how several threads may share it


class Counter:
    """Counts one piece."""

    def __init__(
        self, program: Program, sizes: Mapping[str, int], share: Share | None, *body: Statement
    ) -> None:
        self.program, self.sizes, self.share, self.body = program, sizes, share, body
        self.dtypes: dict[str, DType] = {}
        self.ranges: set[str] = set()  # names of `inside`
        self.counts: dict[str, float] = defaultdict(int)
        self.products: list[Product] = []
        self.near = 0
        for s, _ in walk(body):
            self._note_dtype(s)

    def pieces(self) -> Iterable[Piece]:
        """One, or one for each inner loop of a loop of rows, and one for all else in that."""
        traffic = Traffic(self.program, self.sizes, self.body)
        top = self.body[0]
        loop = top if isinstance(top, For) else None
        near_set = traffic.near_set(loop) if loop is not None and loop.mode != "vector" else 0
        read, written = traffic.far()
        if loop is None or loop.mode != "rows" or not any(isinstance(s, For) for s in loop.body):
            for s in self.body:
                self._statement(s, 1)
            far = sum(read.values()), sum(written.values())
            yield self._piece(far, near_set)
            return
        n = self.size(loop.size)
        for s in loop.body:
            if not isinstance(s, For):
                continue
            self._statement(s, n)
            names = touched_by((s,))
            far = sum(read.pop(x, 0) for x in names), sum(written.pop(x, 0) for x in names)
            yield self._piece(far, near_set)
        rest = tuple(s for s in loop.body if not isinstance(s, For))
        self._rows(replace(loop, body=rest), 1)
        yield self._piece((sum(read.values()), sum(written.values())), near_set)

    def _piece(self, far: tuple[int, int], near_set: int) -> Piece:
        """What was counted since the last piece."""
        counts = {name: count for name, count in self.counts.items() if count}
        made = Piece(counts, tuple(self.products), *far, self.near, near_set, self.share)
        self.counts, self.products, self.near = defaultdict(int), [], 0
        return made

    def _note_dtype(self, s: Statement) -> None:
        if isinstance(s, (Let, Load)):
            self.dtypes[s.name] = s.dtype
        elif isinstance(s, (Iota, Index)):
            self.dtypes[s.name] = DTYPES["i64"]
        elif isinstance(s, Inside):
            self.dtypes[s.name] = bool_
            self.ranges.add(s.name)
        elif isinstance(s, Step):
            self.dtypes[s.name] = s.dtype
        elif isinstance(s, For):
            self.dtypes.update((a.name, a.dtype) for a in s.accs)

    def size(self, size: Size) -> int:
        return evaluate(size, self.sizes)

    def itemsize(self, buffer: str) -> int:
        return self.program.buffer(buffer).type.dtype.itemsize

    # -- statements one element at a time ----------------------------------------------------------

    def _statement(self, s: Statement, times: int) -> None:
        match s:
            case For(mode="vector" | "turned"):
                self._vector(s, times)
            case For(mode="blocks"):
                self._blocks(s, times)
            case For(mode="lanes"):
                self._around_loops(s, times)
            case For():
                self._rows(s, times)
            case Contract():
                self._contract(s)
            case Fill():
                size = self.size(s.size) * self.itemsize(s.buffer)
                self.counts["vector"] += -(-size // UNIT) * times
                self.near += size * times
            case _:
                self._scalar(s, times)

    def _scalar(self, s: Statement, times: int) -> None:
        counts = self.counts
        match s:
            case Let():
                if (slow := self._slow(s)) is not None:
                    counts[f"scalar {slow}"] += times
                elif s.op not in FREE:
                    counts["scalar"] += times
            case Load():
                self.near += times * s.dtype.itemsize
                counts["scalar"] += times * len(s.at)
            case Store():
                self.near += times * self.itemsize(s.buffer)
            case Scatter():
                counts["scatter"] += times
            case Index():
                counts["scalar"] += 3 * times
            case Iota() | Add():
                counts["scalar"] += times
            case Step():
                counts["step"] += times

    def _slow(self, s: Let) -> str | None:
        if s.op == "call":
            args = " ".join(self.dtypes[a].name for a in s.args)
            return f"call {s.attr} {args} {s.dtype}"
        return f"{s.op} {s.dtype}" if s.op in SLOW else None

    def _rows(self, loop: For, times: int) -> None:
        n = self.size(loop.size)
        self.counts["scalar"] += 2 * times * n
        for s in loop.body:
            self._statement(s, times * n)
        for acc in loop.accs:
            self._sum(acc, n, times)

    def _sum(self, acc: Acc, n: int, times: int) -> None:
        """What a loop that takes one iteration after the other does for a sum, besides adding."""
        if not acc.into:
            if acc.order == "lanes":
                per_leaf = LEAF * lanes_of(acc.dtype)
                self.counts["leaf"] += times * -(-n // per_leaf)
                self.counts["tree"] += times
            return
        self._into_tree(acc, n, times)

    def _into_tree(self, acc: Acc, n: int, times: int) -> None:
        """Leaves of an array go into its counters: on average each meets one that waits."""
        if acc.order in ("any", RUNNING) or not acc.dtype.is_float:
            return
        size = self.size(acc.size) * acc.dtype.itemsize
        leaves = times * -(-n // (BLOCK if acc.order == "chain" else LEAF))
        self.counts["loop"] += leaves
        self.counts["vector"] += leaves * 2 * -(-size // UNIT)
        self.near += leaves * 4 * size

    # -- loops in lanes ----------------------------------------------------------------------------

    def _vector(self, loop: For, times: int) -> None:
        n = self.size(loop.size)
        width = width_of(self.program, loop)
        vectors = times * -(-n // width)
        own = {a.name for a in loop.accs}
        self._remainder(loop, n, width, times)
        self._lanes(loop, loop.body, times, vectors, width, own)
        self._ends(loop, times, -(-n // width), width)

    def _remainder(self, loop: For, n: int, width: int, times: int) -> None:
        """A loop that is not written out begins and ends; what is left runs under a mask."""
        if not _written_out(loop, width):
            leaves = any(a.order in ("lanes", "rows") and not a.into for a in loop.accs)
            self.counts["loop"] += times
            self.counts["tail"] += times * bool(n % (width * LEAF if leaves else width))
        own = {a.name for a in loop.accs}
        stores = sum(
            isinstance(s, Store) or (isinstance(s, Add) and s.acc not in own) for s in loop.body
        )
        self.counts["masked"] += times * stores * bool(n % width)

    def _ends(self, loop: For, times: int, vectors: int, width: int) -> None:
        short = _written_out(loop, width)
        for acc in loop.accs:
            if acc.order == RUNNING:
                continue
            if acc.order not in ("lanes", "rows") or short:
                self.counts["fold"] += times
            else:
                self.counts["tree"] += times
                leaf = "turned" if acc.order == "rows" and not acc.into else "leaf"
                self.counts[leaf] += times * -(-vectors // LEAF)

    def _lanes(
        self, loop: For, body: Sequence[Statement], times: int, vectors: int, width: int,
        own: set[str], kept: bool = False,
    ) -> None:  # fmt: skip
        """Statements on vectors. `kept`: arrays that are added to stay in registers."""
        together = {p for group in steps_abreast(loop).values() for p in group}
        for position, s in enumerate(body):
            match s:
                case Let():
                    self._vector_operation(s, vectors, width)
                case Iota():
                    self._units("vector", vectors * width, 8)
                case Index():
                    self._units("vector", 5 * vectors * width, 8)
                case Load() if coefficient(s.index, loop.var) == 0 and not s.at:
                    self.near += times * s.dtype.itemsize
                case Load() | Store():
                    self._access(s, loop, vectors * width)
                case Scatter():
                    self.counts["strided"] += 2 * vectors * width
                case Step() if position in together:
                    operations = 1 + TURNED * (1 + len(s.values))
                    self._units("vector", operations * vectors * width, s.dtype.itemsize)
                case Step() if s.acc in own:
                    self.counts["step"] += vectors * width
                case Step():
                    self._units("vector", vectors * width, s.dtype.itemsize)
                    self.near += 2 * vectors * width * s.dtype.itemsize
                case Add() if s.acc in own or kept:
                    self._units("vector", vectors * width, self.dtypes[s.acc].itemsize)
                case Add():
                    self._units("vector", vectors * width, self.dtypes[s.acc].itemsize)
                    self.near += 2 * vectors * width * self.dtypes[s.acc].itemsize

    def _is_range(self, s: Let) -> bool:
        """Does it depend on ranges alone? Nearly all vectors are in the interior."""
        if s.op == "and" and all(a in self.ranges for a in s.args):
            self.ranges.add(s.name)
        return s.name in self.ranges or (s.op == "select" and s.args[0] in self.ranges)

    def _units(self, name: str, elements: int, itemsize: int) -> None:
        """Whole vectors, or in a loop with wider elements parts of them."""
        units = elements * itemsize / UNIT
        self.counts[name] += int(units) if units == int(units) else units

    def _vector_operation(self, s: Let, vectors: int, width: int) -> None:
        if s.op in FREE or self._is_range(s):
            return
        slow = self._slow(s)
        if slow is not None and slow.startswith("call"):
            self.counts[slow] += vectors * width
            return
        operands = [self.dtypes[a] for a in s.args] or [s.dtype]
        itemsize = max(d.itemsize if d is not bool_ else 1 for d in (s.dtype, *operands))
        if slow is not None:
            self._units(slow, vectors * width, itemsize)
        else:
            self._units("vector", vectors * width, itemsize)

    def _access(self, s: Load | Store, loop: For, elements: int) -> None:
        itemsize = self.itemsize(s.buffer)
        if isinstance(s, Load) and s.at:
            self.counts["gather"] += elements
        elif coefficient(s.index, loop.var) != 1:
            self.counts["strided"] += elements
        else:
            self.near += elements * itemsize

    # -- loops around loops, in lanes --------------------------------------------------------------

    def _around_loops(self, loop: For, times: int) -> None:
        width = lane_count(loop)
        vectors = times * -(-self.size(loop.size) // width)
        self.counts["loop"] += times
        self._in_all_lanes(loop, loop.body, vectors, 0, width)
        self._counters(loop, vectors, times)

    def _in_all_lanes(
        self,
        loop: For,
        body: Sequence[Statement],
        turns: int,
        before: int,
        width: int,
        var: str = "",
    ) -> None:
        """Statements of the loop over `var` inside, done `turns` times for a vector; those that no
        iteration of it changes, `before` times. Sums in lanes over a loop inside are in memory, but
        not those over pairs."""
        loops = [s for s, _ in walk((loop,)) if isinstance(s, For)]
        slots = {id(s) for s in loops if s is not loop and not self._is_paired(s)}
        names = {a.name for s in loops for a in s.accs if a.order != "lanes" or id(s) not in slots}
        for s in body:
            if isinstance(s, For):
                inner = turns * self.size(s.size)
                self.counts["scalar"] += 2 * inner
                rest = self._after_once(loop, s, inner, turns, width)
                self._in_all_lanes(loop, rest, inner, turns, width, s.var)
                self._counters(s, inner, turns, together=True)
                continue
            fixed = var and isinstance(s, Load) and coefficient(s.index, var) == 0
            count = before if fixed else turns
            self._lanes(loop, (s,), count, count, width, names)

    def _after_once(
        self, loop: For, inner: For, turns: int, before: int, width: int
    ) -> Sequence[Statement]:
        """The statements but those that are computed once for two iterations, which it counts."""
        if not self._is_paired(inner):
            return inner.body
        found = pairing(loop)
        assert found is not None
        once = [s for s in (*inner.body, *found.mirrored) if not isinstance(s, Add)]
        self._in_all_lanes(loop, once, turns // 2, before, width, inner.var)
        return [s for s in inner.body if isinstance(s, Add)]

    def _is_paired(self, loop: For) -> bool:
        """Are so many points visited in pairs?"""
        paired = loop.mode == "pairs"
        return paired and least_points(loop.accs[0].dtype) <= self.size(loop.size) <= MOST

    def _counters(self, loop: For, turns: int, times: int, together: bool = False) -> None:
        """What sums do besides adding in so many iterations of `times` runs of a loop. Where they
        enter their counters together, one of them asks where for all, which then load and add."""
        first = True
        for acc in loop.accs:
            if acc.order == "any" or not acc.dtype.is_float:
                self.counts["fold"] += times
                continue
            leaves = -(-turns // (BLOCK if acc.order == "chain" else LEAF))
            self.counts["leaf" if first or not together else "vector"] += leaves
            self.counts["tree"] += times
            first = False

    # -- loops in blocks ---------------------------------------------------------------------------

    def _blocks(self, loop: For, times: int) -> None:
        """Statements in lanes over the rows of a block, inner loops row by row."""
        n = self.size(loop.size)
        own = {a.name for a in loop.accs}
        between = tuple(s for s in loop.body if not isinstance(s, For))
        lanes = For(loop.var, loop.size, loop.accs, between, "vector")
        width = width_of(self.program, lanes)
        whole, rest = divmod(n, BLOCK_ROWS)
        vectors = times * (whole * (BLOCK_ROWS // width) + -(-rest // width))
        blocks = times * -(-n // BLOCK_ROWS)
        parts = 1 + sum(isinstance(s, For) for s in loop.body)
        self.counts["loop"] += blocks * parts
        self._lanes(lanes, between, times, vectors, width, own)
        for acc in loop.accs:
            if not acc.into:
                self.counts["leaf"] += -(-vectors // LEAF)
                self.counts["tree"] += times
        for s in loop.body:
            if isinstance(s, For):
                self._inner(s, loop, n * times, blocks)

    def _inner(self, inner: For, loop: For, rows: int, blocks: int) -> None:
        """An inner loop of a block."""
        if is_nest(inner):
            self._rows(inner, rows)
            return
        arrays = {a.name: a for a in loop.accs if a.into}
        added = [arrays[s.acc] for s in inner.body if isinstance(s, Add) and s.acc in arrays]
        only = all(isinstance(s, (Let, Iota, Add, Load)) for s in inner.body)
        if not (added and only and not inner.accs):
            self._vector(inner, rows)
            for acc in added:
                self._into_tree(acc, rows, 1)
            return
        width = min(UNIT // a.dtype.itemsize for a in added)
        vectors = -(-self.size(inner.size) // width)
        self._lanes(inner, inner.body, rows, rows * vectors, width, set(), kept=True)
        for acc in added:
            if acc.order == "rows":
                self.counts["leaf"] += -(-rows // LEAF) * vectors

    # -- matrix products ---------------------------------------------------------------------------

    def _contract(self, s: Contract) -> None:
        p = matrices(s)
        rows, columns, depth = (self.size(x) for x in (p.rows, p.columns, p.depth))
        count = prod(self.size(size) for _, size in p.outer)
        packed = 0
        high, wide = ROWS, COLUMN_BYTES
        if depth <= BLOCK:
            high, wide = ROWS_OF_ONE_BLOCK, COLUMN_BYTES_OF_ONE_BLOCK
        if p.packs_right == "always" or (p.packs_right == "large" and rows > IN_PLACE):
            packed += depth * columns * -(-rows // high)  # for each region below another
        if p.packs_left == "always" or (p.packs_left == "large" and columns >= USES):
            packed += depth * rows * -(-columns * s.dtype.itemsize // wide)
        self.products.append(
            Product(count, rows, columns, depth, s.dtype, packed * s.dtype.itemsize)
        )


def width_of(program: Program, loop: For) -> int:
    """The iterations of a loop in lanes that are one vector."""
    lanes = next((a for a in loop.accs if a.order == "lanes" and not a.into), None)
    if lanes is not None:
        return lanes_of(lanes.dtype)
    sizes = [a.dtype.itemsize for a in loop.accs]
    for s in loop.body:
        if isinstance(s, (Let, Load, Step)):
            sizes.append(s.dtype.itemsize)
        elif isinstance(s, (Iota, Index)):
            sizes.append(8)
        elif isinstance(s, Store):
            sizes.append(program.buffer(s.buffer).type.dtype.itemsize)
    return 8 if any(size == 8 for size in sizes) else 16


def _written_out(loop: For, width: int) -> bool:
    n = loop.size
    if any(a.order == "rows" for a in loop.accs) or not isinstance(n, int) or n == 0:
        return False
    calls = sum(isinstance(s, Let) and s.op in ("call", "rare") for s in loop.body)
    return -(-n // width) * (len(loop.body) + 6 * calls) <= WRITTEN_OUT


__all__ = ["UNIT", "Counter", "Piece", "Product", "Share", "width_of"]
