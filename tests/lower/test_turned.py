"""Columns that loops walk down are copied side by side, 16 at a time: the same bits as without, at
every size, with any number of threads, and nothing beside the arrays is touched."""

from __future__ import annotations

import os

import numpy as np
import pytest

import graphc
from graphc.ir.reference import run_graph
from graphc.ir.types import DTYPES, bool_, f32, f64
from graphc.lower.fuse import fuse
from graphc.lower.interpreter import run_program
from graphc.lower.loop_text import parse_program
from graphc.lower.loops import For, walk
from graphc.lower.plan import plan
from graphc.pipeline import Options, run_stages
from graphc.report.plan import Plan
from graphc.runtime.kernel import compile_graph
from tests.guard_pages import guarded, in_a_child
from tests.random_checks import same, sharing

ROWS = (0, 1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 33, 65, 130)
COLUMNS = (1, 3, 8, 9, 17, 63, 64, 65, 130)


def added(a, b):
    return a + b.T


def fitted(a, b):
    """The gradients are transposed, too."""
    return np.tanh(a * b.T).sum()


def softmax(a, b):
    """Several loops over a row read the same column."""
    z = a - b.T
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True) * b.T).sum(axis=1)


def scaled(a, b):
    """Two parts of one array."""
    return a[1:, 1:] * b.T[:-1, 1:] + b.T[1:, :-1]


def stacked(a, b):
    """The columns of many matrices."""
    return a.reshape(a.shape[0], 1, a.shape[1]) * 2.0 + b.T.reshape(b.shape[1], 1, b.shape[0])


FUNCTIONS = [added, fitted, softmax, scaled, stacked]


def graph_of(function, dtype, n="n", m="m"):
    """Simplified, with gradients of what is a number."""
    seen = {}

    def declared(a, b):
        return function(a, b)

    declared.__annotations__ = {"a": dtype[n, m], "b": dtype[m, n]}
    declared.__name__ = function.__name__
    traced = graphc.graph(declared).traced.graph
    wrt = ("a", "b") if function is fitted else ()
    run_stages(traced, Options(wrt=wrt), seen.__setitem__, last="simplify")
    return seen["simplify"]


def data(graph, n, m):
    rng = np.random.default_rng(n + m)
    kind = graph.inputs[0].type.dtype.numpy
    return [(9 * rng.normal(size=shape)).astype(kind) for shape in ((n, m), (m, n))]


def check(graph, kernel, n, m):
    arrays, sizes = data(graph, n, m), {"n": n, "m": m}
    for a, b in zip(run_graph(graph, arrays, sizes), kernel.run(arrays), strict=True):
        assert same(np.asarray(a), np.asarray(b)), sizes


def turned(graph):
    """The loops that copy columns."""
    return [
        s
        for k in fuse(graph).kernels
        for s, _ in walk(k.body)
        if isinstance(s, For) and s.mode == "turned"
    ]


# -- bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ["host", "v3"])
@pytest.mark.parametrize("dtype", ["f64", "f32"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_every_shape(function, dtype, isa):
    graph = graph_of(function, DTYPES[dtype])
    assert turned(graph)
    kernel = compile_graph(graph, Options(isa=isa))
    for n in ROWS if function is not scaled else ROWS[1:]:
        for m in COLUMNS:
            check(graph, kernel, n, m)


@pytest.mark.parametrize("dtype", ["i64", "i32"])
def test_integers(dtype):
    graph = graph_of(added, DTYPES[dtype])
    kernel = compile_graph(graph)
    assert turned(graph)
    for n in ROWS:
        check(graph, kernel, n, 21)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_threads(function):
    """Each has columns of its own, and copies those of its part."""
    with sharing(2):
        graph = graph_of(function, f64)
        kernel = compile_graph(graph, Options(threads=2))
        for n in (17, 64, 250, 1000):
            check(graph, kernel, n, 77)


def test_known_sizes():
    for n, m in ((130, 131), (1000, 40), (40, 1000), (8, 5000), (5000, 8)):
        graph = graph_of(fitted, f64, n, m)
        assert turned(graph)
        check(graph, compile_graph(graph), n, m)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_loops_mean_the_same(function):
    graph = graph_of(function, f64)
    program = fuse(graph)
    assert parse_program(str(program)) == program
    for n, m in ((1, 1), (17, 9), (5, 40)):
        arrays, sizes = data(graph, n, m), {"n": n, "m": m}
        want, got = run_graph(graph, arrays, sizes), run_program(program, arrays, sizes)
        assert all(same(np.asarray(a), np.asarray(b)) for a, b in zip(want, got, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("touching", ["last", "first"])
def test_nothing_beside_the_arrays_is_touched(touching):
    graphs = [graph_of(fitted, f64), graph_of(scaled, f32)]
    kernels = [compile_graph(graph) for graph in graphs]

    def run(say):
        with guarded(touching):
            for graph, kernel in zip(graphs, kernels, strict=True):
                for n in (*range(1, 20), 31, 33):
                    for m in (1, 7, 8, 9, 17, 63, 65):
                        say(f"{graph.name}, {n} x {m}")
                        check(graph, kernel, n, m)

    in_a_child(run)


# -- which loops -----------------------------------------------------------------------------------


def copied(function, **types):
    def declared(a, b):
        return function(a, b)

    declared.__annotations__ = types or {"a": f64["n", "m"], "b": f64["m", "n"]}
    return turned(graphc.graph(declared).traced.graph)


def test_a_column_is_copied_once_for_all_loops_over_a_row():
    assert len(copied(softmax)) == 1
    assert len(copied(scaled)) == 2


def test_what_lies_side_by_side_or_is_small_is_read_as_it_lies():
    assert not copied(lambda a, b: a + b.T.T.T.T, a=f64["n", "m"], b=f64["n", "m"])
    assert not copied(added, a=f64[100, 120], b=f64[120, 100])
    assert copied(added, a=f64[100, 1200], b=f64[1200, 100])
    assert not copied(added, a=f64["n", 3], b=f64[3, "n"])
    assert not copied(added, a=f64[3, "n"], b=f64["n", 3])
    assert not copied(lambda a, b: a & b.T, a=bool_["n", "m"], b=bool_["m", "n"])


def test_scratch_is_a_few_rows():
    """However many columns there are."""
    program = plan(fuse(graph_of(added, f64)))
    assert Plan(program).arena_bytes(n=100_000, m=1000) == 16 * (1008 + 16) * 8
