import numpy as np
import pytest

from graphc.gates.contraction import contract_values
from graphc.gates.exponential import exp
from graphc.gates.hyperbolic import sigmoid, tanh
from graphc.gates.trigonometric import sin
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph, sizes_of
from graphc.ir.types import f64
from graphc.ir.verify import verify
from graphc.lower import keep as keep_module
from graphc.lower.keep import keep
from graphc.passes.partition import depends, nominal_bytes, partition
from graphc.passes.simplify import simplify
from graphc.transforms.adjoint import adjoint
from tests.passes.prover import same
from tests.transforms.cases import CASES, arguments, graph_of, normals

names = lambda graph: tuple(n["name"] for n in graph.inputs)


def joint_of(graph):
    joint = simplify(adjoint(graph, names(graph), "input"))
    return joint, [name for name, _ in graph.outputs], [f"ct_{name}" for name, _ in graph.outputs]


def cut(graph, kept=None):
    joint, outputs, cts = joint_of(graph)
    return partition(joint, outputs, cts, keep(joint, outputs, cts) if kept is None else kept)


def check_bits(graph, forward, backward):
    args, cts = arguments(graph), normals(graph.output_nodes, 2)
    expected = run_graph(simplify(adjoint(graph, names(graph), "input")), [*args, *cts])
    values = run_graph(forward, args)
    count = len(graph.outputs)
    found = [*values[:count], *run_graph(backward, [*values[count:], *cts])]
    assert all(same(a, b).all() for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_backward_after_forward_is_the_joint_graph(name):
    forward, backward = cut(CASES[name])
    verify(forward)
    verify(backward)
    assert [n for n, _ in backward.outputs] == [f"grad_{n}" for n in names(CASES[name])]
    check_bits(CASES[name], forward, backward)


@pytest.mark.parametrize("name", ["shared", "softmax", "matmul", "prod", "call"])
def test_any_choice_gives_the_same_bits(name):
    joint, outputs, cts = joint_of(CASES[name])
    hidden = depends(joint, cts)
    known = [n for n in joint.nodes if n not in hidden]
    rng = np.random.default_rng(3)
    for _ in range(10):
        chosen = {n: "save" if rng.random() < 0.5 else "recompute" for n in known}
        check_bits(CASES[name], *partition(joint, outputs, cts, chosen))


def test_names():
    forward, backward = cut(
        graph_of(lambda x, w: tanh(contract_values(x, w, "ij,j->i")), x=f64["n", 3], w=f64[3])
    )
    assert names(forward) == ("x", "w") and names(backward)[-1] == "ct_y"
    residuals = [n for n, _ in forward.outputs][1:]
    assert residuals == [f"saved_{i}" for i in range(len(residuals))] == list(names(backward)[:-1])


def test_a_size_that_only_inputs_know_is_saved_with_one_of_them():
    graph = graph_of(lambda x: x.sum(0), x=f64["n"])
    forward, backward = cut(graph)
    assert names(backward) == ("saved_0", "ct_y") and backward.inputs[0].type == f64["n"]
    check_bits(graph, forward, backward)
    assert sizes_of(backward, [np.ones(4), np.float64(1)]) == {"n": 4}


def test_reductions_and_contractions_are_saved():
    graph = graph_of(
        lambda x, w: sin(exp(contract_values(x, w, "ij,jk->ik")).sum(0)), x=f64["n", 3], w=f64[3, 4]
    )
    _, backward = cut(graph)
    needs = {n.op for n in backward.nodes if n.op in ("contract", "sum")}
    assert needs == {"contract"}  # those of the gradients alone
    assert sum(n.op == "contract" for n in backward.nodes) == 2


def test_a_cut_saves_the_fewest_bytes():
    def wide(x, y):
        z = sin(x).broadcast((1000, 50))
        return exp(z) * y

    joint, outputs, cts = joint_of(graph_of(wide, x=f64[50], y=f64[1000, 50]))
    kept = keep(joint, outputs, cts)
    saved = [n for n, what in kept.items() if what == "save"]
    assert sum(map(nominal_bytes, saved)) <= 8 * (1000 * 50 + 2 * 50)
    assert any(n.op == "broadcast" and what == "recompute" for n, what in kept.items())


def test_of_equal_cuts_the_one_nearest_to_the_gradients():
    joint, outputs, cts = joint_of(graph_of(lambda x: exp(tanh(sigmoid(x) + 1.0)), x=f64["n"]))
    kept = keep(joint, outputs, cts)
    saved = [n for n, what in kept.items() if what == "save"]
    assert len(saved) == 1


def test_large_graphs_save_their_frontier(monkeypatch):
    monkeypatch.setattr(keep_module, "LARGEST_CUT", 0)
    for name in ("shared", "softmax", "matmul", "broadcast", "take"):
        check_bits(CASES[name], *cut(CASES[name]))


def test_constants_sizes_and_indices_are_free():
    joint, outputs, cts = joint_of(CASES["prod"])
    assert not {n.op for n in keep(joint, outputs, cts)} & {"constant", "size", "iota"}


def test_keep_is_deterministic():
    texts = set()
    for _ in range(3):
        joint, outputs, cts = joint_of(CASES["softmax"])
        position = {n: i for i, n in enumerate(joint.nodes)}
        texts.add(str([(position[n], what) for n, what in keep(joint, outputs, cts).items()]))
    assert len(texts) == 1


def test_a_long_chain_is_cut():
    b = Builder()
    x = y = b.input("x", f64["n"])
    for i in range(3000):
        y = sin(y) * x if i % 2 else y * 1.5
    graph = b.graph("chain", {"y": y})
    forward, backward = cut(graph)
    verify(forward)
    verify(backward)
