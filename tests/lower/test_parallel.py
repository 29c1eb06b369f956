"""Which loops threads may share, what they need in memory, and how it prints."""

from dataclasses import replace

import pytest

import graphc
from graphc.errors import FormatError, VerifyError
from graphc.ir.types import evaluate
from graphc.lower import parallel
from graphc.lower.fuse import fuse
from graphc.lower.loop_text import parse_program
from graphc.lower.loops import For, walk
from graphc.lower.parallel import cost, is_independent, shared_out, unit
from graphc.lower.partials import partials_of
from graphc.lower.plan import arena_for, plan, verify_plan
from tests.lower.graphs import GRAPHS, graph


def program(body, buffers=""):
    lines = ["program f(x: f64[n,4], at: i64[n])", "sizes n", *buffers.split("\n"), "kernel k0"]
    return parse_program("\n".join([*filter(None, lines), *body.strip("\n").split("\n")]))


def top(made):
    return next(s for s in made.kernels[0].body if isinstance(s, For))


OUT = "buffer output y.out: f64[n]"
INDEPENDENT = {
    "each its own": ("""
  for _i in n vector
    %1 = load x[4*_i] : f64
    store y.out[_i] %1""", OUT),
    "sums": ("""
  for _i in n rows
    acc %1: f64 sum lanes
    acc %2: f64 sum rows into y.out[0] size 4
    for _j in 4 vector
      %3 = load x[4*_i+_j] : f64
      add %2[_j] %3
    %4 = load x[4*_i] : f64
    add %1 %4""", OUT),
    "its own row read again": ("""
  for _i in n rows
    for _j in 4 vector
      %1 = load x[4*_i+_j] : f64
      store y.out[4*_i+_j] %1
    for _j in 4 vector
      acc %2: f64 max any
      %3 = load y.out[4*_i+_j] : f64
      add %2 %3""", "buffer output y.out: f64[n,4]"),
    "a scatter into its own row": ("""
  for _i in n rows
    %1 = load at[_i] : i64
    %2 = index %1 in 4
    %3 = load x[4*_i] : f64
    scatter y.out[4*_i; %2*1] %3""", "buffer output y.out: f64[n,4]"),
}  # fmt: skip
DEPENDENT = {
    "all in one place": ("""
  for _i in n rows
    %1 = load x[4*_i] : f64
    store y.out[0] %1""", OUT),
    "a scatter": ("""
  for _i in n rows
    %1 = load at[_i] : i64
    %2 = index %1 in n
    %3 = load x[4*_i] : f64
    scatter y.out[0; %2*1] %3""", OUT),
    "what others wrote": ("""
  for _i in n rows
    %1 = load y.out[0] : f64
    store y.out[_i] %1""", OUT),
    "wherever others wrote": ("""
  for _i in n rows
    %1 = load at[_i] : i64
    %2 = index %1 in n
    %3 = load y.out[0; %2*1] : f64
    store y.out[_i] %3""", OUT),
    "a sum on its way": ("""
  for _i in n rows
    acc %1: f64 sum rows into y.out[0] size 4
    for _j in 4 vector
      %2 = load y.out[_j] : f64
      add %1[_j] %2""", OUT),
    "a sum for each row in one place": ("""
  for _i in n rows
    for _j in 4 rows
      acc %1: f64 sum rows into y.out[0] size 4
      for _k in 4 vector
        %2 = load x[4*_i+_k] : f64
        add %1[_k] %2""", OUT),
}  # fmt: skip


@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_iterations(name):
    made = program(*INDEPENDENT[name])
    assert is_independent(made, top(made))
    assert top(shared_out(made)).parallel


@pytest.mark.parametrize("name", DEPENDENT)
def test_iterations_that_touch_what_is_others(name):
    made = program(*DEPENDENT[name])
    assert not is_independent(made, top(made))
    assert not top(shared_out(made)).parallel


COMPUTED = """
  for _i in n vector
    acc %1: f64 sum lanes
    %2 = load x[4*_i] : f64
    store made[_i] %2
    add %1 %2"""
SCATTERED = """
  for _i in n rows
    %5 = load at[_i] : i64
    %6 = index %5 in 9
    %7 = load made[{place}] : f64
    scatter y.out[{into}; %6*1] {value}"""
MADE = "buffer output y.out: f64[n]\nbuffer temp made: f64[n]"
FOLLOWERS = {
    "of its own row": (COMPUTED, {}, True),
    "of another row": (COMPUTED, {"place": "_i+1"}, False),
    "of one row for all": (COMPUTED, {"place": "0"}, False),
    "the sum": (COMPUTED, {"value": "%1"}, False),
    "read before": (COMPUTED.replace("x[4*_i]", "y.out[_i]"), {}, False),
    "stored before": (COMPUTED.replace("add", "store y.out[_i] %2\n    add"), {}, False),
    "checked before": (
        COMPUTED.replace("    add", "    %3 = load at[_i] : i64\n    %4 = index %3 in 9\n    add"),
        {}, True,
    ),
    "something else was checked before": (
        COMPUTED.replace("    add", "    %3 = load at[_i] : i64\n    %4 = index %3 in 8\n    add"),
        {}, False,
    ),
    "another number of rows": (COMPUTED.replace("in n", "in n-1"), {}, False),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWERS)
