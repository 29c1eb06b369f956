import numpy as np
import pytest

from graphc.errors import DifferentiationError, SignatureError, VerifyError
from graphc.gates.gate import registry
from graphc.gates.trigonometric import sin
from graphc.ir.graph import Builder
from graphc.ir.types import f32, f64, i64
from graphc.ir.verify import verify
from graphc.transforms.tangent import push_forward, tangent
from tests.transforms.cases import CASES, WITHOUT, arguments, graph_of, normals, run

names = lambda graph: tuple(n["name"] for n in graph.inputs)


def test_every_gate_stands_in_a_case():
    used = {n.op for g in CASES.values() for n in g.nodes} | WITHOUT
    flat = {
        name for name, g in registry().items() if g.kind == "elementwise" and g.structure == "zero"
    }
    rounding = {"sign", "floor", "ceil", "round", "trunc"}
    assert set(registry()) - used - flat - rounding == set()


@pytest.mark.parametrize("name", CASES)
def test_tangent_is_the_central_difference(name):
    graph = CASES[name]
    moved = tangent(graph, names(graph))
    verify(moved)
    args, along = arguments(graph), normals(graph.inputs, 1)
    got = run(moved, [*args, *along])
    step = 1e-2 if any(n.type.dtype is f32 for n in graph.nodes) else 1e-5
    ahead = run(graph, [(a + step * v).astype(a.dtype) for a, v in zip(args, along, strict=True)])
    behind = run(graph, [(a - step * v).astype(a.dtype) for a, v in zip(args, along, strict=True)])
    expected = (ahead["y"] - behind["y"]) / (2 * step)
    assert np.array_equal(got["y"], run(graph, args)["y"])
    np.testing.assert_allclose(
        got["d_y"], expected, rtol=3e-3 if step > 1e-3 else 1e-6, atol=1e-3 if step > 1e-3 else 1e-7
    )


def test_only_the_path_is_visited():
    b = Builder()
    x, y = b.input("x", f64[3]), b.input("y", f64[3])
    aside = sin(sin(y))
    before = len(b._interned)
    assert push_forward(b, [aside], [x], [b.input("t", f64[3])]) == [None]
    assert len(b._interned) == before


def test_starts_are_not_differentiated_through():
    # d(2y) by y is t * 2: a finite constant partial needs no strong zero
    b = Builder()
    x, t = b.input("x", f64[3]), b.input("t", f64[3])
    y = sin(x)
    (moved,) = push_forward(b, [y * 2.0], [x, y], [None, t])
    assert moved.node.op == "mul" and moved.node.args[0] is t.node


def test_an_output_that_does_not_depend_has_the_tangent_zero():
    b = Builder()
    x, y = b.input("x", f64["n"]), b.input("y", f64["n"])
    moved = tangent(b.graph("g", {"y": y, "k": b.apply("iota", axis=0, shape=x.shape)}), ("x",))
    assert [name for name, _ in moved.outputs] == ["y", "k", "d_y"]
    assert np.array_equal(run(moved, [np.ones(3), np.ones(3), np.ones(3)])["d_y"], np.zeros(3))


def test_tangent_of_another_type_is_a_defect():
    b = Builder()
    x = b.input("x", f64[3])
    with pytest.raises(VerifyError, match="tangent"):
        push_forward(b, [sin(x)], [x], [b.input("t", f64[2])])


def test_wrong_names():
    graph = graph_of(lambda x, i: sin(x), x=f64["n"], i=i64["n"])
    with pytest.raises(SignatureError, match="'z'"):
        tangent(graph, ("z",))
    with pytest.raises(DifferentiationError, match=r"'i' is i64\[n\]"):
        tangent(graph, ("i",))


def test_origins_say_tangent():
    graph = graph_of(sin, x=f64[()])
    from graphc.ir.text import parse_graph

    with_origin = parse_graph("graph g(x: f64[])\n  %1 = sin %x : f64[]   m.py:3\nreturn y=%1")
    moved = tangent(with_origin, ("x",))
    assert str(moved.origin(dict(moved.outputs)["d_y"])) == "m.py:3 tangent"
    assert moved.origin(dict(tangent(graph, ("x",)).outputs)["d_y"]) is None
