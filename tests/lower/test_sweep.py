"""Kernels over the same rows in one sweep: what is joined, and that no bit changes."""

from dataclasses import replace

import numpy as np
import pytest

import graphc
from graphc.ir.reference import run_graph
from graphc.ir.types import evaluate, product
from graphc.lower.donate import donate, refusals
from graphc.lower.interpreter import run_program
from graphc.lower.loop_text import parse_program
from graphc.lower.loops import Contract
from graphc.lower.plan import plan, verify_plan
from graphc.pipeline import Options, run_stages
from graphc.runtime import threads
from graphc.runtime.kernel import compile_graph


@graphc.graph
def clusters(x: graphc.f64["n", 6], centres: graphc.f64[4, 6]):
    """Two products, a softmax between them, and sums over rows of every kind."""
    squares = (x * x).sum(axis=1)[:, None] + (centres * centres).sum(axis=1)
    return -graphc.logsumexp(-0.1 * (squares - 2.0 * (x @ centres.T)), axis=1).mean()


@graphc.graph
def network(x: graphc.f32["n", 5], y: graphc.f32["n"], w: graphc.f32[5, 17], v: graphc.f32[17]):
    z = graphc.tanh(x @ w) @ v
    return (graphc.softplus(z) - y * z).mean()


@graphc.graph
def mixture(x: graphc.f64["n", 6], mean: graphc.f64[7, 6], root: graphc.f64[7, 6, 6]):
    """Products around products, by a letter that is not the rows'."""
    apart = graphc.einsum("kij,nkj->nki", root, x[:, None, :] - mean)
    return -graphc.logsumexp(-0.5 * (apart * apart).sum(axis=2), axis=1).mean()


@graphc.graph
def long_rows(x: graphc.f64["n", 10], mean: graphc.f64[25, 10], root: graphc.f64[25, 10, 10]):
    """Panels of 64 rows; sums of products go on, with columns that two tiles make."""
    apart = graphc.einsum("kij,nkj->nki", root, x[:, None, :] - mean)
    return -graphc.logsumexp(-0.5 * (apart * apart).sum(axis=2), axis=1).mean()


@graphc.graph
def long_narrow(x: graphc.f64["n", 300], w: graphc.f64[300, 3], v: graphc.f64[3, 200]):
    """The same with a result of less columns than a vector, and one whose columns lie apart."""
    z = graphc.exp(graphc.tanh(x) @ w)
    return graphc.tanh(x).T @ z, z.T @ graphc.tanh(z @ v)


@graphc.graph
def flat(x: graphc.f64["n", 8], w: graphc.f64[8, 16]):
    """The loop between the products walks through rows as through one long array."""
    return x.T @ graphc.exp(x @ w)


@graphc.graph
def extremes(x: graphc.f64["n", 9], w: graphc.f64[9, 12]):
    """An accumulator without an order, of an array and of one number."""
    z = graphc.tanh(x @ w)
    return z.max(axis=0), (x.T @ z).sum(), z.sum(), z.max()


@graphc.graph
def integers(x: graphc.i64["n", 9], w: graphc.i64[9, 12]):
    z = x @ w + 1
    return x.T @ z, z.sum(axis=0)


@graphc.graph
def kept(x: graphc.f64["n", 9], w: graphc.f64[9, 12]):
    """What is a result, too, has memory for all rows."""
    z = graphc.exp(x @ w)
    return z, x.T @ z


@graphc.graph
def long_body(x: graphc.f64["n", 9], w: graphc.f64[9, 12]):
    """A loop whose body is written in pieces."""
    z = x @ w
    for i in range(400):
        z = z * (0.99 + 1e-5 * i) + 0.01
    return x.T @ z


MODELS = {
    "clusters": (clusters, ("centres",), {}),
    "network": (network, ("w", "v"), {}),
    "mixture": (mixture, ("mean", "root"), {}),
    "long_rows": (long_rows, ("mean", "root"), {}),
    "long_narrow": (long_narrow, (), {}),
    "long_body": (long_body, (), {}),
    "flat": (flat, (), {}),
    "extremes": (extremes, (), {"max"}),
    "integers": (integers, (), {}),
    "kept": (kept, (), {}),
}
ROWS = (0, 1, 64, 65, 255, 256, 257, 512, 513, 1500, 2304)


@pytest.fixture
def three(monkeypatch):
    """Three threads share whatever can be shared, however small it is."""
    monkeypatch.setattr(threads, "processors", lambda: 3)
    monkeypatch.setattr(threads, "LEAST_WORK", 0)
    assert threads.pool(3)[1] == 3
    return lambda kernel: replace(kernel, threads=3)


def built(name):
    declared, wrt, _ = MODELS[name]
    return declared.graph, Options(wrt=wrt)


def program_of(declared, wrt=(), last="plan"):
    return run_stages(declared.graph, Options(wrt=wrt), last=last)


def arguments(graph, n):
    r = np.random.default_rng(n)
    made = []
    for node in graph.inputs:
        shape = [n if not isinstance(s, int) else s for s in node.type.shape]
        x = r.standard_normal(shape)
        made.append((4 * x if node.type.dtype.name == "i64" else x).astype(node.type.dtype.numpy))
    return made


