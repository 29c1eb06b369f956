"""GRAPHC_VERIFY: every stage is held against the one before it.

In:   what each stage of a compilation gives.
Out:  nothing, or a VerifyError that names the first stage that changed a value.
Invariant: with level 1 what comes out of a stage is well-formed; with level 2 it also means the
same, bit for bit, on sample inputs, in the interpreters of graphs and of loops.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> checker = Checker(level=2)
>>> checker("trace", b.graph("f", {"y": x * 2.0}))
>>> checker("simplify", b.graph("f", {"y": x * 3.0}))
Traceback (most recent call last):
graphc.errors.VerifyError: stage simplify changed the value of output 'y' that trace gave
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import IndexOutOfBounds, ShapeError, VerifyError
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, evaluate
from graphc.lower.loops import Program


class Checker:
    """An observer of stages."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.before: dict[str, np.ndarray] = {}
        self.last = ""

    def __call__(self, stage: str, item: Any) -> None:
        if isinstance(item, Graph):
            from graphc.ir.verify import verify

            verify(item)
        elif isinstance(item, Program) and item.arena is not None:
            from graphc.lower.plan import verify_plan

            verify_plan(item)
        if self.level >= 2 and isinstance(item, (Graph, Program)):
            self._compare(stage, _values(item))

    def _compare(self, stage: str, values: Mapping[str, np.ndarray]) -> None:
        for name, value in values.items():
            if name in self.before and not same_bits(value, self.before[name]):
                raise VerifyError(
                    f"stage {stage} changed the value of output {name!r} that {self.last} gave"
                )
        if values:
            self.before, self.last = dict(values), stage


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal shapes, dtypes and bits, all NaNs counted as one."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    bits = np.dtype(f"u{a.dtype.itemsize}")
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return bool(((a.view(bits) == b.view(bits)) | ((a != a) & (b != b))).all())


def _values(item: Graph | Program) -> dict[str, np.ndarray]:
    """Outputs for the sample; none where it is not legal input (an index out of bounds, say)."""
    if isinstance(item, Graph):
        types, names = [(n["name"], n.type) for n in item.inputs], [n for n, _ in item.outputs]
        sizes = sample_sizes(item.sizes)
    else:
        types = [(b.name, b.type) for b in item.of_role("input")]
        names = [b.name.removesuffix(".out") for b in item.of_role("output")]
        sizes = sample_sizes(item.sizes)
    arrays = [sample(name, ty, sizes) for name, ty in types]
    try:
        return dict(zip(names, _run(item, arrays, sizes), strict=True))
    except (IndexOutOfBounds, ShapeError):
        return {}


def _run(
    item: Graph | Program, arrays: Sequence[np.ndarray], sizes: Mapping[str, int]
) -> list[np.ndarray]:
    if isinstance(item, Graph):
        from graphc.ir.reference import run_graph

        return run_graph(item, arrays, sizes)
    from graphc.lower.interpreter import run_program

    return run_program(item, arrays, sizes)


def sample_sizes(names: Sequence[str]) -> dict[str, int]:
    """Small sizes, different for different names."""
    return {name: 3 + i for i, name in enumerate(sorted(names))}


def sample(name: str, ty: TensorType, sizes: Mapping[str, int]) -> np.ndarray:
    """Numbers that depend on an input's name and type alone; integers are 0 or 1, as an index."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    shape = tuple(evaluate(s, sizes) for s in ty.shape)
    if ty.dtype.is_float:
        return np.asarray(random.normal(size=shape)).astype(ty.dtype.numpy)
    return np.asarray(random.integers(0, 2, size=shape)).astype(ty.dtype.numpy)
