"""Random graphs of every gate, with data: `directed(chunk, index)` is a graph, its runs and what
they must give.

A `Draft` grows a graph node by node and runs each node's reference at once, so that it knows its
values: indices are in bounds, sizes fit for every value of the symbolic ones, special values are
there. Gates are dealt out in blocks: the graph of a producer block and a consumer block holds every
pair that types allow, so that the graphs of all blocks of a chunk hold every pair of its gates.
Functions of floats, which are many and alike for the compiler, take part in turns (`taking_part`).
What types allow is found by trying, on operands of every dtype and rank (`possible_pairs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from graphc.errors import DTypeError, GateError, IndexOutOfBounds, ShapeError
from graphc.gates.contraction import contract_order
from graphc.gates.gate import registry
from graphc.gates.reduction import SUMS
from graphc.ir.graph import Builder, Graph, Node, Value, sum_order
from graphc.ir.scalar import to_bits
from graphc.ir.types import (
    DTYPES,
    Dim,
    TensorType,
    bool_,
    evaluate,
    f32,
    f64,
    i32,
    i64,
    product,
    size_floordiv,
    size_max,
    size_min,
)

BLOCK = 8  # gates in a block
# The families whose gates are functions of floats, by the modules of their records.
FUNCTIONS = (
    "exponential",
    "trigonometric",
    "hyperbolic",
    "roots",
    "error",
    "gamma",
    "pairs",
)
TURNS = 4  # a function takes part once in so many chunks, as producer and as consumer
ELEMENTS = 800  # at most, in any array
LENGTHS = (1, 2, 3, 4, 5, 6, 2, 3, 4, 1, 7, 8, 9, 17, 33, 65, 0)
SOURCES = ("input", "constant", "size", "iota")
N, M = Dim.symbol("n"), Dim.symbol("m")


@dataclass(frozen=True)
class Run:
    """One call of a graph: the values of its named sizes, its arguments, and its outputs by the
    reference.
    """

    sizes: dict[str, int]
    args: list[np.ndarray]
    expected: list[np.ndarray]


@dataclass(frozen=True)
class Case:
    name: str
    graph: Graph
    runs: tuple[Run, ...]


# -- data ------------------------------------------------------------------------------------------


def special_values(dtype):
    if dtype.is_bool:
        return np.array([False, True])
    if dtype.is_int:
        info = np.iinfo(dtype.numpy)
        return np.array([info.min, info.max, info.min + 1, 0, -1, 1, 2, 31, 64, 3, -7], dtype.numpy)
    info = np.finfo(dtype.numpy)
    some = [
        0.0,
        1.0,
        0.5,
        2.5,
        np.inf,
        info.max,
        info.tiny,
        info.smallest_subnormal,
        3e5,
        1e-5,
        88.0,
        7e9,
    ]
    often = [-0.0, -0.0, 0.0, np.nan, np.nan, 1.0]
    return np.array([*some, *(-v for v in some), *often * 2], dtype.numpy)


def random_data(rng, ty, shape, style):
    """Ordinary numbers; `special` mixes in the edges of the dtype, `small` has only -1, 0, 1."""
    dtype = ty.dtype
    if dtype.is_bool:
        return rng.integers(0, 2, shape).astype(bool)
    if style == "small":
        return rng.integers(-1, 2, shape).astype(dtype.numpy)
    if dtype.is_int:
        x = rng.integers(-9, 10, shape).astype(dtype.numpy)
    else:
        x = (rng.normal(size=shape) * rng.choice([0.3, 1.0, 4.0])).astype(dtype.numpy)
        x = np.where(rng.random(shape) < 0.06, rng.choice([0.0, -0.0], shape), x)
    if style == "special":
        edges = special_values(dtype)
        x = np.where(rng.random(shape) < 0.4, edges[rng.integers(0, edges.size, shape)], x)
    return np.asarray(x, dtype.numpy)


# -- growing a graph -------------------------------------------------------------------------------


class Draft:
    """A graph that grows. Methods that may fail give None."""

    def __init__(self, seed, sizes=({"n": 3, "m": 4},), special=0.45, symbolic=0.6):
        self.rng = np.random.default_rng(seed)
        self.builder = Builder()
        self.sizes = [dict(s) for s in sizes]
        self.special = special
        self.elements = ELEMENTS
        self.values: dict[Node, list[np.ndarray]] = {}  # for each run
        self.pool: list[Value] = []
        self.wanted: set[tuple[str, str]] = set()  # pairs to prefer
        self.read: set[Node] = set()
        self.allowed = lambda node, arrays: True
        self.floats = (
            (f64, f32) if self.rng.random() < 0.25 else ((f64,), (f32,))[int(self.rng.integers(2))]
        )
        self.ints = ((i64,), (i32,))[int(self.rng.random() < 0.35)]
        self.axes = [int(self.pick(LENGTHS)) for _ in range(2)]
        if self.rng.random() < symbolic:
            self.axes = [self.axes[0], N, N, self.pick((M, 1))]
        self.style = ""  # of the next inputs

    def pick(self, items):
        return items[int(self.rng.integers(len(items)))]

    def chance(self, p):
        return self.rng.random() < p

    def shuffled(self, items):
        items = list(items)
        return [items[i] for i in self.rng.permutation(len(items))]

    # Nodes.

    def add(self, op, /, *operands, **attrs):
        """A node with its values, or None where it does not fit or has no value."""
        try:
            v = self.builder.apply(op, *operands, **attrs)
        except (ShapeError, DTypeError, GateError):
            return None
        if v.node in self.values:
            return v
        if not self._fits(v.node.type):
            return None
        arrays = self._run(v.node)
        if arrays is None or not self.allowed(v.node, arrays):
            return None
        self.values[v.node] = arrays
        self.pool.append(v)
        self.read.update(v.node.args)
        self.wanted.difference_update((a.op, op) for a in v.node.args)
        return v

    def _fits(self, ty):
        return all(
            0 <= min(shape, default=0) and np.prod(shape) <= self.elements
            for shape in map(self.shape_in(ty), self.sizes)
        )

    def shape_in(self, ty):
        return lambda sizes: tuple(evaluate(s, sizes) for s in ty.shape)

    def _run(self, node):
        arrays = []
        for i, sizes in enumerate(self.sizes):
            try:
                with np.errstate(all="ignore"):
                    x = node.gate.reference(node, [self.values[a][i] for a in node.args], sizes)
            except (ShapeError, IndexOutOfBounds):
                return None
            x = np.asarray(x)
            assert x.shape == self.shape_in(node.type)(sizes), (
                f"{node!r}: the reference gives the shape {x.shape}"
            )
            assert x.dtype == node.type.dtype.numpy, f"{node!r}: the reference gives {x.dtype}"
            arrays.append(x)
        return arrays

    def input(self, ty, style="", data=None):
        name = f"x{len(self.builder.inputs)}"
        v = self.builder.input(name, ty)
        style = style or self.style or ("special" if self.chance(self.special) else "plain")
        make = data or (lambda shape: random_data(self.rng, ty, shape, style))
        self.values[v.node] = [
            np.asarray(make(shape), ty.dtype.numpy) for shape in map(self.shape_in(ty), self.sizes)
        ]
        self.pool.append(v)
        return v

    def constant(self, ty):
        """One number everywhere, or a small array."""
        static = all(isinstance(s, int) for s in ty.shape)
        if static and ty.rank and np.prod(ty.shape) <= 24 and self.chance(0.3):
            data = random_data(self.rng, ty, ty.shape, self.style or "plain")
            v = self.builder.array(data, ty)
        else:
            edges = (
                [0, 0, 0, 1, -1, 2, -0.0 if ty.dtype.is_float else 3]
                if self.style or self.chance(0.7)
                else special_values(ty.dtype).tolist()
            )
            number = self.pick(edges)
            v = self.builder.constant(bool(number) if ty.dtype.is_bool else number, ty)
        return self._source(v)

    def _source(self, v):
        if v.node not in self.values:
            arrays = self._run(v.node)
            assert arrays is not None
            self.values[v.node] = arrays
            self.pool.append(v)
        return v

    def source(self, op, dtype):
        if op == "input":
            return self.input(TensorType(dtype, self.shape()))
        if op == "constant":
            return self.constant(TensorType(dtype, self.shape()))
        if op == "size":
            return self._source(
                self.builder.apply(
                    "size", size=self.pick([N, N + 2, N * M, size_floordiv(N + 1, 2)])
                )
            )
        shape = self.shape(int(self.rng.integers(1, 4)))
        return self._source(
            self.builder.apply("iota", axis=int(self.rng.integers(len(shape))), shape=shape)
        )

    def shape(self, rank=None):
        """A shape over this graph's sizes; all sizes are 1 where those are too large together."""
        rank = self.pick((0, 1, 1, 2, 2, 2, 3, 3)) if rank is None else rank
        for _ in range(6):
            made = tuple(self.pick(self.axes) for _ in range(rank))
            if self._fits(TensorType(f64, made)):
                return made
        return (1,) * rank

    def dtype(self):
        return self.pick((*self.floats * 2, *self.ints, bool_))

    # Operands.

    def operand(self, ty, consumer="", beside=None):
        """A value of exactly this type: one that is there, one that is brought to it, or a new one.

        It is rarely the value beside which it will stand.
        """
        same = [v for v in self.pool if v.node.type == ty]
        if beside is not None and self.chance(0.6):
            same = [v for v in same if v.node is not beside.node]
        needed = [v for v in same if (v.node.op, consumer) in self.wanted]
        if needed and self.chance(0.8):
            return self.pick(needed)
        unread = [v for v in same if v.node not in self.read and v.node.op not in SOURCES]
        if unread and self.chance(0.7):
            return self.pick(unread)
        if same and self.chance(0.7):
            return self.pick(same[-12:])
        if ty.rank and self.chance(0.4):
            narrow = [
                v
                for v in self.pool
                if v.dtype is ty.dtype and v.shape != ty.shape and _broadcasts(v.shape, ty.shape)
            ]
            if narrow:
                found = self.add("broadcast", self.pick(narrow[-12:]), shape=ty.shape)
                if found is not None:
                    return found
        if not self.style and same and len(self.builder.inputs) > 14:
            return self.pick(same)
        return self.constant(ty) if self.chance(0.3) else self.input(ty)

    def consume(self, op, x, slot=None):
        """A node of a gate that has x among its operands."""
        gate = registry()[op]
        maker = _BY_NAME.get(op) or _BY_KIND[gate.kind]
        return maker(self, gate, x, slot)

    def produce(self, op, dtypes=None):
        """A node of a gate, over operands new or old."""
        if op in SOURCES:
            return self.source(op, self.pick(dtypes) if dtypes else self.dtype())
        for _ in range(12):
            dtype = self.pick(dtypes) if dtypes and self.chance(0.7) else self.dtype()
            old = [v for v in self.pool if v.dtype is dtype]
            x = (
                self.pick(old)
                if old and self.chance(0.5) and not self.style
                else self.operand(TensorType(dtype, self.shape()), op)
            )
            made = self.consume(op, x)
            if made is not None:
                return made
        return None

    def pair(self, producer, consumer):
        """A node of the one gate with a node of the other among its operands."""
        for v in self.shuffled([v for v in self.pool if v.node.op == producer])[:3]:
            if self.consume(consumer, v) is not None:
                return True
        axes, found = self.axes, None
        for attempt in range(100):
            self.style = "small" if attempt % 2 or consumer in ("take", "scatter_add") else ""
            self.axes = axes if attempt < 10 else [2, 3, 1]  # an empty axis suits few
            dtypes = None if attempt < 6 else (self.pick(tuple(DTYPES.values())),)
            made = self.produce(producer, dtypes)
            found = None if made is None else self.consume(consumer, made)
            if found is not None:
                break
        self.style, self.axes = "", axes
        return found is not None

    # The result.

    def case(self, name, outputs):
        graph = self.builder.graph(name, outputs)
        for size in (N, M):  # a size that only computed values have needs an input that carries it
            carried = any(size in n.type.shape for n in graph.inputs)
            if not carried and any(size.text in used_sizes(n) for n in graph.nodes):
                self.input(TensorType(self.floats[0], (size,)))
        graph = self.builder.graph(name, outputs)
        runs = []
        for i, sizes in enumerate(self.sizes):
            args = [self.values[n][i] for n in graph.inputs]
            expected = [np.ascontiguousarray(self.values[n][i]) for n in graph.output_nodes]
            expected = [
                x.reshape(self.shape_in(n.type)(sizes))
                for x, n in zip(expected, graph.output_nodes, strict=True)
            ]
            used = {s: sizes[s] for s in graph.sizes}
            runs.append(
                Run(used, [np.ascontiguousarray(a).reshape(np.shape(a)) for a in args], expected)
            )
        return Case(name, graph, tuple(runs))

    def outputs(self):
        """Every value that nothing reads, and some others: read ones, inputs, constants, one of
        them twice.
        """
        ends = [v for v in self.pool if v.node not in self.read and v.node.op not in SOURCES]
        extra = [v for v in self.pool if self.chance(0.04)] + (
            [self.pick(ends)] if ends and self.chance(0.3) else []
        )
        made = self.shuffled([*ends, *extra]) or [self.pool[0]]
        return {f"y{i}": v for i, v in enumerate(made)}


