"""NEP 50: every pair of dtypes, as array, NumPy scalar and Python scalar, against NumPy."""

from __future__ import annotations

import operator
import warnings

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.dsl.promote import result_dtype
from graphc.errors import DTypeError, ShapeError
from tests.dsl.support import run, same, traced

DTYPES = [np.float64, np.float32, np.int64, np.int32, np.bool_]
FORMS = ["array", "scalar", "python"]
OPERATORS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "pow": operator.pow,
    "lt": operator.lt, "eq": operator.eq, "maximum": np.maximum, "minimum": np.minimum,
    "where": lambda x, y: np.where(True, x, y),
}  # fmt: skip


def value(dtype, form):
    if form == "array":
        return np.array([1, 1, 3]).astype(dtype)
    return dtype(1) if form == "scalar" else dtype(1).item()


def numpys(function, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = function(*args)
        except TypeError:
            return None
    result = np.asarray(result)
    return result if result.dtype.type in DTYPES else None


@pytest.mark.parametrize("name", OPERATORS)
def test_dtypes_of_all_pairs(name):
    """The traced operand is always an argument; the other one is an argument, or captured."""
    function = OPERATORS[name]
    theirs = np.power if name == "pow" else function  # before 2.3, f4 ** np.float64(1) gave an f4
    for a in DTYPES:
        for b in DTYPES:
            for form in FORMS:
                x, y = value(a, "array"), value(b, form)
                expected = numpys(theirs, x, y)
                for call, given in ((function, (x, y)), (lambda x, y=y: function(x, y), (x,))):
                    if expected is None:
                        with pytest.raises((DTypeError, TypeError)):
                            run(call, *given)
                    else:
                        same(run(call, *given), expected)


@pytest.mark.parametrize("form", ["scalar", "python"])
def test_scalars_on_the_left(form):
    for a in DTYPES:
        for b in DTYPES[:-1]:
            x, y = value(a, form), value(b, "array")
            same(run(lambda y, x=x: x + y, y), x + y)
            same(run(lambda y, x=x: x / y, y), x / y)


@pytest.mark.parametrize("a", [2, 2.5, True])
@pytest.mark.parametrize("b", [3, 1.5, False])
def test_python_scalars_stay_weak(a, b):
    """Arithmetic of Python arguments gives a Python number's traced form, which takes a float32's
    dtype.
    """
    x = np.float32([1, 2])
    for f in (operator.add, operator.mul, operator.sub):
        same(run(lambda a, b, x, f=f: x * f(a, b), a, b, x), x * f(a, b))
    same(run(operator.lt, a, b), a < b)
    assert run(lambda a, x: np.exp(a) * x, 1.0, x).dtype == (np.exp(1.0) * x).dtype == np.float64


def test_constants_that_overflow():
    x = np.float32([1, 2])
    with np.errstate(over="ignore"):
        same(run(lambda x: x + 1e40, x), np.float32([np.inf, np.inf]))
    with pytest.raises(OverflowError, match="Python integer 1099511627776 out of bounds for int32"):
        run(lambda x: x + 2**40, np.int32([1]))
    with pytest.raises(OverflowError):
        run(lambda x: x + 2**70, np.int64([1]))


@pytest.mark.parametrize("big", [2**40, -(2**40), 2**31, -(2**31), 2**31 - 1])
@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_comparisons_beyond_the_range(name, big):
    x = np.int32([0, 2**31 - 1, -(2**31)])
    function = getattr(operator, name)
    same(run(lambda x: function(x, big), x), function(x, big))


def test_unsupported_dtypes():
    for bad in (np.zeros(2, np.int8), np.zeros(2, np.uint64), np.zeros(2, np.float16)):
        with pytest.raises(
            DTypeError, match="is not supported: use float64, float32, int64, int32 or bool"
        ):
            run(lambda x, bad=bad: x + bad, np.ones(2))
    with pytest.raises(DTypeError, match="complex128 is not supported"):
        run(lambda x: x + 1j, np.ones(2))


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 1), (4,)),
        ((), (3,)),
        ((1,), (0,)),
        ((2, 1, 3), (5, 1)),
        ((0, 1), (1, 3)),
        ((1, 1), (1,)),
    ],
)
def test_broadcasting(shapes):
    x, y = (np.arange(np.prod(s, dtype=int), dtype=float).reshape(s) for s in shapes)
    same(run(lambda x, y: x + y, x, y), x + y)
    same(run(lambda x: x - y, x), x - y)


def test_what_does_not_broadcast():
    """The message of the design, with both operands and their lines."""

    def function(x, y):
        z = x * 2
        return z + y

    with pytest.raises(ShapeError) as caught:
        traced(function, np.ones((3, 4)), np.ones(5))
    lines = str(caught.value).split("\n")
    line = function.__code__.co_firstlineno
    assert lines == [
        "add: cannot broadcast f64[3,4] with f64[5]",
        f"  left   %3 = mul(x0, 2.0)   test_promote.py:{line + 1}",
        f"  right  x1   test_promote.py:{line}",
        f"  at     test_promote.py:{line + 2}",
    ]


def test_named_sizes_are_equal_or_not():
    same(run(lambda x: x + x * 2, np.ones(3), symbolic=True), np.full(3, 3.0))
    with pytest.raises(ShapeError, match=r"cannot broadcast f64\[s0_0\] with f64\[s1_0\]"):
        run(lambda x, y: x + y, np.ones(3), np.ones(3), symbolic=True)


