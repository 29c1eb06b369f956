"""Rows abreast, and loops whose iterations go on from each other: no schedule changes a bit."""

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph
from graphc.ir.types import f64
from graphc.lower.abreast import ROWS, rows_abreast
from graphc.lower.interpreter import run_program
from graphc.lower.loop_text import parse_program
from graphc.lower.loops import For, Step, is_running, walk
from tests.lower.test_regressions import agree


def walks(x, w):
    """Paths of random walks, and the largest value of each."""
    paths = gnp.exp(gnp.cumsum(x * w, axis=1) * 0.1)
    return paths.max(axis=1).sum()


def columns(x, w):
    return gnp.sin(gnp.cumsum(x * w, axis=0)).sum()


def products(x, w):
    return (gnp.cumprod(1.0 + 0.1 * x, axis=1) * w).sum()


def softmaxes(x, w):
    """Rows that are read three times, and a scan of what comes out."""
    return (gnp.cumsum(graphc.softmax(x, axis=1), axis=1) ** 2 * w).sum()


def back_and_forth(x, w):
    return (gnp.cumsum(gnp.cumsum(x, axis=1)[:, ::-1], axis=1) * w).sum() + gnp.cumprod(x[0]).sum()


def of_rows(x, w):
    """A scan of numbers that each take a row."""
    return (gnp.cumsum((x * w).sum(axis=1)) ** 2).sum()


FUNCTIONS = (walks, columns, products, softmaxes, back_and_forth, of_rows)
SKIPPED = ("abreast", "unroll", "fuse", "parallel", "blocks", "reuse")


def declared(function, dtype, m):
    def graph(x, w):
        return function(x, w)

    graph.__annotations__, graph.__name__ = {"x": dtype["n", m], "w": dtype[m]}, function.__name__
    return graphc.graph(graph)


def data(dtype, n, m):
    rng = np.random.default_rng(n + m)
    return [rng.normal(size=s).astype(dtype.numpy) for s in ((n, m), (m,))]


def bits(found):
    value, gradients = found
    return [np.asarray(a).tobytes() for a in (value, *gradients)]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [graphc.f64, graphc.f32], ids=str)
@pytest.mark.parametrize("m", [1, 2, 3, 7, 8, 17, 40, "m"])
def test_every_schedule_gives_the_references_bits(function, dtype, m):
    """Rows one by one and eight at once, with and without a rest, for one thread and three."""
    graph = declared(function, dtype, m)
    wide = 33 if m == "m" else m
    plain = graphc.compile(graph, wrt=("x", "w"))
    for n in (1, 7, 8, 9, 40, 67):
        args = data(dtype, n, wide)
        sizes = {"n": n} | ({"m": wide} if m == "m" else {})
        expected = [x.tobytes() for x in run_graph(plain.gradient_kernel.graph, args, sizes)]
        assert bits(plain.value_and_grad(*args)) == expected
    others = [
        graphc.compile(graph, wrt=("x", "w"), skip=(s,)) for s in SKIPPED[:: 1 if m == 17 else 5]
    ]
    others.append(graphc.compile(graph, wrt=("x", "w"), threads=3))
    for other in others:
        assert bits(other.value_and_grad(*args)) == expected


@pytest.mark.parametrize("n", [0, 1, 8, 9, 23])
def test_loops_mean_the_same_abreast(n):
    """The interpreter, on a program before and after."""
    program = parse_program("""program f(x: f64[n,20], w: f64[20])
sizes n
buffer output y.out: f64[n,20]
buffer output s.out: f64[]
buffer temp t: f64[20] scope=_i
kernel k0
  for _i in n rows
    acc %1: f64 sum lanes
    for _j in 20 rows
      acc %2: f64 sum lanes
      acc %3: f64 recurrence running
      %4 = load x[20*_i-_j+19] : f64
      %5 = load w[_j] : f64
      %6 = step %3 %5 %4 : f64
      store t[_j] %6
      add %2 %6
    add %1 %2
    for _j in 20 rows
      %7 = load t[_j] : f64
      %8 = add %7, %2 : f64
      store y.out[20*_i+_j] %8
  store s.out[0] %1""")
    abreast = rows_abreast(program)
    assert parse_program(str(abreast)) == abreast
    first, *_ = abreast.kernels[0].body
    assert sum(isinstance(s, Step) for s, _ in walk((first,))) == ROWS
    assert abreast.buffer("t").type.shape[-1] == 20 and abreast.buffer("t").type.rank == 2
    args = data(graphc.f64, n, 20)
    for a, b in zip(*(run_program(p, args, {"n": n}) for p in (program, abreast)), strict=True):
        assert a.tobytes() == b.tobytes()


REFUSED = {
    "few rows": (5, "x[40*_i+_j]"),
    "rows apart": (64, "x[64*_j+_i]"),  # down the columns of x
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_stays_as_it_is(case):
    n, place = REFUSED[case]
    program = parse_program(f"""program f(x: f64[4096])
buffer output y.out: f64[{n},40]
kernel k0
  for _i in {n} rows
    for _j in 40 rows
      acc %1: f64 cumsum running
      %2 = load {place} : f64
      %3 = step %1 %2 : f64
      store y.out[40*_i+_j] %3""")
    assert rows_abreast(program) == program


def test_a_loop_that_goes_on_is_not_shared_out():
    """Nor one in which rows go on from each other, but one over rows is, each with its own scan."""
    kernels = {
        axis: graphc.compile(declared(lambda x, w, a=axis: gnp.cumsum(x, axis=a), graphc.f64, 40))
        for axis in (0, 1)
    }
    loops = {
        a: [s for s in k.plan.program.kernels[0].body if isinstance(s, For)]
        for a, k in kernels.items()
    }
    assert [s.parallel for s in loops[0]] == [False] and is_running(loops[0][0])
    assert all(s.parallel for s in loops[1])


def test_producers_and_consumers_share_the_loop():
    @graphc.graph
    def one(x: graphc.f64["n"], y: graphc.f64["n"]):
        return gnp.cumsum(gnp.sin(x)) * y

    (kernel,) = graphc.compile(one).plan.program.kernels
    assert sum(isinstance(s, For) for s, _ in walk(kernel.body)) == 1


@pytest.mark.parametrize("n", [5, 70, 1001])
@pytest.mark.parametrize("order", ["lanes", "rows"])
def test_a_sum_in_order_has_a_loop_of_its_own_where_a_scan_runs_down(n, order):
    """Their loop would add from the end; a largest element does not care."""
    b = Builder()
    x = b.input("x", f64["n"] if order == "lanes" else f64["n", 5])
    down = b.apply("cumsum", x, axis=0, reverse=True)
    outputs = {"down": down, "sum": (x * x).sum(0), "max": b.apply("max", x, axis=0, order="any")}
    agree(outputs, np.random.default_rng(n).normal(size=(n, 5)[: x.type.rank]), builder=b)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int32, np.bool_])
def test_lanes_walk_back_through_memory(dtype):
    """What is read and written from the end, as vectors that are turned."""

    def function(x, y):
        return (x[::-1] & y) if dtype is np.bool_ else (x[::-1] + y, (x * y)[::-1] - x)

    for n in (0, 1, 7, 8, 15, 16, 17, 100):
        rng = np.random.default_rng(n)
        x, y = ((rng.normal(size=n) * 9).astype(dtype) for _ in range(2))
        ours, numpys = graphc.jit(function)(x, y), function(x, y)
        for a, b in zip(np.atleast_2d(ours), np.atleast_2d(numpys), strict=True):
            assert a.tobytes() == b.tobytes()
