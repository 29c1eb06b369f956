"""Cotangents of slices side by side are joined, not added."""

import numpy as np
import pytest

import graphc
from graphc.ir.graph import Builder
from graphc.ir.types import f64
from graphc.transforms.places import joined


def placed(builder, name, starts, part, whole):
    x = builder.input(name, f64[part])
    return builder.apply("place", x, starts=starts, steps=(1,) * len(part), shape=whole, fill=0)


def test_gaps_are_zeros():
    b = Builder()
    parts = [placed(b, "a", (1,), (2,), (6,)), placed(b, "c", (4,), (1,), (6,))]
    (one,) = joined(parts)
    assert one.node.op == "concat"
    assert [a.type.shape[0] for a in one.node.args] == [1, 2, 1, 1, 1]


def test_tiles_of_two_axes_become_one():
    b = Builder()
    corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
    parts = [placed(b, f"p{i}", start, (1, 1), (2, 2)) for i, start in enumerate(corners)]
    (one,) = joined(parts)
    assert {one.node.op} | {a.op for a in one.node.args} == {"concat"}


@pytest.mark.parametrize(
    "starts, part",
    [(((0,), (1,)), (2,)), (((0,), (0,)), (1,))],
    ids=["overlap", "same place"],
)
def test_overlaps_are_added(starts, part):
    b = Builder()
    parts = [placed(b, f"p{i}", start, part, (4,)) for i, start in enumerate(starts)]
    assert joined(parts) == parts


def test_others_stay():
    b = Builder()
    whole = b.input("whole", f64[3])
    parts = [placed(b, "a", (0,), (1,), (3,)), whole, placed(b, "c", (1,), (2,), (3,))]
    one, other = joined(parts)
    assert other is whole and one.node.op == "concat"


def test_gradient_of_columns_is_written_once():
    @graphc.graph
    def f(x: graphc.f64["n", 4]):
        return (x[:, 0] * x[:, 1] + x[:, 3] ** 2).sum()

    compiled = graphc.compile(f, wrt="x")
    x = np.arange(12.0).reshape(3, 4)
    value, gradient = compiled.value_and_grad(x)
    wanted = np.stack([x[:, 1], x[:, 0], 0 * x[:, 2], 2 * x[:, 3]], axis=1)
    np.testing.assert_array_equal(gradient, wanted)
    assert not compiled.plan.program.of_role("temp")
