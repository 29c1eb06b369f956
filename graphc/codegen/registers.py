"""What one register does, for operands of any width."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.llvm import REGISTER, Function, register
from graphc.ir.types import DType


def by_register(
    fn: Function,
    args: Sequence[str],
    dtypes: Sequence[DType],
    result: DType,
    lanes: int,
    width: int,
    call: Callable[[Sequence[str]], str],
) -> str:
    """`call` on operands of `lanes` lanes each: wider ones in parts, narrower ones padded."""
    if width == lanes:
        return call(args)
    if width > lanes:
        low, high = (
            by_register(
                fn,
                [fn.half(a, REGISTER[d.name], width, upper) for a, d in zip(args, dtypes)],
                dtypes,
                result,
                lanes,
                width // 2,
                call,
            )
            for upper in (False, True)
        )
        half = register(result, width // 2)
        every = ", ".join(f"i32 {i}" for i in range(width))
        return fn.do(f"shufflevector {half} {low}, {half} {high}, <{width} x i32> <{every}>")
    padded = [_resized(fn, a, d, width, lanes) for a, d in zip(args, dtypes)]
    return _resized(fn, call(padded), result, lanes, width)


def _resized(fn: Function, value: str, dtype: DType, width: int, to: int) -> str:
    """The first lanes; those that are new repeat the first."""
    ty = register(dtype, width)
    if to == 1:
        return fn.do(f"extractelement {ty} {value}, i64 0")
    if width == 1 or not value.startswith("%"):
        literal_ = value.removeprefix(f"splat ({REGISTER[dtype.name]} ").removesuffix(")")
        return fn.spread(literal_, dtype, to)
    lanes = ", ".join(f"i32 {i if i < width else 0}" for i in range(to))
    return fn.do(f"shufflevector {ty} {value}, {ty} poison, <{to} x i32> <{lanes}>")


__all__ = ["by_register"]
