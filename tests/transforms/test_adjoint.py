import numpy as np
import pytest

import graphc
from graphc.errors import DifferentiationError, SignatureError, VerifyError
from graphc.gates.elementwise import (
    abs_,
    div,
    eq,
    lt,
    maximum,
    minimum,
    mul,
    relu,
    sqrt,
    where,
)
from graphc.gates.exponential import (
    exp,
    log,
    log1p,
)
from graphc.gates.gate import registry
from graphc.gates.hyperbolic import (
    tanh,
)
from graphc.gates.trigonometric import (
    sin,
)
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph
from graphc.ir.text import parse_graph
from graphc.ir.types import TensorType, bool_, f64, i64
from graphc.ir.verify import verify
from graphc.passes.simplify import simplify
from graphc.transforms.adjoint import adjoint, pull_back
from graphc.transforms.tangent import tangent
from tests.transforms.cases import (
    CASES,
    NOT_TWICE,
    apply,
    arguments,
    elementwise_gates,
    graph_of,
    normals,
    prod,
    run,
)

names = lambda graph: tuple(n["name"] for n in graph.inputs)
inner = lambda a, b: sum(float(np.sum(x.astype(float) * y)) for x, y in zip(a, b, strict=True))


def only(graph, *kept):
    """The same graph with some of its outputs."""
    from graphc.ir.graph import Graph

    outputs = tuple((name, n) for name, n in graph.outputs if name in kept)
    return Graph(graph.name, graph.inputs, outputs, graph.origins)


def renamed(graph, **others):
    from graphc.ir.graph import Graph

    outputs = tuple((others.get(name, name), n) for name, n in graph.outputs)
    return Graph(graph.name, graph.inputs, outputs, graph.origins)


def gradient(make, *values, ct=1.0):
    """Gradients of a function of vectors, of its one result weighted with ct."""
    types = {f"x{i}": TensorType(f64, np.shape(v)) for i, v in enumerate(values)}
    graph = adjoint(graph_of(make, **types), tuple(types), "input")
    verify(graph)
    seed = np.broadcast_to(np.float64(ct), graph.outputs[0][1].type.shape)
    found = run(graph, [*map(np.asarray, values), seed])
    after = run(simplify(graph), [*map(np.asarray, values), seed])
    assert all(np.array_equal(found[k], after[k], equal_nan=True) for k in found)
    return [found[f"grad_{name}"] for name in types]


@pytest.mark.parametrize("name", CASES)
def test_reverse_agrees_with_forward(name):
    graph = CASES[name]
    args, v, w = arguments(graph), normals(graph.inputs, 1), normals(graph.output_nodes, 2)
    reverse = adjoint(graph, names(graph), "input")
    verify(reverse)
    back = run(reverse, [*args, *w])
    forward = run(tangent(graph, names(graph)), [*args, *v])
    pulled = [back[f"grad_{n}"] for n in names(graph)]
    assert [p.shape for p in pulled] == [a.shape for a in args]
    expected = inner(w, [forward["d_y"]])
    single = any(n.type.dtype.name == "f32" for n in graph.nodes)
    assert inner(pulled, v) == pytest.approx(
        expected, rel=1e-5 if single else 1e-11, abs=1e-5 if single else 1e-12
    )


@pytest.mark.parametrize("name", CASES)
def test_simplified_gradients_have_the_same_bits(name):
    graph = adjoint(CASES[name], names(CASES[name]), "input")
    args = [*arguments(CASES[name]), *normals(CASES[name].output_nodes, 2)]
    expected = run(graph, args)
    for skip in ((), ("rules",), ("fold",)):
        after = simplify(graph, skip)
        verify(after)
        got = run(after, args)
        assert all(np.array_equal(got[k], expected[k], equal_nan=True) for k in expected)


