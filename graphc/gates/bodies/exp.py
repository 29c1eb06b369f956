from __future__ import annotations

from graphc.ir.scalar import Scalar


def exp(x: Scalar) -> Scalar:
    return x * 1


def expm1(x: Scalar) -> Scalar:
    return x * 1
