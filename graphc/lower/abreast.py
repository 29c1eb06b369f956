"""Rows abreast: a loop whose rows are scanned takes eight of them at once, or four.

In:   a `Program` whose loops have no modes yet.
Out:  the same, with several rows in an iteration of such a loop, side by side in each inner loop
      that has a scan; the rows that are left over in a loop behind it; and sums over the rows in
      one of their own, over what the rows have stored.
Invariant: no bit changes. Each row does what it did, in that order.

The steps of a scan wait for each other: one row keeps a processor idle most of the time, while the
steps of several rows are lanes of one vector.

>>> from graphc.lower.loop_text import parse_program
>>> program = rows_abreast(parse_program(EXAMPLE))
>>> [(str(s.size), len(s.body[0].body)) for s in program.kernels[0].body]
[('16', 24), ('4', 3)]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from graphc.ir.types import Dim, DType, Size, TensorType, product, size_floordiv, size_min
from graphc.lower.loops import (
    RUNNING,
    Acc,
    Add,
    Buffer,
    For,
    Inside,
    Iota,
    Kernel,
    Let,
    Load,
    Program,
    Statement,
    Step,
    Store,
    coefficient,
    is_running,
    touching,
    without,
)
from graphc.lower.parallel import is_independent
from graphc.lower.straight import Names, Straight, renumbered

ROWS = 8  # that go abreast, where all their statements are few;
HALF = 4  # else so many: most of the time that there is to save, and half of the code
FEW = 12  # statements of a row
SHORT = 16  # elements of a row below which it is not worth it,
LONG = 64  # and statements of a row above which that would be too much code
EXAMPLE = """program sums(x: f64[132,100])
buffer output y.out: f64[132,100]
kernel k0
  for _i in 132 rows
    for _j in 100 rows
      acc %1: f64 cumsum running
      %2 = load x[100*_i+_j] : f64
      %3 = step %1 %2 : f64
      store y.out[100*_i+_j] %3
