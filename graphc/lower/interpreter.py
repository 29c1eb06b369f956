"""The loop IR's slow interpreter: what a program means, bit for bit, before and after `plan`.

In:   a `Program`, arrays in the order of its inputs, and the values of its named sizes.
Out:  arrays in the order of its output buffers.
Invariant: the result is that of running every loop one iteration after the other. Memory begins as
poison; after `plan` all temps are views into one arena at their offsets, so a lifetime that is too
short changes the result. A loop whose iterations share scratch or go on from one another runs
iteration by iteration, any other all at once: a value in it is an array with an axis for each such
loop around it.

>>> from graphc.lower.loop_text import parse_program
>>> run_program(parse_program(EXAMPLE), [np.arange(6.0).reshape(3, 2)], {"n": 3})
[array([1., 5., 9.]), array([6., 9.])]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from graphc.errors import ShapeError, VerifyError
from graphc.gates.contraction import contract_reference
from graphc.gates.gate import registry
from graphc.gates.indexing import checked
from graphc.gates.reduction import Reduction, tree_reduce
from graphc.gates.scan import start_of, step_of
from graphc.ir.reference import run_instruction, run_scalar
from graphc.ir.scalar import Instruction, from_bits
from graphc.ir.types import Atom, Dim, Size, evaluate
from graphc.lower.loops import (
    RUNNING,
    VARIABLES,
    Acc,
    Add,
    Buffer,
    Contract,
    Fill,
    For,
    Index,
    Inside,
    Iota,
    Kernel,
    Let,
    Load,
    Operand,
    Program,
    Scatter,
    Statement,
    Step,
    Store,
    is_running,
    walk,
)
from graphc.lower.plan import tree_name, work_name

POISON = 0xA5
EXAMPLE = """program sums(X: f64[n,2])
sizes n
buffer output r.out: f64[n]
buffer output c.out: f64[2]
kernel k0
  for _i in n rows
    acc %1: f64 sum rows into c.out[0] size 2
    for _j in 2 vector
      acc %2: f64 sum lanes
      %3 = load X[2*_i+_j] : f64
      add %1[_j] %3
      add %2 %3
    store r.out[_i] %2
"""

Array = np.ndarray
Number = int | Array  # an index: one number, or one for each point of the axes


def run_program(
    program: Program, inputs: Sequence[np.ndarray], sizes: Mapping[str, int]
) -> list[np.ndarray]:
    """The outputs, in the order of the output buffers; IndexOutOfBounds where an `Index` fails."""
    memory = _memory(program, inputs, sizes)
    with np.errstate(all="ignore"):
        for kernel in program.kernels:
            _Run(program, kernel, memory, sizes).body(kernel.body)
    return [
        memory[b.name].reshape([evaluate(s, sizes) for s in b.type.shape])
        for b in program.of_role("output")
    ]


# -- memory ---------------------------------------------------------------------------------------


def _memory(
    program: Program, inputs: Sequence[np.ndarray], sizes: Mapping[str, int]
) -> dict[str, Array]:
    """Every buffer as a flat array."""
    memory: dict[str, Array] = {}
    for b, x in zip(program.of_role("input"), inputs, strict=True):
        memory[b.name] = _input(b, x, sizes)
    arena = np.full(evaluate(program.arena or 0, sizes), POISON, np.uint8)
    for b in program.buffers:
        if b.role == "constant":
            memory[b.name] = np.frombuffer(b.data, b.type.dtype.numpy)
        elif b.donor:
            memory[b.name] = memory[b.donor]
            memory[b.name].flags.writeable = True
        elif b.role != "input":
            memory[b.name] = _writable(b, arena, sizes)
    return memory


def _input(b: Buffer, x: np.ndarray, sizes: Mapping[str, int]) -> Array:
    shape = tuple(evaluate(s, sizes) for s in b.type.shape)
    if np.shape(x) != shape:
        raise ShapeError(f"input {b.name} is {b.type}, got the shape {np.shape(x)}")
    flat = np.array(x, b.type.dtype.numpy, order="C").reshape(-1)
    flat.flags.writeable = False
    return flat


def _writable(b: Buffer, arena: Array, sizes: Mapping[str, int]) -> Array:
    count = evaluate(b.type.bytes_expr(), sizes)
    if b.offset is None or b.panel:  # here, all rows of a sweep are computed at once
        return np.full(count, POISON, np.uint8).view(b.type.dtype.numpy)
    start = evaluate(b.offset, sizes)
    if start + count > arena.size:
        raise VerifyError(f"{b.name} ends at byte {start + count} of an arena of {arena.size}")
    return arena[start : start + count].view(b.type.dtype.numpy)


# -- one kernel -----------------------------------------------------------------------------------


@dataclass
class _Folding:
    """What a loop's iterations add."""

    acc: Acc
    var: str
    depth: int  # the axes around the loop
    parts: list[Array]  # for each operand: (axes around the loop, iteration, element)


