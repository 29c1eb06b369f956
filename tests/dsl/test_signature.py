"""Annotations, with `from __future__ import annotations` as here, and evaluated ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

import graphc
from graphc import f32, f64, i64
from graphc.dsl.signature import parameter_types
from graphc.errors import SignatureError


@dataclass
class Params:
    w: f64["n"]
    b: f64


class Pair(NamedTuple):
    x: f64[2]
    y: f32


def test_string_annotations():
    def function(x: graphc.f64["n", 3], y: f32, z: float, k: int, flag: bool, i: i64["n"]): ...

    names, types = parameter_types(function)
    assert names == ("x", "y", "z", "k", "flag", "i")
    assert list(map(str, types)) == ["f64[n,3]", "f32[]", "f64[]", "i64[]", "bool[]", "i64[n]"]


def test_evaluated_annotations():
    namespace = {"f64": f64}
    text = "def function(x: f64['n', 3], y: {'w': f64[3], 'b': (f64, f64)}): ..."
    exec(compile(text, "<text>", "exec", dont_inherit=True), namespace)
    assert (
        str(parameter_types(namespace["function"])[1])
        == "(f64[n,3], {'w': f64[3], 'b': (f64[], f64[])})"
    )


def test_local_names():
    n = 7

    @graphc.graph
    def function(x: f64[n]):
        return x.sum()

    assert str(function.in_types[0]) == "f64[7]"


def test_classes():
    def function(p: Params, q: Pair, t: tuple[f64, f64[2]]): ...

    (p, q, t) = parameter_types(function)[1]
    assert (str(p.w), str(p.b), str(q.x), str(q.y), str(t)) == (
        "f64[n]",
        "f64[]",
        "f64[2]",
        "f32[]",
        "(f64[], f64[2])",
    )


@pytest.mark.parametrize(("text", "message"), [
    ("def function(x): ...", r"parameter x of function has no type: annotate it"),
    ("def function(x: str): ...", "is annotated with <class 'str'>: use a type such as"),
    ("def function(x: 'nothing[3]'): "
     "...", "an annotation of function cannot be read: name 'nothing' is not defined"),
    ("def function(*x: f64): ...", "a graph has a fixed count of parameters, not"),
    ("def function(x: 'f64[\"2n\"]'): ...", "cannot be read"),
    ("def function(x: 'f64[-1]'): ...", "is not a size"),
])  # fmt: skip
def test_wrong_annotations(text, message):
    namespace = {"f64": f64}
    exec(compile(text, "<text>", "exec", dont_inherit=True), namespace)
    with pytest.raises(SignatureError, match=message):
        parameter_types(namespace["function"])


def test_a_size_that_no_argument_tells():
    with pytest.raises(SignatureError, match="the size n.1 of x does not say what n is"):

        @graphc.graph
        def function(x: f64["n+1"]):
            return x

    @graphc.graph
    def fine(x: f64["n+1"], y: f64["n"]):
        return x[1:] + y

    np.testing.assert_array_equal(fine(np.arange(3.0), np.ones(2)), [2.0, 3.0])
