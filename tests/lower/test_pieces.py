"""Long bodies in pieces: the cut, its memory, and the bits of what comes out."""

import random
import re

import numpy as np
import pytest

from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph
from graphc.ir.types import f32, f64
from graphc.lower.fuse import fuse
from graphc.lower.loop_text import parse_program
from graphc.lower.loops import For, walk
from graphc.lower.pieces import EXAMPLE, LONG, PIECE, cut_up, in_pieces, made_by, read_by
from graphc.lower.plan import plan, private_names, verify_plan
from graphc.pipeline import Options, run_stages
from graphc.runtime.kernel import compile_graph
from tests.random_checks import same


def dag(gates, ty=f64["n"], reach=300, seed=0, other=None, outputs=1, total=True):
    """Gates on vectors, each of two that may lie far back; values stay between -1 and 1."""
    rng, builder = random.Random(seed), Builder()
    x, scale = builder.input("x", ty), builder.input("s", ty.dtype[()])
    wide = scale.broadcast((1,) * ty.rank).broadcast(ty.shape) if ty.rank else scale
    values = [x, x * wide]
    for i in range(gates):
        a, b = values[-1], values[-1 - rng.randrange(min(reach, len(values)))]
        match i % 7:
            case 0:
                c = builder.apply("tanh", a + b)
            case 1:
                c = builder.apply("sin", a - b)
            case 2:
                c = a * b
            case 3:
                c = builder.apply("where", builder.apply("lt", a, b), a * wide, b)
            case 4 if other is not None:
                c = (a.cast(other) * b.cast(other)).cast(ty.dtype)
            case _:
                c = builder.apply("maximum", -a, b * 0.5)
        values.append(c)
    outs = {f"y{i}": v for i, v in enumerate(values[-outputs:])}
    if total:
        outs = {"total": values[-1].sum(ty.rank - 1)} | outs
    return builder.graph("dag", outs)


def long_loops(program):
    return [s for k in program.kernels for s, _ in walk(k.body) if in_pieces(s)]


CASES = {
    "f64": {},
    "f32": {"ty": f32["n"]},
    "f32 by way of f64": {"ty": f32["n"], "other": f64},
    "f64 by way of f32": {"other": f32},
    "without a sum": {"total": False, "outputs": 5},
    "near operands alone": {"reach": 3, "gates": 2000},
    "rows of another loop": {"ty": f64["n", 11]},
}


@pytest.mark.parametrize("case", CASES)
def test_bits(case):
    options = {"gates": 700} | CASES[case]
    graph = dag(**options)
    assert long_loops(fuse(graph))
    kernel, ty = compile_graph(graph), graph.inputs[0].type
    rng = np.random.default_rng(1)
    for n in (0, 1, 7, 8, 9, 16, 31, 33, 64, 100):
        x = rng.uniform(-1, 1, (n, *ty.shape[1:])).astype(ty.dtype.numpy)
        arrays = [x, np.asarray(0.75, x.dtype)]
        for made, expected in zip(kernel.run(arrays), run_graph(graph, arrays), strict=True):
            assert same(made, expected), (case, n)


@pytest.mark.parametrize("n", [5, 8, 32, 45])
def test_known_sizes_have_the_same_bits(n):
    arrays = [np.linspace(-1, 1, n), np.array(0.5)]
    for made, expected in zip(
        compile_graph(dag(700, f64[n])).run(arrays), run_graph(dag(700), arrays), strict=True
    ):
        assert same(made, expected)


def test_the_gradient_by_threads():
    """Each thread has slots of its own."""
    import graphc

    made = dag(400, outputs=0)
    x = np.linspace(-1.0, 1.0, 200_003)
    alone = compile_graph(made, Options(wrt=("x", "s"), threads=1)).run([x, np.array(0.75)])
    before = graphc.get_threads()
    try:
        shared = compile_graph(made, Options(wrt=("x", "s"), threads=2))
        assert private_names(shared.program) & {b.name for b in shared.program.buffers}
        for _ in range(3):
            for a, b in zip(alone, shared.run([x, np.array(0.75)]), strict=True):
                assert same(a, b)
    finally:
        graphc.set_threads(before)


def test_what_pieces_hand_over():
    """Every value is in its slot from the piece that makes it to the last one that reads it."""
    (loop,) = long_loops(fuse(dag(3000)))
    cut = cut_up(loop)
    assert all(len(piece.statements) <= PIECE for piece in cut.pieces)
    body = [*cut.same, *(s for piece in cut.pieces for s in piece.statements), *cut.adds]
    assert sorted(map(repr, body)) == sorted(map(repr, loop.body))
    memory: dict[int, str] = {}
    for piece in cut.pieces:
        for name in piece.comes:
            assert memory[cut.slot[name]] == name
        memory.update((cut.slot[name], name) for name in piece.goes)
    for add in cut.adds:
        assert all(memory[cut.slot[name]] == name for name in add.values)
    made = {n for s in loop.body for n, _ in made_by(s)}
    assert {n for s in loop.body for n in read_by(s)} <= made | {a.name for a in loop.accs}
    assert cut.slots < len(cut.slot)  # slots are used again


def test_memory():
    program = plan(fuse(dag(3000)))
    verify_plan(program)
    (loop,) = long_loops(program)
    (memory,) = (b for b in program.buffers if b.name.endswith(".pieces"))
    assert memory.bytes() == cut_up(loop).bytes
    assert memory.private == loop.parallel
    again = parse_program(str(program))
    assert again == program


def test_no_function_grows_with_the_graph():
    """All instructions of a module are linear in the gates, and none of its functions is long."""
    totals = []
    for gates in (1000, 4000):
        text = run_stages(dag(gates), Options(wrt=("x",)), last="emit")
        lengths = [f.count("\n") for f in re.split(r"\n(?=define )", text)]
        assert max(lengths) < 2000
        totals.append(sum(lengths))
    assert totals[1] < 4.2 * totals[0] < 4.2 * 40_000


def test_short_loops_stay_whole():
    assert not long_loops(fuse(dag(100)))
    loop = parse_program(EXAMPLE).kernels[0].body[0]
    assert isinstance(loop, For) and len(loop.body) < LONG and not in_pieces(loop)
