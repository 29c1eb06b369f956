"""The judge's own table: bulk against mpmath, derivatives against difference quotients."""

import ast
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest

import graphc.selftest
from graphc.selftest import points
from graphc.selftest.arithmetic import HAS_LONG, Bulk, Extended, evaluated
from graphc.selftest.exact import EXACT
from graphc.selftest.measure import Judge, Point, errors

FOLDER = Path(graphc.selftest.__file__).parent
SLOW = {"lgamma", "digamma", "trigamma", "tetragamma", "erfinv", "erfinv_partial"}


def arity(name):
    return EXACT[name].value.__code__.co_argcount - 1


def arguments(name, dtype, count):
    exact, rng = EXACT[name], np.random.default_rng(3)
    if arity(name) == 1:
        near = points.around(rng, dtype, exact.breaks or (1.0,), 4)
        wide = points._unary_mix(rng, exact, dtype, count)
        args = [np.concatenate([wide, rng.choice(near, count)])]
    else:
        chunks = list(points.several(exact, (), arity(name), dtype, 4 * count, seed=3))
        args = [np.concatenate([c[i] for c in chunks]) for i in range(arity(name))]
        pick = rng.permutation(args[0].size)[: 2 * count]
        args = [a[pick] for a in args]
    keep = np.logical_and.reduce([np.isfinite(a) for a in args])
    with np.errstate(all="ignore"):
        if exact.where is not None:
            keep &= exact.where(*args)
    return [a[keep] for a in args]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_two_judges_agree(name, dtype):
    """A result in bulk, rounded, is within half a unit of mpmath's, and a bit for the judge."""
    if dtype == np.float64 and not HAS_LONG:
        pytest.skip("no long double here")
    judge, args = Judge(EXACT[name], dtype), arguments(name, dtype, 10 if name in SLOW else 30)
    for i, found in enumerate(judge.bulk(args)):
        if found is None:
            continue
        with np.errstate(all="ignore"):
            rounded = found[0].astype(dtype)
        error = errors(rounded, *found[:1], dtype, found[1])
        for k in range(rounded.size):
            point = Point(float(error[k]), tuple(a[k] for a in args), rounded[k])
            precise = judge.precise(i, point)
            if precise is not None:
                gap = min(abs(precise - error[k]), abs(precise - 2 * error[k]))
                assert gap < 0.13, (i, point, precise)


STEP = mpmath.mpf(2) ** -60


@pytest.mark.parametrize("name", [n for n, e in EXACT.items() if any(e.partials)])
def test_derivatives_are_difference_quotients(name):
    exact, m = EXACT[name], Extended(300)
    rng, count = np.random.default_rng(5), 0
    low, high = exact.live
    for _ in range(6):
        near = (low, 2 * low) if low > 1e6 else (max(low, -6), min(high, 6))
        at = [m.number(v) for v in rng.uniform(*near, arity(name))]
        for i, partial in enumerate(exact.partials):
            if partial is None or name in ("heaviside", "fmod_huge"):
                continue
            ahead, behind = list(at), list(at)
            ahead[i], behind[i] = at[i] + STEP, at[i] - STEP
            try:
                rise = exact.value(m, *ahead) - exact.value(m, *behind)
                slope = partial(m, *at)
            except (ValueError, ZeroDivisionError):
                continue
            if isinstance(rise, m.context.mpc) or m.isnan(rise):
                continue
            quotient = rise / (2 * STEP)
            assert abs(slope - quotient) <= 1e-25 * (1 + abs(slope)), (at, i)
            count += 1
    assert count or name in ("acosh", "heaviside", "fmod_huge")


def test_each_kind_of_special_values_is_there():
    for name, exact in EXACT.items():
        assert len(exact.at.split()) in (0, 5), name


def test_two_digit_arithmetic():
    """What rounding a quotient lost, against rationals."""
    m = Bulk(np.float64)
    x = np.random.default_rng(0).uniform(-30, 30, 50)
    z = x / m.sqrt2
    root = Fraction("1.41421356237309504880168872420969807856967187537694807")
    rest = m._quotient_rest(x, z)
    for a, b, r in zip(x, z, rest, strict=True):
        true = Fraction(float(a)) / root - Fraction(float(b))
        assert abs(Fraction(float(r)) - true) <= abs(true) / 2**40 + Fraction(1, 2**100)


@pytest.mark.parametrize("name, order", [("trigamma", 1), ("tetragamma", 2), ("pentagamma", 3)])
def test_polygamma_is_mpmaths(name, order):
    m = Extended()
    for x in (1e-8, 0.3, 1.0, 2.5, 17.0, 1e4, -0.3, -1.75, -6.5):
        mine = getattr(m, name)(m.number(x))
        assert abs(mine / m.context.polygamma(order, m.number(x)) - 1) < 1e-50


def test_mpmath_says_nothing_where_it_knows_nothing():
    m = Extended()
    assert evaluated(m, EXACT["log"].value, [np.float64(0.0)]) is None
    assert evaluated(m, EXACT["log"].value, [np.float64(-1.0)]) is None
    assert evaluated(m, EXACT["reciprocal"].value, [np.float64(0.0)]) is None
    assert evaluated(m, EXACT["exp"].value, [np.float64(0.0)]) == 1


# -- what the judge does without -------------------------------------------------------------------

FORBIDDEN = ("graphc.codegen", "graphc.gates", "graphc.transforms", "graphc.lower", "graphc.passes")


def test_the_oracle_imports_nothing_of_what_it_judges():
    code = (
        "import sys\nimport graphc.selftest.exact, graphc.selftest.arithmetic\nprint(*sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "graphc.selftest.exact" in said
    assert not [name for name in said if name.startswith(FORBIDDEN)]


@pytest.mark.parametrize("module", ["exact", "arithmetic"])
def test_the_oracle_names_nothing_of_what_it_judges(module):
    tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("graphc"), ast.unparse(node)
        if isinstance(node, ast.Import):
            assert not any(a.name.startswith("graphc") for a in node.names), ast.unparse(node)
