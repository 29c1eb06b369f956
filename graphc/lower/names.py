"""Which values statements make and read, by name; the same statements with other names.

>>> from graphc.ir.types import f64
>>> square = Let("%2", "mul", ("%1", "%1"), f64)
>>> used([square]), defined([square]), with_names(square, {"%1": "%7"}).args
(['%1', '%1'], [('%2', f64)], ('%7', '%7'))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphc.ir.types import DType, bool_, i64
from graphc.lower.loops import (
    Add,
    For,
    Index,
    Inside,
    Iota,
    Let,
    Load,
    Scatter,
    Statement,
    Step,
    Store,
)


def defined(statements: Sequence[Statement]) -> list[tuple[str, DType]]:
    """Names and dtypes of the values that statements make at their own level."""
    found: list[tuple[str, DType]] = []
    for s in statements:
        if isinstance(s, (Let, Load, Step)):
            found.append((s.name, s.dtype))
        elif isinstance(s, (Iota, Index)):
            found.append((s.name, i64))
        elif isinstance(s, Inside):
            found.append((s.name, bool_))
        elif isinstance(s, For):
            found.extend((a.name, a.dtype) for a in s.accs if not a.into)
    return found


def used(statements: Sequence[Statement]) -> list[str]:
    """Names of values that statements read, those in inner loops included."""
    found: list[str] = []
    for s in statements:
        found.extend(used(s.body) if isinstance(s, For) else used_by(s))
    return found


def used_by(s: Statement) -> tuple[str, ...]:
    match s:
        case Let():
            return s.args
        case Load():
            return (*(v for v, _ in s.at), *_given(s.only))
        case Store():
            return (s.value, *_given(s.only))
        case Index():
            return (s.value,)
        case Add() | Step():
            return s.values
        case Scatter():
            return (s.value, *(v for v, _ in s.at))
    return ()


def _given(only: str) -> tuple[str, ...]:
    return (only,) if only else ()


def with_names(s: Statement, names: Mapping[str, str]) -> Statement:
    """The statement with other names for some of the values that it makes or reads; accumulators
    keep theirs."""

    def new(name: str) -> str:
        return names.get(name, name)

    match s:
        case Let():
            return replace(s, name=new(s.name), args=tuple(map(new, s.args)))
        case Load():
            at = tuple((new(v), t) for v, t in s.at)
            return replace(s, name=new(s.name), at=at, only=new(s.only))
        case Iota() | Inside():
            return replace(s, name=new(s.name))
        case Index():
            return replace(s, name=new(s.name), value=new(s.value))
        case Store():
            return replace(s, value=new(s.value), only=new(s.only))
        case Scatter():
            return replace(s, value=new(s.value), at=tuple((new(v), t) for v, t in s.at))
        case Add():
            return replace(s, values=tuple(map(new, s.values)))
        case Step():
            return replace(s, name=new(s.name), values=tuple(map(new, s.values)))
        case For():
            return replace(s, body=tuple(with_names(t, names) for t in s.body))
    return s


__all__ = ["defined", "used", "used_by", "with_names"]
