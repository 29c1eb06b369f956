"""Hyperbolic functions, their inverses and the logistic family: mpmath judges values and slopes."""

import math

import mpmath as mp
import numpy as np
import pytest

from graphc.gates.bodies import area, generate, hyperbolic
from graphc.gates.bodies.fits import hyperbolic as fits
from graphc.gates.gate import registry
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph, run_scalar
from graphc.ir.scalar import Scalar, ScalarBuilder
from graphc.ir.types import f32, f64, from_numpy
from graphc.transforms.adjoint import pull_back

INF, NAN = math.inf, math.nan
LN2 = math.log(2.0)


def run(name, x):
    return run_scalar(registry()[name].body_graph((from_numpy(x.dtype),)), x)


def _sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def _slope(x):
    return mp.sech(x / 2) ** 2 / 4


def _silu_slope(x):
    return _sigmoid(x) + x * _slope(x)


def _silu_largest(x):
    """The larger of the two addends of silu', which cancel near -1.28."""
    return max(_sigmoid(x), abs(x) * _slope(x))


# Each gate: the exact function, its derivative, where its code changes course, and its arguments.
STEPS = [k * LN2 / 2 for k in range(-9, 10)]
ENDS = [-708.4, -745.1, -751.8, 708.4, 36.7, 37.4, -87.3, -103.9]
EXACT = {
    "sinh": (mp.sinh, mp.cosh, [*STEPS, 18.37, 18.54, 710.4758, -89.4159], (-INF, INF)),
    "cosh": (mp.cosh, mp.sinh, [*STEPS, 18.37, 18.54, 710.4758, -89.4159], (-INF, INF)),
    "tanh": (
        mp.tanh,
        lambda x: mp.sech(x) ** 2,
        [*((k + 0.5) * 1.27 for k in range(16)), *((k + 0.5) * 1.205 for k in range(8)), 19.0616,
         9.011, 372.5],
        (-INF, INF),
    ),
    "asinh": (
        mp.asinh,
        lambda x: 1 / mp.sqrt(1 + x * x),
        [5 / 12, 4 / 3, 35 / 12, 2.0**27, 2.0**31, 1e154, 1.7e308],
        (-INF, INF),
    ),
    "acosh": (
        mp.acosh,
        lambda x: 1 / mp.sqrt((x - 1) * (x + 1)),
        [1.0, 13 / 12, 5 / 3, 37 / 12, 2.0**27, 2.0**31, 1e154, 1.7e308],
        (1.0, INF),
    ),
    "atanh": (
        mp.atanh,
        lambda x: 1 / ((1 - x) * (1 + x)),
        [0.25, 0.556, 0.775, 0.887, 1 - 2.0**-20, 1 - 2.0**-50],
        (-1.0, 1.0),
    ),
    "sigmoid": (_sigmoid, _slope, [*STEPS, *ENDS], (-INF, INF)),
    "silu": (lambda x: x * _sigmoid(x), _silu_slope, [*STEPS, *ENDS, -1.27846454], (-INF, INF)),
    "softplus": (lambda x: mp.log1p(mp.exp(x)), _sigmoid, [*STEPS, *ENDS], (-INF, INF)),
    "log_sigmoid": (
        lambda x: -mp.log1p(mp.exp(-x)),
        lambda x: _sigmoid(-x),
        [*STEPS, *ENDS],
        (-INF, INF),
    ),
}  # fmt: skip
INVERSE = ("asinh", "acosh", "atanh")


def points(name, dtype):
    """About 1500: every exponent, the range where the function lives, and the neighbours of its
    breakpoints."""
    rng = np.random.default_rng(7)
    _, _, breaks, (low, high) = EXACT[name]
    exponents = np.arange(-1074, 1023) if name in INVERSE else np.arange(-1074, 10)
    wide = np.ldexp(rng.uniform(1, 2, exponents.size), exponents)[:: 1 + (exponents.size > 1500)]
    near_one = np.ldexp(rng.uniform(1, 2, 400), rng.integers(-12, 4, 400))
    x = np.concatenate([wide, near_one, rng.uniform(0, 40, 200), rng.uniform(0, 760, 100)])
    x = x * rng.choice([-1, 1], x.size)
    if name == "atanh":
        x = np.concatenate([x, rng.uniform(-1, 1, 400)])
    if name == "acosh":
        x = np.concatenate(
            [abs(x), 1 + np.ldexp(rng.uniform(1, 2, 400), rng.integers(-52, 1, 400))]
        )
    at = np.array(breaks)
    steps = np.arange(-6, 7)
    with np.errstate(over="ignore"):
        at = at.astype(dtype.numpy)
        integers = np.int64 if dtype is f64 else np.int32
        dense = (at.view(integers)[:, None] + steps.astype(integers)).view(dtype.numpy).ravel()
        wider = (at[:, None] * (1 + 2.0**-18 * steps)).astype(dtype.numpy).ravel()
        x = np.concatenate([x.astype(dtype.numpy), dense, wider])
    return x[np.isfinite(x) & (low <= x) & (x <= high) & ((name != "atanh") | (abs(x) < 1))]


