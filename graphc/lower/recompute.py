"""What takes a few operations is made again by a later kernel, instead of going through memory.

In:   `Task`s in order, and the kernel that each of them is in.
Out:  the same without some elementwise tasks: these are marked `again`, and no loop makes them.
Invariant: no bit changes, and what a later kernel reads instead is in memory anyway.

An array that one kernel stores and a later one reads moves twice, and takes room. Where it is made
of at most one array, by operations that take less than that, the later kernel reads this one.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> from graphc.lower.tasks import tasks_of
>>> b = Builder()
>>> x = b.input("x", f64["n", "m"])
>>> apart = x - x.sum(0).expand(0).broadcast(x.shape)
>>> tasks = tasks_of(b.graph("g", {"y": apart * apart.sum(0).expand(0).broadcast(x.shape)}))
>>> kernels = dict(zip(tasks, (0, 1, 1, 2)))
>>> [t.node.op for t in tasks], [t.node.op for t in recomputed(tasks, kernels)]
(['sum', 'sub', 'sum', 'mul'], ['sum', 'sum', 'mul'])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.ir.graph import Node
from graphc.ir.types import product
from graphc.lower.stencils import CHEAP, is_along, is_cheap, loops_of, operations
from graphc.lower.tasks import UNIT, Access, Task

SMALL = 4096  # elements that are near for whoever reads them
OFTEN = 24  # operations that all readers do at most

Readers = Sequence[tuple[Task, Access]]


@dataclass(frozen=True)
class _Chain:
    """A task, and cheap ones that nothing else is made of, down to what is in memory."""

    tasks: frozenset[Task]
    arrays: frozenset[Task | Node]  # as large as it is
    operations: int


def recomputed(tasks: Sequence[Task], kernels: Mapping[Task, int]) -> list[Task]:
    """The tasks that loops make."""
    readers: dict[Task, list[tuple[Task, Access]]] = {t: [] for t in tasks}
    for reader in tasks:
        for made, access in reader.tasks_read():
            readers[made].append((reader, access))
    stored = {t for t in tasks if t.output or any(kernels[r] != kernels[t] for r, _ in readers[t])}
    chains: dict[Task, _Chain | None] = {}
    for task in tasks:
        chains[task] = _chain(task, chains, stored)
    again: set[Task] = set()
    total: dict[Task | Node, int] = {}  # operations from what is in memory
    for task in tasks:
        chain = chains[task]
        if chain is None or task not in stored:
            continue
        all_in_all = chain.operations + sum(total.get(a, 0) for a in chain.arrays)
        if all_in_all <= CHEAP and _pays(task, chain, all_in_all, readers[task], readers):
            again |= chain.tasks
            total[task] = all_in_all
    kept = [t for t in tasks if t not in again]
    for task in again:
        task.again = True
    return kept


def _chain(task: Task, chains: Mapping[Task, _Chain | None], stored: set[Task]) -> _Chain | None:
    rank = len(loops_of(task))
    if task.kind != "elementwise" or task.output or not rank or not is_cheap(task):
        return None
    tasks, total = {task}, operations(task)
    arrays: set[Task | Node] = set()
    for access in task.reads:
        base = access.base
        if access.reshaped:
            return None
        if isinstance(base, Node):
            if base.op == "input" and len(_walked(access)) == rank:
                arrays.add(base)
        elif len(loops_of(base)) < rank:
            continue
        elif base in stored:
            arrays.add(base)
        elif (below := chains.get(base)) is None:
            return None
        else:
            tasks |= below.tasks
            arrays |= below.arrays
            total += below.operations
    if len(arrays) > 1 or total > CHEAP:
        return None
    return _Chain(frozenset(tasks), frozenset(arrays), total)


def _walked(access: Access) -> set[int]:
    """The axes of the reader's loops along which other elements are read."""
    return {e.axis for e in access.map if e.axis is not None}


def _pays(
    task: Task,
    chain: _Chain,
    all_in_all: int,
    mine: Readers,
    readers: Mapping[Task, Readers],
) -> bool:
    """Do few read it, each at its own element, and is what they read instead no larger?"""
    sizes = loops_of(task)
    whole = product(sizes)
    if isinstance(whole, int) and whole <= SMALL:
        return False
    if len(mine) * all_in_all > OFTEN:
        return False
    for reader, access in mine:
        if reader.kind not in ("elementwise", "reduce", "fma"):
            return False
        if access.reshaped or not is_along(task, reader, access.map):
            return False
        if any(e.start != 0 for e, p in zip(access.map, task.axes, strict=True) if p != UNIT):
            return False
        if tuple(sizes) != tuple(reader.domain):
            return False
    elsewhere = chain.tasks - {task}
    if any(r not in chain.tasks for t in elsewhere for r, _ in readers[t]):
        return False
    item = task.type.dtype.itemsize
    return all(a.type.dtype.itemsize <= item for a in chain.arrays)


__all__ = ["recomputed"]
