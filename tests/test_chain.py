"""Long chains: nothing recurses, from building to freeing."""

import gc
import subprocess
import sys

import numpy as np

LONG = """
import sys, time
sys.setrecursionlimit(1000)
from graphc.gates.elementwise import sin
from graphc.ir.graph import Builder
from graphc.ir.text import parse_graph
from graphc.ir.types import f64
from graphc.passes.simplify import simplify
from graphc.transforms.adjoint import adjoint

b = Builder()
x = b.input("x", f64[()])
y = x
for i in range(50_000):
    y = sin(y) + 0.001
graph = b.graph("chain", {"y": y})
assert len(graph.nodes) > 100_000
joint = adjoint(graph, ("x",))
assert len(joint.nodes) > 200_000
text = str(joint)
assert text.count(chr(10)) > 200_000
small = simplify(joint)
assert repr(small)
parsed = parse_graph(str(graph))
assert len(parsed.nodes) == len(graph.nodes)
del b, x, y, graph, joint, small, parsed
print("freed")
"""


def test_a_chain_of_100_000_gates_at_recursion_limit_1000():
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "freed\n"


def test_a_chain_of_2000_gates_compiles_and_has_a_gradient():
    import graphc

    def chain(x):
        for _ in range(1000):
            x = graphc.sin(x) + 0.001
        return x

    value, slope = graphc.value_and_grad(chain)(0.5)
    x, dx = 0.5, 1.0
    for _ in range(1000):
        x, dx = np.sin(x) + 0.001, dx * np.cos(x)
    assert np.isclose(value, x, rtol=1e-12) and np.isclose(slope, dx, rtol=1e-9)


def test_machine_code_goes_when_its_function_goes():
    import weakref

    import graphc

    def f(x: graphc.f64["n"]):
        return (x * 2.0).sum()

    compiled = graphc.compile(f)
    compiled(np.ones(3))
    library = weakref.ref(compiled.value_kernel.library)
    del compiled
    gc.collect()
    assert library() is None
