"""What neighbours read is made again, pads are ranges of loops, and sums over nearly all of a loop
share it: the bits of the reference at every size, and one loop without arrays in between."""

from __future__ import annotations

import os

import numpy as np
import pytest

import graphc
from graphc.errors import ShapeError
from graphc.ir.graph import Builder, Graph
from graphc.ir.reference import run_graph
from graphc.ir.types import DTYPES, Dim, evaluate, f32, f64, size_floordiv, size_max, unclipped
from graphc.lower.fuse import fuse
from graphc.lower.interpreter import run_program
from graphc.lower.loops import For, Inside, Let, walk
from graphc.pipeline import Options, run_stages
from graphc.runtime.kernel import compile_graph
from tests.guard_pages import guarded, in_a_child
from tests.random_checks import same, sharing

LENGTHS = (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 34, 63, 64, 65, 66, 95, 129, 1000)
SHAPES = ((0, 0), (0, 3), (3, 0), (1, 1), (1, 5), (5, 1), (2, 2), (3, 3), (2, 40), (40, 2), (33, 9),
          (9, 33), (20, 65), (65, 34), (64, 64))  # fmt: skip


def valley(x):
    a, b = x[:-1], x[1:]
    return (100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2).sum()


def bends(x):
    return ((x[2:] - 2.0 * x[1:-1] + x[:-2]) ** 2).sum()


def chained(x):
    y = x * x + 1.0
    z = y[1:] * y[:-1]
    return (z[1:] - z[:-1]).sum()


def wide(x):
    """Neighbours that are far from each other."""
    return (x[40:] * x[:-40] * x[20:-20]).sum()


def steepest(x):
    return ((x[1:] - x[:-1]) ** 2).max()


def slopes(x):
    """Outputs of different sizes beside the sum."""
    slope = x[1:] - x[:-1]
    return (slope * slope).sum(), slope * 2.0, x * 3.0


def down(x):
    return ((x[1:] - x[:-1]) ** 2).sum()


def across(x):
    return ((x[:, 1:] - x[:, :-1]) ** 2).sum()


def membrane(x):
    return down(x) + across(x)


def plate(x):
    bend = x[1:-1, 2:] + x[1:-1, :-2] + x[2:, 1:-1] + x[:-2, 1:-1] - 4.0 * x[1:-1, 1:-1]
    return (bend * bend).sum()


def turned(x):
    """Where x is read across its rows."""
    return ((x.T[1:] - 2.0 * x.T[:-1]) ** 2).sum()


def drift(x):
    """A sum of rows, which are short in one test."""
    return (((x[1:] - x[:-1]) ** 2).sum(axis=0) ** 2).sum()


LINES = (valley, bends, chained, wide, slopes)
PLANES = (down, across, membrane, plate, turned, drift)


def gradient(function, ty):
    """The simplified graph of value and gradient."""
    seen = {}

    def declared(x):
        return function(x)

    declared.__annotations__, declared.__name__ = {"x": ty}, function.__name__
    traced = graphc.graph(declared).traced.graph
    run_stages(traced, Options(wrt=("x",)), seen.__setitem__, last="simplify")
    return seen["simplify"]


def data(ty, sizes):
    """Plain numbers, zeros below 0, and numbers with infinities and NaN here and there."""
    shape = tuple(evaluate(s, sizes) for s in ty.shape)
    if ty.dtype.is_int:
        return [np.random.default_rng(7).integers(-9, 9, shape).astype(ty.dtype.numpy)]
    x = np.random.default_rng(7).normal(size=shape).astype(ty.dtype.numpy)
    odd = x.copy()
    odd.reshape(-1)[3::11], odd.reshape(-1)[5::13] = np.inf, np.nan
    return [x, np.full_like(x, -0.0), odd]


def check(graph: Graph, kernel, sizes) -> None:
    program = fuse(graph)
    for x in data(graph.inputs[0].type, sizes):
        with np.errstate(all="ignore"):
            want = run_graph(graph, [x], sizes)
        for got in (kernel.run([x]), run_program(program, [x], sizes)):
            for a, b in zip(want, got, strict=True):
                assert same(np.asarray(a), np.asarray(b)), sizes


