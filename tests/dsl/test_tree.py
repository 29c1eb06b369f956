"""Containers of arrays."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field

import numpy as np
import pytest

from graphc.dsl.tree import as_names, flatten, flatten_like, unflatten
from graphc.errors import SignatureError

Point = namedtuple("Point", "x y")


@dataclass
class Layer:
    w: object
    b: object
    activation: str = "tanh"
    cache: list = field(default_factory=list, init=False)


@dataclass(frozen=True, slots=True)
class Frozen:
    w: object


TREES = [
    1.0, (1.0, 2.0), [1.0, [2.0, ()]], {"b": 1.0, "a": {"c": 2.0}}, Point(1.0, (2.0, 3.0)),
    (None, "name", 1.0), Frozen([1.0]),
    OrderedDict(z=1.0, a=2.0), {1: 2.0, (3, 4): 5.0}, [], {},
]  # fmt: skip


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_round_trip(tree):
    leaves, names, structure = flatten(tree, "p")
    assert len(leaves) == len(names) == structure.leaf_count
    assert unflatten(structure, leaves) == tree
    assert type(unflatten(structure, leaves)) is type(tree)
    assert flatten_like(structure, tree, "p") == leaves
    assert hash(structure) == hash(flatten(tree, "p")[2])


def test_dataclasses():
    layer = Layer(np.ones(2), 1.0)
    leaves, names, structure = flatten(layer, "layer")
    assert names == ["layer.w", "layer.b"]
    made = unflatten(structure, [3, 4])
    assert (made.w, made.b, made.activation, made.cache) == (3, 4, "tanh", [])


def test_names():
    assert flatten({"w": [1, 2], "b": Point(3, 4)}, "p")[1] == ["p.w.0", "p.w.1", "p.b.x", "p.b.y"]
    assert as_names(["a b", "a_b", "0", "ü"]) == ["a_b", "a_b_2", "_0", "_"]


@pytest.mark.parametrize(("like", "tree", "message"), [
    ({"w": 1}, {"v": 1}, r"argument p is a dict with the keys \['w'\], got the keys \['v'\]"),
    ({"w": 1}, [1], r"argument p is a dict with the keys \['w'\], got a list"),
    ((1, 2), (1,), "argument p is a tuple of 2, got 1"),
    ({"a": [1, 2]}, {"a": 1}, "argument p.a is a list of 2, got a int"),
    (Point(1, 2), (1, 2), "argument p is a Point, got a tuple"),
    ((1, "relu"), (1, "tanh"), "argument p.1 is 'relu' in this graph, got 'tanh'"),
])  # fmt: skip
def test_other_structures(like, tree, message):
    with pytest.raises(SignatureError, match=message):
        flatten_like(flatten(like, "p")[2], tree, "p")


def test_deep_nesting_is_an_error():
    tree = 1.0
    for _ in range(2000):
        tree = [tree]
    with pytest.raises(SignatureError, match="nested deeper than 64"):
        flatten(tree, "p")
