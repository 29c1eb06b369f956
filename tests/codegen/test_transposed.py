"""Rows in memory and columns in lanes: the bits of the reference, and nothing beside the rows is
touched, in registers of two halves as in those of one piece."""

from __future__ import annotations

import os

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.ir.reference import run_graph
from graphc.ir.types import DTYPES
from graphc.pipeline import Options, run_stages
from graphc.runtime.kernel import compile_graph
from tests.guard_pages import guarded, in_a_child
from tests.random_checks import same

LENGTHS = (1, 5, 7, 8, 9, 16, 17, 33)
COLUMNS = (2, 3, 4, 8, 9, 17)
ISAS = pytest.mark.parametrize("isa", ("host", "v3"))


def volumes(columns):
    """Every coordinate of a point is read by itself, and has a gradient of its own."""

    def of(x):
        made = x[:, 0]
        for k in range(1, columns):
            made = made * x[:, k]
        return (made * made).sum()

    return of


def paths(x):
    """Rows abreast: they are transposed in registers, in and out."""
    return (gnp.cumsum(x, axis=1) ** 2).sum()


def graph_of(function, dtype, shape):
    """Simplified, with the gradient."""
    seen = {}

    def declared(x):
        return function(x)

    declared.__annotations__ = {"x": DTYPES[dtype][shape]}
    traced = graphc.graph(declared).traced.graph
    run_stages(traced, Options(wrt=("x",)), seen.__setitem__, last="simplify")
    return seen["simplify"]


def check(graph, kernel, dtype, shape):
    x = np.random.default_rng(shape[0]).normal(size=shape).astype(DTYPES[dtype].numpy)
    for made, expected in zip(kernel.run([x]), run_graph(graph, [x]), strict=True):
        assert same(np.asarray(made), np.asarray(expected)), shape


@ISAS
@pytest.mark.parametrize("dtype", ("f64", "f32"))
@pytest.mark.parametrize("columns", COLUMNS)
def test_coordinates_of_points(columns, dtype, isa):
    graph = graph_of(volumes(columns), dtype, ("n", columns))
    kernel = compile_graph(graph, Options(isa=isa))
    for n in LENGTHS:
        check(graph, kernel, dtype, (n, columns))


@ISAS
@pytest.mark.parametrize("dtype", ("f64", "f32"))
def test_rows_abreast(dtype, isa):
    graph = graph_of(paths, dtype, ("n", "m"))
    kernel = compile_graph(graph, Options(isa=isa))
    for n in LENGTHS:
        for m in (1, 7, 8, 9, 16, 17, 33):
            check(graph, kernel, dtype, (n, m))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("touching", ("last", "first"))
def test_nothing_beside_the_rows_is_touched(touching):
    cases = [
        (dtype, columns, graph, compile_graph(graph, Options(isa=isa)))
        for dtype in ("f64", "f32")
        for columns in (2, 3, 4, 8, 9)
        for graph in (graph_of(volumes(columns), dtype, ("n", columns)),)
        for isa in ("host", "v3")
    ]

    def run(say):
        with guarded(touching):
            for dtype, columns, graph, kernel in cases:
                for n in LENGTHS:
                    say(f"{dtype}[{n},{columns}]")
                    check(graph, kernel, dtype, (n, columns))

    in_a_child(run)
