"""Sums of cotangents over exchanged axes: which are one, and with which sign."""

import numpy as np
import pytest

import graphc
from graphc.gates.gate import registry
from graphc.ir.graph import Builder
from graphc.ir.reference import run_scalar
from graphc.ir.types import f32, f64
from graphc.transforms.exchange import shared
from graphc.transforms.likeness import EVEN, ODD


def sums_of(compiled, stage="simplify"):
    return [line for line in compiled.stages[stage].split("\n") if " = sum " in line]


def by_differences(function, x, step=1e-6):
    found = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        found[i] = (function(up) - function(down)) / (2 * step)
    return found


X = np.random.default_rng(0).normal(size=(6, 3))


@graphc.graph
def energy(x: graphc.f64["n", 3]):
    apart = x[:, None, :] - x[None, :, :]
    return (1.0 / np.sqrt((apart * apart).sum(axis=2) + 0.1)).sum()


@graphc.graph
def by_coordinates(x: graphc.f64["n", 3]):
    d = [x[:, None, k] - x[None, :, k] for k in range(3)]
    return np.exp(-(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)).sum()


@graphc.graph
def without_new_axis(x: graphc.f64["n", 3]):
    apart = x[:, None, :] - x
    return np.log1p(np.abs(apart).sum(axis=2)).sum()


@graphc.graph
def products(x: graphc.f64["n", 3]):
    return np.tanh((x[:, None, :] * x[None, :, :]).sum(axis=2)).sum()


@graphc.graph
def masked(x: graphc.f64["n", 3]):
    apart = x[:, None, :] - x[None, :, :]
    k = graphc.arange(x.shape[0])
    square = np.where((k[:, None] != k[None, :])[:, :, None], apart * apart, 1.0)
    return (1.0 / square.sum(axis=2)).sum()


@graphc.graph
def ordered(x: graphc.f64["n", 3]):
    """Of each pair both (i, j) and (j, i) are needed, and little is computed for either."""
    apart = x[:, None, :] - x[None, :, :]
    return np.maximum(apart, 0.25 * apart).sum(axis=2).sum()


@pytest.mark.parametrize(
    "function",
    [energy, by_coordinates, without_new_axis, products, masked, ordered],
    ids=lambda f: f.__name__,
)
def test_force_and_counterforce_are_summed_once(function):
    compiled = graphc.compile(function, wrt="x")
    _, gradient = compiled.value_and_grad(X)
    np.testing.assert_allclose(gradient, by_differences(compiled, X), rtol=1e-5, atol=1e-7)
    assert not any(" axis=0 " in line and "order=rows" in line for line in sums_of(compiled))


@graphc.graph
def one_sided(x: graphc.f64["n", 3]):
    apart = x[:, None, :] - 2.0 * x[None, :, :]
    return np.exp(-(apart * apart).sum(axis=2)).sum()


@graphc.graph
def weighted(x: graphc.f64["n", 3], w: graphc.f64["n", "n"]):
    apart = x[:, None, :] - x[None, :, :]
    return (w * np.exp(-(apart * apart).sum(axis=2))).sum()


@graphc.graph
def density(x: graphc.f64["n", 3]):
    """What (j, i) needs is known after all of row j: arrays of pairs would be kept till then."""
    apart = x[:, None, :] - x[None, :, :]
    return np.log(np.exp(-(apart * apart).sum(axis=2)).sum(axis=1)).sum()


@graphc.graph
def inverse(x: graphc.f64["n", 3]):
    """1/0 is inf on both sides of the diagonal, not inf and -inf."""
    apart = x[:, None, :] - x[None, :, :]
    return np.tanh(1.0 / (apart + 0.5)).sum()


@pytest.mark.parametrize(
    "function", [one_sided, weighted, inverse, density], ids=lambda f: f.__name__
)
def test_what_is_not_symmetric_is_summed_twice(function):
    compiled = graphc.compile(function, wrt="x")
    more = [np.random.default_rng(1).normal(size=(6, 6))] if function is weighted else []
    _, gradient = compiled.value_and_grad(X, *more)
    want = by_differences(lambda x: compiled(x, *more), X)
    np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-7)
    assert any(" axis=0 " in line and "order=rows" in line for line in sums_of(compiled))


