"""Compiled sums are the reference tree, bit for bit: every length, every axis, one to three axes,
strided or not.
"""

import itertools
from functools import partial

import numpy as np
import pytest

from graphc.gates.contraction import contract_reference
from graphc.gates.gate import registry
from graphc.gates.reduction import _combine, tree_reduce
from graphc.ir.graph import Builder, sum_order
from graphc.ir.types import Dim, TensorType, f32, f64, size_floordiv
from graphc.pipeline import Options
from graphc.runtime.kernel import compile_graph
from tests.random_checks import same

LONGEST = 5000
DTYPES = (f64, f32)
SHAPES = {
    2: [(7, 33), (65, 5), (130, 9), (1, 257), (300, 1), (0, 4), (4, 0), (64, 64), (20, 70)],
    3: [(5, 6, 7), (3, 130, 4), (70, 3, 5), (2, 2, 66), (1, 9, 1), (3, 0, 2), (129, 2, 3),
        (4, 65, 9)],
}  # fmt: skip


def numbers(rng, shape, dtype):
    """Numbers of many magnitudes, so that each order of adding them gives bits of its own."""
    x = rng.normal(size=shape) * 2.0 ** rng.integers(-20, 20, shape)
    return x.astype(dtype.numpy)


def reference(x, axis, order, op="sum"):
    gate, dtype = registry()[op], f64 if x.dtype == f64.numpy else f32
    return np.asarray(
        tree_reduce(x, axis, order, _combine(gate.combine, dtype), gate.identity(dtype))
    )


def compiled(make, *types):
    """The kernel of a function of graph inputs."""
    builder = Builder()
    inputs = [builder.input(f"x{i}", t) for i, t in enumerate(types)]
    return compile_graph(builder.graph("sums", {"y": make(*inputs)})).run


def reduced(x, op, axis):
    return x.builder.apply(op, x, axis=axis, order=sum_order(x.type, axis))


