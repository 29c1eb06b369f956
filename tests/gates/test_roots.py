"""Reciprocal square roots, cube roots and hypot: mpmath judges both dtypes."""

import itertools
import math

import mpmath as mp
import numpy as np
import pytest

from graphc.dsl.trace import trace
from graphc.gates.bodies import generate, roots
from graphc.gates.gate import registry
from graphc.ir.types import f32, f64
from tests.gates.test_arc import _same, pairs, run, slopes
from tests.gates.test_bodies import ulp_errors

INF, NAN = math.inf, math.nan
EXACT = {
    "rsqrt": lambda x: 1 / mp.sqrt(x),
    "rsqrt_special": lambda x: 1 / mp.sqrt(x),
    "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
}
SLOPES = {
    "rsqrt": lambda x: -1 / (2 * x * mp.sqrt(x)),
    "cbrt": lambda x: 1 / (3 * mp.cbrt(abs(x)) ** 2),
}


def points(name, dtype):
    """Every exponent twice, eight octaves densely, and the neighbours of powers of two."""
    rng = np.random.default_rng(9)
    low, high = (-1074, 1024) if dtype == np.float64 else (-149, 128)
    exponents = np.tile(np.arange(low, high), 2 if dtype == np.float64 else 12)
    every = np.ldexp(rng.uniform(1, 2, exponents.size), exponents)
    dense = np.geomspace(1, 256, 3000)
    powers = np.ldexp(1.0, np.arange(-30, 30)).astype(dtype)[:, None]
    beside = (powers * (1 + np.finfo(dtype).eps * np.arange(-3, 4))).ravel()
    x = np.r_[every, dense, beside].astype(dtype)
    return np.r_[x, -x] if name == "cbrt" else x


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_within_the_budget_of_mpmath(name, dtype):
    x = points(name, dtype)
    with mp.workprec(150):
        exact = [EXACT[name](mp.mpf(float(v))) for v in x]
        worst = max(zip(ulp_errors(run(name, x), exact, dtype), x, strict=True))
    assert worst[0] <= registry()[name].ulp, worst