@pytest.mark.parametrize("name", [n for n in CASES if n not in NOT_TWICE])
def test_second_order(name):
    """Forward over reverse equals reverse over reverse, and the difference quotient of the
    gradient.
    """
    graph = CASES[name]
    args, w = arguments(graph), normals(graph.output_nodes, 2)
    first = only(adjoint(graph, names(graph), "input"), *(f"grad_{n}" for n in names(graph)))
    first = renamed(first, **{f"grad_{n}": f"g_{n}" for n in names(graph)})
    u, v = normals(graph.inputs, 3), normals(graph.inputs, 4)
    over = run(tangent(first, names(graph)), [*args, *w, *u])
    h_u = [over[f"d_g_{n}"] for n in names(graph)]
    second = run(adjoint(first, names(graph), "input"), [*args, *w, *v])
    h_v = [second[f"grad_{n}"] for n in names(graph)]
    single = any(n.type.dtype.name == "f32" for n in graph.nodes)
    assert inner(h_u, v) == pytest.approx(
        inner(h_v, u), rel=1e-4 if single else 1e-9, abs=1e-4 if single else 1e-10
    )
    if not single:
        step = 1e-6
        ahead = run_graph(first, [*(a + step * d for a, d in zip(args, u, strict=True)), *w])
        behind = run_graph(first, [*(a - step * d for a, d in zip(args, u, strict=True)), *w])
        quotient = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
        for got, expected in zip(h_u, quotient, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gate", [g for g in elementwise_gates() if g.sym], ids=lambda g: g.name)
def test_partials_equal_the_model(gate):
    import sympy

    symbols = [sympy.Symbol(p, real=True) for p in gate.params]
    model = sympy.sympify(gate.sym, locals=dict(zip(gate.params, symbols, strict=True)))
    low, high = gate.domain
    if low < 6 < high:
        low, high = max(low, -6.0), 6.0
    rng = np.random.default_rng(7)
    points = rng.uniform(low, high, (6, len(symbols)))
    found = gradient(gate, *points.T)
    for i, symbol in enumerate(symbols):
        # sympy leaves the derivative of rounding open; it is 0.
        is_open = lambda e: isinstance(e, (sympy.Subs, sympy.Derivative))
        partial = sympy.diff(model, symbol).replace(is_open, lambda e: sympy.S.Zero)
        expected = [
            float(partial.subs({s: sympy.Float(v, 40) for s, v in zip(symbols, p, strict=True)}))
            for p in points
        ]
        np.testing.assert_allclose(
            found[i], expected, rtol=2e-14, atol=1e-300, err_msg=f"by {symbol}"
        )


# -- traps: gradients at the edges -----------------------------------------------------------------


def test_a1_the_branch_not_taken_gives_no_nan():
    logs = lambda x: where(lt(x.zeros_like(), x), log(x), x.zeros_like())
    assert gradient(logs, [0.0, 2.0, -1.0])[0].tolist() == [0.0, 0.5, 0.0]
    roots = lambda x: where(lt(x.zeros_like(), x), sqrt(x), x)
    assert gradient(roots, [0.0, 4.0, -1.0])[0].tolist() == [1.0, 0.25, 1.0]
    divided = lambda x, y: where(eq(y, y.zeros_like()), x, div(x, y))
    dx, dy = gradient(divided, [3.0, 1.0], [0.0, 2.0])
    assert dx.tolist() == [1.0, 0.5] and dy.tolist() == [0.0, -0.25]


def test_a1_in_forward_mode():
    graph = graph_of(lambda x: where(lt(x.zeros_like(), x), log(x * x), x.zeros_like()), x=f64[2])
    moved = run(tangent(graph, ("x",)), [np.array([0.0, 2.0]), np.array([0.0, 1.0])])
    assert moved["d_y"].tolist() == [0.0, 1.0]


def test_a2_a_value_under_nested_choices():
    def nested(x):
        zero = x.zeros_like()
        l = log(x)
        return where(lt(zero, x), where(lt(x, x.constant(1)), l, l * l), zero) + where(
            lt(zero, x), l, zero
        )

    found = gradient(nested, [0.0, 0.5, np.e])[0]
    np.testing.assert_allclose(found, [0.0, 4.0, 3 / np.e])


def test_a4_sqrt_at_0():
    assert gradient(sqrt, [0.0])[0][0] == np.inf
    assert gradient(sqrt, [0.0], ct=0.0)[0][0] == 0


def test_a6_abs_at_0():
    assert gradient(abs_, [0.0, -0.0, -2.0, 3.0])[0].tolist() == [0, 0, -1, 1]


def test_a7_ties_of_two():
    for gate in (maximum, minimum):
        dx, dy = gradient(gate, [1.0, 0.0], [1.0, -0.0])
        assert dx.tolist() == dy.tolist() == [0.5, 0.5]


def test_a8_relu_at_0():
    assert gradient(relu, [0.0, -0.0, -1.0, 2.0])[0].tolist() == [0, 0, 0, 1]


def test_a9_ties_of_many():
    x = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    found = gradient(lambda v: apply("max", v, axis=1, order="any"), x)[0]
    assert found.tolist() == [[0, 0.5, 0.5, 0], [0.25] * 4]


def test_a18_products_with_zeros():
    found = gradient(
        lambda v: prod(v, 1), np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 3.0], [1.0, 2.0, 3.0]])
    )[0]
    assert found.tolist() == [[0, 6, 0], [0, 0, 0], [6, 3, 2]]


