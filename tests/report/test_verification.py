"""GRAPHC_VERIFY=2 names the stage that changed a value, and is silent on a sound compiler."""

import numpy as np
import pytest

import graphc
from graphc.errors import VerifyError


@graphc.graph
def energy(x: graphc.f64["n", 3], w: graphc.f64[3]):
    return np.tanh(x @ w + 0.0).sum()


def gradient():
    kernel = graphc.compile(energy, wrt="w")
    return kernel.value_and_grad(np.ones((2, 3)), np.ones(3))


def test_a_sound_compilation_passes(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "2")
    value, grad = gradient()
    assert np.isclose(value, 2 * np.tanh(3.0)) and grad.shape == (3,)


def test_the_stage_that_changes_a_value_is_named(monkeypatch):
    from graphc.passes import simplify

    honest = simplify.simplify

    def wrong(graph, *args, **kwargs):
        from graphc.ir.graph import open_graph

        graph = honest(graph, *args, **kwargs)
        builder, fresh = open_graph(graph)
        here = builder.inline(graph, [fresh[n] for n in graph.inputs])
        outputs = {name: here[n] + 1e-9 for name, n in graph.outputs}
        return builder.graph(graph.name, outputs)

    monkeypatch.setattr(simplify, "simplify", wrong)
    monkeypatch.setenv("GRAPHC_VERIFY", "2")
    with pytest.raises(VerifyError, match="stage simplify changed the value of output 'out'"):
        gradient()
