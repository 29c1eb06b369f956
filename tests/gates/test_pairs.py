"""logaddexp, logaddexp2, xlogy and xlog1py against mpmath; their derivatives; special values."""

import itertools

import mpmath as mp
import numpy as np
import pytest

from graphc.gates.gate import registry
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph, run_scalar
from graphc.ir.types import f32, f64, from_numpy
from graphc.runtime.kernel import compile_graph
from graphc.transforms.adjoint import adjoint

INF, NAN = np.inf, np.nan
SUMS = {"logaddexp": mp.mpf(1), "logaddexp2": mp.ln2}  # the logarithm of the base
BITS = {f64: (53, -1074), f32: (24, -149)}
TINY = {f64: 745.0, f32: 103.0}  # e^-TINY is nearly nothing


def run(name, *args):
    dtypes = tuple(from_numpy(a.dtype) for a in args)
    return run_scalar(registry()[name].body_graph(dtypes), *args)


def graph_of(name, dtype):
    gate, builder = registry()[name], Builder()
    return builder.graph("f", {"y": gate(*(builder.input(p, dtype["n"]) for p in gate.params))})


def gradient(name, *args):
    graph = graph_of(name, from_numpy(args[0].dtype))
    names = tuple(n["name"] for n in graph.inputs)
    return run_graph(adjoint(graph, names, "input"), [*args, np.ones_like(args[0])])[-2:]


def spacing(x, dtype):
    bits, least = BITS[dtype]
    return mp.mpf(2) ** max(mp.frexp(x)[1] - bits if x else least, least)


def exact_sum(x, y, unit):
    """(the larger, log(1 + e)) in a base."""
    larger, smaller = max(x, y), min(x, y)
    return larger, mp.log1p(mp.exp((smaller - larger) * unit)) / unit


def sum_points(dtype, unit, n=700):
    """Pairs of any distance: ordinary ones; with 0; about where M and log(1 + e) are alike, or
    cancel; with e next to the points of the tables and between them.
    """
    rng, entries = np.random.default_rng(5), 15 if dtype is f64 else 31
    t = np.exp(rng.uniform(-9, np.log(TINY[dtype]), n))
    yield rng.uniform(-3, 3, n), rng.uniform(-3, 3, n)
    yield rng.uniform(-900, 900, n), rng.uniform(-900, 900, n)
    yield 0 * t, -t / unit
    e = (rng.integers(0, 2 * entries, n) + rng.uniform(-1e-3, 1e-3, n)) / (2 * entries)
    for distance in (t / unit, -np.log(np.clip(e, 1e-9, 1)) / unit):
        rest = np.log1p(np.exp(-distance * unit)) / unit
        larger = rest * np.exp(rng.uniform(-2, 2, n)) * rng.choice([-1, 1], n)
        yield larger, larger - distance
        larger = -rest * rng.uniform(0.5, 1.5, n)
        yield larger - distance, larger


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", SUMS)
def test_sums_are_within_their_budget(name, dtype):
    """In units of the largest addend, of M + log(1 + e); their derivatives in their own."""
    unit, worst = SUMS[name], [(0.0,)] * 3
    for pair in sum_points(dtype, float(unit)):
        x, y = (v.astype(dtype.numpy) for v in pair)
        got = [run(name, x, y), run(f"{name}_first", x, y), run(f"{name}_second", x, y)]
        with mp.workprec(200):
            for i, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
                a, b = mp.mpf(a), mp.mpf(b)
                larger, rest = exact_sum(a, b, unit)
                addend = max(abs(larger), rest, abs(larger + rest))
                shares = [1 / (1 + mp.exp(d * unit)) for d in (b - a, a - b)]
                for k, (want, scale) in enumerate([(larger + rest, addend), *zip(shares, shares)]):
                    error = abs(mp.mpf(float(got[k][i])) - want) / spacing(scale, dtype)
                    worst[k] = max(worst[k], (float(error), float(a), float(b)))
    for found, suffix in zip(worst, ("", "_first", "_second"), strict=True):
        assert found[0] <= registry()[name + suffix].ulp, (name + suffix, found)


