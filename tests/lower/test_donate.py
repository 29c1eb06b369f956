"""Donated inputs: which outputs may take their memory, and that no bit changes where one does."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.dsl.tree import flatten
from graphc.errors import VerifyError
from graphc.ir.reference import run_graph
from graphc.lower.donate import donate, donors, refusals
from graphc.lower.interpreter import run_program
from graphc.lower.loop_text import parse_program
from graphc.lower.plan import plan, verify_plan

HEAD = """program f(x: f64[n], y: f64[n])
sizes n
buffer output o.out: f64[n]
"""
ONE = "kernel k0\n  for _i in n vector\n"
SAFE = {
    "the same element": ONE + """    %1 = load x[_i] : f64
    %2 = neg %1 : f64
    store o.out[_i] %2""",
    "an earlier loop": ONE + """    acc %1: f64 sum lanes
    %2 = load x[_i] : f64
    add %1 %2
  for _i in n vector
    store o.out[_i] %1""",
    "an earlier kernel": ONE + """    acc %1: f64 sum lanes
    %2 = load x[n-1-_i] : f64
    add %1 %2
  store o.out[0] %1
kernel k1
  for _i in n vector
    %1 = load y[_i] : f64
    store o.out[_i] %1""",
    "never read": ONE + """    %1 = load y[_i] : f64
    store o.out[_i] %1""",
}  # fmt: skip
UNSAFE = {
    "another element": ONE + """    %1 = load x[n-1-_i] : f64
    store o.out[_i] %1""",
    "afterwards": ONE + """    %1 = load y[_i] : f64
    store o.out[_i] %1
    %2 = load x[_i] : f64
    store p.out[_i] %2""",
    "in a later loop": ONE + """    %1 = load y[_i] : f64
    store o.out[_i] %1
  for _i in n vector
    %1 = load x[_i] : f64
    store p.out[_i] %1""",
    "in a later kernel": ONE + """    %1 = load y[_i] : f64
    store o.out[_i] %1
