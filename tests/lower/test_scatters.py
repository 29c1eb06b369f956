"""Loops that compute, then scatter: two loops, of which threads may share the first."""

import numpy as np
import pytest

import graphc
from graphc.errors import IndexOutOfBounds
from graphc.lower.loops import For, Scatter


@graphc.graph
def grouped(x: graphc.f64["n", 3], group: graphc.i64["n"], level: graphc.f64[40], w: graphc.f64[3]):
    z = level[group] + x @ w
    return (graphc.softplus(z) - 0.3 * z).sum()


@graphc.graph
def twice(
    x: graphc.f32["n"], a: graphc.i32["n"], b: graphc.i32["n"], u: graphc.f32[7], v: graphc.f32[9]
):
    """Two tables, whose indices are not as wide as those of machines."""
    return (graphc.exp(u[a] - x) * graphc.sin(v[b])).sum()


def arguments(declared, n):
    rng = np.random.default_rng(n)
    if declared is grouped:
        return rng.normal(size=(n, 3)), rng.integers(-40, 40, n), rng.normal(size=40), np.ones(3)
    a, b = rng.integers(0, 7, n).astype("i4"), rng.integers(0, 9, n).astype("i4")
    return tuple(
        x.astype("f4") if x.dtype == float else x
        for x in (rng.normal(size=n), a, b, rng.normal(size=7), rng.normal(size=9))
    )


def top_loops(k):
    return [s for kernel in k.plan.program.kernels for s in kernel.body if isinstance(s, For)]


@pytest.mark.parametrize("declared, wrt", [(grouped, ("level", "w")), (twice, ("u", "v"))])
def test_bits(declared, wrt):
    """In the order of the rows, for any number of threads."""
    plain = graphc.compile(declared, wrt=wrt, skip=("parallel",))
    ours = [graphc.compile(declared, wrt=wrt, threads=t) for t in (1, 2)]
    for n in (0, 1, 5, 64, 300, 20_000):
        args = arguments(declared, n)
        value, grads = plain.value_and_grad(*args)
        for k in ours:
            found, also = k.value_and_grad(*args)
            assert np.asarray(found).tobytes() == np.asarray(value).tobytes()
            assert [g.tobytes() for g in also] == [g.tobytes() for g in grads]


@pytest.mark.parametrize("declared, wrt", [(grouped, ("level", "w")), (twice, ("u", "v"))])
def test_threads_share_what_is_computed(declared, wrt):
    loops = top_loops(graphc.compile(declared, wrt=wrt))
    scattering = [f for f in loops if any(isinstance(s, Scatter) for s in f.body)]
    assert scattering and not any(f.parallel for f in scattering)
    assert all(f.ordered for f in scattering)
    assert any(f.parallel for f in loops)


def test_little_work_stays_in_one_loop():
    @graphc.graph
    def counts(x: graphc.f64["n"], group: graphc.i64["n"], level: graphc.f64[20]):
        return ((x - level[group]) ** 2).sum()

    assert len(top_loops(graphc.compile(counts, wrt=("level",)))) == 1


def test_a_wrong_index_is_found():
    x, group, level, w = arguments(grouped, 5000)
    group[4321] = 40
    for t in (1, 2):
        with pytest.raises(IndexOutOfBounds, match="40"):
            graphc.compile(grouped, wrt=("level",), threads=t).value_and_grad(x, group, level, w)