@dataclass
class _Running:
    """What a loop's iterations have come to: (axes around the loop, element)."""

    acc: Acc
    depth: int
    now: Array


class _Run:
    """The state within one kernel: values by name, an axis for each loop that runs all at once."""

    def __init__(
        self, program: Program, kernel: Kernel, memory: dict[str, Array], sizes: Mapping[str, int]
    ) -> None:
        self.memory, self.sizes = memory, sizes
        self.sequential = _sequential(program, kernel)
        self.values: dict[str, Array] = {}
        self.foldings: dict[str, _Folding] = {}
        self.running: dict[str, _Running] = {}
        self.axes: list[tuple[str, int]] = []
        self.fixed: dict[str, int] = {}  # the variables of loops that run iteration by iteration

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(n for _, n in self.axes)

    def body(self, body: tuple[Statement, ...]) -> None:
        for s in body:
            match s:
                case Let():
                    self.values[s.name] = self._let(s)
                case Iota():
                    self.values[s.name] = self._whole(s.value)
                case Inside():
                    value, low, high = map(self._whole, (s.value, s.low, s.high))
                    self.values[s.name] = (low <= value) & (value < high)
                case Load(only=""):
                    place = self._place(s.buffer, s.index, s.at)
                    self.values[s.name] = self.memory[s.buffer][place]
                case Load():
                    place, read = self._place(s.buffer, s.index, s.at, s.only), self.value(s.only)
                    self.values[s.name] = made = np.zeros(self.shape, s.dtype.numpy)
                    made[read] = self.memory[s.buffer][place[read]]
                case Index():
                    value, size = self.value(s.value), evaluate(s.size, self.sizes)
                    self.values[s.name] = np.asarray(checked(value, size))
                case Store(only=name) if name:
                    place, written = self._place(s.buffer, s.index, (), name), self.value(name)
                    self.memory[s.buffer][place[written]] = self.value(s.value)[written]
                case Store():
                    self.memory[s.buffer][self._place(s.buffer, s.index)] = self.value(s.value)
                case Scatter():
                    self._scatter(s)
                case Fill():
                    self._fill(s)
                case Add():
                    self._add(s)
                case Step():
                    self.values[s.name] = self._step(s)
                case Contract():
                    self._contract(s)
                case For():
                    self._loop(s)

    def value(self, name: str) -> Array:
        """A value with all axes of this place."""
        x = self.values[name]
        return np.broadcast_to(x.reshape((*x.shape, *(1,) * (len(self.axes) - x.ndim))), self.shape)

    def _number(self, size: Size) -> Number:
        """An index at each point of the axes."""
        if isinstance(size, int):
            return size
        total: Number = 0
        for monomial, c in size.terms:
            term: Number = c
            for atom in monomial:
                known = self._symbol(atom) if isinstance(atom, str) else self._function(atom)
                term = term * known
            total = total + term
        return total

    def _function(self, atom: Atom) -> int:
        return evaluate(Dim({(atom,): 1}), self.sizes)

    def _symbol(self, name: str) -> Number:
        for axis, (var, n) in enumerate(self.axes):
            if var == name:
                return np.arange(n).reshape(n, *(1,) * (len(self.axes) - axis - 1))
        return self.fixed[name] if name in self.fixed else self.sizes[name]

    def _whole(self, size: Size) -> Array:
        return np.broadcast_to(np.asarray(self._number(size), np.int64), self.shape)

    def _let(self, s: Let) -> Array:
        ins = Instruction(s.op, (), s.dtype, s.attr)
        made = run_instruction(ins, [self.value(a) for a in s.args], self.shape)
        return np.asarray(made).reshape(self.shape)

    def _place(
        self, buffer: str, index: Size, at: tuple[tuple[str, Size], ...] = (), only: str = ""
    ) -> Array:
        """Where a statement reads or writes, at each point of the axes, or only at some of them."""
        place = self._whole(index)
        for value, stride in at:
            place = place + self.value(value) * self._number(stride)
        size = self.memory[buffer].size
        if only:
            place = np.where(self.value(only), place, 0)
            size = max(size, 1)  # nowhere, perhaps
        if place.size and not 0 <= place.min() <= place.max() < size:
            raise VerifyError(
                f"{buffer}[{index}] goes from {place.min()} to {place.max()}, of {size} elements"
            )
        return place

    def _scatter(self, s: Scatter) -> None:
        memory = self.memory[s.buffer]
        places = self._place(s.buffer, s.index, s.at).reshape(-1)
        for place, v in zip(places, self.value(s.value).reshape(-1), strict=True):
            memory[place] = memory[place] + v

    def _fill(self, s: Fill) -> None:
        start, size = evaluate(s.index, self.sizes), evaluate(s.size, self.sizes)
        memory = self.memory[s.buffer]
        if not 0 <= start <= start + size <= memory.size:
            raise VerifyError(f"{s.buffer}[{s.index}] is filled beyond its {memory.size} elements")
        bits = s.bits.to_bytes(memory.itemsize, "little")
        memory[start : start + size] = np.frombuffer(bits, memory.dtype)[0]

    # -- loops ------------------------------------------------------------------------------------

    def _loop(self, loop: For) -> None:
        n = evaluate(loop.size, self.sizes)
        for acc in loop.accs:
            self._scribble(tree_name(acc))
            if acc.order == RUNNING:
                self.running[acc.name] = self._start(acc)
            else:
                self.foldings[acc.name] = self._folding(acc, loop.var, n)
        if id(loop) in self.sequential:
            for i in range(n):
                self.fixed[loop.var] = i
                self.body(loop.body)
            self.fixed.pop(loop.var, None)
        else:
            self.axes.append((loop.var, n))
            self.body(loop.body)
            self.axes.pop()
        for acc in loop.accs:
            self._scribble(tree_name(acc))
            if acc.order == RUNNING:
                self._finish(acc, self.running.pop(acc.name).now)
            else:
                self._finish(acc, _fold(self.foldings.pop(acc.name)))

    def _folding(self, acc: Acc, var: str, n: int) -> _Folding:
        shape = (*self.shape, n, evaluate(acc.size, self.sizes))
        parts = [np.full(shape, v, acc.dtype.numpy) for v in _nothing(acc)]
        return _Folding(acc, var, len(self.axes), parts)

    def _add(self, s: Add) -> None:
        folding = self.foldings[s.acc]
        around = [self._symbol(var) for var, _ in self.axes[: folding.depth]]
        where = (*around, self._symbol(folding.var), self._number(s.index))
        for part, value in zip(folding.parts, s.values, strict=True):
            if part.size:
                part[where] = self.value(value)

    def _start(self, acc: Acc) -> _Running:
        before = from_bits(start_of(acc.monoid, acc.dtype), acc.dtype)
        shape = (*self.shape, evaluate(acc.size, self.sizes))
        return _Running(acc, len(self.axes), np.full(shape, before, acc.dtype.numpy))

    def _step(self, s: Step) -> Array:
        """One step of each running value that this iteration touches."""
        running = self.running[s.acc]
        around = [self._symbol(var) for var, _ in self.axes[: running.depth]]
        where = (*around, self._whole(s.index))
        step = step_of(running.acc.monoid, running.acc.dtype)
        made = np.asarray(run_scalar(step, running.now[where], *map(self.value, s.values)))
        running.now[where] = made
        return made.reshape(self.shape)

    def _finish(self, acc: Acc, total: Array) -> None:
        """An array accumulator is written to its buffer, a scalar one becomes a value."""
        if not acc.into:
            self.values[acc.name] = total[..., 0]
            return
        first = self._place_of_first(acc)
        self.memory[acc.into][first[..., None] + np.arange(total.shape[-1])] = total

    def _place_of_first(self, acc: Acc) -> Array:
        first = self._whole(acc.index)
        last = first + evaluate(acc.size, self.sizes) - 1
        if first.size and not 0 <= first.min() <= last.max() + 1 <= self.memory[acc.into].size:
            raise VerifyError(f"the accumulator {acc.name} reaches beyond {acc.into}")
        return first

    def _scribble(self, name: str) -> None:
        """Compiled code uses this memory: whatever else lives there is lost."""
        if name in self.memory:
            self.memory[name].view(np.uint8)[:] = POISON

    # -- matrix products --------------------------------------------------------------------------

    def _contract(self, s: Contract) -> None:
        if self.axes or self.fixed:
            raise VerifyError("a contraction stands inside of a loop")
        self._scribble_private(s)
        out = [letter for letter, _ in s.out.strides]
        extents = {letter: evaluate(n, self.sizes) for letter, n in s.sizes}
        a, b = (self.memory[o.buffer][self._grid(o, [s.k, *out], extents)] for o in (s.a, s.b))
        result = contract_reference(a, b, s.order)
        self._scribble_private(s)
        self.memory[s.out.buffer][self._grid(s.out, out, extents)] = result

    def _scribble_private(self, s: Contract) -> None:
        self._scribble(work_name(s))

    def _grid(self, o: Operand, letters: Sequence[str], extents: Mapping[str, int]) -> Array:
        """The place of an operand's element at each point of the letters."""
        strides = dict(o.strides)
        place = np.full([extents[c] for c in letters], self._number(o.index), np.int64)
        for axis, c in enumerate(letters):
            steps = np.arange(extents[c]) * evaluate(strides.get(c, 0), self.sizes)
            place += steps.reshape(-1, *(1,) * (len(letters) - axis - 1))
        if place.size and not 0 <= place.min() <= place.max() < self.memory[o.buffer].size:
            raise VerifyError(f"a contraction reaches beyond {o.buffer}")
        return place


