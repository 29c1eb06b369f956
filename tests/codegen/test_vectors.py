"""Innermost loops with long bodies: written once, by one vector or two, with a last one that is
partial. Bits at every length, and memory beside the arrays is left alone."""

from __future__ import annotations

import os

import numpy as np
import pytest

import graphc
from graphc.codegen import written_once
from graphc.codegen.target import host
from graphc.codegen.written_once import WrittenOnce
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph
from graphc.ir.types import DTYPES, f64, i64
from graphc.lower.loop_text import parse_program
from graphc.lower.plan import plan
from graphc.pipeline import Options, run_stages
from graphc.runtime.kernel import compile_graph
from tests.guard_pages import guarded, in_a_child
from tests.random_checks import same

LENGTHS = (*range(70), 95, 96, 97, 127, 128, 129, 160, 191, 200, 255, 256, 257)


def long_body(dtype="f64", n="n", sums=True, gates=1):
    """Arrays, bools among them, sums whose order counts and a largest element, of one loop."""
    ty, b = DTYPES[dtype][n], Builder()
    x, y = b.input("x", ty), b.input("y", ty)
    a, c = x, y
    for _ in range(gates):
        a, c = b.apply("tanh", a * c), b.apply("exp", -(a * a)) - b.apply("ndtr", c)
        a, c = b.apply("log", a * a + c * c), b.apply("sin", a - c)
    outs = {"a": a, "less": b.apply("lt", a, c), "c": c * y}
    if sums:
        outs |= {
            "total": a.sum(0),
            "product": (a * c).sum(0),
            "most": b.apply("max", c, axis=0, order="any"),
        }
    return b.graph("long_body", outs)


def arrays(n, dtype="f64"):
    r = np.random.default_rng(n)
    return [r.normal(size=n).astype(DTYPES[dtype].numpy) for _ in "xy"]


def check(graph, kernel, lengths, dtype):
    for n in lengths:
        given = arrays(n, dtype)
        for made, expected in zip(kernel.run(given), run_graph(graph, given), strict=True):
            assert same(made, expected), n


def vectors_of(item, monkeypatch, first="trace"):
    """How many vectors an iteration takes, of each loop that is written once."""
    seen, once = [], WrittenOnce.write

    def watched(self, *args):
        found = once(self, *args)
        seen.append(self.vectors)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(WrittenOnce, "write", watched)
        run_stages(item, Options(), first=first, last="emit")
    return seen


@pytest.mark.parametrize("isa", ["host", "v3"])
@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_every_length(dtype, sums, isa):
    graph = long_body(dtype, sums=sums)
    lengths = LENGTHS if not sums else LENGTHS[1:]  # a largest element of none is an error
    check(graph, compile_graph(graph, Options(isa=isa)), lengths, dtype)


@pytest.mark.parametrize("repaid", [0, written_once.REPAID])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 15, 17, 24, 31, 33, 45, 64, 100])
def test_known_lengths(n, repaid, monkeypatch):
    monkeypatch.setattr(written_once, "REPAID", repaid)  # with two vectors in turns, and without
    for dtype in ("f64", "f32"):
        graph = long_body(dtype, n)
        check(graph, compile_graph(graph), [n], dtype)


def test_two_vectors_take_turns_where_that_pays(monkeypatch):
    two = 2 if host().avx512 else 1
    assert vectors_of(long_body(), monkeypatch) == [two]
    assert vectors_of(long_body(gates=2), monkeypatch) == [1]  # too long
    assert 2 not in vectors_of(long_body(n=7), monkeypatch)  # there is one
    assert vectors_of(long_body(n=1001), monkeypatch) == [1]  # over before it would be noticed
    assert vectors_of(long_body(n=100_001), monkeypatch) == [two]


def test_one_accumulator_with_two_parts(monkeypatch):
    """Both parts of an element come before the next element's: such bodies take one vector."""
    lines = ["  for _i in n vector", "    acc %1: f64 sum lanes", "    %2 = load x[_i] : f64"]
    lines += [f"    %{i + 1} = call tanh %{i} : f64" for i in range(2, 8)]
    lines += ["    add %1 %2", "    add %1 %8", "  store y.out[0] %1"]
    head = "program total(x: f64[n])\nsizes n\nbuffer output y.out: f64[]\nkernel k0   sum"
    program = plan(parse_program("\n".join([head, *lines])))
    assert vectors_of(program, monkeypatch, first="emit") == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("touching", ["last", "first"])
def test_nothing_beside_the_arrays_is_touched(touching):
    graphs = {dtype: long_body(dtype) for dtype in ("f64", "f32")}
    kernels = {dtype: compile_graph(graph) for dtype, graph in graphs.items()}

    def work(say):
        with guarded(touching):
            for dtype, kernel in kernels.items():
                for n in range(1, 140):
                    say(f"{dtype}, n = {n}")
                    given = arrays(n, dtype)
                    for a, b in zip(
                        kernel.run(given), run_graph(graphs[dtype], given), strict=True
                    ):
                        assert same(a, b)

    in_a_child(work)


@pytest.mark.parametrize("d", [3, 16, 21, "d"])
def test_rows_at_an_index_are_loaded_and_stored_as_they_lie(d):
    """A row of an embedding, and what is added to it: one index for all lanes, checked once."""

    @graphc.graph
    def factors(u: f64[40, d], v: f64["m", d], i: i64["n"], j: i64["n"]):
        return ((u[i] * v[j]).sum(axis=1) ** 2).sum()

    compiled = graphc.compile(factors, wrt=("u", "v"))
    text = compiled.stages["emit"]
    if d != 3:  # few columns are no lanes
        assert "masked.gather" not in text and "masked.scatter" not in text
    r = np.random.default_rng(0)
    width = d if isinstance(d, int) else 37
    for n in (0, 1, 5, 300):
        u, v = r.normal(size=(40, width)), r.normal(size=(7, width))
        i, j = r.integers(-40, 40, n), r.integers(-7, 7, n)
        value, gradients = compiled.value_and_grad(u, v, i, j)
        dots = (u[i] * v[j]).sum(axis=1)
        np.testing.assert_allclose(value, (dots**2).sum(), rtol=1e-12)
        by_u, by_v = np.zeros_like(u), np.zeros_like(v)
        np.add.at(by_u, i, 2 * dots[:, None] * v[j])
        np.add.at(by_v, j, 2 * dots[:, None] * u[i])
        np.testing.assert_allclose(gradients[0], by_u, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(gradients[1], by_v, rtol=1e-10, atol=1e-12)
        if n:
            i[-1] = 40
            with pytest.raises(IndexError, match="40"):
                compiled.value_and_grad(u, v, i, j)
