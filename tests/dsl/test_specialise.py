"""How many graphs a function is traced into, and which one serves a call."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.errors import ShapeError
from tests.dsl.support import same


def counted(function):
    shapes = []

    def inner(*args):
        shapes.append(tuple(getattr(a, "shape", None) for a in args))
        return function(*args)

    return graphc.jit(inner), shapes


def text(shapes):
    return [
        tuple(str(list(map(str, s))) if s is not None else None for s in call) for call in shapes
    ]


def test_an_axis_that_changes_becomes_symbolic():
    f, traces = counted(lambda x: x.sum(axis=1))
    for n in (5, 5, 6, 0, 1, 7):
        same(f(np.ones((n, 3))), np.full(n, 3.0))
    assert text(traces) == [("['5', '3']",), ("['argument_0_0', '3']",)]
    same(f(np.ones((4, 2))), np.full(4, 2.0))
    same(f(np.ones((9, 9))), np.full(9, 9.0))
    assert len(traces) == 3


def test_sizes_that_meet_are_one_size():
    f, traces = counted(lambda x, y: (x * y[:, None]).sum())
    for n in (3, 4, 5, 1, 0):
        same(f(np.ones((n, 2)), np.ones(n)), np.float64(2 * n))
    assert len(traces) == 3  # static, two symbols, which then are one
    same(f(np.ones((4, 2)), np.ones(1)), np.float64(8))  # not the same size: a graph of its own
    with pytest.raises(ShapeError, match=r"cannot broadcast f64\[4,2\] with f64\[3,1\]"):
        f(np.ones((4, 2)), np.ones(3))


def test_equal_sizes_alone_are_not_one_size():
    f, traces = counted(lambda x, y: x.sum() + y.sum())
    f(np.ones(3), np.ones(3))
    f(np.ones(4), np.ones(4))
    same(f(np.ones(5), np.ones(6)), np.float64(11))
    assert len(traces) == 2


def test_what_needs_a_number_stays_static():
    f, _ = counted(lambda x: sum(row for row in x))
    same(f(np.ones((3, 2))), np.full(2, 3.0))
    same(f(np.ones((4, 2))), np.full(2, 4.0))
    g, _ = counted(lambda x: x.reshape(2, 3))
    same(g(np.ones(6)), np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"f64\[8\] has 8 elements"):
        g(np.ones(8))


def test_dtypes_ranks_and_weakness_are_told_apart():
    f, traces = counted(lambda x, y: x * y)
    (
        f(np.ones(2), 1.0),
        f(np.ones(2), np.float64(1.0)),
        f(np.ones(2), 1),
        f(np.float32([1]), 1.0),
        f(1.0, 1.0),
    )
    assert len(traces) == 5


def test_matrix_products_unify():
    f, _ = counted(lambda x, w: np.tanh(x @ w).sum())
    for n, k in ((2, 3), (4, 5), (6, 7)):
        same(f(np.zeros((n, k)), np.ones(k)), np.float64(0.0))
    g = graphc.grad(lambda x, w: (x @ w).sum(), argnums=1)
    for n, k in ((2, 3), (4, 5), (6, 7)):
        same(g(np.ones((n, k)), np.ones(k)), np.full(k, float(n)))
