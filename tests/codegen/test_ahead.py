"""The next row is asked for by the last pass that reads an array, and by no other."""

import os

import numpy as np
import pytest

import graphc
from graphc.ir.types import f64
from tests.guard_pages import guarded, in_a_child
from tests.random_checks import same

LINES = "call void @llvm.prefetch"


def prefetches(declared):
    return graphc.compile(declared).stages["emit"].count(LINES)


def two_passes(n, d):
    @graphc.graph
    def normal(x: f64[n, d], y: f64[n, d]):
        apart = x - x.mean(axis=1, keepdims=True)
        return apart / np.sqrt((apart * apart).sum(axis=1, keepdims=True)) + y

    return normal


@pytest.mark.parametrize("d", [300, "d"])
def test_each_array_once_for_a_row(d):
    """Of x, which several passes read, by one of them; vectors and what is left of a row each have
    their code."""
    declared = two_passes("n", d)
    parts = 2  # whole vectors, and the last one of a row
    assert prefetches(declared) == 2 * parts
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 300))
    apart = x - x.mean(axis=1, keepdims=True)
    wanted = apart / np.sqrt((apart * apart).sum(axis=1, keepdims=True)) + y
    np.testing.assert_allclose(graphc.compile(declared)(x, y), wanted, rtol=1e-13)


def test_one_pass_asks_for_nothing():
    """One pass over all rows is a stream that a processor sees by itself."""

    @graphc.graph
    def one_pass(x: f64["n", 300], y: f64["n", 300]):
        return (x * y).sum(axis=1)

    assert prefetches(one_pass) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_rows_at_the_end_of_memory():
    """What lies behind an array is asked for, and where there is no memory nothing happens."""
    kernel = graphc.compile(two_passes("n", "d"))
    x, y = np.random.default_rng(0).normal(size=(2, 5, 700))
    wanted = kernel(x, y)

    def work(say):
        with guarded("last"):
            say("rows of 700")
            assert same(kernel(x.copy(), y.copy()), wanted)

    in_a_child(work)
