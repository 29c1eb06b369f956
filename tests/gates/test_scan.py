"""Running sums, products and recurrences: NumPy's bits, gradients that are exact at zeros."""

from fractions import Fraction

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.errors import DTypeError, ShapeError
from graphc.gates.gate import registry
from graphc.gates.scan import Scan, run_scan
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph
from graphc.ir.types import bool_, f32, f64
from graphc.transforms.adjoint import adjoint

SCANS = [g.name for g in registry().values() if isinstance(g, Scan)]
DTYPES = (np.float64, np.float32, np.int64, np.int32, np.bool_)
SHAPES = [
    (0,), (1,), (5,), (16,), (1000,), (3, 0), (0, 3), (3, 4), (9, 1), (7, 8), (8, 17), (33, 3),
    (50, 130), (4, 5, 6), (7, 1, 3), (2, 9, 40), (3, 8, 2, 5),
]  # fmt: skip


def numbers(shape, dtype=np.float64, seed=0):
    """Some of each: zeros of both signs, infinities and NaN among floats."""
    rng = np.random.default_rng(seed)
    if dtype is np.bool_:
        return rng.random(shape) < 0.7
    x = (rng.normal(size=shape) * 3).astype(dtype)
    if np.issubdtype(dtype, np.floating):
        for k, odd in enumerate((0.0, -0.0, np.inf, np.nan, 1e-310)):
            x.reshape(-1)[7 + 13 * k :: 97] = odd
    return x


def assert_same(ours, numpys):
    """The same to the bit, but for the sign and the payload of NaNs."""
    assert (ours.dtype, ours.shape) == (numpys.dtype, numpys.shape)
    if ours.dtype.kind == "f":
        ours, numpys = (np.where(np.isnan(x), np.nan, x) for x in (ours, numpys))
    assert ours.tobytes() == numpys.tobytes()


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_values_are_numpys_to_the_bit(name, dtype):
    for shape in SHAPES:
        x = numbers(shape, dtype)
        for axis in (None, *range(-x.ndim, x.ndim)):
            with np.errstate(all="ignore"):
                expected = getattr(np, name)(x, axis=axis)
            assert_same(getattr(graphc, name)(x, axis=axis), expected)


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_sizes_with_names(name):
    @graphc.graph
    def declared(x: graphc.f64["n", "m"]):
        return [getattr(gnp, name)(x, axis=axis) for axis in (0, 1)]

    compiled = graphc.compile(declared)
    for shape in [(0, 0), (0, 5), (5, 0), (1, 1), (7, 9), (8, 8), (9, 17), (16, 100), (67, 33)]:
        x = numbers(shape, seed=1)
        for axis, ours in enumerate(compiled(x)):
            with np.errstate(all="ignore"):
                assert_same(ours, getattr(np, name)(x, axis=axis))


def test_inputs_of_any_stride():
    x = numbers((40, 60))
    for view in (x[::-1], x[:, ::-2], x.T, x[::3, 5:], np.broadcast_to(x[0], (9, 60))):
        for axis in (0, 1, None):
            with np.errstate(all="ignore"):
                assert_same(graphc.cumsum(view, axis=axis), np.cumsum(view, axis=axis))


def test_numbers_and_dtypes():
    for value in (5.0, np.float32(3), 7, True):
        assert_same(graphc.cumsum(value), np.cumsum(value))
    for axis in (0, -1):
        assert_same(graphc.cumprod(np.array(3.0), axis=axis), np.cumprod(np.array(3.0), axis=axis))
    x = np.arange(5, dtype=np.int32)
    for dtype in (np.float32, np.float64, np.int32):
        assert_same(graphc.cumsum(x, dtype=dtype), np.cumsum(x, dtype=dtype))


def test_plain_numpy_code_traces():
    x = numbers((6, 7))

    def function(x):
        first = np.cumsum(x, axis=1) + x.cumprod(axis=0).cumsum(1)
        return np.add.accumulate(first), np.multiply.accumulate(x, axis=1), np.cumprod(x)

    with np.errstate(all="ignore"):
        for ours, numpys in zip(graphc.jit(function)(x), function(x), strict=True):
            assert_same(ours, numpys)


def test_errors_say_what_is_wrong():
    with pytest.raises(ShapeError, match=r"axis 2 of an array of rank 2 at test_scan.py:\d+"):
        graphc.cumsum(np.ones((2, 2)), axis=2)
    with pytest.raises(ShapeError, match=r"axis 1 of an array of rank 1"):
        graphc.cumprod(1.0, axis=1)
    b = Builder()
    x, m, flag = b.input("x", f64[3]), b.input("m", f64[2, 2]), b.input("flag", bool_[3])
    with pytest.raises(ShapeError, match=r"cumsum: axis 1 of f64\[3\]"):
        b.apply("cumsum", x, axis=1, reverse=False)
    with pytest.raises(ShapeError, match="recurrence: operands have the shapes"):
        b.apply("recurrence", x, m, axis=0, reverse=False)
    with pytest.raises(DTypeError, match="cumsum is not defined on"):
        b.apply("cumsum", flag, axis=0, reverse=False)
    with pytest.raises(DTypeError, match="recurrence is not defined on"):
        b.apply("recurrence", x.cast(f32), x, axis=0, reverse=False)


@pytest.mark.parametrize("name", SCANS)
def test_backwards_is_forwards_on_what_is_turned(name):
    operands = [numbers((11, 4), seed=i) for i in range(len(registry()[name].params))]
    for axis in (0, 1):
        turned = [np.flip(x, axis) for x in operands]
        with np.errstate(all="ignore"):
            backwards = run_scan(name, operands, axis, reverse=True)
            assert_same(backwards, np.flip(run_scan(name, turned, axis), axis))


