"""lower/order.py: many scalar gates, each where it is needed."""

from __future__ import annotations

from graphc.ir.graph import Builder, Graph
from graphc.ir.types import f64
from graphc.lower.fuse import SCALARS_PER_KERNEL, fuse
from graphc.lower.loops import Load, Program, Store, walk
from graphc.lower.order import as_needed
from graphc.lower.tasks import Task, tasks_of
from graphc.transforms.adjoint import adjoint


def reads(tasks: list[Task]) -> dict[Task, list[Task]]:
    return {t: [made for made, _ in t.tasks_read()] for t in tasks}


def sum_of_terms(count: int) -> Graph:
    """Declared stage by stage: all products, then all their sines, then the sum."""
    b = Builder()
    numbers = [b.input(f"x{i}", f64[()]) for i in range(count)]
    products = [x * float(i + 2) for i, x in enumerate(numbers)]
    total, *others = [b.apply("sin", p) * p for p in products]
    for term in others:
        total = total + term
    return b.graph("terms", {"y": total})


def handed_over(program: Program) -> int:
    """Stores into memory that only other kernels read, and loads of it."""
    temps = {b.name for b in program.of_role("temp")}
    return sum(
        isinstance(s, (Load, Store)) and s.buffer in temps
        for kernel in program.kernels
        for s, _ in walk(kernel.body)
    )


def test_operands_come_before_readers_and_nothing_is_lost():
    graph = adjoint(sum_of_terms(50), tuple(f"x{i}" for i in range(50)))
    found = reads(tasks_of(graph))
    order = as_needed(found)
    assert sorted(t.serial for t in order) == list(range(len(found)))
    place = {t: i for i, t in enumerate(order)}
    assert all(place[made] < place[t] for t, operands in found.items() for made in operands)


def test_a_value_read_twice_by_one_gate_is_one_operand():
    b = Builder()
    x = b.input("x", f64[()])
    v = x + 1.0
    tasks = tasks_of(b.graph("f", {"y": v * v}))
    assert as_needed(reads(tasks)) == tasks


def test_the_order_of_a_graph_is_the_same_every_time():
    orders = []
    for _ in range(3):
        graph = adjoint(sum_of_terms(40), ("x0", "x7"))
        orders.append([t.serial for t in as_needed(reads(tasks_of(graph)))])
    assert orders[0] == orders[1] == orders[2]


def test_a_long_chain_needs_no_recursion():
    b = Builder()
    v = b.input("x", f64[()])
    for i in range(20_000):
        v = b.apply(("sin", "neg")[i % 2], v)
    tasks = tasks_of(b.graph("chain", {"y": v}))
    assert as_needed(reads(tasks)) == tasks


def test_few_values_of_a_long_sum_live_across_kernels():
    """Declared stage by stage, every product and every sine was stored and loaded again."""
    count = 3 * SCALARS_PER_KERNEL
    program = fuse(sum_of_terms(count))
    assert len(program.kernels) > 6
    assert handed_over(program) <= 4 * len(program.kernels)


def test_the_gradient_of_a_term_follows_the_term():
    count = 2 * SCALARS_PER_KERNEL
    graph = sum_of_terms(count)
    program = fuse(adjoint(graph, tuple(f"x{i}" for i in range(count))))
    assert handed_over(program) <= 8 * len(program.kernels)
