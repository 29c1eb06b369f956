"""What compilations take as graphs grow, in counts, and the memory that they keep and give back."""

import re
import subprocess
import sys

import pytest

from bench import growth
from graphc.pipeline import Options, run_stages

SHALLOW = """
import sys
from bench.growth import SHAPES
from graphc.pipeline import Options
from graphc.runtime.kernel import compile_graph
import numpy as np
small = SHAPES["{shape}"](20)
compile_graph(small, Options(wrt=("x",)))  # imports nest deeper than anything of ours
sys.setrecursionlimit(100)
graph = SHAPES["{shape}"]({count})
kernel = compile_graph(graph, Options(wrt=("x",)))
made = kernel.run([np.array(0.3)] * len(graph.inputs))
assert all(np.isfinite(m).all() for m in made)
del graph, kernel
"""


@pytest.mark.parametrize("shape", growth.SHAPES)
def test_a_limit_of_recursion_of_a_hundred(shape):
    code = SHALLOW.format(shape=shape, count=3000)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("shape", growth.SHAPES)
def test_counts_are_linear(shape):
    """Nodes of a gradient, and instructions; and no function is long."""
    totals = []
    for count in (4000, 12_000):
        graph, seen = growth.SHAPES[shape](count), {}
        run_stages(graph, Options(wrt=("x",)), seen.__setitem__, last="emit")
        assert len(seen["adjoint"].nodes) <= 5 * len(graph.nodes)
        lengths = [f.count("\n") for f in re.split(r"\n(?=define )", seen["emit"])]
        assert max(lengths) < 4000
        totals.append(sum(lengths))
    assert totals[1] < 3.3 * totals[0]


def test_memory_that_kernels_keep():
    """The target is 2,000 bytes for each node; how the system counts pages blurs few kernels."""
    assert growth.kept(kernels=12, count=300) < 4000


def test_memory_is_given_back():
    assert growth.given_back(300) < 4000


@pytest.mark.long
def test_ten_thousand_cycles():
    assert growth.given_back(10_000) < 200


@pytest.mark.long
def test_a_million_gates():
    """Built, differentiated and simplified; machine code of it would take many minutes."""
    graph = growth.chain(1_000_000)
    made = run_stages(graph, Options(wrt=("x",)), last="simplify")
    assert len(made.nodes) <= 5 * len(graph.nodes)
