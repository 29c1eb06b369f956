"""Nests of loops in parts: numbers between them in lanes, sums over the rows in registers."""

import numpy as np
import pytest

import graphc
from graphc.lower.loops import For, Load, Store, walk

SIZES = (0, 1, 3, 4, 63, 64, 65, 257, 1030)


def leaves(results):
    return [a for r in results for a in (r if isinstance(r, tuple) else (r,))]


def assert_same_bits(declared, wrt, cases):
    """In parts, and in loops as they were written."""
    ours, plain = (graphc.compile(declared, wrt=wrt, skip=s) for s in ((), ("unroll", "blocks")))
    for args in cases:
        found, expected = (
            leaves(k.value_and_grad(*args) if wrt else k(*args)) for k in (ours, plain)
        )
        for a, b in zip(found, expected, strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), len(args[0])


def mixture_of(dtype, d, k):
    """Every branch of a mixture: sums over coordinates, clusters and points."""

    @graphc.graph
    def mixture(x: dtype["n", d], mean: dtype[k, d], scale: dtype[k, d], weight: dtype[k]):
        apart = (x[:, None, :] - mean) * scale
        each = weight - 0.5 * (apart * apart).sum(axis=2)
        return graphc.logsumexp(each, axis=1).sum()

    return mixture


@pytest.mark.parametrize("k", [3, 25])
@pytest.mark.parametrize("d", [9, 10, 15, 45])
@pytest.mark.parametrize("dtype", [graphc.f32, graphc.f64], ids=str)
def test_a_mixture(dtype, d, k):
    """Columns in whole vectors and in parts of one, which must leave those of the next cluster
    alone; leaves and blocks that are not full."""
    rng = np.random.default_rng(d + k)
    mixture = mixture_of(dtype, d, k)
    shapes = [((n, d), (k, d), (k, d), (k,)) for n in SIZES]
    cases = [[rng.normal(size=s).astype(dtype.numpy) for s in each] for each in shapes]
    assert_same_bits(mixture, ("x", "mean", "scale", "weight"), cases)


def test_the_parts_of_a_mixture():
    """No scratch for each point of a nest, nothing but loads between loops, rows in blocks."""
    k = graphc.compile(mixture_of(graphc.f64, 32, 50), wrt=("mean", "scale", "weight"))
    program = k.plan.program
    (n, _) = program.buffer("x").type.shape
    loops = [s for kernel in program.kernels for s in kernel.body if isinstance(s, For)]
    (top,) = (s for s in loops if s.size == n and s.mode == "blocks")
    assert not [b for b in program.of_role("temp") if b.scope and b.type.rank > 2]
    nests = [s for s in top.body if isinstance(s, For) and any(isinstance(t, For) for t in s.body)]
    assert len(nests) == 2
    for nest in nests:
        assert all(isinstance(s, (For, Load, Store)) for s in nest.body)
    assert k.plan.passes_over("x") == 1


def test_a_number_for_each_cluster_that_memory_has():
    """What later parts write is not read by earlier ones: else the nest stays as it is."""

    @graphc.graph
    def sums(x: graphc.f64["n", 9], c: graphc.f64[12, 9]):
        near = (x[:, None, :] * c).sum(axis=2)
        far = graphc.exp(near)[:, :, None] * c - x[:, None, :]
        return (far * far).sum(axis=2), (far * near[:, :, None]).sum(axis=0), far.max(axis=1)

    rng = np.random.default_rng(3)
    cases = [(rng.normal(size=(n, 9)), 0.1 * rng.normal(size=(12, 9))) for n in SIZES if n]
    assert_same_bits(sums, (), cases)


def test_nests_three_deep():
    @graphc.graph
    def deep(x: graphc.f64["n", 5, 12], c: graphc.f64[3, 5, 12]):
        apart = x[:, None] - c
        return graphc.logsumexp(
            (graphc.sqrt((apart * apart).sum(axis=3) + 1.0)).sum(axis=2), 1
        ).sum()

    rng = np.random.default_rng(4)
    cases = [(rng.normal(size=(n, 5, 12)), rng.normal(size=(3, 5, 12))) for n in (0, 1, 64, 130)]
    assert_same_bits(deep, ("x", "c"), cases)


def test_loops_in_lanes_only():
    """A block's nests end in loops in lanes."""
    k = graphc.compile(mixture_of(graphc.f64, 10, 25), wrt=("mean", "scale", "weight"))
    for kernel in k.plan.program.kernels:
        for s, _ in walk(kernel.body):
            if isinstance(s, For) and not any(isinstance(t, For) for t in s.body):
                assert s.mode == "vector"