def used_sizes(node):
    """The names of sizes in a node's type and attributes."""
    parts = [
        *node.type.shape,
        *(p for _, v in node.attrs for p in (v if isinstance(v, tuple) else (v,))),
    ]
    return {s for p in parts if isinstance(p, Dim) for s in p.symbols()}


def _broadcasts(narrow, wide):
    tail = wide[len(wide) - len(narrow) :]
    return len(narrow) <= len(wide) and all(
        a == b or a == 1 for a, b in zip(narrow, tail, strict=True)
    )


# -- gates over a given operand, by kind -----------------------------------------------------------


def _elementwise(d, gate, x, slot):
    count = len(gate.params)
    slots = [slot] if slot is not None else [int(s) for s in d.rng.permutation(count)]
    attrs = {"dtype": d.pick((*DTYPES.values(), *d.floats))} if gate.attrs else {}
    for at in slots:
        dtypes = [x.dtype] * count
        if gate.choice:
            other = d.dtype() if at == 0 else x.dtype
            dtypes = [bool_, other, other]
        if dtypes[at] is not x.dtype:
            continue
        try:
            gate.result_dtype(tuple(dtypes))
        except DTypeError:
            continue
        operands = [
            x if i == at else d.operand(TensorType(t, x.shape), gate.name, x)
            for i, t in enumerate(dtypes)
        ]
        return d.add(gate.name, *operands, **attrs)
    return None


