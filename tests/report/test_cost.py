"""What a call should take: bytes and operations are exact, seconds add up and grow.

Seconds are not compared with a clock here: they come from numbers that a test makes up.
"""

import numpy as np
import pytest

import graphc
from graphc.errors import SignatureError
from graphc.lower.counting import Product, Share
from graphc.lower.loop_text import parse_program
from graphc.lower.plan import plan
from graphc.lower.work import working_set, works
from graphc.report import cost, machine

# -- counting --------------------------------------------------------------------------------------

HEAD = "program f(x: f64[n,4], w: f64[4], i: i64[n])\nsizes n\n"


def counted(body, n=1000, outputs="y: f64[n]", head=HEAD):
    buffers = "".join(f"buffer {b}\n" for b in outputs.split("; ")).replace(
        "buffer y", "buffer output y"
    )
    program = plan(parse_program(f"{head}{buffers}kernel k0   note\n{body}"))
    return program, works(program, {"n": n})[0]


def test_a_loop_in_lanes_does_whole_vectors():
    body = """  for _i in n vector
    %1 = load x[_i] : f64
    %2 = const 2.0 : f64
    %3 = mul %1, %2 : f64
    %4 = div %3, %1 : f64
    %5 = call exp %4 : f64
    store y[_i] %5"""
    for n, vectors in ((1000, 125), (1001, 126), (1, 1), (0, 0)):
        work = counted(body, n)[1]
        expected = {"loop": 1, "vector": vectors, "div f64": vectors}
        expected["call exp f64 f64"] = 8 * vectors
        expected["tail"] = expected["masked"] = int(n % 8 > 0)
        assert work.operations() == {k: v for k, v in expected.items() if v}
        assert (work.read, work.written) == (8 * n, 8 * n)


def test_half_as_wide_elements_are_twice_as_many_lanes():
    head = "program f(x: f32[n])\nsizes n\n"
    body = (
        "  for _i in n vector\n    %1 = load x[_i] : f32\n    %2 = neg %1 : f32\n    store y[_i] %2"
    )
    work = counted(body, 1000, "y: f32[n]", head)[1]
    assert work.operations() == {"loop": 1, "tail": 1, "vector": 63, "masked": 1}
    assert work.bytes == 8000


def test_a_buffer_counts_with_what_is_touched_of_it():
    body = """  for _i in n rows
    %1 = load x[4*_i] : f64
    %2 = load w[0] : f64
    %3 = mul %1, %2 : f64
    store y[_i] %3"""
    work = counted(body)[1]
    assert (work.read, work.written) == (8 * 1000 + 8, 8 * 1000)
    assert work.operations()["scalar"] == 3 * 1000


def test_sweeps_that_are_far_apart_count_twice():
    """A row of 512 kB is read by two inner loops: the second finds nothing of it in near caches."""
    head = "program f(x: f64[n,65536])\nsizes n\n"
    loops = """    for _j in 65536 vector
      acc %{a}: f64 sum lanes
      %{b} = load x[65536*_i+_j] : f64
      add %{a} %{b}
"""
    body = f"  for _i in n rows\n{loops.format(a=1, b=2)}{loops.format(a=3, b=4)}"
    body += "    %5 = add %1, %3 : f64\n    store y[_i] %5"
    work = counted(body, 3, head=head)[1]
    assert work.read == 2 * 3 * 65536 * 8
    short = counted(body.replace("65536", "1024"), 3, head=head.replace("65536", "1024"))[1]
    assert short.read == 3 * 1024 * 8


def test_gathers_columns_and_scatters_are_counted_by_element():
    body = """  for _i in n vector
    %1 = load i[_i] : i64
    %2 = index %1 in 4
    %3 = load w[0; %2*1] : f64
    %4 = load x[4*_i+1] : f64
    %5 = add %3, %4 : f64
    store y[_i] %5"""
    found = counted(body, 800)[1].operations()
    assert (found["gather"], found["strided"]) == (800, 800)
    body = "  for _i in n rows\n    %1 = load i[_i] : i64\n    %2 = load x[_i] : f64\n"
    found = counted(f"{body}    scatter y[0; %1*1] %2", 800)[1].operations()
    assert found["scatter"] == 800