def test_a23_logsumexp_of_nothing_but_minus_infinity():
    x = np.array([[-np.inf, -np.inf], [-np.inf, 0.0], [0.0, 0.0]])
    found = gradient(lambda v: apply("logsumexp", v, axis=1), x)[0]
    assert found.tolist() == [[0, 0], [0, 1], [0.5, 0.5]]


def test_a44_what_was_broadcast_is_summed():
    found = gradient(
        lambda x, y: x.broadcast((4, 3)) * y.broadcast((4, 3)), np.ones((1, 3)), np.ones((4, 1))
    )
    assert found[0].tolist() == [[4, 4, 4]] and found[1].tolist() == [[3]] * 4
    empty = gradient(lambda x: x.broadcast((0, 3)), np.ones((1, 3)))[0]
    assert empty.tolist() == [[0, 0, 0]]


def test_a47_casts_pass_floats_and_stop_at_integers():
    assert gradient(lambda x: x.cast(i64).cast(f64) * x, [2.5])[0].tolist() == [2.0]
    assert gradient(lambda x: x.cast(i64).cast(f64), [2.5])[0].tolist() == [0.0]


def test_gradient_passes_through_a_choice_by_argmax():
    found = gradient(
        lambda x: sin(x) * apply("argmax", x, axis=0).cast(f64).broadcast((2,)), [0.0, 1.0]
    )[0]
    np.testing.assert_allclose(found, np.cos([0.0, 1.0]))


# -- graphs ----------------------------------------------------------------------------------------


def loss_graph():
    b = Builder()
    x, w = b.input("x", f64["n"]), b.input("w", f64["n"])
    b.input("i", i64["n"])
    return b.graph(
        "loss", {"loss": (x * tanh(w)).sum(0), "most": b.apply("argmax", x, axis=0), "z": sin(x)}
    )


def test_seed_one():
    graph = adjoint(loss_graph(), ("w", "x"))
    assert [name for name, _ in graph.outputs] == ["loss", "most", "z", "grad_w", "grad_x"]
    assert names(graph) == ("x", "w", "i")
    x, w = np.array([1.0, 2.0]), np.array([0.5, -0.5])
    found = run(graph, [x, w, np.array([0, 1])])
    np.testing.assert_allclose(found["grad_x"], np.tanh(w))


def test_seeds_as_inputs():
    graph = adjoint(loss_graph(), ("x",), "input")
    assert names(graph) == ("x", "w", "i", "ct_loss", "ct_z")
    x, w = np.array([1.0, 2.0]), np.array([0.5, -0.5])
    found = run(graph, [x, w, np.array([0, 1]), np.array(0.0), np.array([1.0, 10.0])])
    np.testing.assert_allclose(found["grad_x"], np.cos(x) * [1, 10])


def test_unused_inputs_have_the_gradient_zero():
    b = Builder()
    x = b.input("x", f64["n"])
    b.input("y", f64["n", 2])
    found = run(adjoint(b.graph("g", {"l": sin(x).sum(0)}), ("y",)), [np.ones(3), np.ones((3, 2))])
    assert found["grad_y"].tolist() == [[0.0, 0.0]] * 3


