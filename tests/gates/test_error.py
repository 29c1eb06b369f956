"""The error function and its kin: mpmath judges f64, and the f64 bodies judge f32."""

import itertools
import math

import mpmath as mp
import numpy as np
import pytest

from graphc.gates.bodies import error as bodies
from graphc.gates.bodies import error_tables, generate
from graphc.gates.bodies.fits import error as fits
from graphc.gates.gate import registry
from graphc.ir.reference import run_scalar
from graphc.ir.types import f32, f64, from_numpy
from tests.transforms.test_adjoint import gradient

INF, NAN = math.inf, math.nan
PRECISION = 140


def run(name, x):
    return run_scalar(registry()[name].body_graph((from_numpy(x.dtype),)), x)


# -- the exact functions ---------------------------------------------------------------------------


def normal_tail(x):
    return mp.erfc(x / mp.sqrt(2)) / 2


def density(x):
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


def log_ndtr(x):
    return mp.log1p(-normal_tail(x)) if x > 0 else mp.log(normal_tail(-x))


def inverse(x):
    """erfinv by Halley's steps from a float of it."""
    a = abs(x)
    if a < mp.mpf(2) ** -40:
        return x * mp.sqrt(mp.pi) / 2 * (1 + mp.pi * x * x / 12)
    y = mp.mpf(float(run("erfinv", np.array([float(a)]))[0]))
    for _ in range(2):
        miss = mp.erf(y) - a if a < 0.5 else (1 - a) - mp.erfc(y)
        step = miss * mp.sqrt(mp.pi) / 2 * mp.exp(y * y)
        y -= step / (1 + y * step)
    return mp.sign(x) * y


EXACT = {  # the function, and the range outside of which it is constant, x or not defined
    "erf": (mp.erf, (-6.5, 6.5)),
    "erf_partial": (lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-x * x), (-27.4, 27.4)),
    "erfc": (mp.erfc, (-6.5, 27.4)),
    "ndtr": (lambda x: normal_tail(-x), (-38.8, 9.0)),
    "ndtr_partial": (density, (-38.8, 38.8)),
    "gelu": (lambda x: x * normal_tail(-x), (-38.9, 10.0)),
    "gelu_partial": (lambda x: normal_tail(-x) + x * density(x), (-38.9, 10.0)),
    "log_ndtr": (log_ndtr, (-300.0, 38.7)),
    "log_ndtr_partial": (lambda x: density(x) / normal_tail(-x), (-300.0, 38.8)),
    "erfinv": (inverse, (-1.0, 1.0)),
    "erfinv_partial": (lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(inverse(x) ** 2), (-1.0, 1.0)),
}
ODD = ("erf", "erfinv")
EVEN = ("erf_partial", "ndtr_partial", "erfinv_partial")


def unit_of(name, x, exact):
    """What an ulp is counted of: the value, but where that crosses zero its largest addend."""
    if name == "gelu_partial":
        return max(abs(exact), normal_tail(-x), abs(x) * density(x))
    return abs(exact)