def test_inner_loops_of_rows_are_pieces():
    body = """  for _i in n rows
    acc %1: f64 sum rows into y[0] size 4
    for _j in 4 vector
      %2 = load x[4*_i+_j] : f64
      add %1[_j] %2"""
    work = counted(body, 100, "y: f64[4]")[1]
    inner, rest = work.pieces
    assert inner.counts == {"vector": 100, "masked": 100} and inner.read == 100 * 4 * 8
    assert rest.written == 32 and rest.counts["loop"] == 25


def test_a_matrix_product():
    @graphc.graph
    def product(a: graphc.f64["n", 100], b: graphc.f64[100, 30]):
        return a @ b

    work = graphc.compile(product).plan.program
    (found,) = (p for w in works(work, {"n": 50}) for piece in w.pieces for p in piece.products)
    assert (found.rows, found.columns, found.depth, found.count) == (50, 30, 100, 1)
    assert found.multiply_adds == 50 * 30 * 100
    assert found.steps == 50 * 4 * 100 and found.tiles == 7 * 2
    assert Product(3, 8, 16, 512, found.dtype).tiles == 3 * 2


def test_the_working_set_is_all_that_a_call_touches():
    program, _ = counted("  store y[0] %1".replace("store y[0] %1", "fill y[0] 0 size n"), 10)
    assert working_set(program, {"n": 10}) == 8 * (40 + 4 + 10 + 10)


# -- seconds ---------------------------------------------------------------------------------------


@pytest.fixture
def paper(monkeypatch):
    """A machine on paper: every part takes a nanosecond, every byte a picosecond."""
    for name in ("operation", "division", "gate", "start", "apart", "multiply_add", "product"):
        monkeypatch.setattr(machine, name, lambda *_: 1e-9)
    monkeypatch.setattr(machine, "memory", lambda what, room, threads=1: 1e-12 / threads)
    monkeypatch.setattr(machine, "call", lambda *_: 1e-7)


def energy(wrt=("x",)):
    @graphc.graph
    def energy(x: graphc.f64["n"]):
        return (graphc.exp(x) * x).sum()

    return graphc.compile(energy, wrt=wrt)


def test_seconds_are_the_sum_of_kernels_and_call(paper, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda what, room, threads=1: 0.0)
    found = energy().predict(n=8000)
    assert found.seconds == float(found) == found.call + sum(k.seconds for k in found.kernels)
    (loop,) = (k for k in found.kernels if "exp" in k.note)
    work = next(w for w in works(energy().plan.program, {"n": 8000}) if "exp" in w.note)
    assert loop.seconds == pytest.approx(1e-9 * sum(work.operations().values()))
    assert loop.limit == found.limit == "gates: exp"


def test_what_limits(paper, monkeypatch):
    assert energy().predict(n=1).limit == "the call"
    monkeypatch.setattr(machine, "memory", lambda what, room, threads=1: 1e-7)
    assert energy().predict(n=8000).limit == "memory"


def test_more_elements_take_longer(paper):
    times = [float(energy().predict(n=n)) for n in (0, 10, 100, 1000, 10_000, 1_000_000)]
    assert times == sorted(times) and times[-1] > 50 * times[-2]


def test_threads_divide_what_is_parallel(paper):
    program = energy().value_and_grad.kernel.program
    one, two = (cost.predict(program, {"n": 1 << 20}, t) for t in (1, 2))
    assert two.seconds - two.call == pytest.approx((one.seconds - one.call) / 2, rel=0.01)
    one, two = (cost.predict(program, {"n": 100}, t) for t in (1, 2))
    assert two.seconds == one.seconds