def loops_of(graph):
    return [s for k in fuse(graph).kernels for s in k.body if isinstance(s, For)]


def arrays_of(graph):
    """What is kept between loops."""
    return [b.name for b in fuse(graph).of_role("temp") if b.type.shape]


# -- bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ["host", "v3"])
@pytest.mark.parametrize("dtype", ["f64", "f32"])
@pytest.mark.parametrize("function", LINES, ids=lambda f: f.__name__)
def test_every_length(function, dtype, isa):
    graph = gradient(function, DTYPES[dtype]["n"])
    kernel = compile_graph(graph, Options(isa=isa))
    for n in LENGTHS:
        check(graph, kernel, {"n": n})


@pytest.mark.parametrize("isa", ["host", "v3"])
@pytest.mark.parametrize("dtype", ["f64", "f32"])
@pytest.mark.parametrize("function", PLANES, ids=lambda f: f.__name__)
def test_every_shape(function, dtype, isa):
    graph = gradient(function, DTYPES[dtype]["n", "m"])
    kernel = compile_graph(graph, Options(isa=isa))
    for n, m in SHAPES:
        check(graph, kernel, {"n": n, "m": m})


@pytest.mark.parametrize("function", PLANES, ids=lambda f: f.__name__)
def test_short_rows(function):
    """Written out, with the lanes along the stencil."""
    graph = gradient(function, f64["n", 3])
    kernel = compile_graph(graph)
    for n in LENGTHS:
        check(graph, kernel, {"n": n})


@pytest.mark.parametrize("function", LINES, ids=lambda f: f.__name__)
def test_known_lengths(function):
    for n in (1, 2, 3, 8, 9, 10, 16, 17, 33, 65, 90, 130):
        graph = gradient(function, f64[n])
        check(graph, compile_graph(graph), {})


@pytest.mark.parametrize("function", PLANES, ids=lambda f: f.__name__)
def test_known_shapes(function):
    for shape in ((1, 5), (5, 1), (9, 9), (10, 33), (33, 10), (3, 70), (70, 3)):
        graph = gradient(function, f32[shape])
        check(graph, compile_graph(graph), {})


@pytest.mark.parametrize("function", [*LINES, *PLANES], ids=lambda f: f.__name__)
def test_threads(function):
    """Parts begin in the middle, and some end where the sum has nothing to add any more."""
    lengths = (65, 129, 4096, 4097, 20_000)
    sizes = [{"n": n} for n in lengths] if function in LINES else [{"n": 130, "m": 97}]
    with sharing(2):
        graph = gradient(function, f64["n"] if function in LINES else f64["n", "m"])
        kernel = compile_graph(graph, Options(threads=2))
        for each in sizes:
            check(graph, kernel, each)


def test_a_sum_of_nothing_is_zero():
    """Not the -0 that its identities add up to."""
    for n in ("n", 1):
        graph = gradient(valley, f64[n])
        value, slope = compile_graph(graph).run([np.array([-0.0])])
        assert not np.signbit(value) and slope.tolist() == [0.0]