def units(exact, scale, dtype):
    """A unit in the last place of `scale`, for each of them."""
    bits, least = (53, -1074) if dtype is f64 else (24, -149)
    for e, s in zip(exact, scale, strict=True):
        exponent = mp.frexp(s)[1] if s else least
        yield e, mp.mpf(2) ** max(exponent - bits, least)


def worst(x, got, exact, dtype, scale=None):
    """The largest error in units of the last place, and where it is."""
    overflow = mp.mpf(2) ** (1024 if dtype is f64 else 128)
    errors = []
    for g, (e, unit) in zip(got, units(exact, scale or exact, dtype), strict=True):
        if abs(e) >= overflow - unit / 2 or not np.isfinite(g):
            right = abs(e) >= overflow - unit and np.isinf(g) and (g > 0) == (e > 0)
            errors.append(0.0 if right else INF)
        else:
            errors.append(float(abs(mp.mpf(float(g)) - e) / unit))
    return max(zip(errors, x.tolist(), strict=True))


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", EXACT)
def test_values_are_within_their_budget_of_mpmath(name, dtype):
    x = points(name, dtype)
    with mp.workprec(160):
        exact = [EXACT[name][0](mp.mpf(float(v))) for v in x]
        error = worst(x, run(name, x), exact, dtype)
    assert error[0] <= registry()[name].ulp, error


def partial(name, x):
    """The gate of `partials` on an array."""
    builder = Builder()
    value = builder.input("x", (f64 if x.dtype == np.float64 else f32)[x.size])
    gate = registry()[name]
    (slope,) = gate.partials(gate(value), value)
    return run_graph(builder.graph("slope", {"y": slope}), [x])[0]


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", EXACT)
def test_derivatives_are_within_four_units_of_mpmath(name, dtype):
    x = points(name, dtype)
    x = x[x != 1.0] if name == "acosh" else x
    with mp.workprec(160):
        exact = [EXACT[name][1](mp.mpf(float(v))) for v in x]
        scale = [_silu_largest(mp.mpf(float(v))) for v in x] if name == "silu" else None
        error = worst(x, partial(name, x), exact, dtype, scale)
    assert error[0] <= 4.0, error


def test_second_derivatives_exist():
    x = np.array([1.5, 2.25, 3.0])
    for name in EXACT:
        at = x / 4 if name == "atanh" else x
        builder = Builder()
        value = builder.input("x", f64[x.size])
        gate = registry()[name]
        (slope,) = gate.partials(gate(value), value)
        (second,) = pull_back(builder, [slope], [value.constant(1.0)], [value])
        found = run_graph(builder.graph("second", {"y": second}), [at])[0]
        with mp.workprec(160):
            exact = [float(mp.diff(EXACT[name][1], mp.mpf(v))) for v in at]
        np.testing.assert_allclose(found, exact, rtol=1e-13, err_msg=name)


SPECIAL = {
    # name: results at 0, -0, inf, -inf
    "sinh": (0.0, -0.0, INF, -INF),
    "cosh": (1.0, 1.0, INF, INF),
    "tanh": (0.0, -0.0, 1.0, -1.0),
    "asinh": (0.0, -0.0, INF, -INF),
    "acosh": (NAN, NAN, INF, NAN),
    "atanh": (0.0, -0.0, NAN, NAN),
    "asinh_partial": (1.0, 1.0, 0.0, 0.0),
    "acosh_partial": (NAN, NAN, 0.0, NAN),
    "tanh_partial": (1.0, 1.0, 0.0, 0.0),
    "sigmoid": (0.5, 0.5, 1.0, 0.0),
    "sigmoid_partial": (0.25, 0.25, 0.0, 0.0),
    "silu": (0.0, -0.0, INF, -0.0),
    "silu_partial": (0.5, 0.5, 1.0, -0.0),
    "softplus": (LN2, LN2, INF, 0.0),
    "softplus_partial": (0.5, 0.5, 1.0, 0.0),
    "log_sigmoid": (-LN2, -LN2, -0.0, -INF),
}


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name, dtype):
    x = np.array([0.0, -0.0, INF, -INF, NAN, -NAN], dtype.numpy)
    got = run(name, x)
    want = np.array([*SPECIAL[name], NAN, NAN], dtype.numpy)
    np.testing.assert_array_equal(got, want)
    finite = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got)[finite], np.signbit(want)[finite])


@pytest.mark.parametrize("dtype", [f64, f32])
def test_edges_of_the_domains(dtype):
    ty = dtype.numpy.type
    below, above = np.nextafter(ty(1), ty(0)), np.nextafter(ty(1), ty(2))
    assert run("atanh", np.array([1, -1], ty)).tolist() == [INF, -INF]
    assert np.isnan(run("atanh", np.array([above, -above, 2, -1e30], ty))).all()
    assert np.isfinite(run("atanh", np.array([below, -below], ty))).all()
    assert run("acosh", np.ones(1, ty))[0] == 0
    assert run("acosh_partial", np.ones(1, ty))[0] == INF
    assert np.isnan(run("acosh", np.array([below, 0.5, -1, -2, -1e30], ty))).all()
    assert np.isnan(run("acosh_partial", np.array([below, -1, -2, -1e30], ty))).all()


