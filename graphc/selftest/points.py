"""Where gates are tried: all exponents, the range where a function lives, and its breakpoints.

In:   an `Exact`, a format (f64 or f32), how many points, a seed.
Out:  chunks: tuples of arrays, one array for each operand.
Invariant: the same arguments give the same points, on every machine.

>>> x, = next(sweep(np.float32, 2**31))
>>> x
array([ 0., -0.], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc.selftest.exact import Exact

Array = np.ndarray
CHUNK = 1 << 16  # fits the second-level cache along with a dozen temporaries
PATTERNS = 1 << 32
BITS = {np.dtype(np.float64): np.int64, np.dtype(np.float32): np.int32}


def sweep(dtype: Any, stride: int, first: int = 0, last: int = PATTERNS) -> Iterator[tuple[Array]]:
    """Every `stride`-th pattern of f32, in chunks."""
    assert np.dtype(dtype) == np.float32
    for start in range(first, last, CHUNK * stride):
        patterns = np.arange(start, min(start + CHUNK * stride, last), stride, dtype=np.uint64)
        yield (patterns.astype(np.uint32).view(np.float32),)


def by_exponent(rng: np.random.Generator, dtype: Any, count: int) -> Array:
    """Finite numbers of either sign whose exponents are all alike frequent."""
    info = np.finfo(dtype)
    low, high = info.minexp - info.nmant, info.maxexp
    exponents = rng.integers(low, high, count)
    with np.errstate(under="ignore"):
        return np.ldexp(rng.uniform(1, 2, count), exponents).astype(dtype) * rng.choice(
            np.array([-1, 1], dtype), count
        )


def near_one(rng: np.random.Generator, dtype: Any, count: int) -> Array:
    """Magnitudes from 2^-40 to 2^11."""
    x = np.exp2(rng.uniform(-40, 11, count)) * rng.choice([-1, 1], count)
    return x.astype(dtype)


def around(rng: np.random.Generator, dtype: Any, breaks: Sequence[float], each: int) -> Array:
    """The neighbours of points: one float after the other, and ever farther away."""
    with np.errstate(over="ignore", under="ignore"):
        centre = np.unique(np.array([*breaks, *(-b for b in breaks)], np.float64).astype(dtype))
    centre = centre[np.isfinite(centre)]
    steps = np.arange(-each // 2, each // 2)
    close = (
        centre.view(BITS[np.dtype(dtype)])[:, None] + steps.astype(BITS[np.dtype(dtype)])
    ).view(dtype)
    spread = np.exp2(rng.uniform(-45, -1, (centre.size, each))) * rng.choice(
        [-1, 1], (centre.size, each)
    )
    far = (centre[:, None].astype(np.float64) * (1 + spread)).astype(dtype)
    found = np.concatenate([close.ravel(), far.ravel()])
    return found[np.isfinite(found)]


def single(
    exact: Exact, edges: Sequence[float], dtype: Any, count: int, seed: int
) -> Iterator[tuple[Array]]:
    """About `count` arguments of a gate of one operand."""
    rng = np.random.default_rng(seed)
    breaks = [b for b in {*exact.breaks, *edges} if b]
    each = min(256, max(16, count // (8 * len(breaks) + 8)))
    yield from _cut((np.concatenate([around(rng, dtype, [*breaks, 1.0], each), specials(dtype)]),))
    done = 0
    while done < count:
        n = min(CHUNK, count - done)
        yield (_unary_mix(rng, exact, dtype, n),)
        done += n


def _unary_mix(rng: np.random.Generator, exact: Exact, dtype: Any, n: int) -> Array:
    third = n // 3 + 1
    alive = rng.uniform(*exact.live, third).astype(dtype)
    mixed = [alive, by_exponent(rng, dtype, third), near_one(rng, dtype, third)]
    return np.concatenate(mixed)[:n]


def several(
    exact: Exact, edges: Sequence[float], arity: int, dtype: Any, count: int, seed: int
) -> Iterator[tuple[Array, ...]]:
    """About `count` pairs (or triples): independent ones, close ones, and the recipe's."""
    rng = np.random.default_rng(seed)
    breaks = [b for b in {*exact.breaks, *edges, 1.0} if b]
    corners = np.concatenate([around(rng, dtype, breaks, 16), specials(dtype)])
    done = 0
    while done < count:
        n = min(CHUNK, count - done) // 4 + 1
        parts = [
            [by_exponent(rng, dtype, n) for _ in range(arity)],
            [_unary_mix(rng, exact, dtype, n) for _ in range(arity)],
            [rng.choice(corners, n), *(_unary_mix(rng, exact, dtype, n) for _ in range(arity - 1))],
            _recipe(rng, exact, arity, dtype, n),
        ]
        if done == 0:
            m = min(n, corners.size**2)
            parts.append([rng.choice(corners, m) for _ in range(arity)])
        rng.shuffle(parts[2])
        yield from (tuple(part) for part in parts)
        done += 4 * n


def _recipe(rng: np.random.Generator, exact: Exact, arity: int, dtype: Any, n: int) -> list[Array]:
    with np.errstate(all="ignore"):
        if exact.pairs == "power":  # x near 1 or anywhere, y so that x^y spans the whole range
            spread = np.exp2(rng.uniform(-50, 0, n)) * rng.choice([-1, 1], n)
            x = np.where(rng.random(n) < 0.5, 1 + 0.9 * spread, abs(by_exponent(rng, dtype, n)))
            x = x.astype(dtype)
            largest = 745 if np.dtype(dtype) == np.float64 else 104
            y = rng.uniform(-largest, largest, n) / np.log(x.astype(np.float64))
            return [x, np.nan_to_num(y, posinf=3.0, neginf=-3.0).astype(dtype)]
        first = _unary_mix(rng, exact, dtype, n)
        if exact.pairs == "positive":
            return [first, abs(_unary_mix(rng, exact, dtype, n))]
        if exact.pairs == "quotient":  # whole multiples, and their neighbours
            whole = np.rint(np.exp2(rng.uniform(0, 40, n)))
            multiple = (first * whole).astype(dtype)
            return [np.nextafter(multiple, rng.choice(np.array([-1, 1], dtype), n)), first]
        others = [
            (first * (1 + np.exp2(rng.uniform(-54, 1, n)) * rng.choice([-1, 1], n))).astype(dtype)
            * rng.choice(np.array([-1, 1, 1, 1], dtype), n)
            for _ in range(arity - 1)
        ]
        return [first, *others]


def specials(dtype: Any) -> Array:
    """Zeros, infinities, NaN, subnormals, the largest, and a few plain numbers."""
    info = np.finfo(dtype)
    tiny, large = float(info.smallest_subnormal), float(info.max)
    normal = float(info.tiny)
    positive = [
        0.0, tiny, 3 * tiny, normal / 2, normal, normal * 1.5, float(info.eps), 0.5, 1.0,
        1 + float(info.eps), 1.5, 2.0, 3.0, 10.0, large / 2, large, np.inf,
    ]  # fmt: skip
    return np.array([*positive, *(-p for p in positive), np.nan], dtype)


def _cut(arrays: tuple[Array, ...]) -> Iterator[Any]:
    for start in range(0, arrays[0].size, CHUNK):
        yield tuple(np.ascontiguousarray(a[start : start + CHUNK]) for a in arrays)
