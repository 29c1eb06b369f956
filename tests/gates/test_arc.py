"""Tangent, inverse trigonometry and sinc: mpmath judges f64, NumPy's f64 judges f32."""

import itertools
import math

import mpmath as mp
import numpy as np
import pytest

from graphc.gates.bodies import arc, generate, trig
from graphc.gates.gate import registry
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph, run_scalar
from graphc.ir.types import f32, f64, from_numpy
from tests.gates.test_bodies import ulp_errors

INF, NAN = math.inf, math.nan
PI = math.pi


def run(name, *args):
    dtypes = tuple(from_numpy(a.dtype) for a in args)
    return run_scalar(registry()[name].body_graph(dtypes), *args)


def _mp_sinc(x):
    return mp.sin(mp.pi * x) / (mp.pi * x) if x else mp.mpf(1)


def _np_sinc(x):
    """np.sinc with an exact reduction."""
    x = np.abs(x)
    turns = x - 2 * np.floor(x / 2)
    n = np.rint(2 * turns)
    r = PI * (turns - n / 2)
    sines = np.choose(
        np.nan_to_num(n).astype(int) % 4, [np.sin(r), np.cos(r), -np.sin(r), -np.cos(r)]
    )
    return np.where(x == 0, 1.0, sines / (PI * x))


# Each gate: the exact function in mpmath, the same in NumPy's f64, where it is defined, and points
# where its code changes course.
OCTAVES = [2.0**e * m for e in range(-4, 4) for m in (1, 1.5)]
EXACT = {
    "tan": (mp.tan, np.tan, (-INF, INF), [k * PI / 32 for k in range(1, 34)] + [1.6e6]),
    "tan_huge": (mp.tan, np.tan, (2e6, INF), [3e6, 1e22, 2.0**1000]),
    "atan": (mp.atan, np.arctan, (-INF, INF), [*OCTAVES, 2.0**57]),
    "asin": (mp.asin, np.arcsin, (-1, 1), [0.5, 1 - 2.0**-26, 2.0**-27]),
    "acos": (mp.acos, np.arccos, (-1, 1), [0.5, 1 - 2.0**-26, 2.0**-54]),
    "sinc": (_mp_sinc, _np_sinc, (-INF, INF), [k / 4 for k in range(1, 20)] + [2.0**-30, 2.0**52]),
}


def points(name, dtype):
    """About 2500: every exponent, where the function lives, and the neighbours of breakpoints."""
    rng = np.random.default_rng(7)
    low, high = (-1074, 1024) if dtype == np.float64 else (-149, 128)
    signs = lambda n: rng.choice([-1.0, 1.0], n)
    every = np.ldexp(rng.uniform(1, 2, high - low), np.arange(low, high)) * signs(high - low)
    near = np.ldexp(rng.uniform(1, 2, 700), rng.integers(-6, 5, 700)) * signs(700)
    steps = np.arange(-3, 4).astype(dtype)
    first, end = EXACT[name][2]
    with np.errstate(over="ignore", invalid="ignore"):
        breaks = np.array(EXACT[name][3])
        breaks = np.r_[breaks, -breaks].astype(dtype)[:, None]
        wider = breaks * (1 + 2.0**-12 * steps)
        last = breaks * (1 + np.finfo(dtype).eps * steps)
        x = np.r_[every, near, rng.uniform(-1, 1, 500), wider.ravel(), last.ravel()].astype(dtype)
    return x[(first <= x) & (x <= end) & np.isfinite(x)]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_within_the_budget_of_mpmath(name, dtype):
    x = points(name, dtype)
    periodic = name in ("tan", "tan_huge", "sinc")
    with mp.workprec((1250 if dtype == np.float64 else 400) if periodic else 200):
        exact = [EXACT[name][0](mp.mpf(float(v))) for v in x]
        worst = max(zip(ulp_errors(run(name, x), exact, dtype), x, strict=True))
    assert worst[0] <= registry()[name].ulp, worst