def test_a_recurrence_by_hand():
    """Rounded once a step; where the value before is 0, a factor of infinity does not matter."""
    a, b = np.array([np.nan, 0.5, np.inf, 3.0]), np.array([-0.0, -0.0, 2.0, 0.1])
    assert run_scan("recurrence", [a, b], 0).tolist() == [0.0, 0.0, 2.0, 6.1]
    a, b = (np.random.default_rng(i).normal(size=30) for i in (1, 2))
    before = Fraction(0)
    for i, value in enumerate(run_scan("recurrence", [a, b], 0)):
        exact = Fraction(a[i]) * before + Fraction(b[i])
        assert float(exact) == value
        before = Fraction(value)


# -- gradients -------------------------------------------------------------------------------------


def slopes(x, weights):
    """The gradient of sum(weights * cumprod(x)) in exact arithmetic."""
    x, weights = ([Fraction(float(v)) for v in row] for row in (x, weights))
    found = []
    for k in range(len(x)):
        total = Fraction(0)
        for i in range(k, len(x)):
            others = Fraction(1)
            for j in (j for j in range(i + 1) if j != k):
                others *= x[j]
            total += weights[i] * others
        found.append(float(total))
    return found


@pytest.mark.parametrize("zeros", [(), (0,), (3,), (9,), (2, 5), (0, 9), (4, 5, 6), range(10)])
def test_products_with_zeros_have_exact_gradients(zeros):
    rng = np.random.default_rng(len(zeros))
    x, w = (rng.integers(1, 4, 10).astype(float) for _ in range(2))
    x[list(zeros)] = 0.0
    gradient = graphc.grad(lambda x: (w * gnp.cumprod(x)).sum())(x)
    assert gradient.tolist() == slopes(x, w)
    rows = graphc.grad(lambda x: (w * gnp.cumprod(x, axis=1)).sum())(np.stack([x] * 20))
    assert (rows == gradient).all()
    columns = np.stack([x] * 20, axis=1)
    down = graphc.grad(lambda x: (w[:, None] * gnp.cumprod(x, axis=0)).sum())(columns)
    assert (down == gradient[:, None]).all()


def test_second_derivatives_at_zeros():
    """Of x0 x1 x2 by two of them: the third one."""
    x = np.array([2.0, 0.0, 5.0])
    for k in range(3):
        row = graphc.grad(lambda x, k=k: graphc.grad(lambda x: gnp.cumprod(x)[-1])(x)[k])(x)
        others = [[0.0 if i == k else float(x[3 - i - k]) for i in range(3)]]
        assert row.tolist() == others[0]


def test_an_infinite_element_behind_the_chosen_ones_does_not_matter():
    x = np.array([2.0, 3.0, np.inf, np.nan, 0.5])
    first = np.arange(5) < 2

    def loss(x):
        return gnp.where(first, gnp.cumprod(x), 0.0).sum()

    assert graphc.grad(loss)(x).tolist() == [4.0, 2.0, 0.0, 0.0, 0.0]


def test_sums_have_gradients_of_running_sums():
    x, w = (np.random.default_rng(i).normal(size=(5, 37)) for i in (3, 4))
    for axis in (0, 1):
        gradient = graphc.grad(lambda x, axis=axis: (w * gnp.cumsum(x, axis=axis)).sum())(x)
        assert_same(gradient, np.flip(np.cumsum(np.flip(w, axis), axis), axis))


CERTIFIED = {
    "cumsum": lambda x: gnp.sin(gnp.cumsum(x, axis=1)).sum(),
    "cumprod": lambda x: gnp.sin(gnp.cumprod(x, axis=0)).sum(),
    "both": lambda x: gnp.exp(-gnp.cumsum(gnp.cumprod(x, axis=1) * x, axis=0)).mean(),
    "flat": lambda x: (gnp.cumprod(x)[::-1] * gnp.cumsum(x)).sum(),
    "drawdown": lambda x: gnp.log1p(gnp.cumprod(1 + x * x, axis=1) / x.shape[1]).max(axis=1).sum(),
}


@pytest.mark.parametrize("name", CERTIFIED)
@pytest.mark.parametrize("shape", [(3, 4), (9, 20), (1, 1)])
def test_certified(name, shape):
    """Value and gradient against dual numbers of 40 digits."""
    x = np.random.default_rng(5).uniform(0.5, 1.5, shape)
    assert graphc.check(CERTIFIED[name], x).ok


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_gradients(name, reverse):
    """The adjoint of an adjoint, against quotients of differences of the adjoint."""
    b = Builder()
    operands = [b.input(p, f64[6]) for p in registry()[name].params]
    y = b.apply(name, *operands, axis=0, reverse=reverse)
    loss = b.apply("square", y).sum(0)
    first = adjoint(b.graph("f", {"loss": loss}), registry()[name].params)
    rng = np.random.default_rng(9)
    args, way = ([rng.uniform(0.5, 1.5, 6) for _ in operands] for _ in range(2))
    b = Builder()
    inputs = [b.input(n["name"], n.type) for n in first.inputs]
    gradients = list(b.inline(first, inputs).values())[1:]
    along = sum(
        ((g * b.array(v, f64[6])).sum(0) for g, v in zip(gradients, way, strict=True)),
        start=b.constant(0.0, loss.type),
    )
    second = adjoint(b.graph("g", {"loss": along}), registry()[name].params)

    def gradient(args):
        return np.concatenate(run_graph(first, args)[1:])

    step = 1e-6
    ahead, back = ([x + s * v for x, v in zip(args, way, strict=True)] for s in (step, -step))
    quotient = (gradient(ahead) - gradient(back)) / (2 * step)
    np.testing.assert_allclose(np.concatenate(run_graph(second, args)[1:]), quotient, rtol=1e-7)