def _sequential(program: Program, kernel: Kernel) -> set[int]:
    """The loops at or outside of the scope of scratch that is touched inside of them, and those
    whose iterations go on from each other."""
    found: set[int] = set()
    for s, outer in walk(kernel.body):
        if isinstance(s, For) and is_running(s):
            found.add(id(s))
        names = [a.into for a in s.accs] if isinstance(s, For) else [getattr(s, "buffer", "")]
        scopes = (b.scope for b in map(program.buffer, filter(None, names)) if not b.panel)
        for deepest in map(VARIABLES.index, filter(None, scopes)):
            found.update(id(f) for f in outer if VARIABLES.index(f.var) <= deepest)
    return found


def _reduction(acc: Acc) -> Reduction:
    gate = registry()[acc.monoid]
    assert isinstance(gate, Reduction) and gate.identity is not None
    return gate


def _nothing(acc: Acc) -> tuple[float | int | bool, ...]:
    """What changes no result: the reduction's identity, or a product of -0.0."""
    if acc.monoid == "fma":
        return (-0.0, 0.0)
    return (_reduction(acc).identity(acc.dtype),)  # type: ignore[misc]


def _fold(folding: _Folding) -> Array:
    """The accumulator's values after its loop, folded in its order."""
    acc, axis = folding.acc, folding.depth
    if acc.monoid == "fma":
        a, b = (np.moveaxis(x, axis, 0) for x in folding.parts)
        return contract_reference(a, b, acc.order)
    gate = _reduction(acc)
    assert gate.identity is not None
    combine = gate.combine.body_graph((acc.dtype, acc.dtype))  # type: ignore[union-attr]
    fold = partial(run_scalar, combine)
    return tree_reduce(folding.parts[0], axis, acc.order, fold, gate.identity(acc.dtype))
