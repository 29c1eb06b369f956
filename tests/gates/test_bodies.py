"""The vector-math bodies, run by the interpreter: mpmath judges f64, NumPy's f64 judges f32."""

import itertools
import math
from functools import partial

import mpmath as mp
import numpy as np
import pytest

from graphc.gates.gate import registry
from graphc.ir.reference import run_graph, run_scalar
from graphc.ir.text import parse_graph
from graphc.ir.types import f32, f64, from_numpy, i32, i64
from graphc.runtime.kernel import compile_graph

INF, NAN = math.inf, math.nan
LN2 = math.log(2.0)


def run(name, *args):
    dtypes = tuple(from_numpy(a.dtype) for a in args)
    return run_scalar(registry()[name].body_graph(dtypes), *args)


# Each gate: the exact function in mpmath, the same in NumPy's f64, and points where its code
# changes course.


def _mp_sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def _mp_softplus(x):
    return mp.log1p(mp.exp(x))


def _np_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e / (1 + e), 1 / (1 + e))


def _np_tanh(x):
    e = np.expm1(-2 * np.abs(x))
    return np.copysign(e / (e + 2), x)


def _np_bell(e):
    return e / (1 + e) ** 2


EXACT = {
    "exp": (mp.exp, np.exp, [k * LN2 / 2 for k in range(-9, 10)] + [709.78, -708.4, -745.1]),
    "expm1": (
        mp.expm1,
        np.expm1,
        [k * LN2 / 2 for k in range(-9, 10)] + [1e-18, -40.0, 37.0, 709.78],
    ),
    "log": (mp.log, np.log, [0.5**0.5, 1.0, 2**0.5, 2.0**-1022, 2.0**0.5 * 2**60]),
    "log1p": (
        mp.log1p,
        np.log1p,
        [0.5**0.5 - 1, 1e-18, -1e-18, 2**0.5 - 1, 2.0**53, -1 + 1e-12, -(2.0**-54)],
    ),
    "sin": (mp.sin, np.sin, [k * math.pi / 4 for k in range(-9, 10)] + [1.6e6, 1e22]),
    "cos": (mp.cos, np.cos, [k * math.pi / 4 for k in range(-9, 10)] + [1.6e6, 1e22]),
    "tanh": (mp.tanh, _np_tanh, [k * LN2 / 4 for k in range(10)] + [18.2, 18.7, 19.1, 22.5]),
    "tanh_partial": (
        lambda x: mp.sech(x) ** 2,
        lambda x: 4 * _np_bell(np.exp(-2 * np.abs(x))),
        [k * LN2 / 4 for k in range(10)] + [372.0, -372.5],
    ),
    "sigmoid": (_mp_sigmoid, _np_sigmoid, [0.0, 36.7, 37.4, 40.0, -708.4, -745.1]),
    "sigmoid_partial": (
        lambda x: mp.sech(x / 2) ** 2 / 4,
        lambda x: _np_bell(np.exp(-np.abs(x))),
        [0.0, LN2 / 2, 708.4, -745.1],
    ),
    "softplus": (
        _mp_softplus,
        lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
        [0.0, math.log(0.41421356), -LN2, 36.7, -36.7, -708.4, -745.1],
    ),
}
ARGUMENTS = {"log": (0.0, INF), "log1p": (-1.0, INF)}


def points(name):
    """About 3000: every exponent, the range where the function lives, and the neighbours of its
    breakpoints.
    """
    rng = np.random.default_rng(7)
    by_exponent = np.ldexp(rng.uniform(1, 2, 2046), np.arange(-1022, 1024)) * rng.choice(
        [-1, 1], 2046
    )
    subnormal = rng.integers(1, 2**52, 20).view(np.float64)
    near_one = np.ldexp(rng.uniform(1, 2, 600), rng.integers(-12, 10, 600)) * rng.choice(
        [-1, 1], 600
    )
    breaks = np.array(EXACT[name][2])
    steps = np.arange(-8, 9)
    dense = (breaks.view(np.int64)[:, None] + steps).view(np.float64).ravel()
    wider = (breaks[:, None] * (1 + 2.0**-20 * steps)).ravel()
    x = np.concatenate([by_exponent, subnormal, near_one, dense, wider])
    low, high = ARGUMENTS.get(name, (-INF, INF))
    if low == 0.0:
        x = abs(x)
    return x[(low < x) & (x < high)]