@graphc.graph
def oscillators(x: graphc.f64["n", 3]):
    """Odd functions of differences, and even partials of them."""
    apart = x[:, None, :] - x[None, :, :]
    return (np.tanh(np.sin(apart)) * np.arctan(apart)).sum()


@graphc.graph
def between(x: graphc.f64["n", 3], m: graphc.f64["n"]):
    """(m_i / r) m_j is not (m_j / r) m_i to the bit."""
    apart = x[:, None, :] - x[None, :, :]
    return (m[:, None] / np.sqrt((apart * apart).sum(axis=2) + 0.1) * m[None, :]).sum()


@graphc.graph
def kernel_of(x: graphc.f64["n", 3], m: graphc.f64["n"]):
    apart = x[:, None, :] - x[None, :, :]
    return (np.exp(-0.5 * (apart * apart).sum(axis=2)) * m[:, None] * m).sum()


@graphc.graph
def hinge(x: graphc.f64["n", 3], m: graphc.f64["n"]):
    apart = x[:, None, :] - x[None, :, :]
    return np.maximum(0.0, m[:, None] - m[None, :] + (apart * apart).sum(axis=2)).sum()


@graphc.graph
def one_coordinate(x: graphc.f64["n", 3], m: graphc.f64["n"]):
    """A product whose second factor is its own opposite."""
    up = x[:, None, 1] - x[None, :, 1]
    return (m[:, None] * up * up).sum()


@pytest.mark.parametrize(
    "function", [between, kernel_of, hinge, one_coordinate], ids=lambda f: f.__name__
)
def test_what_is_not_symmetric_is_written_out_for_both(function):
    """One sum, of what (i, j) and (j, i) add to x_i; distances are there once."""
    m = np.random.default_rng(1).random(6) + 0.5
    compiled = graphc.compile(function, wrt="x")
    _, gradient = compiled.value_and_grad(X, m)
    want = by_differences(lambda x: compiled(x, m), X)
    np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-7)
    text = compiled.stages["simplify"]
    assert not any(" axis=0 " in line and "order=rows" in line for line in text.split("\n"))
    assert all(text.count(f" = {gate} ") <= 1 for gate in ("exp", "sqrt"))


def transposes_of(compiled):
    return compiled.stages["simplify"].count(" = transpose ")


@graphc.graph
def asymmetry(a: graphc.f64["n", "n"]):
    apart = a - a.T
    return np.sqrt(apart * apart + 1.0).sum()


@graphc.graph
def symmetric_part(a: graphc.f64["n", "n"]):
    return np.tanh(a + a.T).sum()


@graphc.graph
def product_with_transpose(a: graphc.f64["n", "n"]):
    return np.exp(np.sin(a * a.T)).sum()


@graphc.graph
def in_stacks(a: graphc.f64["k", "n", "n"]):
    return np.arctan(a - a.transpose(0, 2, 1)).sum(axis=0).max()


@pytest.mark.parametrize("function", [asymmetry, symmetric_part], ids=lambda f: f.__name__)
def test_a_gradient_that_is_its_own_transpose_is_made_once(function):
    """The transpose of a is read, and none of what is made of it."""
    compiled = graphc.compile(function, wrt="a")
    a = np.random.default_rng(0).normal(size=(6, 6))
    _, gradient = compiled.value_and_grad(a)
    np.testing.assert_allclose(gradient, by_differences(compiled, a), rtol=1e-6, atol=1e-8)
    assert transposes_of(compiled) == 1


@pytest.mark.parametrize("function", [product_with_transpose, in_stacks], ids=lambda f: f.__name__)
def test_gradients_through_transposes(function):
    compiled = graphc.compile(function, wrt="a")
    shape = (6, 6) if function is product_with_transpose else (2, 6, 6)
    a = np.random.default_rng(0).normal(size=shape)
    _, gradient = compiled.value_and_grad(a)
    np.testing.assert_allclose(gradient, by_differences(compiled, a), rtol=1e-6, atol=1e-8)