def _broadcast(d, gate, x, slot):
    lead = tuple(d.pick(d.axes) for _ in range(d.pick((0, 1, 1, 2)) if x.type.rank < 3 else 0))
    tail = tuple(d.pick(d.axes) if s == 1 and d.chance(0.7) else s for s in x.shape)
    return d.add("broadcast", x, shape=lead + tail)


def _transpose(d, gate, x, slot):
    return d.add("transpose", x, perm=tuple(int(p) for p in d.rng.permutation(x.type.rank)))


def _expand_dims(d, gate, x, slot):
    rank = x.type.rank + d.pick((1, 1, 2))
    axes = sorted(d.rng.choice(rank, rank - x.type.rank, replace=False).tolist())
    return d.add("expand_dims", x, axes=tuple(axes)) if rank <= 4 else None


def _squeeze(d, gate, x, slot):
    axes = tuple(i for i, s in enumerate(x.shape) if s == 1 and d.chance(0.8))
    return d.add("squeeze", x, axes=axes)


def _slice(d, gate, x, slot):
    starts, shape, steps = [], [], []
    for s in x.shape:
        single = [(int(d.rng.integers(s)), 1, d.pick((1, -1)))] if isinstance(s, int) and s else []
        options = [
            (0, s, 1), (0, s, 1), (s - 1, s, -1), (s - 1, s, -1), (0, size_floordiv(s + 1, 2), 2),
            (s - 1, size_floordiv(s + 2, 3), -3),
            (1, size_max(s - 1, 0), 1), (0, size_min(s, 2), 1), (1, size_floordiv(s, 2), 2),
            *single,
        ]  # fmt: skip
        start, size, step = d.pick(options)
        starts.append(start)
        shape.append(size)
        steps.append(step)
    return d.add("slice", x, starts=tuple(starts), shape=tuple(shape), steps=tuple(steps))


