from __future__ import annotations

from graphc.ir.scalar import Scalar


def sin(x: Scalar) -> Scalar:
    return x * 1


def cos(x: Scalar) -> Scalar:
    return x * 1