def test_a_largest_of_nothing_is_an_error():
    graph = gradient(steepest, f64["n"])
    kernel = compile_graph(graph)
    for n in (2, 3, 33, 100):
        check(graph, kernel, {"n": n})
    with pytest.raises(ShapeError):
        kernel.run([np.zeros(1)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("touching", ["last", "first"])
def test_nothing_beside_the_arrays_is_touched(touching):
    """A neighbour that is missing is not read, not even to be thrown away."""
    line, plane = gradient(bends, f64["n"]), gradient(plate, f32["n", "m"])
    work = [(line, {"n": n}) for n in range(1, 80)]
    work += [(plane, {"n": n, "m": m}) for n in range(1, 6) for m in (*range(1, 20), 33, 40)]
    kernels = {id(graph): compile_graph(graph) for graph in (line, plane)}

    def run(say):
        with guarded(touching):
            for graph, sizes in work:
                say(f"{graph.name}, {sizes}")
                check(graph, kernels[id(graph)], sizes)

    in_a_child(run)


# -- loops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function", [valley, bends, chained, *PLANES[:4]], ids=lambda f: f.__name__
)
def test_one_loop_and_no_arrays(function):
    ty = f64["n"] if function not in PLANES else f64["n", "m"]
    graph = gradient(function, ty)
    assert len(loops_of(graph)) == 1 and not arrays_of(graph)


def ranges_of(graph):
    return [s for k in fuse(graph).kernels for s, _ in walk(k.body) if isinstance(s, Inside)]


def test_what_takes_long_is_kept():
    """An exponential for each of two neighbours takes longer than an array of them does; what is
    made from it is cheap.
    """

    def steps(x):
        e = graphc.exp(x)
        return ((e[1:] - e[:-1]) ** 2).sum()

    graph = gradient(steps, f64["n"])
    assert len(arrays_of(graph)) == 1 and len(loops_of(graph)) == 2
    kernel = compile_graph(graph)
    for n in LENGTHS:
        check(graph, kernel, {"n": n})


def test_divisions_are_made_once():
    """Of a group that would take too long, what takes most of it is kept."""

    def roots(x):
        e = 1.0 / (1.0 + x * x) / (2.0 + x)
        return ((e[1:] - e[:-1]) ** 2).sum()

    graph = gradient(roots, f64["n"])
    statements = [s for loop in loops_of(graph) for s in loop.body if isinstance(s, Let)]
    assert sum(s.op == "div" for s in statements) == sum(
        n.op in ("div", "reciprocal") for n in graph.nodes
    )
    assert len(loops_of(graph)) == 2 and ranges_of(graph)
    check(graph, compile_graph(graph), {"n": 100})


def test_long_chains_are_made_once():
    def chain(x):
        e = x
        for k in range(60):
            e = e * e + float(k)
        return ((e[1:] - e[:-1]) ** 2).sum()

    graph = gradient(chain, f64["n"])
    # 60 steps, and three statements for each of their partials; what the second loop makes again
    # of the steps is not made at both shifts.
    assert sum(len(loop.body) for loop in loops_of(graph)) < 11 * 60
    check(graph, compile_graph(graph), {"n": 100})


def test_short_axes_stay_written_out():
    """As coordinates of points: see `lower.unroll`."""
    assert not ranges_of(gradient(across, f64["n", 3]))


def test_halves_stay_apart():
    """Of two wide parts, a loop over both would look at ranges in each iteration."""
    b = Builder()
    x, y = b.input("x", f64["n"]), b.input("y", f64["m"])
    both = b.apply("concat", x * x, y + y, axis=0)
    graph = b.graph("halves", {"out": both * 2.0})
    assert not ranges_of(graph)


def test_what_is_read_from_memory_is_kept():
    """A gathered element may be any."""
    b = Builder()
    x, at = b.input("x", f64["n"]), b.input("at", DTYPES["i64"]["k"])
    n = x.shape[0]
    padded = b.apply("place", x * x, fill=0, starts=(1,), steps=(1,), shape=(n + 2,))
    outs = {"taken": b.apply("take", padded, at, axis=0), "more": padded + 1.0}
    graph = b.graph("padded", outs)
    assert len(arrays_of(graph)) == 1
    x, at = np.arange(5.0), np.array([0, 3, 6, -1])
    want = run_graph(graph, [x, at])
    assert all(map(same, compile_graph(graph).run([x, at]), want))


def test_a_ring():
    """A narrow part and a wide one: in the interior, only the wide one is read. What its gradient
    is made from is kept, as the first element is read at the last one, too.
    """

    def ring(x):
        return ((np.roll(x, 1) - x) ** 2).sum()

    for n in (9, 40, 100, 1000):
        graph = gradient(ring, f64[n])
        check(graph, compile_graph(graph), {})
        assert len(loops_of(graph)) == 2 and len(arrays_of(graph)) == 1


def test_unclipped():
    n = Dim.symbol("n")
    once = size_max(n - 1, 0)
    assert unclipped(once) == n - 1 and unclipped(size_max(once - 2, 0)) == n - 3
    assert unclipped(once + 1) == once + 1 and unclipped(n) == n and unclipped(5) == 5
    assert unclipped(size_max(once + 1, 0)) == once + 1  # 1 for n = 0, and n = 0 otherwise


# -- random graphs ---------------------------------------------------------------------------------


def grown(seed):
    """Cheap gates, slices, pads and joined ends of them, and sums, of up to three axes."""
    r = np.random.default_rng(seed)
    rank, dtype = 1 + int(r.choice(3, p=(0.4, 0.5, 0.1))), ("f64", "f32", "i32")[int(r.integers(3))]
    names, ty = ("n", "m", "k")[:rank], DTYPES[dtype]
    sizes = tuple(name if r.random() < 0.7 else int(r.integers(3, 40)) for name in names)
    b = Builder()
    pool = [b.input("x", ty[sizes])]
    ones = (1,) * rank

    def moved(v):
        axis, k, op = int(r.integers(rank)), int(r.integers(1, 4)), int(r.integers(4))
        before = int(r.integers(k + 1))
        starts = tuple(before if i == axis else 0 for i in range(rank))

        def resized(size):
            return tuple(size if i == axis else s for i, s in enumerate(v.shape))

        if r.random() < 0.1 and isinstance(v.shape[axis], int) and v.shape[axis]:
            starts = tuple(v.shape[axis] - 1 if i == axis else 0 for i in range(rank))
            last = b.apply("slice", v, starts=starts, steps=ones, shape=resized(1))
            return b.apply("broadcast", last, shape=v.shape)
        if op <= 1:
            shape, steps = resized(size_max(v.shape[axis] - k, 0)), ones
            if r.random() < 0.2:  # every other element, or backwards
                n, step = v.shape[axis], (2, -1)[int(r.integers(2))]
                shape = resized(size_floordiv(n + 1, 2) if step == 2 else n)
                starts = tuple(n - 1 if i == axis and step == -1 else 0 for i in range(rank))
                steps = tuple(step if i == axis else 1 for i in range(rank))
            return b.apply("slice", v, starts=starts, steps=steps, shape=shape)
        if op == 2 or not isinstance(v.shape[axis], int) or v.shape[axis] < k:
            fill, shape = int(r.integers(2)), resized(v.shape[axis] + k)
            return b.apply("place", v, starts=starts, steps=ones, shape=shape, fill=fill)
        end = b.apply("slice", v, starts=(0,) * rank, steps=ones, shape=resized(k))
        return b.apply("concat", *((v, end) if r.random() < 0.5 else (end, v)), axis=axis)

    outs = {}
    for _ in range(int(r.integers(4, 16))):
        v = pool[int(r.integers(len(pool)))]
        like = [p for p in pool if p.shape == v.shape]
        w, kind = like[int(r.integers(len(like)))], r.random()
        if kind < 0.5:
            pool.append(moved(v))
        elif kind < 0.85:
            pool.append((v + w, v * w, v - w, -v, v + v)[int(r.integers(5))])
        elif kind < 0.92 and (less := moved(b.apply("lt", v, w))).shape in {p.shape for p in pool}:
            v, *_ = (p for p in pool if p.shape == less.shape)  # a pad of bools
            pool.append(b.apply("where", less, v, -v))
        else:
            axis = int(r.integers(rank))
            order = "any" if dtype == "i32" else "lanes" if axis == rank - 1 else "rows"
            outs[f"sum{len(outs)}"] = b.apply("sum", v, axis=axis, order=order)
    for v in pool[-3:]:
        outs[f"out{len(outs)}"] = v * v
    return b.graph(f"grown{seed}", outs)


@pytest.mark.parametrize("chunk", range(6))
def test_random(chunk):
    marked = 0
    for seed in range(25 * chunk, 25 * chunk + 25):
        graph = grown(seed)
        marked += bool(ranges_of(graph))
        with sharing(2 if seed % 2 else None):
            options = Options(threads=2 if seed % 2 else None, isa=("host", "v3")[seed // 2 % 2])
            kernel = compile_graph(graph, options)
            for n, m, k in ((0, 3, 1), (1, 1, 0), (2, 5, 9), (4, 9, 2), (33, 2, 3), (40, 70, 11)):
                given = {"n": n, "m": m, "k": k}
                check(graph, kernel, {s: given[s] for s in graph.sizes})
    assert marked > 5
