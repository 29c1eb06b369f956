"""Short inner loops written out: the same bits as the loops that they replace."""

import numpy as np
import pytest

import graphc
from graphc.lower.loop_text import parse_program
from graphc.lower.loops import For, Load, walk
from graphc.lower.planes import in_planes
from graphc.lower.unroll import SHORT, written_out

SIZES = (0, 1, 3, 4, 7, 8, 9, 31, 32, 33, 63, 64, 65, 100, 131)


def both(declared, wrt, args):
    """Values and gradients with the loops written out, and without."""
    results = []
    for skip in ((), ("unroll",)):
        value, grads = graphc.compile(declared, wrt=wrt, skip=skip).value_and_grad(*args)
        results.append([np.asarray(value), *map(np.asarray, grads)])
    return results


def assert_same_bits(declared, wrt, args):
    for ours, plain in zip(*both(declared, wrt, args), strict=True):
        assert ours.tobytes() == plain.tobytes()


def energy(float_, d):
    @graphc.graph
    def pairs(x: float_["n", d], strength: float_[d]):
        apart = x[:, None, :] - x[None, :, :]
        square = (apart * apart * strength).sum(axis=2) + 0.01
        return (1.0 / graphc.sqrt(square)).sum()

    return pairs


@pytest.mark.parametrize("float_", [graphc.f32, graphc.f64], ids=str)
@pytest.mark.parametrize("d", [2, 3, 5])
def test_pairs_of_points(float_, d):
    """Lanes over the second point; sums over both points, one in rows and one in lanes."""
    declared = energy(float_, d)
    compiled = [graphc.compile(declared, wrt=("x", "strength"), skip=s) for s in ((), ("unroll",))]
    rng = np.random.default_rng(d)
    for n in SIZES:
        x = rng.normal(size=(n, d)).astype(float_.numpy)
        strength = rng.uniform(0.5, 2, d).astype(float_.numpy)
        ours, plain = (k.value_and_grad(x, strength) for k in compiled)
        for a, b in zip((ours[0], *ours[1]), (plain[0], *plain[1]), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("float_", [graphc.f32, graphc.f64], ids=str)
@pytest.mark.parametrize("d", range(2, SHORT + 1))
def test_reductions_of_short_rows(float_, d):
    """Every monoid and order over rows that are read by transposing, with results as rows."""

    @graphc.graph
    def rows(x: float_["n", d], w: float_[d]):
        top = x.max(axis=1)
        low = x.min(axis=1)
        some = (x > 0.5).any(axis=1)
        product = x.prod(axis=1)
        out = graphc.where(some, top - low, product) + x @ w
        return (out * out).sum() + (x * out[:, None]).sum(axis=0).sum()

    compiled = [graphc.compile(rows, wrt=("x", "w"), skip=s) for s in ((), ("unroll",))]
    rng = np.random.default_rng(d)
    for n in (0, 1, 7, 16, 33, 100):
        x, w = rng.normal(size=(n, d)), rng.normal(size=d)
        args = x.astype(float_.numpy), w.astype(float_.numpy)
        ours, plain = (k.value_and_grad(*args) for k in compiled)
        for a, b in zip((ours[0], *ours[1]), (plain[0], *plain[1]), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_mixture_in_few_dimensions():
    """Scratch in planes, sums of columns in planes, and rows in blocks, in one kernel."""

    @graphc.graph
    def mixture(x: graphc.f64["n", 2], mean: graphc.f64[8, 2], scale: graphc.f64[8, 2]):
        apart = (x[:, None, :] - mean) * scale
        return graphc.logsumexp(-0.5 * (apart * apart).sum(axis=2), axis=1).sum()

    rng = np.random.default_rng(1)
    for n in (0, 1, 63, 64, 65, 200):
        args = rng.normal(size=(n, 2)), rng.normal(size=(8, 2)), rng.uniform(0.5, 2, (8, 2))
        assert_same_bits(mixture, ("x", "mean", "scale"), args)
    text = graphc.compile(mixture, wrt=("mean",)).stages["fuse"]
    assert "for _k" not in text and "mean.planes" in text


def test_one_kernel_for_a_mixture():
    """What does not depend on the weights waits for the loop that needs it, as a whole."""

    @graphc.graph
    def mixture(x: graphc.f64["n", 2], mean: graphc.f64[8, 2], weight: graphc.f64[8]):
        apart = x[:, None, :] - mean
        each = graphc.log_softmax(weight) - 0.5 * (apart * apart).sum(axis=2)
        return -graphc.logsumexp(each, axis=1).mean()

    plan = graphc.compile(mixture, wrt=("mean", "weight")).plan
    assert plan.passes_over("x") == 1
    assert not [b for b in plan.program.of_role("temp") if b.type.rank == 3 and not b.scope]


def test_small_vectors_are_transposed_in_registers():
    """One loop over the points, in lanes; results go back as rows."""

    @graphc.graph
    def turned(x: graphc.f64["n", 3], y: graphc.f64["n", 2]):
        a, b, c = x[:, 0], x[:, 1], x[:, 2]
        return ((a * b - y[:, 0]) ** 2 + (b * c - y[:, 1]) ** 2 + a * c).sum()

    rng = np.random.default_rng(2)
    for n in SIZES:
        assert_same_bits(turned, ("x", "y"), (rng.normal(size=(n, 3)), rng.normal(size=(n, 2))))
    program = graphc.compile(turned, wrt=("x", "y")).plan.program
    loops = [s for k in program.kernels for s, _ in walk(k.body) if isinstance(s, For)]
    assert [f.mode for f in loops] == ["vector"]
    assert not program.of_role("temp")


def test_values_of_scratch_stay_in_registers():
    program = written_out(
        parse_program("""program squares(x: f64[n,2])
sizes n
buffer output y.out: f64[n]
buffer temp t0: f64[2] scope=_i
kernel k0
  for _i in n rows
    for _j in 2 rows
      %1 = load x[2*_i+_j] : f64
      %2 = mul %1, %1 : f64
      store t0[_j] %2
    for _j in 2 rows
      acc %3: f64 sum lanes
      %4 = load t0[_j] : f64
      add %3 %4
    store y.out[_i] %3""")
    )
    assert not program.of_role("temp")
    assert sum(isinstance(s, Load) for s, _ in walk(program.kernels[0].body)) == 2


def test_long_rows_stay_loops():
    text = """program sums(x: f64[n,64])
sizes n
buffer output y.out: f64[n]
kernel k0
  for _i in n rows
    for _j in 64 rows
      acc %1: f64 sum lanes
      %2 = load x[64*_i+_j] : f64
      add %1 %2
    store y.out[_i] %1"""
    assert str(in_planes(written_out(parse_program(text)))) == text


def test_an_empty_short_axis():
    @graphc.graph
    def nothing(x: graphc.f64["n", 0], y: graphc.f64["n"]):
        return (y * (1.0 + x.sum(axis=1))).sum()

    assert_same_bits(nothing, ("x", "y"), (np.zeros((20, 0)), np.arange(20.0)))


@pytest.mark.parametrize("float_", [graphc.f32, graphc.f64], ids=str)
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 6, 9, 17])
def test_columns_of_rows(float_, columns):
    """Rows of every length are taken apart, and put together again, in registers of both widths."""

    @graphc.graph
    def reversed_columns(x: float_["n", columns], whole: graphc.i32["n", columns]):
        parts = [2.0 * x[:, k : k + 1] for k in reversed(range(columns))]
        counts = sum(whole[:, k] * (k + 1) for k in range(columns))
        return graphc.concatenate(parts, axis=1), counts

    compiled = graphc.compile(reversed_columns)
    rng = np.random.default_rng(columns)
    for n in SIZES:
        x = rng.normal(size=(n, columns)).astype(float_.numpy)
        whole = rng.integers(-9, 9, (n, columns)).astype(np.int32)
        out, counts = compiled(x, whole)
        np.testing.assert_array_equal(out, 2 * x[:, ::-1])
        np.testing.assert_array_equal(counts, whole @ np.arange(1, columns + 1))


def test_rows_that_are_stored_in_part():
    """A store touches its own columns only, and no row beyond the last."""

    @graphc.graph
    def part(x: graphc.f64["n"]):
        zeros = graphc.zeros_like(x)
        return graphc.stack([x, 2.0 * x, zeros], axis=1)[:, :2]

    for n in SIZES:
        x = np.arange(float(n))
        np.testing.assert_array_equal(graphc.compile(part)(x), np.stack([x, 2 * x], axis=1))


@pytest.mark.parametrize("dtype", [graphc.i32, graphc.f32, graphc.f64], ids=str)
def test_many_column_sums_over_nested_short_axes(dtype):
    """Sixteen sums over the long axis are too many to hold apart: they stay columns."""

    @graphc.graph
    def sums(x: dtype["n"], table: dtype[4, 4]):
        return (x[:, None, None] * table).sum(axis=0)

    compiled = [graphc.compile(sums, skip=s) for s in ((), ("unroll",))]
    table = np.arange(16).reshape(4, 4).astype(dtype.numpy)
    for n in (0, 1, 5, 40):
        x = np.arange(n).astype(dtype.numpy)
        for k in compiled:
            np.testing.assert_array_equal(k(x, table), x.sum(dtype=x.dtype) * table)
