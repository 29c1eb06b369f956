"""Where results are written: into new arrays, into the caller's, or into a donated input.

In:   a kernel's inputs and outputs; the arrays that the caller gave as `out=`.
Out:  an array for each output of the kernel, and copies to make afterwards.
Invariant: a kernel never writes to memory that it reads or writes as something else, donated inputs
apart; an `out` that cannot be used is an error before anything is written.

>>> x = np.zeros(3)
>>> can_hold(x, [x[1:]]), can_hold(x[:2], [x[2:]])
(False, True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import SignatureError
from graphc.runtime.pool import empty

Spec = tuple[tuple[int, ...], np.dtype]


@dataclass(frozen=True)
class Placement:
    """The arrays that a kernel writes, and (target, source) pairs to copy then."""

    arrays: list[np.ndarray]
    copies: list[tuple[np.ndarray, np.ndarray]]


def place(
    specs: Sequence[Spec],
    inputs: Sequence[np.ndarray],
    donors: Mapping[int, int],
    targets: Sequence[np.ndarray | None] | None = None,
) -> Placement:
    """An array for each output. `donors` says which input's memory an output may take."""
    arrays: list[np.ndarray] = []
    copies: list[tuple[np.ndarray, np.ndarray]] = []
    wanted = [t for t in targets or () if t is not None]
    for i, (shape, dtype) in enumerate(specs):
        target = targets[i] if targets is not None else None
        if target is None:
            arrays.append(_new_or_donated(i, shape, dtype, inputs, donors, wanted))
        elif can_hold(target, [*inputs, *(t for t in wanted if t is not target)], wanted):
            arrays.append(target)
        else:
            arrays.append(empty(shape, dtype))
            copies.append((target, arrays[-1]))
    return Placement(arrays, copies)


def can_hold(
    target: np.ndarray, others: Sequence[np.ndarray], wanted: Sequence[np.ndarray] = ()
) -> bool:
    """May a kernel write to this array while it reads and writes the others?"""
    if not target.flags.c_contiguous or not target.flags.aligned:
        return False
    if sum(t is target for t in wanted) > 1:
        return False
    return not any(np.may_share_memory(target, x) for x in others)


def _new_or_donated(
    output: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    inputs: Sequence[np.ndarray],
    donors: Mapping[int, int],
    wanted: Sequence[np.ndarray],
) -> np.ndarray:
    if output in donors:
        at = donors[output]
        given = inputs[at]
        others = [*(x for i, x in enumerate(inputs) if i != at), *wanted]
        if given.flags.writeable and can_hold(given, others):
            return given
    return empty(shape, dtype)


def check_targets(
    names: Sequence[str], targets: Sequence[Any], specs: Sequence[Spec]
) -> list[np.ndarray | None]:
    """The arrays to write to, None for a new one; a SignatureError names one that does not fit."""
    for name, target, (shape, dtype) in zip(names, targets, specs, strict=True):
        if target is not None:
            _check_target(name, target, shape, dtype)
    return list(targets)


def _check_target(name: str, target: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    is_array = isinstance(target, np.ndarray)
    if not is_array or target.shape != shape or target.dtype != dtype:
        got = f"{target.dtype}{list(target.shape)}" if is_array else type(target).__name__
        raise SignatureError(f"out for {name} must be an array {dtype}{list(shape)}, got {got}")
    if not target.flags.writeable:
        raise SignatureError(f"out for {name} is read-only")
    repeats = any(s == 0 and n > 1 for s, n in zip(target.strides, target.shape, strict=True))
    if repeats and target.size:
        raise SignatureError(f"out for {name} repeats its elements: a stride is 0")
