"""Every function of graphc.numpy against NumPy: shapes, dtypes, numbers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.errors import DTypeError, ShapeError
from tests.dsl.support import run, same

RNG = np.random.default_rng(7)
SHAPES = [(), (1,), (4,), (0,), (3, 4), (1, 4), (0, 4), (3, 0), (2, 3, 4)]
FLOATS = {s: RNG.normal(size=s) for s in SHAPES}
DTYPES = [np.float64, np.float32, np.int64, np.int32, np.bool_]


def sample(shape, dtype=np.float64):
    return np.asarray(FLOATS[shape] * 3).astype(dtype)


def check(case, *arrays, protocol=True, rtol=1e-12):
    """A function of a namespace: NumPy on arrays, graphc.numpy traced, and NumPy itself traced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = case(np, *arrays)
    same(run(lambda *xs: case(gnp, *xs), *arrays), expected, rtol)
    if protocol:
        same(run(lambda *xs: case(np, *xs), *arrays), expected, rtol)


UNARY_FLOAT = ["sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "rint"]
UNARY_ANY = ["absolute", "abs", "square", "positive", "negative", "sign", "floor", "ceil", "trunc"]
ROUNDINGS = ["floor", "ceil", "trunc"]  # leave integers as they are; NumPy 2.0 makes floats of them
PREDICATES = ["isnan", "isfinite", "isinf", "logical_not"]


@pytest.mark.parametrize("name", UNARY_FLOAT)
@pytest.mark.parametrize("dtype", DTYPES[:-1])
def test_float_functions(name, dtype):
    x = np.abs(sample((3, 4), dtype)) + 1
    check(lambda xp, x: getattr(xp, name)(x), x)


@pytest.mark.parametrize("name", UNARY_ANY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_all_numbers(name, dtype):
    x = sample((3, 4), dtype)
    if dtype is np.bool_ and name in ("square", "negative", "sign", "positive"):
        with pytest.raises(DTypeError, match=r"is not defined on bool.*\n.*\n.*test_functions.py"):
            run(lambda x: getattr(gnp, name)(x), x)
    elif name in ROUNDINGS and not issubclass(dtype, np.floating):
        for xp in (gnp, np):
            same(run(getattr(xp, name), x), x)
    else:
        check(lambda xp, x: getattr(xp, name)(x), x)


@pytest.mark.parametrize("name", PREDICATES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_predicates(name, dtype):
    x = sample((4,), dtype)
    if dtype in DTYPES[:2]:
        x[:3] = np.nan, np.inf, -np.inf
    check(lambda xp, x: getattr(xp, name)(x), x)


@pytest.mark.parametrize("name", ["exp", "sqrt", "sin"])
def test_functions_that_numpy_gives_half_floats_for(name):
    with pytest.raises(DTypeError, match="is not defined on bool"):
        run(getattr(gnp, name), np.array([True]))


SMOOTH = {
    "tan": (-4, 4), "arcsin": (-1, 1), "arccos": (-1, 1), "arctan": (-9, 9), "sinh": (-9, 9),
    "cosh": (-9, 9), "arcsinh": (-9, 9), "arccosh": (1, 9), "arctanh": (-1, 1), "exp2": (-9, 9),
    "log2": (0, 9), "log10": (0, 9), "cbrt": (-9, 9), "sinc": (-4, 4), "deg2rad": (-360, 360),
    "degrees": (-9, 9),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("dtype", DTYPES)
def test_smooth_functions(name, dtype):
    if dtype is np.bool_:
        return
    low, high = SMOOTH[name]
    x = (low + (high - low) * np.random.default_rng(3).random((3, 5))).astype(dtype)
    check(lambda xp, x: getattr(xp, name)(x), x, rtol=3e-6 if dtype is np.float32 else 1e-13)


PAIRS = ["arctan2", "hypot", "fmod", "copysign", "heaviside", "fmax", "fmin", "floor_divide", "mod",
         "logaddexp", "logaddexp2"]  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_functions_of_two(name, dtype):
    x, y = sample((3, 4), dtype), sample((3, 4), dtype).T.reshape(3, 4) + dtype(0.5)
    check(
        lambda xp, x, y: getattr(xp, name)(x, y), x, y, rtol=3e-6 if dtype is np.float32 else 1e-13
    )


def test_divmod():
    x, y = sample((4,)), sample((4,))[::-1].copy()
    for given in (np.divmod, gnp.divmod, divmod):
        quotient, rest = run(lambda x, y, given=given: given(x, y), x, y)
        same(quotient, x // y)
        same(rest, x % y)


SPECIAL = {
    "erf": "erf", "erfc": "erfc", "erfinv": "erfinv", "ndtr": "ndtr", "log_ndtr": "log_ndtr",
    "lgamma": "gammaln", "digamma": "psi", "sigmoid": "expit", "log_sigmoid": "log_expit",
    "xlogy": "xlogy", "xlog1py": "xlog1py",
}  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
def test_functions_of_scipy_by_both_names(name):
    import scipy.special as sp

    import graphc

    x = np.random.default_rng(5).uniform(0.05, 0.95, 6)
    operands = (x, x[::-1].copy()) if name.startswith("xlog") else (x,)
    expected = getattr(sp, SPECIAL[name])(*operands)
    same(run(getattr(graphc, name), *operands), expected, 1e-12)
    same(run(getattr(sp, SPECIAL[name]), *operands), expected, 1e-12)


@pytest.mark.parametrize("decimals", [0, 2, -1])
def test_round(decimals):
    check(lambda xp, x: xp.round(x, decimals), sample((3, 4)) * 10)
    if decimals >= 0:
        check(lambda xp, x: xp.round(x, decimals), sample((3, 4), np.int32))


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1), (-1, 0), ()])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "mean", "var", "any", "all"])
def test_reductions(name, axis, keepdims):
    for shape in [(3, 4), (1, 4), (2, 3, 4), (0, 4), (3, 0)]:
        x = sample(shape)
        over = range(x.ndim) if axis is None else np.atleast_1d(np.array(axis, int))
        if name in ("max", "min") and any(x.shape[a] == 0 for a in over):
            with pytest.raises(ShapeError, match="nothing to choose from"):
                run(lambda x: getattr(gnp, name)(x, axis=axis, keepdims=keepdims), x)
            continue
        check(lambda xp, x: getattr(xp, name)(x, axis=axis, keepdims=keepdims), x)