@pytest.mark.parametrize("isa", ["host", "v3"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extrema_whose_accumulators_take_turns(dtype, isa):
    """A NaN at any place is found, and of zeros +0 is the larger; alone, and beside a sum."""
    builder = Builder()
    x = builder.input("x", dtype["n"])
    largest, least = (builder.apply(op, x, axis=0, order="any") for op in ("max", "min"))
    outs = {"largest": largest, "least": least}
    alone = compile_graph(builder.graph("extrema", outs), Options(isa=isa)).run
    also = builder.graph("and_a_sum", {**outs, "total": reduced(x, "sum", 0)})
    beside = compile_graph(also, Options(isa=isa)).run
    rng = np.random.default_rng(3)
    for n in (*range(1, 70), 127, 128, 129, 300):
        plain = rng.normal(size=n).astype(dtype.numpy)
        zeros = -np.zeros_like(plain)
        for at in {0, *rng.integers(0, n, 6), n - 1}:
            for base, placed in ((plain, np.nan), (plain, np.inf), (plain, -np.inf), (zeros, 0.0)):
                given = base.copy()
                given[at] = placed
                wanted = [given.max(), given.min()]
                if placed == 0.0:
                    wanted = [
                        np.zeros((), given.dtype),
                        np.full((), 0.0 if n == 1 else -0.0, given.dtype),
                    ]
                for made in (alone([given]), beside([given])):
                    for a, b in zip(made, wanted):
                        assert same(np.asarray(a), np.asarray(b)), (n, at, placed)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", ["sum", "prod"])
def test_every_length(op, dtype):
    """One kernel of a symbolic size folds 0 to 5,000 numbers as the tree does."""
    rng = np.random.default_rng(1)
    run = compiled(lambda x: reduced(x, op, 0), dtype["n"])
    x = (
        numbers(rng, LONGEST, dtype)
        if op == "sum"
        else rng.uniform(0.7, 1.4, LONGEST).astype(dtype.numpy)
    )
    wrong = [
        n
        for n in range(LONGEST + 1)
        if not same(run([x[:n].copy()])[0], reference(x[:n], 0, "lanes", op))
    ]
    assert not wrong, wrong[:9]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", ["sum", "prod"])
@pytest.mark.parametrize("columns", ["k", 3, 17])
def test_every_count_of_rows(op, dtype, columns):
    """The same over the rows of a matrix, whose order is `rows`, for a number of columns that is
    known or not.
    """
    rng = np.random.default_rng(2)
    run = compiled(lambda x: reduced(x, op, 0), dtype["n", columns])
    k = columns if isinstance(columns, int) else 5
    x = (
        numbers(rng, (1030, k), dtype)
        if op == "sum"
        else rng.uniform(0.7, 1.4, (1030, k)).astype(dtype.numpy)
    )
    wrong = [
        n
        for n in range(x.shape[0] + 1)
        if not same(run([x[:n].copy()])[0], reference(x[:n], 0, "rows", op))
    ]
    assert not wrong, wrong[:9]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("columns", ["k", 3, 17])
@pytest.mark.parametrize("skip", [(), ("unroll",)], ids=str)
def test_every_count_of_rows_in_lanes(dtype, columns, skip):
    """In the order `lanes`, each element of a row has as many sums as a vector has lanes."""
    rng = np.random.default_rng(6)
    builder = Builder()
    x = builder.input("x", dtype["b", "n", columns])
    y = builder.apply("sum0", x, axis=1, order="lanes")
    run = compile_graph(builder.graph("sums", {"y": y}), Options(skip=frozenset(skip))).run
    k = columns if isinstance(columns, int) else 5
    x = numbers(rng, (3, 530, k), dtype)
    wrong = [
        n
        for n in (*range(140), 255, 256, 257, 511, 512, 513, 530)
        if not same(run([x[:, :n].copy()])[0], reference(x[:, :n], 1, "lanes", "sum0"))
    ]
    assert not wrong, wrong[:9]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", ["n", 1, 5, 40])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_sum_of_zeros_of_either_sign_is_plus_zero(dtype, n, axis):
    """`sum0`, while the sum of nothing but -0 is -0, as NumPy has it."""
    size = 40 if n == "n" else n
    x = np.full((size, 3) if axis == 0 else (3, size), -0.0, dtype.numpy)
    ty = dtype[n, 3] if axis == 0 else dtype[3, n]

    def zero(op):
        return compiled(lambda v: v.builder.apply(op, v, axis=axis, order="lanes"), ty)([x])[0]

    assert not np.signbit(zero("sum0")).any()
    if axis == 1:
        assert np.signbit(zero("sum")).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_length_of_a_dot_product(dtype):
    """Products are added with one rounding each, in lanes."""
    rng = np.random.default_rng(3)
    dot = lambda x, y: x.builder.apply("contract", x, y, spec="i,i->", order="lanes")
    run = compiled(dot, dtype["n"], dtype["n"])
    x, y = numbers(rng, 2100, dtype), numbers(rng, 2100, dtype)
    wrong = [
        n
        for n in range(2101)
        if not same(
            run([x[:n].copy(), y[:n].copy()])[0],
            np.asarray(contract_reference(x[:n], y[:n], "lanes")),
        )
    ]
    assert not wrong, wrong[:9]


def subsets(rank):
    return [
        axes for count in range(1, rank + 1) for axes in itertools.combinations(range(rank), count)
    ]


def folded(x, axes):
    for axis in reversed(axes):
        x = x.sum(axis)
    return x


def folded_slice(x, axes, **place):
    return folded(x.builder.apply("slice", x, **place), axes)


def folded_reference(x, axes):
    for axis in reversed(axes):
        x = reference(x, axis, "lanes" if axis == x.ndim - 1 else "rows")
    return x


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "axes", [(2, a) for a in subsets(2)] + [(3, a) for a in subsets(3)], ids=str
)
def test_every_axis(axes, dtype):
    """One to three axes, the last first, with symbolic sizes and with static ones."""
    (rank, axes), rng = axes, np.random.default_rng(4)
    symbolic = compiled(lambda x: folded(x, axes), dtype[("a", "b", "c")[:rank]])
    for i, shape in enumerate(SHAPES[rank]):
        x = numbers(rng, shape, dtype)
        expected = folded_reference(x, axes)
        assert same(symbolic([x])[0], expected), shape
        if i % 2 == 0:
            assert same(compiled(lambda x: folded(x, axes), dtype[shape])([x])[0], expected), shape


STRIDES = {
    "backwards": lambda s: (s - 1, s, -1),
    "every second": lambda s: (0, size_floordiv(s + 1, 2), 2),
    "every third, backwards": lambda s: (s - 1, size_floordiv(s + 2, 3), -3),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_strided_inputs(rank, stride, dtype):
    """Sums over slices inside of a graph, and over the same slices copied, are the same tree."""
    rng = np.random.default_rng(5)
    names = tuple(map(Dim.symbol, "abc"[:rank]))
    for strided in range(rank):
        parts = [STRIDES[stride](s) if i == strided else (0, s, 1) for i, s in enumerate(names)]
        place = dict(zip(("starts", "shape", "steps"), zip(*parts)))
        step = place["steps"][strided]
        at = tuple(slice(None, None, step) if i == strided else slice(None) for i in range(rank))
        for axes in subsets(rank):
            run = compiled(partial(folded_slice, axes=axes, **place), TensorType(dtype, names))
            plain = compiled(partial(folded, axes=axes), TensorType(dtype, names))
            for shape in SHAPES[rank][:3] if rank > 1 else [(1000,), (67,), (1,)]:
                x = numbers(rng, shape, dtype)
                expected = folded_reference(x[at], axes)
                assert same(run([x])[0], expected), (shape, axes, strided)
                copied = np.ascontiguousarray(x[at])
                assert same(plain([copied])[0], expected), (shape, axes, strided)
