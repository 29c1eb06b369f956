"""Long chains: nothing recurses, and time grows with the length alone."""

import gc
import sys
import time

import numpy as np
import pytest

from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph
from graphc.ir.text import parse_graph
from graphc.ir.types import f64
from graphc.ir.verify import verify
from graphc.passes.simplify import simplify
from graphc.runtime.kernel import compile_graph
from graphc.transforms.adjoint import adjoint
from tests.random_checks import same

LENGTH = 100_000
STEPS = ("tanh", "sin", "neg", "sigmoid")


def chain(length, ty=f64[()]):
    builder = Builder()
    first = x = builder.input("x", ty)
    for i in range(length):
        x = builder.apply(STEPS[i % len(STEPS)], x) if i % 5 else x + first
    return builder.graph("chain", {"y": x})


@pytest.fixture
def shallow_stack():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


def test_a_hundred_thousand_gates(shallow_stack):
    """Built, verified, differentiated, simplified, printed, parsed, run and freed, at the usual
    limit of recursion.
    """
    graph = chain(LENGTH)
    assert len(graph.nodes) == LENGTH + 1
    whole = adjoint(graph, ("x",))
    verify(whole)
    simple = simplify(whole)
    text = str(simple)
    assert text.count("\n") > LENGTH
    assert str(parse_graph(text)) == text
    values = run_graph(simple, [np.array(0.3)])
    assert all(np.isfinite(v) for v in values)
    del graph, whole, simple
    gc.collect()


def test_time_is_linear_in_the_length():
    """Four times the length takes at most nine times as long."""

    def seconds(length):
        start = time.process_time()
        str(simplify(adjoint(chain(length), ("x",))))
        return time.process_time() - start

    seconds(1000)
    short, long = min(seconds(4000) for _ in range(3)), min(seconds(16000) for _ in range(2))
    assert long < 9 * short, (short, long)


@pytest.mark.parametrize("ty", [f64[()], f64["n"]], ids=str)
def test_two_thousand_gates_compile(ty, shallow_stack):
    """The compiled chain gives the reference's bits, for one number and in a loop."""
    graph = chain(2000, ty)
    x = np.array(0.3) if not ty.rank else np.linspace(-2, 2, 19)
    (got,) = compile_graph(graph).run([x])
    (expected,) = run_graph(graph, [x])
    assert same(got, expected)
