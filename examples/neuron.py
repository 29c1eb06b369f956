"""A neuron: a weighted sum, then an activation; declared as a function, and built by hand."""

import numpy as np

import graphc


@graphc.graph
def neuron(x: graphc.f64["n", 3], w: graphc.f64[3], b: graphc.f64):
    """The activation of one neuron on n examples of 3 features."""
    return graphc.sigmoid(x @ w + b)


def by_hand():
    g = graphc.Graph("neuron")
    x = g.input("x", graphc.f64["n", 3])
    w = g.input("w", graphc.f64[3])
    b = g.input("b", graphc.f64)
    g.output("y", graphc.sigmoid(x @ w + b))
    return g


def main():
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(4, 3)), np.array([0.5, -1.0, 2.0]), 0.25

    kernels = graphc.compile(neuron, wrt=("x", "w", "b"))
    y, saved = kernels.forward(x, w, b)
    dy = np.ones(4)
    dx, dw, db = kernels.backward(saved, dy)
    print("y  =", y)
    print("dw =", dw, " db =", db)

    ds = dy * np.exp(-(x @ w + b)) * y**2  # the chain rule by hand: sigmoid' = e^-s / (1 + e^-s)^2
    assert np.allclose(y, 1 / (1 + np.exp(-(x @ w + b))), rtol=1e-15)
    assert np.allclose(dx, np.outer(ds, w), rtol=1e-14)
    assert np.allclose(dw, ds @ x, rtol=1e-14) and np.isclose(db, ds.sum(), rtol=1e-14)

    for n in (0, 1, 7, 1000):  # one machine code for every batch size
        assert kernels(np.zeros((n, 3)), w, b).shape == (n,)
    assert np.array_equal(graphc.compile(by_hand())(x, w, b), y)
    print("built by hand: the same bits")
    print(kernels.declared.graph)


if __name__ == "__main__":
    main()
