"""Scatters alone: what a loop computes before it scatters may run in lanes and on several threads.

In:   a `Program` of plain loops.
Out:  the same, where a top-level loop that computes much and then scatters is two: the first keeps
      what is to be scattered, the second adds it up.
Invariant: no bit changes. A scatter adds in the order of the iterations, so its loop takes one
after the other; of the first, nothing does.

>>> from graphc.lower.loop_text import parse_program
>>> print(scatters_apart(parse_program(EXAMPLE)))
program counts(x: f64[n], at: i64[n])
sizes n
buffer output y.out: f64[9]
buffer temp scattered0: f64[n]
kernel k0
  fill y.out[0] 0 size 9
  for _i in n rows
    %1 = load x[_i] : f64
    %2 = call exp %1 : f64
    %3 = call erf %2 : f64
    store scattered0[_i] %3
  for _i in n rows
    %4 = load at[_i] : i64
    %5 = index %4 in 9
    %6 = load scattered0[_i] : f64
    scatter y.out[0; %5*1] %6
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from graphc.ir.types import Dim, DType, TensorType, at_least
from graphc.lower.loops import (
    Buffer,
    For,
    Index,
    Kernel,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    walk,
)
from graphc.lower.names import defined, used, used_by, with_names
from graphc.lower.parallel import cost, is_independent
from graphc.lower.straight import Names, renumbered

MUCH = 3000  # picoseconds of an iteration without its scatters from which on two loops pay
FEW = 4096  # iterations below which they never do
EXAMPLE = """program counts(x: f64[n], at: i64[n])
sizes n
buffer output y.out: f64[9]
kernel k0
  fill y.out[0] 0 size 9
  for _i in n rows
    %1 = load x[_i] : f64
    %2 = call exp %1 : f64
    %3 = call erf %2 : f64
    %4 = load at[_i] : i64
    %5 = index %4 in 9
    scatter y.out[0; %5*1] %3
"""


def scatters_apart(program: Program) -> Program:
    maker = _Maker(program)
    kernels = tuple(map(maker.kernel, program.kernels))
    return replace(program, kernels=kernels, buffers=(*program.buffers, *maker.buffers))


@dataclass
class _Maker:
    program: Program
    buffers: list[Buffer] = field(default_factory=list)

    def kernel(self, kernel: Kernel) -> Kernel:
        body: list[Statement] = []
        for s in kernel.body:
            body.extend(self._loops(kernel, s) if isinstance(s, For) else (s,))
        if len(body) == len(kernel.body):
            return kernel
        return replace(kernel, body=renumbered(tuple(body)))

    def _loops(self, kernel: Kernel, loop: For) -> list[Statement]:
        scatters = [s for s in loop.body if isinstance(s, Scatter)]
        rest = tuple(s for s in loop.body if not isinstance(s, Scatter))
        first = replace(loop, body=rest)
        if not scatters or at_least(FEW, loop.size) or not self._worthwhile(first, scatters):
            return [loop]
        places = _slice([v for s in scatters for v, _ in s.at], rest)
        dtypes = dict(defined(rest))
        if places is None or any(s.value not in dtypes for s in scatters):
            return [loop]
        names, here = Names(kernel), Dim.symbol(loop.var)
        renamed: dict[str, str] = {}
        second: list[Statement] = []
        for s in places:
            renamed[s.name] = names.fresh()  # type: ignore[union-attr]
            second.append(with_names(s, renamed))
        kept: list[Statement] = []  # the first loop, with stores in the scatters' places
        for s in loop.body:
            if not isinstance(s, Scatter):
                kept.append(s)
                continue
            if s.value not in renamed:
                buffer = self._fresh(dtypes[s.value], loop)
                kept.append(Store(buffer, here, s.value))
                renamed[s.value] = names.fresh()
                second.append(Load(renamed[s.value], buffer, here, dtypes[s.value]))
            second.append(with_names(s, renamed))
        first = replace(first, body=_without_idle(tuple(kept), places))
        return [first, replace(loop, accs=(), body=tuple(second))]

    def _worthwhile(self, first: For, scatters: list[Scatter]) -> bool:
        """Is there much to do, on several threads, before anything is scattered?"""
        if any(coefficient(s.index, first.var) != 0 for s in scatters):
            return False  # each its own elements: all of it may be shared out
        touched = {getattr(s, "buffer", "") for s, _ in walk(first.body)}
        arrays = {a.into for s, _ in walk((first,)) if isinstance(s, For) for a in s.accs}
        if any(s.buffer in touched | arrays for s in scatters):
            return False
        if any(isinstance(s, Scatter) for s, _ in walk(first.body)):
            return False
        work = cost(replace(first, mode="vector"))
        return at_least(work, MUCH) and is_independent(self.program, first)

    def _fresh(self, dtype: DType, loop: For) -> str:
        known = {b.name for b in (*self.program.buffers, *self.buffers)}
        n = 0
        while f"scattered{n}" in known:
            n += 1
        self.buffers.append(Buffer(f"scattered{n}", "temp", TensorType(dtype, (loop.size,))))
        return f"scattered{n}"


def _slice(names: list[str], body: tuple[Statement, ...]) -> list[Statement] | None:
    """The statements that make indices, if these are loaded; else None."""
    made = {name: s for s in body for name, _ in defined((s,))}
    needed: dict[str, None] = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        s = made.get(name)
        if not isinstance(s, (Index, Let, Load)) or (isinstance(s, Load) and s.at):
            return None
        if isinstance(s, Let) and s.op != "convert":
            return None
        needed[name] = None
        pending.extend(used_by(s))
    return [s for name, s in made.items() if name in needed]


def _without_idle(body: tuple[Statement, ...], places: list[Statement]) -> tuple[Statement, ...]:
    """Without indices that only the scatters read."""
    for s in reversed(places):
        if s.name not in used(body):  # type: ignore[union-attr]
            body = tuple(t for t in body if t is not s)
    return body


__all__ = ["EXAMPLE", "scatters_apart"]
