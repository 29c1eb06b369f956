"""Traced functions through the reference interpreter, and their comparison with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dsl.trace import Leaf, Traced, trace
from graphc.dsl.tree import unflatten
from graphc.ir.reference import run_graph
from graphc.ir.types import Dim, TensorType, from_numpy
from graphc.runtime.arguments import as_result, plain_leaf


def types_of(arguments: tuple[Any, ...], symbolic: bool = False) -> list[Leaf]:
    given = [plain_leaf(x, f"x{i}") for i, x in enumerate(arguments)]
    leaves = []
    for i, g in enumerate(given):
        sizes = (
            tuple(Dim.symbol(f"s{i}_{j}") for j in range(g.array.ndim))
            if symbolic
            else g.array.shape
        )
        leaves.append(Leaf(TensorType(from_numpy(g.dtype.numpy), sizes), g.weak))
    return leaves


def traced(function: Callable[..., Any], *arguments: Any, symbolic: bool = False) -> Traced:
    names = [f"x{i}" for i in range(len(arguments))]
    return trace(function, types_of(arguments, symbolic), names)


def run(function: Callable[..., Any], *arguments: Any, symbolic: bool = False) -> Any:
    """What a function gives when it is traced and its graph interpreted."""
    made = traced(function, *arguments, symbolic=symbolic)
    arrays = [plain_leaf(x, "x").array for x in arguments]
    results = run_graph(made.graph, [*arrays, *made.captured])
    return unflatten(made.out_tree, map(as_result, results))


def same(got: Any, expected: Any, rtol: float = 1e-12) -> None:
    """Equal dtype and shape, and numbers that agree."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype, (got.dtype, expected.dtype)
    assert got.shape == expected.shape, (got.shape, expected.shape)
    if got.dtype == np.float32:
        rtol = max(rtol, 1e-5)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)