def _reshape(d, gate, x, slot):
    shape = list(x.shape)
    options = [(product(shape),), (*shape, 1), (1, *shape)]
    for i in range(len(shape) - 1):
        options.append((*shape[:i], shape[i] * shape[i + 1], *shape[i + 2 :]))
    for i, s in enumerate(shape):
        if isinstance(s, int) and s > 3 and s % 2 == 0:
            options.append((*shape[:i], 2, s // 2, *shape[i + 1 :]))
    if len(shape) > 1:
        options.append(tuple(reversed(shape)))
    made = d.pick(options)
    return d.add("reshape", x, shape=made) if len(made) <= 4 else None


def _place(d, gate, x, slot):
    starts, shape, steps = [], [], []
    for s in x.shape:
        before, after, step = (int(v) for v in d.rng.integers(0, 3, 3))
        if step == 0:  # backwards
            starts.append(s - 1 + before)
            shape.append(s + before + after)
            steps.append(-1)
        else:
            starts.append(before)
            shape.append(before + step * s + after)
            steps.append(step)
    numbers = (
        [0, 1, 2]
        if x.dtype.is_int
        else [False, True]
        if x.dtype.is_bool
        else [0.0, -0.0, 1.0, float("nan")]
    )
    fill = to_bits(d.pick(numbers), x.dtype)
    return d.add(
        "place", x, starts=tuple(starts), shape=tuple(shape), steps=tuple(steps), fill=fill
    )


def _concat(d, gate, x, slot):
    if not x.type.rank:
        return None
    axis = int(d.rng.integers(x.type.rank))
    others = []
    for _ in range(d.pick((1, 1, 2))):
        size = x.shape[axis] if d.chance(0.5) else d.pick(d.axes)
        others.append(
            d.operand(
                x.type.with_shape(size if i == axis else s for i, s in enumerate(x.shape)), "concat"
            )
        )
    return d.add("concat", *d.shuffled([x, *others]), axis=axis)


def _reduction(d, gate, x, slot):
    if not x.type.rank:
        return None
    axis = int(d.rng.integers(x.type.rank))
    ordered = gate.name in (*SUMS, "prod")
    order = sum_order(x.type, axis) if ordered else "any"
    order = "lanes" if gate.name == "sum0" and x.dtype.is_float else order
    return d.add(gate.name, x, axis=axis, order=order)


def _scan(d, gate, x, slot):
    if not x.type.rank or x.dtype.is_bool:
        return None
    operands = [x, *(d.operand(x.node.type, gate.name, x) for _ in gate.params[1:])]
    operands = d.shuffled(operands) if not slot else operands[::-1]
    axis = int(d.rng.integers(x.type.rank))
    return d.add(gate.name, *operands, axis=axis, reverse=d.chance(0.5))


def _contract(d, gate, x, slot):
    if not x.type.rank or x.dtype.is_bool or x.type.rank > 3:
        return None
    k = int(d.rng.integers(x.type.rank))
    letters = "abcd"[: x.type.rank]
    sizes = dict(zip(letters, x.shape, strict=True))
    shared = [c for c in letters if c != letters[k] and d.chance(0.3)]
    own = [chr(ord("p") + i) for i in range(d.pick((0, 1, 1, 2)))][: 3 - len(shared)]
    sizes.update((c, d.pick(d.axes)) for c in own)
    other = "".join(d.shuffled([letters[k], *shared, *own]))
    out = d.shuffled([c for c in letters + "".join(own) if c != letters[k]])
    y = d.operand(TensorType(x.dtype, tuple(sizes[c] for c in other)), "contract", x)
    first = d.chance(0.5) if slot is None else slot == 0
    spec = f"{letters},{other}->{''.join(out)}" if first else f"{other},{letters}->{''.join(out)}"
    operands = (x, y) if first else (y, x)
    return d.add("contract", *operands, spec=spec, order=contract_order(spec, x.type))


def _bounds(d, x):
    """The smallest and largest element in any run; 0, 0 where there is none."""
    arrays = [a for a in d.values[x.node] if a.size]
    return (
        (min(int(a.min()) for a in arrays), max(int(a.max()) for a in arrays)) if arrays else (0, 0)
    )


def _indices(d, shape, size):
    """Integers of a shape that are indices into an axis of a size."""
    least = min(evaluate(size, s) for s in d.sizes)
    ty = TensorType(d.pick((i64, i32)), tuple(shape))
    if least:
        fitting = [
            v
            for v in d.pool
            if v.node.type == ty and -least <= _bounds(d, v)[0] and _bounds(d, v)[1] < least
        ]
        if fitting and d.chance(0.7):
            return d.pick(fitting)
        return d.input(ty, data=lambda at: d.rng.integers(-least, least, at))
    return d.input(ty.with_shape((0,)), data=np.zeros)


def _index_axis(d, x):
    """A size for the axis that an integer value indexes; None where its numbers are too large."""
    low, high = _bounds(d, x)
    size = max(high + 1, -low, 1)
    return size + int(d.rng.integers(0, 3)) if size <= 40 else None


def _take(d, gate, x, slot):
    if x.dtype.is_int and slot != 0 and (x.type.rank == 0 or d.chance(0.5)):
        size = _index_axis(d, x)
        if size is None or x.type.rank > 2:
            return None
        shape = list(d.shape(d.pick((0, 0, 1))))
        axis = int(d.rng.integers(len(shape) + 1))
        table = d.operand(TensorType(d.dtype(), (*shape[:axis], size, *shape[axis:])), "take")
        return d.add("take", table, x, axis=axis)
    if not x.type.rank:
        return None
    axis = int(d.rng.integers(x.type.rank))
    rank = d.pick((0, 1, 1, 2)) if x.type.rank < 3 else 1
    return d.add("take", x, _indices(d, d.shape(rank), x.shape[axis]), axis=axis)


def _scatter_add(d, gate, x, slot):
    if x.dtype.is_int and slot != 0 and d.chance(0.5):
        size = _index_axis(d, x)
        if size is None or x.type.rank > 2:
            return None
        rest = list(d.shape(d.pick((0, 0, 1))))
        axis = int(d.rng.integers(len(rest) + 1))
        updates = TensorType(d.pick((*d.floats, *d.ints)), (*rest[:axis], *x.shape, *rest[axis:]))
        if not d._fits(updates):
            return None
        return d.add(
            "scatter_add",
            d.operand(updates, "scatter_add"),
            x,
            axis=axis,
            shape=(*rest[:axis], size, *rest[axis:]),
        )
    axis = int(d.rng.integers(x.type.rank + 1))
    covered = int(d.rng.integers(0, min(2, x.type.rank - axis) + 1))
    size = d.pick((1, 2, 3, 4, 6))
    shape = (*x.shape[:axis], size, *x.shape[axis + covered :])
    return d.add(
        "scatter_add", x, _indices(d, x.shape[axis : axis + covered], size), axis=axis, shape=shape
    )


def _composite(d, gate, x, slot):
    if not x.type.rank or x.dtype.is_bool:
        return None
    return d.add(gate.name, x, axis=int(d.rng.integers(x.type.rank)))


@cache
def user_gate(ty):
    """A user's gate over two operands of one float type."""
    b = Builder()
    x, y = b.input("x", ty), b.input("y", ty)
    forward = b.graph("mine", {"out": x * y - x})
    b = Builder()
    ct, x, y = (b.input(name, ty) for name in ("ct", "x", "y"))
    return forward, b.graph("mine_back", {"dx": ct * (y - 1), "dy": ct * x})


def _call(d, gate, x, slot):
    if not x.dtype.is_float:
        return None
    forward, backward = user_gate(x.node.type)
    operands = d.shuffled([x, d.operand(x.node.type, "call", x)])
    return d.add("call", *operands, forward=forward, backward=backward, label="mine")


def _jacobian(d, gate, x, slot):
    """The Jacobian of softmax and its kin, with x as the tangent, the result or the operand."""
    if not x.type.rank or not x.dtype.is_float:
        return None
    at = int(d.rng.integers(3)) if slot is None else slot
    of, axis = d.pick(("softmax", "log_softmax", "logsumexp")), int(d.rng.integers(x.type.rank))
    if of == "logsumexp" and at == 1:
        of = "softmax"
    kept = (
        x.node.type
        if of != "logsumexp"
        else x.node.type.with_shape(s for i, s in enumerate(x.shape) if i != axis)
    )
    types = [x.node.type, kept, x.node.type]
    operands = [x if i == at else d.operand(t, "jacobian", x) for i, t in enumerate(types)]
    return d.add("jacobian", *operands, op=of, items=(("axis", axis),), operands=1)


_BY_KIND = {
    "elementwise": _elementwise,
    "reduction": _reduction,
    "scan": _scan,
    "contraction": _contract,
    "composite": _composite,
}
_BY_NAME = {
    "broadcast": _broadcast, "transpose": _transpose, "expand_dims": _expand_dims,
    "squeeze": _squeeze, "slice": _slice,
    "reshape": _reshape, "place": _place, "concat": _concat, "take": _take,
    "scatter_add": _scatter_add, "call": _call,
    "jacobian": _jacobian,
}  # fmt: skip


# -- every pair of gates ---------------------------------------------------------------------------


@cache
def gates():
    """(producers, consumers), by name."""
    names = tuple(registry())
    return names, tuple(n for n in names if registry()[n].kind != "source")


@cache
def possible_pairs():
    """The pairs (producer, consumer) that types allow: some result of the one, by dtype and rank,
    is an operand of the other.
    """
    producers, consumers = gates()
    kinds = [(dtype, rank) for dtype in DTYPES.values() for rank in range(3)]
    accepts = {c: set() for c in consumers}
    gives = {p: set() for p in producers}
    gives["input"] = gives["constant"] = set(kinds)
    gives["size"], gives["iota"] = {(i64, 0)}, {(i64, 1), (i64, 2)}
    for c in consumers:
        draft = Draft(0, sizes=[{"n": 2, "m": 3}])
        draft.style, draft.axes = "small", [2, 3, N, 1]
        for dtype, rank in kinds:
            for shape in ((1, 3)[:rank], (N, 2)[:rank]):
                for _ in range(3):
                    made = draft.consume(c, draft.input(TensorType(dtype, shape), style="small"))
                    if made is not None:
                        accepts[c].add((dtype, rank))
                        gives[c].add((made.dtype, min(made.type.rank, 2)))
    return {(p, c) for p in producers for c in consumers if gives[p] & accepts[c]}


def blocks_of(names, rng):
    order = [names[i] for i in rng.permutation(len(names))]
    return [order[i : i + BLOCK] for i in range(0, len(order), BLOCK)]


def is_function(name):
    """Whether a gate is one of the many that differ in their bodies alone."""
    return Path(registry()[name].source.rsplit(":", 1)[0]).stem in FUNCTIONS


@cache
def in_turn(names, turn):
    """The gates whose turn it is: all but the functions, of which it is every `TURNS`th."""
    functions = [n for n in names if is_function(n)]
    resting = {n for i, n in enumerate(functions) if i % TURNS != turn}
    return tuple(n for n in names if n not in resting)


@cache
def taking_part(chunk):
    """(producers, consumers) of a chunk; the first TURNS**2 pair all functions."""
    producers, consumers = gates()
    return in_turn(producers, chunk % TURNS), in_turn(consumers, (chunk + chunk // TURNS) % TURNS)


def pairs_of(chunk):
    """The pairs that a chunk holds."""
    producers, consumers = taking_part(chunk)
    return {(p, c) for p in producers for c in consumers} & possible_pairs()


def per_chunk(chunk):
    """How many graphs hold every pair of a chunk once."""
    rows, columns = dealt(chunk)
    return len(rows) * len(columns)


def random_sizes(rng):
    """Two calls: one of ordinary sizes, one with 0, 1 or the length of a vector among them."""
    plain = {"n": int(rng.choice([2, 3, 4, 5])), "m": int(rng.choice([2, 3, 4]))}
    odd = {"n": int(rng.choice([0, 1, 1, 7, 8, 9, 17])), "m": int(rng.choice([0, 1, 2, 6, 8, 16]))}
    return [plain, odd]


@cache
def dealt(chunk):
    """The blocks of producers and of consumers of a chunk."""
    rng = np.random.default_rng([chunk, 7])
    producers, consumers = taking_part(chunk)
    return blocks_of(producers, rng), blocks_of(consumers, rng)


def directed(chunk, index):
    """Graph number `index` of a chunk: every possible pair of its two blocks stands in it."""
    rows, columns = dealt(chunk)
    of, into = rows[index // len(columns)], columns[index % len(columns)]
    rng = np.random.default_rng([chunk, index])
    draft = Draft([chunk, index, 1], sizes=random_sizes(rng))
    possible = possible_pairs()
    todo = [(p, c) for p in of for c in into if (p, c) in possible]
    draft.wanted = set(todo)
    for p, c in draft.shuffled(todo):
        if (p, c) in draft.wanted:
            draft.pair(p, c)
    return draft.case(f"g{chunk}_{index}", draft.outputs())


def holding(producer, consumer, chunk):
    """The graph that holds a pair, of this chunk or of the next in which both take part."""
    while not (producer in taking_part(chunk)[0] and consumer in taking_part(chunk)[1]):
        chunk += 1
    rows, columns = dealt(chunk)
    row = next(i for i, names in enumerate(rows) if producer in names)
    column = next(i for i, names in enumerate(columns) if consumer in names)
    return directed(chunk, row * len(columns) + column)


LONG = (63, 64, 65, 70, 127, 128, 129, 200, 256, 257, 300)
CALM = (
    "add",
    "sub",
    "mul",
    "maximum",
    "neg",
    "square",
    "tanh",
    "sigmoid",
    "exp",
    "where",
    "abs",
    "softplus",
    "div",
    "lt",
)


def grown(seed):
    """A graph as models are: long rows or columns, folded and put back along what they were folded
    from.
    """
    rng = np.random.default_rng([seed, 3])
    n, k = int(rng.choice(LONG)), int(rng.choice([1, 2, 3, 5, 8, 9, 20]))
    rows = [
        {"n": n, "m": k},
        {"n": int(rng.choice([1, 2, 5, 66])), "m": int(rng.choice([1, 3, 8]))},
    ]
    draft = Draft([seed, 4], sizes=rows, special=0.1)
    draft.elements = 7000
    draft.axes = draft.pick(([N, M], [N, k], [n, M], [n, k], [M, N], [N]))
    x = draft.input(
        TensorType(draft.floats[0], (draft.axes[0], draft.axes[-1])[: draft.pick((1, 2, 2, 2))])
    )
    for _ in range(int(rng.integers(8, 22))):
        old = [v for v in draft.pool if v.dtype.is_float or draft.chance(0.2)]
        x = x if draft.chance(0.5) else draft.pick(old or draft.pool)
        x = draft.pick((_fold, _fold, _point, _point, _point, _move))(draft, x) or x
    return draft.case(f"grown{seed}", draft.outputs())


def _point(d, x):
    return d.consume(d.pick(CALM), x)


def _move(d, x):
    return d.consume(
        d.pick(
            (
                "transpose",
                "slice",
                "concat",
                "take",
                "scatter_add",
                "contract",
                "contract",
                "softmax",
                "place",
            )
        ),
        x,
    )


def _fold(d, x):
    """A reduction, and often the result along the folded axis, met with what was folded."""
    if not x.type.rank or x.dtype.is_bool:
        return None
    axis = int(d.rng.integers(x.type.rank))
    op = d.pick(("sum", "sum0", "max", "prod", "logsumexp", "argmax", "cumsum", "recurrence"))
    if registry()[op].kind == "scan":
        run = d.consume(op, x)
        return run and d.add(d.pick(("sub", "mul", "lt", "add")), *d.shuffled([x, run])) or run
    order = sum_order(x.type, axis) if op in (*SUMS, "prod") else "any"
    order = "lanes" if op == "sum0" and x.dtype.is_float else order
    folded = d.add(op, x, axis=axis, **({} if op in ("logsumexp", "argmax") else {"order": order}))
    if folded is None or d.chance(0.4):
        return folded
    narrow = d.add("expand_dims", folded, axes=(axis,))
    wide = d.add("broadcast", narrow, shape=x.shape)
    return wide and d.add(d.pick(("sub", "mul", "lt", "add")), *d.shuffled([x, wide])) or wide


def pairs_in(graph):
    """How often each pair stands in a graph."""
    found = {}
    for n in graph.nodes:
        for a in n.args:
            found[a.op, n.op] = found.get((a.op, n.op), 0) + 1
    return found
