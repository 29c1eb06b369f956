"""Distribution: a nest of short loops in a loop over rows becomes one loop for each of its parts.

In:   a top-level loop whose inner loops are nests, of a `Program` of plain loops.
Out:  the same loop, in which what stands between a nest's innermost loops has a loop of its own,
      in lanes, and sums over the rows stand alone; what one part hands to another waits in scratch.
Invariant: no bit changes: no order of any sum does, and what is computed again is so by the same
operations.

As in a mixture: for each point, for each cluster, a sum over coordinates is followed by some
numbers for the cluster, one lane at a time; and with these the coordinates are added to sums for
each cluster. In parts, the numbers are computed in lanes over the clusters, and a block of rows can
go through the sums with the accumulators in registers.

Scratch with an element for each point of a nest would be too large for that. If its elements are
cheap, whoever reads them computes them again.

>>> from graphc.lower.loop_text import parse_program
>>> program = parse_program(EXAMPLE)
>>> loop, scratch = distributed(program, program.kernels[0], program.kernels[0].body[0])
>>> print(replace(program, buffers=(*program.buffers, *scratch),
...     kernels=(replace(program.kernels[0], body=(loop,)),)))
program weighted(x: f64[n,40], c: f64[9,40])
sizes n
buffer output g.out: f64[9,40]
buffer temp row0: f64[9] scope=_i
buffer temp row1: f64[9] scope=_i
kernel k0
  for _i in n rows
    acc %1: f64 sum rows into g.out[0] size 360
    for _j in 9 rows
      for _k in 40 rows
        acc %2: f64 sum lanes
        %3 = load x[40*_i+_k] : f64
        %4 = load c[40*_j+_k] : f64
        %5 = mul %3, %4 : f64
        add %2 %5
      store row0[_j] %2
    for _j in 9 rows
      %7 = load row0[_j] : f64
      %6 = mul %7, %7 : f64
      store row1[_j] %6
    for _j in 9 rows
      %8 = load row1[_j] : f64
      for _k in 40 rows
        add %1[40*_j+_k] %8
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from graphc.ir.types import Dim, DType, Size, TensorType
from graphc.lower.loops import (
    Add,
    Buffer,
    Contract,
    Fill,
    For,
    Iota,
    Kernel,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Step,
    Store,
    walk,
)
from graphc.lower.names import defined, used, used_by, with_names
from graphc.lower.straight import Names

CHEAP = 4  # plain operations that are made again rather than kept
EXAMPLE = """program weighted(x: f64[n,40], c: f64[9,40])
sizes n
buffer output g.out: f64[9,40]
kernel k0
  for _i in n rows
    acc %1: f64 sum rows into g.out[0] size 360
    for _j in 9 rows
      for _k in 40 rows
        acc %2: f64 sum lanes
        %3 = load x[40*_i+_k] : f64
        %4 = load c[40*_j+_k] : f64
        %5 = mul %3, %4 : f64
        add %2 %5
      %6 = mul %2, %2 : f64
      for _k in 40 rows
        add %1[40*_j+_k] %6
