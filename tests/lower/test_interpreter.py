"""The interpreter of the loop IR equals that of graphs, bit for bit, before and after plan."""

import doctest
from dataclasses import replace

import numpy as np
import pytest

import graphc.lower.interpreter as interpreter
from graphc.errors import DifferentiationError, IndexOutOfBounds, ShapeError, VerifyError
from graphc.ir.graph import Graph
from graphc.ir.reference import run_graph
from graphc.ir.types import evaluate
from graphc.lower.fuse import fuse
from graphc.lower.interpreter import run_program
from graphc.lower.loop_text import parse_program
from graphc.lower.plan import plan, verify_plan
from graphc.transforms.adjoint import adjoint
from tests.lower.graphs import GRAPHS, arguments, graph

SHAPES = [(0, 0), (0, 3), (3, 0), (1, 1), (2, 5), (5, 1), (1, 40), (7, 65), (33, 33), (300, 3)]
NO_REUSE, NO_FUSE = frozenset({"reuse"}), frozenset({"fuse"})


def bits(x) -> bytes:
    """Raw bits; all NaNs are one."""
    x = np.asarray(x)
    return (
        np.where(np.isnan(x), np.array(np.nan, x.dtype), x) if x.dtype.kind == "f" else x
    ).tobytes()


def check(
    made: Graph, args: list[np.ndarray], sizes: dict[str, int], want: list[np.ndarray]
) -> None:
    fused, apart = fuse(made), fuse(made, NO_FUSE)
    programs = {
        "fuse": fused, "plan": plan(fused), "no reuse": plan(fused, NO_REUSE), "apart": plan(apart),
        "parsed": parse_program(str(plan(fused))),
    }  # fmt: skip
    for stage, program in programs.items():
        if program.arena is not None:
            verify_plan(program)
        got = run_program(program, args, sizes)
        for (name, node), a, b in zip(made.outputs, want, got, strict=True):
            assert b.shape == tuple(evaluate(s, sizes) for s in node.type.shape), (stage, name)
            assert a.dtype == b.dtype and bits(a) == bits(b), (stage, name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", GRAPHS)
def test_programs_mean_what_graphs_mean(name, shape):
    n, k = shape
    try:
        for made in (graph(name), graph(name, n, k)):
            args = arguments(made, n, k)
            want = run_graph(made, args, {"n": n, "k": k})
            check(made, args, {"n": n, "k": k}, want)
    except ShapeError as error:
        assert "nothing to choose from" in str(error) and k == 0
    except IndexOutOfBounds:
        assert name == "gathered" and k == 0


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (0, 3), (7, 65)], ids=str)
@pytest.mark.parametrize("name", GRAPHS)
def test_adjoints(name, shape):
    n, k = shape
    made = graph(name)
    made = Graph(name, made.inputs, tuple((f"out_{o}", node) for o, node in made.outputs))
    try:
        made = adjoint(made, [x["name"] for x in made.inputs if x.type.dtype.is_float], "input")
    except DifferentiationError:
        assert name == "integers"
        return
    args = arguments(made, n, k)
    check(made, args, {"n": n, "k": k}, run_graph(made, args, {"n": n, "k": k}))