def ulp_errors(got, exact, dtype):
    """|got - exact| in units of the last place of exact; inf where one overflows and the other must
    not.
    """
    bits, least = (53, -1074) if dtype == np.float64 else (24, -149)
    overflow = mp.mpf(2) ** (1024 if bits == 53 else 128) * (1 - mp.mpf(2) ** (-bits - 1))
    for g, e in zip(got, exact, strict=True):
        if abs(e) >= overflow or not np.isfinite(g):
            yield (
                0.0
                if abs(e) >= overflow * (1 - mp.mpf(2) ** -bits) and g == (INF if e > 0 else -INF)
                else INF
            )
        else:
            exponent = mp.frexp(e)[1] if e else least
            yield float(abs(mp.mpf(float(g)) - e) / mp.mpf(2) ** max(exponent - bits, least))


def precision_for(name):
    return 1250 if name in ("sin", "cos") else 160


@pytest.mark.parametrize("name", EXACT)
def test_f64_is_within_its_budget_of_mpmath(name):
    x = points(name)
    reference = EXACT[name][0]
    # Beyond these all is 0, 1, x or inf; mpmath would take its time to say so.
    if name not in ("log", "log1p", "sin", "cos"):
        x = x[abs(x) < 2000]
    with mp.workprec(precision_for(name)):
        exact = [reference(mp.mpf(float(v))) for v in x]
        worst = max(zip(ulp_errors(run(name, x), exact, np.float64), x, strict=True))
    assert worst[0] <= registry()[name].ulp, worst


@pytest.mark.parametrize("name", EXACT)
def test_f32_is_within_its_budget_of_f64(name):
    stride = 40009 if name in ("sin", "cos") else 1931
    x = np.arange(0, 2**32, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
    worst = (0.0, 0.0)
    for part in np.array_split(x, max(1, x.size >> 16)):
        with np.errstate(all="ignore"):
            want = EXACT[name][1](part.astype(np.float64))
            rounded = want.astype(np.float32)
            got = run(name, part)
            ulp = np.ldexp(1.0, np.maximum(np.frexp(want)[1] - 24, -149))
            error = np.abs(got.astype(np.float64) - want) / ulp
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        error[(got == rounded) | np.isnan(got)] = 0.0  # inf; finite ones are within half an ulp
        worst = max(worst, (error.max(), part[error.argmax()]))
    assert worst[0] <= registry()[name].ulp, worst


SPECIAL = [
    # name, arguments, results
    ("exp", [0.0, -0.0, INF, -INF, 709.782712893384, 709.7827128933841, -745.2],
     [1, 1, INF, 0, None, INF, 0]),
    ("expm1", [0.0, -0.0, INF, -INF, 5e-324, -5e-324, -800.0, 709.8],
     [0.0, -0.0, INF, -1, 5e-324, -5e-324, -1, INF]),
    ("log", [0.0, -0.0, INF, -INF, 1.0, -1.0, -5e-324, 5e-324],
     [-INF, -INF, INF, NAN, 0, NAN, NAN, math.log(5e-324)]),
    ("log1p", [0.0, -0.0, INF, -INF, -1.0, -2.0, 5e-324, -5e-324],
     [0.0, -0.0, INF, NAN, -INF, NAN, 5e-324, -5e-324]),
    ("log1p", [1.7976931348623157e308], [709.782712893384]),
    ("sin", [0.0, -0.0, INF, -INF, 5e-324, -1e-300], [0.0, -0.0, NAN, NAN, 5e-324, -1e-300]),
    ("sin", [1e22, -1e22, 1.7976931348623157e308],
     [-0.8522008497671888, 0.8522008497671888, 0.004961954789184062]),
    ("cos", [0.0, -0.0, INF, -INF, 1e22, 1.7976931348623157e308],
     [1, 1, NAN, NAN, 0.523214785395139, -0.9999876894265599]),
    ("tanh", [0.0, -0.0, INF, -INF, 5e-324, -5e-324, 1e300],
     [0.0, -0.0, 1, -1, 5e-324, -5e-324, 1]),
    ("tanh_partial", [0.0, -0.0, INF, -INF, 1e300], [1, 1, 0, 0, 0]),
    ("sigmoid", [0.0, -0.0, INF, -INF, 1e300, -1e300, -745.0], [0.5, 0.5, 1, 0, 1, 0, 5e-324]),
    ("sigmoid_partial", [0.0, INF, -INF, -745.0], [0.25, 0, 0, 5e-324]),
    ("softplus", [0.0, -0.0, INF, -INF, 1e300, -1e300, -745.0],
     [LN2, LN2, INF, 0, 1e300, 0, 5e-324]),
]  # fmt: skip


@pytest.mark.parametrize("name, x, want", SPECIAL)
def test_special_values(name, x, want):
    for v, w, g in zip(x, want, run(name, np.array(x)), strict=True):
        if w is not None:
            assert _same(g, w), (name, v, g)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [f64, f32])