"""


def distributed(
    program: Program, kernel: Kernel, top: For
) -> tuple[For, tuple[Buffer, ...]] | None:
    """The loop in parts, and the scratch that these need; None where it has no nest."""
    if not any(map(is_nest, top.body)):
        return None
    return _Distributor(program, Names(kernel), top).run()


def is_nest(s: Statement) -> bool:
    return isinstance(s, For) and any(isinstance(t, For) for t in s.body)


def is_plain(s: Statement) -> bool:
    """An operation that takes about a cycle."""
    return isinstance(s, Let) and s.op not in ("call", "rare", "div", "sqrt", "quot", "fma")


@dataclass
class _Distributor:
    program: Program
    names: Names
    top: For
    scratch: list[Buffer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.written = _written((self.top,))

    def run(self) -> tuple[For, tuple[Buffer, ...]]:
        top = _Again(self.program, self.names, self.top, self.written).run()
        body: list[Statement] = []
        for s in top.body:
            body.extend(self._parts(s) if isinstance(s, For) and is_nest(s) else (s,))
        return replace(top, body=tuple(body)), tuple(self.scratch)

    def _parts(self, nest: For) -> list[Statement]:
        """A loop for each innermost loop of a nest, and for what stands between them."""
        free: dict[str, Statement] = {}
        parts: list[list[Statement]] = [[]]
        for s in nest.body:
            if self._is_free(s, free):
                free[s.name] = s  # type: ignore[union-attr]
            elif isinstance(s, For):
                parts += [[s], []]
            else:
                parts[-1].append(s)
        parts = [part for part in parts if part]
        if len(parts) == 1 or not self._may_part(nest, parts):
            return [nest]
        return self._loops(nest, parts, free)

    def _is_free(self, s: Statement, free: dict[str, Statement]) -> bool:
        """May every part have its own, as it costs no more than what is handed over?"""
        if isinstance(s, Load):
            return not s.at and s.buffer not in self.written
        if is_plain(s) and isinstance(s, Let):
            return all(isinstance(free.get(a), Load) or _is_constant(free.get(a)) for a in s.args)
        return isinstance(s, Iota)

    def _may_part(self, nest: For, parts: list[list[Statement]]) -> bool:
        """Does an iteration leave alone what later ones find in memory?"""
        if not isinstance(nest.size, int):
            return False
        touched = _written((nest,)) | _read((nest,))
        if any(self.program.buffer(name).scope == nest.var for name in touched):
            return False
        if any(isinstance(s, (Scatter, Contract, Fill, Step)) for s, _ in walk(nest.body)):
            return False
        for i, part in enumerate(parts):
            later = set().union(*map(_written, parts[i + 1 :]))
            if later & (_read(part) | _written(part)):
                return False
        added = [name for part in parts for name in _added(part)]
        own = {a.name for a in nest.accs}
        return all(added.count(name) < 2 for name in own)

    def _loops(
        self, nest: For, parts: list[list[Statement]], free: dict[str, Statement]
    ) -> list[Statement]:
        made_by = {
            name: (i, dtype) for i, part in enumerate(parts) for name, dtype in defined(part)
        }
        handed: dict[str, Buffer] = {}
        loops: list[Statement] = []
        bodies: list[list[Statement]] = []
        here = Dim.symbol(nest.var)
        for i, part in enumerate(parts):
            renamed: dict[str, str] = {}
            body: list[Statement] = []
            for name in _closure(used(part), free):
                if name in free:
                    renamed[name] = self.names.fresh()
                    body.append(with_names(free[name], renamed))
                elif name in made_by and made_by[name][0] < i:
                    if name not in handed:
                        dtype = made_by[name][1]
                        handed[name] = self._fresh(dtype, nest.size)
                        source = Store(handed[name].name, here, name)
                        bodies[made_by[name][0]].append(source)
                    renamed[name] = self.names.fresh()
                    dtype = handed[name].type.dtype
                    body.append(Load(renamed[name], handed[name].name, here, dtype))
            body += [with_names(s, renamed) for s in part]
            bodies.append(body)
        for part, body in zip(parts, bodies, strict=True):
            mine = set(_added(part))
            accs = tuple(a for a in nest.accs if a.name in mine)
            loops.append(replace(nest, accs=accs, body=tuple(body)))
        return loops

    def _fresh(self, dtype: DType, size: Size) -> Buffer:
        known = {b.name for b in (*self.program.buffers, *self.scratch)}
        n = 0
        while any(f"row{n}{suffix}" in known for suffix in ("", ".tree")):
            n += 1
        made = Buffer(f"row{n}", "temp", TensorType(dtype, (size,)), scope=self.top.var)
        self.scratch.append(made)
        return made


def _is_constant(s: Statement | None) -> bool:
    return isinstance(s, Let) and s.op == "const"


def _closure(names: Iterable[str], free: dict[str, Statement]) -> list[str]:
    """The names, each after those that its statement needs."""
    found: dict[str, None] = {}
    for name in names:
        if name in free:
            found.update(dict.fromkeys(_closure(used_by(free[name]), free)))
        found[name] = None
    return list(found)


def _added(part: Sequence[Statement]) -> list[str]:
    """The accumulators that statements add to, each once."""
    return list(dict.fromkeys(s.acc for s, _ in walk(tuple(part)) if isinstance(s, Add)))


def _written(body: Sequence[Statement]) -> set[str]:
    """The buffers that statements write."""
    found: set[str] = set()
    for s, _ in walk(tuple(body)):
        if isinstance(s, (Store, Scatter, Fill)):
            found.add(s.buffer)
        elif isinstance(s, Contract):
            found.add(s.out.buffer)
        elif isinstance(s, For):
            found |= {a.into for a in s.accs if a.into}
    return found


def _read(body: Sequence[Statement]) -> set[str]:
    return {s.buffer for s, _ in walk(tuple(body)) if isinstance(s, Load)}


# -- what is computed again ----------------------------------------------------------------------


@dataclass
class _Again:
    """Loads of scratch with an element for each point of a nest give way to what was stored."""

    program: Program
    names: Names
    top: For
    written: set[str]
    made: dict[str, Statement] = field(default_factory=dict)  # in inner loops, by name
    kept: set[str] = field(default_factory=set)  # sums and numbers of iterations in these
    values: dict[str, str] = field(default_factory=dict)  # scratch -> what is stored there

    def run(self) -> For:
        for s, outer in walk(self.top.body):
            if outer and isinstance(s, (Let, Load)):
                self.made[s.name] = s
            elif outer:
                self.kept.update(name for name, _ in defined((s,)))
        self.values = self._candidates()
        slices = {name: made for name in self.values if (made := self._slice(name))}
        body = self._without(self.top.body, slices, {}, {})
        return replace(self.top, body=body) if slices else self.top

    def _candidates(self) -> dict[str, str]:
        """Scratch of nests, stored once and loaded at the same point of the same loops."""
        points: dict[str, set[tuple]] = {}
        stores: dict[str, list[str]] = {}
        for s, outer in walk(self.top.body):
            if isinstance(s, (Load, Store)):
                where = (s.index, tuple((f.var, f.size) for f in outer), getattr(s, "at", ()))
                points.setdefault(s.buffer, set()).add(where)
            if isinstance(s, Store):
                stores.setdefault(s.buffer, []).append(s.value)
            elif isinstance(s, Scatter):
                stores.setdefault(s.buffer, []).extend(("", ""))
            elif isinstance(s, For):
                for acc in s.accs:
                    stores.setdefault(acc.into, []).extend(("", ""))
        return {
            name: values[0]
            for name, values in stores.items()
            if len(values) == 1
            and len(points[name]) == 1
            and self.program.buffer(name).scope == self.top.var
            and self.program.buffer(name).type.rank > 1
        }

    def _slice(self, buffer: str) -> list[Statement]:
        """The statements that make what is stored, if they are cheap; else none."""
        needed: dict[str, Statement] = {}
        pending = [self.values[buffer]]
        while pending:
            name = pending.pop()
            s = self.made.get(name)
            if s is None:
                if name in self.kept:
                    return []
                continue
            if isinstance(s, Load) and (s.at or s.buffer in self.written):
                return []
            if isinstance(s, Let) and not is_plain(s):
                return []
            needed[name] = s
            pending.extend(used_by(s))
        if sum(isinstance(s, Let) and s.op != "const" for s in needed.values()) > CHEAP:
            return []
        return [s for name, s in self.made.items() if name in needed]

    def _without(
        self,
        body: Sequence[Statement],
        slices: dict[str, list[Statement]],
        names: dict[str, str],
        loads: dict[tuple, str],
    ) -> tuple[Statement, ...]:
        """The body without this scratch; `names` and `loads` are what is known so far in it."""
        names, loads = dict(names), dict(loads)
        here: dict[str, str] = {}  # what a slice made, by its first name
        made: list[Statement] = []
        for s in body:
            if isinstance(s, Store) and s.buffer in slices:
                continue
            if isinstance(s, For):
                made.append(replace(s, body=self._without(s.body, slices, names, loads)))
            elif isinstance(s, Load) and s.buffer in slices:
                for t in slices[s.buffer]:
                    if t.name in here:  # type: ignore[union-attr]
                        continue
                    key = (t.buffer, t.index) if isinstance(t, Load) else None
                    if key in loads:
                        here[t.name] = loads[key]  # type: ignore[union-attr]
                        continue
                    here[t.name] = self.names.fresh()  # type: ignore[union-attr]
                    made.append(with_names(t, here))
                    if key:
                        loads[key] = here[t.name]  # type: ignore[union-attr]
                names[s.name] = here.get(self.values[s.buffer], self.values[s.buffer])
            else:
                s = with_names(s, names)
                if isinstance(s, Load) and not s.at:
                    key = (s.buffer, s.index)
                    if key in loads and s.buffer not in self.written:
                        names[s.name] = loads[key]
                        continue
                    loads[key] = s.name
                made.append(s)
        return tuple(made)