@graphc.graph
def one_sided_transpose(a: graphc.f64["n", "n"]):
    return np.tanh(a - 2.0 * a.T).sum()


@graphc.graph
def scaled_transpose(a: graphc.f64["n", "n"], w: graphc.f64["n", "n"]):
    return (w * np.tanh(a + a.T)).sum()


@pytest.mark.parametrize(
    "function", [one_sided_transpose, scaled_transpose], ids=lambda f: f.__name__
)
def test_what_is_no_transpose_of_itself_is_added_to_its_transpose(function):
    compiled = graphc.compile(function, wrt="a")
    a, w = np.random.default_rng(0).normal(size=(2, 6, 6))
    more = [w] if function is scaled_transpose else []
    _, gradient = compiled.value_and_grad(a, *more)
    want = by_differences(lambda a: compiled(a, *more), a)
    np.testing.assert_allclose(gradient, want, rtol=1e-6, atol=1e-8)
    assert transposes_of(compiled) == 2


def test_odd_and_even_functions():
    test_force_and_counterforce_are_summed_once(oscillators)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("op", sorted(EVEN | ODD))
def test_these_functions_are_even_or_odd_to_the_bit(op, dtype):
    rng = np.random.default_rng(0)
    scales = (1e-8, 1e-3, 1, 10, 1e3, 1e6)
    x = np.concatenate([rng.normal(size=20_000) * s for s in scales]).astype(dtype.numpy)
    x = np.append(x, np.array([0, 0.5, 1, 2, np.inf, 1e-40, 1e30], dtype.numpy))
    body = registry()[op].body_graph((dtype,))
    right, left = run_scalar(body, x), run_scalar(body, -x)
    np.testing.assert_array_equal(left, right if op in EVEN else -right)
    if op in ODD:
        assert run_scalar(body, x[:1] * 0) == 0


# -- values ----------------------------------------------------------------------------------------


def crossed(b, name="x"):
    """x_i and x_j over pairs."""
    x = b.input(name, f64["n"])
    shape = f64["n", "n"].shape
    return x.expand(1).broadcast(shape), x.expand(0).broadcast(shape)


def sign(a, b):
    """s where the sum of b over its first axis was found to be s times that of a over its last."""
    one, *others = shared([a.sum(1), b.sum(0)])
    if not others:  # both are in one
        return 0
    (other,) = others
    if other.node is one.node:
        return 1
    return -1 if other.node.op == "neg" and other.node.args[0] is one.node else 0


def test_the_sum_that_stands_for_both_has_no_sign_of_zeros():
    """Its terms are those of one of them, whose zeros may have had the other sign."""
    b = Builder()
    x, y = crossed(b)
    one, other = shared([(x - y).sum(1), (y - x).sum(0)])
    assert one.node is other.node
    assert one.node.op == "sum0" and one.node["order"] == "lanes"


def test_cotangents_that_are_one_already_stay_as_they_are():
    """As those of x * x: a sum in lanes of what lies in rows would be filled by one thread."""
    b = Builder()
    x, y = crossed(b)
    total = (x - y).sum(0)
    assert shared([total, total]) == [total, total]
    assert [v.node.op for v in shared([total, -total])] == ["sum", "neg"]


@pytest.mark.parametrize("d", [1, 3, 8, 11])
def test_a_known_number_of_coordinates_changes_no_bit(d):
    """A gradient of points whose coordinates are written out, and of such as an array adds up."""

    def declared(ty):
        @graphc.graph
        def near(x: ty):
            apart = x[:, None, :] - x[None, :, :]
            return np.exp(-(apart * apart).sum(axis=2)).sum()

        return graphc.compile(near, wrt="x").value_and_grad

    known, any_ = declared(graphc.f64["n", d]), declared(graphc.f64["n", "d"])
    for n in (0, 1, 7, 8, 9, 31, 33, 100, 300):
        x = np.random.default_rng(n).normal(size=(n, d))
        for a, b in zip(known(x), any_(x), strict=True):
            np.testing.assert_array_equal(
                np.asarray(a).view(np.int64), np.asarray(b).view(np.int64)
            )