def test_nan_stays(name, dtype):
    assert np.isnan(run(name, np.array([NAN, -NAN], dtype.numpy))).all()


def _same(a, b):
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b and math.copysign(1, a) == math.copysign(1, b)


def test_overflow_comes_after_the_last_finite_value():
    last = np.array([709.782712893384, 709.7827128933841])
    assert np.isfinite(run("exp", last)).tolist() == [True, False]
    last32 = np.array([88.72283, 88.72284], np.float32)
    assert np.isfinite(run("exp", last32)).tolist() == [True, False]
    assert np.isfinite(run("expm1", last32)).tolist() == [True, False]


def test_nearest_double_to_a_multiple_of_half_pi():
    x = np.array([6381956970095103 * 2.0**797])
    with mp.workprec(1400):
        exact = mp.cos(mp.mpf(float(x[0])))
        assert max(ulp_errors(run("cos", x), [exact], np.float64)) <= 1.0


def test_arguments_next_to_multiples_of_half_pi():
    rng = np.random.default_rng(5)
    with mp.workprec(1400):
        k = [*range(1, 200), *(int(v) for v in rng.integers(200, 2**21, 300))]
        k += [int(mp.mpf(2) ** int(e) * rng.uniform(1, 2)) for e in range(20, 1020, 4)]
        x = np.array([float(v * mp.pi / 2) for v in k])
        for name, f in (("sin", mp.sin), ("cos", mp.cos)):
            exact = [f(mp.mpf(float(v))) for v in x]
            assert max(ulp_errors(run(name, x), exact, np.float64)) <= 1.0


# -- power -----------------------------------------------------------------------------------------


def power_points():
    rng = np.random.default_rng(11)
    n = 700
    bases = np.concatenate(
        [
            np.ldexp(rng.uniform(1, 2, n), rng.integers(-1074, 1023, n)),
            np.exp(rng.uniform(-2, 2, n)),
            1 + np.ldexp(rng.uniform(-1, 1, n), rng.integers(-40, -1, n)),
            np.ldexp(
                rng.choice([0.5**0.5, 2**0.5], n) * (1 + 2.0**-50 * rng.integers(-8, 9, n)), 3
            ),
        ]
    )
    exponents = rng.uniform(-744, 709, bases.size) / np.log(bases)
    keep = np.isfinite(exponents)
    small = rng.integers(-3, 4, 300).astype(float)
    return np.r_[bases[keep], bases[:300]], np.r_[exponents[keep], small]


