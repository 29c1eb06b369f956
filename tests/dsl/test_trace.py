"""From functions to graphs: names, captured arrays, results, leaks."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.dsl.trace import trace
from graphc.errors import SignatureError, TraceError
from graphc.ir.text import parse_graph
from graphc.ir.types import f64
from tests.dsl.support import run, same, traced

X = np.arange(3.0)


def test_names_of_inputs_and_outputs():
    made = trace(
        lambda p, x: (p["w"] @ x, {"loss": p["b"][0]}),
        ({"w": f64[3], "b": [f64[()], f64[()]]}, f64[3]),
        ("p", "x"),
    )
    assert [n["name"] for n in made.graph.inputs] == ["p.w", "p.b.0", "p.b.1", "x"]
    assert [name for name, _ in made.graph.outputs] == ["out.0", "out.1.loss"]
    assert [n for n, _ in trace(lambda x: {"a": x, "b": [x]}, (f64[3],), ("x",)).graph.outputs] == [
        "a",
        "b.0",
    ]
    assert [n for n, _ in trace(lambda x: x, (f64[3],), ("x",)).graph.outputs] == ["out"]
    assert str(parse_graph(str(made.graph))) == str(made.graph)


def test_small_captured_arrays_are_constants():
    kept = np.arange(64.0)
    made = traced(lambda x: x.sum() + kept, X)
    kept[:] = 0
    assert made.captured == () and "constant" in str(made.graph)


def test_large_captured_arrays_are_hidden_inputs():
    kept = np.arange(65.0)
    made = traced(lambda x: x.sum() + kept + kept, X)
    assert [n["name"] for n in made.graph.inputs] == ["x0", "captured_0"]
    assert [str(n.type) for n in made.arguments] == ["f64[3]"]
    kept[:] = 0
    np.testing.assert_array_equal(made.captured[0], np.arange(65.0))
    assert not made.captured[0].flags.writeable


def test_captured_arrays_run():
    kept = np.arange(100.0)[::-1]
    same(run(lambda x: x.sum() + kept, X), 3.0 + kept)
    f = graphc.jit(lambda x: x.sum() + kept)
    same(f(X), 3.0 + kept)
    same(graphc.grad(lambda x: (x.sum() * kept).sum())(X), np.full(3, kept.sum()))


def test_results_need_not_depend_on_the_arguments():
    same(run(lambda x: 2.0, X), np.float64(2.0))
    same(run(lambda x: (x, np.arange(3), True), X)[1], np.arange(3))
    big = np.arange(100.0)
    same(run(lambda x: big, X), big)
    same(run(lambda x: x.shape[0], X, symbolic=True), np.int64(3))
    assert run(lambda x: (x, None, "name"), X)[1:] == (None, "name")
    same(run(lambda x: gnp.zeros((2,)) + np.ones(2), X), np.ones(2))


def test_nothing_returned():
    with pytest.raises(SignatureError, match="returned None, which has no arrays in it"):
        traced(lambda x: None, X)


def test_functions_record_inside_of_a_trace():
    """Also on plain arrays: transforms see everything and nothing is compiled on the way."""

    def function(x):
        y = gnp.sum(np.ones(3))
        assert isinstance(y, graphc.Tensor)
        return x + y

    same(run(function, X), X + 3)


def test_leaked_values():
    leaked = []
    traced(lambda x: leaked.append(x * 2) or x, X)
    with pytest.raises(
        TraceError,
        match=r"(?s)a traced value of 'function' is used at test_trace.py:\d+ after its trace has "
        r"ended",
    ):
        leaked[0] + 1
    with pytest.raises(TraceError, match="after its trace has ended"):
        traced(lambda x: x + leaked[0], X)
    with pytest.raises(TraceError, match="after its trace has ended"):
        gnp.sum(leaked[0])
    assert "traced f64[3]" in repr(leaked[0])


def test_values_of_another_trace():
    def outer(x):
        return trace(lambda y: x + y, (f64[3],), ("y",)).graph and x

    with pytest.raises(
        TraceError, match="values of two traces, 'function' and 'outer', meet at test_trace.py"
    ):
        traced(outer, X)


def test_values_leaked_from_a_nested_transform():
    leaked = []

    def function(x):
        graphc.grad(lambda y: leaked.append(y * 2) or y.sum())(x)
        return leaked[0] + x

    with pytest.raises(
        TraceError, match=r"depends on y, the argument of a nested transform \(test_trace.py:\d+\)"
    ):
        traced(function, X)


def test_a_trace_that_fails_leaves_nothing_behind():
    with pytest.raises(ZeroDivisionError):
        traced(lambda x: x / (1 // 0), X)
    same(gnp.sum(X), np.float64(3.0))


def test_long_chains():
    def function(x):
        for _ in range(3000):
            x = x + 1.0
        return x

    same(run(function, np.float64(0.0)), np.float64(3000.0))
