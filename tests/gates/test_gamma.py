"""Log gamma and its derivatives: mpmath judges f64, and the f64 bodies judge f32."""

import math

import mpmath as mp
import numpy as np
import pytest

from graphc.errors import DifferentiationError
from graphc.gates.bodies import gamma_tables, generate
from graphc.gates.bodies.fits import gamma as fits
from graphc.gates.gate import registry
from graphc.ir.graph import Builder
from graphc.ir.reference import run_scalar
from graphc.ir.types import f32, f64, from_numpy
from graphc.runtime.kernel import compile_graph
from tests.transforms.test_adjoint import gradient

INF, NAN = math.inf, math.nan
PRECISION = 160
EULER = 0.5772156649015329
NAMES = ("lgamma", "digamma", "trigamma", "tetragamma")


def run(name, x):
    return run_scalar(registry()[name].body_graph((from_numpy(x.dtype),)), x)


# -- the exact functions, and the addends of the reflection formulas -------------------------------


def exact_and_unit(order, x):
    """The function of NAMES, and what its error is counted in: below zero the largest addend."""
    right = lambda v: mp.loggamma(v) if order == 0 else mp.psi(order - 1, v)
    if x > 0:
        value = right(x)
        return value, abs(value)
    sine, cosine = mp.sinpi(x), mp.cospi(x)
    reflected = (
        mp.log(mp.pi / abs(sine)),
        -mp.pi * cosine / sine,
        (mp.pi / sine) ** 2,
        -2 * mp.pi**3 * cosine / sine**3,
    )[order]
    mirrored = (-1) ** (order + 1) * right(1 - x)
    value = reflected + mirrored
    return value, max(abs(value), abs(reflected), abs(mirrored))


def points(order, count=250):
    """Every exponent, the unit intervals, and the neighbours of breakpoints, zeros and poles."""
    rng = np.random.default_rng(17 + order)
    near = lambda least: np.ldexp(rng.uniform(-1, 1, count), rng.integers(least, -1, count))
    by_exponent = np.ldexp(rng.uniform(1, 2, count), rng.integers(-1074, 1023, count))
    halves = rng.integers(0, 20, count) / 2
    steps = 2.0**-52 * np.arange(-6, 7)
    breaks = np.array([0.5, 1.0, 1.4616321449683623, 2.0, 3.0])[:, None]
    x = np.concatenate(
        [
            by_exponent,
            np.ldexp(rng.uniform(1, 2, count), rng.integers(-12, 10, count)),
            1 + near(-52),
            1.4616321449683623 + near(-52),
            2 + near(-51),
            3 + near(-51),
            (breaks * (1 + steps)).ravel(),
            rng.uniform(0, 4, 2 * count),
            rng.uniform(4, 30, count),
            -by_exponent[by_exponent < 1],
            -rng.uniform(0, 6, 2 * count),
            -rng.uniform(6, 3000, count),
            -halves + near(-44),
            -np.array([0.5040830082644554, 1.5734984731623904, 2.4570247382208004, 2.7476826467]),
        ]
    )
    return x[(x > 0) | (x != np.floor(x))]


def error(got, exact, unit, bits=53, least=-1074):
    if abs(exact) >= mp.mpf(2) ** (1024 if bits == 53 else 128):
        return 0.0 if got == (INF if exact > 0 else -INF) else INF
    exponent = mp.frexp(unit)[1] if unit else least
    return float(abs(mp.mpf(float(got)) - exact) / mp.mpf(2) ** max(exponent - bits, least))


def worst_error(order, x, got):
    with mp.workprec(PRECISION):
        pairs = [exact_and_unit(order, mp.mpf(float(v))) for v in x]
        errors = [error(g, *pair) for g, pair in zip(got, pairs, strict=True)]
    return max(zip(errors, x, strict=True))


@pytest.mark.parametrize("order", range(4))
def test_f64_is_within_its_budget_of_mpmath(order):
    x = points(order)
    worst = worst_error(order, x, run(NAMES[order], x))
    assert worst[0] <= registry()[NAMES[order]].ulp, worst


@pytest.mark.parametrize("name", NAMES)
def test_f32_is_the_rounded_f64(name):
    """Within 0.53 units of the last place of f64's value, which carries 29 bits more."""
    x = np.arange(0, 2**32, 6007, dtype=np.uint64).astype(np.uint32).view(np.float32)
    breaks = np.array([1.0, 1.4616321, 2.0, 3.0, -2.4570248, -0.50408301], np.float32)
    close = breaks.view(np.int32)[:, None] + np.arange(-500, 500, dtype=np.int32)
    for part in np.array_split(np.concatenate([x, close.ravel().view(np.float32)]), 12):
        with np.errstate(all="ignore"):
            want, got = run(name, part.astype(np.float64)), run(name, part)
            rounded = want.astype(np.float32)
            unit = np.ldexp(1.0, np.maximum(np.frexp(want)[1] - 24, -149))
            off = np.abs(got.astype(np.float64) - want) / unit
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        off[(got == rounded) | np.isnan(got)] = 0.5
        assert off.max() <= 0.53, part[off.argmax()]


@pytest.mark.parametrize("order", range(3))
def test_derivatives_are_within_four_units(order):
    x = points(order + 1, 60)
    with np.errstate(all="ignore"):
        found = gradient(registry()[NAMES[order]], x)[0]
    worst = worst_error(order + 1, x, found)
    assert worst[0] <= 4.0, worst


