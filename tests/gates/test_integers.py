"""Integers, bools and casts: nothing traps or is undefined, and all is NumPy's or as documented.

Table D of the numerical contract, compiled for every length up to 67 (so that each element comes to
stand in whole vectors and in the rest), and by the interpreter.
"""

import operator

import numpy as np
import pytest

import graphc
from graphc.ir import scalar as s
from tests.codegen.test_operations import same_everywhere
from tests.dsl.support import run

LENGTHS = range(1, 68)
INTS = [np.int64, np.int32]
FLOATS = [np.float64, np.float32]


def everywhere(function, expected, *args):
    """The function compiled, on each length, and interpreted."""
    compiled = graphc.jit(function)
    for n in LENGTHS:
        got = compiled(*(a[:n] for a in args))
        assert got.dtype == expected.dtype, (got.dtype, expected.dtype)
        np.testing.assert_array_equal(got, expected[:n], err_msg=f"length {n}")
    np.testing.assert_array_equal(run(function, *args), expected)
    lanes = [np.repeat(a, 16) for a in args]  # each element in every lane of a vector
    np.testing.assert_array_equal(compiled(*lanes), np.repeat(expected, 16))


def pairs(dtype):
    """67 pairs: every two of the edges, and others."""
    info, rng = np.iinfo(dtype), np.random.default_rng(8)
    edges = np.array([info.min, info.max, 0, -1, 1, info.min + 1, 7], dtype)
    x, y = (v.ravel() for v in np.meshgrid(edges, edges))
    rest = [rng.integers(info.min, info.max, 9), rng.integers(-9, 10, 9)]
    x, y = np.r_[x, rest[0], rest[1]].astype(dtype), np.r_[y, rest[1], rest[1][::-1]].astype(dtype)
    order = rng.permutation(67)
    return x[order], y[order]


