"""donate: outputs that may be written into the memory of an input that the caller gives up.

In:   a planned `Program`, and the names of the inputs whose memory may be used.
Out:  the same program, its output buffers marked with the input whose memory they take (`donor`),
      where that changes no value; `refusals` says why where it would.
Invariant: an input is read for the last time before its memory is written: in an earlier kernel, in
an earlier statement, or in the same iteration of the same loops, at the same element, earlier.

>>> from graphc.lower.loop_text import parse_program
>>> program = parse_program('''program step(w: f64[n], g: f64[n])
... sizes n
... buffer output out.out: f64[n]
... kernel k0
...   for _i in n vector
...     %1 = load w[_i] : f64
...     %2 = load g[_i] : f64
...     %3 = sub %1, %2 : f64
...     store out.out[_i] %3''')
>>> [b.donor for b in donate(program, ("w",)).of_role("output")]
['w']
>>> refusals(program, ("n",))
{'n': 'no output has its type'}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import gcd

from graphc.errors import VerifyError
from graphc.ir.types import Size
from graphc.lower.loops import (
    Buffer,
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


def donate(program: Program, names: Sequence[str]) -> Program:
    """Mark the outputs that take the memory of one of these inputs."""
    donors = {output: name for name, (output, _) in _matches(program, names).items() if output}
    buffers = tuple(
        replace(b, donor=donors[b.name]) if b.role == "output" and b.name in donors else b
        for b in program.buffers
    )
    return replace(program, buffers=buffers)


def refusals(program: Program, names: Sequence[str]) -> dict[str, str]:
    """Why the memory of an input is not used, for each where it is not."""
    return {n: why for n, (output, why) in _matches(program, names).items() if not output}


def donors(program: Program) -> dict[str, str]:
    """The input whose memory each output takes, where it takes one."""
    return {b.name: b.donor for b in program.of_role("output") if b.donor}


def verify_donations(program: Program) -> None:
    """No output takes memory that is read after it was written."""
    taken = list(donors(program).values())
    for output, name in donors(program).items():
        why = _conflict(program, name, output)
        if program.buffer(name).type != program.buffer(output).type:
            why = "it has another type"
        if why or taken.count(name) > 1:
            raise VerifyError(
                f"plan: {output} takes the memory of {name}: {why or 'another does, too'}"
            )


def _matches(program: Program, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """For each input the output that takes its memory, or why there is none."""
    found: dict[str, tuple[str, str]] = {}
    taken: set[str] = set()
    inputs = {b.name: b for b in program.of_role("input")}
    for name in names:
        given = inputs.get(name)
        alike = [b for b in program.of_role("output") if given and b.type == given.type]
        reasons = [(b.name, _conflict(program, name, b.name)) for b in alike if b.name not in taken]
        output = next((b for b, why in reasons if not why), "")
        if output:
            taken.add(output)
        found[name] = (output, "" if output else _reason(alike, reasons))
    return found


def _reason(alike: Sequence[Buffer], reasons: Sequence[tuple[str, str]]) -> str:
    if not alike:
        return "no output has its type"
    if not reasons:
        return "outputs of its type take the memory of others"
    return "; ".join(f"{b.removesuffix('.out')}: {why}" for b, why in reasons[:2])


# -- reads and writes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Touch:
    """A statement that reads or writes a buffer."""

    kernel: int
    top: (
        int  # of the statement in the kernel's body that it stands in; of a sweep, all run in turns
    )
    position: int  # in the order of the text
    statement: Statement
    outer: tuple[For, ...]


def _conflict(program: Program, name: str, output: str) -> str:
    """Why an output cannot take an input's memory; empty where it can."""
    reads, writes = _touches(program, name, output)
    if not writes or not reads:
        return ""
    first = min(writes, key=lambda t: (t.kernel, t.top, t.position))
    later = [r for r in reads if (r.kernel, r.top) >= (first.kernel, first.top)]
    if any((r.kernel, r.top) > (first.kernel, first.top) for r in later):
        return "the input is read again after it is written"
    together = [w for w in writes if (w.kernel, w.top) == (first.kernel, first.top)]
    if not all(_apart(r, w) for r in later for w in together):
        return "the input is read elsewhere while it is written"
    return ""


def _apart(read: _Touch, write: _Touch) -> bool:
    """Does no iteration read an element that this one, or another that ran before, has written?"""
    load, store = read.statement, write.statement
    if not isinstance(load, Load) or not isinstance(store, Store) or load.at:
        return False
    distance = load.index - store.index
    if not isinstance(distance, int):
        return False
    if distance:
        return _never_meet(distance, read, write)
    own = [(f.var, f.size) for f in write.outer]
    moves = all(coefficient(store.index, var) != 0 for var, _ in own)
    around = [(f.var, f.size) for f in read.outer if coefficient(load.index, f.var) != 0]
    same_loops = moves and around == own and read.outer[:1] == write.outer[:1]
    return same_loops and read.position < write.position


def _never_meet(distance: int, read: _Touch, write: _Touch) -> bool:
    """Indices that differ by a constant are never equal if all steps are multiples of more."""
    steps: list[Size] = []
    for touch in (read, write):
        assert isinstance(touch.statement, (Load, Store))
        steps.extend(coefficient(touch.statement.index, f.var) for f in touch.outer)
    numbers = [s for s in steps if isinstance(s, int)]
    return len(numbers) == len(steps) and distance % max(gcd(*numbers), 1) != 0


def _touches(program: Program, name: str, output: str) -> tuple[list[_Touch], list[_Touch]]:
    reads, writes = [], []
    for touch in _statements(program):
        match touch.statement:
            case Load(buffer=buffer) if buffer == name:
                reads.append(touch)
            case Contract() as s:
                reads.extend([touch] if name in (s.a.buffer, s.b.buffer) else [])
                writes.extend([touch] if s.out.buffer == output else [])
            case Store(buffer=buffer) | Scatter(buffer=buffer) | Fill(buffer=buffer):
                writes.extend([touch] if buffer == output else [])
            case For() as s:
                writes.extend([touch] if any(a.into == output for a in s.accs) else [])
    return reads, writes


def _statements(program: Program) -> Iterator[_Touch]:
    for k, kernel in enumerate(program.kernels):
        position = 0
        for top, statement in enumerate(kernel.body):
            for s, outer in walk((statement,)):
                position += 1
                yield _Touch(k, 0 if kernel.sweep is not None else top, position, s, outer)