def test_overflow_comes_after_the_last_finite_value():
    for dtype, last in ((f64, 710.4758600739439), (f32, np.float32(89.415985))):
        x = np.array([last, np.nextafter(last, dtype.numpy.type(1000))], dtype.numpy)
        for name in ("sinh", "cosh"):
            assert np.isfinite(run(name, x)).tolist() == [True, False]
            assert np.isfinite(run(name, -x)).tolist() == [True, False]


def test_slopes_reach_the_last_subnormal():
    least = 5e-324
    assert run("tanh_partial", np.array([373.0, 373.3])).tolist() == [least, 0.0]
    assert run("sigmoid", np.array([-745.0, -745.2])).tolist() == [least, 0.0]
    assert run("silu", np.array([-751.0, -752.0])).tolist() == [-least, -0.0]
    assert run("silu_partial", np.array([-751.0, -752.0])).tolist() == [-least, -0.0]
    assert run("asinh_partial", np.array([1.7e308]))[0] == 1 / 1.7e308


@pytest.mark.parametrize("dtype", [f64, f32])
def test_symmetries_hold_by_bits(dtype):
    for name, odd in (("sinh", True), ("tanh", True), ("asinh", True), ("atanh", True),
                      ("cosh", False), ("tanh_partial", False), ("sigmoid_partial", False),
                      ("asinh_partial", False)):  # fmt: skip
        x = points(name if name in EXACT else "sinh", dtype)
        got, mirrored = run(name, x), run(name, -x)
        np.testing.assert_array_equal(mirrored, -got if odd else got)


def test_tanh_is_one_from_its_last_point_on():
    x = np.array([19.0616, 19.07, 25.0, 1e300])
    assert (run("tanh", x) == 1).all()
    assert (run("tanh", np.array([9.011, 9.02, 30.0, 1e38], np.float32)) == 1).all()
    assert (run("tanh", np.linspace(0, 19, 100_001)) < 1).all()


def test_slopes_of_tanh_go_on_beyond_its_last_point():
    for dtype, last in ((f64, 19.0616), (f32, 9.011)):
        ty = dtype.numpy.type
        x = np.array([last, np.nextafter(ty(last), ty(INF)), last + 1, 43.0, INF, NAN], ty)
        got = run("tanh_partial", x)
        with mp.workprec(160):
            exact = [mp.sech(mp.mpf(float(v))) ** 2 for v in x[:4]]
            assert worst(x[:4], got[:4], exact, dtype)[0] <= 4.0
        assert got[4] == 0 and np.isnan(got[5])


def operations(names, dtype):
    """The operations of several gates of one argument in one loop, what they share counted once."""
    builder = ScalarBuilder((dtype,))
    results = [registry()[name].body(Scalar(builder, 0, dtype)) for name in names]
    live = {r.index for r in results}
    for i in range(len(builder.code), 0, -1):
        if i in live:
            live.update(builder.code[i - 1].args)
    kept = [ins for i, ins in enumerate(builder.code, 1) if i in live]
    return sum(ins.op not in ("const", "bitcast") for ins in kept)


MOST_TOGETHER = {
    # a gate and that of its derivative, in one loop
    ("sinh", "cosh"): 43, ("asinh", "asinh_partial"): 54, ("acosh", "acosh_partial"): 53,
    ("tanh", "tanh_partial"): 39, ("sigmoid", "sigmoid_partial"): 45,
    ("silu", "silu_partial"): 54, ("softplus", "softplus_partial"): 53, ("atanh",): 36,
}  # fmt: skip


@pytest.mark.parametrize("names", MOST_TOGETHER)
def test_values_and_derivatives_share_their_work(names):
    for dtype in (f64, f32):
        assert operations(names, dtype) <= MOST_TOGETHER[names]


def test_tables_are_what_the_generator_makes():
    held = {
        "SINH": hyperbolic.SINH, "COSH": hyperbolic.COSH, "COTH": hyperbolic.COTH,
        "TANH_X": hyperbolic.TANH_X, "TANH_T": hyperbolic.TANH_T, "TANH_S": hyperbolic.TANH_S,
        "LOG1P": hyperbolic.LOG1P,
        "ATANH": area.ATANH, "AREA": area.AREA, "WHOLE_LN2": area.LN2,
    }  # fmt: skip
    with mp.workprec(200):
        for name, table in held.items():
            for dtype, suffix in ((f64, "F64"), (f32, "F32")):
                made = [float(v) for v in fits.TABLES[f"{name}_{suffix}"]()[0]]
                assert made == np.array(table[dtype], dtype.numpy).tolist(), name
    assert set(fits.TABLES) <= set(generate.tables())
