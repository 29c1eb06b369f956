"""The traced array: what it knows, what it refuses, and NumPy's protocols."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import graphc
from graphc.errors import DTypeError, ShapeError, TraceError
from tests.dsl.support import run, same, traced

X = np.arange(6.0).reshape(2, 3)


def test_what_is_known():
    def function(x):
        assert x.shape == (2, 3) and x.ndim == 2 and x.size == 6 and len(x) == 2
        assert x.dtype == np.float64 and x.T.shape == (3, 2) and x.mT.shape == (3, 2)
        assert np.shape(x) == (2, 3) and np.ndim(x) == 2 and np.size(x) == 6 and np.size(x, 1) == 3
        assert repr(x) == "<traced f64[2,3]: x0>"
        assert repr(x + 1) == "<traced f64[2,3]: %2 = add(x0, 1.0)>"
        return x.copy()

    same(run(function, X), X)


READS = {
    "bool": lambda x: bool(x[0, 0] > 0),
    "if": lambda x: 1 if x[0, 0] > 0 else 2,
    "chained": lambda x: 0 < x[0, 0] < 1,
    "and": lambda x: x[0, 0] > 0 and x,
    "int": lambda x: int(x[0, 0]),
    "float": lambda x: float(x[0, 0]),
    "complex": lambda x: complex(x[0, 0]),
    "index": lambda x: [1, 2][x[0, 0]],
    "range": lambda x: range(x[0, 0]),
    "array": lambda x: np.array(x),
    "list": lambda x: np.array([x, x]),
    "item": lambda x: x.item(),
    "tolist": lambda x: x.tolist(),
    "in": lambda x: 1.0 in x,
    "math": lambda x: __import__("math").exp(x[0, 0]),
}


@pytest.mark.parametrize("name", READS)
def test_reading_a_traced_value(name):
    """The message names the user's line and what to do."""
    with pytest.raises(TraceError, match=r"(?s)test_tensor.py:\d+.*instead: "):
        traced(READS[name], X)


def test_the_message_of_an_if():
    def function(x):
        y = x * 2
        if y > 3:
            return y
        return x

    with pytest.raises(TraceError) as caught:
        traced(function, np.float64(1.0))
    line = function.__code__.co_firstlineno
    assert str(caught.value).split("\n") == [
        "a traced bool[] was read as a Python bool (by if, while, and, or, not, or a chained "
        "comparison) at "
        f"test_tensor.py:{line + 2}: a traced value has no numbers until the graph runs",
        f"  value  %4 = gt(%2, 3.0)   test_tensor.py:{line + 2}",
        "  instead: graphc.where(condition, x, y), the operators & | ~, or a condition on shapes",
    ]


def test_named_sizes_have_no_length():
    for function in (len, list, lambda x: [r for r in x]):
        with pytest.raises(TraceError, match="s0_0"):
            run(function, X, symbolic=True)
    for function in (len, list):
        with pytest.raises(TypeError):
            run(function, np.float64(1.0))


def test_foreign_operands():
    class Other:
        def __radd__(self, x):
            return x * 3

    same(run(lambda x: x + Other(), X), X * 3)
    with pytest.raises(TypeError):
        run(lambda x: x + "a", X)
    assert run(lambda x: (x == None) * np.ones(1), X) == 0  # noqa: E711
    same(run(lambda x: x + [1, 2, 3], X), X + [1, 2, 3])
    same(run(lambda x: [1, 2, 3] + x, X), [1, 2, 3] + X)


@pytest.mark.parametrize(
    "f",
    [
        operator.add,
        operator.sub,
        operator.mul,
        operator.truediv,
        operator.lt,
        operator.ge,
        operator.ne,
    ],
)
def test_arrays_on_the_left(f):
    same(run(lambda x: f(X, x), X + 1), f(X, X + 1))
    same(run(lambda x: f(np.float32(2), x), X + 1), f(np.float32(2), X + 1))


