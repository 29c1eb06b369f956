"""A contraction as products of matrices: its rows, its columns, and the letters around them.

The memory that such a product needs besides its operands is known here, too: `plan` reserves it,
and `emit` uses it.

>>> from graphc.lower.loops import Contract, Operand
>>> from graphc.ir.types import f64
>>> a, b = Operand("x", 0, (("i", 1), ("j", 3))), Operand("w", 0, (("j", 5), ("k", 1)))
>>> y, sizes = Operand("y", 0, (("k", 3), ("i", 1))), (("i", 3), ("j", 4), ("k", 5))
>>> s = Contract(y, a, b, sizes, "j", "chain", f64)
>>> p = matrices(s)
>>> p.left.buffer, p.rows, p.columns, p.right_kind
('w', 5, 3, 'beside')
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.gates.contraction import BLOCK
from graphc.ir.types import (
    DType,
    Size,
    align_up,
    at_least,
    size_bits,
    size_floordiv,
    size_max,
    size_min,
)
from graphc.lower.loops import Contract, Operand

ROWS = 288  # of the result that are made together at most, in whole tiles of 6, 8 and 12 rows,
SLICE = 48  # and of these that share packed tiles of the left operand
COLUMN_BYTES = 2048  # of a row of the result that are made together: whole tiles
# The same where k has one block only: then no partial results wait for others, and must stay near.
ROWS_OF_ONE_BLOCK, COLUMN_BYTES_OF_ONE_BLOCK = 4 * ROWS, 2 * COLUMN_BYTES
WHOLE_TILES = 24  # rows of some tiles, whatever their height
VECTOR = 64  # bytes of the widest vector; a panel of the right operand is two across
IN_PLACE = 24  # rows up to which the right operand is read where it lies
FAR = 1024  # bytes between rows of the left operand from which it is packed,
USES = 96  # if its elements are used at least so often: else packing costs more than it gives
SHORT = 256  # bytes of a row of the result up to which the left operand is read where it lies,
NEAR = 4096  # if k does not run along its memory, but takes no more than these bytes a step
# Elements between packed tiles, and panels: else their starts would fall into one set of the cache.
TILE_GAP = 16
SPLIT_BLOCKS = 4  # blocks of k from which threads may share k,
SPLIT_BYTES = 128 * 1024  # if the result has at most these bytes: each part of k has one of its own


@dataclass(frozen=True)
class Matrices:
    """result[m, n] = sum over k of left[m, k] * right[k, n], for every point of the outer letters.

    Strides are in elements.
    """

    result: Operand
    left: Operand
    right: Operand
    rows: Size
    columns: Size
    depth: Size
    result_strides: tuple[Size, Size]  # of m and n
    left_strides: tuple[Size, Size]  # of m and k
    right_strides: tuple[Size, Size]  # of k and n
    outer: tuple[tuple[str, Size], ...]  # letters around, with their sizes
    dtype: DType
    alone: bool = False  # no threads share it: part of what one thread does

    @property
    def left_kind(self) -> str:
        """How the left operand lies: "ahead" along k, "beside" along m, or "apart"."""
        m, k = self.left_strides
        return "ahead" if k == 1 else "beside" if m == 1 else "apart"

    @property
    def right_kind(self) -> str:
        """How the right operand lies: "beside" along n, "ahead" along k, or "apart"."""
        k, n = self.right_strides
        return "beside" if n == 1 else "ahead" if k == 1 else "apart"

    @property
    def packs_right(self) -> str:
        """Is the right operand copied into panels: "never", "always", or "large", told by the rows
        at the call?
        """
        fits = isinstance(self.columns, int) and self.columns * self.dtype.itemsize >= VECTOR
        if self.right_kind != "beside" or not fits:
            return "always"
        if not isinstance(self.rows, int):
            return "large"
        return "never" if self.rows <= IN_PLACE else "always"

    @property
    def packs_left(self) -> str:
        """The same for the left operand and its tiles; the columns and strides at the call tell."""
        if self.left_kind != "ahead":
            return "never" if self._few_uses() else "always"
        rows, columns, stride = self.rows, self.columns, self.left_strides[0]
        few = isinstance(columns, int) and columns < USES
        near = isinstance(stride, int) and abs(stride) * self.dtype.itemsize < FAR
        if few or near or (isinstance(rows, int) and rows <= IN_PLACE):
            return "never"
        return "always" if isinstance(columns, int) and isinstance(stride, int) else "large"

    def _few_uses(self) -> bool:
        """Is each element of the left operand used in so few panels that a copy costs more, and are
        its columns near each other?
        """
        columns, step = self.columns, self.left_strides[1]
        if not isinstance(columns, int) or not isinstance(step, int):
            return False
        itemsize = self.dtype.itemsize
        return columns * itemsize <= SHORT and abs(step) * itemsize <= NEAR

    @property
    def splits_depth(self) -> bool:
        """May threads share k: has it many blocks, and the result, in one piece, few columns? Its
        rows are told at the call.
        """
        columns, depth, rows = self.columns, self.depth, self.rows
        if (
            self.alone
            or self.outer
            or not isinstance(columns, int)
            or self.result_strides != (columns, 1)
        ):
            return False
        if isinstance(depth, int) and depth <= BLOCK * (SPLIT_BLOCKS - 1):
            return False
        bytes_ = columns * self.dtype.itemsize
        return bytes_ * (rows if isinstance(rows, int) else 1) <= SPLIT_BYTES

    def partial_bytes(self) -> Size:
        """Of the result of a part of k."""
        if not self.splits_depth:
            return 0
        elements = self.rows * self.columns
        return size_min(align_up(elements * self.dtype.itemsize, VECTOR), SPLIT_BYTES)

    def work_elements(self) -> Size:
        """Of each thread's own memory, in whole panels of any width that a processor may have:
        packed tiles of the left operand, a block of the right one, and what blocks of k gave and
        waits for others.
        """
        left = 0 if self.packs_left == "never" else PACKED_ELEMENTS
        widest, narrowest = 2 * VECTOR // self.dtype.itemsize, VECTOR // self.dtype.itemsize
        columns = align_up(self.columns, widest)
        across = size_min(columns, COLUMN_BYTES // self.dtype.itemsize)
        levels = size_bits(size_floordiv(size_max(self.depth, 1) - 1, BLOCK))
        waiting = levels * (size_min(align_up(self.rows, WHOLE_TILES), ROWS) * across)
        if not at_least(self.depth, BLOCK + 1):
            across = size_min(columns, COLUMN_BYTES_OF_ONE_BLOCK // self.dtype.itemsize)
        gaps = size_floordiv(across, narrowest) * TILE_GAP
        right = across * size_min(self.depth, BLOCK) + gaps if self.packs_right != "never" else 0
        return left + right + waiting


PACKED_ELEMENTS = (SLICE // 6) * (6 * BLOCK + TILE_GAP)  # tiles of 6 rows take most


def matrices(s: Contract) -> Matrices:
    """The letters of a contraction in their roles.

    The last letter of the result that only one operand has runs along its rows: that operand is the
    right one.
    """
    out = [c for c, _ in s.out.strides]
    own = [c for c in out if (c in dict(s.a.strides)) != (c in dict(s.b.strides))]
    left, right = (s.b, s.a) if own[-1] in dict(s.a.strides) else (s.a, s.b)
    c, a, b = (dict(o.strides) for o in (s.out, left, right))
    sizes = dict(s.sizes)
    n = own[-1]
    m = [x for x in own if x in a][-1]
    outer = [x for x in out if x not in (m, n)]
    rows, outer = _joined(m, outer, sizes, (c, a), b)
    columns, outer = _joined(n, outer, sizes, (c, b), a)
    return Matrices(
        s.out, left, right, rows, columns, sizes[s.k], (c[m], c[n]), (a[m], a[s.k]), (b[s.k], b[n]),
        tuple((x, sizes[x]) for x in outer), s.dtype,
    )  # fmt: skip


def _joined(
    letter: str, outer: list[str], sizes: dict[str, Size], having: tuple[dict[str, Size], ...],
    lacking: dict[str, Size],
) -> tuple[Size, list[str]]:  # fmt: skip
    """The size of a letter together with those around it that walk memory as one with it."""
    size = sizes[letter]
    while True:
        for x in outer:
            if x not in lacking and all(x in o and o[x] == o[letter] * size for o in having):
                size, outer = size * sizes[x], [y for y in outer if y != x]
                break
        else:
            return size, outer
