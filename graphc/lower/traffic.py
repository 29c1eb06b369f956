"""Which bytes loops touch: those that come from far, and those that an iteration comes back to.

In:   statements of a planned program, and the values of its named sizes.
Out:  for each buffer the bytes that must move, as often as it is swept over; for a loop the bytes
      that one iteration touches, which is the cache that the next one finds them in.
Invariant: a buffer counts with what is touched of it, at most with its size. Sweeps over it that
lie within 256 kB of each other are one, as in `report.plan`, but by the sizes of this call.

>>> from graphc.lower.loop_text import parse_program
>>> from graphc.lower.plan import EXAMPLE
>>> program = parse_program(EXAMPLE)
>>> Traffic(program, {"n": 10}, program.kernels[1].body).far()
({'X': 168}, {'y.out': 24})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from graphc.ir.types import Size, evaluate
from graphc.lower.loops import (
    Contract,
    Fill,
    For,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    walk,
)
from graphc.lower.schedule import BLOCK_ROWS

NEAR = 256 * 1024  # bytes that are still in cache when they are read again


class Traffic:
    """The bytes of some statements."""

    def __init__(
        self, program: Program, sizes: Mapping[str, int], body: Sequence[Statement]
    ) -> None:
        self.program, self.sizes, self.body = program, sizes, tuple(body)

    def size(self, size: Size) -> int:
        return evaluate(size, self.sizes)

    def far(self) -> tuple[dict[str, int], dict[str, int]]:
        """Bytes of the buffers that are read and written, each as often as it is swept over."""
        touched = self._touched()
        reads: dict[str, int] = {}
        writes: dict[str, int] = {}
        for top in self.body:
            mine: dict[str, None] = {}
            for s, _ in walk((top,)):
                mine.update(dict.fromkeys(_read_by(s)))
                writes.update((name, 1) for name in _written_by(s))
            for name in mine:
                reads[name] = max(reads.get(name, 1), self._sweeps(top, name))
        return self._bytes(reads, touched), self._bytes(writes, touched)

    def _bytes(self, sweeps: Mapping[str, int], touched: Mapping[str, int]) -> dict[str, int]:
        """Scratch of one iteration stays near."""
        return {x: n * touched[x] for x, n in sweeps.items() if not self.program.buffer(x).scope}

    def _touched(self) -> dict[str, int]:
        """At most so many bytes of each buffer are touched."""
        elements: dict[str, int] = {}

        def add(name: str, count: int) -> None:
            elements[name] = elements.get(name, 0) + count

        for s, outer in walk(self.body):
            match s:
                case Load() | Store() | Scatter():
                    at = () if isinstance(s, Store) else s.at
                    moving = [f for f in outer if at or coefficient(s.index, f.var) != 0]
                    add(s.buffer, prod(self.size(f.size) for f in moving))
                case Fill():
                    add(s.buffer, self.size(s.size))
                case Contract():
                    extents = dict(s.sizes)
                    for o in (s.a, s.b, s.out):
                        add(o.buffer, prod(self.size(extents[c]) for c, _ in o.strides))
                case For():
                    for acc in filter(lambda acc: acc.into, s.accs):
                        moving = [f for f in outer if coefficient(acc.index, f.var) != 0]
                        add(acc.into, prod(self.size(f.size) for f in moving) * self.size(acc.size))
        buffers = {name: self.program.buffer(name) for name in elements}
        return {
            name: min(self.size(b.bytes()), elements[name] * b.type.dtype.itemsize)
            for name, b in buffers.items()
        }

    def _sweeps(self, top: Statement, name: str) -> int:
        """How often a loop reads a buffer from beyond the near caches: see `report.plan`."""
        if not isinstance(top, For):
            return 1
        b = self.program.buffer(name)
        if self.size(b.bytes()) <= NEAR:
            return 1
        moving: set[int] = set()
        still: set[int] = set()
        far = False
        for position, part in enumerate(top.body):
            for s, outer in walk((part,)):
                if not isinstance(s, Load) or s.buffer != name:
                    continue
                inner = [f for f in outer if s.at or coefficient(s.index, f.var) != 0]
                size = prod(self.size(f.size) for f in inner) * b.type.dtype.itemsize
                place = position if isinstance(part, For) else -1
                if s.at or coefficient(s.index, top.var) != 0:
                    moving.add(place)
                    far = far or size > NEAR
                elif size > NEAR:
                    still.add(place)
        passes = (len(moving) if far else bool(moving)) + len(still) * self.size(top.size)
        return max(passes, 1)

    def near_set(self, top: For) -> int:
        """Bytes that an iteration of a loop (of one in blocks: 64 of them) touches."""
        touched: dict[str, int] = {}
        rows = min(BLOCK_ROWS, self.size(top.size)) if top.mode == "blocks" else 1
        for s, outer in walk(top.body):
            if isinstance(s, (Load, Store, Scatter)):
                b = self.program.buffer(s.buffer)
                at = () if isinstance(s, Store) else s.at
                inner = [f for f in outer if at or coefficient(s.index, f.var) != 0]
                moves = bool(b.scope) or coefficient(s.index, top.var) != 0
                size = prod(self.size(f.size) for f in inner) * b.type.dtype.itemsize
                size = size * rows if moves else size
                touched[b.name] = max(touched.get(b.name, 0), size)
        arrays = [a for a in top.accs if a.into]
        return sum(touched.values()) + sum(2 * self.size(a.size) * a.dtype.itemsize for a in arrays)


def _read_by(s: Statement) -> tuple[str, ...]:
    match s:
        case Load():
            return (s.buffer,)
        case Contract():
            return (s.a.buffer, s.b.buffer)
    return ()


def touched_by(body: tuple[Statement, ...]) -> list[str]:
    found = [name for s, _ in walk(body) for name in (*_read_by(s), *_written_by(s))]
    return list(dict.fromkeys(found))


def _written_by(s: Statement) -> tuple[str, ...]:
    match s:
        case Store() | Scatter() | Fill():
            return (s.buffer,)
        case Contract():
            return (s.out.buffer,)
        case For():
            return tuple(a.into for a in s.accs if a.into)
    return ()


__all__ = ["Traffic", "touched_by"]
