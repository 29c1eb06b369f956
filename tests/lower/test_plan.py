"""Lifetimes, slots, private buffers, and what a plan says a program costs."""

import doctest
from dataclasses import replace

import pytest

import graphc.lower.plan as plans
from graphc.errors import VerifyError
from graphc.ir.types import Dim, TensorType, evaluate, f32, f64
from graphc.lower.fuse import fuse
from graphc.lower.loop_text import parse_program
from graphc.lower.loops import Buffer, For, Kernel, Load, Program, Store
from graphc.lower.plan import lifetimes, plan, tree_levels, verify_plan
from graphc.report.plan import Plan, passes_over
from tests.lower.graphs import GRAPHS, graph

i, n = Dim.symbol("_i"), Dim.symbol("n")


def chain(sizes, dtype=f64):
    """x -> t0 -> t1 -> ... -> y, a kernel for each arrow; every temp lives in two kernels."""
    names = ["x", *(f"t{at}" for at in range(len(sizes))), "y.out"]
    roles = ["input", *["temp"] * len(sizes), "output"]
    types = [f64["n"], *(TensorType(dtype, (s,)) for s in sizes), f64["n"]]
    kernels = [
        Kernel(f"k{at}", (For("_i", 1, (), (Load("%1", a, i, f64), Store(b, i, "%1"))),))
        for at, (a, b) in enumerate(zip(names, names[1:], strict=False))
    ]
    buffers = tuple(map(Buffer, names, roles, types))
    return Program("chain", ("n",), buffers, tuple(kernels))


def offsets(program):
    return [b.offset for b in program.of_role("temp")]


# -- slots ----------------------------------------------------------------------------------------