def unary(op, x):
    return x.builder.apply(op, x)


def test_signs():
    b = Builder()
    x, y = crossed(b)
    force = x - y
    assert sign(force, force) == -1
    assert sign(force, -force) == 1
    assert sign(x * y, x * y) == 1
    assert sign(force * (x + y), force * (x + y)) == -1
    assert sign(force * force, force * force) == 1
    assert sign(unary("abs", force), unary("abs", force)) == 1
    assert sign(x, y) == 1
    assert sign(x * 3.0, y * 3.0) == 1
    assert sign(x, x) == 0
    assert sign(x + y * 2.0, x + y * 2.0) == 0
    assert sign(x * 3.0, y * 4.0) == 0


def test_only_to_the_bit_below_other_gates():
    """A difference is +0 on the diagonal, either way: a square cannot tell, its inverse can."""
    b = Builder()
    x, y = crossed(b)
    force = x - y
    assert sign(unary("exp", force * force), unary("exp", force * force)) == 1
    assert sign(unary("exp", force), unary("exp", force)) == 0
    assert sign(unary("reciprocal", force), unary("reciprocal", force)) == 0
    product = force * (x + y) * force  # -0 in one, +0 in the other
    assert sign(unary("reciprocal", product), unary("reciprocal", product)) == 0
    assert sign(force / (x * y), force / (x * y)) == -1
    assert sign((x * y) / force, (x * y) / force) == 0


def test_choices_and_comparisons():
    b = Builder()
    x, y = crossed(b)
    force, zero = x - y, x.zeros_like()
    near = b.apply("lt", force * force, x.constant(1.0))
    chosen = b.apply("where", near, force, zero)
    assert sign(chosen, chosen) == -1
    assert sign(b.apply("where", near, force, x * y), b.apply("where", near, force, x * y)) == 0
    first = b.apply("lt", x, y)
    assert sign(b.apply("where", first, x * y, zero), b.apply("where", first, x * y, zero)) == 0
    differ = b.apply("where", b.apply("ne", x, y), force, zero)
    assert sign(differ, differ) == -1


def test_the_axes_that_are_summed_have_one_size():
    b = Builder()
    x = b.input("x", f64["n"])
    y = b.input("y", f64["m"])
    wide = x.expand(1).broadcast(f64["n", "m"].shape) * y.expand(0).broadcast(f64["n", "m"].shape)
    one, other = wide.sum(1), wide.sum(0)
    assert [v.node for v in shared([one, other])] == [one.node, other.node]


def test_transposed_views_and_inner_sums():
    b = Builder()
    m = b.input("m", f64["n", "n"])
    t = m.transposed((1, 0))
    assert sign(m, t) == 1
    assert sign(m + t, m + t) == 1
    assert sign(m - t, m - t) == -1
    assert sign(m, m) == 0
    deep = b.input("d", f64["n", "n", 3])
    swapped = deep.transposed((1, 0, 2))
    assert sign((deep * swapped).sum(2), (deep * swapped).sum(2)) == 1


def test_deep_and_wide_graphs_end():
    """A comparison gives up in time, and in depth."""
    b = Builder()
    x, y = crossed(b)
    deep = x * y
    for _ in range(3000):
        deep = deep + x * y
    assert sign(deep, deep) == 0
    many = [unary("sin", x * float(k)) for k in range(500)]
    total = many[0]
    for term in many[1:]:
        total = total + term
    assert sign(total, total) == 0


def test_many_cotangents_of_one_value():
    """Each sum is compared with a few others only."""
    b = Builder()
    x, y = crossed(b)
    cotangents = [(x * float(k) + y).sum(1) for k in range(2, 200)]
    assert [v.node for v in shared(cotangents)] == [v.node for v in cotangents]