@pytest.mark.parametrize(
    "name", ["sum", "prod", "max", "min", "mean", "var", "any", "all", "argmax", "argmin"]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions_keep_numpys_dtypes(name, dtype):
    check(lambda xp, x: getattr(xp, name)(x), sample((3, 4), dtype))
    check(lambda xp, x: getattr(xp, name)(x), sample((), dtype))


def test_reductions_with_a_dtype():
    check(lambda xp, x: xp.sum(x, dtype=np.float64), sample((3, 4), np.float32), rtol=1e-6)
    check(lambda xp, x: xp.mean(x, dtype=np.float64), sample((3, 4), np.int32))
    check(lambda xp, x: xp.sum(x, dtype=np.int32), sample((3, 4), np.int32))


@pytest.mark.parametrize("ddof", [0, 1, 3, 5])
def test_variance_with_few_numbers(ddof):
    check(lambda xp, x: xp.var(x, axis=0, ddof=ddof), sample((3, 4)))


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions(name, axis, keepdims):
    x = sample((3, 4))
    x[1, 2] = np.nan
    check(lambda xp, x: getattr(xp, name)(x, axis=axis, keepdims=keepdims), x)
    check(lambda xp, x: getattr(xp, name)(x, axis=axis, keepdims=keepdims), np.zeros((3, 4), int))


def test_count_nonzero():
    check(lambda xp, x: xp.count_nonzero(x, axis=1), sample((3, 4), np.int64))


@pytest.mark.parametrize("axis", [0, -1, (0, 1), None])
def test_distributions(axis):
    import scipy.special as sp

    import graphc

    for shape in [(3, 4), (2, 3, 4), (1, 4)]:
        x = sample(shape)
        for name in ("softmax", "log_softmax", "logsumexp"):
            expected = getattr(sp, name)(x, axis=axis)
            same(run(lambda x, name=name: getattr(graphc, name)(x, axis=axis), x), expected)


def test_logsumexp_keeps_dims_and_minus_infinity():
    import graphc

    x = np.full((2, 3), -np.inf)
    same(run(lambda x: graphc.logsumexp(x, axis=1, keepdims=True), x), np.full((2, 1), -np.inf))


MOVES = {
    "reshape": lambda xp, x: xp.reshape(x, (4, 3)),
    "reshape -1": lambda xp, x: xp.reshape(x, (2, -1)),
    "method reshape": lambda xp, x: x.reshape(-1, 6),
    "ravel": lambda xp, x: xp.ravel(x),
    "flatten": lambda xp, x: x.flatten(),
    "transpose": lambda xp, x: xp.transpose(x),
    "transpose axes": lambda xp, x: xp.transpose(x, (1, 0)),
    "T": lambda xp, x: x.T,
    "method transpose": lambda xp, x: x.transpose(1, 0),
    "swapaxes": lambda xp, x: xp.swapaxes(x, 0, -1),
    "moveaxis": lambda xp, x: xp.moveaxis(x, 0, 1),
    "broadcast_to": lambda xp, x: xp.broadcast_to(x, (2, 3, 4)),
    "expand_dims": lambda xp, x: xp.expand_dims(x, 1),
    "expand_dims two": lambda xp, x: xp.expand_dims(x, (0, -1)),
    "squeeze": lambda xp, x: xp.squeeze(x[:1, None]),
    "squeeze axis": lambda xp, x: xp.squeeze(x[:1, None], axis=1),
    "concatenate": lambda xp, x: xp.concatenate([x, x[:1], 2 * x]),
    "concatenate axis": lambda xp, x: xp.concatenate((x, x), axis=-1),
    "concatenate flat": lambda xp, x: xp.concatenate([x, x], axis=None),
    "stack": lambda xp, x: xp.stack([x, -x]),
    "stack last": lambda xp, x: xp.stack([x, -x], axis=-1),
    "vstack": lambda xp, x: xp.vstack([x[0], x]),
    "hstack": lambda xp, x: xp.hstack([x, x]),
    "hstack vectors": lambda xp, x: xp.hstack([x[0], x[1]]),
    "pad": lambda xp, x: xp.pad(x, 1),
    "pad pairs": lambda xp, x: xp.pad(x, ((0, 2), (1, 0)), constant_values=2.5),
    "flip": lambda xp, x: xp.flip(x),
    "flip axis": lambda xp, x: xp.flip(x, 1),
    "roll": lambda xp, x: xp.roll(x, 3, axis=1),
    "roll flat": lambda xp, x: xp.roll(x, -5),
    "tile": lambda xp, x: xp.tile(x, (2, 1, 3)),
    "repeat": lambda xp, x: xp.repeat(x, 2, axis=1),
    "diff": lambda xp, x: xp.diff(x, axis=0),
    "diff twice": lambda xp, x: xp.diff(x, n=2),
    "take flat": lambda xp, x: xp.take(x, [3, -1, 0]),
    "take axis": lambda xp, x: xp.take(x, np.array([[0, 2], [-1, 1]]), axis=1),
    "astype": lambda xp, x: xp.astype(x, np.float32),
    "where": lambda xp, x: xp.where(x > 0, x, -1.0),
    "clip": lambda xp, x: xp.clip(x, -1, 1),
    "clip below": lambda xp, x: xp.clip(x, 0.0, None),
    "clip above": lambda xp, x: xp.clip(x, None, 0.0),
    "zeros_like": lambda xp, x: xp.zeros_like(x),
    "ones_like": lambda xp, x: xp.ones_like(x, dtype=np.int32),
    "full_like": lambda xp, x: xp.full_like(x, 2.5),
}


@pytest.mark.parametrize("name", MOVES)
def test_movement(name):
    check(MOVES[name], sample((3, 4)))


def test_movement_of_empty_arrays():
    check(lambda xp, x: xp.reshape(x, (0, 2, 2)), sample((0, 4)))
    check(lambda xp, x: xp.concatenate([x, x[:0]]), sample((3, 4)))
    check(lambda xp, x: xp.stack([x, x]), sample((0,)))
    check(lambda xp, x: xp.flip(x, 0), sample((0, 4)))
    check(lambda xp, x: xp.pad(x, 1), sample((3, 0)))


MATMULS = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)), ((5, 2, 3), (1, 3, 4)), ((6, 1, 2, 3), (5, 3, 4)), ((2, 3), (5, 3, 4)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3,)), ((1, 2, 3), (1, 3, 4)), ((2, 0), (0, 4)), ((0, 3), (3, 4)), ((1, 1), (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize("shapes", MATMULS)
def test_matmul(shapes):
    a, b = (RNG.normal(size=s) for s in shapes)
    check(lambda xp, a, b: xp.matmul(a, b), a, b)
    check(lambda xp, a, b: a @ b, a, b)


@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES])
def test_matmul_of_dtypes(dtypes):
    a, b = sample((3, 4), dtypes[0]), sample((4,), dtypes[1])
    check(lambda xp, a, b: a @ b, a, b)


