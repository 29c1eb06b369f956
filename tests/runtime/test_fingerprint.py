"""Keys: graphs that differ have other bytes, and what no stage reads is no part of them."""

import ast
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.dsl.trace import trace
from graphc.ir.graph import Builder, Graph
from graphc.ir.text import parse_graph, print_graph
from graphc.ir.types import Dim, TensorType, f32, f64, i64
from graphc.runtime.fingerprint import ABOVE, PACKAGE, Unknown, graph_bytes
from tests.random_graphs import grown


def traced(function, *types, names=("x", "y", "z")):
    return trace(function, types, names[: len(types)], "f").graph


class Twice(graphc.Gate):
    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return self.factor * x

    def backward(self, ct, x):
        return ct * self.factor


class Nested(graphc.Gate):
    def __init__(self, factor):
        self.inner = Twice(factor)

    def forward(self, x):
        return self.inner(x) + self.inner(x)


def named(name, **outputs):
    b = Builder()
    x = b.input("x", f64[3])
    return b.graph(name, {k: v(x) for k, v in outputs.items()})


NAN = np.float64("nan")
OTHER_NAN = np.frombuffer(b"\x01\0\0\0\0\0\xf8\x7f")[0]
GRAPHS = [
    traced(lambda x: x + 1.0, f64["n"]),
    traced(lambda x: x + 1.0, f64["m"]),
    traced(lambda x: x + 1.0, f64["n", 3]),
    traced(lambda x: x + 1.0, f64[3]),
    traced(lambda x: x + 1.0, f32["n"]),
    traced(lambda x: x + 1.0, i64["n"]),
    traced(lambda x: x + 1.0, f64["n"], names=("y",)),
    traced(lambda x: x + 2.0, f64["n"]),
    traced(lambda x: x + 0.0, f64["n"]),
    traced(lambda x: x + -0.0, f64["n"]),
    traced(lambda x: x + NAN, f64["n"]),
    traced(lambda x: x + np.array([1.0, NAN]), f64[2]),
    traced(lambda x: x + np.array([1.0, OTHER_NAN]), f64[2]),
    traced(lambda x: 1.0 + x, f64["n"]),
    traced(lambda x: x - 1.0, f64["n"]),
    traced(lambda x: {"y": x + 1.0}, f64["n"]),
    traced(lambda x: (x + 1.0, x + 1.0), f64["n"]),
    traced(lambda x: (x + 1.0, x), f64["n"]),
    traced(lambda x: (x, x + 1.0), f64["n"]),
    traced(lambda x, y: x + y, f64["n"], f64["n"]),
    traced(lambda x, y: y + x, f64["n"], f64["n"]),
    traced(lambda x, y: x + x, f64["n"], f64["n"]),
    traced(lambda x: x.sum(axis=0), f64["n", "m"]),
    traced(lambda x: x.sum(axis=1), f64["n", "m"]),
    traced(lambda x: x[1:], f64["n"]),
    traced(lambda x: x[:-1], f64["n"]),
    traced(lambda x: x[::2], f64["n"]),
    traced(lambda x: x + np.arange(3.0), f64[3]),
    traced(lambda x: x + np.arange(3.0)[::-1], f64[3]),
    traced(lambda x: x + np.arange(100.0), f64[100]),
    traced(lambda x: Twice(2.0)(x), f64[3]),
    traced(lambda x: Twice(3.0)(x), f64[3]),
    traced(lambda x: Nested(2.0)(x), f64[3]),
    traced(lambda x: Nested(3.0)(x), f64[3]),
    named("f", y=lambda x: x + x),
    named("g", y=lambda x: x + x),
    named("f", z=lambda x: x + x),
    named("fi1;", y=lambda x: x + x),
]


def test_other_graphs_have_other_bytes():
    assert len({graph_bytes(g) for g in GRAPHS}) == len(GRAPHS)


def test_lines_do_not_matter():
    def first(x, y):
        return graphc.tanh(x @ y).sum()

    def second(x, y):

        z = x @ y

        return graphc.tanh(z).sum()

    types = (f64["n", 3], f64[3])
    one, two = traced(first, *types), traced(second, *types)
    assert graph_bytes(one) == graph_bytes(two)
    assert str(one.origin(one.outputs[0][1])) != str(two.origin(two.outputs[0][1]))


@pytest.mark.parametrize("graph", GRAPHS, ids=range(len(GRAPHS)))
def test_a_graph_from_text_has_the_same_bytes(graph):
    text = print_graph(graph)
    if graph.name.isidentifier() and "nan" not in text:  # all NaNs have one text
        assert graph_bytes(parse_graph(text)) == graph_bytes(graph)


def test_random_graphs():
    """Equal bytes are equal texts, and the other way round."""
    graphs = [grown(i).graph for i in range(5)]
    texts = {print_graph(g) for g in graphs}
    assert len({graph_bytes(g) for g in graphs}) == len(texts) == 5
    for g in graphs:
        assert graph_bytes(parse_graph(print_graph(g))) == graph_bytes(g)


def test_equal_sizes_have_one_text():
    n, m = Dim.symbol("n"), Dim.symbol("m")
    assert TensorType(f64, (n * 2 + m, 3)) == TensorType(f64, (m + n + n, 3))
    assert str(n * 2 + m) == str(m + n + n)


def test_a_long_chain_and_deep_nesting():
    b = Builder()
    value = b.input("y", TensorType(f64))
    for _ in range(20_000):
        value = value + 1.0
    assert len(graph_bytes(b.graph("chain", {"y": value}))) < 2_000_000
    inner = None
    for i in range(2000):  # a gate in a gate in a gate
        b = Builder()
        x = b.input("x", TensorType(f64))
        made = x + 1.0
        if inner is not None:
            made = b.apply("call", x, forward=inner, backward=None, label=f"g{i}")
        inner = b.graph("g", {"y": made})
    assert graph_bytes(inner).count(b"graph;") == 2000


def test_what_cannot_be_written_is_unknown():
    b = Builder()
    x = b.input("x", f64[3])
    graph = b.graph("f", {"y": x + x})
    odd = Graph("f", graph.inputs, graph.outputs)
    node = graph.outputs[0][1]
    node.attrs = (("shape", np.int64(3)),)
    with pytest.raises(Unknown):
        graph_bytes(odd)


ALLOWED = {  # what stages import from above, when they are asked for what is no stage's work
    ("gates/gate.py", "graphc.dsl.tensor"),  # a gate called on arrays
    ("codegen/c_abi.py", "graphc.aot.interface"),  # libraries
    ("pipeline.py", "graphc.report.verification"),  # GRAPHC_VERIFY, which reads no cache
}
STAGES = ("ir", "gates", "transforms", "passes", "lower", "codegen")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{n.name}" for n in node.names)
        elif isinstance(node, ast.Import):
            yield from (n.name for n in node.names)


def test_no_stage_reads_what_is_no_part_of_the_key():
    """The folders whose files are left out of the key have nothing that makes code of a graph."""
    package = Path(PACKAGE)
    files = [p for stage in STAGES for p in (package / stage).rglob("*.py")]
    files.append(package / "pipeline.py")
    own = {f"graphc.{folder}" for folder in ABOVE}
    assert len(files) > 60 and all((package / folder).is_dir() for folder in ABOVE)
    found = {
        (str(p.relative_to(package)), module)
        for p in files
        for module in imports(p)
        if ".".join(module.split(".")[:2]) in own
    }
    assert {(f, m) for f, m in found if (f, m.rpartition(".")[0]) not in ALLOWED} <= ALLOWED