@pytest.mark.parametrize("name", EXACT)
def test_f32_is_within_its_budget_of_f64(name):
    stride = 60013 if name in ("tan", "tan_huge") else 4093
    x = np.arange(0, 2**32, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
    if name == "tan_huge":
        x = x[(abs(x) > 1e5) | ~np.isfinite(x)]
    with np.errstate(all="ignore"):
        want = EXACT[name][1](x.astype(np.float64))
        got = run(name, x)
        ulp = np.ldexp(1.0, np.maximum(np.frexp(want)[1] - 24, -149))
        error = np.abs(got.astype(np.float64) - want) / ulp
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    error[np.isnan(got)] = 0.0
    assert error.max() <= registry()[name].ulp, x[error.argmax()]


LAST = float.fromhex("0x1.fffffffffffffp1023")
SPECIAL = [
    # name, arguments, results
    ("tan", [0.0, -0.0, INF, -INF, 5e-324, -1e-300], [0.0, -0.0, NAN, NAN, 5e-324, -1e-300]),
    ("tan", [PI / 2, -PI / 2, LAST], [1.633123935319537e16, -1.633123935319537e16,
     -0.004962015874444895]),
    ("atan", [0.0, -0.0, INF, -INF, 5e-324, -5e-324, LAST],
     [0.0, -0.0, PI / 2, -PI / 2, 5e-324, -5e-324, PI / 2]),
    ("asin", [0.0, -0.0, 1.0, -1.0, 5e-324, 1 + 2.0**-52, -2.0, INF, -INF],
     [0.0, -0.0, PI / 2, -PI / 2, 5e-324, NAN, NAN, NAN, NAN]),
    ("acos", [0.0, -0.0, 1.0, -1.0, 5e-324, 1 + 2.0**-52, -2.0, INF, -INF],
     [PI / 2, PI / 2, 0.0, PI, PI / 2, NAN, NAN, NAN, NAN]),
    ("sinc", [0.0, -0.0, INF, -INF, 5e-324, 0.5], [1, 1, NAN, NAN, 1, 2 / PI]),
    ("sinc_partial", [0.0, -0.0, INF], [-0.0, 0.0, NAN]),
    ("atan_partial", [0.0, INF, -INF, LAST], [1, 0, 0, 0]),
]  # fmt: skip


@pytest.mark.parametrize("name, x, want", SPECIAL)
def test_special_values(name, x, want):
    for v, w, g in zip(x, want, run(name, np.array(x)), strict=True):
        assert _same(g, w), (name, v, g)


def _same(a, b):
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b and math.copysign(1, a) == math.copysign(1, b)


@pytest.mark.parametrize("name", [*EXACT, "sinc_partial", "atan_partial"])
@pytest.mark.parametrize("dtype", [f64, f32])
def test_nan_stays(name, dtype):
    assert np.isnan(run(name, np.array([NAN, -NAN], dtype.numpy))).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_symmetries_hold_by_bits(dtype):
    for name, sign in (("tan", -1), ("atan", -1), ("asin", -1), ("sinc", 1), ("sinc_partial", -1)):
        x = points("asin" if name == "asin" else "atan", dtype)
        np.testing.assert_array_equal(run(name, -x), sign * run(name, x))
    y, x = pairs(dtype)
    np.testing.assert_array_equal(run("atan2", -y, x), -run("atan2", y, x))


@pytest.mark.parametrize("name, rising", [("atan", 1), ("asin", 1), ("acos", -1)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_monotone_next_to_breakpoints(name, rising, dtype):
    """Where the code changes course, no step goes the wrong way by more than an ulp."""
    for b in EXACT[name][3]:
        x = np.nextafter(dtype(b), dtype(0)) * (1 + np.finfo(dtype).eps * np.arange(-4, 5))
        y = run(name, np.unique(x[abs(x) <= 1] if name != "atan" else x).astype(dtype))
        assert (rising * np.diff(y) >= -np.spacing(np.abs(y[1:]))).all(), b


def test_sinc_is_zero_at_integers_and_exact_next_to_them():
    n = np.r_[np.arange(1.0, 200), 2.0 ** np.arange(20, 1023, 7)]
    assert (run("sinc", n) == 0).all() and (run("sinc", -n) == 0).all()
    x = np.nextafter(n[:199], 0)
    with mp.workprec(300):
        exact = [_mp_sinc(mp.mpf(float(v))) for v in x]
        assert max(ulp_errors(run("sinc", x), exact, np.float64)) <= 1.0


# -- atan2 -----------------------------------------------------------------------------------------


def pairs(dtype):
    """Magnitudes of every exponent with ratios around 1 and far from it, in all quadrants."""
    rng = np.random.default_rng(3)
    low, high = (-1074, 1024) if dtype == np.float64 else (-149, 128)
    n = 2500
    signs = lambda: rng.choice([-1.0, 1.0], n)
    x = np.ldexp(rng.uniform(1, 2, n), rng.integers(low, high, n)) * signs()
    x[: n // 3] = rng.normal(size=n // 3)
    ratio = np.ldexp(rng.uniform(1, 2, n), rng.integers(-6, 6, n)) * signs()
    ratio[::9] = np.ldexp(ratio[::9], rng.integers(-80, 80, ratio[::9].size))
    with np.errstate(over="ignore"):
        y, x = (ratio * x).astype(dtype), x.astype(dtype)
    inside = np.isfinite(y) & np.isfinite(x) & (x != 0) & (y != 0)
    return y[inside], x[inside]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_atan2_is_within_its_budget_of_mpmath(dtype):
    y, x = pairs(dtype)
    with mp.workprec(200):
        exact = [mp.atan2(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(y, x, strict=True)]
        worst = max(zip(ulp_errors(run("atan2", y, x), exact, dtype), y, x, strict=True))
    assert worst[0] <= registry()["atan2"].ulp, worst


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_atan2_follows_annex_f(dtype):
    edge = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, np.finfo(dtype).max, np.finfo(dtype).tiny,
            -np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal]  # fmt: skip
    y, x = np.array(list(itertools.product(edge, edge)), dtype).T.copy()
    want = np.array([math.atan2(a, b) for a, b in zip(y.tolist(), x.tolist(), strict=True)])
    for a, b, g, w in zip(y, x, run("atan2", y, x), want.astype(dtype), strict=True):
        by_name = {a, b} & {0.0, INF, -INF} or NAN in (a, b)
        assert _same(float(g), float(w)) or (not by_name and abs(g - w) <= np.spacing(abs(w))), (
            a,
            b,
        )


# -- derivatives -----------------------------------------------------------------------------------


def slopes(name, *args):
    """The partials of a gate, as a graph of gates."""
    b = Builder()
    dtype = from_numpy(args[0].dtype)
    inputs = [b.input(f"x{i}", dtype[len(a)]) for i, a in enumerate(args)]
    gate = registry()[name]
    found = gate.partials(gate(*inputs), *inputs)
    return run_graph(b.graph("slopes", {f"d{i}": p for i, p in enumerate(found)}), args)


SLOPES = {
    "tan": lambda x: 1 + mp.tan(x) ** 2,
    "atan": lambda x: 1 / (1 + x * x),
    "asin": lambda x: 1 / mp.sqrt((1 - x) * (1 + x)),
    "acos": lambda x: -1 / mp.sqrt((1 - x) * (1 + x)),
}


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_derivatives_are_within_4_ulp(name, dtype):
    x = points(name, dtype)
    x = x[abs(x) != 1] if name in ("asin", "acos") else x
    with mp.workprec((2200 if dtype == np.float64 else 400) if name != "tan" else 1250):
        exact = [SLOPES[name](mp.mpf(float(v))) for v in x]
        worst = max(zip(ulp_errors(slopes(name, x)[0], exact, dtype), x, strict=True))
    assert worst[0] <= 4, worst


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_derivative_of_sinc_is_within_4_units_of_its_largest_addend(dtype):
    x = points("sinc", dtype)
    x = x[(abs(x) < 1e6) & (abs(x) > 1e-60)]
    least, bits = (-1074, 53) if dtype == np.float64 else (-149, 24)
    with mp.workprec(600):
        for v, g in zip(x, slopes("sinc", x)[0], strict=True):
            u = mp.pi * mp.mpf(float(v))
            addends = mp.pi * mp.cos(u) / u, -mp.pi * mp.sin(u) / u**2
            exact = sum(addends)
            unit = max(abs(exact), *(abs(a) for a in addends)) if abs(v) > 0.5 else abs(exact)
            error = abs(mp.mpf(float(g)) - exact)
            assert error <= 4 * mp.mpf(2) ** max(mp.frexp(unit)[1] - bits, least), v


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_derivatives_of_atan2_are_within_4_ulp(dtype):
    y, x = pairs(dtype)
    by_y, by_x = slopes("atan2", y, x)
    with mp.workprec(5000 if dtype == np.float64 else 800):
        operands = [(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(y, x, strict=True)]
        for found, exact in (
            (by_y, [b / (a * a + b * b) for a, b in operands]),
            (by_x, [-a / (a * a + b * b) for a, b in operands]),
        ):
            assert max(ulp_errors(found, exact, dtype)) <= 4


def test_derivatives_at_the_edges():
    """A13: 0 at (0, 0), for all signs; A29: inf at the ends."""
    y, x = np.array([[0.0, 0.0], [0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0]]).T.copy()
    for found in slopes("atan2", y, x):
        assert (found == 0).all()
    ends = np.array([1.0, -1.0])
    assert slopes("asin", ends)[0].tolist() == [INF, INF]
    assert slopes("acos", ends)[0].tolist() == [-INF, -INF]
    assert slopes("sinc", np.array([0.0, -0.0]))[0].tolist() == [0, 0]
    assert slopes("sinc_partial", np.zeros(1))[0][0] == pytest.approx(-(PI**2) / 3)


def test_second_derivatives_by_differences():
    x = np.array([0.3, -0.7, 1.4, 2.3])
    y = np.array([1.1, 0.4, -0.9, -0.2])
    h = 1e-6
    for name in ("atan_partial", "sinc_partial"):
        quotient = (run(name, x + h) - run(name, x - h)) / (2 * h)
        np.testing.assert_allclose(slopes(name, x)[0], quotient, rtol=1e-7)
    by_y, by_x = slopes("atan2_partial", y, x)
    f = lambda a, b: run("atan2_partial", a, b)
    np.testing.assert_allclose(by_y, (f(y + h, x) - f(y - h, x)) / (2 * h), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(by_x, (f(y, x + h) - f(y, x - h)) / (2 * h), rtol=1e-7, atol=1e-9)


# -- tables ----------------------------------------------------------------------------------------

TABLES = {
    "TAN": trig.TAN, "TAN_POINTS": trig.TAN_POINTS, "PI_16": trig.PI_16, "SIN_PI": trig.SIN_PI,
    "COS_PI": trig.COS_PI, "SINC_SLOPE": trig.SINC_SLOPE, "INVERSE_PI": trig.INVERSE_PI,
    "ATAN": arc.ATAN, "ATAN_POINTS": arc.ATAN_POINTS, "ATAN2_POINTS": arc.ATAN2_POINTS,
    "ASIN": arc.ASIN,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_what_the_generator_makes(name):
    with mp.workprec(200):
        for dtype in (f64, f32):
            made = generate.tables()[f"{name}_{dtype.name.upper()}"]()[0]
            made = np.array(made, dtype=float)
            held = np.array(TABLES[name][dtype]).astype(dtype.numpy)
            assert made.tolist() == held.astype(float).tolist()