@pytest.mark.parametrize("name", MODELS)
def test_bits(name, three):
    """One thread, three, and a schedule without sweeps, against the graph's own meaning."""
    graph, options = built(name)
    kernel = compile_graph(graph, options)
    assert any(k.sweep is not None for k in kernel.program.kernels)
    verify_plan(kernel.program)
    apart = compile_graph(graph, replace(options, skip=frozenset({"sweep"})))
    assert all(k.sweep is None for k in apart.program.kernels)
    for n in ROWS:
        if n == 0 and "max" in MODELS[name][2]:
            continue
        inputs = arguments(graph, n)
        want = run_graph(kernel.graph, inputs, {"n": n})
        for run in (kernel, three(kernel), three(apart)):
            for got, expected in zip(run.run(inputs), want, strict=True):
                assert got.tobytes() == np.ascontiguousarray(expected).tobytes(), n


@graphc.graph
def fixed(x: graphc.f64[700, 8], w: graphc.f64[8, 20]):
    """Rows whose number is known: there is no other way through."""
    z = graphc.exp(x @ w)
    return x.T @ z, z.sum()


def test_rows_known_before(three):
    kernel = compile_graph(fixed.graph, Options())
    assert [k.sweep for k in kernel.program.kernels if k.sweep is not None] == [700]
    inputs = arguments(fixed.graph, 700)
    want = run_graph(kernel.graph, inputs, {})
    for run in (kernel, three(kernel)):
        for got, expected in zip(run.run(inputs), want, strict=True):
            assert got.tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_the_interpreter_runs_them(name):
    graph, options = built(name)
    program = run_stages(graph, options, last="plan")
    simplified = run_stages(graph, options, last="simplify")
    for n in (1, 300):
        inputs = arguments(graph, n)
        want = run_graph(simplified, inputs, {"n": n})
        for got, expected in zip(run_program(program, inputs, {"n": n}), want, strict=True):
            assert got.tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_text(name):
    graph, options = built(name)
    for last in ("fuse", "plan"):
        program = run_stages(graph, options, last=last)
        assert parse_program(str(program)) == program


def swept(program):
    return [k for k in program.kernels if k.sweep is not None]


def test_what_is_joined():
    (sweep,) = swept(program_of(clusters, ("centres",)))
    assert sum(isinstance(s, Contract) for s in sweep.body) == 2 and str(sweep.sweep) == "n"
    assert graphc.compile(clusters, wrt="centres").plan.passes_over("x") == 1


def test_memory_is_for_a_panel():
    program = program_of(clusters, ("centres",))
    local = [b for b in program.buffers if b.panel]
    assert [str(b.bytes()) for b in local] == [str(32 * 256)] * 2
    assert all(b.private for b in local)
    lean, full = (
        graphc.compile(clusters, wrt="centres", skip=skip).plan for skip in ((), ("sweep",))
    )
    assert lean.arena_bytes(n=10**6) < 10**5 < full.arena_bytes(n=10**6)


def test_few_rows_have_memory_for_all_of_them():
    """A panel has 64 long rows. Up to 256 are one part: threads share its loops and products."""
    program = program_of(long_rows, ("mean", "root"))
    local = [b for b in program.buffers if b.panel == 64]
    assert local
    for b in local:
        row = b.type.dtype.itemsize * int(str(product(b.type.shape[1:])))
        for n, rows in ((0, 64), (1, 64), (64, 64), (65, 65), (256, 256), (257, 64), (10**6, 64)):
            assert evaluate(b.bytes(), {"n": n}) == rows * row


@graphc.graph
def shifted(x: graphc.f64["n", 8], w: graphc.f64[8, 8]):
    """A row needs the one above."""
    z = graphc.exp(x @ w)
    return (z[1:] - z[:-1]) @ w


@graphc.graph
def needs_all_rows(x: graphc.f64["n", 8], w: graphc.f64[8, 8]):
    """The second product reads a sum of the first one's rows."""
    z = x @ w
    return (x * z.sum(axis=0)) @ w


@graphc.graph
def heavy(x: graphc.f64["n", 300], w: graphc.f64[300, 300]):
    return graphc.exp(x @ w) @ w


@graphc.graph
def one_panel(x: graphc.f64[100, 8], w: graphc.f64[8, 8]):
    return graphc.exp(x @ w) @ w


def test_what_is_not_joined():
    for declared in (heavy, one_panel):
        assert not swept(program_of(declared)), declared
    for sweep in swept(program_of(needs_all_rows)):
        assert len([s for s in sweep.body if isinstance(s, Contract)]) == 1
    for sweep in swept(program_of(shifted)):
        assert len([s for s in sweep.body if isinstance(s, Contract)]) == 1


@pytest.mark.parametrize("declared", [shifted, needs_all_rows])
@pytest.mark.parametrize("n", [1, 256, 700])
def test_their_bits(declared, n, three):
    kernel = compile_graph(declared.graph, Options())
    inputs = arguments(declared.graph, n)
    (want,) = run_graph(kernel.graph, inputs, {"n": n})
    for run in (kernel, three(kernel)):
        assert run.run(inputs)[0].tobytes() == np.ascontiguousarray(want).tobytes()


@graphc.graph
def step(x: graphc.f64["n", 6], w: graphc.f64[6, 6]):
    """The sums over rows have the type of what every panel reads."""
    return x.T @ graphc.exp(x @ w)


def test_an_input_that_every_panel_reads_is_not_given_away():
    program = program_of(step)
    assert swept(program)
    assert "read" in refusals(program, ("w",))["w"]
    assert not any(b.donor for b in donate(program, ("w",)).buffers)


def test_plans_hold_for_all_sizes():
    for name in MODELS:
        graph, options = built(name)
        for skip in (frozenset(), frozenset({"reuse"})):
            verify_plan(plan(run_stages(graph, options, last="fuse"), skip))
