"""The schedules that decide speed, pinned as loops: what is fused, what lies in cache, what runs
in lanes. A change of these texts is a change of speed: look at it before it is kept.
"""

import numpy as np
import pytest

import graphc


@graphc.graph
def linear_model(X: graphc.f64["n", 50], y: graphc.f64["n"], w: graphc.f64[50]):
    z = X @ w
    return (graphc.softplus(z) - y * z).mean()


@graphc.graph
def softmax_rows(z: graphc.f64["n", 100], labels: graphc.i64["n"]):
    chosen = graphc.where(labels[:, None] == np.arange(100), z, 0.0).sum(axis=1)
    return (graphc.logsumexp(z, axis=1) - chosen).mean()


@graphc.graph
def layer_norm(x: graphc.f64["n", 96], gain: graphc.f64[96], bias: graphc.f64[96]):
    apart = x - x.mean(axis=1, keepdims=True)
    scale = graphc.sqrt((apart * apart).mean(axis=1, keepdims=True) + 1e-5)
    return ((apart / scale * gain + bias) ** 2).sum()


@graphc.graph
def mixture(x: graphc.f64["n", 2], mean: graphc.f64[8, 2], weight: graphc.f64[8]):
    apart = x[:, None, :] - mean
    each = graphc.log_softmax(weight) - 0.5 * (apart * apart).sum(axis=2)
    return -graphc.logsumexp(each, axis=1).mean()


@graphc.graph
def pairwise(x: graphc.f64["n", 3]):
    apart = x[:, None, :] - x[None, :, :]
    return (1.0 / graphc.sqrt((apart * apart).sum(axis=2) + 0.01)).sum()


@graphc.graph
def small_vectors(x: graphc.f64["n", 3], seen: graphc.f64["n", 2]):
    scale = 1.0 / (x[:, 2] + 6.0)
    u, v = x[:, 0] * scale - seen[:, 0], x[:, 1] * scale - seen[:, 1]
    return (u * u + v * v).sum()


@graphc.graph
def gathered(x: graphc.f64["n"], group: graphc.i64["n"], level: graphc.f64[20]):
    return ((x - level[group]) ** 2).sum()


@graphc.graph
def valley(x: graphc.f64["n"]):
    a, b = x[:-1], x[1:]
    return (100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2).sum()


@graphc.graph
def bends(x: graphc.f32["n"]):
    return ((x[2:] - 2.0 * x[1:-1] + x[:-2]) ** 2).sum()


@graphc.graph
def membrane(x: graphc.f64["n", "m"]):
    return ((x[1:] - x[:-1]) ** 2).sum() + ((x[:, 1:] - x[:, :-1]) ** 2).sum()


@graphc.graph
def paths(x: graphc.f64["n", 100], strike: graphc.f64):
    return graphc.relu(graphc.exp(graphc.cumsum(x, axis=1)).mean(axis=1) - strike).mean()


@graphc.graph
def decay(x: graphc.f64["n", "m"]):
    return (graphc.cumprod(x, axis=0) ** 2).sum()


@graphc.graph
def layer(x: graphc.f64["n", 64], w: graphc.f64[64, 128], b: graphc.f64[128]):
    return graphc.tanh(x @ w + b).sum()


SCHEDULES = {
    "linear_model": (linear_model, "w", {"X": 1}),
    "softmax_rows": (softmax_rows, "z", {"z": 1}),
    "layer_norm": (layer_norm, ("x", "gain", "bias"), {"x": 1}),
    "mixture": (mixture, ("mean", "weight"), {"x": 1}),
    "pairwise": (pairwise, "x", {}),
    "small_vectors": (small_vectors, "x", {"x": 1, "seen": 1}),
    "gathered": (gathered, "level", {"x": 1, "group": 1}),
    "valley": (valley, "x", {"x": 1}),
    "bends": (bends, "x", {"x": 1}),
    "membrane": (membrane, "x", {"x": 1}),
    "layer": (layer, ("w", "b"), {}),
    "paths": (paths, "x", {"x": 1}),
    "decay": (decay, "x", {"x": 2}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_golden(golden, name):
    declared, wrt, _ = SCHEDULES[name]
    golden("fuse", f"schedule-{name}", graphc.compile(declared, wrt=wrt).stages["fuse"])


@pytest.mark.parametrize("name", SCHEDULES)
def test_data_is_read_once(name):
    """Value and gradient together sweep over each of these inputs once."""
    declared, wrt, passes = SCHEDULES[name]
    plan = graphc.compile(declared, wrt=wrt).plan
    assert {x: plan.passes_over(x) for x in passes} == passes


def test_pairs_need_no_memory_for_pairs():
    """The arena of 20,000 points is some megabytes, where an array of pairs takes 3.2 GB."""
    plan = graphc.compile(pairwise, wrt="x").plan
    assert plan.arena_bytes(n=20_000) < 16e6
