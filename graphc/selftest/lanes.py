"""Special values: the table of C99's Annex F, and the same bits in every lane and at every length.

In:   a gate's `Exact`, a dtype, a compiled subject.
Out:  what is wrong, one line each; nothing where all is right.
Invariant: lengths 1 to 67 go through every remainder of every vector width, and each special value
(each pair of them) stands at each position of each length.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphc.selftest.exact import Exact
from graphc.selftest.points import BITS, specials
from graphc.selftest.subjects import Subject

Array = np.ndarray
LENGTHS = range(1, 68)
AT = (0.0, -0.0, np.inf, -np.inf, np.nan)
PAIRS = (0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, np.inf, -np.inf, np.nan)


def same_bits(a: Array, b: Array) -> Array:
    """Elementwise; all NaNs are one."""
    integer = BITS[a.dtype]
    return (a.view(integer) == b.view(integer)) | (np.isnan(a) & np.isnan(b))


def special_arguments(exact: Exact, arity: int, dtype: Any) -> tuple[Array, ...]:
    """Special values and the gate's breakpoints; of several operands, combinations of them."""
    with np.errstate(all="ignore"):
        breaks = np.array(exact.breaks, np.float64).astype(dtype)
    found: tuple[Array, ...]
    if arity == 1:
        found = (np.concatenate([specials(dtype), breaks]),)
    else:
        few = np.array(PAIRS if arity == 2 else PAIRS[::3], dtype)
        large = np.finfo(dtype)
        more = [float(large.max), float(large.smallest_subnormal)]
        few = np.concatenate([few, np.array(more, dtype)])
        columns = np.array(list(itertools.product(few, repeat=arity)), dtype).T
        found = tuple(np.ascontiguousarray(c) for c in columns)
    if exact.where is not None:
        with np.errstate(all="ignore"):
            keep = exact.where(*found)
        found = tuple(np.ascontiguousarray(a[keep]) for a in found)
    return found


def lane_faults(exact: Exact, arity: int, dtype: Any, subject: Subject) -> Iterator[str]:
    """Results that depend on where an element stands."""
    args = special_arguments(exact, arity, dtype)
    whole = subject.run(*args)
    n = args[0].size
    for length in LENGTHS:
        for turn in range(0, n, 1 if arity == 1 else max(1, length // 2)):
            at = (turn + np.arange(length)) % n
            parts = subject.run(*(a[at] for a in args))
            for i, (all_, part) in enumerate(zip(whole, parts, strict=True)):
                if all_ is None or part is None:
                    continue
                bad = ~same_bits(all_[at], part)
                if bad.any():
                    k = int(np.argmax(bad))
                    where = ", ".join(str(a[at][k]) for a in args)
                    yield (
                        f"output {i} at ({where}): {part[k]!s} at position {k} of {length}, "
                        f"elsewhere {all_[at][k]!s}"
                    )
                    return


def table_faults(exact: Exact, arity: int, dtype: Any, subject: Subject) -> Iterator[str]:
    """Results that differ from the table of special values, or from the C library's."""
    rows = _unary_rows(exact) if arity == 1 else _pair_rows(exact)
    if not rows:
        return
    args = [np.array([row[i] for row in rows], dtype) for i in range(arity)]
    expected = np.array([row[-1] for row in rows], np.float64).astype(dtype)
    got = subject.run(*args)[0]
    assert got is not None
    close = abs(got.view(BITS[got.dtype]) - expected.view(BITS[got.dtype])) <= 1
    exactly = ~np.isfinite(expected) | (abs(expected) == 1) | (expected == 0)
    right = same_bits(got, expected) | (close & ~exactly)
    if arity == 1:
        either = np.array([v == "~0" for v in exact.at.split()])
        right |= either & (got == 0)
    for k in np.flatnonzero(~right):
        where = ", ".join(str(a[k]) for a in args)
        yield f"at ({where}): {got[k]!s}, not {expected[k]!s}"


def _unary_rows(exact: Exact) -> list[tuple[float, ...]]:
    values = [float(v.removeprefix("~")) for v in exact.at.split()]
    return list(zip(AT[: len(values)], values, strict=True))


def _pair_rows(exact: Exact) -> list[tuple[float, ...]]:
    """Pairs of zeros, ones, infinities and NaN, as the C library has them: Annex F."""
    if not exact.library:
        return []
    function = c_function(exact.library)
    pairs = list(itertools.product(PAIRS, repeat=2))
    if exact.library in ("fmax", "fmin"):  # which of two zeros is larger, C leaves open
        pairs = [(x, y) for x, y in pairs if x or y]
    return [(x, y, function(x, y)) for x, y in pairs]


@cache
def c_function(name: str) -> Any:
    """A function of two doubles of the C library."""
    function = getattr(ctypes.CDLL(None), name)
    function.argtypes, function.restype = [ctypes.c_double] * 2, ctypes.c_double
    return function


def faults(exact: Exact, arity: int, dtype: Any, subject: Subject) -> Sequence[str]:
    return [
        *table_faults(exact, arity, dtype, subject),
        *lane_faults(exact, arity, dtype, subject),
    ]
