"""What takes a few operations is made again by a later kernel: fewer arrays, the same bits."""

import numpy as np
import pytest

import graphc
from graphc.ir.types import f32, f64
from graphc.lower.loop_text import parse_program
from graphc.pipeline import Options
from graphc.runtime.kernel import compile_graph
from tests.random_checks import same


def arrays_of(declared, wrt=("x",)):
    """The temporaries with two axes that kernels hand on."""
    program = parse_program(graphc.compile(declared, wrt=wrt).stages["fuse"])
    return [b.name for b in program.buffers if b.role == "temp" and not b.scope and b.type.rank > 1]


def columns(float_=f64, shape=("n", "m")):
    @graphc.graph
    def normal(x: float_[shape]):
        apart = x - x.mean(axis=0)
        return np.tanh(apart / np.sqrt((apart * apart).mean(axis=0) + 1e-5)).sum()

    return normal


@graphc.graph
def exps(x: f64["n", "m"]):
    largest = x.max(axis=0)
    return (np.log(np.exp(x - largest).sum(axis=0)) + largest).sum()


@graphc.graph
def two_arrays(x: f64["n", "m"], y: f64["n", "m"]):
    both = x * y
    return (both - both.mean(axis=0)).max(axis=1).sum()


@graphc.graph
def mask(x: f64["n", "m"]):
    """A byte of each comparison is less than the number that it was made of."""
    return np.where(x > 0.5, (x * x).sum(axis=0), 1.0).max(axis=1).sum()


def test_the_mean_and_what_is_apart_from_it():
    """x - mean is read by three kernels; each takes x, which is there."""
    assert arrays_of(columns(), ()) == []


def test_gates_with_long_bodies_and_what_needs_two_arrays_go_through_memory():
    assert len(arrays_of(exps)) == 1  # exp
    assert len(arrays_of(two_arrays, ())) == 1


def test_of_a_long_chain_some_are_kept():
    """None is more than a dozen operations away from what is in memory."""

    @graphc.graph
    def chain(x: f64["n", "m"]):
        e = x
        for k in range(24):
            e = e * e + float(k)
        return (e - e.mean(axis=0)).max(axis=1).sum()

    program = parse_program(graphc.compile(chain, wrt="x").stages["fuse"])
    kept = [b for b in program.buffers if b.role == "temp" and b.type.rank > 1]
    assert 3 <= len(kept) <= 6


def test_small_arrays_go_through_memory():
    assert len(arrays_of(columns(shape=(20, 30)), ())) > 0


@pytest.mark.parametrize("float_", [f32, f64], ids=str)
@pytest.mark.parametrize("wrt", [(), ("x",)], ids=["value", "gradient"])
@pytest.mark.parametrize("isa", ["host", "v3"])
def test_the_same_bits_as_by_way_of_memory(float_, wrt, isa):
    rng = np.random.default_rng(0)
    for declared in (columns(float_), exps, two_arrays, mask):
        graph = graphc.compile(declared).traced.graph
        dtype = graph.inputs[0].type.dtype.numpy
        fused, plain = (
            compile_graph(graph, Options(wrt=wrt, isa=isa, skip=frozenset(skip)))
            for skip in ((), ("fuse",))
        )
        for shape in ((1, 1), (7, 33), (100, 70), (65, 1)):
            args = tuple(rng.normal(size=shape).astype(dtype) for _ in graph.inputs)
            for a, b in zip(fused(args), plain(args), strict=True):
                assert same(np.asarray(a), np.asarray(b)), (declared, shape)
