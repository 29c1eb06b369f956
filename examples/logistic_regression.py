"""Logistic regression by gradient descent: value and gradient in one pass over the data."""

import numpy as np

import graphc


@graphc.graph
def loss(X: graphc.f64["n", 4], y: graphc.f64["n"], w: graphc.f64[4], b: graphc.f64):
    """The mean negative log-likelihood of labels y in {0, 1}; softplus(z) is log(1 + e^z)."""
    z = X @ w + b
    return (graphc.softplus(z) - y * z).mean()


def sample(n, w, b, rng):
    """Synthetic data: labels drawn with the probabilities that the true w and b give."""
    X = rng.normal(size=(n, len(w)))
    y = rng.random(n) < 1 / (1 + np.exp(-(X @ w + b)))
    return X, y.astype(float)


def main():
    true_w, true_b = np.array([1.5, -2.0, 0.0, 0.7]), -0.4
    X, y = sample(20_000, true_w, true_b, np.random.default_rng(1))

    kernels = graphc.compile(loss, wrt=("w", "b"))
    passes = kernels.plan.passes_over("X")
    print("passes over X for the value and the gradient:", passes)
    assert passes == 1

    w, b = np.zeros(4), 0.0
    for step in range(151):
        value, (dw, db) = kernels.value_and_grad(X, y, w, b)
        if step % 25 == 0:
            size = np.hypot(np.linalg.norm(dw), db)
            print(f"step {step:3}  loss {value:.6f}  |gradient| {size:.1e}")
        w, b = w - 2.0 * dw, b - 2.0 * db

    print("w =", w.round(3), " true:", true_w)
    print("b =", b.round(3), " true:", true_b)
    assert np.linalg.norm(dw) < 1e-6
    assert np.abs(w - true_w).max() < 0.1 and abs(b - true_b) < 0.1

    p = 1 / (1 + np.exp(-(X @ w + b)))  # the textbook gradient, which should now vanish, too
    assert np.abs(X.T @ (p - y) / len(y)).max() < 1e-6


if __name__ == "__main__":
    main()
