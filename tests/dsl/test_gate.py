"""Users' own gates."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.errors import GateError, ShapeError
from graphc.ir.text import parse_graph
from tests.dsl.support import run, same, traced


class Multiply(graphc.Gate):
    def forward(self, x, y):
        return x * y

    def backward(self, dz, x, y):
        return dz * y, dz * x


class Straight(graphc.Gate):
    """Rounds; its gradient passes as if it did not."""

    def forward(self, x):
        return gnp.round(x)

    def backward(self, dz, x):
        return dz


class Scaled(graphc.Gate):
    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return x * self.factor


X, Y = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])


def test_on_arrays():
    same(Multiply()(X, Y), X * Y)
    same(Multiply(X, Y), X * Y)
    same(Multiply(2.0, np.float32([1, 2])), np.float32([2, 4]))
    same(Scaled(3)(X), 3 * X)
    assert Multiply.__name__ == "Multiply"


def test_it_is_one_node():
    graph = traced(lambda x, y: Multiply(x, y) + 1, X, Y).graph
    assert [n.op for n in graph.nodes] == ["input", "input", "call", "constant", "add"]
    assert str(parse_graph(str(graph))) == str(graph)


def test_gradients():
    assert [d.tolist() for d in graphc.grad(lambda x, y: Multiply(x, y).sum(), (0, 1))(X, Y)] == [
        Y.tolist(),
        X.tolist(),
    ]
    same(graphc.grad(lambda x: (Straight(x) * Y).sum())(X + 0.3), Y)
    same(graphc.grad(lambda x: Scaled(3.0)(x).sum())(X), np.full(3, 3.0))


def test_broadcast_operands():
    dx, dy = graphc.grad(lambda x, y: Multiply(x, y).sum(), (0, 1))(np.ones((2, 1)), Y)
    assert dx.tolist() == [[15.0], [15.0]] and dy.tolist() == [2.0, 2.0, 2.0]


def test_gradients_of_gradients():
    second = graphc.grad(lambda x: graphc.grad(lambda x: Multiply(Multiply(x, x), x))(x))
    assert float(second(2.0)) == 12.0


def test_symbolic_sizes():
    same(run(lambda x: Multiply(x, x).sum(), X, symbolic=True), np.float64(14.0))

    @graphc.graph
    def energy(x: graphc.f64["n"]):
        return Multiply(x, x).sum()

    same(energy(X), np.float64(14.0))
    same(run(lambda x: energy(x), X), np.float64(14.0))
    same(graphc.grad(lambda x: energy(x))(X), 2 * X)


def test_captured_arrays():
    kept = np.arange(100.0)
    other = np.ones(200)

    class Shift(graphc.Gate):
        def forward(self, x):
            return x.sum() + kept

        def backward(self, dz, x):
            return gnp.zeros(3) + (dz * kept).sum() + other.sum()

    same(Shift(X), 6.0 + kept)
    same(graphc.grad(lambda x: Shift(x).sum())(X), np.full(3, kept.sum() + 200))


def test_integers_and_none():
    class Pick(graphc.Gate):
        def forward(self, x, i, scale):
            return x[i] * scale

        def backward(self, dz, x, i, scale):
            return gnp.where(gnp.arange(3) == i, dz * scale, 0.0), None, None

    dx, ds = graphc.grad(lambda x, i, s: Pick(x, i, s), argnums=(0, 2))(X, 1, 3.0)
    assert dx.tolist() == [0, 3, 0] and float(ds) == 0.0


def wrong(method, **methods):
    return type("Wrong", (graphc.Gate,), {"forward": lambda self, x, y: x * y, **methods})


def test_wrong_gates():
    count = wrong("count", backward=lambda self, dz, x, y: dz)
    with pytest.raises(GateError, match="gate Wrong: backward gives 1 cotangents for 2 operands"):
        traced(lambda x, y: count(x, y), X, Y)
    shape = wrong("shape", backward=lambda self, dz, x, y: (dz.sum(), dz))
    with pytest.raises(
        ShapeError, match=r"backward gives f64\[\] for the operand x of f64\[3\](.|\n)*test_gate.py"
    ):
        traced(lambda x, y: shape(x, y), X, Y)
    several = wrong("several", forward=lambda self, x, y: (x, y))
    with pytest.raises(GateError, match="forward returns one array"):
        traced(lambda x, y: several(x, y), X, Y)
    with pytest.raises(GateError, match="gate Empty needs a forward method"):
        traced(lambda x: type("Empty", (graphc.Gate,), {})(x), X)
