"""What the parts of a matrix product share: the context they read, and what is known when they are written."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen.llvm import MEMORY, Function, Module, register, vector
from graphc.codegen.slots import HEADER_SLOTS
from graphc.codegen.tile import SMALL, Shape, shape_of
from graphc.ir.types import DType
from graphc.lower.matrix import Matrices

# A context has 64 bits for each of: what the caller knows,
POINTERS = ("c", "a", "b", "work", "args")
EXTENTS = ("M", "N", "K", "cm", "cn", "am", "ak", "bk", "bn")
# with bytes from one thread's own memory to the next one's, and of the arena, and whether sums go on from what the result
# holds; and how the work is cut: rows of a region, and how many regions below each other have as many, the others a tile
# less; panels of one; regions below each other, all of them, and those that a part makes; from one level of blocks to the
# next; how much of k a part of it takes, where the first one's result is, and how far it is to the next.
CUT = ("rows", "tall", "across", "below", "regions", "share", "level", "extent", "first", "step")
KNOWN = (*POINTERS, *EXTENTS, "private", "arena", "carry")  # by the caller
FIELDS = (*KNOWN, *CUT)
PART = (("ptr", "context"), ("i64", "index"), ("i64", "worker"))


@dataclass(frozen=True)
class Kind:
    """What is known of a product when its code is written. Products of one kind share their code."""

    dtype: DType
    shape: Shape
    left: str  # "ahead", "beside", "apart": see Matrices
    right: str
    packs_left: str  # "never", "always", "large"
    packs_right: str
    beside: bool  # elements of a row of the result lie side by side
    narrow: bool  # columns may be less than a vector
    vectors: tuple[int, ...]  # of the tiles that can occur
    small: tuple[bool, ...]  # are there large ones of two vectors, small ones?
    splits_depth: bool = False
    carried: bool = False  # sums may go on from what the result holds: for one block of k

    @staticmethod
    def of(module: Module, p: Matrices) -> Kind:
        shape = shape_of(module, p.dtype, p.packs_left == "always", p.rows)
        lanes = shape.lanes
        vectors: tuple[int, ...] = (2, 1)
        small: tuple[bool, ...] = (False, True)
        if isinstance(p.rows, int):
            rest = p.rows % shape.rows
            large = p.rows >= shape.rows or rest > SMALL
            small = (False,) * large + (True,) * (0 < rest <= SMALL) or (True,)
        if isinstance(p.columns, int):
            rest = p.columns % shape.across
            vectors = (2,) * (p.columns > lanes) + (1,) * (0 < rest <= lanes) or (1,)
        narrow = not isinstance(p.columns, int) or p.columns < lanes
        return Kind(
            p.dtype, shape, p.left_kind, p.right_kind, p.packs_left, p.packs_right, p.result_strides[1] == 1,
            narrow, vectors, small, p.splits_depth,
        )  # fmt: skip

    @property
    def name(self) -> str:
        sizes = ("small" if x else "large" for x in self.small)
        tiles = ".".join(map(str, (self.shape.rows, *self.vectors, *sizes)))
        parts = (self.dtype.name, self.left, self.packs_left, self.right, self.packs_right, tiles)
        return (
            "gc.product."
            + ".".join(parts)
            + ".apart" * (not self.beside)
            + ".narrow" * self.narrow
            + ".depths" * self.splits_depth
            + ".carried" * self.carried
        )


def put(fn: Function, context: str, place: int, ty: str, value: str) -> None:
    """A word of a context."""
    fn.say(f"store {ty} {value}, ptr {fn.do(f'getelementptr i64, ptr {context}, i64 {place}')}")


def nobody(fn: Function) -> str:
    """The arguments of a kernel that has no threads: for products that are parts of one's work."""
    alone = fn.alloca("i64", HEADER_SLOTS)
    for slot in range(HEADER_SLOTS):
        put(fn, alone, slot, "i64", "0")
    return alone


