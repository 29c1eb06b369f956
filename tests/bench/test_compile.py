"""The formulas that compilers are measured with, and what is said about them."""

import json

import numpy as np
import pytest

from bench import compile as report
from bench import compilers, formulas, growth
from graphc.ir.reference import run_graph

TRANSCENDENTAL = {"tanh", "sin", "exp", "log"}


@pytest.mark.parametrize("count", [9, 10, 11, 300])
def test_a_third_of_the_gates_is_transcendental(count):
    import graphc
    import graphc.numpy as gnp

    @graphc.graph
    def f(x: graphc.f64["n"], y: graphc.f64["n"]):
        return formulas.gates(gnp, x, y, count)

    ops = [n.op for n in f.graph.nodes if n.op not in ("input", "constant", "broadcast")]
    assert sum(op in TRANSCENDENTAL for op in ops) == count // 3
    assert 0.8 * count <= len(ops) <= count  # equal gates are one


@pytest.mark.parametrize("kind, count", [("vectors", 10), ("scalars", 20), ("terms", 30)])
def test_what_is_compiled_is_the_formula(kind, count):
    value, gradients = compilers.of_graphc(kind, count, 3)()
    given = compilers.arrays(kind, count)
    function = compilers.formula(np, kind, count, 3)
    assert np.isclose(value, function(*given), rtol=1e-12)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    step = 1e-6
    moved = [np.asarray(a) + step for a in given]
    back = [np.asarray(a) - step for a in given]
    slope = (function(*moved) - function(*back)) / (2 * step)
    assert np.isclose(sum(np.sum(g) for g in gradients), slope, rtol=1e-5)


@pytest.mark.parametrize("shape", growth.SHAPES)
def test_shapes(shape):
    graph = growth.SHAPES[shape](50)
    assert 40 <= len(graph.nodes) <= 160
    (y,) = run_graph(graph, [np.array(0.3)] * len(graph.inputs))
    assert np.isfinite(y)
    said = growth.slope(shape, 50, 100)
    assert said["nodes"] <= 5


def test_what_is_shown(capsys):
    found = report.Found("a machine", {"500 gates on vectors": {"graphc": 0.1, "jax": None},
                                       "20,000 gates on vectors": {"graphc": 6.0}})  # fmt: skip
    found.growth = {"kept": 900.0, "slope chain": {"exponent": 1.01, "nodes": 2.5, "seconds": 3.0}}
    report.show(found, ("graphc", "jax"), True)
    said = capsys.readouterr().out
    assert "| 500 gates on vectors | 150.00 ms | 100.00 ms | > 60 s |" in said
    assert "| 1.50 |" in said and "900 bytes" in said and "1.01; 2.5; 3.0 s" in said
    json.dumps(found.seconds)
