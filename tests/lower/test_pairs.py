"""Pairs of points that are visited once: the same bits as one row after the other, for numbers of
points around the ends of vectors, leaves and blocks, for any number of threads and every kind of
sum; and what is not the same for both of a pair is not taken to be."""

import numpy as np
import pytest

import graphc
from graphc.ir.types import f32, f64
from graphc.lower.lanes import in_lanes
from graphc.lower.loop_text import parse_program
from graphc.lower.loops import For, walk
from graphc.lower.pairs import EXAMPLE, MOST, in_pairs, least_points, pairing
from graphc.pipeline import Options
from graphc.report.plan import Plan
from graphc.runtime.kernel import compile_graph
from tests.random_checks import same

FLOATS = pytest.mark.parametrize("float_", [f32, f64], ids=str)
ISAS = pytest.mark.parametrize("isa", ["host", "v3"])
AROUND = (-1, 0, 1, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100)


def sizes(float_):
    """Below and above the least number of points, whole blocks and others."""
    least = least_points(float_)
    return [1, 33, *(least + k for k in AROUND), 2 * least - 1, 2 * least, 2 * least + 9]


def points(n, d, float_, seed=0):
    return np.random.default_rng(seed + n).normal(size=(n, d)).astype(float_.numpy)


def kernel_of(declared, wrt=(), skip=(), **options):
    graph = graphc.compile(declared).traced.graph
    return compile_graph(graph, Options(wrt=wrt, skip=frozenset(skip), **options))


def program_of(declared, wrt, skip=()):
    return parse_program(graphc.compile(declared, wrt=wrt, skip=skip).stages["plan"])


def modes(program):
    return {s.mode for k in program.kernels for s, _ in walk(k.body) if isinstance(s, For)}


def assert_same_bits(declared, make, numbers, wrt=(), isa="host"):
    """With pairs, by one thread and three, and without."""
    plain = kernel_of(declared, wrt, ("pairs",), isa=isa)
    ours = [kernel_of(declared, wrt, threads=t, isa=isa) for t in (1, 3)]
    assert "pairs" in modes(program_of(declared, wrt))
    assert "pairs" not in modes(program_of(declared, wrt, ("pairs",)))
    for n in numbers:
        args = make(n)
        want = [np.asarray(v) for v in plain(args)]
        for kernel in ours:
            for a, b in zip(kernel(args), want, strict=True):
                assert same(np.asarray(a), b), n


def energy_of(float_, d=3):
    @graphc.graph
    def energy(x: float_["n", d]):
        apart = x[:, None, :] - x[None, :, :]
        return 0.5 * (1.0 / np.sqrt((apart * apart).sum(axis=2) + 0.01)).sum()

    return energy


@ISAS
@FLOATS
def test_an_energy_and_its_forces(float_, isa):
    """A sum in lanes of what is the same for both, sums in rows of what is not."""
    assert_same_bits(
        energy_of(float_), lambda n: (points(n, 3, float_),), sizes(float_), ("x",), isa
    )


@FLOATS
def test_sums_of_all_kinds(float_):
    """In lanes and in rows, of what is the same for both and of what is not, with masses and a
    factor from outside."""

    @graphc.graph
    def sums(x: float_["n", 2], mass: float_["n"], scale: float_[()]):
        apart = x[:, None, :] - x[None, :, :]
        square = (apart * apart).sum(axis=2)
        near = np.exp(-square) * scale * (mass[:, None] * mass[None, :])
        return (
            near.sum(axis=1),
            (near * mass[None, :]).sum(axis=1).sum(),
            (near[:, :, None] * apart).sum(axis=1),
            (near[:, :, None] * np.abs(apart)).sum(axis=1),
            (near[:, :, None] * x[None, :, :] * mass[:, None, None]).sum(axis=1),
        )

    def make(n):
        r = np.random.default_rng(n)
        arrays = r.normal(size=(n, 2)), r.random(n)
        return (*(a.astype(float_.numpy) for a in arrays), np.array(0.7, float_.numpy))

    assert_same_bits(sums, make, sizes(float_)[::2])