"""


def rows_abreast(program: Program) -> Program:
    maker = _Maker(program)
    kernels = tuple(map(maker.kernel, program.kernels))
    buffers = tuple(maker.changed.get(b.name, b) for b in program.buffers)
    new = tuple(b for name, b in maker.changed.items() if not program.has(name))
    return replace(program, kernels=kernels, buffers=(*buffers, *new))


class _Maker:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.changed: dict[str, Buffer] = {}  # and new ones, by name

    def kernel(self, kernel: Kernel) -> Kernel:
        if not any(isinstance(s, For) and is_running(s) for s, _ in touching(kernel.body)):
            return kernel
        body = self._body(kernel.body, Names(kernel), 0)
        return kernel if body is kernel.body else replace(kernel, body=renumbered(body))

    def _body(self, body: tuple[Statement, ...], names: Names, depth: int) -> tuple[Statement, ...]:
        """The same object where nothing changes."""
        made: list[Statement] = []
        for s in body:
            if not isinstance(s, For):
                made.append(s)
            elif _is_worth_it(s, depth) and is_independent(self.program, s):
                made.extend(self._abreast(s, names))
            else:
                inner = self._body(s.body, names, depth + 1)
                made.append(s if inner is s.body else replace(s, body=inner))
        same = len(made) == len(body) and all(a is b for a, b in zip(made, body, strict=True))
        return body if same else tuple(made)

    def _abreast(self, loop: For, names: Names) -> list[Statement]:
        n, i = loop.size, Dim.symbol(loop.var)
        rows = ROWS if _statements(loop) <= FEW else HALF
        blocks = size_floordiv(n, rows)
        body, sums = self._sums_apart(loop, names)
        self._widen(loop, rows)
        places = [rows * i + row for row in range(rows)]
        made: list[Statement] = [For(loop.var, blocks, (), self._rows(body, loop, places, names))]
        rest = n - rows * blocks
        if rest != 0:
            left = self._rows(body, loop, [rows * blocks + i], names)
            made.append(For(loop.var, rest, (), left))
        return [*made, *sums]

    # -- sums over the rows ------------------------------------------------------------------------

    def _sums_apart(self, loop: For, names: Names) -> tuple[list[Statement], list[Statement]]:
        """The loop's body, with what it adds stored instead; and a loop that adds it."""
        body: list[Statement] = []
        added: list[Statement] = []
        here = Dim.symbol(loop.var)
        dtypes = {a.name: a.dtype for a in loop.accs}
        for s in loop.body:
            if not isinstance(s, Add):
                body.append(s)
                continue
            loaded = []
            for value in s.values:
                buffer = self._column(loop.size, dtypes[s.acc])
                loaded.append(names.fresh())
                body.append(Store(buffer, here, value))
                added.append(Load(loaded[-1], buffer, here, dtypes[s.acc]))
            added.append(replace(s, values=tuple(loaded)))
        return body, [For(loop.var, loop.size, loop.accs, tuple(added))] if loop.accs else []

    def _column(self, n: Size, dtype: DType) -> str:
        """Memory for a number of each row."""
        count = 0
        while self.program.has(f"rows{count}") or f"rows{count}" in self.changed:
            count += 1
        name = f"rows{count}"
        self.changed[name] = Buffer(name, "temp", TensorType(dtype, (n,)))
        return name

    # -- scratch -----------------------------------------------------------------------------------

    def _scratch(self, loop: For) -> list[Buffer]:
        """What each row has of its own."""
        found = [getattr(s, "buffer", "") for s, _ in touching((loop,))]
        named = (self.program.buffer(name) for name in dict.fromkeys(filter(None, found)))
        return [b for b in named if b.scope == loop.var]

    def _widen(self, loop: For, rows: int) -> None:
        most = size_min(rows, loop.size)
        for b in self._scratch(loop):
            self.changed[b.name] = replace(b, type=TensorType(b.type.dtype, (most, *b.type.shape)))

    # -- statements --------------------------------------------------------------------------------

    def _rows(
        self, body: Sequence[Statement], loop: For, places: Sequence[Size], names: Names
    ) -> tuple[Statement, ...]:
        """The statements of the rows at these places, side by side."""
        scratch = {b.name: product(b.type.shape) for b in self._scratch(loop)}
        outer = Straight(names, ())
        known: list[dict[str, str]] = [{} for _ in places]

        def of_row(s: Statement, row: int) -> Statement:
            return _at(s, loop.var, places[row], {b: size * row for b, size in scratch.items()})

        for s in body:
            for row, renamed in enumerate(known):
                if not isinstance(s, For):
                    outer.renamed = renamed
                    outer.add(of_row(s, row))
                elif not is_running(s):
                    inner = [[of_row(t, row) for t in s.body]]
                    outer.keep(_side_by_side(s, inner, [renamed], names))
            if isinstance(s, For) and is_running(s):
                rows = [[of_row(t, row) for t in s.body] for row in range(len(places))]
                outer.keep(_side_by_side(s, rows, known, names))
        return tuple(outer.statements)


def _side_by_side(
    loop: For, rows: Sequence[Sequence[Statement]], known: Sequence[dict[str, str]], names: Names
) -> For:
    """An inner loop of several rows: up to a step one after the other, then this step of all."""
    code = Straight(names, ())
    inside: list[dict[str, str]] = []
    accs = []
    for renamed in known:
        fresh = {a.name: names.fresh() for a in loop.accs}
        accs += [replace(a, name=fresh[a.name]) for a in loop.accs]
        renamed.update(fresh)
        inside.append(dict(renamed))
    for part in _parts(loop.body):
        for row, renamed in zip(rows, inside, strict=True):
            code.renamed = renamed
            for s in row[part]:
                acc = {"acc": renamed[s.acc]} if isinstance(s, (Add, Step)) else {}
                code.add(replace(s, **acc))  # type: ignore[arg-type]
    return replace(loop, accs=tuple(accs), body=tuple(code.statements))


