"""Values with two axes exchanged, written out: the transposed numbers, and no array transposed."""

import numpy as np
import pytest

from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph
from graphc.ir.types import f64
from graphc.transforms.mirror import MOST, Mirror
from tests.random_checks import same


def vectors():
    """Three as rows and as columns of pairs, and points in space."""
    b = Builder()
    names = [b.input(name, f64["n"]) for name in "xyz"]
    points = b.input("p", f64["n", 3])
    shape = f64["n", "n"].shape
    crossed = [v.expand(axis).broadcast(shape) for v in names for axis in (1, 0)]
    deep = [points.expand(axis).broadcast(f64["n", "n", 3].shape) for axis in (1, 0)]
    return b, crossed, deep


@pytest.mark.parametrize("n", [1, 5])
def test_each_element_is_what_it_was(n):
    b, (x_i, x_j, y_i, y_j, z_i, _), (p_i, p_j) = vectors()
    apart = p_i - p_j
    square = (apart * apart).sum(2)
    near = b.apply("exp", -square)
    deep = (near * y_i).expand(2).broadcast(apart.shape)
    values = [
        x_i / y_j - z_i,
        b.apply("where", b.apply("lt", x_i, y_j), x_j, y_i * 2.0),
        near * z_i + x_j,
        (apart * p_j).sum(2) * x_i,
        deep * apart,
    ]
    mirrored = [Mirror(b, 0, 1).of(v.node) for v in values]
    assert None not in mirrored
    outs = {f"v{k}": v for k, v in enumerate(values)}
    outs |= {f"m{k}": type(values[0])(b, m) for k, m in enumerate(mirrored)}
    r = np.random.default_rng(n)
    arrays = [*r.normal(size=(3, n)), r.normal(size=(n, 3))]
    found = run_graph(b.graph("mirrored", outs), arrays)
    for value, made in zip(found[: len(values)], found[len(values) :], strict=True):
        assert same(made, np.ascontiguousarray(value.swapaxes(0, 1)))


def test_what_is_symmetric_stays():
    b, (x_i, x_j, *_), (p_i, p_j) = vectors()
    apart = p_i - p_j
    for value in (x_i * x_j, b.apply("exp", (apart * apart).sum(2)), x_i.constant(1.0)):
        assert Mirror(b, 0, 1).of(value.node) is value.node
    near = b.apply("exp", (apart * apart).sum(2))
    assert Mirror(b, 0, 1).of((near * x_i).node).args[0] is near.node


def test_what_would_cost_more_than_a_sum_is_left():
    """An array with both axes, a long gate, a sum over pairs, and too many operations."""
    b, (x_i, x_j, y_i, *_), _ = vectors()
    array = b.input("a", f64["n", "n"])
    assert Mirror(b, 0, 1).of((array * x_i).node) is None
    assert Mirror(b, 0, 1).of(b.apply("exp", x_i - 2.0 * x_j).node) is None
    total = (x_i * x_j).sum(1).expand(1).broadcast(array.shape)
    assert Mirror(b, 0, 1).of((total * y_i).node) is None
    many = x_i
    for _ in range(MOST):
        many = many / x_j
    assert Mirror(b, 0, 1).of(many.node) is None
