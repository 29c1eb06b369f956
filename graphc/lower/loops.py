"""The loop IR: what `fuse` and `plan` write, and `emit` reads. Its text: `lower.loop_text`.

    program loss(X: f64[n,3], w: f64[3])
    buffer output loss: f64[]
    kernel
      for _i in n rows
        acc %1: f64 sum lanes
        for _j in 3 vector
          acc %2: f64 fma lanes
          %3 = load X[3*_i+_j] : f64
          %4 = load w[_j] : f64
          add %2 %3 %4
        %5 = mul %2, %2 : f64
        add %1 %5
      store loss[0] %1

Invariant: a program means the same whatever its loops are annotated with. Values are numbers at one
point of the iteration space; an index is a size polynomial over the loop variables and named sizes,
in elements; an accumulator can be read only after its loop, an array accumulator through the buffer
that it fills. The order `running` is of scans: a `Step` gives what such an accumulator has come to,
so the loop's iterations follow each other, in whatever mode they are written.

>>> from graphc.lower.loop_text import parse_program
>>> program = parse_program('''program twice(x: f64[n])
... sizes n
... buffer output y.out: f64[n]
... kernel k0
...   for _i in n vector
...     %1 = load x[_i] : f64
...     %2 = add %1, %1 : f64
...     store y.out[_i] %2''')
>>> parse_program(str(program)) == program
True
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from graphc.gates.reduction import lanes_of
from graphc.ir.scalar import Instruction
from graphc.ir.types import (
    REMEMBERED,
    Dim,
    DType,
    Size,
    TensorType,
    size_max,
    size_min,
)

PANEL = "panel"  # begins the scope of a temp that lives while a sweep is at one panel of rows
PANEL_ROWS = 256  # of a panel at most: whole leaves of every order
RUNNING = "running"  # the order of accumulators that are read inside of their loop
WHOLE = 16  # elements that are whole vectors, of any dtype
COLUMNS = 16  # that a loop of the mode `turned` copies at a time
VARIABLES = ("_i", "_j", "_k", "_l", "_m", "_n", "_o", "_p", "_q", "_r", "_s", "_t")  # by depth


@dataclass(frozen=True)
class Buffer:
    """Memory: an input, an output, a constant, or a piece of the arena (`temp`)."""

    name: str
    role: str  # "input", "output", "constant", "temp"
    type: TensorType
    data: bytes = b""  # of a constant
    scope: str = ""  # of a temp: the loop variable whose iterations each have their own, or "panel"
    offset: Size | None = None  # of a temp, in bytes, set by plan
    donor: str = ""  # of an output: the input whose memory it takes, set by donate
    private: bool = False  # of a temp: every thread has its own, set by plan

    @property
    def panel(self) -> int:
        """The rows that it has memory for, as its scope says, if it lives in panels of a sweep."""
        return int(self.scope.removeprefix(PANEL)) if self.scope.startswith(PANEL) else 0

    def bytes(self) -> Size:
        if not self.panel:
            return self.type.bytes_expr()
        rows, *row = self.type.shape
        return replace(self.type, shape=(rows_at_once(rows, self.panel), *row)).bytes_expr()


def rows_at_once(rows: Size, panel: int) -> Size:
    """The rows of a sweep that its buffers have memory for: those of a panel, or all of them where
    they are no more than a part would take: then threads share its loops and products.
    """
    if panel == PANEL_ROWS:
        return panel
    few = size_max(0, size_min(1, PANEL_ROWS + 1 - rows))  # 1 or 0
    return size_max(panel, rows * few)


@dataclass(frozen=True)
class Acc:
    """An accumulator of a loop. `into` names the buffer that an array accumulator fills."""

    name: str
    dtype: DType
    monoid: str  # "fma", or the name of a reduction; where it is running, that of a scan
    order: str  # "lanes", "rows", "chain", "any", "running"
    into: str = ""
    index: Size = 0  # of the first element in that buffer
    size: Size = 1


@dataclass(frozen=True)
class Let:
    """%name = op args: a machine operation, a call of a gate, or a constant."""

    name: str
    op: str
    args: tuple[str, ...]
    dtype: DType
    attr: int | str | None = None


@dataclass(frozen=True)
class Iota:
    """%name = an index or a size as an i64."""

    name: str
    value: Size


@dataclass(frozen=True)
class Inside:
    """%name = low <= value < high: is this iteration in a range of a loop's?"""

    name: str
    value: Size
    low: Size
    high: Size


@dataclass(frozen=True)
class Load:
    """%name = buffer[index + sum of value*stride]; 0 with nothing read where `only` is false."""

    name: str
    buffer: str
    index: Size
    dtype: DType
    at: tuple[tuple[str, Size], ...] = ()
    only: str = ""


@dataclass(frozen=True)
class Store:
    """buffer[index] = value, where `only` is true."""

    buffer: str
    index: Size
    value: str
    only: str = ""


@dataclass(frozen=True)
class Index:
    """%name = value wrapped into 0..size-1; out of bounds it is clamped, and the run fails."""

    name: str
    value: str
    size: Size


@dataclass(frozen=True)
class Add:
    """Fold a value (for fma: a product) into an accumulator, at an index if it is an array."""

    acc: str
    values: tuple[str, ...]
    index: Size = 0


@dataclass(frozen=True)
class Step:
    """%name = a running accumulator, or its element at an index, after one more step."""

    name: str
    acc: str
    values: tuple[str, ...]
    dtype: DType
    index: Size = 0


@dataclass(frozen=True)
class Scatter:
    """buffer[index + sum of value*stride] += value, in the order of the loops."""

    buffer: str
    index: Size
    at: tuple[tuple[str, Size], ...]
    value: str


