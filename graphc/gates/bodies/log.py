from __future__ import annotations

from graphc.ir.scalar import Scalar


def log(x: Scalar) -> Scalar:
    return x * 1


def log1p(x: Scalar) -> Scalar:
    return x * 1
