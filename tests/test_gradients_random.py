"""Random smooth graphs: reverse mode, forward mode and dual numbers of fifty digits say the same.

For a random direction v and random cotangents w, <w, J v> = <J' w, v>; and J v is what
`graphc.aot.oracle` finds from the gates' `sym` models, which share nothing with bodies, partials
and transposes. A third of the graphs are gradients themselves, so that second derivatives are held,
too.
"""

import numpy as np
import pytest

from graphc.aot.oracle import run_dual
from graphc.ir.reference import run_graph
from graphc.ir.types import TensorType, f64
from graphc.transforms.adjoint import adjoint
from graphc.transforms.tangent import tangent
from tests.random_graphs import Draft, M, N

GRAPHS = 600
CHUNKS = 10
DIGITS = 50
SMOOTH = (
    "add", "sub", "mul", "mul0", "div", "neg", "abs", "square", "sqrt", "reciprocal", "power",
    "maximum", "minimum",
    "clip", "relu", "where", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "tanh_partial",
    "sigmoid",
    "sigmoid_partial", "softplus", "stop_gradient", "sum", "prod", "max", "min", "contract",
    "cumsum", "cumprod", "recurrence",
    "logsumexp", "softmax",
    "log_softmax", "call", "take", "scatter_add", "broadcast", "transpose", "expand_dims",
    "squeeze", "slice",
    "reshape", "place", "concat",
)  # fmt: skip
AWAY_FROM_ZERO = {
    "log": 0,
    "sqrt": 0,
    "reciprocal": 0,
    "div": 1,
    "power": 0,
}  # the operand that must be so
LARGEST = 30.0  # of any value: what is larger has digits that its gradient needs cut off


def is_calm(draft):
    """Does a node stay away from poles, and from sizes at which digits are lost?"""

    def allowed(node, arrays):
        if any(
            np.abs(a[np.isfinite(a)], dtype=float).max(initial=0) > LARGEST for a in arrays
        ) or not all(np.isfinite(a).all() for a in arrays):
            return False
        if node.op == "place" and np.isnan(np.frombuffer(node["fill"].to_bytes(8, "little"))).any():
            return False
        if node.op in AWAY_FROM_ZERO:
            operands = draft.values[node.args[AWAY_FROM_ZERO[node.op]]]
            positive = node.op in ("log", "sqrt", "power")
            return all(((a if positive else np.abs(a)) > 0.1).all() for a in operands)
        if node.op == "clip":  # at a kink the oracle's min and max share, where clip decides
            runs = zip(*(draft.values[a] for a in node.args), strict=True)
            ties = [(low == high) | (x == low) | (x == high) for x, low, high in runs]
            return not any(t.any() for t in ties)
        if node.op == "log1p":
            return all((a > -0.9).all() for a in draft.values[node.args[0]])
        return True

    return allowed


def smooth(seed):
    """A graph of one float dtype, with sizes of its own, whose derivatives are worth a look."""
    draft = Draft([seed, 11], sizes=[{"n": 2 + seed % 3, "m": 3}], special=0.0)
    draft.floats, draft.ints, draft.elements = (f64,), draft.ints, 40
    draft.axes = [N, M, 2, 1, 3] if seed % 4 else [4]
    draft.style = "plain"
    draft.allowed = is_calm(draft)
    x = draft.input(TensorType(f64, draft.shape(2)))
    draft.input(TensorType(f64, draft.shape(1)))
    gates = draft.shuffled(SMOOTH)
    made = 0
    for op in gates * 2:
        floats = [v for v in draft.pool if v.dtype is f64 and v.node.op != "constant"]
        x = x if draft.chance(0.6) else draft.pick(floats[-6:])
        y = draft.consume(op, x)
        if y is not None and y.dtype is f64:
            x, made = y, made + 1
        if made == 14:
            break
    ends = {name: v for name, v in draft.outputs().items() if v.dtype is f64}
    return draft.case(f"smooth{seed}", ends or {"y": x})


def gradient_of(case):
    """The gradient of the sum of the first output as a graph, its other outputs left out."""
    from graphc.ir.graph import Graph, open_graph

    builder, fresh = open_graph(case.graph)
    here = builder.inline(case.graph, [fresh[n] for n in case.graph.inputs])
    total = here[case.graph.output_nodes[0]]
    while total.type.rank:
        total = total.sum(total.type.rank - 1)
    whole = adjoint(builder.graph(case.graph.name, {"loss": total}), float_names(case.graph))
    gradients = tuple((f"g{i}", n) for i, (_, n) in enumerate(whole.outputs[1:]))
    return Graph(whole.name, whole.inputs, gradients)


def float_names(graph):
    return tuple(n["name"] for n in graph.inputs if n.type.dtype.is_float)


def products(graph, args, rng):
    """J v, v, J' w and w at the arguments."""
    names = float_names(graph)
    at = {n["name"]: a for n, a in zip(graph.inputs, args, strict=True)}
    v = [np.asarray(rng.normal(size=at[name].shape)) for name in names]
    forward = tangent(graph, names)
    jv = run_graph(forward, [*args, *v])[len(graph.outputs) :]
    w = [np.asarray(rng.normal(size=t.shape)) for t in jv]
    backward = adjoint(graph, names, "input")
    jw = run_graph(backward, [*args, *w])[len(graph.outputs) :]
    return jv, v, jw, w


def problem(graph, args, rng):
    """What the three ways to differentiate disagree about, or ""."""
    jv, v, jw, w = products(graph, args, rng)
    terms = [a * b for a, b in (*zip(jv, w, strict=True),)]
    others = [a * b for a, b in zip(jw, v, strict=True)]
    scale = sum(np.abs(t).sum() for t in (*terms, *others)) + 1e-3
    gap = abs(sum(t.sum() for t in terms) - sum(t.sum() for t in others))
    if not gap <= 1e-9 * scale:
        return f"<w, J v> and <J' w, v> differ by {gap / scale:.1e}"
    directions = dict(zip(float_names(graph), v, strict=True))
    duals = run_dual(graph, args, [directions.get(n["name"]) for n in graph.inputs], DIGITS)
    values = run_graph(graph, args)
    for (name, node), y, t, (value, slope) in zip(graph.outputs, values, jv, duals, strict=True):
        for what, ours, exact in (("value", y, value), ("derivative", t, slope)):
            found = exact.astype(float) if ours.shape else np.float64(exact[()])
            largest = np.abs(found).max(initial=0) + 1e-3
            error = np.abs(ours - found).max(initial=0) / largest
            if not error <= 1e-8:
                return f"the {what} of {name} = {node!r} is wrong by {error:.1e}"
    return ""


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_reverse_forward_and_dual_numbers_agree(chunk):
    """The three agree on every graph, and every third is a gradient already."""
    for seed in range(chunk, GRAPHS, CHUNKS):
        case = smooth(seed)
        graph = gradient_of(case) if seed % 3 == 0 else case.graph
        found = problem(graph, case.runs[0].args, np.random.default_rng(seed))
        assert not found, f"seed {seed}: {found}\n{graph}\n{case.runs[0].args}"


def test_the_graphs_hold_every_smooth_gate():
    """Between them the graphs hold each gate many times."""
    count = dict.fromkeys(SMOOTH, 0)
    for seed in range(0, GRAPHS, 2):
        for node in smooth(seed).graph.nodes:
            count[node.op] = count.get(node.op, 0) + 1
    assert min(count[op] for op in SMOOTH) >= 5, count