class ContextWriter:
    """A function over a product's context."""

    def __init__(
        self,
        module: Module,
        kind: Kind,
        suffix: str,
        result: str,
        params: tuple[tuple[str, str], ...],
    ) -> None:
        self.fn = Function(module, kind.name + suffix, result, params)
        self.kind, self.shape, self.dtype = kind, kind.shape, kind.dtype
        self.lanes, self.across = kind.shape.lanes, kind.shape.across
        self.one, self.wide = MEMORY[kind.dtype.name], register(kind.dtype, kind.shape.lanes)

    def get(self, *fields: str) -> list[str]:
        made = []
        for field in fields:
            ty = "ptr" if field in (*POINTERS, "first") else "i64"
            at = self.fn.do(f"getelementptr i64, ptr %context, i64 {FIELDS.index(field)}")
            made.append(self.fn.do(f"load {ty}, ptr {at}"))
        return made

    def at(self, base: str, *terms: tuple[str, str]) -> str:
        """base + the sum of i * stride, in elements."""
        for i, stride in terms:
            offset = i if stride == "1" else self.fn.do(f"mul i64 {i}, {stride}")
            base = self.fn.do(f"getelementptr {self.one}, ptr {base}, i64 {offset}")
        return base

    def smaller(self, a: str, b: str) -> str:
        return self.fn.do(f"select i1 {self.fn.do(f'icmp slt i64 {a}, {b}')}, i64 {a}, i64 {b}")

    def larger(self, a: str, b: str) -> str:
        return self.fn.do(f"select i1 {self.fn.do(f'icmp sgt i64 {a}, {b}')}, i64 {a}, i64 {b}")

    def either(self, condition: str, ty: str, yes: str, no: str) -> str:
        return self.fn.do(f"select i1 {condition}, {ty} {yes}, {ty} {no}")

    def move(self, source: str, target: str, count: int = 1) -> None:
        """Copy some elements that lie side by side."""
        ty = vector(self.one, count)
        value = self.fn.do(f"load {ty}, ptr {source}, align {self.dtype.itemsize}")
        self.fn.say(f"store {ty} {value}, ptr {target}, align {self.dtype.itemsize}")

    def load(self, place: str) -> str:
        return self.fn.do(f"load {self.wide}, ptr {place}, align {self.dtype.itemsize}")

    def store(self, value: str, place: str) -> None:
        self.fn.say(f"store {self.wide} {value}, ptr {place}, align {self.dtype.itemsize}")

    def turned(self, rows: list[str]) -> list[str]:
        """The transpose of a square: at each step, vectors exchange runs of 1, 2, 4, ... lanes."""
        fn, lanes = self.fn, self.lanes
        distance = 1
        while distance < lanes:
            after = list(rows)
            for i in range(lanes):
                if not i & distance:
                    for upper, place in ((0, i), (distance, i + distance)):
                        picks = [
                            x + upper if not x & distance else lanes + x - distance + upper
                            for x in range(lanes)
                        ]
                        mask = ", ".join(f"i32 {x}" for x in picks)
                        after[place] = fn.do(
                            f"shufflevector {self.wide} {rows[i]}, {self.wide} {rows[i + distance]}, <{lanes} x i32> <{mask}>"
                        )
            rows = after
            distance *= 2
        return rows

    def ceiling(self, x: str, unit: str) -> str:
        """x / unit, rounded up."""
        less = str(int(unit) - 1) if unit.isdigit() else self.fn.do(f"sub i64 {unit}, 1")
        return self.fn.do(f"udiv i64 {self.fn.do(f'add i64 {x}, {less}')}, {unit}")

    def share(self, size: str, count: str) -> tuple[str, str]:
        """The units, below `count`, of the part `index`."""
        begin = self.fn.do(f"mul i64 %index, {size}")
        return begin, self.smaller(self.fn.do(f"add i64 {begin}, {size}"), count)

    def columns_of(self, j: str, columns: str) -> tuple[str, str, str]:
        """Of the panel that begins at column j: has it two vectors, its first column, and where the second begins."""
        fn, lanes = self.fn, self.lanes
        left = fn.do(f"sub i64 {columns}, {j}")
        two = fn.do(f"icmp sgt i64 {left}, {lanes}")
        second = self.smaller(fn.do(f"sub i64 {left}, {lanes}"), str(lanes))
        last = fn.do(f"sub i64 {columns}, {lanes}")
        if self.kind.narrow:
            last = self.either(fn.do(f"icmp sgt i64 {last}, 0"), "i64", last, "0")
        return two, self.either(two, "i64", j, last), self.either(two, "i64", second, "0")
