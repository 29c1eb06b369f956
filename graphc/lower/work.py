"""What a planned program does, in numbers: bytes and operations, kernel by kernel.

In:   a `Program` with modes and offsets, and the values of its named sizes.
Out:  for each kernel its `Work`: the bytes that it must move, and its operations by class, as the
      machine code of its loops has them: a loop in lanes does whole vectors, the last one included.
Invariant: nothing is measured, and nothing depends on the processor. A vector has 64 bytes,
whatever registers there are.

Classes of operations: "vector" and "scalar" are plain operations on a vector or on one element;
"div f64" and its like are slow ones, "call exp f64" is one element of a gate's own function, both
with "scalar" in front where elements come alone. "loop", "tail", "masked", "tree", "fold", "leaf"
and "turned", a leaf of neighbouring lanes, are what loops and sums need beside their iterations;
"strided", "gather" and "scatter" are elements that do not lie beside their neighbours, and "step"
is one of a scan, which waits for the one before, unless rows are abreast.

>>> from graphc.lower.loop_text import parse_program
>>> program = parse_program('''program total(x: f64[n])
... sizes n
... buffer output y.out: f64[]
... kernel k0   square sum
...   for _i in n vector
...     acc %1: f64 sum lanes
...     %2 = load x[_i] : f64
...     %3 = mul %2, %2 : f64
...     add %1 %3
...   store y.out[0] %1''')
>>> (work,) = works(program, {"n": 1000})
>>> work.read, work.written, work.operations()
(8000, 8, {'loop': 1, 'tail': 1, 'vector': 250, 'tree': 1, 'leaf': 32})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from graphc.ir.types import evaluate
from graphc.lower.counting import Counter, Piece, Share
from graphc.lower.loops import (
    PANEL_ROWS,
    Contract,
    For,
    Kernel,
    Program,
    Statement,
)
from graphc.lower.parallel import BYTES_PER_NS, FEW, cost, unit
from graphc.lower.sweep import cost_of_row


@dataclass(frozen=True)
class Work:
    """What a kernel does."""

    name: str
    note: str
    pieces: tuple[Piece, ...]

    @property
    def read(self) -> int:
        return sum(p.read for p in self.pieces)

    @property
    def written(self) -> int:
        return sum(p.written for p in self.pieces)

    @property
    def bytes(self) -> int:
        """That must move to and from the kernel."""
        return self.read + self.written

    def operations(self) -> dict[str, float]:
        """How many of each class."""
        total: dict[str, float] = {}
        for piece in self.pieces:
            for name, count in piece.counts.items():
                total[name] = total.get(name, 0) + count
        return total

    @property
    def multiply_adds(self) -> int:
        return sum(p.multiply_adds for piece in self.pieces for p in piece.products)


def works(program: Program, sizes: Mapping[str, int]) -> tuple[Work, ...]:
    """The work of each kernel."""
    return tuple(Work(k.name, k.note, tuple(_pieces(program, sizes, k))) for k in program.kernels)


def working_set(program: Program, sizes: Mapping[str, int]) -> int:
    """The bytes of inputs, outputs and temporaries: what a call finds in caches after another."""
    given = (b for b in program.buffers if b.role in ("input", "output"))
    return sum(evaluate(b.bytes(), sizes) for b in given) + evaluate(program.arena or 0, sizes)


def _pieces(program: Program, sizes: Mapping[str, int], kernel: Kernel) -> Iterable[Piece]:
    """Loops and products one by one, and what stands between them as one."""
    alone: list[Statement] = []
    share, swept = None, _share_of_sweep(program, sizes, kernel)
    for s in kernel.body:
        if isinstance(s, (For, Contract)):
            if not (isinstance(s, For) and s.ordered):  # that goes with the loop before
                share = swept or _share(sizes, s)
            yield from Counter(program, sizes, share, s).pieces()
        else:
            alone.append(s)
    if alone:
        yield from Counter(program, sizes, None, *alone).pieces()


def _share_of_sweep(program: Program, sizes: Mapping[str, int], kernel: Kernel) -> Share | None:
    """Of all of a sweep's parts, if there are several."""
    rows = 0 if kernel.sweep is None else evaluate(kernel.sweep, sizes)
    if rows <= PANEL_ROWS:
        return None
    return Share(rows / PANEL_ROWS, rows * evaluate(cost_of_row(program, kernel), sizes) // 1000)


def _share(sizes: Mapping[str, int], s: For | Contract) -> Share | None:
    if isinstance(s, Contract):  # cut into about equal regions
        numbers = prod(evaluate(n, sizes) for _, n in s.sizes)
        nanoseconds = numbers * s.dtype.itemsize // BYTES_PER_NS
        return Share(numbers, nanoseconds) if numbers > FEW else None
    n = evaluate(s.size, sizes)
    return Share(n / unit(s), n * evaluate(cost(s), sizes) // 1000) if s.parallel else None


__all__ = ["Work", "working_set", "works"]