@dataclass(frozen=True)
class Fill:
    """`size` elements of a buffer from `index` on become one number."""

    buffer: str
    bits: int
    index: Size
    size: Size


@dataclass(frozen=True)
class Operand:
    """An operand of a call: a buffer, its first element, and the stride of each letter."""

    buffer: str
    index: Size
    strides: tuple[tuple[str, Size], ...]


@dataclass(frozen=True)
class Contract:
    """A matrix product: out[letters] = sum over k of a * b; `sizes` gives every letter's extent."""

    out: Operand
    a: Operand
    b: Operand
    sizes: tuple[tuple[str, Size], ...]
    k: str
    order: str
    dtype: DType


@dataclass(frozen=True)
class For:
    """A loop.

    `mode` is a schedule and changes no value: `vector` (iterations are lanes), `lanes` (the same,
    with loops inside), `rows` (one after the other), `blocks` (`BLOCK_ROWS` iterations at once,
    part by part), `turned` (for `COLUMNS` iterations of the loop around it at once), `pairs` (in a
    loop in lanes: what (i, j) and (j, i) have in common is computed once). Nor does `parallel`:
    several threads may share the iterations. `ordered` stands behind a parallel loop of as many
    iterations: each thread goes on with those of its part, as soon as all before them are through.
    """

    var: str
    size: Size
    accs: tuple[Acc, ...]
    body: tuple[Statement, ...]
    mode: str = "rows"
    parallel: bool = False
    ordered: bool = False

    @cached_property
    def touching(self) -> tuple[Statement, ...]:
        """The body without what only computes, which is most of it."""
        return tuple([s for s in self.body if not isinstance(s, Let)])


Statement = (
    Let | Iota | Inside | Load | Store | Index | Add | Step | Scatter | Fill | Contract | For
)


@dataclass(frozen=True)
class Kernel:
    """A run of statements that becomes one native function.

    `sweep` is a schedule and changes no value: that many rows go through all statements, `panel`
    of them at once.
    """

    name: str
    body: tuple[Statement, ...]
    note: str = ""  # the gates in it, for people
    sweep: Size | None = None
    panel: int = PANEL_ROWS


@dataclass(frozen=True)
class Program:
    name: str
    sizes: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    arena: Size | None = None  # bytes, set by plan
    private: Size = 0  # of these, at the end, for what each thread has of its own
    partials: Size = 0  # bytes of what a part of a parallel loop gives its sums, at most
    _by_name: dict[str, Buffer] = field(default_factory=dict, init=False, repr=False, compare=False)

    def buffer(self, name: str) -> Buffer:
        if not self._by_name:
            self._by_name.update({b.name: b for b in self.buffers})
        return self._by_name[name]

    def has(self, name: str) -> bool:
        return any(b.name == name for b in self.buffers)

    def of_role(self, role: str) -> tuple[Buffer, ...]:
        return tuple(b for b in self.buffers if b.role == role)

    def __str__(self) -> str:
        from graphc.lower.loop_text import print_program

        return print_program(self)


def walk(
    body: tuple[Statement, ...], outer: tuple[For, ...] = ()
) -> Iterator[tuple[Statement, tuple[For, ...]]]:
    """Every statement with the loops around it, in order. Loops nest no deeper than ranks do."""
    for s in body:
        yield s, outer
        if isinstance(s, For):
            yield from walk(s.body, (*outer, s))


def touching(
    body: tuple[Statement, ...], outer: tuple[For, ...] = ()
) -> Iterator[tuple[Statement, tuple[For, ...]]]:
    """As `walk`, without what only computes: what reads, writes, adds up or loops."""
    for s in body:
        if not isinstance(s, Let):
            yield s, outer
            if isinstance(s, For):
                yield from touching(s.touching, (*outer, s))


@lru_cache(maxsize=REMEMBERED)
def is_turned(s: Statement) -> bool:
    """Does it copy columns for several iterations of the loop around it?"""
    return isinstance(s, For) and s.mode == "turned"


def is_running(loop: For) -> bool:
    """Does an iteration go on from what the one before it came to?"""
    return any(a.order == RUNNING for a in loop.accs)


def coefficient(index: Size, var: str) -> Size:
    """The factor of a loop variable in an index."""
    if isinstance(index, int):
        return 0
    total: Size = 0
    for monomial, c in index.terms:
        if var in monomial:
            rest = list(monomial)
            rest.remove(var)
            total = total + (Dim({tuple(rest): c}) if rest else c)
    return total


@lru_cache(maxsize=REMEMBERED)
def without(index: Size, var: str) -> Size:
    """An index at iteration 0 of a loop variable."""
    if isinstance(index, int):
        return index
    return index - coefficient(index, var) * Dim.symbol(var)


def lane_count(loop: For) -> int:
    """Of a loop in lanes: those of its sums, or as many as fill a vector of the widest type."""
    own = [lanes_of(a.dtype) for a in loop.accs if a.order == "lanes"]
    if own:
        return own[0]
    dtypes = [s.dtype for s, _ in walk(loop.body) if isinstance(s, (Let, Load))]
    wide = any(isinstance(s, Iota) for s, _ in walk(loop.body)) or any(
        d.itemsize == 8 for d in dtypes
    )
    return 8 if wide else 16


def let(name: str, ins: Instruction, args: tuple[str, ...]) -> Let:
    """A scalar instruction as a statement."""
    return Let(name, ins.op, args, ins.dtype, ins.attr)


__all__ = [
    "Acc", "Add", "Buffer", "Contract", "Fill", "For", "Index", "Inside", "Iota", "Kernel", "Let",
    "Load", "Operand", "Program", "Scatter", "Statement", "Step", "Store", "coefficient",
    "is_running", "is_turned", "lane_count", "let", "walk", "without",
]  # fmt: skip