def breakpoints(name, dtype):
    """Where the intervals of the tables meet, and where a body clamps or changes its form."""
    ends = [i.item() for i in np.array([0.5, 27.31, 38.6875]) if dtype is f64]
    if name == "erf":
        return [bodies.ERF_STEP[dtype] * (i + 0.5) for i in range(16)] + [5.92]
    u = [(4 + i % 4) * 2.0 ** (i // 4 - 1) for i in range(1, 16)]
    if name.startswith("erfinv"):
        step, shift = bodies.ERFINV_U[dtype]
        return [-math.expm1(-(v - shift) / step) for v in u if v > shift] + [0.5]
    scale = 1 if name.startswith("erf") else math.sqrt(2)
    return [scale * (v - 2) / bodies.ERFCX_STEP[dtype] for v in u] + ends + [0.5448]


def points(name, dtype=f64, count=700):
    """Every exponent down to tiny ones, the range evenly, the neighbours of the breakpoints."""
    rng = np.random.default_rng(3)
    low, high = EXACT[name][1]
    signs = rng.choice([-1.0, 1.0], count)
    by_exponent = np.ldexp(rng.uniform(1, 2, count), rng.integers(-70, 9, count)) * signs
    tiny = np.ldexp(rng.uniform(1, 2, 40), rng.integers(-1074, -70, 40))
    near_one = signs * (1 - np.ldexp(rng.uniform(0.5, 1, count), rng.integers(-52, 0, count)))
    breaks = np.array(breakpoints(name, dtype))[:, None]
    dense = breaks * (1 + 2.0**-52 * np.arange(-4, 5))
    wider = breaks * (1 + 2.0**-16 * np.arange(-4, 5))
    parts = [by_exponent, tiny, rng.uniform(low, high, count), dense, -dense, wider, -wider]
    parts += [near_one] if name.startswith("erfinv") else [rng.normal(size=count)]
    x = np.concatenate([p.ravel() for p in parts]).astype(dtype.numpy)
    return x[(low < x) & (x < high)]


def ulp_errors(name, x, got, bits=53, least=-1074):
    for v, g in zip(x, got, strict=True):
        exact = EXACT[name][0](mp.mpf(float(v)))
        unit = unit_of(name, mp.mpf(float(v)), exact)
        exponent = mp.frexp(unit)[1] if unit else least
        yield float(abs(mp.mpf(float(g)) - exact) / mp.mpf(2) ** max(exponent - bits, least))


@pytest.mark.parametrize("name", EXACT)
def test_f64_is_within_its_budget_of_mpmath(name):
    x = points(name)
    with mp.workprec(PRECISION):
        worst = max(zip(ulp_errors(name, x, run(name, x)), x, strict=True))
    assert worst[0] <= registry()[name].ulp, worst


@pytest.mark.parametrize("name", EXACT)
def test_f32_is_within_its_budget_of_mpmath(name):
    x = points(name, f32, 300)
    x = x[abs(x) < (1.0 if name.startswith("erfinv") else 400.0)]
    with mp.workprec(100):
        worst = max(zip(ulp_errors(name, x, run(name, x), 24, -149), x, strict=True))
    assert worst[0] <= registry()[name].ulp, worst


@pytest.mark.parametrize("name", EXACT)
def test_f32_is_within_its_budget_of_f64(name):
    x = np.arange(0, 2**32, 9973, dtype=np.uint64).astype(np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        want = run(name, x.astype(np.float64))
        rounded = want.astype(np.float32)
        got = run(name, x)
        unit = abs(want)
        if name == "gelu_partial":
            unit = np.fmax(unit, abs(x * run("ndtr_partial", x.astype(np.float64))))
        ulp = np.ldexp(1.0, np.maximum(np.frexp(unit)[1] - 24, -149))
        error = abs(got - want) / ulp
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    error[(got == rounded) | np.isnan(got)] = 0.0
    assert error.max() <= registry()[name].ulp, x[error.argmax()]


# -- special values and symmetries -----------------------------------------------------------------

SPECIAL = [
    ("erf", [0.0, -0.0, 5e-324, INF, -INF, 6.0, -1e300], [0.0, -0.0, 5e-324, 1, -1, 1, -1]),
    ("erf_partial", [0.0, INF, -INF, 1e300], [1.1283791670955126, 0, 0, 0]),
    ("erfc", [0.0, -0.0, INF, -INF, 1e300, -7.0, 1e-300], [1, 1, 0, 2, 0, 2, 1]),
    ("erfc", [27.2260, 27.2261], [5e-324, 0]),
    ("ndtr", [0.0, -0.0, INF, -INF, 1e300, -1e300, 9.0], [0.5, 0.5, 1, 0, 1, 0, 1]),
    ("ndtr_partial", [0.0, INF, -INF, 1e300], [0.3989422804014327, 0, 0, 0]),
    ("gelu", [0.0, -0.0, INF, -INF, 1e300, -1e300, 5.0e-300],
     [0.0, -0.0, INF, -0.0, 1e300, -0.0, 2.5e-300]),
    ("gelu_partial", [0.0, -0.0, INF, -INF, 1e300], [0.5, 0.5, 1, -0.0, 1]),
    ("log_ndtr", [0.0, -0.0, INF, -INF, -1e200, 50.0],
     [-math.log(2), -math.log(2), 0.0, -INF, -INF, 0.0]),
    ("log_ndtr_partial", [0.0, INF, -INF, -1e200, -1e9],
     [0.7978845608028654, 0.0, INF, 1e200, 1e9]),
    ("erfinv", [0.0, -0.0, 1.0, -1.0, 1.0000000000000002, -2.0, INF, -INF],
     [0.0, -0.0, INF, -INF, NAN, NAN, NAN, NAN]),
    ("erfinv_partial", [0.0, 1.0, -1.0, 2.0, -INF], [0.886226925452758, INF, INF, NAN, NAN]),
]  # fmt: skip


@pytest.mark.parametrize("name, x, want", SPECIAL)
def test_special_values(name, x, want):
    for v, w, g in zip(x, want, run(name, np.array(x)), strict=True):
        assert (math.isnan(w) and math.isnan(g)) or (
            g == w and math.copysign(1, g) == math.copysign(1, w)
        ), (name, v, g)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [f64, f32])
def test_nan_stays(name, dtype):
    assert np.isnan(run(name, np.array([NAN, -NAN], dtype.numpy))).all()


@pytest.mark.parametrize("name", ODD + EVEN)
@pytest.mark.parametrize("dtype", [f64, f32])
def test_symmetries_hold_by_bits(name, dtype):
    x = points(name, dtype, 200)
    turned = run(name, -x)
    assert np.array_equal(run(name, x), -turned if name in ODD else turned)


@pytest.mark.parametrize("dtype", [f64, f32])
def test_tails_reach_the_least_subnormal(dtype):
    """Among subnormals the results are a count of the least one: right but for the nearest."""
    least = np.ldexp(1.0, -1074 if dtype is f64 else -149)
    low, high = (26.0, 27.3) if dtype is f64 else (9.1, 10.2)
    x = np.linspace(low, high, 300).astype(dtype.numpy)
    with mp.workprec(PRECISION):
        for name in ("erfc", "ndtr"):
            at = x if name == "erfc" else (-math.sqrt(2) * x).astype(dtype.numpy)
            exact = np.array([int(EXACT[name][0](mp.mpf(float(v))) / least + 0.5) for v in at])
            got = run(name, at).astype(np.float64) / least
            assert (abs(got - exact) <= 1 + exact * 2.0 ** (-50 if dtype is f64 else -21)).all()


@pytest.mark.parametrize("name", ["erf", "erfc", "ndtr", "log_ndtr", "erfinv"])
def test_monotone(name):
    low, high = EXACT[name][1]
    got = run(name, np.linspace(low, high, 40001))
    steps = np.diff(got)
    assert (steps <= 0).all() if name == "erfc" else (steps >= 0).all()


def test_far_tail_of_log_ndtr():
    x = -np.logspace(1.5, 150, 200)
    got, ratio = run("log_ndtr", x), run("log_ndtr_partial", x)
    with mp.workprec(300):
        for v, g, p in zip(map(mp.mpf, map(float, x)), got, ratio, strict=True):
            z = 1 / v**2
            series = sum((-z) ** k * mp.fac2(2 * k - 1) for k in range(12))
            exact = -v * v / 2 - mp.log(-v * mp.sqrt(2 * mp.pi)) + mp.log(series)
            assert abs(g - exact) <= 2 * abs(exact) * 2.0**-52
            assert abs(p - -v / series) <= 4 * p * 2.0**-52


# -- derivatives -----------------------------------------------------------------------------------

FIRST = {
    "erf": "erf_partial",
    "erfc": None,
    "ndtr": "ndtr_partial",
    "gelu": "gelu_partial",
    "log_ndtr": "log_ndtr_partial",
    "erfinv": "erfinv_partial",
}


@pytest.mark.parametrize("name", FIRST)
def test_gradients_are_the_derivative_gates(name):
    x = points(name, f64, 60)
    want = run(FIRST[name], x) if FIRST[name] else -run("erf_partial", x)
    assert np.array_equal(gradient(registry()[name], x)[0], want)


def ratio_second(x):
    p = EXACT["log_ndtr_partial"][0](x)
    return -p * (x + p)


SECOND = {  # of the derivative gate: the function, and the range in which it has 1e-12 of itself
    "erf_partial": (lambda x: -2 * x * EXACT["erf_partial"][0](x), (-26, 26)),
    "ndtr_partial": (lambda x: -x * density(x), (-37, 37)),
    "gelu_partial": (lambda x: (2 - x * x) * density(x), (-37, 37)),
    "log_ndtr_partial": (ratio_second, (-200, 37)),
    "erfinv_partial": (lambda x: 2 * inverse(x) * EXACT["erfinv_partial"][0](x) ** 2, (-1, 1)),
}


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives(name):
    exact, (low, high) = SECOND[name]
    x = np.random.default_rng(9).uniform(low, high, 400)
    found = gradient(registry()[name], x)[0]
    with mp.workprec(300):
        for v, g in zip(x, found, strict=True):
            want = exact(mp.mpf(float(v)))
            assert abs(g - want) <= 1e-12 * abs(want), v


@pytest.mark.parametrize("name", ["erf_partial", "ndtr_partial", "gelu_partial"])
def test_second_derivatives_vanish_at_infinity(name):
    found = gradient(registry()[name], np.array([INF, -INF, 1e200, -1e200]))[0]
    assert found.tolist() == [0.0] * 4


def test_curvature_of_log_ndtr_at_the_ends():
    found = gradient(registry()["log_ndtr_partial"], np.array([-INF, -1e200, -1e9, 40.0, INF]))[0]
    assert found.tolist() == [-1.0, -1.0, -1.0, 0.0, 0.0]


# -- shape of the code -----------------------------------------------------------------------------

MOST_INSTRUCTIONS = {
    "erf": 38, "erf_partial": 28, "erfc": 68, "ndtr": 70, "ndtr_partial": 28, "gelu": 76,
    "gelu_partial": 68, "log_ndtr": 128, "log_ndtr_partial": 90, "erfinv": 94,
    "erfinv_partial": 94,
}  # fmt: skip


@pytest.mark.parametrize("name, dtype", [*itertools.product(MOST_INSTRUCTIONS, (f64, f32))])
def test_bodies_stay_short(name, dtype):
    code = registry()[name].body_graph((dtype,)).code
    assert len([i for i in code if i.op not in ("const", "bitcast")]) <= MOST_INSTRUCTIONS[name]
    assert not [i for i in code if i.op in ("call", "rare")]


CHEAP = ["ERF_F32", "ERFCX_F32", "ERFINV_NEAR_F32", "INVERSE_SLOPE_NEAR_F64"]


@pytest.mark.parametrize("name", CHEAP)
def test_tables_are_what_the_generator_makes(name):
    kind = np.float32 if name.endswith("F32") else np.float64
    with mp.workprec(200):
        made, _ = fits.TABLES[name]()
    as_floats = np.array(
        [[float(v) for v in row] if isinstance(row, list) else float(row) for row in made]
    )
    assert np.array_equal(as_floats, np.array(getattr(error_tables, name), kind).astype(np.float64))


@pytest.mark.parametrize("name", ["SLOPE", "SQRT_HALF", "NORMAL"])
@pytest.mark.parametrize("dtype", [f64, f32])
def test_constants_are_what_the_generator_makes(name, dtype):
    with mp.workprec(200):
        made, _ = fits.TABLES[f"{name}_{dtype.name.upper()}"]()
    held = np.array(getattr(bodies, name)[dtype], dtype.numpy)
    assert np.array_equal(held, [float(v) for v in made])


def test_steps_of_the_tables_are_those_of_the_bodies():
    for dtype in (f64, f32):
        assert bodies.ERF_STEP[dtype] == fits.ERF_STEP[dtype.name]
        assert bodies.ERFCX_STEP[dtype] == fits.ERFCX_STEP[dtype.name]
        assert bodies.ERFINV_U[dtype] == fits.ERFINV_U[dtype.name]


def test_rows_are_printed_as_tuples():
    assert generate.row_lines([mp.mpf(1), mp.mpf(2)], lambda v: str(float(v))) == [
        "    (", "        1.0, 2.0,", "    ),",
    ]  # fmt: skip