@ISAS
@FLOATS
def test_a_rare_branch_with_more_arguments_than_registers(float_, isa):
    """LLVM refuses the convention of rare gates for these, and ends the process."""

    @graphc.graph
    def forces(x: float_["n", 3]):
        apart = x[:, None, :] - x[None, :, :]
        near = (apart * apart).sum(axis=2) ** 1.5
        return (near[:, :, None] * apart).sum(axis=1)

    assert_same_bits(
        forces, lambda n: (points(n, 3, float_),), (least_points(float_) + 1,), (), isa
    )


@FLOATS
def test_special_points(float_):
    """Infinities, NaN, points that are one, and coordinates all of which are the same: a gate's
    rare branch for some pairs, and zeros with the sign that they have."""
    with np.errstate(all="ignore"):
        special = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-310, 3e38, -1e300]

        def make(n):
            x = points(n, 3, float_)
            x[:, 2] = -0.0
            x[5] = x[7] = x[200 % n]
            if n % 2:
                x[::41, 0] = np.resize(np.array(special).astype(float_.numpy), len(x[::41]))
            return (x,)

        numbers = [n + k for n in (least_points(float_), 600) for k in (0, 1, 2, 3)]
        assert_same_bits(energy_of(float_), make, numbers, ("x",))


def test_points_of_known_number():
    @graphc.graph
    def forces(x: f64[1000, 2]):
        apart = x[:, None, :] - x[None, :, :]
        return (np.tanh((apart * apart).sum(axis=2))[:, :, None] * apart).sum(axis=1)

    assert_same_bits(forces, lambda n: (points(n, 2, f64),), [1000])


def test_more_points_than_there_is_memory_for():
    """Then every pair is visited twice, and no memory is kept; nor is it for a few points."""
    kernel = kernel_of(energy_of(f64, 1), ("x",))
    memory = Plan(program_of(energy_of(f64, 1), ("x",)))
    few, many = (memory.arena_bytes(n=n) for n in (MOST, MOST + 1))
    assert few > 5_000_000 and many < few / 10
    assert memory.arena_bytes(n=least_points(f64) - 1) < 10_000
    plain = kernel_of(energy_of(f64, 1), ("x",), ("pairs",))
    for n in (MOST, MOST + 1):
        x = points(n, 1, f64)
        for a, b in zip(kernel((x,)), plain((x,)), strict=True):
            assert same(np.asarray(a), np.asarray(b))


def loop_of(changed):
    program = in_lanes(parse_program(EXAMPLE.replace(*changed) if changed else EXAMPLE))
    return program, program.kernels[0].body[0]


def test_only_what_is_proved_to_be_the_same_is_handed_over():
    """exp of a square is; exp of the difference, or of one of the two, is not."""
    assert pairing(loop_of(None)[1]).handed == ("%7",)
    for changed in (
        ("call exp %5", "call exp %4"),
        ("call exp %5", "call exp %2"),
        ("mul %4, %4", "mul %4, %3"),
        ("load x[_i]", "load x[2*_i]"),
        ("mul %4, %4", "mul %2, %2"),
    ):
        program, loop = loop_of(changed)
        assert loop.mode == "lanes" and pairing(loop) is None
        assert in_pairs(program) == program


def test_two_factors_may_change_places():
    """m_i m_j is m_j m_i to the bit; m_i - m_j squared, too; m_i / m_j is not m_j / m_i."""
    both = ("%5 = mul %4, %4", "%5 = mul %2, %3")
    assert pairing(loop_of(both)[1]).handed == ("%7",)
    assert pairing(loop_of(("%5 = mul %4, %4", "%5 = div %2, %3"))[1]) is None


def test_what_the_loop_writes_is_not_read_before():
    """An array that rows are stored to as they are done."""
    changed = ("store f.out[_i] %1", "store x[_i] %1")
    assert pairing(loop_of(changed)[1]) is None
