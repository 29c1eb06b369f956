"""Small models that tests of stages, libraries and the CLI share. Golden texts name their lines."""

import numpy as np

import graphc


@graphc.graph
def neuron(x: graphc.f64["n", 3], w: graphc.f64[3], b: graphc.f64):
    return graphc.sigmoid(x @ w + b)


@graphc.graph
def logistic(X: graphc.f64["n", 4], y: graphc.f64["n"], w: graphc.f64[4], b: graphc.f64):
    z = X @ w + b
    return (graphc.softplus(z) - y * z).mean()


@graphc.graph
def network(
    x: graphc.f64["n", 6], labels: graphc.i64["n"], p: {"w": graphc.f64[6, 5], "b": graphc.f64[5]}
):
    hidden = graphc.tanh(x @ p["w"] + p["b"])
    scores = graphc.log_softmax(hidden, axis=1)
    rows = np.arange(5)
    return -graphc.where(labels[:, None] == rows, scores, 0.0).sum()


@graphc.graph
def gather(table: graphc.f32["m", 2], index: graphc.i32["k"]):
    picked = table[index]
    return {"total": (picked * picked).sum(), "largest": picked.max(axis=0)}


TABLE = np.linspace(-1.0, 1.0, 96).reshape(2, 48)


@graphc.graph
def lookup(x: graphc.f64[48]):
    return graphc.relu(TABLE @ x - 0.25).sum()


by_hand = graphc.Graph("by_hand")
_a = by_hand.input("a", graphc.f64["n"])
_b = by_hand.input("b", graphc.f64["n"])
by_hand.output("product", _a * _b)
by_hand.output("difference", _a - _b)


@graphc.graph
def wrong(x: graphc.f64[3], y: graphc.f64[4]):
    return x + y


def undeclared(x):
    return x


SMALL = {  # golden case: graph, parameters to differentiate by
    "neuron": (neuron, ()),
    "logistic": (logistic, ("w", "b")),
    "network": (network, ("p",)),
}
EVERY = {
    **SMALL,
    "gather": (gather, ()),
    "lookup": (lookup, ("x",)),
    "by_hand": (by_hand, ()),
}


def example(name, n=7, seed=0):
    """Arguments for a model."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.5).astype(float)
    index = rng.integers(-4, 4, size=n).astype(np.int32)
    return {
        "neuron": lambda: (rng.normal(size=(n, 3)), rng.normal(size=3), 0.25),
        "logistic": lambda: (rng.normal(size=(n, 4)), labels, rng.normal(size=4), -0.5),
        "network": lambda: (
            rng.normal(size=(n, 6)),
            rng.integers(0, 5, size=n),
            {"w": rng.normal(size=(6, 5)), "b": rng.normal(size=5)},
        ),
        "gather": lambda: (rng.normal(size=(4, 2)).astype(np.float32), index),
        "lookup": lambda: (rng.normal(size=48),),
        "by_hand": lambda: (rng.normal(size=n), rng.normal(size=n)),
    }[name]()


def leaves(tree):
    """Arrays of a nest, in order."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [np.asarray(tree)]


def same_bits(a, b):
    a, b = leaves(a), leaves(b)
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(a, b)
    )
