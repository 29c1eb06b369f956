"""Stencils: what is cheap and read at shifted places is made again by whoever reads it.

In:   `Task`s in order.
Out:  the same without some elementwise tasks, and without arrays that parts were to be placed in:
      these are marked `again`, and no loop makes them, as none makes a view. Tasks over nearly all
      of a loop that then reads the same get its size as their `span`.
Invariant: no bit changes. What is made again is so by the same operations, parts lie in ranges of
the loop, and what a sum gets from beyond its own range is its identity.

The gradient of a function of x[:-1] and x[1:] is the sum of two arrays, each with a zero at one
end. Both would go through memory, from a loop over n-1 elements to one over n. Here, one loop reads
x at three places, and writes the gradient. Where a neighbour is missing, a range says so; compiled
code looks at ranges near the ends alone (codegen/vectors.py).

An element that is read at k shifts is made k times: that pays where it takes few operations.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> square = x * x
>>> later = b.apply("slice", square, starts=(1,), steps=(1,), shape=(x.shape[0] - 1,))
>>> first = b.apply("slice", x, starts=(0,), steps=(1,), shape=(x.shape[0] - 1,))
>>> graph = b.graph("steps", {"y": later - first})
>>> from graphc.lower.tasks import tasks_of
>>> tasks = tasks_of(graph)
>>> [t.node.op for t in tasks], [t.node.op for t in stencils(tasks)]
(['mul', 'sub'], ['sub'])
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphc.gates.elementwise import Elementwise
from graphc.gates.movement import Along, IndexMap
from graphc.ir.graph import Node
from graphc.ir.scalar import Instruction
from graphc.ir.types import Dim, Size
from graphc.lower.tasks import UNIT, Access, Task, identity_map, is_again, made_from

NARROW = 64  # elements that a part may lack at most
SHORT = 8  # elements of an axis that is better written out
CHEAP = 12  # operations that cost less than an array does
ROOT, GATHER = 10, 6  # operations that a division or a root, or loads of strides, take as long as
PLAIN = 8  # instructions of a gate that is no call
MOST = 48  # tasks below one that is made again
ATTEMPTS = 2  # to keep what takes most, before all of a group is kept
SHIFTS = 16  # places at which one is read


def stencils(tasks: Sequence[Task]) -> list[Task]:
    """The tasks that loops make."""
    finder = _Finder(tasks)
    return finder.run() if finder.candidates() else list(tasks)


class _Finder:
    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.shifted: set[Task] = set()  # what is read at shifts, and lies in memory if it is kept
        self.below: dict[Task, frozenset[Task]] = {}  # what is made with a cheap task, itself too
        self.places: dict[Task, dict[tuple[Task, IndexMap], None]] = {}  # where it is read, by whom

    def candidates(self) -> bool:
        """Is anything read at a shift?"""
        for reader in self.tasks:
            if not reader.domain:
                continue
            for access in reader.reads:
                made, along = access.base, access.map
                if isinstance(made, Node) or access.reshaped:
                    continue
                if along is identity_map(len(along)) and made.domain == reader.domain:
                    continue  # most of them
                if made.kind == "memory" or _is_shift(made, reader, along):
                    self.shifted.add(made)
        return bool(self.shifted)

    def run(self) -> list[Task]:
        for task in self.tasks:
            self._look_below(task)
        again = self._again()
        attempt = 0
        while dear := self._dear(again):
            attempt += 1
            for group in dear:
                most = [max(group, key=lambda t, group=group: group[t])]  # type: ignore[misc]
                for task in most if attempt <= ATTEMPTS else group:
                    del self.below[task]
            again = self._again()
        for task in again:
            task.again = True
        parts = {part for t in again if t.kind == "memory" for part in t.extra["parts"]}
        left = [t for t in self.tasks if not t.again and t not in parts]
        _widen(left)
        return left

    # -- which could be ----------------------------------------------------------------------------

    def _look_below(self, task: Task) -> None:
        """A task is cheap if all is that it is made from, down to what lies in memory anyway."""
        if task.output or (task.kind == "memory" and not _is_padded(task)):
            return
        rank = len(loops_of(task))
        if task.kind not in ("elementwise", "memory") or not rank:
            return
        if task.kind == "elementwise" and not is_cheap(task):
            return
        found: set[Task] = {task}
        for access in task.operands():
            base = access.base
            if access.reshaped:
                return
            if isinstance(base, Node) or len(loops_of(base)) < rank:
                continue
            if base in self.below:
                found |= self.below[base]
            elif base not in self.shifted and base.kind not in ("scatter", "contract"):
                return
            if len(found) > MOST:
                return
        self.below[task] = frozenset(found)

    # -- which are ---------------------------------------------------------------------------------

    def _again(self) -> list[Task]:
        """From the last reader to the first: a cheap task that is read at a shift is made again."""
        self.places = {t: {} for t in self.tasks}
        again: list[Task] = []
        inside: set[Task] = set()  # parts of what is made again
        for task in reversed(self.tasks):
            if task in inside:
                continue
            if task in self.below and self._is_shifted(task):
                again.append(task)
                inside.update(task.extra.get("parts", ()))
                for reader, along in self.places[task]:
                    for access in made_from(task, along):
                        self._read(reader, access)
            else:
                for access in task.reads:
                    self._read(task, access)
        return again

    def _read(self, reader: Task, access: Access) -> None:
        if isinstance(access.base, Task):
            along = None if access.reshaped else access.map
            self.places[access.base][reader, along] = None  # type: ignore[index]

    def _is_shifted(self, task: Task) -> bool:
        """Do all who read it do so at their own element or at shifts, and some at shifts?"""
        places = self.places[task]
        if not places or len(places) > SHIFTS or any(along is None for _, along in places):
            return False
        if any(r.kind not in ("elementwise", "reduce", "fma", "scan") for r, _ in places):
            return False
        if not all(is_along(task, reader, along) for reader, along in places):
            return False
        return task.kind == "memory" or any(_is_shift(task, r, along) for r, along in places)

    def _dear(self, again: Sequence[Task]) -> list[dict[Task, int]]:
        """Groups that take more operations than the arrays that they save: how many for each task,
        the last one first.
        """
        group: dict[Task, Task] = {}

        def first(t: Task) -> Task:
            while group.setdefault(t, t) is not t:
                t = group[t]
            return t

        for task in again:
            for reader, _ in self.places[task]:
                group[first(task)] = first(reader)
        below = {a.base for t in again for a in t.operands()}
        groups: dict[Task, dict[Task, int]] = {}
        arrays: dict[Task, int] = {}
        for task in again:
            at = first(task)
            times = len({along for _, along in self.places[task]})
            more = operations(task) * (times - 1) if task.kind == "elementwise" else 0
            groups.setdefault(at, {})[task] = more
            arrays[at] = arrays.get(at, 0) + (task not in below)
        return [g for at, g in groups.items() if sum(g.values()) > CHEAP * arrays[at]]


def _code(task: Task) -> Sequence[Instruction]:
    gate = task.node.gate
    assert isinstance(gate, Elementwise)
    return gate.node_body(task.node).code


def is_cheap(task: Task) -> bool:
    return len(_code(task)) <= PLAIN


def operations(task: Task) -> int:
    """How many it takes, loads apart that do not walk along memory."""
    made = sum(ROOT if i.op in ("div", "sqrt") else i.op != "const" for i in _code(task))
    return made + GATHER * sum(map(partial(_is_strided, len(task.domain) - 1), task.reads))


def _is_strided(last: int, access: Access) -> bool:
    """Are neighbours along the innermost loop apart in memory?"""
    if isinstance(access.base, Node) and access.base.op != "input":
        return False
    *outer, inner = access.map or (Along(None),)
    return any(e.axis == last for e in outer) or (inner.axis == last and inner.step != 1)


def _is_padded(task: Task) -> bool:
    """Is it one part but for a few elements, in axes long enough for loops?"""
    parts, shape = task.extra["parts"], task.type.shape
    wide = 0
    for part in parts:
        if any(e.step != 1 for e in part.region[1]):
            return False
        sizes = _sizes_in(part)
        pairs = list(zip(shape, sizes, strict=True))
        if any(isinstance(whole, int) and whole <= SHORT for whole, own in pairs if whole != own):
            return False
        if all(_is_most(own, whole) for whole, own in pairs):
            wide += 1
        elif not any(isinstance(s, int) and s <= NARROW for s in sizes):
            return False
    return wide == 1


def _sizes_in(part: Task) -> list[Size]:
    """Of a part, along each axis of what it is placed in."""
    assert part.region is not None
    return [1 if e.axis is None else part.domain[e.axis] for e in part.region[1]]


def _is_most(part: Size, whole: Size) -> bool:
    """Does a part lack but a few elements? In max(0, n-1), n counts as large."""
    lacks = _large(whole) - _large(part)
    most = NARROW if not isinstance(whole, int) else min(NARROW, whole // 2)
    return isinstance(lacks, int) and 0 <= lacks <= most


def _large(size: Size) -> Size:
    """A size that may be max(0, n-1), as n-1."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, c in size.terms:
        atom = monomial[0] if len(monomial) == 1 else ""
        if isinstance(atom, tuple) and atom[0] == "max" and 0 in atom[1:]:
            total = total + c * _large(atom[2] if atom[1] == 0 else atom[1])
        else:
            total = total + Dim({monomial: c})
    return total


