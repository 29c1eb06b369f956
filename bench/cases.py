"""The workloads: each a graph, its data, and the same value and gradient in NumPy.

The NumPy side is what a good student writes: vectorised, few copies, the backward derived by hand
and sharing what the forward has computed. Sizes that a user would fix are fixed in the graph; the
others are symbolic.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from graphc.dsl.declare import Declared

Arrays = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """A workload. `data(rng, n)` makes the arguments; `value` and `gradient` are the NumPy side."""

    name: str
    n: int
    graph: Declared
    wrt: tuple[str, ...]
    data: Callable[[np.random.Generator, int], Arrays]
    value: Callable[..., Any]
    gradient: Callable[..., tuple[Any, Arrays]]
    rtol: float = 1e-9  # how far both sides may be apart, relative to the largest element


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


# -- elementwise ----------------------------------------------------------------------------------


def elementwise(name: str, n: int, float_) -> Case:
    @graphc.graph
    def wave(x: float_["n"], w: float_, b: float_):
        return (graphc.tanh(x * w + b) * graphc.exp(-x * x)).sum()

    def data(rng, n):
        scalars = [float_.numpy.type(s) for s in (1.3, 0.2)]
        return rng.normal(size=n).astype(float_.numpy), *scalars

    def value(x, w, b):
        return (np.tanh(x * w + b) * np.exp(-x * x)).sum()

    def gradient(x, w, b):
        t, e = np.tanh(x * w + b), np.exp(-x * x)
        y = t * e
        dz = (1 - t * t) * e
        return y.sum(), (dz * w - 2 * x * y, (dz * x).sum(), dz.sum())

    rtol = 1e-9 if float_ is graphc.f64 else 2e-4
    return Case(name, n, wave, ("x", "w", "b"), data, value, gradient, rtol)


# The normal distribution function, to 1.4e-4: sigmoid(1.5976 x + 0.070566 x^3).
LINEAR, CUBIC = 1.5976, 0.070566


@graphc.graph
def options(
    spot: graphc.f64["n"], strike: graphc.f64["n"], sigma: graphc.f64["n"], years: graphc.f64["n"]
):
    """The value of a book of European calls, at an interest rate of 3%."""

    def below(x):
        return graphc.sigmoid(x * (LINEAR + CUBIC * x * x))

    spread = sigma * graphc.sqrt(years)
    d1 = (graphc.log(spot / strike) + 0.03 * years) / spread + 0.5 * spread
    discounted = strike * graphc.exp(-0.03 * years)
    return (spot * below(d1) - discounted * below(d1 - spread)).sum()


def options_data(rng, n):
    spot, strike = rng.uniform(80, 120, n), rng.uniform(80, 120, n)
    return spot, strike, rng.uniform(0.1, 0.5, n), rng.uniform(0.1, 2.0, n)


def options_forward(spot, strike, sigma, years):
    root = np.sqrt(years)
    spread = sigma * root
    d1 = (np.log(spot / strike) + 0.03 * years) / spread + 0.5 * spread
    d2 = d1 - spread
    n1 = sigmoid(d1 * (LINEAR + CUBIC * d1 * d1))
    n2 = sigmoid(d2 * (LINEAR + CUBIC * d2 * d2))
    discounted = strike * np.exp(-0.03 * years)
    return (spot * n1 - discounted * n2).sum(), (root, spread, d1, d2, n1, n2, discounted)


def options_value(*args):
    return options_forward(*args)[0]


def options_gradient(spot, strike, sigma, years):
    value, (root, spread, d1, d2, n1, n2, discounted) = options_forward(spot, strike, sigma, years)
    dd1 = spot * n1 * (1 - n1) * (LINEAR + 3 * CUBIC * d1 * d1)
    dd2 = -discounted * n2 * (1 - n2) * (LINEAR + 3 * CUBIC * d2 * d2)
    dd = dd1 + dd2
    dspread = dd * (1 - d1 / spread) - dd2
    dratio = dd / spread
    dsigma = dspread * root
    dyears = 0.03 * (dratio + discounted * n2) + 0.5 * dspread * sigma / root
    return value, (n1 + dratio / spot, dsigma, dyears)


# -- models on rows of data -----------------------------------------------------------------------


def logistic(name: str, n: int, d: int) -> Case:
    @graphc.graph
    def loss(X: graphc.f64["n", d], y: graphc.f64["n"], w: graphc.f64[d], b: graphc.f64):
        z = X @ w + b
        return (graphc.softplus(z) - y * z).mean()

    def data(rng, n):
        y = (rng.random(n) < 0.5).astype(float)
        return rng.normal(size=(n, d)), y, 0.1 * rng.normal(size=d), np.float64(0.1)

    def value(X, y, w, b):
        z = X @ w + b
        return (np.logaddexp(0.0, z) - y * z).mean()

    def gradient(X, y, w, b):
        z = X @ w + b
        dz = (sigmoid(z) - y) / len(y)
        return (np.logaddexp(0.0, z) - y * z).mean(), (dz @ X, dz.sum())

    return Case(name, n, loss, ("w", "b"), data, value, gradient)


@graphc.graph
def hierarchical(
    X: graphc.f64["n", 5],
    y: graphc.f64["n"],
    group: graphc.i64["n"],
    alpha: graphc.f64[100],
    beta: graphc.f64[5],
    mu: graphc.f64,
    log_sigma: graphc.f64,
):
    """Minus the log posterior of a logistic regression with an intercept for each of 100 groups."""
    z = alpha[group] + X @ beta
    apart = (alpha - mu) * graphc.exp(-log_sigma)
    return (graphc.softplus(z) - y * z).sum() + 0.5 * (apart**2).sum() + 100.0 * log_sigma


def hierarchical_data(rng, n):
    y = (rng.random(n) < 0.5).astype(float)
    X, group = rng.normal(size=(n, 5)), rng.integers(0, 100, n)
    return X, y, group, rng.normal(size=100), rng.normal(size=5), np.float64(0.1), np.float64(-0.3)


def hierarchical_value(X, y, group, alpha, beta, mu, log_sigma):
    z = alpha[group] + X @ beta
    apart = (alpha - mu) * np.exp(-log_sigma)
    return (np.logaddexp(0.0, z) - y * z).sum() + 0.5 * (apart @ apart) + 100.0 * log_sigma


def hierarchical_gradient(X, y, group, alpha, beta, mu, log_sigma):
    z = alpha[group] + X @ beta
    scale = np.exp(-log_sigma)
    apart = (alpha - mu) * scale
    square = apart @ apart
    dz = sigmoid(z) - y
    dapart = apart * scale
    dalpha = np.bincount(group, weights=dz, minlength=100) + dapart
    value = (np.logaddexp(0.0, z) - y * z).sum() + 0.5 * square + 100.0 * log_sigma
    return value, (dalpha, dz @ X, -dapart.sum(), 100.0 - square)


@graphc.graph
def mixture(
    x: graphc.f64["n", 2], mean: graphc.f64[8, 2], log_scale: graphc.f64[8], weight: graphc.f64[8]
):
    """Minus the mean log-likelihood of points under a mixture of 8 round Gaussians."""
    apart = (x[:, None, :] - mean) * graphc.exp(-log_scale)[:, None]
    each = graphc.log_softmax(weight) - 2.0 * log_scale - 0.5 * (apart**2).sum(axis=2)
    return -graphc.logsumexp(each, axis=1).mean()


def mixture_data(rng, n):
    return (
        2 * rng.normal(size=(n, 2)),
        rng.normal(size=(8, 2)),
        0.2 * rng.normal(size=8),
        rng.normal(size=8),
    )


def mixture_forward(x, mean, log_scale, weight):
    apart = (x[:, None, :] - mean) * np.exp(-log_scale)[:, None]
    share = np.exp(weight - weight.max())
    share /= share.sum()
    each = np.log(share) - 2.0 * log_scale - 0.5 * np.einsum("nkd,nkd->nk", apart, apart)
    top = each.max(axis=1, keepdims=True)
    e = np.exp(each - top)
    total = e.sum(axis=1, keepdims=True)
    return -(np.log(total) + top).mean(), apart, share, e / total


def mixture_value(*args):
    return mixture_forward(*args)[0]


def mixture_gradient(x, mean, log_scale, weight):
    value, apart, share, each = mixture_forward(x, mean, log_scale, weight)
    each /= -len(x)
    counts = each.sum(axis=0)
    dmean = np.einsum("nk,nkd->kd", each, apart) * np.exp(-log_scale)[:, None]
    dlog_scale = np.einsum("nk,nkd,nkd->k", each, apart, apart) - 2.0 * counts
    return value, (dmean, dlog_scale, counts + share)


# -- networks -------------------------------------------------------------------------------------


def cross_entropy(name: str, n: int, classes: int) -> Case:
    @graphc.graph
    def loss(z: graphc.f64["n", classes], labels: graphc.i64["n"]):
        is_label = labels[:, None] == np.arange(classes)
        return (graphc.logsumexp(z, axis=1) - graphc.where(is_label, z, 0.0).sum(axis=1)).mean()

    def data(rng, n):
        return rng.normal(size=(n, classes)), rng.integers(0, classes, n)

    return Case(name, n, loss, ("z",), data, cross_entropy_value, cross_entropy_gradient)


def cross_entropy_value(z, labels):
    top = z.max(axis=1)
    total = np.exp(z - top[:, None]).sum(axis=1)
    return (np.log(total) + top - z[np.arange(len(z)), labels]).mean()


def cross_entropy_gradient(z, labels):
    rows, top = np.arange(len(z)), z.max(axis=1)
    dz = np.exp(z - top[:, None])
    total = dz.sum(axis=1)
    value = (np.log(total) + top - z[rows, labels]).mean()
    dz /= (len(z) * total)[:, None]
    dz[rows, labels] -= 1.0 / len(z)
    return value, (dz,)


@graphc.graph
def layer_norm(
    x: graphc.f64["n", 256],
    gain: graphc.f64[256],
    bias: graphc.f64[256],
    target: graphc.f64["n", 256],
):
    """Half the mean square between a layer norm of x and a target."""
    apart = x - x.mean(axis=1, keepdims=True)
    normal = apart / graphc.sqrt((apart**2).mean(axis=1, keepdims=True) + 1e-5)
    return 0.5 * ((normal * gain + bias - target) ** 2).mean()


def layer_norm_data(rng, n):
    return (
        rng.normal(size=(n, 256)),
        rng.normal(size=256),
        rng.normal(size=256),
        rng.normal(size=(n, 256)),
    )


def layer_norm_forward(x, gain, bias, target):
    apart = x - x.mean(axis=1, keepdims=True)
    scale = 1.0 / np.sqrt(np.einsum("ij,ij->i", apart, apart) / 256 + 1e-5)[:, None]
    normal = apart * scale
    error = normal * gain + bias - target
    return 0.5 * (error * error).mean(), error, normal, scale


def layer_norm_value(*args):
    return layer_norm_forward(*args)[0]


def layer_norm_gradient(x, gain, bias, target):
    value, dy, normal, scale = layer_norm_forward(x, gain, bias, target)
    dy /= dy.size
    dnormal = dy * gain
    mean = dnormal.mean(axis=1, keepdims=True)
    along = np.einsum("ij,ij->i", dnormal, normal)[:, None] / 256
    dx = scale * (dnormal - mean - normal * along)
    return value, (dx, np.einsum("ij,ij->j", dy, normal), dy.sum(axis=0))


NETWORK = {
    "w1": graphc.f64[64, 128],
    "b1": graphc.f64[128],
    "w2": graphc.f64[128, 10],
    "b2": graphc.f64[10],
}


@graphc.graph
def network(x: graphc.f64["n", 64], labels: graphc.i64["n"], p: NETWORK):
    """The cross-entropy of a network with one hidden layer."""
    z = graphc.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
    is_label = labels[:, None] == np.arange(10)
    return (graphc.logsumexp(z, axis=1) - graphc.where(is_label, z, 0.0).sum(axis=1)).mean()


def network_data(rng, n):
    p = {k: 0.1 * rng.normal(size=t.shape) for k, t in NETWORK.items()}
    return rng.normal(size=(n, 64)), rng.integers(0, 10, n), p


def network_value(x, labels, p):
    return cross_entropy_value(np.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"], labels)


def network_gradient(x, labels, p):
    h = np.tanh(x @ p["w1"] + p["b1"])
    value, (dz,) = cross_entropy_gradient(h @ p["w2"] + p["b2"], labels)
    ds = (dz @ p["w2"].T) * (1 - h * h)
    grads = {"w1": x.T @ ds, "b1": ds.sum(axis=0), "w2": h.T @ dz, "b2": dz.sum(axis=0)}
    return value, (grads,)


# -- physics and optimisation ---------------------------------------------------------------------


@graphc.graph
def pairwise(x: graphc.f64["n", 3]):
    """The energy of n charges that repel each other, softened at short distance."""
    apart = x[:, None, :] - x[None, :, :]
    return 0.5 * (1.0 / graphc.sqrt((apart * apart).sum(axis=2) + 0.01)).sum()


def pairwise_data(rng, n):
    return (rng.normal(size=(n, 3)),)


def pairwise_value(x):
    apart = x[:, None, :] - x[None, :, :]
    return 0.5 * (1.0 / np.sqrt(np.einsum("ijk,ijk->ij", apart, apart) + 0.01)).sum()


def pairwise_gradient(x):
    apart = x[:, None, :] - x[None, :, :]
    near = 1.0 / np.sqrt(np.einsum("ijk,ijk->ij", apart, apart) + 0.01)
    return 0.5 * near.sum(), (-np.einsum("ij,ijk->ik", near**3, apart),)


@graphc.graph
def rosenbrock(x: graphc.f64["n"]):
    a, b = x[:-1], x[1:]
    return (100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2).sum()


def rosenbrock_data(rng, n):
    return (rng.normal(size=n),)


def rosenbrock_value(x):
    a, b = x[:-1], x[1:]
    return (100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2).sum()


def rosenbrock_gradient(x):
    a, b = x[:-1], x[1:]
    curve, slope = b - a * a, 1.0 - a
    dx = np.zeros_like(x)
    dx[1:] = 200.0 * curve
    dx[:-1] -= 400.0 * curve * a + 2.0 * slope
    return (100.0 * curve**2 + slope**2).sum(), (dx,)


CASES = (
    elementwise("elementwise 1e4 f64", 10_000, graphc.f64),
    elementwise("elementwise 1e6 f64", 1_000_000, graphc.f64),
    elementwise("elementwise 1e4 f32", 10_000, graphc.f32),
    elementwise("elementwise 1e6 f32", 1_000_000, graphc.f32),
    Case(
        "options 1e5", 100_000, options, ("spot", "sigma", "years"),
        options_data, options_value, options_gradient,
    ),
    logistic("logistic 1000x10", 1000, 10),
    logistic("logistic 100000x50", 100_000, 50),
    Case(
        "hierarchical logistic 10000x5", 10_000, hierarchical, ("alpha", "beta", "mu", "log_sigma"),
        hierarchical_data, hierarchical_value, hierarchical_gradient,
    ),
    Case(
        "Gaussian mixture 10000x8", 10_000, mixture, ("mean", "log_scale", "weight"),
        mixture_data, mixture_value, mixture_gradient,
    ),
    cross_entropy("cross-entropy 64x10", 64, 10),
    cross_entropy("cross-entropy 1024x1000", 1024, 1000),
    Case(
        "layer norm 1024x256", 1024, layer_norm, ("x", "gain", "bias"),
        layer_norm_data, layer_norm_value, layer_norm_gradient,
    ),
    Case(
        "network 64x64x128x10", 64, network, ("p",),
        network_data, network_value, network_gradient,
    ),
    Case("pairwise n=300", 300, pairwise, ("x",), pairwise_data, pairwise_value, pairwise_gradient),
    Case(
        "Rosenbrock n=1000", 1000, rosenbrock, ("x",),
        rosenbrock_data, rosenbrock_value, rosenbrock_gradient,
    ),
)  # fmt: skip