@pytest.mark.parametrize("name", ["logistic", "softmax", "extremes", "float32", "cube"])
def test_special_values(name):
    made = graph(name)
    args = arguments(made, 9, 70)
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e308, -1e308, 5e-324])
    for x in args:
        if x.dtype.kind == "f":
            with np.errstate(all="ignore"):
                x.reshape(-1)[:: x.size // 8][:8] = special
    sizes = {"n": 9, "k": 70}
    with np.errstate(all="ignore"):
        check(made, args, sizes, run_graph(made, args, sizes))


# -- what the interpreter finds -------------------------------------------------------------------


def test_an_overlap_changes_the_result():
    made = graph("sinkhorn", 5, 9)
    args = arguments(made, 5, 9)
    planned = plan(fuse(made))
    want = [bits(x) for x in run_graph(made, args)]
    assert [bits(x) for x in run_program(planned, args, {})] == want
    temps = planned.of_role("temp")
    spoilt = replace(
        planned, buffers=tuple(replace(b, offset=0) if b in temps else b for b in planned.buffers)
    )
    assert [bits(x) for x in run_program(spoilt, args, {})] != want


def test_a_tree_over_live_memory_changes_the_result():
    text = """program p(x: f64[8,2])
arena 128
buffer output y.out: f64[2]
buffer temp t0: f64[2] offset={offset}
buffer temp y.out.tree: f64[2,2] offset=0
kernel k0
  for _i in 2 vector
    %1 = load x[_i] : f64
    store t0[_i] %1
kernel k1
  for _i in 8 rows
    acc %1: f64 sum rows into y.out[0] size 2
    for _j in 2 vector
      %2 = load t0[_j] : f64
      add %1[_j] %2
"""
    x = np.arange(16.0).reshape(8, 2)
    (apart,) = run_program(parse_program(text.format(offset=64)), [x], {})
    (over,) = run_program(parse_program(text.format(offset=0)), [x], {})
    assert apart.tolist() == [0.0, 8.0]
    assert over.tolist() != apart.tolist()


def test_memory_begins_as_poison():
    (y,) = run_program(parse_program("program p()\nbuffer output y.out: f64[2]\n"), [], {})
    assert y.view(np.uint8).tolist() == [0xA5] * 16


@pytest.mark.parametrize(
    "statement",
    [
        "%1 = load x[_i+1] : f64",
        "%1 = load x[_i+2] if %3 : f64",
        "store y.out[_i+2] %2 if %3",
        "store y.out[2*_i] %2",
        "store x[0-_i] %2",
        "scatter y.out[_i-1] %2",
    ],
)
def test_a_place_outside_of_a_buffer_is_an_error(statement):
    program = parse_program(f"""program p(x: f64[3])
buffer output y.out: f64[3]
kernel k0
  for _i in 3 vector
    %2 = const 1.0 : f64
    %3 = inside _i in 0..2
    {statement}
""")
    with pytest.raises(VerifyError):
        run_program(program, [np.zeros(3)], {})


@pytest.mark.parametrize("index", [[0, 5], [-6, 1], [2**62, 0]])
def test_an_index_out_of_bounds(index):
    made = graph("gathered", 2, 5)
    args = [np.zeros((5, 3)), np.array(index), np.zeros(2, np.int32)]
    with pytest.raises(IndexOutOfBounds):
        run_program(plan(fuse(made)), args, {})


def test_inputs_of_another_shape():
    with pytest.raises(ShapeError, match=r"input x is f64\[n,k\]"):
        run_program(fuse(graph("extremes")), [np.zeros(3)], {"n": 3, "k": 1})


def test_inputs_stay_as_they_are():
    args = arguments(graph("layer_norm"), 4, 5)
    before = [x.copy() for x in args]
    run_program(fuse(graph("layer_norm")), args, {"n": 4, "k": 5})
    assert all(bits(a) == bits(b) for a, b in zip(args, before, strict=True))


def test_empty_loops_give_identities():
    made = graph("integers")
    args = arguments(made, 3, 0)
    got = dict(
        zip(
            [o for o, _ in made.outputs],
            run_program(fuse(made), args, {"n": 3, "k": 0}),
            strict=True,
        )
    )
    assert got["rows"].tolist() == [0, 0, 0]
    assert got["prod"].tolist() == [1, 1, 1]
    assert got["all"].tolist() == [True] * 3
    total = run_program(
        fuse(graph("layer_norm")), [np.zeros((0, 2)), np.zeros(2)], {"n": 0, "k": 2}
    )[2]
    assert bits(total) == bits(0.0)  # not -0.0


def test_doctests():
    assert doctest.testmod(interpreter).failed == 0