@pytest.mark.parametrize("name", EXACT)
def test_f32_is_within_its_budget_of_f64(name):
    x = np.arange(0, 2**32, 2039, dtype=np.uint64).astype(np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        want = 1 / np.sqrt(x.astype(np.float64)) if "rsqrt" in name else np.cbrt(x.astype(float))
        got = run(name, x)
        error = np.abs(got - want) / np.ldexp(1.0, np.maximum(np.frexp(want)[1] - 24, -149))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    error[np.isnan(got) | (got == want)] = 0.0
    assert error.max() <= registry()[name].ulp, x[error.argmax()]


SPECIAL = [
    # name, arguments, results
    ("rsqrt", [0.0, -0.0, INF, -INF, -1.0, 5e-324, 4.0],
     [INF, -INF, 0, NAN, NAN, 2.0**537, 0.5]),
    ("rsqrt_special", [0.0, -0.0, INF, -INF, -1.0, 5e-324, 4.0],
     [INF, -INF, 0, NAN, NAN, 2.0**537, 0.5]),
    ("cbrt", [0.0, -0.0, INF, -INF, 8.0, -27.0, 2.0**-1074],
     [0.0, -0.0, INF, -INF, 2, -3, 2.0**-358]),
]  # fmt: skip


@pytest.mark.parametrize("name, x, want", SPECIAL)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_special_values(name, x, want, dtype):
    inside = [0.0 < abs(v) < 1e-100 for v in x] if dtype == np.float32 else [False] * len(x)
    for v, w, g, skip in zip(x, want, run(name, np.array(x, dtype)), inside, strict=True):
        assert skip or _same(float(g), w), (name, v, g)


@pytest.mark.parametrize("dtype", [f64, f32])
def test_nan_stays(dtype):
    x = np.array([NAN, -NAN], dtype.numpy)
    for name in ("rsqrt", "rsqrt_special", "cbrt"):
        assert np.isnan(run(name, x)).all()
    for name in ("hypot", "hypot_partial", "atan2_partial"):
        one = np.ones(2, dtype.numpy)
        assert np.isnan(run(name, x, one)).all() and np.isnan(run(name, one, x)).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_hypot_is_within_its_budget_of_mpmath(dtype):
    x, y = pairs(dtype)
    with mp.workprec(4500 if dtype == np.float64 else 700):
        exact = [mp.hypot(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(x, y, strict=True)]
        worst = max(zip(ulp_errors(run("hypot", x, y), exact, dtype), x, y, strict=True))
    assert worst[0] <= registry()["hypot"].ulp, worst


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_hypot_follows_annex_f(dtype):
    """B21: inf whatever the other is; exact on the axes."""
    edge = [0.0, -0.0, 1.0, INF, -INF, NAN, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal]
    x, y = np.array(list(itertools.product(edge, edge)), dtype).T.copy()
    with np.errstate(over="ignore"):
        want = np.hypot(x, y)
    for a, b, g, w in zip(x, y, run("hypot", x, y), want, strict=True):
        assert _same(float(g), float(w)), (a, b, g, w)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_symmetries_hold_by_bits(dtype):
    x, y = pairs(dtype)
    h = run("hypot", x, y)
    for other in (run("hypot", y, x), run("hypot", -x, y), run("hypot", x, -y)):
        np.testing.assert_array_equal(other, h)
    np.testing.assert_array_equal(run("cbrt", -x), -run("cbrt", x))


# -- derivatives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_derivatives_are_within_4_ulp(name, dtype):
    x = points(name, dtype)
    with mp.workprec(150):
        exact = [SLOPES[name](mp.mpf(float(v))) for v in x]
        worst = max(zip(ulp_errors(slopes(name, x)[0], exact, dtype), x, strict=True))
    assert worst[0] <= 4, worst


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_derivatives_of_hypot_are_within_4_ulp(dtype):
    x, y = pairs(dtype)
    by_x, by_y = slopes("hypot", x, y)
    with mp.workprec(4500 if dtype == np.float64 else 700):
        operands = [(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(x, y, strict=True)]
        for found, exact in (
            (by_x, [a / mp.hypot(a, b) for a, b in operands]),
            (by_y, [b / mp.hypot(a, b) for a, b in operands]),
        ):
            assert max(ulp_errors(found, exact, dtype)) <= 4


def test_derivatives_at_the_edges():
    """A5: 0 at (0, 0); A33: infinite at 0, never NaN."""
    zeros = np.array([0.0, -0.0])
    for found in slopes("hypot", zeros, zeros):
        assert (found == 0).all()
    assert slopes("cbrt", zeros)[0].tolist() == [INF, INF]
    assert slopes("rsqrt", zeros)[0].tolist() == [-INF, INF]


def test_second_derivatives_by_differences():
    x, y = np.array([0.3, -0.7, 1.4, 2.3]), np.array([1.1, 0.4, -0.9, -0.2])
    f, h = lambda a, b: run("hypot_partial", a, b), 1e-6
    by_x, by_y = slopes("hypot_partial", x, y)
    np.testing.assert_allclose(by_x, (f(x + h, y) - f(x - h, y)) / (2 * h), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(by_y, (f(x, y + h) - f(x, y - h)) / (2 * h), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["RSQRT", "CBRT"])
def test_tables_are_what_the_generator_makes(name):
    held = {"RSQRT": roots.RSQRT, "CBRT": roots.CBRT}[name]
    with mp.workprec(200):
        for dtype in (f64, f32):
            made = generate.tables()[f"{name}_{dtype.name.upper()}"]()[0]
            assert [float(v) for v in made] == np.float64(
                np.array(held[dtype], dtype.numpy)
            ).tolist()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_over_a_root_is_one_gate(dtype):
    """It rounds once, so it is nearer than the quotient, and what is exact stays so."""
    import graphc
    import graphc.numpy as gnp

    x = points("rsqrt", dtype)
    for f in (lambda x: 1 / np.sqrt(x), lambda x: gnp.reciprocal(gnp.sqrt(x))):
        ops = [node.op for node in trace(f, (graphc.f64["n"],), ("x",)).graph.nodes]
        assert "rsqrt" in ops and "sqrt" not in ops and "reciprocal" not in ops
        assert graphc.jit(f)(x).tobytes() == run("rsqrt", x).tobytes()
    exact = (4.0 ** np.arange(-20, 20)).astype(dtype)
    np.testing.assert_array_equal(graphc.jit(f)(exact), 1 / np.sqrt(exact))
