"""The order of many scalar gates: each where it is needed, so that few values live at once.

In:   tasks of one iteration, operands before readers, and for each those of them that it reads.
Out:  the same tasks, operands still before readers.
Invariant: tasks and what they read decide, so one graph always has one order; no value changes.

A run of gates longer than a native function should be is cut, and what lives across a cut goes
through memory. In the order in which gates were declared, a thousand terms of a sum are all begun
before one is finished. Here a gate comes when a result that is being made needs it, and as soon as
it can run if it is the last to read some value, or the last but one and both can run: the gradient
of a term follows the term.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> from graphc.lower.tasks import tasks_of
>>> b = Builder()
>>> x = b.input("x", f64[()])
>>> terms = [x * float(i) for i in (2, 3)]
>>> squares = [t * t for t in terms]
>>> tasks = tasks_of(b.graph("f", {"y": squares[0] + squares[1]}))
>>> reads = {t: [made for made, _ in t.tasks_read()] for t in tasks}
>>> [t.serial for t in tasks], [t.serial for t in as_needed(reads)]
([0, 1, 2, 3, 4], [0, 2, 1, 3, 4])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.lower.tasks import Task


def as_needed(reads: Mapping[Task, Sequence[Task]]) -> list[Task]:
    """Depth first from the tasks that no other reads, in the order of these."""
    return _Order(reads).run()


class _Order:
    def __init__(self, reads: Mapping[Task, Sequence[Task]]) -> None:
        self.operands = {t: tuple(dict.fromkeys(made)) for t, made in reads.items()}
        self.readers: dict[Task, list[Task]] = {t: [] for t in reads}
        for t, operands in self.operands.items():
            for made in operands:
                self.readers[made].append(t)
        self.missing = {t: len(made) for t, made in self.operands.items()}  # operands to come
        self.unread = {t: len(found) for t, found in self.readers.items()}  # readers to come
        self.order: dict[Task, None] = {}

    def run(self) -> list[Task]:
        for end in self.operands:
            pending = [] if self.readers[end] else [end]
            while pending:
                task = pending[-1]
                if task in self.order:
                    pending.pop()
                elif self.missing[task]:
                    pending.extend(t for t in reversed(self.operands[task]) if t not in self.order)
                else:
                    self._place(task)
        return list(self.order)

    def _place(self, task: Task) -> None:
        """The task, and those after which there are no more values alive than before."""
        self.order[task] = None
        pending = self._placed(task)
        while pending:
            task = pending.pop()
            if task not in self.order and not self.missing[task] and self._frees(task):
                self.order[task] = None
                pending.extend(self._placed(task))

    def _frees(self, task: Task) -> bool:
        """Is no other reader of some operand left, or none but one that can run as well?"""
        if not self.readers[task]:
            return True
        for made in self.operands[task]:
            left = self.unread[made]
            if left == 1:
                return True
            if left == 2 and all(not self.missing[t] for t in self.readers[made]):
                return True
        return False

    def _placed(self, task: Task) -> list[Task]:
        """The tasks that may now be ready, or the last to read some value."""
        found: list[Task] = []
        for reader in self.readers[task]:
            self.missing[reader] -= 1
            found.append(reader)
        for made in self.operands[task]:
            self.unread[made] -= 1
            if self.unread[made] in (1, 2):
                found.extend(t for t in self.readers[made] if t not in self.order)
        return found[::-1]


__all__ = ["as_needed"]
