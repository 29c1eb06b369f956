"""Compiled sums have the bits of the reference tree, for every size, axis and stride."""

import numpy as np
import pytest

import graphc
from graphc.gates.contraction import contract_reference
from graphc.gates.reduction import tree_reduce

TYPES = {"f64": graphc.f64, "f32": graphc.f32}
EVERY = 5_000


def tree(x, axes, fold=np.add, identity=-0.0):
    """The reference: one axis after the other, the last first."""
    for axis in sorted(axes, reverse=True):
        order = "lanes" if axis == x.ndim - 1 else "rows"
        x = tree_reduce(x, axis, order, fold, identity)
    return x


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def data(shape, dtype, seed=0):
    """Numbers over many magnitudes, so that another order is another sum."""
    random = np.random.default_rng(seed)
    return (random.normal(size=shape) * 10.0 ** random.integers(-6, 7, size=shape)).astype(dtype)


@pytest.mark.parametrize("name", TYPES)
def test_every_size_up_to_5000(name):
    dtype = TYPES[name]

    def total(x):
        return x.sum()

    total.__annotations__ = {"x": dtype["n"]}
    kernel = graphc.compile(total)
    x = data(EVERY, dtype.numpy)
    wrong = [n for n in range(EVERY + 1) if not same(kernel(x[:n]), tree(x[:n], (0,)))]
    assert wrong == []


@pytest.mark.parametrize("name", TYPES)
def test_every_size_of_dot_products(name):
    dtype = TYPES[name]

    def dot(x, y):
        return x @ y

    dot.__annotations__ = {"x": dtype["n"], "y": dtype["n"]}
    kernel = graphc.compile(dot)
    x, y = data(EVERY, dtype.numpy, 1), data(EVERY, dtype.numpy, 2)
    sizes = [*range(0, 700), *range(700, EVERY, 41)]
    assert [n for n in sizes if not same(kernel(x[:n], y[:n]), contract_reference(x[:n], y[:n], "lanes"))] == []


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("static", [False, True])
def test_columns_of_every_height(name, static):
    """Sums over rows, with columns that do and do not fill whole vectors."""
    dtype = TYPES[name]
    columns = 19

    def down(x):
        return x.sum(axis=0)

    down.__annotations__ = {"x": dtype["n", columns if static else "m"]}
    kernel = graphc.compile(down)
    x = data((1100, columns), dtype.numpy)
    heights = [*range(0, 300), *range(300, 1100, 37)]
    assert [n for n in heights if not same(kernel(x[:n]), tree(x[:n], (0,)))] == []


AXES = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
SHAPES = [(1, 1, 1), (3, 5, 7), (2, 40, 33), (70, 4, 9), (5, 1, 130), (0, 3, 2), (3, 0, 2), (300, 2, 3)]


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("axes", AXES)
def test_every_axis_of_three(name, axes):
    dtype = TYPES[name]

    def total(x):
        return x.sum(axis=axes)

    total.__annotations__ = {"x": dtype["a", "b", "c"]}
    kernel = graphc.compile(total)
    for shape in SHAPES:
        x = data(shape, dtype.numpy)
        assert same(kernel(x), tree(x, axes)), shape


@pytest.mark.parametrize("name", TYPES)
def test_strided_and_reversed_inputs(name):
    dtype = TYPES[name]

    def total(x):
        return x.sum(axis=0), x.sum(axis=1), x.sum()

    total.__annotations__ = {"x": dtype["n", "m"]}
    kernel = graphc.compile(total)
    base = data((130, 90), dtype.numpy)
    for view in (base, base.T, base[::2, ::3], base[::-1], base[:, ::-1], np.asfortranarray(base), base[5:6]):
        for got, axes in zip(kernel(view), [(0,), (1,), (0, 1)]):
            assert same(got, tree(view, axes))


@pytest.mark.parametrize("name", TYPES)
def test_slices_inside_of_the_graph(name):
    dtype = TYPES[name]

    def total(x):
        return x[::-1].sum(), x[1::3].sum(), x[:, ::2].sum(axis=0), x.T.sum(axis=1)

    total.__annotations__ = {"x": dtype["n", 45]}
    kernel = graphc.compile(total)
    x = data((77, 45), dtype.numpy)
    expected = [tree(x[::-1], (0, 1)), tree(x[1::3], (0, 1)), tree(x[:, ::2], (0,)), tree(x.T, (1,))]
    for got, want in zip(kernel(x), expected):
        assert same(got, want)


def test_products_have_their_tree_too():
    def total(x: graphc.f64["n"]):
        return np.prod(x)

    kernel = graphc.compile(total)
    x = 1 + 1e-3 * np.random.default_rng(0).normal(size=600)
    for n in range(0, 600, 7):
        assert same(kernel(x[:n]), tree_reduce(x[:n], 0, "lanes", np.multiply, 1.0))


def test_a_sum_of_nothing_is_positive_zero():
    def total(x: graphc.f64["n", "m"]):
        return x.sum(axis=0), x.sum(axis=1)

    down, across = graphc.compile(total)(np.zeros((0, 3)))
    assert same(down, np.zeros(3)) and across.shape == (0,)
    assert not np.signbit(graphc.compile(total)(np.zeros((2, 0)))[1]).any()


def test_the_error_bound_holds():
    """(ceil(log2 n) + 2) eps sum|x|, on any axis."""
    def total(x: graphc.f32["n", "m"]):
        return x.sum(axis=0), x.sum(axis=1)

    x = data((4000, 37), np.float32)
    for got, axis in zip(graphc.compile(total)(x), (0, 1)):
        exact = x.astype(np.float64).sum(axis)
        bound = (np.ceil(np.log2(x.shape[axis])) + 2) * 2.0**-24 * np.abs(x.astype(np.float64)).sum(axis)
        assert (np.abs(got - exact) <= bound).all()