@pytest.mark.parametrize(
    "shapes", [((), (3,)), ((3,), (3,)), ((2, 3), (3,)), ((2, 3), (4, 3, 5)), ((6, 2, 3), (3, 5))]
)
def test_dot(shapes):
    check(lambda xp, a, b: xp.dot(a, b), *(RNG.normal(size=s) for s in shapes))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("known", [True, False], ids=["known sizes", "any sizes"])
def test_the_gradient_of_a_long_product(axis, known):
    """Exact at zeros, and some ten products for an element, not all others."""
    rng = np.random.default_rng(0)
    sizes = (1, 2, 7, 8, 9, 16, 17, 63, 64, 65, 129, 513, 1000)
    for n in sizes:
        shape = (3, n) if axis else (n, 3)
        ty = graphc.f64[shape if known else ((3, "n") if axis else ("n", 3))]

        @graphc.graph
        def f(x: ty):
            return (gnp.prod(x, axis) * gnp.arange(1.0, 4.0)).sum()

        x = rng.normal(size=shape) * 1.5
        rows = x if axis else x.T
        if n > 8:
            rows[0, 7] = rows[1, 2] = rows[1, n - 1] = 0.0
        want = np.zeros_like(rows)
        for j in range(n):
            others = rows.copy()
            others[:, j] = 1.0
            want[:, j] = others.prod(1) * [1.0, 2.0, 3.0]
        got = graphc.compile(f, wrt="x").value_and_grad(x)[1]
        np.testing.assert_allclose(got if axis else got.T, want, rtol=1e-12)