def test_power_f64_is_within_its_budget_of_mpmath():
    x, y = power_points()
    with mp.workprec(200):
        exact = [mp.power(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(x, y, strict=True)]
        assert max(ulp_errors(run("power", x, y), exact, np.float64)) <= registry()["power"].ulp


def test_power_f32_is_within_its_budget_of_mpmath():
    with np.errstate(over="ignore", under="ignore"):
        x, y = (v.astype(np.float32) for v in power_points())
    inside = (x > 0) & np.isfinite(x) & np.isfinite(y)
    x, y = x[inside], y[inside]
    with mp.workprec(100):
        exact = [mp.power(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(x, y, strict=True)]
        assert max(ulp_errors(run("power", x, y), exact, np.float32)) <= registry()["power"].ulp


def annex_f(x, y):
    """pow of C99 Annex F, from its text: x^y for the arguments which that treats by name, else
    None.
    """
    odd = math.isfinite(y) and y == math.floor(y) and math.fmod(y, 2) != 0
    whole = math.isinf(y) or y == math.floor(y) if not math.isnan(y) else False
    if x == 1 or y == 0:
        return 1.0
    if math.isnan(x) or math.isnan(y):
        return NAN
    if x == -1 and math.isinf(y):
        return 1.0
    if x == 0:
        size = INF if y < 0 else 0.0
        return math.copysign(size, x) if odd else size
    if math.isinf(y):
        return INF if (abs(x) > 1) == (y > 0) else 0.0
    if math.isinf(x):
        size = INF if y > 0 else 0.0
        return math.copysign(size, x) if odd else size
    if x < 0 and not whole:
        return NAN
    return None


SPECIALS = [
    0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, -8.0, 1 / 3, 1.5, -1.5, 2.0**53,
    -(2.0**53) + 1,
    INF, -INF, NAN, 1e-300, -1e-300, 5e-324, 1e300, -1e300, 1.7976931348623157e308, 1 - 2.0**-53,
    1 + 2.0**-52,
]  # fmt: skip


@pytest.mark.parametrize("dtype", [f64, f32])
def test_power_follows_annex_f(dtype):
    with np.errstate(over="ignore"):
        pairs = np.array(list(itertools.product(SPECIALS, SPECIALS))).astype(dtype.numpy)
    got = run("power", pairs[:, 0].copy(), pairs[:, 1].copy())
    for (x, y), g in zip(pairs.astype(np.float64).tolist(), got.tolist(), strict=True):
        want = annex_f(x, y)
        if want is not None:
            assert _same(g, want), (x, y, g)
        else:
            negative = x < 0 and math.fmod(y, 2) != 0
            assert math.copysign(1, g) == (-1 if negative else 1), (x, y, g)


def test_power_deviates_from_numpy_at_minus_infinity():
    assert run("power", np.array([-INF]), np.array([0.5]))[0] == INF


@pytest.mark.parametrize("dtype", [i64, i32])
def test_integer_power_wraps(dtype):
    rng = np.random.default_rng(3)
    width = 8 * dtype.itemsize
    x = np.r_[
        rng.integers(-20, 21, 500), rng.integers(-(2 ** (width - 1)), 2 ** (width - 1) - 1, 500)
    ]
    y = np.r_[rng.integers(-5, 80, 500), rng.integers(0, 2 ** (width - 1) - 1, 500)]
    got = run("power", x.astype(dtype.numpy), y.astype(dtype.numpy))
    for a, b, g in zip(x.tolist(), y.tolist(), got.tolist(), strict=True):
        if b < 0:
            want = a ** (-b) if a in (1, -1) else 0
        else:
            want = (pow(a, b, 2**width) + 2 ** (width - 1)) % 2**width - 2 ** (width - 1)
        assert g == want, (a, b)


@pytest.mark.parametrize("dtype", [f64, f32])
def test_sine_and_cosine_of_large_arguments_are_one_routine(dtype):
    """sin(x + n pi/2) for n of either sign and x of every exponent from 2^7 on, and its neighbours
    of the multiples of pi/2, which are the hardest.
    """
    rng = np.random.default_rng(5)
    exponents = np.arange(7, np.finfo(dtype.numpy).maxexp)
    spread = np.ldexp(rng.uniform(1, 2, exponents.size), exponents)
    multiples = np.rint(2.0 ** rng.uniform(10, 40, 200)) * (math.pi / 2)
    x = np.concatenate([spread, -spread, multiples, -multiples]).astype(dtype.numpy)
    with mp.workprec(200):
        sines, cosines = ([f(mp.mpf(float(v))) for v in x] for f in (mp.sin, mp.cos))
        negative = lambda values: [-v for v in values]
        for n in (-6, -3, -2, -1, 0, 1, 2, 3, 4, 1001):
            want = (sines, cosines, negative(sines), negative(cosines))[n % 4]
            got = run("sin_huge", x, np.full_like(x, n))
            assert max(ulp_errors(got, want, dtype.numpy)) < 1, n


def test_a_value_and_its_gradient_share_the_routine_for_large_arguments():
    import graphc
    from graphc.pipeline import Options, run_stages

    def waves(x: graphc.f64["n"]):
        return np.sin(x).sum()

    text = run_stages(graphc.graph(waves).graph, Options(wrt=("x",)), last="emit")
    assert len([line for line in text.splitlines() if "gc.rare." in line and "define" in line]) == 1


# -- shape of the code -----------------------------------------------------------------------------

MOST_INSTRUCTIONS = {
    "exp": 28, "expm1": 42, "log": 40, "log1p": 52, "sin": 40, "cos": 40, "tanh": 48,
    "tanh_partial": 32,
    "sigmoid": 42, "sigmoid_partial": 32, "softplus": 66, "power": 130,
}  # fmt: skip


@pytest.mark.parametrize("name", MOST_INSTRUCTIONS)
def test_bodies_stay_short(name):
    gate = registry()[name]
    for dtype in (f64, f32):
        code = gate.body_graph((dtype,) * len(gate.params)).code
        counted = [i for i in code if i.op not in ("const", "bitcast")]
        assert len(counted) <= MOST_INSTRUCTIONS[name]
        assert not [i for i in code if i.op == "call"]


def test_tables_are_what_the_generator_makes():
    from graphc.gates.bodies import exp, generate, log_tables, trig

    with mp.workprec(200):
        for name, table in (
            ("EXP_F32", exp.EXP[f32]),
            ("LN_P_F64", log_tables.LN_P[f64]),
            ("SIN_F32", trig.SIN[f32]),
        ):
            made = [float(v) for v in generate.tables()[name]()[0]]
            held = np.array(table).astype(np.float32 if name.endswith("F32") else np.float64)
            assert made == held.tolist()
        assert tuple(generate.pi_words(len(trig.WORDS), trig.POINT)) == trig.WORDS


def test_the_power_of_nan_is_nan_whatever_its_magnitude_is_said_to_be():
    """The sign bit of a NaN, which nobody promises, was given to the magnitude."""
    graph = parse_graph(
        "graph g(x: f64[n], y: f64[n], m: f64[n])\n"
        "  %3 = power_special %x, %y, %m : f64[n]\n"
        "return p=%3\n"
    )
    nan, y = np.copysign(np.nan, [1.0, -1.0, -1.0]), np.array([3.0, 3.0, 0.0])
    for run in (compile_graph(graph), partial(run_graph, graph)):
        (power,) = run([nan, y, np.full(3, 2.0)])
        assert np.isnan(power[:2]).all() and power[2] == 1.0