PRODUCTS = {"xlogy": mp.log, "xlog1py": mp.log1p}


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_within_their_budget(name, dtype):
    rng, n = np.random.default_rng(6), 3000
    x = np.ldexp(rng.uniform(-2, 2, n), rng.integers(-20, 20, n)).astype(dtype.numpy)
    y = np.ldexp(rng.uniform(1, 2, n), rng.integers(-60, 60, n)).astype(dtype.numpy)
    near = np.linspace(0.5, 2, n) if name == "xlogy" else np.linspace(-0.99, 1, n)
    y = np.r_[y, near.astype(dtype.numpy)]
    x = np.r_[x, x]
    by_x, by_y = gradient(name, x, y)
    got, worst = run(name, x, y), [0.0] * 3
    with mp.workprec(160):
        for i, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
            factor = PRODUCTS[name](mp.mpf(b))
            below = b if name == "xlogy" else 1 + mp.mpf(b)
            wants = (a * factor, factor, a / below)
            for k, (g, want) in enumerate(zip((got[i], by_x[i], by_y[i]), wants)):
                error = abs(mp.mpf(float(g)) - want) / spacing(want, dtype)
                worst[k] = max(worst[k], float(error))
    assert worst[0] <= registry()[name].ulp and max(worst[1:]) <= 4, worst


SPECIAL = [0.0, -0.0, 1.0, -1.0, 1000.0, -1000.0, 1e30, -1e30, INF, -INF, NAN]


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", [*SUMS, *PRODUCTS])
def test_special_values(name, dtype):
    x, y = np.array(list(itertools.product(SPECIAL, SPECIAL)), dtype.numpy).T.copy()
    with np.errstate(all="ignore"):
        if name in SUMS:
            want = getattr(np, name)(x, y)
        else:
            log = {"xlogy": np.log, "xlog1py": np.log1p}[name]
            want = np.where((x == 0) & ~np.isnan(y), 0, x * log(y))
    for got in (run(name, x, y), compile_graph(graph_of(name, dtype)).run([x, y])[0]):
        np.testing.assert_allclose(got, want, rtol=4 * np.finfo(x.dtype).eps)


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_symmetric(name):
    for pair in sum_points(f64, 1.0):
        x, y = pair
        assert (run(name, x, y) == run(name, y, x)).all()
        assert (run(f"{name}_first", x, y) == run(f"{name}_second", y, x)).all()


@pytest.mark.parametrize("name", SUMS)
def test_derivatives_at_infinities(name):
    """A23: 0 of nothing; what is infinite has all of it."""
    x = np.array([-INF, -INF, 1.0, INF, 1.0, -INF, INF, NAN])
    y = np.array([-INF, 1.0, -INF, 1.0, INF, INF, INF, 1.0])
    by_x, by_y = gradient(name, x, y)
    assert by_x[:-1].tolist() == [0, 0, 1, 1, 0, 0, 0.5]
    assert by_y[:-1].tolist() == [0, 1, 0, 0, 1, 1, 0.5]
    assert np.isnan(by_x[-1]) and np.isnan(by_y[-1])


@pytest.mark.parametrize("name", SUMS)
def test_second_derivatives(name):
    """At ties, too, where the larger and the smaller change places."""
    unit, slope = float(SUMS[name]), f"{name}_first"
    x, y = np.array([0.0, 1.0, 3.0, -40.0]), np.array([0.0, 1.0, 1.5, 1.0])
    by_x, by_y = gradient(slope, x, y)
    p = 1 / (1 + np.exp((y - x) * unit))
    np.testing.assert_allclose(by_x, unit * p / (1 + np.exp((x - y) * unit)), rtol=1e-14)
    assert (by_x == -by_y).all()


def test_derivatives_of_products_at_0():
    """A34: 0 where there is no logarithm, and what the formula says where there is one."""
    x, y = np.zeros(4), np.array([0.0, 2.0, -1.0, INF])
    by_x, by_y = gradient("xlogy", x, y)
    assert by_x.tolist() == [0, np.log(2.0), 0, INF] and not by_y.any()
    by_x, by_y = gradient("xlog1py", x, y - 1)
    assert by_x.tolist() == [0, np.log(2.0), 0, INF] and not by_y.any()
    assert np.isnan(gradient("xlogy", np.zeros(1), np.array([NAN]))[0][0])


def test_tables_are_what_the_generator_makes():
    from graphc.gates.bodies import generate, pair_tables

    with mp.workprec(200):
        for name in (
            "LOG1P_C",
            "LOG1P_T",
            "LOG1P_TAIL",
            "LOG2P_T",
            "STEP_LOST",
            "STEP_EXP",
            "STEP_LN2",
        ):
            made = [np.float32(str(v)) for v in generate.tables()[f"{name}_F32"]()[0]]
            assert made == [np.float32(v) for v in getattr(pair_tables, name)[f32]]
        for name in ("LOG2P_C", "LOG2P_T", "STEP_ROOTS", "STEP_LOST", "LOG2_E_PAIR"):
            made = [float(v) for v in generate.tables()[f"{name}_F64"]()[0]]
            assert made == list(getattr(pair_tables, name)[f64])
