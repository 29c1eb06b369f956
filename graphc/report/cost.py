"""What a call should take: bytes, operations and seconds of each kernel, and what limits it.

In:   a planned `Program`, the values of its named sizes, how many threads may share its loops.
Out:  a `Prediction`: a number of seconds with its parts, which prints as a table.
Invariant: bytes and operations are counted in the program (lower/work.py) and do not depend on the
machine; seconds come from what this machine takes for each of them (report/machine.py). Nothing of
the program is run.

A kernel's loops compute and move memory at the same time, as far as they can: the root of the sum
of squares counts. Memory is near (what an iteration loads and stores, most of it in the first
caches) or far (buffers, each as often as it is swept over), at the pace of whichever cache holds
all that the call touches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, hypot
from typing import TYPE_CHECKING, Any

from graphc.errors import SignatureError
from graphc.ir.types import DTYPES, named_sizes
from graphc.lower.counting import Piece, Product
from graphc.lower.loops import Program
from graphc.lower.work import Work, working_set, works
from graphc.report import machine
from graphc.runtime.threads import LEAST_WORK, get_threads

if TYPE_CHECKING:
    from graphc.runtime.kernel import Kernel

MEMORY, CACHE, CALL = "memory", "cache", "the call"
OPERATIONS, DIVISIONS, LOOPS, APART = "operations", "divisions", "short loops", "gathers"
PRODUCTS, SCANS = "matrix products", "scans"
_GROUPS = {
    "loop": LOOPS, "tail": LOOPS, "masked": LOOPS, "tree": LOOPS, "fold": LOOPS,
    "leaf": OPERATIONS, "turned": OPERATIONS, "strided": APART, "gather": APART, "scatter": APART,
    "step": SCANS,
}  # fmt: skip


@dataclass(frozen=True)
class KernelTime:
    """What a kernel does, and the seconds that this should take."""

    name: str
    note: str
    bytes: int  # that must move to and from it
    operations: int  # on vectors or numbers, calls of gates and steps of matrix products
    seconds: float
    limit: str


@dataclass(frozen=True)
class Prediction:
    """What a call should take. `float(prediction)` is its seconds."""

    name: str
    sizes: Mapping[str, int]
    threads: int
    kernels: tuple[KernelTime, ...]
    call: float  # seconds that any call takes, whatever it computes

    @property
    def seconds(self) -> float:
        return self.call + sum(k.seconds for k in self.kernels)

    @property
    def bytes(self) -> int:
        return sum(k.bytes for k in self.kernels)

    @property
    def operations(self) -> int:
        return sum(k.operations for k in self.kernels)

    @property
    def limit(self) -> str:
        """What most of the time goes to."""
        parts: dict[str, float] = {CALL: self.call}
        for k in self.kernels:
            parts[k.limit] = parts.get(k.limit, 0.0) + k.seconds
        return max(parts, key=lambda name: parts[name])

    def __float__(self) -> float:
        return self.seconds

    def __str__(self) -> str:
        """A line for each kernel, the call, and the sum."""
        at = f" at {', '.join(f'{s} = {n:,}' for s, n in self.sizes.items())}" if self.sizes else ""
        threads = "" if self.threads == 1 else f", {self.threads} threads"
        rows: list[tuple[str, ...]] = [
            ("kernel", "bytes", "operations", "time", "limited by", "gates")
        ]
        for k in self.kernels:
            counts = (f"{k.bytes:,}", f"{k.operations:,}", duration(k.seconds))
            rows.append((k.name, *counts, k.limit, k.note))
        rows.append(("call", "", "", duration(self.call), "", ""))
        total = (f"{self.bytes:,}", f"{self.operations:,}", duration(self.seconds))
        rows.append(("all", *total, self.limit, ""))
        return "\n".join([f"{self.name}{at}{threads}", *_table(rows)])


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if 0 < i < 4 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return lines


# -- prediction ------------------------------------------------------------------------------------


def predict(program: Program, sizes: Mapping[str, int], threads: int = 1) -> Prediction:
    """The cost of a call, whose arrays are in whatever cache has room for them all."""
    room = working_set(program, sizes)
    kernels = tuple(_kernel(work, room, threads) for work in works(program, sizes))
    numbers = sum(b.type.rank == 0 for b in program.of_role("output"))
    outputs = len(program.of_role("output"))
    call = machine.call(len(program.of_role("input")), outputs - numbers, numbers)
    return Prediction(program.name, dict(sizes), threads, kernels, call)


def predicted(kernel: Kernel, arrays: Sequence[Any], sizes: Mapping[str, int]) -> Prediction:
    """Of a call with these arrays, or, where there are none, with these values of named sizes."""
    program = kernel.program
    shapes = [a.shape for a in arrays]
    found = named_sizes(kernel.manifest.inputs, shapes) if arrays else sizes
    missing = [s for s in program.sizes if s not in found]
    unknown = [s for s in sizes if s not in program.sizes]
    if missing or unknown:
        wrong = f"gives no {missing[0]}" if missing else f"has no size {unknown[0]!r}"
        known = ", ".join(f"{s}=..." for s in program.sizes)
        raise SignatureError(f"predict of {program.name} {wrong}: say predict({known})")
    threads = get_threads() if kernel.threads is None else kernel.threads
    return predict(program, {s: found[s] for s in program.sizes}, threads)


def count(work: Work) -> int:
    """Operations of a kernel, of all classes together."""
    steps = sum(p.steps for piece in work.pieces for p in piece.products)
    return ceil(sum(work.operations().values())) + steps


def _kernel(work: Work, room: int, threads: int) -> KernelTime:
    total = 0.0
    parts: dict[str, float] = defaultdict(float)
    for piece in work.pieces:
        seconds, limit = _piece(piece, room, threads)
        total += seconds
        parts[limit] += seconds
    limit = max(parts, key=lambda name: parts[name]) if parts else OPERATIONS
    return KernelTime(work.name, work.note, work.bytes, count(work), total, limit)


def _piece(piece: Piece, room: int, threads: int) -> tuple[float, str]:
    """Seconds, and what they go to."""
    busiest = piece.share.busiest(threads, LEAST_WORK) if piece.share else 1.0
    threads = 1 if busiest == 1.0 else threads
    groups: dict[str, float] = defaultdict(float)
    for name, times in piece.counts.items():
        group, each = _each(name)
        groups[group] += times * each
    for p in piece.products:
        groups[PRODUCTS] += _product(p)
    compute = sum(groups.values()) * busiest
    near = piece.near * machine.memory("read", piece.near_set) * busiest
    far = piece.read * machine.memory("read", room, threads)
    far += piece.written * machine.memory("write", room, threads)
    far *= busiest * threads
    seconds, longest = hypot(compute, near, far), max(compute, near, far)
    if longest == far and far > compute:
        return seconds, MEMORY
    if longest == near and near > compute:
        return seconds, CACHE
    gates = {g: s for g, s in groups.items() if g.startswith("gates")}
    if gates and sum(gates.values()) * busiest > 0.5 * compute:
        return seconds, max(gates, key=lambda g: gates[g])
    return seconds, max(groups, key=lambda g: groups[g]) if groups else OPERATIONS


def _each(name: str) -> tuple[str, float]:
    """The group of a class of operations, and the seconds of one."""
    kind = "vector"
    if name.startswith("scalar "):
        kind, name = "scalar", name.removeprefix("scalar ")
    what, *rest = name.split(" ")
    if what == "call":
        gate, *dtypes = rest
        *operands, result = (DTYPES[d] for d in dtypes)
        return f"gates: {gate}", machine.gate(gate, tuple(operands), result, kind)
    if rest:
        return DIVISIONS, machine.division(what, DTYPES[rest[0]], kind)
    if name in ("vector", "scalar"):
        return OPERATIONS, machine.operation(name)
    if _GROUPS[name] in (APART, SCANS):
        return _GROUPS[name], machine.apart(name)
    return _GROUPS[name], machine.start(name)


def _product(p: Product) -> float:
    seconds = p.steps * machine.multiply_add(p.dtype) + p.tiles * machine.product("tile", p.dtype)
    copy = machine.memory("read", p.packed) + machine.memory("write", p.packed)
    return seconds + p.count * (machine.product("call", p.dtype) + p.packed * copy)


__all__ = ["KernelTime", "Prediction", "count", "duration", "predict", "predicted"]
