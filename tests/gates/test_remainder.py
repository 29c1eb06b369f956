"""Remainders, and what works on signs and order: NumPy's bits, interpreted and compiled."""

import itertools

import numpy as np
import pytest

from graphc.gates.gate import registry
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph, run_scalar
from graphc.ir.types import TensorType, f32, f64, from_numpy
from graphc.runtime.kernel import compile_graph
from graphc.transforms.adjoint import adjoint

INF, NAN = np.inf, np.nan
BITS = {f64: np.int64, f32: np.int32}
DIVISIONS = {"fmod": np.fmod, "remainder": np.remainder, "floor_divide": np.floor_divide}
BY_HAND = {"fmod_huge": np.fmod, "floor_divide_huge": np.floor_divide}


def run(name, *args):
    """A gate by the interpreter."""
    dtypes = tuple(from_numpy(a.dtype) for a in args)
    return run_scalar(registry()[name].body_graph(dtypes), *args)


def graph_of(name, dtype):
    gate, builder = registry()[name], Builder()
    x = [builder.input(p, dtype["n"]) for p in gate.params]
    return builder.graph("f", {"y": gate(*x)})


def compiled(name, *args):
    return compile_graph(graph_of(name, from_numpy(args[0].dtype))).run(list(args))[0]


def gradient(name, *args):
    """The derivatives by each operand."""
    graph = graph_of(name, from_numpy(args[0].dtype))
    names = tuple(n["name"] for n in graph.inputs)
    found = run_graph(adjoint(graph, names, "input"), [*args, np.ones_like(args[0])])
    return found[-len(names) :]


def same_bits(got, want, *args):
    """Equal to the last bit and the sign of zeros; all NaNs are one."""
    bits = np.int64 if want.dtype == np.float64 else np.int32
    wrong = (got.view(bits) != want.view(bits)) & ~(np.isnan(got) & np.isnan(want))
    assert got.dtype == want.dtype
    at = np.flatnonzero(wrong)[:3]
    assert not wrong.any(), [tuple(v[i] for v in (*args, got, want)) for i in at]


def specials(dtype):
    info = np.finfo(dtype.numpy)
    some = [0.0, 0.1, 1.0, 3.0, 2.5, 1e-30, 1e30, INF, NAN]
    some += [info.max, info.tiny, info.smallest_subnormal, 1 - info.epsneg, 1 + info.eps]
    return np.array([*some, *(-v for v in some)], dtype.numpy)