def test_tetragamma_has_no_derivative():
    with pytest.raises(DifferentiationError, match="lgamma three times"):
        gradient(registry()["tetragamma"], [1.0])


@pytest.mark.parametrize("name", [n for n in NAMES if n != "lgamma"])
def test_below_zero_the_derivatives_of_the_branch_are_the_same_gates(name):
    before = NAMES[NAMES.index(name) - 1]
    x = np.array([-0.5, -1.25, -7.875])
    found = gradient(registry()[f"{before}_negative"], x)[0]
    assert found.tolist() == run(name, x).tolist() == run(f"{name}_negative", x).tolist()


SPECIAL = [
    ("lgamma", [0.0, -0.0, INF, -INF, -1.0, -2.0, -1e300, -(2.0**52)], [INF] * 8),
    ("lgamma", [1.0, 2.0, 3.0, 0.5], [0, 0, math.log(2), math.log(math.pi) / 2]),
    ("lgamma", [1 + 2.0**-52, 1 - 2.0**-53, 2 + 2.0**-51, 2 - 2.0**-52],
     [-EULER * 2.0**-52, EULER * 2.0**-53, (1 - EULER) * 2.0**-51, (EULER - 1) * 2.0**-52]),
    ("lgamma", [5e-324, -5e-324], [744.4400719213812, 744.4400719213812]),
    ("digamma", [0.0, -0.0, INF, -INF, -1.0, -2.0, -1e300], [-INF, INF, INF, NAN, NAN, NAN, NAN]),
    ("digamma", [1.0, 5e-324, -5e-324, 1e-300, 1.7976931348623157e308],
     [-EULER, -INF, INF, -1e300, 709.782712893384]),
    ("trigamma", [0.0, -0.0, INF, -INF, -1.0, -1e300, 5e-324, -5e-324],
     [INF, INF, 0, NAN, INF, INF, INF, INF]),
    ("trigamma", [1.0, 1e300, 1.7976931348623157e308],
     [math.pi**2 / 6, 1e-300, 1 / 1.7976931348623157e308]),
    ("tetragamma", [0.0, -0.0, INF, -INF, -1.0, -1e300, 5e-324, -5e-324],
     [-INF, INF, -0.0, NAN, NAN, NAN, -INF, INF]),
    ("tetragamma", [1.0, 1e150], [-2.4041138063191886, -1e-300]),
]  # fmt: skip


@pytest.mark.parametrize("name, x, want", SPECIAL)
def test_special_values(name, x, want):
    for v, w, g in zip(x, want, run(name, np.array(x)).tolist(), strict=True):
        if w is None or (w and math.isfinite(w)):
            assert g == pytest.approx(w or g, rel=4e-16) and math.isfinite(g), (name, v, g)
        else:
            same_sign = w != w or g != g or w != 0 or math.copysign(1, w) == math.copysign(1, g)
            assert (g == w or (g != g and w != w)) and (name == "lgamma" or same_sign), (v, g)


def test_lgamma_overflows_after_the_last_finite_value():
    """By bisection with mpmath."""
    last = np.array([2.5599833278516383e305, 2.5599833278516387e305])
    assert run("lgamma", last).tolist() == [1.7976931348623157e308, INF]
    last = np.array([4.085003108497519e36, 4.085003425410169e36], np.float32)
    assert run("lgamma", last).tolist() == [3.4028232635611926e38, INF]


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", NAMES)
def test_nan_stays(name, dtype):
    assert np.isnan(run(name, np.array([NAN, -NAN], dtype.numpy))).all()


@pytest.mark.parametrize("name, sign", [("lgamma", 1), ("digamma", 1), ("trigamma", -1)])
def test_is_monotone_across_its_breakpoints(name, sign):
    """Where the slope spans many units of the last place from one argument to the next."""
    breaks = np.array([1.0, 2.0, 3.0]) if name != "lgamma" else np.array([2.0, 3.0])
    x = breaks[:, None] * (1 + 2.0**-46 * np.arange(-40, 41))
    assert (sign * np.diff(run(name, x), axis=1) > 0).all()


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", NAMES)
def test_compiled_code_has_the_same_bits(name, dtype):
    """A lane below zero takes the branch; the other lanes of its vector do not change."""
    with np.errstate(over="ignore", under="ignore"):
        x = np.concatenate([points(2, 40), [0.0, -0.0, INF, -INF, NAN, -3.0]]).astype(dtype.numpy)
    builder = Builder()
    value = registry()[name](builder.input("x", dtype[x.size]))
    got = compile_graph(builder.graph("f", {"y": value})).run([x])[0]
    np.testing.assert_array_equal(got, run(name, x))
    positive = x > 0
    np.testing.assert_array_equal(got[positive], run(name, x[positive]))


def test_tables_are_what_the_generator_makes():
    """All but those of mpmath's slow derivatives of digamma."""
    with mp.workprec(200):
        for name, make in fits.TABLES.items():
            assert generate.tables()[name] is make
            if "TRIGAMMA" not in name and "TETRAGAMMA" not in name:
                assert [float(v) for v in make()[0]] == list(getattr(gamma_tables, name)), name
