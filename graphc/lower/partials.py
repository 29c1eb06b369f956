"""What parts of a loop, or of a sweep, give its sums, and where they leave it.

In:   parallel loops, matrix products and sweeps.
Out:  for every sum its place among the results of a part, in bytes, and how many bytes these are.
Invariant: a result is a node of the sum's tree: the lanes of a sum in lanes, which are added up at
the very end, an array, or one number.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.gates.contraction import BLOCK
from graphc.gates.reduction import lanes_of
from graphc.ir.types import DType, Size, align_up, product, size_bits, size_floordiv, size_max
from graphc.lower.loops import Acc, Contract, For, Kernel, Program
from graphc.lower.matrix import matrices
from graphc.lower.sweep import adds_up

ALIGNMENT = 64


def partial_elements(acc: Acc) -> Size:
    """What a part of a loop gives a sum."""
    if acc.into:
        return acc.size
    return lanes_of(acc.dtype) if acc.order == "lanes" else 1


def partials_of(loop: For) -> tuple[dict[str, Size], Size]:
    """Where a part of a parallel loop leaves the result of each accumulator, in bytes, and how many
    bytes these are; those of known size come first.
    """
    places: dict[str, Size] = {}
    end: Size = 0
    for acc in sorted(loop.accs, key=lambda acc: bool(acc.into)):
        places[acc.name] = end
        end = end + align_up(partial_elements(acc) * acc.dtype.itemsize, ALIGNMENT)
    return places, end


@dataclass(frozen=True)
class SweepSum:
    """A sum over the rows of a sweep: a loop's accumulator, or a product's result."""

    position: int  # of its statement
    acc: Acc | None
    dtype: DType
    elements: Size
    into: str  # the buffer that it fills, if it is an array,
    index: Size  # and from where on
    place: Size  # among the results of a panel, in bytes

    @property
    def block(self) -> int:
        """The rows of its tree's leaf, if a panel may be less than one."""
        return BLOCK if self.acc is None else 1

    @property
    def monoid(self) -> str:
        return "sum" if self.acc is None or self.acc.monoid == "fma" else self.acc.monoid


def partials_of_sweep(kernel: Kernel) -> tuple[list[SweepSum], Size]:
    """The sums of a sweep, and the bytes of what a panel gives them all."""
    assert kernel.sweep is not None
    found: list[SweepSum] = []
    end: Size = 0
    for i, s in enumerate(kernel.body):
        if isinstance(s, For):
            places, size = partials_of(s)
            found += [
                SweepSum(i, a, a.dtype, partial_elements(a), a.into, a.index, end + places[a.name])
                for a in s.accs
            ]
            end = end + size
        elif isinstance(s, Contract) and adds_up(s, kernel.sweep):
            elements = product(dict(s.sizes)[c] for c, _ in s.out.strides)
            found.append(SweepSum(i, None, s.dtype, elements, s.out.buffer, 0, end))
            end = end + align_up(elements * s.dtype.itemsize, ALIGNMENT)
    return found, end


def levels_of_sweep(kernel: Kernel) -> Size:
    """Results of panels that wait for others at most, and the one that is being made."""
    assert kernel.sweep is not None
    return size_bits(size_floordiv(size_max(kernel.sweep, 1) - 1, kernel.panel)) + 1


def largest_partials(program: Program) -> Size:
    """The most bytes that a part of anything in a program leaves behind."""
    sizes: list[Size] = []
    for kernel in program.kernels:
        if kernel.sweep is not None:
            sizes.append(partials_of_sweep(kernel)[1])
        for s in kernel.body:
            if isinstance(s, For) and s.parallel:
                sizes.append(partials_of(s)[1])
            elif isinstance(s, Contract) and kernel.sweep is None:
                sizes.append(matrices(s).partial_bytes())
    largest: Size = 0
    for size in dict.fromkeys(sizes):
        largest = size if largest == 0 else size_max(largest, size)
    return largest


__all__ = [
    "ALIGNMENT", "SweepSum", "largest_partials", "levels_of_sweep", "partial_elements",
    "partials_of", "partials_of_sweep",
]  # fmt: skip
