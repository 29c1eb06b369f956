"""Declared graphs: decorated, built by hand, called on arrays and on traced values."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import graphc
from graphc import f32, f64, i64
from graphc.dsl.trace import trace
from graphc.errors import DTypeError, ShapeError, SignatureError
from tests.dsl.support import run, same

RNG = np.random.default_rng(3)
X, W = RNG.normal(size=(4, 3)), RNG.normal(size=3)


@graphc.graph
def neuron(x: f64["n", 3], w: f64[3], b: f64 = 0.5):
    """A weighted sum through a squashing function."""
    return np.tanh(x @ w + b)


def by_hand():
    g = graphc.Graph("neuron")
    x, w, b = g.input("x", f64["n", 3]), g.input("w", f64[3]), g.input("b", f64)
    g.output("y", np.tanh(x @ w + b))
    return g


def test_it_keeps_name_doc_and_signature():
    assert (
        neuron.__name__ == "neuron"
        and neuron.__doc__ == "A weighted sum through a squashing function."
    )
    assert list(inspect.signature(neuron).parameters) == ["x", "w", "b"]
    assert str(neuron.graph).split("\n")[0] == "graph neuron(x: f64[n,3], w: f64[3], b: f64[])"
    assert neuron.traced is neuron.traced


@pytest.mark.parametrize("make", [lambda: neuron, by_hand])
def test_on_arrays(make):
    k = make()
    same(k(X, W, 0.5), np.tanh(X @ W + 0.5))
    same(k(x=X[:0], w=W, b=1), np.zeros(0))
    same(k(np.asfortranarray(X), W[::-1][::-1], np.float32(0.5)), np.tanh(X @ W + 0.5))
    same(k(X.astype(">f8"), W.astype(np.float32), True), np.tanh(X @ W.astype(np.float32) + 1))
    k.traced


def test_defaults():
    same(neuron(X, W), np.tanh(X @ W + 0.5))


@pytest.mark.parametrize("make", [lambda: neuron, by_hand])
def test_inlined(make):
    k = make()
    same(run(lambda x, w: k(x, w, 0.5).sum(), X, W), np.tanh(X @ W + 0.5).sum())
    same(
        run(lambda x, w: k(x, w, 0.5)[:, None] * x, X, W, symbolic=False),
        np.tanh(X @ W + 0.5)[:, None] * X,
    )
    gradient = graphc.grad(lambda w: k(X, w, 0.5).sum())(W)
    np.testing.assert_allclose(
        gradient, ((1 - np.tanh(X @ W + 0.5) ** 2)[:, None] * X).sum(0), rtol=1e-12
    )


def test_inlined_sizes_are_replaced():
    @graphc.graph
    def pooled(x: f64["n", "m"]):
        return (
            x[1:, ::2].mean(axis=0)
            + graphc.numpy.arange(x.shape[0]).sum()
            + graphc.numpy.zeros((1,))
        )

    same(run(lambda x: pooled(x), X), pooled(X))
    made = trace(lambda x: pooled(x), (f64["k", 5],), ("x",))
    assert (
        "n" not in made.graph.sizes
        and "f64[k,5]" in str(made.graph)
        and "size=n" not in str(made.graph)
    )
    same(run(lambda x: pooled(x[1:]), X, symbolic=False), pooled(X[1:]))


def test_inlined_types_are_checked():
    with pytest.raises(ShapeError, match=r"argument w is f64\[3\], got f64\[4\]: sizes 3 and 4"):
        run(lambda x: neuron(x, np.ones(4), 0.0), X)
    with pytest.raises(SignatureError, match=r"neuron: argument w is f64\[3\], got f64\[4,3\]"):
        run(lambda x: neuron(x, x, 0.0), X)
    with pytest.raises(DTypeError, match=r"argument k is i64\[\], got f64\[\] at test_declare.py"):
        integers = graphc.graph(_of_integers)
        run(lambda x: integers(x), np.float64(1.0))

    @graphc.graph
    def two(x: f64["n"], y: f64["n"]):
        return x + y

    with pytest.raises(ShapeError, match="n is 4 before"):
        run(lambda x: two(x[:, 0], np.ones(3)), X)


def _of_integers(k: i64):
    return k + 1


CALLS = [
    ((X,), SignatureError, r"neuron\(x.*missing a required argument: 'w'"),
    ((X, W, 0.0, 1.0), SignatureError, "too many positional arguments"),
    ((X, W[:2], 0.0), ShapeError, r"argument w is f64\[3\], got the shape \(2,\)"),
    (
        (X[0], W, 0.0),
        SignatureError,
        r"argument x is f64\[n,3\], of rank 2; got the shape \(3,\), of rank 1",
    ),
    ((X.astype(complex), W, 0.0), DTypeError, "argument x: dtype complex128 is not supported"),
    ((X, W, 1j), DTypeError, "argument b: dtype complex128 is not supported"),
    ((X, W, "a"), DTypeError, "argument b: dtype <U1 is not supported"),
    ((X, W, None), DTypeError, "argument b: dtype object is not supported"),
    ((X, 1.0, 0.0), SignatureError, r"argument w is f64\[3\], of rank 1; got the shape \(\)"),
]


@pytest.mark.parametrize(("args", "kind", "message"), CALLS)
def test_wrong_calls(args, kind, message):
    with pytest.raises(kind, match=message):
        graphc.graph(_plain)(*args)


def _plain(x: f64["n", 3], w: f64[3], b: f64):
    return x @ w + b


_plain.__name__ = "neuron"


def test_sizes_that_disagree():
    @graphc.graph
    def two(x: f64["n"], y: f64["n", 2]):
        return x @ y

    with pytest.raises(
        ShapeError,
        match=r"argument y is f64\[n,2\], got the shape \(4, 2\): size n is 3 in argument x",
    ):
        two(np.ones(3), np.ones((4, 2)))


def test_dtypes_convert_where_they_are_held_exactly():
    @graphc.graph
    def half(x: f32["n"]):
        return x / 2

    same(half(np.arange(3, dtype=np.int16)), np.float32([0, 0.5, 1]))
    with pytest.raises(
        DTypeError,
        match=r"argument x is f32\[n\], got float64, which f32 does not hold exactly: convert it",
    ):
        half(np.arange(3.0))


def test_trees():
    @graphc.graph
    def layer(p: {"w": f64[3, 2], "b": f64[2]}, xs: (f64["n", 3], f64)):
        x, scale = xs
        return {"y": x @ p["w"] + p["b"], "scaled": [scale * 2]}

    p = {"w": np.ones((3, 2)), "b": np.zeros(2)}
    result = layer(p, (X, 2.0))
    same(result["y"], X @ p["w"])
    assert result["scaled"] == [4.0] and isinstance(result["scaled"][0], np.float64)
    assert [n["name"] for n in layer.graph.inputs] == ["p.w", "p.b", "xs.0", "xs.1"]
    with pytest.raises(
        SignatureError,
        match=r"argument p is a dict with the keys \['b', 'w'\], got the keys \['w'\]",
    ):
        layer({"w": 1}, (X, 2.0))


def test_captured_arrays():
    kept = np.arange(100.0)

    @graphc.graph
    def shifted(x: f64[100]):
        return x + kept

    same(shifted(kept), 2 * kept)
    same(run(lambda x: shifted(x) + shifted(2 * x), kept), 5 * kept)


def test_hand_built_graphs():
    g = by_hand()
    assert g.__name__ == "neuron" and repr(g) == "<graphc.Graph neuron(x, w, b) -> y>"
    assert list(inspect.signature(g).parameters) == ["x", "w", "b"]
    x = g.input("z", f64["n"])
    g.output("twice", x + x + np.zeros(1))
    result = g(X, W, 0.5, np.ones(4))
    assert sorted(result) == ["twice", "y"]
    same(result["twice"], np.full(4, 2.0))
    with pytest.raises(SignatureError, match="an input needs a new name"):
        g.input("x", f64)
    with pytest.raises(SignatureError, match="an output needs a new name"):
        g.output("y", x)
    with pytest.raises(SignatureError, match="has no output"):
        graphc.Graph("empty").graph
    with pytest.raises(SignatureError, match="is not a name for a graph"):
        graphc.Graph("two words")


def test_hand_built_graphs_capture():
    kept = np.arange(100.0)
    g = graphc.Graph("g")
    x = g.input("x", f64[100])
    y = graphc.numpy.concatenate([x, kept])
    g.output("y", y * 2)
    same(g(kept), np.concatenate([kept, kept]) * 2)
