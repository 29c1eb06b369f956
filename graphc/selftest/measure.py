"""Errors in units of the last place, and the worst of them.

In:   a gate's `Exact`, a dtype, the subjects to judge, chunks of arguments.
Out:  for each subject and each of its outputs a `Tally`: the worst points, re-judged by mpmath.
Invariant: an error is the distance to the exact result, before rounding, in units of the last place
of the exact result, or of its scale where that is larger; a NaN, an infinity or a number that
stands where another kind of result belongs is an infinite error.

>>> errors(np.float32([1, np.inf]), np.array([1 + 2.0**-23, 2.0**128]), np.float32)
array([1., 0.])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from graphc.selftest.arithmetic import HAS_LONG, LONG, Bulk, Extended, evaluated
from graphc.selftest.exact import Exact, Function
from graphc.selftest.subjects import Subject

Array = np.ndarray
KEPT = 24  # worst points of each output, for mpmath to look at
JUDGE = {np.dtype(np.float64): LONG, np.dtype(np.float32): np.float64}
# How wrong the judge may be, in units of the dtype: see `arithmetic`.
SLACK = {np.dtype(np.float64): 0.004, np.dtype(np.float32): 2.0**-26}


def unit_of(magnitude: Array, dtype: Any) -> Array:
    """The distance of neighbours in `dtype` where numbers have this magnitude."""
    info = np.finfo(dtype)
    least = 2.0 ** (info.minexp - info.nmant)
    if magnitude.dtype == np.float64:  # the exponent's bits alone are a power of two
        power = (magnitude.view(np.int64) & 0x7FF0000000000000).view(np.float64)
        return np.maximum(power * 2.0**-info.nmant, least)
    low = info.minexp - info.nmant
    exponent = np.where(magnitude == 0, low, np.frexp(magnitude)[1] - 1 - info.nmant)
    return np.ldexp(magnitude.dtype.type(1), np.maximum(exponent, low))


def errors(got: Array, exact: Array, dtype: Any, scale: Array | None = None) -> Array:
    """The error of each result. Overflow to infinity counts as the next power of two."""
    above = exact.dtype.type(2) ** np.finfo(dtype).maxexp
    with np.errstate(all="ignore"):
        wide = got.astype(exact.dtype)
        magnitude = abs(exact)
        if scale is not None:
            magnitude = np.maximum(magnitude, np.where(np.isfinite(scale), scale, 0))
        result = abs(wide - exact) / unit_of(magnitude, dtype)
        odd = ~np.isfinite(wide) | ~np.isfinite(exact)
        if odd.any():
            w, e = wide[odd], exact[odd]
            past = abs(e) >= above
            same = (np.isnan(w) & np.isnan(e)) | (
                np.isinf(w) & past & (np.signbit(w) == np.signbit(e))
            )
            near = np.isinf(w) & (abs(e) < above) & (np.signbit(w) == np.signbit(e))
            unit = above * exact.dtype.type(2) ** (-1 - np.finfo(dtype).nmant)
            result[odd] = np.where(same, 0, np.where(near, (above - abs(e)) / unit, np.inf))
        return result.astype(np.float64)


@dataclass(frozen=True)
class Point:
    """One argument with its result."""

    error: float
    args: tuple[Any, ...]
    got: Any
    judged: str = "bulk"

    @property
    def place(self) -> str:
        return ", ".join(_shortest(a) for a in self.args)


def _shortest(x: Any) -> str:
    return str(x)


@dataclass
class Tally:
    """The worst points of one output of one subject."""

    points: list[Point] = field(default_factory=list)
    count: int = 0
    gap: float = 0.0  # the largest difference of the two judges

    def add(self, error: Array, args: Sequence[Array], got: Array) -> None:
        self.count += error.size
        floor = self.points[-1].error if len(self.points) >= KEPT else 0.0
        if not error.size or not error.max() > floor:
            return
        chosen = np.argpartition(error, -min(KEPT, error.size))[-KEPT:]
        self.points += [
            Point(float(error[i]), tuple(a[i] for a in args), got[i])
            for i in chosen
            if error[i] > floor
        ]
        self.points = sorted(self.points, key=lambda p: -p.error)[:KEPT]

    @property
    def worst(self) -> Point | None:
        return self.points[0] if self.points else None


@dataclass(frozen=True, eq=False)
class Judge:
    """An `Exact` at work on one dtype."""

    exact: Exact
    dtype: Any

    @property
    def functions(self) -> list[tuple[Function | None, Function | None]]:
        """Each output's function, and its scale."""
        e = self.exact
        scales = [e.scale, *e.scales, *[None] * len(e.partials)]
        return list(zip([e.value, *e.partials], scales, strict=False))

    def bulk(self, args: Sequence[Array]) -> list[tuple[Array, Array | None] | None]:
        """Exact results and scales, as far as the bulk arithmetic goes."""
        m = _bulk(JUDGE[np.dtype(self.dtype)])
        shape = args[0].shape
        found: list[tuple[Array, Array | None] | None] = []
        with np.errstate(all="ignore"):
            wide = [a.astype(m.dtype) for a in args]
            for i, (f, scale) in enumerate(self.functions):
                if f is None:
                    found.append(None)
                    continue
                y = f(m, *wide)
                if i == 0 and self.exact.equals:
                    y = getattr(np, self.exact.equals)(*args).astype(m.dtype)
                full = np.ascontiguousarray(np.broadcast_to(np.asarray(y, m.dtype), shape))
                found.append((full, None if scale is None else scale(m, *wide)))
        return found

    def precise(self, output: int, point: Point) -> float | None:
        """A point's error by mpmath; None where mpmath has no opinion."""
        f, scale = self.functions[output]
        if f is None or (output == 0 and self.exact.equals) or not np.isfinite(point.got):
            return None
        if not all(np.isfinite(a) for a in point.args):
            return None
        m = _extended()
        exact = evaluated(m, f, point.args)
        if exact is None:
            return None
        units = evaluated(m, scale, point.args) if scale is not None else None
        magnitude = max(abs(exact), units or 0)
        info = np.finfo(self.dtype)
        low = info.minexp - info.nmant
        exponent = max(m.context.mag(magnitude) - 1 - info.nmant, low) if magnitude else low
        error = abs(m.number(point.got) - exact) / m.context.mpf(2) ** int(exponent)
        size = m.context.mag(error)
        return 0.0 if error == 0 or size < -60 else float(error) if size < 1000 else np.inf