def _parts(body: Sequence[Statement]) -> Iterator[slice]:
    """Runs of statements, and each step alone."""
    start = 0
    for at, s in enumerate(body):
        if isinstance(s, Step):
            yield slice(start, at)
            yield slice(at, at + 1)
            start = at + 1
    yield slice(start, len(body))


def _at(s: Statement, var: str, place: Size, ahead: dict[str, Size]) -> Statement:
    """The statement in the row at a place; scratch lies further ahead for some rows."""

    def moved(index: Size) -> Size:
        step = coefficient(index, var)
        return index if step == 0 else without(index, var) + step * place

    match s:
        case Iota():
            return replace(s, value=moved(s.value))
        case Inside():
            return replace(s, value=moved(s.value))
        case Load() | Store():
            return replace(s, index=moved(s.index) + ahead.get(s.buffer, 0))
        case For():
            return replace(s, body=tuple(_at(t, var, place, ahead) for t in s.body))
    return s


def is_rest(loop: Statement, before: Statement | None) -> bool:
    """Is it of the rows that were left over by the loop before it?"""
    if not isinstance(loop, For) or not isinstance(before, For) or loop.size == 0:
        return False
    return any(size_floordiv(n * before.size + loop.size, n) == before.size for n in (ROWS, HALF))


# -- which steps -----------------------------------------------------------------------------------


def steps_abreast(loop: For) -> dict[int, tuple[int, ...]]:
    """Steps of a loop that follow on each other and have nothing to do with each other, a power of
    two of them, as in rows abreast: their positions, by that of the first.
    """
    own = {a.name: a for a in loop.accs if a.order == RUNNING}
    found: dict[int, tuple[int, ...]] = {}
    if not own:
        return found
    run: list[Step] = []
    for position, s in enumerate((*loop.body, None)):
        step = s if isinstance(s, Step) and s.acc in own else None
        if step is not None and len(run) < ROWS and all(_alike(step, t, own) for t in run):
            run.append(step)
            continue
        count = 1 << max(len(run).bit_length() - 1, 0)
        if count > 1:
            first = position - len(run)
            found[first] = tuple(range(first, first + count))
        run = [] if step is None else [step]
    return found


def _alike(step: Step, before: Step, own: Mapping[str, Acc]) -> bool:
    """The same step, of another row."""
    same = own[step.acc].monoid == own[before.acc].monoid and step.dtype is before.dtype
    return same and step.acc != before.acc and before.name not in step.values


# -- which loops -----------------------------------------------------------------------------------


def _is_worth_it(loop: For, depth: int) -> bool:
    inner = [s for s in loop.body if isinstance(s, For)]
    if not any(map(is_running, inner)) or is_running(loop) or (loop.accs and depth):
        return False
    if isinstance(loop.size, int) and loop.size < ROWS:
        return False
    if any(a.into for f in (loop, *inner) for a in f.accs):
        return False
    if _statements(loop) > LONG:
        return False
    own = {a.name for a in loop.accs}
    plain = all(_is_plain(s, own) for s in loop.body if not isinstance(s, For))
    return plain and all(map(_is_row, inner))


def _statements(loop: For) -> int:
    return sum(_statements(s) if isinstance(s, For) else 1 for s in loop.body)


def _is_plain(s: Statement, accs: set[str]) -> bool:
    if isinstance(s, (Load, Store)):
        return not s.only and not (isinstance(s, Load) and s.at)
    return isinstance(s, (Let, Iota)) or (isinstance(s, Add) and s.acc in accs)


def _is_row(inner: For) -> bool:
    """An innermost loop along memory, not a short one."""
    if isinstance(inner.size, int) and inner.size < SHORT:
        return False
    own = {a.name for a in inner.accs}
    for s in inner.body:
        if isinstance(s, (Load, Store)):
            if coefficient(s.index, inner.var) not in (-1, 0, 1) or (isinstance(s, Load) and s.at):
                return False
        elif isinstance(s, (Add, Step)):
            if s.acc not in own:
                return False
        elif not isinstance(s, (Let, Iota, Inside)):
            return False
    return True


__all__ = ["EXAMPLE", "ROWS", "is_rest", "rows_abreast", "steps_abreast"]