def is_along(made: Task, reader: Task, along: IndexMap) -> bool:
    """Is it read by a loop of as many axes, each at its own element or at a shift?"""
    if len(reader.domain) != len(loops_of(made)):
        return False
    return all(
        e.axis is None if p == UNIT else e.axis == p and e.step == 1
        for e, p in zip(along, made.axes, strict=True)
    )


def loops_of(task: Task) -> tuple[Size, ...]:
    """The sizes of the loops that a value has."""
    return tuple([s for s in task.type.shape if s != 1])


def _is_shift(made: Task, reader: Task, along: IndexMap) -> bool:
    """Is it read at other elements than the reader's own, or by a loop of another size?"""
    if made.kind in ("scatter", "contract") or not is_along(made, reader, along):
        return False
    sizes = loops_of(made)
    if any(isinstance(s, int) and s <= SHORT for s, t in zip(sizes, reader.domain) if s != t):
        return False
    return any(
        e.start != 0 or sizes[p] != reader.domain[p]
        for e, p in zip(along, made.axes, strict=True)
        if p != UNIT
    )


# -- sums over nearly all of a loop ----------------------------------------------------------------


def _widen(tasks: Sequence[Task]) -> None:
    """Where a loop reads padded arrays, tasks of their size without the pads may share it."""
    longer: dict[tuple[int, Size], Size] = {}
    for reader in tasks:
        for part in _parts_read(reader):
            for size, axis in zip(_sizes_in(part), part.region[0].axes, strict=True):  # type: ignore[index]
                span = reader.domain[axis] if axis != UNIT else size
                if size != span and _is_most(size, span):
                    longer[axis, size] = span
    for (axis, size), span in longer.items():
        while (axis, span) in longer:
            span = longer[axis, span]
        here = [t for t in tasks if axis < len(t.domain) and t.domain[axis] == size]
        if all(map(_may_widen, here)):
            for t in here:
                t.span = tuple(span if i == axis else s for i, s in enumerate(t.span or t.domain))


def _parts_read(reader: Task) -> list[Task]:
    """The parts of padded arrays that a task makes again, where all of it has a loop's axes."""
    found: dict[Task, None] = {}
    pending = list(reader.reads)
    seen: set[Task] = set()
    while pending:
        base = pending.pop().base
        if is_again(base) and base not in seen:
            seen.add(base)
            pending.extend(base.operands())
            found.update(dict.fromkeys(base.extra.get("parts", ())))
    return list(found)


def _may_widen(task: Task) -> bool:
    """Can a range say where it is? A sum of arrays has no place for that."""
    if task.kind in ("reduce", "fma"):
        return task.reduced == len(task.domain) - 1
    return task.kind == "elementwise"


__all__ = ["CHEAP", "is_along", "is_cheap", "loops_of", "operations", "stencils"]