BINARY = {
    "D1, D2, D3: x // y": (operator.floordiv, np.floor_divide),
    "D1, D2, D3: x % y": (operator.mod, np.remainder),
    "D1, D2: fmod": (np.fmod, np.fmod),
    "D7: x + y": (operator.add, np.add),
    "D7: x - y": (operator.sub, np.subtract),
    "D7: x * y": (operator.mul, np.multiply),
    "maximum": (np.maximum, np.maximum),
    "minimum": (np.minimum, np.minimum),
    "x < y": (operator.lt, np.less),
    "x <= y": (operator.le, np.less_equal),
    "x == y": (operator.eq, np.equal),
    "x != y": (operator.ne, np.not_equal),
    "D14: x / y": (operator.truediv, np.true_divide),
    "where": (lambda x, y: np.where(x < y, x, y), lambda x, y: np.where(x < y, x, y)),
}
UNARY = {
    "D8: abs": (abs, np.abs),
    "D8: -x": (operator.neg, np.negative),
    "D7: x * x": (lambda x: x**2, np.square),
    "sign": (np.sign, np.sign),
    "x // -1": (lambda x: x // -1, lambda x: x // -1),
    "x % -1": (lambda x: x % -1, lambda x: x % -1),
    "x // 0": (lambda x: x // 0, lambda x: x // 0),
    "x % 0": (lambda x: x % 0, lambda x: x % 0),
    "-7 // x": (lambda x: -7 // x, lambda x: -7 // x),
    "-7 % x": (lambda x: -7 % x, lambda x: -7 % x),
}


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("name", BINARY)
def test_two_integers(name, dtype):
    function, expected = BINARY[name]
    x, y = pairs(dtype)
    with np.errstate(all="ignore"):
        want = expected(x, y)
    everywhere(function, want, x, y)


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("name", UNARY)
def test_one_integer(name, dtype):
    function, expected = UNARY[name]
    x, _ = pairs(dtype)
    with np.errstate(all="ignore"):
        want = expected(x)
    everywhere(function, want, x)


@pytest.mark.parametrize("dtype", INTS)
def test_powers_wrap(dtype):
    x, _ = pairs(dtype)
    y = np.resize(np.array([0, 1, 2, 3, 5, 31, 64, 77], dtype), 67)
    everywhere(operator.pow, x**y, x, y)


# -- casts -----------------------------------------------------------------------------------------


def saturated(x, dtype):
    """D5: towards zero, to the nearest integer there is; 0 of NaN."""
    info = np.iinfo(dtype)
    whole = [0 if np.isnan(v) else v if np.isinf(v) else int(v) for v in x.tolist()]
    return np.array([int(min(max(v, info.min), info.max)) for v in whole], dtype)


def floats(dtype):
    edges = [0.0, -0.0, 0.9, -0.9, 1.5, -2.5, np.nan, np.inf, -np.inf, 1e30, -1e30, 300.7, 5e-324]
    edges += [2.0**31, -(2.0**31), 2.0**31 - 1, -(2.0**31) - 1, 2.0**31 - 0.5, -(2.0**31) - 0.5]
    edges += [2.0**63, -(2.0**63), 2.0**63 - 1024, 2.0**62, 2.0**53 + 2, 2.0**24 + 2, -1.0, 2.0**32]
    rng = np.random.default_rng(9)
    with np.errstate(all="ignore"):
        return np.resize(np.r_[edges, np.exp(rng.uniform(-3, 60, 7))], 67).astype(dtype)


@pytest.mark.parametrize("to", INTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_d5_floats_to_integers(dtype, to):
    x = floats(dtype)
    everywhere(lambda x: x.astype(to), saturated(x, to), x)


@pytest.mark.parametrize("to", [*INTS, *FLOATS, np.bool_])
@pytest.mark.parametrize("dtype", INTS)
def test_d14_integers_to_anything(dtype, to):
    """Between integers they wrap; to floats they round."""
    x, _ = pairs(dtype)
    x = np.r_[x[:60], np.array([2**24 + 1, 2**31 - 1, 2, -3, 5, 6, 9], dtype)]
    everywhere(lambda x: x.astype(to), x.astype(to), x)


@pytest.mark.parametrize("to", [*FLOATS, np.bool_])
@pytest.mark.parametrize("dtype", FLOATS)
def test_d14_floats_to_floats_and_bools(dtype, to):
    x = np.r_[
        floats(dtype)[:60], np.array([1e-46, -1e-46, 1e40, 1e-40, -1e38, 3e38, 7], np.float64)
    ]
    with np.errstate(all="ignore"):
        x = x.astype(dtype)
        want = x.astype(to)
    everywhere(lambda x: x.astype(to), want, x)


# -- bools -----------------------------------------------------------------------------------------

OF_BOOLS = {
    "or": (operator.or_, np.logical_or),
    "and": (operator.and_, np.logical_and),
    "xor": (operator.xor, np.logical_xor),
    "D9: +": (operator.add, np.add),
    "D9: *": (operator.mul, np.multiply),
    "==": (operator.eq, np.equal),
    "<": (operator.lt, np.less),
    "where": (lambda x, y: np.where(x, y, ~y), lambda x, y: np.where(x, y, ~y)),
    "to int64": (lambda x, y: x.astype(np.int64) + y, lambda x, y: x.astype(np.int64) + y),
    "to float": (lambda x, y: x.astype(np.float32) - y, lambda x, y: x.astype(np.float32) - y),
}


@pytest.mark.parametrize("name", OF_BOOLS)
def test_d17_bools_of_any_byte(name):
    """Bytes other than 0 and 1 that are viewed as bools are true; what is written is 0 or 1."""
    function, expected = OF_BOOLS[name]
    rng = np.random.default_rng(10)
    x, y = (rng.choice(np.array([0, 0, 1, 2, 128, 255], np.uint8), 67) for _ in range(2))
    everywhere(function, expected(x != 0, y != 0), x.view(bool), y.view(bool))
    made = graphc.jit(lambda x: ~x)(x.view(bool))
    assert set(made.view(np.uint8)) <= {0, 1}


def test_d9_sums_of_bools_count():
    x = np.array([0, 1, 2, 255, 0, 7] * 11, np.uint8).view(bool)
    count = graphc.jit(lambda x: x.sum())(x)
    assert count == 44 and count.dtype == np.int64


# -- shifts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTS)
def test_d4_shifts_by_any_count(dtype):
    """At every width and with every instruction set, by counts in a register and by constants."""
    x = np.repeat(pairs(dtype)[0][:32], 10)
    width = 8 * x.itemsize
    some = [0, 1, 5, width - 1, width, width + 1, -1, 2 * width, np.iinfo(dtype).min, width // 2]
    count = np.tile(np.array(some, dtype), 32)
    inside = (count >= 0) & (count < width)
    safe = np.where(inside, count, 0)
    unsigned = x.view(f"u{x.itemsize}")
    left = np.where(inside, x << safe, 0).astype(dtype)
    right = np.where(inside, x >> safe, np.where(x < 0, -1, 0)).astype(dtype)
    logical = np.where(inside, (unsigned >> safe.view(unsigned.dtype)).view(dtype), 0).astype(dtype)
    shifts = [(lambda a, n: a << n, left), (lambda a, n: a >> n, right), (s.lshr, logical)]
    for shift, want in shifts:
        np.testing.assert_array_equal(same_everywhere(shift, x, count), want)
        for n in some:
            got = same_everywhere(lambda a, shift=shift, n=n: shift(a, n), x, widths=(8,))
            np.testing.assert_array_equal(got[count == n], want[count == n])
