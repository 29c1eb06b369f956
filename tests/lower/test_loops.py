"""The loop IR prints, and what is printed parses back; two programs are pinned as text."""

import doctest

import pytest

import graphc.lower.loops as loops
from graphc.errors import FormatError
from graphc.ir.types import Dim, f64
from graphc.lower.fuse import fuse
from graphc.lower.loop_text import parse_program
from graphc.lower.loops import Buffer, coefficient, walk, without
from graphc.lower.plan import plan
from tests.lower.graphs import GRAPHS, graph

i, n = Dim.symbol("_i"), Dim.symbol("n")

EVERY_STATEMENT = """program every(x: f64[n,3], p: i32[n])
sizes n
arena 64
buffer output y.out: f64[3]
buffer constant c0: f64[3] data=[1.0,-0.0,nan]
buffer temp t1: f64[3] scope=_i offset=0
kernel k0   take add
  fill y.out[0] 0 size 3
  for _i in n rows
    acc %1: f64 sum rows into y.out[0] size 3
    %2 = load p[_i] : i32
    %3 = convert %2 : i64
    %4 = index %3 in n
    %5 = iota 2*_i+1
    %6 = const -0.5 : f64
    %20 = inside _i in 1..n
    %21 = load p[_i-1] if %20 : i32
    for _j in 3 vector
      acc %7: f64 fma lanes
      %8 = load x[_j; %4*3] : f64
      %9 = call exp %8 : f64
      %10 = rare power_rare %11, %9, %8 : f64
      store t1[_j] %10
      store t1[_j] %8 if %20
      add %7 %9 %8
      add %1[_j] %10
    scatter y.out[0; %4*1] %7
kernel k1
  contract chain f64 k y.out[0; i:1] x[3; i:1 k:3] x[0; k:3] sizes i:3 k:n"""


def test_every_statement_parses_back():
    assert str(parse_program(EVERY_STATEMENT)) == EVERY_STATEMENT


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("sizes", [("n", "k"), (0, 1), (7, 65)])
def test_programs_parse_back(name, sizes):
    program = fuse(graph(name, *sizes))
    for p in (program, plan(program)):
        assert str(parse_program(str(p))) == str(p)


@pytest.mark.parametrize(
    "line", ["  %1 = load", "  %1 is 2", "kernels", "buffer temp t: f64", "  acc %1 f64"]
)
def test_bad_text_is_a_format_error(line):
    with pytest.raises(FormatError):
        parse_program(f"program p()\nkernel k0\n{line}\n")


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_golden(golden, name):
    golden("fuse", name, str(fuse(graph(name))))


def test_fusing_twice_gives_the_same_text():
    for name in GRAPHS:
        assert str(fuse(graph(name))) == str(fuse(graph(name)))


def test_coefficient_and_without():
    index = i * n * 2 + i + n * 3 + 1
    assert coefficient(index, "_i") == 2 * n + 1
    assert coefficient(index, "_j") == coefficient(5, "_i") == 0
    assert without(index, "_i") == 3 * n + 1


def test_walk_gives_the_loops_around_each_statement():
    body = parse_program(EVERY_STATEMENT).kernels[0].body
    assert [len(outer) for _, outer in walk(body)] == [0, 0, *[1] * 8, *[2] * 7, 1]


def test_buffer_bytes():
    assert Buffer("b", "temp", f64["n", 3]).bytes() == 24 * n


def test_doctests():
    assert doctest.testmod(loops).failed == 0
