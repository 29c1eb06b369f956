"""Pairs of points that are visited once: the same bits as one row after the other, for numbers of
points around the ends of vectors, leaves and blocks, for any number of threads and whatever is
summed; and what is not the same for both of a pair is not taken to be."""

import numpy as np
import pytest

import graphc
from graphc.codegen import visits
from graphc.ir.types import f32, f64
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
    around = [least + k for k in AROUND]
    return [1, 33, *around, 2 * least - 1, 2 * least, 2 * least + 9, 3 * least - 5]


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
    """A sum of what is the same for both, and sums of what is the opposite."""
    assert_same_bits(
        energy_of(float_), lambda n: (points(n, 3, float_),), sizes(float_), ("x",), isa
    )


@FLOATS
def test_two_vectors_of_rows_in_one(float_, monkeypatch):
    """As with AVX-512, on any processor."""
    monkeypatch.setattr(visits, "abreast", lambda fn: 2)

    @graphc.graph
    def energy(x: float_["n", 2], mass: float_["n"]):
        apart = x[:, None, :] - x[None, :, :]
        near = np.exp(-(apart * apart).sum(axis=2))
        return (near * mass[None, :]).sum()

    def make(n):
        return points(n, 2, float_), points(n, 1, float_)[:, 0]

    assert_same_bits(energy_of(float_, 2), lambda n: make(n)[:1], sizes(float_)[::2], ("x",))
    assert_same_bits(energy, make, sizes(float_)[::3])


@ISAS
@FLOATS
def test_an_energy_alone(float_, isa):
    numbers = sizes(float_)[::3]
    assert_same_bits(energy_of(float_), lambda n: (points(n, 3, float_),), numbers, (), isa)


@pytest.mark.parametrize("d", [9, 16])
@FLOATS
def test_many_coordinates(float_, d):
    """They are written out, too, and their sums do not all fit into registers."""
    make, numbers = (lambda n: (points(n, d, float_),)), sizes(float_)[::5]
    assert_same_bits(energy_of(float_, d), make, numbers, ("x",))


@FLOATS
def test_sums_of_all_kinds(float_):
    """Of what is the same for both and of what is not, with masses and a factor from outside. An
    opposite whose zeros have signs is computed for each of the two."""

    @graphc.graph
    def sums(x: float_["n"], y: float_["n"], mass: float_["n"], scale: float_[()]):
        across, up = x[:, None] - x[None, :], y[:, None] - y[None, :]
        near = np.exp(-(across * across + up * up)) * scale * (mass[:, None] * mass[None, :])
        return (
            near.sum(axis=1),
            (near * mass[None, :]).sum(axis=1).sum(),
            (near * across).sum(axis=1),
            (near * np.abs(up)).sum(axis=1),
            (near * x[None, :] * mass[:, None]).sum(axis=1),
        )

    def make(n):
        r = np.random.default_rng(n)
        arrays = r.normal(size=n), r.normal(size=n).round(1), r.random(n)
        return (*(a.astype(float_.numpy) for a in arrays), np.array(0.7, float_.numpy))

    assert_same_bits(sums, make, sizes(float_)[::2])


@ISAS
@FLOATS
def test_pairs_that_are_not_symmetric(float_, isa):
    """A force of (i, j) and one of (j, i), of which only the distance is the same."""

    @graphc.graph
    def energy(x: float_["n", 3], mass: float_["n"]):
        apart = x[:, None, :] - x[None, :, :]
        near = np.exp(-(apart * apart).sum(axis=2))
        return (mass[:, None] / (near + 1.0) * mass[None, :]).sum()

    def make(n):
        return points(n, 3, float_), points(n, 1, float_)[:, 0]

    assert_same_bits(energy, make, sizes(float_)[::3], ("x",), isa)