def test_sizes_as_numbers():
    x = np.float32([1, 2, 4])
    same(run(lambda x: x.sum() / x.shape[0], x, symbolic=True), np.float32(7 / 3))
    same(run(lambda x: (1.0 / x.shape[0]) * x, x, symbolic=True), np.float32([1 / 3, 2 / 3, 4 / 3]))
    same(run(lambda x: x * (0.5 * x.shape[0]), x, symbolic=True), x * np.float32(1.5))
    same(run(lambda x: x.shape[0] * x, x, symbolic=True), 3 * x)
    same(run(lambda x: x.shape[0] - x, x, symbolic=True), 3 - x)


def test_result_dtype_of_weak_kinds():
    assert result_dtype(("~i64", "~f64")).name == "f64"
    assert result_dtype(("bool", "~i64")).name == "i64"


def test_literal_powers_are_products():
    x = np.array([0.0, -1.5, 2.0, np.nan, np.inf])
    for n in (0, 1, 2, 3, 5, 16, -1, -2):
        with np.errstate(all="ignore"):
            same(run(lambda x, n=n: x**n, x), x**n, 1e-14)
        assert "power" not in str(traced(lambda x, n=n: x**n, x).graph)
    assert [n.op for n in traced(lambda x: x**2, x).graph.nodes] == ["input", "square"]
    assert "power" in str(traced(lambda x: x**17, x).graph)
    assert "square" in str(traced(lambda x: gnp.power(x, 2.0), x).graph)
    with pytest.raises(ValueError, match="Integers to negative integer powers are not allowed"):
        run(lambda x: x**-1, np.arange(1, 3))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_literal_halves_are_roots(dtype):
    """With the values that powers have at -0 and -inf (C99, Annex F)."""
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, 4.0, 2.0, np.finfo(dtype).tiny], dtype)
    inf = np.inf
    for p, special in ((0.5, [0, 0, inf, inf]), (-0.5, [inf, inf, 0, 0])):
        found, graph = run(lambda x, p=p: x**p, x), str(traced(lambda x, p=p: x**p, x).graph)
        with np.errstate(all="ignore"):
            want = x**p if p > 0 else 1 / x.astype(np.longdouble) ** 0.5
        assert "power" not in graph and "sqrt" in graph
        same(found[:4], np.array(special, dtype))
        assert not np.signbit(found[:4]).any() and found.dtype == dtype
        np.testing.assert_array_max_ulp(found[4:], want[4:].astype(dtype), 1)
        slope = graphc.grad(lambda x, p=p: (x**p).sum())(np.array([4.0, 0.0, inf, -inf], dtype))
        assert slope.tolist() == [p * 4.0 ** (p - 1), inf if p > 0 else -inf, 0.0, 0.0]
    assert run(lambda x: x**0.5, np.arange(3)).dtype == np.float64
    assert "power" in str(traced(lambda x: x**1.5, x).graph)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_integer_division(dtype):
    x = np.array([7, -7, 7, -7, 0, np.iinfo(dtype).min], dtype)
    y = np.array([2, 2, -2, -2, 0, -1], dtype)
    with np.errstate(all="ignore"):
        same(run(lambda x, y: x // y, x, y), x // y)
        same(run(lambda x, y: x % y, x, y), x % y)
        for f in (operator.floordiv, operator.mod):
            for y in (2, -2, 2.5, np.float32(2.5), np.arange(-3, 3), np.linspace(-3, 3, 6)):
                same(run(lambda x, f=f, y=y: f(x, y), x), f(x, y))
                same(run(lambda x, f=f, y=y: f(y, x), x), f(y, x))
    with pytest.raises(DTypeError, match="remainder is not defined on bool: convert it first"):
        run(operator.mod, np.array([True]), np.array([True]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_float_division(dtype):
    x = np.array([7.5, -7.5, 1e30, -0.0, np.inf, np.nan], dtype)
    with np.errstate(all="ignore"):
        for y in (2, -2.5, 0, np.float64(0.1), np.float32(0.1), x[::-1].copy(), np.arange(6)):
            for f in (operator.floordiv, operator.mod):
                same(run(lambda x, f=f, y=y: f(x, y), x), f(x, y))
                same(run(lambda x, f=f, y=y: f(y, x), x), f(y, x))
            for got, want in zip(run(lambda x, y=y: divmod(x, y), x), divmod(x, y), strict=True):
                same(got, want)


def test_bools():
    x, y = np.array([True, True, False]), np.array([True, False, False])
    for f in (
        operator.add,
        operator.mul,
        operator.and_,
        operator.or_,
        operator.xor,
        operator.eq,
        operator.lt,
        operator.le,
    ):
        same(run(f, x, y), f(x, y))
    same(run(operator.invert, x), ~x)
    same(run(abs, x), x)
    with pytest.raises(
        DTypeError, match=r"sub is not defined on bool: use \^ or numpy.logical_xor"
    ):
        run(operator.sub, x, y)
    with pytest.raises(DTypeError, match="use ~ or numpy.logical_not"):
        run(operator.neg, x)
    with pytest.raises(DTypeError, match="the operators & | ^ ~ are for bools"):
        run(operator.and_, np.arange(2), np.arange(2))
