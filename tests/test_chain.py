"""Long chains: nothing recurses, and a gradient grows with the length alone."""

import gc
import sys
import weakref

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
    """Built, verified, differentiated, simplified, printed, parsed and freed, at the usual
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
    del graph, whole, simple
    gc.collect()


@pytest.mark.parametrize("length", [100, 1000, 10_000])
def test_a_gradient_has_at_most_five_nodes_for_each_gate(length):
    graph = chain(length)
    assert len(adjoint(graph, ("x",)).nodes) <= 5 * len(graph.nodes)


def test_machine_code_goes_when_its_function_goes():
    kernel = compile_graph(chain(10))
    library = weakref.ref(kernel.library)
    del kernel
    gc.collect()
    assert library() is None


@pytest.mark.parametrize("ty", [f64[()], f64["n"]], ids=str)
def test_two_thousand_gates_compile(ty, shallow_stack):
    """The compiled chain gives the reference's bits, for one number and in a loop."""
    graph = chain(2000, ty)
    x = np.array(0.3) if not ty.rank else np.linspace(-2, 2, 19)
    (got,) = compile_graph(graph).run([x])
    (expected,) = run_graph(graph, [x])
    assert same(got, expected)