def test_the_second_derivative_of_a_long_product():
    x = np.random.default_rng(0).normal(size=20)
    x[[3, 17]] = 0.0
    ways = np.eye(20)
    second = np.array([graphc.hvp(lambda x: gnp.prod(x), (x,), (v,)) for v in ways])
    others = x.copy()
    others[[3, 17]] = 1.0
    assert np.isclose(second[3, 17], others.prod()) and np.isclose(second[17, 3], others.prod())
    second[[3, 17], [17, 3]] = 0.0
    assert not second.any()


def test_products():
    a, b = RNG.normal(size=(2, 3)), RNG.normal(size=(4, 3))
    check(lambda xp, a, b: xp.inner(a, b), a, b)
    check(lambda xp, a, b: xp.outer(a, b), a, b)
    check(lambda xp, a, b: xp.vdot(a, 2 * a), a, b)
    check(lambda xp, a, b: xp.tensordot(a, b, (1, 1)), a, b)
    check(lambda xp, a, b: xp.tensordot(a, b, ((1,), (1,))), a, b)
    check(lambda xp, a, b: xp.tensordot(a, xp.stack([a, a]), 1 - 1), a, b)
    check(
        lambda xp, a, b: xp.tensordot(a, a[None] * xp.ones((2, 3, 1)) if False else a.T @ a, 1),
        a,
        b,
    )


@pytest.mark.parametrize(
    "spec", ["ij,kj->ik", "ij,kj->ki", "ij,kj", "ij,kj->", "ij,kj->i", "ij,kj->ijk", "ij,kj->j"]
)
def test_einsum(spec):
    check(lambda xp, a, b: xp.einsum(spec, a, b), RNG.normal(size=(2, 3)), RNG.normal(size=(4, 3)))


@pytest.mark.parametrize("spec", ["ij->ji", "ij->i", "ij->", "ij"])
def test_einsum_of_one(spec):
    check(lambda xp, a: xp.einsum(spec, a), RNG.normal(size=(2, 3)))


@pytest.mark.parametrize("make", [
    lambda xp: xp.zeros((2, 3)), lambda xp: xp.ones(4, dtype=np.int32), lambda xp: xp.full((2,), 7),
    lambda xp: xp.full((2,), 1.5, dtype=np.float32), lambda xp: xp.arange(5),
    lambda xp: xp.arange(2, 11, 3),
    lambda xp: xp.arange(0.0, 1.0, 0.1), lambda xp: xp.arange(100), lambda xp: xp.eye(3),
    lambda xp: xp.eye(3, 4, 1),
    lambda xp: xp.linspace(0, 1, 5), lambda xp: xp.arange(9, 0, -2),
    lambda xp: xp.arange(3, dtype=np.int32),
])  # fmt: skip
def test_creation(make):
    same(make(gnp), make(np))
    same(run(lambda x: make(gnp) + 0 * x.astype(make(np).dtype), np.array(0.0)), make(np))


def test_creation_of_named_sizes():
    x = np.ones((3, 2))
    same(
        run(lambda x: gnp.arange(x.shape[0]) * gnp.ones((x.shape[0],), np.int64), x, symbolic=True),
        np.arange(3),
    )
    same(run(lambda x: gnp.eye(x.shape[0]), x, symbolic=True), np.eye(3))
    same(run(lambda x: gnp.full(x.shape, x[0, 0]), x, symbolic=True), np.ones((3, 2)))


def test_every_export_is_numpys_or_has_a_doc():
    for name in gnp.__all__:
        value = getattr(gnp, name)
        assert not callable(value) or isinstance(value, type) or value.__doc__, name


def test_functions_compile_themselves_on_arrays():
    same(gnp.sum(np.ones((2, 3)), axis=0), np.full(3, 2.0))
    same(gnp.concatenate([np.ones(2), np.zeros(3)]), np.r_[1.0, 1, 0, 0, 0])
    same(gnp.add(np.float32(1), 2.0), np.float32(3))
    same(gnp.multiply(y=2, x=np.arange(3)), np.arange(3) * 2)
    same(gnp.take(np.arange(4.0), [1, 2]), np.array([1.0, 2.0]))
