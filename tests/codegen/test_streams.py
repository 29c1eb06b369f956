"""Large arrays are written past the caches: the same bits, wherever they lie, of any length."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.codegen import streams
from graphc.ir.reference import run_graph
from graphc.pipeline import Options, run_stages
from graphc.runtime.kernel import compile_graph
from tests.random_checks import same, sharing

LENGTHS = (1, 7, 8, 9, 16, 17, 31, 32, 33, 64, 100, 129, 1000)


@pytest.fixture
def all_far(monkeypatch):
    """As if every array were large."""
    monkeypatch.setattr(streams, "FAR", 1)


def graph_of(function, wrt=(), **types):
    seen = {}

    def declared(x, y):
        return function(x, y)

    declared.__annotations__ = types
    traced = graphc.graph(declared).traced.graph
    run_stages(traced, Options(wrt=wrt), seen.__setitem__, last="simplify")
    return seen["simplify"]


def text_of(graph, **options):
    seen = {}
    run_stages(graph, Options(**options), seen.__setitem__, last="emit")
    return seen["emit"]


def check(graph, kernel, shapes, offset=0):
    """Into arrays that begin so many elements behind a line of the cache."""
    rng = np.random.default_rng(3)
    kinds = [i.type.dtype.numpy for i in graph.inputs]
    arrays = [rng.normal(size=s).astype(k) for s, k in zip(shapes, kinds, strict=True)]
    sizes = dict(zip(("n", "m"), shapes[0], strict=False))
    expected = [np.asarray(a) for a in run_graph(graph, arrays, sizes)]
    outputs = [placed(a.shape, a.dtype, offset) for a in expected]
    kernel.run(arrays, outputs)
    assert all(same(a, b) for a, b in zip(expected, outputs, strict=True)), (shapes, offset)


def placed(shape, dtype, offset):
    size = int(np.prod(shape))
    memory = np.full(size + 64 + offset, 99, dtype)
    first = -memory.ctypes.data // dtype.itemsize % (64 // dtype.itemsize) + offset
    return memory[first : first + size].reshape(shape)


@pytest.mark.parametrize("isa", ["host", "v3"])
@pytest.mark.parametrize("dtype", [graphc.f64, graphc.f32, graphc.i64, graphc.i32], ids=str)
def test_every_length_at_every_place(all_far, dtype, isa):
    graph = graph_of(lambda x, y: (x + y, x * y), x=dtype["n"], y=dtype["n"])
    assert "!nontemporal" in text_of(graph)
    kernel = compile_graph(graph, Options(isa=isa))
    for n in LENGTHS:
        for offset in (0, 1, 2, 3, 8):
            check(graph, kernel, [(n,), (n,)], offset)


def test_rows_that_begin_anywhere(all_far):
    graph = graph_of(lambda x, y: x * y, x=graphc.f64["n", "m"], y=graphc.f64["m"])
    kernel = compile_graph(graph)
    for m in LENGTHS:
        check(graph, kernel, [(5, m), (m,)])


def test_arrays_in_between_and_threads(all_far):
    """What is written past the caches is there for the next loop, and for other threads."""
    with sharing(2):
        graph = graph_of(
            lambda x, y: ((x + y.T) * (x + y.T).sum()).sum(),
            ("x", "y"), x=graphc.f64["n", "m"], y=graphc.f64["m", "n"],
        )  # fmt: skip
        kernel = compile_graph(graph, Options(threads=2))
        for n, m in ((40, 64), (64, 40), (129, 33)):
            for _ in range(20):
                check(graph, kernel, [(n, m), (m, n)])


def test_large_results_alone():
    plain, small = (
        graph_of(lambda x, y: x + y, x=graphc.f64[n], y=graphc.f64[n]) for n in (1 << 22, 1 << 21)
    )
    assert "store <8 x double>" in text_of(plain) and "!nontemporal" in text_of(plain)
    assert "!nontemporal" not in text_of(small)
    long = graph_of(
        lambda x, y: np.tanh(np.exp(np.sin(x) * y)), x=graphc.f64["n"], y=graphc.f64["n"]
    )
    assert "!nontemporal" not in text_of(long)


def test_a_large_array():
    x = np.arange(float(1 << 22)) - 5.0
    f = graphc.value_and_grad(lambda x: (x * x * x).sum())
    value, slope = f(x)
    assert np.array_equal(slope, 2 * x * x + x * x) or np.allclose(slope, 3 * x * x, rtol=1e-15)
    assert np.isclose(value, (x * x * x).sum(), rtol=1e-12)