def test_scatters_that_follow_part_by_part(name):
    first, words, expected = FOLLOWERS[name]
    second = SCATTERED.format(**({"place": "_i", "into": "0", "value": "%7"} | words))
    loops = shared_out(program(first + second, MADE)).kernels[0].body
    assert [(s.parallel, s.ordered) for s in loops] == [(True, False), (False, expected)]


def test_units_are_whole_leaves():
    text = """
  for _i in n {mode}
    acc %1: {dtype} sum {order}
    %2 = load x[4*_i] : f64
    add %1 %2"""
    found = {
        (mode, order, dtype): unit(top(program(text.format(mode=mode, order=order, dtype=dtype))))
        for mode, order, dtype in [
            ("vector", "lanes", "f64"), ("blocks", "rows", "f32"), ("blocks", "chain", "f64"),
            ("rows", "lanes", "f64"), ("rows", "lanes", "f32"), ("rows", "rows", "f64"),
            ("rows", "chain", "f64"), ("rows", "any", "i64"),
        ]
    }  # fmt: skip
    assert list(found.values()) == [64, 64, 256, 32, 64, 4, 256, 1]


def test_little_work_stays_with_one_thread():
    text = "\n  for _i in {n} vector\n    %1 = load x[4*_i] : f64\n    store y.out[_i] %1"
    marked = [
        n for n in (1, 64, 1000, 90_000, 10**6, "n")
        if top(shared_out(program(text.format(n=n), OUT))).parallel
    ]  # fmt: skip
    assert marked == [10**6, "n"]
    assert cost(top(program(text.format(n=1), OUT))) == 2 * parallel.MEMORY


def test_contractions_stay_whole():
    """A matrix product shares its own panels."""
    for name in ("network", "logistic"):
        made = fuse(graph(name))
        for kernel in made.kernels:
            for s, outer in walk(kernel.body):
                assert not (type(s).__name__ == "Contract" and any(f.parallel for f in outer))


# -- memory ----------------------------------------------------------------------------------------


@pytest.fixture
def any_work(monkeypatch):
    monkeypatch.setattr(parallel, "LEAST", 0)


@pytest.mark.parametrize("name", GRAPHS)
def test_text_parses_back(any_work, name):
    for made in (fuse(graph(name)), plan(fuse(graph(name, 70, 9)))):
        assert parse_program(str(made)) == made


def layer_norm():
    def norm(x: graphc.f64["n", "k"]):
        d = x - x.mean(axis=1, keepdims=True)
        y = d / ((d * d).mean(axis=1, keepdims=True) + 1.0)
        return y, (y * y).sum(axis=0)

    return graphc.compile(norm).value_kernel.program


def test_what_every_thread_has_of_its_own():
    """Scratch of an iteration and trees lie at the end; two threads cannot overlap, nor parts."""
    made = layer_norm()
    verify_plan(made)
    own = {b.name for b in made.of_role("temp") if b.private}
    assert own and all(b.scope or b.name.endswith(".tree") for b in map(made.buffer, own))
    sizes = {"n": 1000, "k": 30}
    private, partials = evaluate(made.private, sizes), evaluate(made.partials, sizes)
    assert private % 64 == partials % 64 == 0 and partials >= 30 * 8
    one, two, three = (evaluate(arena_for(made, t), sizes) for t in (1, 2, 3))
    assert one == evaluate(made.arena, sizes)
    assert two == one + private + 32 * partials
    assert three == one + 2 * private + 48 * partials
    assert evaluate(arena_for(made, 100), sizes) == one + 99 * private + 64 * partials


def test_results_of_a_part_do_not_overlap():
    body = """
  for _i in n rows parallel
    acc %1: f64 sum rows into y.out[0] size n
    acc %2: f64 sum lanes
    acc %3: bool any any
    acc %4: f32 max any"""
    places, end = partials_of(top(program(body, OUT)))
    assert [str(places[f"%{i}"]) for i in (2, 3, 4, 1)] == ["0", "64", "128", "192"]
    assert str(end) == "64*floordiv(8*n+63,64)+192"


@pytest.mark.parametrize("change", ["scratch that all see", "too small a share", "no results"])
def test_verify_sees_what_threads_would_fight_for(change):
    made = layer_norm()
    if change == "scratch that all see":
        own = next(b for b in made.buffers if b.private)
        others = tuple(replace(b, private=False) if b is own else b for b in made.buffers)
        wrong = replace(made, buffers=others)
    elif change == "too small a share":
        wrong = replace(made, private=made.private - 64)
    else:
        wrong = replace(made, partials=0)
    with pytest.raises(VerifyError, match="which threads see it|results of a part"):
        verify_plan(wrong)


def test_an_arena_that_does_not_parse():
    text = str(layer_norm())
    line = next(x for x in text.split("\n") if x.startswith("arena"))
    with pytest.raises(FormatError, match="is not an arena"):
        parse_program(text.replace(line, line.replace("private", "shared")))
