"""What a planned program costs, whatever its sizes are: memory, and how often data are swept over.

In:   a `Program` with places for its temporaries.
Out:  a `Plan`, for people and for assertions.

>>> from graphc.lower.loop_text import parse_program
>>> from graphc.lower.plan import EXAMPLE, plan
>>> costs = Plan(plan(parse_program(EXAMPLE)))
>>> costs.passes_over("X"), costs.arena_bytes(n=100)
(1, 1088)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphc.ir.types import Size, evaluate, product
from graphc.lower.abreast import is_rest
from graphc.lower.loops import Buffer, Contract, For, Kernel, Load, Program, coefficient, touching
from graphc.lower.plan import lifetimes, traffic
from graphc.lower.traffic import NEAR


def passes_over(program: Program, name: str) -> int:
    """How many sweeps over a buffer's data are farther apart than 256 kB.

    Each top-level loop that loads it is a sweep, but for one over rows that the loop before it left
    over; in one, loops over the same row count once if the row is at most 256 kB, and so do all
    loads of a buffer of at most 256 kB. Sizes known only at the call count as small.
    """
    total = 0
    for kernel in program.kernels:
        if kernel.sweep is not None:
            total += _passes_of_sweep(kernel, program.buffer(name))
            continue
        straight = 0
        for before, s in zip((None, *kernel.body), kernel.body):
            if is_rest(s, before):
                continue
            if isinstance(s, For):
                total += _passes_of_loop(s, program.buffer(name))
            elif isinstance(s, Contract):
                total += (s.a.buffer == name) + (s.b.buffer == name)
            elif isinstance(s, Load) and s.buffer == name:
                straight = 1
        total += straight
    return total


def _passes_of_sweep(kernel: Kernel, buffer: Buffer) -> int:
    """All statements read a panel's rows while they are near."""
    assert kernel.sweep is not None
    if buffer.name not in traffic(kernel)[0]:
        return 0
    own = buffer.type.shape[:1] == (kernel.sweep,)
    return 1 if own or _near(buffer.bytes()) else 2  # 2: more than once


@dataclass(frozen=True)
class _Sweep:
    """A load inside of a top-level loop."""

    step: Size  # how far an iteration of the top loop moves, in elements
    inner: int  # which of the top loop's inner loops it stands in, or -1
    bytes: Size  # read in one iteration of the top loop


def _passes_of_loop(top: For, buffer: Buffer) -> int:
    sweeps = _sweeps(top, buffer)
    if not sweeps:
        return 0
    moving: dict[Size, list[_Sweep]] = {}
    for s in sweeps:
        if s.step != 0:
            moving.setdefault(s.step, []).append(s)
    total = sum(map(_passes_of_rows, moving.values()))
    if len(moving) > 1 and _near(buffer.bytes()):
        total = 1
    if not _near(buffer.bytes()):
        still = {s.inner for s in sweeps if s.step == 0 and not _near(s.bytes)}
        total += len(still) * (top.size if isinstance(top.size, int) else 2)  # 2: more than once
    return max(total, 1)


def _passes_of_rows(sweeps: list[_Sweep]) -> int:
    """Inner loops over one row read it once from memory if it stays in cache."""
    if all(_near(s.bytes) for s in sweeps):
        return 1
    return len({s.inner for s in sweeps})


def _sweeps(top: For, buffer: Buffer) -> list[_Sweep]:
    found = []
    for i, statement in enumerate(top.body):
        inner = i if isinstance(statement, For) else -1
        for s, outer in touching((statement,)):
            if isinstance(s, Load) and s.buffer == buffer.name:
                step = coefficient(s.index, top.var) or len(s.at)  # a gather moves, too
                inside = (f.size for f in outer if s.at or coefficient(s.index, f.var) != 0)
                touched = product(inside)
                found.append(_Sweep(step, inner, touched * buffer.type.dtype.itemsize))
    return found


def _near(size: Size) -> bool:
    return not isinstance(size, int) or size <= NEAR


@dataclass(frozen=True)
class KernelCost:
    """The buffers that a kernel reads and writes, with their bytes; scratch left out."""

    name: str
    note: str
    reads: tuple[tuple[str, Size], ...]
    writes: tuple[tuple[str, Size], ...]

    def bytes(self) -> Size:
        total: Size = 0
        for _, size in (*self.reads, *self.writes):
            total = total + size
        return total


@dataclass(frozen=True)
class Plan:
    """What a planned program costs, for people and for assertions."""

    program: Program
    kernels: tuple[KernelCost, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernels", tuple(self._cost(k) for k in self.program.kernels))

    def _cost(self, kernel: Kernel) -> KernelCost:
        reads, writes = (
            tuple((b.name, b.bytes()) for b in map(self.program.buffer, names) if not b.scope)
            for names in traffic(kernel)
        )
        return KernelCost(kernel.name, kernel.note, reads, writes)

    def passes_over(self, name: str) -> int:
        return passes_over(self.program, name)

    def arena_bytes(self, **sizes: int) -> int:
        """The bytes of all temporaries together."""
        return evaluate(self.program.arena or 0, sizes)

    def bytes_moved(self, **sizes: int) -> int:
        """The bytes of the distinct buffers that each kernel reads and writes, over all kernels."""
        return sum(evaluate(k.bytes(), sizes) for k in self.kernels)

    def __str__(self) -> str:
        lives = lifetimes(self.program)
        rows: list[tuple[str, ...]] = [("buffer", "role", "type", "bytes", "offset", "kernels")]
        rows.extend(_buffer_row(b, lives) for b in self.program.buffers)
        lines = [f"plan {self.program.name}: arena {self.program.arena or 0} bytes", *_table(rows)]
        for k in self.kernels:
            lines.append(f"{k.name}  {k.note}".rstrip())
            lines.append(f"  reads  {_named(k.reads)}")
            lines.append(f"  writes {_named(k.writes)}")
        return "\n".join(lines)


def _named(buffers: Iterable[tuple[str, Size]]) -> str:
    return ", ".join(f"{name} ({size} bytes)" for name, size in buffers) or "nothing"


def _buffer_row(b: Buffer, lives: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    first, last = lives.get(b.name, (-1, -1))
    where = "-" if first < 0 else f"k{first}" if first == last else f"k{first}..k{last}"
    offset = "-" if b.offset is None else str(b.offset)
    return (b.name, b.role, str(b.type), str(b.bytes()), offset, where)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in rows)
    return ["  " + "  ".join(cells).rstrip() for cells in padded]


__all__ = ["KernelCost", "Plan", "passes_over"]
