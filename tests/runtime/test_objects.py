"""Native code reads the data of array objects; where it cannot, the slower way gives the same."""

import numpy as np
import pytest

import graphc
from graphc.runtime import kernel, objects, pool


@graphc.graph
def scaled(x: graphc.f64["n", 3], k: graphc.f64):
    return (k * x).sum(axis=0)


def test_the_layout_holds_here():
    assert objects.layout_holds()


@pytest.mark.parametrize("native", [True, False])
def test_both_ways_give_the_same(monkeypatch, native):
    if not native:
        for module in (kernel, pool):
            monkeypatch.setattr(module, "native", lambda: None)
    x = np.arange(12.0).reshape(4, 3)
    for argument in (x, x[::2], np.asfortranarray(x), x[:0]):
        assert np.array_equal(graphc.compile(scaled)(argument, 2.0), 2.0 * argument.sum(0))
