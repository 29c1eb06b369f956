"""Every form of index against NumPy, for static and for named sizes."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.errors import DTypeError, IndexOutOfBounds, TraceError
from tests.dsl.support import run, same, traced

X = np.arange(5 * 6 * 7, dtype=float).reshape(5, 6, 7)
s_ = np.s_
IDX = np.array([3, -1, 0])
BASIC = [
    s_[0], s_[-1], s_[1, 2], s_[1, 2, -3], s_[1:], s_[:-1], s_[::2], s_[::-1], s_[4:1:-2],
    s_[..., 0], s_[None], s_[:, None, 2],
    s_[..., None], s_[1:4, ::3, ::-2], s_[:, 1:1], s_[10:], s_[-100:2], s_[None, ..., None], s_[()],
    s_[...], s_[2:100:7], s_[-3:-1],
    s_[np.int64(2)], s_[-1, ..., -1],
]  # fmt: skip
ARRAYS = [
    s_[IDX], s_[:, IDX], s_[..., IDX], s_[IDX, 1:3], s_[IDX, IDX], s_[:, IDX, IDX], s_[IDX, :, IDX],
    s_[0, :, IDX], s_[:, 0, IDX],
    s_[IDX, None], s_[IDX[:, None], IDX], s_[[1, 2]], s_[IDX.astype(np.int32), 2:, None, ::2],
    s_[IDX, IDX, IDX], s_[[]],
    s_[X[:, 0, 0] > 60], s_[:, X[0, :, 0] > 20], s_[IDX, 1], s_[np.uint8([1, 2])],
    s_[1:, IDX[:, None], None, IDX],
]  # fmt: skip


@pytest.mark.parametrize("index", BASIC, ids=str)
def test_basic(index):
    same(run(lambda x: x[index], X), X[index])


@pytest.mark.parametrize("index", ARRAYS, ids=lambda i: str(i)[:40])
def test_arrays(index):
    same(run(lambda x: x[index], X), X[index])


@pytest.mark.parametrize(
    "index",
    [
        s_[0],
        s_[-1],
        s_[1:, 2],
        s_[IDX],
        s_[:, IDX],
        s_[IDX, IDX],
        s_[::-1, 1:-1],
        s_[..., -1, None],
    ],
    ids=str,
)
def test_on_named_sizes(index):
    same(run(lambda x: x[index], X, symbolic=True), X[index])


BOUNDS = [None, 0, 1, 2, 4, -1, -2, -4]


@pytest.mark.parametrize("step", [None, 1, 2, 3, -1, -2])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_slices_of_named_sizes(n, step):
    """One graph for every size, 0 and 1 included."""
    x = np.arange(n, dtype=float)
    for start in BOUNDS:
        for stop in BOUNDS:
            index = slice(start, stop, step)
            same(run(lambda x, index=index: x[index], x, symbolic=True), x[index])


def test_slices_by_named_sizes():
    x = np.arange(7.0)
    same(run(lambda x: x[: x.shape[0] // 2], x, symbolic=True), x[:3])
    same(run(lambda x: x[x.shape[0] // 2 :], x, symbolic=True), x[3:])
    same(run(lambda x: x[x.shape[0] - 1], x, symbolic=True), x[-1])
    with pytest.raises(TraceError, match="may be negative: count from the end"):
        run(lambda x: x[: x.shape[0] - 2], x, symbolic=True)


def test_traced_indices():
    i = np.array([2, -1])
    same(run(lambda x, i: x[i], X, i), X[i])
    same(run(lambda x, i: x[i[0]], X, i), X[2])
    same(run(lambda x, i: x[:, i, 1], X, i), X[:, i, 1])
    same(run(lambda x, i: x[i, i], X, i, symbolic=True), X[i, i])
    same(run(lambda x: np.argmax(x[0], axis=0), X), np.argmax(X[0], axis=0))
    same(run(lambda x: x[0][np.argmax(x[0, 0])], X[:, :, :6]), X[0, 5, :6])


@pytest.mark.parametrize("index", [5, -6, s_[:, 6], [1, 9]], ids=str)
def test_known_indices_out_of_bounds(index):
    with pytest.raises(
        IndexOutOfBounds, match=r"out of bounds for axis . with size . at test_index.py"
    ):
        run(lambda x: x[index], X)


def test_indices_out_of_bounds_at_the_call():
    for index in ([0, 7], [-8, 0]):
        with pytest.raises(IndexError, match="out of bounds"):
            run(lambda x, i: x[i], X, np.array(index))
    for pair in ([0, 6], [5, 0], [-1, -7]):
        with pytest.raises(IndexError, match="out of bounds"):
            run(lambda x, i: x[i[0], i[1]], X, np.array(pair))
    with pytest.raises(IndexError, match="out of bounds"):
        run(lambda x: x[3], np.ones(3), symbolic=True)


def test_what_cannot_be_an_index():
    with pytest.raises(
        TraceError,
        match="boolean mask .* at test_index.py:.*the size of the result would depend on data",
    ):
        run(lambda x: x[x > 1], X)
    with pytest.raises(DTypeError, match="use integers"):
        run(lambda x: x[x], X)
    with pytest.raises(IndexError, match="use integers, slices, None or ..."):
        run(lambda x: x[0.5], X)
    with pytest.raises(IndexError, match="too many indices"):
        run(lambda x: x[0, 0, 0, 0], X)
    with pytest.raises(IndexError, match="single ellipsis"):
        run(lambda x: x[..., 0, ...], X)
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        run(lambda x: x[::0], X)
    with pytest.raises(TraceError, match="a slice with a traced bound"):
        run(lambda x, i: x[:i], np.ones(3), np.array(1), symbolic=True)


def test_assignment_is_an_error():
    def function(x):
        x[0] = 1.0
        return x

    with pytest.raises(TraceError, match="an assignment to elements at test_index.py"):
        traced(function, np.ones(3))


def test_repeated_indices_add_their_gradients():
    i = np.array([0, 0, 2])
    gradient = graphc.grad(lambda x: (x[i] * np.arange(1.0, 4.0)).sum())(np.ones(4))
    np.testing.assert_array_equal(gradient, [3.0, 0.0, 3.0, 0.0])


def test_iteration_and_unpacking():
    same(run(lambda x: sum(row[0] for row in x), X[0]), X[0][:, 0].sum())

    def function(x):
        a, b = x
        return a - b

    same(run(function, X[0, :2]), X[0, 0] - X[0, 1])