def test_computing_and_moving_overlap_in_part(paper, monkeypatch):
    program, memory = energy().plan.program, machine.memory
    computing = cost.predict(program, {"n": 8000}).kernels[0].seconds
    monkeypatch.setattr(machine, "memory", lambda *args: 1e4 * memory(*args))
    both = cost.predict(program, {"n": 8000}).kernels[0].seconds
    monkeypatch.setattr(machine, "start", lambda *_: 0.0)
    for name in ("operation", "gate"):
        monkeypatch.setattr(machine, name, lambda *_: 0.0)
    moving = cost.predict(program, {"n": 8000}).kernels[0].seconds
    assert max(computing, moving) < both < computing + moving


def test_the_busiest_thread():
    def busiest(units, threads=2, nanoseconds=10**9):
        return Share(units, nanoseconds).busiest(threads, 20_000)

    assert busiest(100, threads=1) == busiest(1) == busiest(0.3) == 1.0
    assert busiest(100, nanoseconds=19_999) == 1.0
    assert busiest(2) == busiest(32) == busiest(1024) == 0.5
    assert busiest(1.25) == pytest.approx(1 / 1.25)  # one whole, and one that is short
    assert busiest(2.5) == pytest.approx(1.5 / 2.5)  # three parts: the last one is short
    assert busiest(33) == pytest.approx(17 / 33)  # 16 parts of 2, and a short one
    assert busiest(3, threads=4) == pytest.approx(1 / 3)


def test_of_arguments_or_of_sizes(paper):
    x = np.ones(123)
    k = energy()
    assert k.predict(x) == k.predict(n=123) == k.value_and_grad.predict(n=123)
    assert float(energy(wrt=()).predict(n=123)) < float(k.predict(n=123))
    with pytest.raises(SignatureError, match=r"gives no n: say predict\(n=...\)"):
        k.predict()
    with pytest.raises(SignatureError, match="has no size 'm'"):
        k.predict(n=3, m=4)


def test_the_table_prints(paper):
    lines = str(energy().predict(n=1000)).split("\n")
    assert lines[0] == "energy at n = 1,000" and lines[1].split()[:3] == [
        "kernel",
        "bytes",
        "operations",
    ]
    assert lines[-1].strip().startswith("all ") and any("exp" in line for line in lines)


def test_explain_counts_each_kernel_and_predicts_when_asked(paper):
    k = energy()
    text = k.explain()
    (loop,) = (w for w in works(k.plan.program, {"n": 1000}) if "exp" in w.note)
    assert (
        f"{loop.bytes / 1e3:.3g} kB, {cost.count(loop):,} ops" in text and "should take" not in text
    )
    text = k.explain(measure=True)
    assert f"should take {cost.duration(float(k.predict(n=1000)))}" in " ".join(text.split())


def test_every_workload_of_the_bench_is_predicted(paper):
    from bench.cases import CASES
    from bench.contestants.graphc import compiled

    for case in CASES:
        _, both = compiled(case)
        found = both.predict(*case.arguments(case.small))
        assert found.seconds > found.call > 0 and found.bytes > 0, case.name


# -- the machine -----------------------------------------------------------------------------------


def test_parts_of_this_machine_are_measured_once():
    first = machine.operation()
    assert 0 < first < 1e-6 and machine.operation() == first
    assert 0 < machine.memory("read", 1 << 15) < 1e-8


def test_memory_between_two_sizes_is_between_their_times(monkeypatch):
    monkeypatch.setattr(machine, "_byte", lambda what, size, threads: size * 1e-15)
    low, high = machine.SETS[0], machine.SETS[1]
    times = [machine.memory("read", s) for s in (1, low, (low + high) / 2, high, 1 << 40)]
    assert times[0] == times[1] < times[2] < times[3] < times[4]
    assert times[4] == pytest.approx(machine.SETS[-1] * 1e-15)