def pairs(dtype):
    """Any two floats; ordinary ones; x next to a multiple of y, with quotients of every size."""
    rng, real, bits = np.random.default_rng(3), dtype.numpy, BITS[dtype]
    info, n, digits = np.iinfo(bits), 4000, np.finfo(real).nmant
    yield tuple(rng.integers(info.min, info.max, n, bits).view(real) for _ in range(2))
    yield tuple((rng.normal(size=n) * size).astype(real) for size in (9, 1))
    y = np.ldexp(rng.normal(size=n), rng.integers(-20, 20, n)).astype(real)
    times = np.rint(np.exp2(rng.uniform(0, digits + 12, n)))
    for whole in (np.ldexp(np.rint(np.ldexp(y, 28)), -28).astype(real), y):
        x = (whole * times).astype(real)
        yield (x.view(bits) + rng.integers(-2, 3, n).astype(bits)).view(real), whole
    tiny = rng.integers(1, 2**20, n).astype(bits).view(real)
    yield (x, tiny)
    yield tuple(np.array(list(itertools.product(specials(dtype), repeat=2))).T.copy())


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", [*DIVISIONS, *BY_HAND])
def test_division_has_the_bits_of_numpy(name, dtype):
    function = (DIVISIONS | BY_HAND)[name]
    for x, y in pairs(dtype):
        with np.errstate(all="ignore"):
            want = function(x, y)
        same_bits(run(name, x, y), want, x, y)


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", DIVISIONS)
def test_compiled_division_has_the_bits_of_numpy(name, dtype):
    """Also where one lane among ordinary ones has a large quotient."""
    kernel = compile_graph(graph_of(name, dtype))
    for x, y in pairs(dtype):
        with np.errstate(all="ignore"):
            want = DIVISIONS[name](x, y)
        same_bits(kernel.run([x, y])[0], want, x, y)
    for n in range(1, 67):
        x, y = np.linspace(-9, 9, n).astype(dtype.numpy), np.full(n, 0.7, dtype.numpy)
        x[n // 2] = 1e30
        same_bits(kernel.run([x, y])[0], DIVISIONS[name](x, y), x, y)


def test_b22():
    """What NUMERICS.md names."""
    one = np.ones(1)
    assert run("remainder", -1e-300 * one, one)[0] == 1.0
    assert run("remainder", -5 * one, INF * one)[0] == INF
    assert np.isnan(run("remainder", one, 0 * one)[0])
    assert run("floor_divide", one, 0.1 * one)[0] == 9.0


@pytest.mark.parametrize("dtype", [f64, f32])
def test_derivatives_of_division(dtype):
    """A38: those of x - y q are 1 and -q, with the q that the remainder belongs to."""
    x = np.array([7.5, -7.5, 7.5, -7.5, 6.0, 1e-3, 1e10], dtype.numpy)
    y = np.array([2.0, 2.0, -2.0, -2.0, 3.0, 7.0, 3.0], dtype.numpy)
    for name, q in (("remainder", np.floor_divide(x, y)), ("fmod", np.trunc(x / y))):
        dx, dy = gradient(name, x, y)
        assert (dx == 1).all() and dx.dtype == x.dtype
        np.testing.assert_allclose(dy, -q, rtol=4 * np.finfo(x.dtype).eps)
    assert not np.any(gradient("floor_divide", x, y))
    just_below = np.array([3 * 0.1])  # over 0.1, rounds to 3; the whole quotient is 3, too
    for x in (just_below, np.nextafter(just_below, 0), np.array([0.3])):
        q = (x - np.fmod(x, 0.1)) / 0.1
        assert gradient("fmod", x, np.array([0.1]))[1] == -np.rint(q)


# -- signs and order -------------------------------------------------------------------------------

ORDER = {"copysign": np.copysign, "fmax": np.fmax, "fmin": np.fmin, "heaviside": np.heaviside}


@pytest.mark.parametrize("how", [run, compiled])
@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize("name", ORDER)
def test_order_is_that_of_numpy(name, dtype, how):
    x, y = np.array(list(itertools.product(specials(dtype), repeat=2))).T.copy()
    got, want = how(name, x, y), ORDER[name](x, y)
    if name == "copysign":  # B6: the sign of a NaN says nothing
        want = np.where(np.isnan(y), np.abs(x), want)
    if name in ("fmax", "fmin"):  # of two zeros, ours are ordered
        zeros = (x == 0) & (y == 0)
        both = np.signbit(x) | np.signbit(y) if name == "fmin" else np.signbit(x) & np.signbit(y)
        want[zeros] = np.where(both, -0.0, 0.0)[zeros]
    same_bits(got, want, x, y)


@pytest.mark.parametrize("dtype", [f64, f32])
@pytest.mark.parametrize(
    "name, function",
    [("sign", np.sign), ("trunc", np.trunc), ("round", np.rint), ("ceil", np.ceil),
     ("floor", np.floor), ("abs", np.abs), ("square", np.square), ("reciprocal", np.reciprocal)],
)  # fmt: skip
def test_rounding_is_that_of_numpy(name, function, dtype):
    x = np.r_[specials(dtype), np.arange(-4, 4.25, 0.25), -0.3, 2**22 + 0.5, 2**51 + 0.5, 2.0**60]
    x = x.astype(dtype.numpy)
    with np.errstate(all="ignore"):
        want = function(x) + np.zeros(1, x.dtype) if name == "sign" else function(x)
    same_bits(run(name, x), want, x)
    same_bits(compiled(name, x), want, x)


def test_derivatives_of_signs_and_order():
    x, y = np.array([2.0, -2.0, 2.0, -2.0, 0.0, -0.0, NAN]), np.array([1, 1, -1, -0.0, 1, -1, 1.0])
    dx, dy = gradient("copysign", x, y)
    assert dx[:-1].tolist() == [1, -1, -1, 1, 0, 0] and not dy.any()
    x, y = np.array([1.0, 2.0, 1.0, 0.0, NAN, 1.0]), np.array([2.0, 1.0, 1.0, -0.0, 1.0, NAN])
    for name in ("fmax", "fmin"):
        dx, dy = gradient(name, x, y)
        larger = [0, 1] if name == "fmax" else [1, 0]
        assert dx.tolist() == [*larger, 0.5, 0.5, 0, 1] and (dx + dy == 1).all()
    dx, dy = gradient("heaviside", np.array([-1.0, 0.0, -0.0, 2.0]), np.full(4, 0.3))
    assert not dx.any() and dy.tolist() == [0, 1, 1, 0]


def test_integers_have_no_derivative():
    from graphc.ir.types import i64

    builder = Builder()
    x = builder.input("x", TensorType(f64, (3,)))
    whole = builder.input("i", TensorType(i64, (3,)))
    graph = builder.graph("f", {"y": x * registry()["fmod"](whole, whole).cast(f64)})
    found = run_graph(
        adjoint(graph, ("x",), "input"), [np.ones(3), np.array([1, 0, -7]), np.ones(3)]
    )
    assert not found[-1].any()


def test_a_remainder_and_its_gradient_share_the_long_division():
    """The derivative by y is a quotient, whose routine calls the remainder's."""
    import graphc
    from graphc.codegen.units import units
    from graphc.pipeline import Options, run_stages

    def folded(x: graphc.f64["n"], y: graphc.f64["n"]):
        return (x % y).sum()

    text = run_stages(graphc.graph(folded).graph, Options(wrt=("x", "y")), last="emit")
    _, *routines = units(text)
    long = [r for r in routines if r.count("roundeven") > 40]
    assert len(long) == 1 and len(routines) > 1