def test_what_cannot_be_differentiated():
    with pytest.raises(DifferentiationError, match=r"'i' is i64\[n\]"):
        adjoint(loss_graph(), ("i",))
    with pytest.raises(SignatureError, match="'q'.*x, w, i"):
        adjoint(loss_graph(), ("q",))
    with pytest.raises(SignatureError, match="seeds"):
        adjoint(loss_graph(), ("x",), "two")
    vector = graph_of(sin, x=f64["n"])
    with pytest.raises(DifferentiationError, match=r"'y' is asked for, which is f64\[n\]"):
        adjoint(vector, ("x",))
    truth = graph_of(lambda x, p: p, x=f64[2], p=TensorType(bool_))
    with pytest.raises(DifferentiationError, match="bool"):
        adjoint(truth, ("x",))
    with pytest.raises(DifferentiationError, match="no float output"):
        adjoint(truth, ("x",), "input")


def test_an_output_of_a_gradients_name():
    graph = graph_of(lambda x: sin(x), x=f64[()])
    with pytest.raises(SignatureError, match="grad_x"):
        adjoint(renamed(graph, y="grad_x"), ("x",))


def test_a_cotangent_of_another_type_is_a_defect():
    b = Builder()
    x = b.input("x", f64[3])
    with pytest.raises(VerifyError, match="cotangent"):
        pull_back(b, [sin(x)], [b.input("ct", f64[2])], [x])


def test_the_same_value_twice():
    b = Builder()
    x, ct = b.input("x", f64[3]), b.input("ct", f64[3])
    one, two = pull_back(b, [sin(x)], [ct], [x, x])
    assert one.node is two.node


def test_intermediate_values():
    b = Builder()
    x, ct = b.input("x", f64[3]), b.input("ct", f64[3])
    y = sin(x)
    (by_y,) = pull_back(b, [y * y], [ct], [y])
    found = run_graph(b.graph("g", {"by_y": by_y}, [x, ct]), [np.full(3, 0.5), np.ones(3)])
    np.testing.assert_allclose(found[0], 2 * np.sin(0.5))


def test_products_with_cotangents_are_strong():
    graph = adjoint(graph_of(lambda x: mul(exp(x), log1p(x)), x=f64[()]), ("x",))
    assert any(n.op == "mul0" for n in graph.nodes)


def test_gates_without_a_backward_are_differentiated():
    assert registry()["argmax"].backward is None
    assert "jacobian" not in {n.op for n in adjoint(CASES["call"], ("x",), "input").nodes}
    assert "jacobian" not in {n.op for n in adjoint(CASES["call-forward"], ("x",), "input").nodes}


def test_adjoint_is_deterministic():
    assert str(adjoint(loss_graph(), ("w", "x"))) == str(adjoint(loss_graph(), ("w", "x")))


@pytest.mark.parametrize("factor", [0.5, -0.25, 2.0, 0.3])
def test_twice_a_part_of_a_cotangent(factor):
    """What a power of two below 1 halves is not halved first; beside subnormal numbers, the bits of
    doubling afterwards."""

    @graphc.graph
    def loss(x: graphc.f64["n"], w: graphc.f64["n"]):
        return (factor * (w * (x * x))).sum()

    w = np.array([1.0, -3.1, 1e300, 5e-324, 1.5e-323, 0.0, np.inf])
    x = np.array([2.0, 0.7, 1.3, 2.0**60, 1.0, 3.0, 1.0])
    compiled = graphc.compile(loss, wrt="x")
    _, gradient = compiled.value_and_grad(x, w)
    with np.errstate(all="ignore"):
        halved = factor * w
        wanted = np.where(halved == 0, 0.0, (halved + halved) * x)
    normal = np.abs(w) > 1e-300
    assert gradient[normal].tobytes() == wanted[normal].tobytes()
    if abs(factor) == 0.5:  # the exact ones
        assert gradient[3:5].tolist() == [5e-324 * 2.0**60, 1.5e-323]
    doubled = "add" in [n.op for n in parse_graph(compiled.stages["simplify"]).nodes]
    assert doubled == (factor in (2.0, 0.3))