@FLOATS
def test_what_a_column_takes_may_be_made_in_an_early_piece(float_):
    """A value that only the columns' sums need was lost where a body is cut behind it."""

    @graphc.graph
    def sums(x: float_["n"], y: float_["n"]):
        across, up = x[:, None] - x[None, :], y[:, None] - y[None, :]
        square = across * across + up * up
        near, far = np.exp(-square) * np.cos(square), np.log1p(square)
        most = np.maximum(near, x[:, None])
        mixed = ((near + x[:, None]) * far + y[:, None]) * near - x[:, None]
        return most.sum(axis=1), mixed.sum(axis=1)

    def make(n):
        return points(n, 1, float_)[:, 0] ** 2, points(n, 1, float_, 1)[:, 0]

    assert_same_bits(sums, make, sizes(float_)[::4])


@ISAS
@FLOATS
def test_a_rare_branch_with_more_arguments_than_registers(float_, isa):
    """LLVM refuses the convention of rare gates for these, and ends the process."""

    @graphc.graph
    def energy(x: float_["n", 3]):
        apart = x[:, None, :] - x[None, :, :]
        return ((apart * apart).sum(axis=2) ** 1.5).sum()

    n = least_points(float_) + 1
    assert_same_bits(energy, lambda n: (points(n, 3, float_),), (n,), ("x",), isa)


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
    def energy(x: f64[1000, 2]):
        apart = x[:, None, :] - x[None, :, :]
        return np.tanh((apart * apart).sum(axis=2)).sum()

    assert_same_bits(energy, lambda n: (points(n, 2, f64),), [1000], ("x",))


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


def loop_of(*changed):
    text = EXAMPLE
    for old, new in changed:
        assert old in text
        text = text.replace(old, new)
    program = parse_program(text)
    return program, program.kernels[0].body[0]


def test_only_what_is_proved_to_be_the_same_is_computed_once():
    """exp of a square is; exp of the difference, or of one of the two, is not."""
    assert pairing(loop_of()[1]).columns == {"%1": ("%8", -1)}
    for changed in (
        ("call exp %5", "call exp %4"),
        ("call exp %5", "call exp %2"),
        ("mul %4, %4", "mul %4, %3"),
        ("load x[_i]", "load x[2*_i]"),
        ("mul %4, %4", "mul %2, %2"),
    ):
        program, loop = loop_of(changed)
        assert pairing(loop) is None
        assert in_pairs(program) == program


def test_two_factors_may_change_places():
    """m_i m_j is m_j m_i to the bit; m_i - m_j squared, too; m_i / m_j is not m_j / m_i."""
    both = ("%5 = mul %4, %4", "%5 = mul %2, %3")
    assert pairing(loop_of(both)[1]).columns == {"%1": ("%8", -1)}
    assert pairing(loop_of(("%5 = mul %4, %4", "%5 = div %2, %3"))[1]) is None


def test_opposites_whose_zeros_have_signs_are_computed_for_each():
    """a - a is +0 either way, and its opposite -0: a `sum` of zeros would tell."""
    (found,) = (pairing(loop_of(("sum0 lanes", "sum lanes"))[1]),)
    assert found.columns == {"%1": ("%8~", 1)}
    assert [s.name for s in found.mirrored] == ["%4~", "%8~"]  # x_i is the other's x_j


@pytest.mark.parametrize(
    "force, sign",
    [
        ("mul %7, %4", -1),
        ("div %4, %7", -1),
        ("div %7, %4", 1),  # 1/0 tells the sign of a zero
        ("sub %4, %7", 1),
        ("add %4, %4", -1),
        ("neg %4", -1),
        ("mul %4, %4", 1),
        ("fma %7, %4, %4", 1),
    ],
)
def test_what_is_linear_in_opposites_is_opposite(force, sign):
    _, loop = loop_of(("%8 = mul %7, %4", f"%8 = {force}"), ("add %1 %8", "add %1 %8"))
    found = pairing(loop)
    same = force == "mul %4, %4"
    assert found.columns["%1"] == ("%8" if sign == -1 or same else "%8~", sign)


def test_sums_in_rows_are_not_cut_into_lanes():
    """A row's lanes are what a column would have to add up one after the other."""
    assert pairing(loop_of(("sum0 lanes", "sum rows"))[1]) is None


def test_what_the_loop_writes_is_not_read_before():
    """An array that rows are stored to as they are done."""
    assert pairing(loop_of(("store f.out[_i] %1", "store x[_i] %1"))[1]) is None