def test_a_dead_slot_of_the_same_bytes_is_used_again():
    planned = plan(chain([n, n, n, n]))
    size = 64 * ((8 * n + 63) // 64)
    assert offsets(planned) == [0, size, 0, size]
    assert planned.arena == 2 * size


def test_the_smallest_known_slot_that_is_large_enough_is_used_again():
    planned = plan(chain([100, 8, 50, 7, 1]))
    assert offsets(planned) == [0, 832, 0, 832, 0]
    assert planned.arena == 832 + 64


def test_best_fit():
    found = plans._Free()
    for slot, size in enumerate((64, 640, 128)):
        found.give(slot, size)
    assert [found.take(s) for s in (100, 100, 100, 64)] == [2, 1, None, 0]


def test_symbolic_sizes_share_only_if_equal():
    planned = plan(chain([n, n + 1, n + 1, n]))
    first, second = 64 * ((8 * n + 63) // 64), 64 * ((8 * n + 71) // 64)
    assert offsets(planned) == [0, first, first + second, 0]
    assert planned.arena == first + 2 * second


def test_known_sizes_come_first_and_all_offsets_are_aligned():
    planned = plan(chain([n, 3, n * n]))
    assert offsets(planned) == [64, 0, 64 * ((8 * n + 63) // 64) + 64]
    for size in range(5):
        assert all(evaluate(o, {"n": size}) % 64 == 0 for o in (*offsets(planned), planned.arena))


def test_empty_temps_have_offsets_of_their_own():
    planned = plan(chain([0, 0]))
    assert offsets(planned) == [0, 64]
    verify_plan(planned)


def test_without_reuse_every_temp_has_its_own_slot():
    planned = plan(chain([n, n, n, n]), frozenset({"reuse"}))
    assert len(set(offsets(planned))) == 4
    verify_plan(planned)


def test_no_temps_no_arena():
    planned = plan(chain([]))
    assert planned.arena == 0
    verify_plan(planned)


def test_many_buffers():
    planned = plan(chain([n + at % 7 if at % 2 else at % 50 for at in range(5000)]))
    verify_plan(planned)
    assert len(set(offsets(planned))) < 20


# -- private buffers ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 9, 255, 256, 257, 1000, 5000])
@pytest.mark.parametrize("order, leaf", [("rows", 4), ("chain", 256)])
def test_a_tree_has_a_level_for_every_bit_of_its_leaves(size, order, leaf):
    leaves = -(-size // leaf)
    assert tree_levels(size, order) == leaves.bit_length()
    assert evaluate(tree_levels(n, order), {"n": size}) == leaves.bit_length()
    assert evaluate(tree_levels(n, order), {"n": 0}) == tree_levels(0, order) == 1


def working(planned):
    return {
        b.name: (b.type, b.private)
        for b in planned.of_role("temp")
        if b.name.endswith((".work", ".levels"))
    }


def test_private_buffers():
    columns = 16  # of the widest panel; each half of it may be one, with a gap of 16 numbers behind
    block = 256 * columns + 2 * 16
    level = 24 * columns  # whole tiles of any height
    gram = {"gram.out.work": (f64[10 * 512 + 64 * 16], True)}  # at most 512 columns at a time
    apart = plan(fuse(graph("network", 1000, 10), frozenset({"sweep"})))
    assert working(apart) == gram | {
        "t0.work": (f64[10 * columns + 2 * 16], True),
        "grad_W.out.work": (f64[block + 2 * level], True),  # four blocks of k: two wait at most
    }
    swept = plan(fuse(graph("network", 1000, 10)))  # of a panel of 256 rows
    assert working(swept) == gram | {
        "t0.work": (f64[10 * columns + 2 * 16], True),
        "grad_W.out.work": (f64[block], True),
        "t0.levels": (f64[3, 40], True),  # of 4 panels two wait at most, while one is made
    }
    planned = plan(fuse(graph("float32", 1000, 10)))
    trees = {b.name: b.type for b in planned.of_role("temp") if b.name.endswith(".tree")}
    assert trees == {"rows.out.tree": f32[8, 16]}  # whole vectors


def test_integers_need_no_tree():
    planned = plan(fuse(graph("integers")))
    assert not [b for b in planned.buffers if b.name.endswith(".tree")]
    assert [*working(planned)] == ["product.out.work"]


def test_planning_twice_changes_nothing():
    for name in GRAPHS:
        planned = plan(fuse(graph(name)))
        assert str(plan(planned)) == str(planned)


# -- verification ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("sizes", [("n", "k"), (0, 1), (7, 65)])
def test_plans_of_all_graphs_verify(name, sizes):
    for skip in (frozenset(), frozenset({"reuse"})):
        verify_plan(plan(fuse(graph(name, *sizes)), skip))


def moved(program, name, offset):
    buffers = tuple(replace(b, offset=offset) if b.name == name else b for b in program.buffers)
    return replace(program, buffers=buffers)


def test_faults_are_found():
    planned = plan(chain([n, n, n]))
    middle = planned.buffer("t1").offset
    for fault in (
        moved(planned, "t1", 0),  # on top of t0 and t2, with which it lives
        moved(planned, "t1", middle - 64),  # a part of it over t0
        moved(planned, "t0", middle),
        moved(planned, "t2", None),
        replace(planned, arena=middle),
        replace(planned, arena=None),
        chain([n]),
    ):
        with pytest.raises(VerifyError):
            verify_plan(fault)


def test_every_pair_of_temps_of_one_kernel_is_apart():
    """The check itself, against all pairs, at sizes that are not those it sorts by."""
    for name in GRAPHS:
        planned = plan(fuse(graph(name)))
        lives, sizes = lifetimes(planned), {"n": 37, "k": 5}
        temps = planned.of_role("temp")
        for at, a in enumerate(temps):
            for b in temps[:at]:
                if lives[a.name][0] <= lives[b.name][1] and lives[b.name][0] <= lives[a.name][1]:
                    (start, size), (other, size2) = (
                        (evaluate(t.offset, sizes), evaluate(t.bytes(), sizes)) for t in (a, b)
                    )
                    assert start + size <= other or other + size2 <= start


# -- passes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logistic", "softmax"])
@pytest.mark.parametrize("sizes", [("n", "k"), (10**6, 50), (100, 32768)])
def test_value_and_gradient_read_the_data_once(name, sizes):
    program = fuse(graph(name, *sizes))
    assert passes_over(program, "X") == 1
    assert Plan(plan(program)).passes_over("X") == 1


def test_rows_that_leave_the_cache_are_read_again():
    assert passes_over(fuse(graph("logistic", 100, 32769)), "X") == 2
    assert passes_over(fuse(graph("softmax", 100, 10**6)), "X") == 2
    assert passes_over(fuse(graph("logistic", 100, 32769)), "w") == 100
    assert passes_over(fuse(graph("logistic", "n", 32769)), "w") == 2
    assert passes_over(fuse(graph("logistic", 10**6, 50)), "w") == 1


def test_each_top_level_loop_and_product_counts():
    assert passes_over(fuse(graph("network")), "X") == 4  # X @ W, X.T @ back, and X @ X.T twice
    assert passes_over(fuse(graph("sinkhorn")), "x") == 1
    assert passes_over(fuse(graph("logistic"), frozenset({"fuse"})), "X") == 2
    assert passes_over(fuse(graph("pointwise")), "c") == 1
    with pytest.raises(KeyError):
        passes_over(fuse(graph("pointwise")), "nothing")


@pytest.mark.parametrize(
    "first, second, passes",
    [
        ("_i*1000+_j", "_i*1000+_j", 1),
        ("_i*1000+_j", "_j*1000+_i", 2),
        ("1000*_i", "1000*_i+7", 1),
        ("_j", "_j", 1),
    ],
)
def test_a_transposed_reading_is_another_pass(first, second, passes):
    program = parse_program(f"""program p(x: f64[1000,1000])
kernel k0
  for _i in 1000 rows
    for _j in 1000 vector
      %1 = load x[{first}] : f64
      %2 = load x[{second}] : f64
""")
    assert passes_over(program, "x") == passes


# -- Plan -----------------------------------------------------------------------------------------


def test_bytes():
    made = Plan(plan(fuse(graph("logistic"))))
    assert made.bytes_moved(n=1000, k=50) == 8 * (1000 * 50 + 50 + 1000 + 50 + 1)
    assert made.arena_bytes(n=1000, k=50) == 3 * 64 * 8
    assert Plan(plan(fuse(graph("logistic", 1000, 50)))).arena_bytes() == 1536
    (kernel,) = made.kernels
    assert [name for name, _ in kernel.reads] == ["X", "w", "y"]
    assert [name for name, _ in kernel.writes] == ["grad_w.out", "loss.out"]
    assert kernel.note.startswith("contract*2")


def test_plan_prints():
    lines = str(Plan(plan(fuse(graph("logistic", 1000, 50))))).splitlines()
    assert lines[0] == "plan logistic: arena 1536 bytes"
    assert lines[2].split() == ["X", "input", "f64[1000,50]", "400000", "-", "k0"]
    assert lines[7].split() == ["grad_w.out.tree", "temp", "f64[3,64]", "1536", "0", "k0"]
    assert lines[-1] == "  writes grad_w.out (400 bytes), loss.out (8 bytes)"
    assert str(Plan(plan(chain([])))).startswith("plan chain: arena 0 bytes")


def test_doctests():
    assert doctest.testmod(plans).failed == 0
