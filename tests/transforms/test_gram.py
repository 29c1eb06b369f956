"""Products of points with each other: sums where pairs are added up, matrices elsewhere."""

import numpy as np
import pytest

import graphc
from graphc.ir.types import f64
from graphc.lower.loop_text import parse_program
from graphc.report.plan import Plan
from tests.random_checks import same


def distances(x):
    squares = (x * x).sum(axis=1)
    return squares[:, None] + squares - 2.0 * (x @ x.T)


def declared(function, shape=("n", 3), dtype=f64):
    @graphc.graph
    def of_points(x: dtype[shape]):
        return function(x)

    return of_points


def products_of(function, shape=("n", 3), dtype=f64, **options):
    return (
        graphc.compile(declared(function, shape, dtype), **options)
        .stages["fuse"]
        .count(" contract ")
    )


SUMMED = {
    "kernel": lambda x: np.exp(-0.5 * distances(x)).sum(),
    "mean": lambda x: np.exp(-0.5 * distances(x)).mean() * 3.0 - (x * x).sum(),
    "squares": lambda x: ((x @ x.T) ** 2).sum(),
    "columns": lambda x: np.cos(np.einsum("ki,kj->ji", x.T, x.T)).sum(axis=0).sum(),
    "inner": lambda x: np.tanh(np.inner(x, x) + x[:, 0]).sum(),
}
KEPT = {
    "softmax": lambda x: (graphc.softmax(x @ x.T, axis=1) * x[:, 0]).sum(),
    "density": lambda x: np.log(np.exp(-distances(x)).sum(axis=1)).sum(),
    "largest": lambda x: (x @ x.T).max(axis=1).sum(),
    "centred": lambda x: ((x @ x.T - (x @ x.T).mean(axis=1)) ** 2).sum(),
    "attention": lambda x: ((graphc.softmax(x @ x.T, axis=1) @ x) ** 2).sum(),
    "two points": lambda x: np.exp(x @ (2.0 * x).T).sum(),
}


@pytest.mark.parametrize("name", SUMMED)
def test_what_is_added_up_is_no_array(name):
    function = SUMMED[name]
    assert products_of(function, wrt="x") == products_of(function) == 0
    compiled = graphc.compile(declared(function), wrt="x")
    x = np.random.default_rng(0).normal(size=(7, 3))
    value, gradient = compiled.value_and_grad(x)
    numpy = {"inner": lambda x: np.tanh(x @ x.T + x[:, 0]).sum()}.get(name, function)
    np.testing.assert_allclose(value, numpy(x), rtol=1e-13)
    assert same(np.asarray(compiled(x)), np.asarray(value))
    for at in np.ndindex(x.shape):
        moved = [
            x + step * (np.arange(21).reshape(7, 3) == at[0] * 3 + at[1]) for step in (1e-6, -1e-6)
        ]
        slope = (numpy(moved[0]) - numpy(moved[1])) / 2e-6
        np.testing.assert_allclose(gradient[at], slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", KEPT)
def test_what_needs_a_sum_first_stays_a_product(name):
    assert products_of(KEPT[name], wrt="x") >= 1
    assert products_of(KEPT[name]) >= 1


def test_many_coordinates_stay_a_product():
    assert products_of(SUMMED["kernel"], ("n", 5)) == products_of(SUMMED["kernel"], ("n", "d")) == 1
    assert products_of(SUMMED["squares"], ("n", 3), graphc.i64) == 1


def test_no_memory_for_pairs():
    """Both arrays of 20,000 x 20,000 numbers would be 6 GB."""
    text = graphc.compile(declared(SUMMED["kernel"]), wrt="x").stages["plan"]
    assert Plan(parse_program(text)).arena_bytes(n=20_000) < 2_000_000