def test_operators():
    same(run(lambda x: 2**x, X), 2**X)
    same(run(lambda x: x**x, X), X**X)
    same(run(lambda x: X.T @ x, X), X.T @ X)
    same(run(lambda x: -x + abs(-x), X), np.zeros((2, 3)))
    same(run(lambda x: divmod(x, 4)[1], X.astype(int)), X.astype(int) % 4)
    same(run(lambda x: 10 // (x + 1), X.astype(int)), 10 // (X.astype(int) + 1))
    same(run(lambda x: 10 % (x + 1), X.astype(int)), 10 % (X.astype(int) + 1))


METHODS = {
    "sum": lambda x: x.sum(1), "mean": lambda x: x.mean(axis=0, keepdims=True),
    "max": lambda x: x.max(), "min": lambda x: x.min(0),
    "prod": lambda x: x.prod(), "var": lambda x: x.var(), "any": lambda x: (x > 4).any(),
    "all": lambda x: (x > -1).all(axis=1),
    "argmax": lambda x: x.argmax(), "argmin": lambda x: x.argmin(1), "clip": lambda x: x.clip(1, 3),
    "round": lambda x: (x / 3).round(1), "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(),
    "dot": lambda x: x.dot(x.T), "take": lambda x: x.take([0, 2], axis=1),
    "squeeze": lambda x: x[:1].squeeze(),
    "swapaxes": lambda x: x.swapaxes(0, 1), "astype": lambda x: x.astype("f4"),
    "reshape": lambda x: x.reshape(3, -1),
    "flatten": lambda x: x.flatten(), "ravel": lambda x: x.ravel(),
    "transpose": lambda x: x.transpose(),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    same(run(METHODS[name], X), METHODS[name](X))


PROTOCOLS = {
    "ufunc": lambda x: np.tanh(x @ np.ones(3)), "two": lambda x: np.add(x, 1),
    "reduce": lambda x: np.add.reduce(x),
    "reduce axis": lambda x: np.maximum.reduce(x, axis=1),
    "accumulate": lambda x: np.add.accumulate(x), "cumsum": lambda x: np.cumsum(x, axis=-1),
    "accumulate axis": lambda x: np.multiply.accumulate(x, axis=1),
    "cumprod": lambda x: np.cumprod(x, dtype=np.float32),
    "outer": lambda x: np.multiply.outer(x[0], x[1]),
    "dtype": lambda x: np.add(x, 1, dtype=np.float32),
    "mean": lambda x: np.mean(x, axis=0), "average of "
                                          "stack": lambda x: np.mean(np.stack([x, 2 * x]), axis=0),
                                          "amax": lambda x: np.amax(x),
    "around": lambda x: np.around(x), "where": lambda x: np.where(x > 2, x, 0.0),
    "result_type": lambda x: x.astype(np.result_type(x, np.float32)),
    "invert": lambda x: np.invert(x > 2), "bitwise": lambda x: np.bitwise_and(x > 2, x < 4),
    "sum defaults": lambda x: np.sum(x, out=None),
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x), "clip": lambda x: np.clip(x, 1.0, 2.0),
    "logical": lambda x: np.logical_and(x, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", PROTOCOLS)
def test_numpys_own_functions(name):
    same(run(PROTOCOLS[name], X), PROTOCOLS[name](X))


@pytest.mark.parametrize(("function", "message"), [
    (lambda x: np.fft.fft(x), r"numpy.fft.fft of a traced value at test_tensor.py:\d+: graphc has "
                              r"no such function"),
    (lambda x: np.nextafter(x, x), "numpy.nextafter of a traced value"),
    (lambda x: np.subtract.accumulate(x), "numpy.subtract.accumulate of a traced value"),
    (lambda x: np.add(x, x, out=np.zeros((2, 3))), "numpy.add of a traced value .*: the argument "
                                                   "'out' is not supported"),
    (lambda x: np.add(x, x, where=x > 1), "the argument 'where' is not supported"),
    (lambda x: np.sum(x, where=X > 1), "the argument 'where' is not supported"),
    (lambda x: np.sum(x, initial=2.0), "unexpected keyword argument 'initial'"),
    (lambda x: np.where(x > 1), r"where\(condition\) without x and y"),
    (lambda x: np.linalg.inv(x), "numpy.linalg"),
])  # fmt: skip
def test_functions_without_a_traced_form(function, message):
    with pytest.raises(TraceError, match=message):
        traced(function, X)


def test_bitwise_operations_of_integers():
    with pytest.raises(DTypeError, match="bitwise operations are for bools here, got int64"):
        run(lambda x: np.bitwise_and(x, 1), np.arange(3))


SHAPES = [
    (
        lambda x: x.reshape(4, 4),
        r"reshape: f64\[2,3\] has 6 elements, which \(4, 4\) does not hold",
    ),
    (lambda x: x.reshape(-1, -1), "only one size may be -1"),
    (lambda x: x.sum(axis=2), r"axis 2 of an array of rank 2 at test_tensor.py"),
    (lambda x: x.sum(axis=(0, 0)), "an axis twice"),
    (lambda x: x @ x, r"matmul: f64\[2,3\] does not fit f64\[2,3\]: sizes 3 and 2"),
    (lambda x: x @ 2.0, "a number has no rows"),
    (lambda x: np.concatenate([x, x[0]]), r"concatenate along axis 0: f64\[2,3\] with f64\[3\]"),
    (lambda x: np.concatenate([x, x.T]), r"concatenate along axis 0: f64\[2,3\] with f64\[3,2\]"),
    (lambda x: np.stack([x, x.T]), "stack"),
    (lambda x: np.squeeze(x, 0), "axis 0 .* is not of size 1"),
    (lambda x: np.transpose(x, (0, 0)), "is not a permutation"),
    (lambda x: np.broadcast_to(x, (3, 3)), r"does not broadcast to \(3, 3\)"),
    (lambda x: np.pad(x, 1, mode="edge"), "mode 'edge' is not supported"),
    (lambda x: x[:0].max(axis=0), "max over axes .0,. .*nothing to choose from"),
    (lambda x: np.einsum("ij,jk->ik", x, x), "einsum ij,jk->ik: .* sizes 3 and 2"),
    (lambda x: np.einsum("ii->i", x), "each once in an operand"),
]


@pytest.mark.parametrize(("function", "message"), SHAPES)
def test_shapes_that_do_not_fit(function, message):
    with pytest.raises(ShapeError, match=message) as caught:
        traced(function, X)
    assert "test_tensor.py:" in str(caught.value)


def test_gates_are_functions_too():
    from graphc.gates.hyperbolic import tanh
    from graphc.gates.movement import transpose

    same(run(lambda x: tanh(x), X), np.tanh(X))
    same(run(lambda x: transpose(x, perm=(1, 0)), X), X.T)
    same(tanh(X), np.tanh(X))
    same(transpose(X, perm=(1, 0)), X.T)


def test_nodes_carry_the_users_line():
    def function(x):
        y = x + 1
        return np.sum(graphc.sigmoid(y))

    graph = traced(function, X).graph
    line = function.__code__.co_firstlineno
    assert {n.op: str(graph.origin(n)) for n in graph.nodes if n.op in ("add", "sigmoid",
    "sum")} == {
        "add": f"test_tensor.py:{line + 1}", "sigmoid": f"test_tensor.py:{line + 2}",
        "sum": f"test_tensor.py:{line + 2}",
    }  # fmt: skip
