"""Loops around loops in lanes: the same bits as one iteration after the other, at every count of
lanes in use, for every kind of sum inside and around, and against the reference."""

import numpy as np
import pytest

import graphc
from graphc.ir.reference import run_graph
from graphc.ir.text import parse_graph
from graphc.lower.lanes import in_lanes
from graphc.lower.loop_text import parse_program
from graphc.lower.loops import For, lane_count, walk
from graphc.pipeline import Options
from graphc.runtime.kernel import compile_graph

SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 129, 200)
FLOATS = pytest.mark.parametrize("float_", [graphc.f32, graphc.f64], ids=str)


def points(n, d, float_, seed=0):
    return np.random.default_rng(seed + n).normal(size=(n, d)).astype(float_.numpy)


def modes(compiled):
    program = parse_program(compiled.stages["plan"])
    return {s.mode for k in program.kernels for s, _ in walk(k.body) if isinstance(s, For)}


def assert_same_bits(declared, make, sizes=SIZES):
    """With the loop in lanes, by one thread and two, and without."""
    plain = graphc.compile(declared, skip=("lanes",))
    ours = [graphc.compile(declared, threads=t) for t in (1, 2)]
    for n in sizes:
        args = make(n)
        want = [np.asarray(v) for v in plain(*args)]
        for compiled in ours:
            for a, b in zip(compiled(*args), want, strict=True):
                assert np.asarray(a).tobytes() == b.tobytes(), n
    assert "lanes" in modes(ours[0]) and "lanes" not in modes(plain)
    return ours[0]


@FLOATS
def test_forces_between_two_sets(float_):
    """Sums of order `rows` inside, `lanes` inside and around, and a largest element of each."""

    @graphc.graph
    def forces(x: float_["n", 3], y: float_["m", 3]):
        apart = x[:, None, :] - y[None, :, :]
        near = 1.0 / np.sqrt((apart * apart).sum(axis=2) + 0.01)
        each = near.sum(axis=1)
        force = (near[:, :, None] * apart).sum(axis=1)
        return force, each.sum(), near.max(axis=1), (near.max(axis=1) - each).min()

    for m in (1, 2, 5, 31, 32, 33, 70, 128, 131):
        sizes = SIZES[1:] if m in (33, 128) else (1, 9, 40)
        assert_same_bits(
            forces, lambda n, m=m: (points(n, 3, float_), points(m, 3, float_, 7)), sizes
        )


def test_sums_of_nothing_are_plus_zero():
    @graphc.graph
    def forces(x: graphc.f64["n", 2], y: graphc.f64["m", 2]):
        apart = x[:, None, :] - y[None, :, :]
        return (apart * 2.0).sum(axis=1), np.exp(apart).sum(axis=1).sum()

    compiled = assert_same_bits(
        forces, lambda n: (points(n, 2, graphc.f64), points(0, 2, graphc.f64))
    )
    none, total = compiled(points(5, 2, graphc.f64), points(0, 2, graphc.f64))
    assert not np.signbit(none).any() and (none == 0).all() and total == 0


@FLOATS
def test_special_numbers_in_some_lanes(float_):
    """A gate's rare branch is taken for a lane here and there."""

    @graphc.graph
    def forces(x: float_["n", 3], y: float_["m", 3]):
        apart = x[:, None, :] - y[None, :, :]
        near = 1.0 / np.sqrt((apart * apart).sum(axis=2))
        weight = np.where(near < 1e300, np.log(near), near)
        return (weight[:, :, None] * apart).sum(axis=1), near.sum(axis=1)

    def make(n):
        x, y = points(n, 3, float_), points(41, 3, float_, 3)
        special = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-310, 3e38], dtype=float_.numpy)
        x[::5, 0] = np.resize(special, len(x[::5]))
        y[::7] = y[0]
        x[1::9] = y[0]
        return x, y

    with np.errstate(all="ignore"):
        assert_same_bits(forces, make)


@FLOATS
def test_the_gradient_of_an_energy_equals_the_reference(float_):
    @graphc.graph
    def energy(x: float_["n", 3]):
        apart = x[:, None, :] - x[None, :, :]
        return 0.5 * (1.0 / np.sqrt((apart * apart).sum(axis=2) + 0.01)).sum()

    compiled = graphc.compile(energy, wrt="x")
    for n in (1, 2, 7, 8, 33, 64, 100):
        x = points(n, 3, float_)
        value, gradient = compiled.value_and_grad(x)
        want = run_graph(parse_graph(compiled.stages["simplify"]), [x])
        assert np.asarray(value).tobytes() == np.asarray(want[0]).tobytes()
        assert gradient.tobytes() == want[1].tobytes()
    assert "lanes" in modes(compiled)


def test_operands_beside_each_other_along_the_lanes():
    """A matrix whose rows run along the lanes, indices of both loops, and integers."""

    @graphc.graph
    def weighted(x: graphc.f64["n", 2], w: graphc.f64["m", "n"], k: graphc.i64["m"]):
        kind = (k[None, :] % 3 == 0) | (graphc.arange(x.shape[0])[:, None] > k[None, :])
        weight = np.where(kind, w.T, -1.0) * graphc.arange(w.shape[0])[None, :]
        apart = x[:, None, :] * weight[:, :, None]
        return np.sin(apart).sum(axis=1), k[None, :].sum(axis=1)

    def make(n):
        r = np.random.default_rng(n)
        m = 37
        return r.normal(size=(n, 2)), r.normal(size=(m, n)), r.integers(-50, 50, m)

    assert_same_bits(weighted, make)


def test_registers_of_32_bytes():
    """One vector at a time where AVX-512 is not: the same bits."""

    @graphc.graph
    def forces(x: graphc.f64["n", 3], y: graphc.f64["m", 3]):
        apart = x[:, None, :] - y[None, :, :]
        return (np.exp(-(apart * apart).sum(axis=2))[:, :, None] * apart).sum(axis=1)

    args = points(45, 3, graphc.f64), points(70, 3, graphc.f64, 1)
    here = graphc.compile(forces)(*args)
    kernel = compile_graph(graphc.compile(forces).traced.graph, Options(isa="v3"))
    (narrow,) = kernel.run(list(args))
    assert here.tobytes() == narrow.tobytes()


PROGRAM = """program sums(x: f64[n,3], y: f64[m])
sizes m n
buffer output out.out: f64[n]
kernel k0
  for _i in n rows
    for _j in m vector
      acc %1: f64 sum rows
      %2 = load x[{index}] : f64
      %3 = load y[_j] : f64
      %4 = mul %2, %3 : f64
      add %1 %4
    store out.out[{store}] %1"""


@pytest.mark.parametrize(
    "index, store, mode",
    [
        ("3*_i", "_i", "lanes"),  # loaded before the inner loop
        ("_i+_j", "_i", "lanes"),
        ("3*_i+_j", "_i", "rows"),  # would be gathered for every _j
        ("_i", "0", "rows"),  # all iterations write one element
    ],
)
def test_which_loops_run_in_lanes(index, store, mode):
    program = parse_program(PROGRAM.format(index=index, store=store))
    (loop,) = in_lanes(program).kernels[0].body
    assert loop.mode == mode
    assert lane_count(loop) == 8


def test_a_short_inner_loop_is_not_worth_it():
    text = PROGRAM.format(index="3*_i", store="_i").replace("for _j in m", "for _j in 8")
    (loop,) = in_lanes(parse_program(text)).kernels[0].body
    assert loop.mode == "rows"
