"""What a call accepts, and what it refuses by name."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import DTypeError, ShapeError, SignatureError
from graphc.ir.types import bool_, f32, f64, i32, i64
from graphc.runtime.arguments import as_result, bind_sizes, plain_leaf, prepare


def accepted(value, ty):
    made = prepare(value, ty, "x")
    assert (
        type(made) is np.ndarray
        and made.dtype == ty.dtype.numpy
        and made.flags.c_contiguous
        and made.flags.aligned
    )
    return made


X = np.arange(6.0).reshape(2, 3)
GOOD = [
    (X, f64[2, 3]), (np.asfortranarray(X), f64["n", 3]), (X[:, ::-1], f64[2, 3]),
    (X.astype(">f8"), f64[2, 3]), (X.astype(np.float32), f64[2, 3]),
    (X.astype(np.int8), f32[2, 3]), (X.astype(np.uint8), i32[2, 3]), (X > 1, f64[2, 3]),
    (X.tolist(), f64[2, 3]), (X.astype(np.float16), f32[2, 3]),
    (np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float64).reshape(2, 3), f64[2, 3]),
    (X.astype(np.int64), f64[2, 3]),
]  # fmt: skip


@pytest.mark.parametrize(("value", "ty"), GOOD)
def test_arrays(value, ty):
    np.testing.assert_array_equal(accepted(value, ty), np.asarray(value).astype(ty.dtype.numpy))


def test_exact_arrays_are_not_copied():
    assert prepare(X, f64[2, 3], "x") is X


def test_memory_maps(tmp_path):
    X.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float64, "r", shape=(2, 3))
    np.testing.assert_array_equal(accepted(mapped, f64[2, 3]), X)


@pytest.mark.parametrize(("value", "ty", "expected"), [
    (1, f64[()], 1.0), (True, i32[()], 1), (0.1, f32[()], np.float32(0.1)), (1e40, f32[()], np.inf),
    (3, i64[()], 3), (False, bool_[()], False),
    (np.float32(2), f64[()], 2.0), (np.array(4), i64[()], 4),
])  # fmt: skip
def test_numbers(value, ty, expected):
    assert accepted(value, ty) == expected and accepted(value, ty).shape == ()


BAD = [
    (
        np.ma.masked_array([1.0]),
        f64[1],
        DTypeError,
        "argument x is a MaskedArray, whose meaning would be lost",
    ),
    (type("Quantity", (np.ndarray,), {})((1,)), f64[1], DTypeError, "argument x is a Quantity"),
    (
        np.array([1 + 2j]),
        f64[1],
        DTypeError,
        "argument x: dtype complex128 is not supported: use float64, float32",
    ),
    (np.array([None]), f64[1], DTypeError, "dtype object"),
    (np.array(["a"]), f64[1], DTypeError, "dtype <U1"),
    (np.zeros(1, [("a", float)]), f64[1], DTypeError, "dtype .*'a'"),
    (np.zeros(1, "M8[s]"), f64[1], DTypeError, "datetime64"),
    (np.zeros(1, np.longdouble), f64[1], DTypeError, "is not supported"),
    (
        X[0],
        f32[3],
        DTypeError,
        r"argument x is f32\[3\], got float64, which f32 does not hold exactly: convert it with "
        r".astype\('float32'\)",
    ),
    (X[0], i64[3], DTypeError, "which i64 does not hold exactly"),
    (np.zeros(1, np.uint64), i64[1], DTypeError, "got uint64"),
    (
        X,
        f64[3],
        SignatureError,
        r"argument x is f64\[3\], of rank 1; got the shape \(2, 3\), of rank 2",
    ),
    (X[0], f64[4], ShapeError, r"argument x is f64\[4\], got the shape \(3,\)"),
    (1.0, f64[1], SignatureError, "of rank 1"),
    (1.5, i64[()], DTypeError, r"argument x is i64\[\], got the Python float 1.5"),
    (2**40, i32[()], DTypeError, "1099511627776 does not fit"),
    (2**70, i64[()], DTypeError, "does not fit"),
    (1, bool_[()], DTypeError, "got the Python int 1"),
    ([[1.0], [1.0, 2.0]], f64[2, 2], SignatureError, "argument x does not make an array"),
]


@pytest.mark.parametrize(("value", "ty", "kind", "message"), BAD)
def test_refused(value, ty, kind, message):
    with pytest.raises(kind, match=message):
        prepare(value, ty, "x")


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_matrices():
    with pytest.raises(DTypeError, match="argument x is a matrix"):
        prepare(np.matrix([[1.0]]), f64[1, 1], "x")


def test_objects_that_make_arrays():
    class Series:
        def __array__(self, dtype=None, copy=None):
            return np.arange(3.0)

    np.testing.assert_array_equal(accepted(Series(), f64[3]), np.arange(3.0))


def test_arguments_without_annotations():
    assert plain_leaf(1.0, "x").weak and plain_leaf(1, "x").dtype is i64
    assert not plain_leaf(np.float64(1.0), "x").weak
    assert plain_leaf(X.astype(">f4"), "x").dtype is f32
    with pytest.raises(DTypeError, match="argument x: dtype int8 is not supported"):
        plain_leaf(np.int8(1), "x")


def test_named_sizes():
    assert bind_sizes([f64["n", "m"], f64["m"]], [(2, 3), (3,)], ["x", "y"]) == {"n": 2, "m": 3}
    assert bind_sizes([f64["n"], f64["n+1"]], [(2,), (3,)], ["x", "y"]) == {"n": 2}
    with pytest.raises(
        ShapeError,
        match=r"argument y is f64\[n\+1\], here of the shape \(3,\); got the shape \(4,\)",
    ):
        bind_sizes([f64["n"], f64["n+1"]], [(2,), (4,)], ["x", "y"])


def test_results_of_rank_zero_are_scalars():
    assert type(as_result(np.array(1.0))) is np.float64
    assert as_result(X) is X