@cache
def _bulk(dtype: Any) -> Bulk:
    return Bulk(dtype)


@cache
def _extended() -> Extended:
    return Extended()


def scan(
    judge: Judge, subjects: Sequence[Subject], chunks: Iterable[tuple[Array, ...]], sample: int = 0
) -> list[list[Tally]]:
    """Tallies by subject and output. `sample` random points go to mpmath, whatever their error."""
    outputs = len(judge.functions)
    tallies = [[Tally() for _ in range(outputs)] for _ in subjects]
    rng = np.random.default_rng(1)
    drawn: list[list[Point]] = [[] for _ in range(outputs)]
    alone = np.dtype(judge.dtype) == np.float64 and not HAS_LONG
    for chunk in chunks:
        args = _admitted(judge, chunk)
        if not args[0].size:
            continue
        if alone:
            pick = rng.choice(args[0].size, min(args[0].size, 200), replace=False)
            args = tuple(np.ascontiguousarray(a[pick]) for a in args)
        found = judge.bulk(args)
        finite = np.logical_and.reduce([np.isfinite(a) for a in args])
        for s, subject in enumerate(subjects):
            for i, got in enumerate(subject.run(*args)[:outputs]):
                one = found[i]
                if one is None or got is None:
                    continue
                error = errors(got, one[0], judge.dtype, one[1])
                asked = finite & _differentiable(judge, args, found, i) if i else finite
                error[~asked] = 0.0  # infinities are the table's
                if i == 0 and len(args) == 1:
                    error[np.isnan(args[0]) & ~np.isnan(got)] = np.inf
                if s == 0 and (sample or alone):
                    many = args[0].size if alone else max(1, sample // 64)
                    pick = rng.integers(0, args[0].size, min(many, args[0].size))
                    drawn[i] += [
                        Point(float(error[k]), tuple(a[k] for a in args), got[k])
                        for k in pick
                        if asked[k]
                    ]
                    if len(drawn[i]) > 4 * sample and not alone:
                        chosen = rng.choice(len(drawn[i]), sample, replace=False)
                        drawn[i] = [drawn[i][k] for k in chosen]
                if alone:
                    error = np.where(np.isfinite(error), 0.0, error)
                tallies[s][i].add(error, args, got)
    for s, _ in enumerate(subjects):
        for i, tally in enumerate(tallies[s]):
            extra = drawn[i] if s == 0 else []
            if len(extra) > sample and not alone:
                extra = [extra[k] for k in rng.choice(len(extra), sample, replace=False)]
            _rejudge(judge, i, tally, extra)
    return tallies


def _admitted(judge: Judge, chunk: tuple[Array, ...]) -> tuple[Array, ...]:
    if judge.exact.where is None:
        return chunk
    with np.errstate(all="ignore"):
        keep = judge.exact.where(*chunk)
    return tuple(np.ascontiguousarray(a[keep]) for a in chunk)


def _differentiable(
    judge: Judge, args: Sequence[Array], found: Sequence[Any], output: int
) -> Array:
    """Where value and derivative are numbers, and the derivative is not spared."""
    value, slope = found[0][0], found[output][0]
    asked = ~np.isnan(value) & ~np.isnan(slope)
    if judge.exact.spare is not None:
        with np.errstate(all="ignore"):
            asked &= ~judge.exact.spare(*args)
    return asked


def _rejudge(judge: Judge, output: int, tally: Tally, more: Sequence[Point]) -> None:
    """The errors of the worst points, and of some others, by mpmath."""
    judged: list[Point] = []
    for point in [*tally.points, *more]:
        error = judge.precise(output, point)
        if error is None:
            judged.append(point)
            continue
        if np.isfinite(point.error):  # the unit halves where the judge rounds to a power of two
            gap = min(abs(error - point.error), abs(error - 2 * point.error))
            tally.gap = max(tally.gap, gap)
        judged.append(Point(error, point.args, point.got, "mpmath"))
    tally.points = sorted(judged, key=lambda p: -p.error)[:KEPT]