kernel k1
  for _i in n vector
    %1 = load x[_i] : f64
    store p.out[_i] %1""",
    "by index": ONE + """    %1 = iota _i
    %2 = load x[0; %1*1] : f64
    store o.out[_i] %2""",
    "in every iteration": "kernel k0\n  for _i in n rows\n" + """    acc %1: f64 sum lanes
    for _j in n vector
      %2 = load x[_j] : f64
      add %1 %2
    store o.out[_i] %1""",
}  # fmt: skip


@pytest.mark.parametrize("name", SAFE)
def test_safe(name):
    program = donate(parse_program(HEAD + SAFE[name]), ("x",))
    assert donors(program) == {"o.out": "x"}
    assert parse_program(str(program)) == program


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe(name):
    text = HEAD.replace("buffer", "buffer output p.out: f64[n,1]\nbuffer", 1) + UNSAFE[name]
    program = parse_program(text)
    assert donors(donate(program, ("x",))) == {}
    assert "o: " in refusals(program, ("x",))["x"]
    forced = parse_program(text.replace("o.out: f64[n]", "o.out: f64[n] donor=x"))
    with pytest.raises(VerifyError, match="o.out takes the memory of x"):
        verify_plan(plan(forced))


def test_types_and_other_donors():
    program = parse_program(HEAD + SAFE["the same element"])
    assert donors(donate(program, ("y", "x"))) == {"o.out": "y"}
    assert refusals(program, ("y", "x")) == {"x": "outputs of its type take the memory of others"}
    assert refusals(program, ("z",)) == {"z": "no output has its type"}


@graphc.graph
def step(w: graphc.f64["k", 3], v: graphc.f64["k", 3], x: graphc.f64["n", 3], rate: graphc.f64):
    """A step of gradient descent with momentum."""
    residual = x @ w[0] - 1.0
    gradient = (x.T @ residual)[None, :] + 0.01 * w
    v = 0.9 * v + gradient
    return {"w": w - rate * v, "v": v, "loss": (residual**2).sum()}


@graphc.graph
def row_wise(x: graphc.f64["n", 5]):
    return gnp.exp(x - x.max(axis=1)[:, None])


@graphc.graph
def mixed(x: graphc.f32["n"], i: graphc.i64["n"]):
    return x[i] + x, i + 1


@graphc.graph
def reversed_(x: graphc.f64["n"]):
    return x[::-1] * 2.0


RNG = np.random.default_rng(3)


def arguments(n):
    w, v = RNG.normal(size=(2, n + 1, 3))
    return {
        "step": (w.copy(), v.copy(), RNG.normal(size=(n, 3)), 0.1),
        "row_wise": (RNG.normal(size=(n, 5)),),
        "mixed": (RNG.normal(size=n).astype(np.float32), RNG.integers(0, max(n, 1), n)),
        "reversed": (RNG.normal(size=n),),
    }  # fmt: skip


CASES = {"step": (step, ("w", "v")), "row_wise": (row_wise, ("x",)), "mixed": (mixed, ("i", "x")),
         "reversed": (reversed_, ("x",))}  # fmt: skip


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 63, 64, 65, 200, 1000])
@pytest.mark.parametrize("name", CASES)
def test_bits(name, n):
    declared, names = CASES[name]
    given = arguments(n)[name]
    expected = graphc.compile(declared)(*given)
    k = graphc.compile(declared, donate=names)
    program, graph = k.value_kernel.program, k.value_kernel.graph
    sizes = {"n": n, "k": n + 1}
    verify_plan(program)
    reference = run_graph(graph, given, sizes)
    for got, want in zip(run_program(program, given, sizes), reference, strict=True):
        assert got.tobytes() == want.tobytes()
    taken = donors(program)
    for _ in range(4):  # through Python first, then natively
        copies = tuple(np.array(x) for x in given)
        got = k(*copies)
        results = flatten(got)[0]
        for a, b in zip(results, flatten(expected)[0], strict=True):
            assert a.tobytes() == b.tobytes()
        for a, b in zip(results, program.of_role("output"), strict=True):
            donor = b.donor and copies[[i["name"] for i in graph.inputs].index(b.donor)]
            assert a is donor if b.donor and a.size else True
    assert set(taken.values()) == {"step": {"w", "v"}, "row_wise": {"x"}, "mixed": {"i"},
                                   "reversed": set()}[name]  # fmt: skip


def test_a_training_step_allocates_nothing():
    k = graphc.compile(step, donate=("w", "v"))
    w, v, x, _ = arguments(50)["step"]
    address = w.ctypes.data
    for _ in range(5):
        made = k(w, v, x, 0.01)
        assert made["w"] is w and made["v"] is v and w.ctypes.data == address


def test_what_is_not_donated_at_a_call():
    k = graphc.compile(step, donate=("w", "v"))
    plain = graphc.compile(step)
    w, v, x, rate = arguments(20)["step"]
    fixed = w.copy()
    fixed.flags.writeable = False
    for given in (fixed, np.asfortranarray(w), w.astype(">f8"), w.tolist()):
        kept = np.array(given)
        expected = plain(given, v.copy(), x, rate)
        for _ in range(4):
            got = k(given, v.copy(), x, rate)
            assert all(got[key].tobytes() == expected[key].tobytes() for key in got)
            assert np.array_equal(np.array(given), kept)
    same = w.copy()
    expected = plain(same, same, x, rate)
    got = k(same, same, x, rate)
    assert all(got[key].tobytes() == expected[key].tobytes() for key in got)
    assert np.array_equal(same, w)
    memory = RNG.normal(size=(22, 3))
    expected = plain(memory[:21], memory[1:], x, rate)
    got = k(memory[:21].copy(), v.copy(), x, rate)
    got = k(memory[:21], memory[1:], x, rate)
    assert all(got[key].tobytes() == expected[key].tobytes() for key in got)


def test_explain():
    text = graphc.compile(step, donate=("w", "v")).explain()
    assert "Donated: w is written into the memory of w." in text
    text = graphc.compile(reversed_, donate="x").explain()
    assert "Donated in vain: x: out: the input is read elsewhere while it is written." in text
    with pytest.raises(graphc.SignatureError, match="no parameter 'z'"):
        graphc.compile(step, donate="z")


def test_gradients_take_donated_memory():
    @graphc.graph
    def energy(x: graphc.f64["n"]):
        return (x * x).sum()

    k = graphc.compile(energy, wrt="x", donate="x")
    x = np.arange(5.0)
    value, gradient = k.value_and_grad(x)
    assert gradient is x and value == 30.0 and x.tolist() == [0, 2, 4, 6, 8]


@graphc.graph
def scanned_rows(x: graphc.f64["n", 3]):
    return gnp.sin(gnp.cumsum(x, axis=1)).sum()


@graphc.graph
def scanned_columns(x: graphc.f64["n", "m"]):
    return gnp.sin(gnp.cumprod(x, axis=0)).sum()


@graphc.graph
def scanned_long_rows(x: graphc.f64["n", 40]):
    return gnp.sin(gnp.cumsum(x[:, ::-1], axis=1) * x).sum()


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 24, 32, 40, 100])
@pytest.mark.parametrize("declared", [scanned_rows, scanned_columns, scanned_long_rows])
def test_rows_of_whole_vectors_before_the_leaf_is_full(declared, n):
    """Points in rows of memory were stored for all vectors of a leaf with the first one, over what
    the others were still to read.
    """
    x = np.random.default_rng(n).normal(size=(n, 40 if declared is scanned_long_rows else 3))
    value, gradient = graphc.compile(declared, wrt="x").value_and_grad(x)
    again, donated = graphc.compile(declared, wrt="x", donate="x").value_and_grad(x.copy())
    assert again == value and donated.tobytes() == gradient.tobytes()
