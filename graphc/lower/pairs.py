"""Pairs of points: what is alike for both of a pair is computed once.

In:   a `Program` with loops in lanes.
Out:  the same, with the mode `pairs` on inner loops over the points that the loop in lanes around
      it walks, where much of the work gives (i, j) and (j, i) the same: a distance, and all that is
      made from it.
Invariant: none but modes change, and with them no value. What both take is the same to the bit, or
the opposite of the same up to the sign of zeros, for a sum that does not know the signs of zeros
(`sum0`). Either is proved statement by statement; all else is computed for each of the two.

A sum over all j in the order `lanes` is a tree for each lane, whose subtrees are blocks of points.
So the pairs of a block of rows and a block of columns can be visited once, with the sums of the
rows over these columns and those of the columns over these rows; from these, every row's trees go
on as they would have (`codegen.pairs`).

>>> from graphc.lower.loop_text import parse_program
>>> program = in_pairs(parse_program(EXAMPLE))
>>> [outer] = program.kernels[0].body
>>> outer.mode, outer.body[0].mode
('lanes', 'pairs')
>>> pairing(outer).columns, pairing(outer).mirrored
({'%1': ('%8', -1)}, ())
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.gates.reduction import LEAF, SUMS, lanes_of
from graphc.ir.scalar import to_bits
from graphc.ir.types import (
    Dim,
    DType,
    Size,
    TensorType,
    align_up,
    size_bits,
    size_floordiv,
    size_max,
    size_min,
)
from graphc.lower.loops import (
    Add,
    Buffer,
    For,
    Iota,
    Kernel,
    Let,
    Load,
    Program,
    Statement,
    Store,
    coefficient,
    lane_count,
    walk,
    without,
)
from graphc.lower.names import defined, used_by, with_names
from graphc.lower.parallel import cost

BLOCKS = 4  # of points at most, so that there are few partial sums, and pairs of blocks for threads
MOST = 8192  # points, beyond which the partial sums would take more than a few megabytes
# Points up to which two threads, or one, take two blocks alone: half as much goes from one to the
# other, which takes long where they share no cache.
IN_TWO = MOST // 2
# A thread's sums: those of a leaf of rows, some that nobody reads, and from there on columns'.
REAL, UNUSED, COLUMNS = 0, LEAF, LEAF + 1
WORTH = 2, 3  # the share of the work that is saved at least, as a fraction
COMMUTATIVE = ("add", "mul", "and", "or")
MIRRORED = "~"  # behind the names of values of (j, i)
EXAMPLE = """program forces(x: f64[n])
sizes n
buffer output f.out: f64[n]
kernel k0
  for _i in n lanes
    for _j in n rows
      acc %1: f64 sum0 lanes
      %2 = load x[_i] : f64
      %3 = load x[_j] : f64
      %4 = sub %2, %3 : f64
      %5 = mul %4, %4 : f64
      %6 = const 1.0 : f64
      %7 = call exp %5 : f64
      %8 = mul %7, %4 : f64
      add %1 %8
    store f.out[_i] %1
"""


@dataclass(frozen=True)
class Pairing:
    """How the iterations (i, j) and (j, i) share their work."""

    inner: For
    rows: tuple[Statement, ...]  # of the loop around it, what the inner loop needs
    mirrored: tuple[Statement, ...]  # what (j, i) needs besides, after what (i, j) does
    columns: dict[str, tuple[str, int]]  # of each sum, what that of j takes, and with which sign


def in_pairs(program: Program) -> Program:
    """For loops of kernels, not those inside of other loops or sweeps."""
    kernels = tuple(k if k.sweep is not None else _in_kernel(k) for k in program.kernels)
    return replace(program, kernels=kernels)


def _in_kernel(kernel: Kernel) -> Kernel:
    body: list[Statement] = []
    for s in kernel.body:
        found = pairing(s) if isinstance(s, For) and s.mode == "lanes" else None
        if found is not None and not any(is_paired(t) for t in body):
            assert isinstance(s, For)
            marked = (replace(t, mode="pairs") if t is found.inner else t for t in s.body)
            s = replace(s, body=tuple(marked))
        body.append(s)
    return replace(kernel, body=tuple(body))


def is_paired(s: Statement) -> bool:
    """Is it a loop around one over pairs?"""
    return isinstance(s, For) and any(isinstance(t, For) and t.mode == "pairs" for t in s.body)


def least_points(dtype: DType) -> int:
    """Blocks of points are whole leaves of all sums, and two of these: with fewer, two threads have
    not enough to do."""
    return 2 * BLOCKS * LEAF * lanes_of(dtype)


def pairing(loop: For) -> Pairing | None:
    """How a loop in lanes shares the work of pairs, if that pays."""
    inner = _inner_of(loop)
    if inner is None:
        return None
    before = loop.body[: loop.body.index(inner)]
    rows = tuple(_needed(inner, before))
    written = {s.buffer for s, _ in walk(loop.body) if isinstance(s, Store)}
    if not all(isinstance(s, (Let, Load, Iota)) for s in rows) or any(
        s.buffer in written for s in (*rows, *inner.body) if isinstance(s, Load)
    ):
        return None
    made = (*rows, *(s for s in inner.body if not isinstance(s, Add)))
    twins, opposite = _likenesses(made, loop.var, inner.var)
    monoids = {a.name: a.monoid for a in inner.accs}
    columns: dict[str, tuple[str, int]] = {}
    again: set[str] = set()
    for s in inner.body:
        if isinstance(s, Add):
            (name,) = s.values
            if name in twins:
                columns[s.acc] = twins[name], 1
            elif name in opposite and monoids[s.acc] == "sum0":
                columns[s.acc] = name, -1
            else:
                columns[s.acc] = name + MIRRORED, 1
                again.add(name)
    mirrored: list[Statement] = []
    for s in reversed(made):
        if any(name in again for name, _ in defined((s,))):
            again.update(name for name in used_by(s) if name not in twins)
            mirrored.append(s)
    names = twins | {name: name + MIRRORED for name, _ in defined(mirrored)}
    exchanged = tuple(_mirror(s, names, loop.var, inner.var) for s in reversed(mirrored))
    found = Pairing(inner, rows, exchanged, columns)
    return found if _pays(loop, found) else None


def _mirror(s: Statement, names: Mapping[str, str], row: str, column: str) -> Statement:
    """The statement of (j, i)."""
    if isinstance(s, Load):
        s = replace(s, index=_exchanged(s.index, row, column))
    elif isinstance(s, Iota):
        s = replace(s, value=_exchanged(s.value, row, column))
    return with_names(s, names)


def _inner_of(loop: For) -> For | None:
    """The one loop over as many iterations, if it has none but sums of one dtype that are cut where
    blocks of points are."""
    found = [s for s in loop.body if isinstance(s, For) and s.size == _points(loop, s)]
    if len(found) != 1:
        return None
    (inner,) = found
    if not all(isinstance(s, (Let, Load, Iota, Add)) for s in inner.body):
        return None
    if not inner.accs or any(isinstance(s, Load) and (s.at or s.only) for s in inner.body):
        return None
    added = [s.acc for s in inner.body if isinstance(s, Add)]
    if sorted(added) != sorted(a.name for a in inner.accs):
        return None
    width, dtype = lane_count(loop), inner.accs[0].dtype
    if lanes_of(dtype) != width or not dtype.is_float:
        return None
    if any(
        a.dtype is not dtype or a.monoid not in SUMS or a.order != "lanes" or a.into
        for a in inner.accs
    ):
        return None
    if isinstance(inner.size, int) and not least_points(dtype) <= inner.size <= MOST:
        return None
    return inner


def _points(loop: For, inner: For) -> Size:
    """Of a part of a loop, which has fewer iterations, the mode tells."""
    return inner.size if inner.mode == "pairs" else loop.size


def _needed(inner: For, before: tuple[Statement, ...]) -> Iterator[Statement]:
    """Of the statements before a loop those that it needs, in order."""
    wanted = {name for s in inner.body for name in used_by(s)}
    found = []
    for s in reversed(before):
        if any(name in wanted for name, _ in defined((s,))):
            wanted |= set(used_by(s))
            found.append(s)
    return reversed(found)


def _likenesses(
    statements: tuple[Statement, ...], row: str, column: str
) -> tuple[dict[str, str], set[str]]:
    """For each value the one, if there is any, that it is to the bit when row and column are
    exchanged; and the values that are then the opposite of themselves, up to the sign of zeros.

    Each value has two numbers: of what it computes, and of what it computes when they are. Equal
    numbers are equal bits; only what NaNs carry may differ.
    """
    numbers: dict[tuple, int] = {}
    both: dict[str, tuple[int, int]] = {}
    differences: dict[int, tuple[int, int]] = {}
    first: dict[int, str] = {}  # of each number, the first value that has it
    alike: set[str] = set()
    opposite: set[str] = set()

    def number(key: tuple) -> int:
        return numbers.setdefault(key, len(numbers))

    def of_let(s: Let, side: int) -> int:
        args = [both[a][side] if a in both else number(("outside", a)) for a in s.args]
        if s.op in COMMUTATIVE and len(args) == 2:
            args.sort()
        squared = s.op == "mul" and args[0] == args[1]
        if (squared or s.op == "abs") and args[0] in differences:
            return number((s.op, "difference", *sorted(differences[args[0]])))
        made = number((s.op, s.attr, s.dtype.name, *args))
        if s.op == "sub" and s.dtype.is_float:
            differences[made] = args[0], args[1]
        return made

    def is_opposite(s: Let) -> bool:
        """What is linear in opposites: 0 is one, too."""
        if not s.dtype.is_float:
            return False
        mine, other = (differences.get(number) for number in both[s.name])
        if mine is not None and other == mine[::-1]:
            return True
        kinds = [
            "opposite" if a in opposite else "alike" if a in alike or a not in both else ""
            for a in s.args
        ]
        match s.op:
            case "const":
                return s.attr in (0, to_bits(-0.0, s.dtype))
            case "add" | "sub" | "neg":
                return all(k == "opposite" for k in kinds)
            case "mul":
                return sorted(kinds) == ["alike", "opposite"]
            case "div":
                return kinds == ["opposite", "alike"]
            case "select":
                return s.args[0] in alike and all(k == "opposite" for k in kinds[1:])
        return False

    for s in statements:
        match s:
            case Let():
                both[s.name] = of_let(s, 0), of_let(s, 1)
            case Load():
                indices = s.index, _exchanged(s.index, row, column)
                mine, other = (number(("load", s.buffer, index)) for index in indices)
                both[s.name] = mine, other
            case Iota():
                values = s.value, _exchanged(s.value, row, column)
                mine, other = (number(("iota", value)) for value in values)
                both[s.name] = mine, other
        for name, _ in defined((s,)):
            first.setdefault(both[name][0], name)
            if both[name][0] == both[name][1]:
                alike.add(name)
        if isinstance(s, Let) and is_opposite(s):
            opposite.add(s.name)
    twins = {name: first[other] for name, (_, other) in both.items() if other in first}
    return twins | {name: name for name in alike}, opposite


def _exchanged(index: Size, row: str, column: str) -> Size:
    rest = without(without(index, row), column)
    by_row, by_column = coefficient(index, row), coefficient(index, column)
    return rest + by_row * Dim.symbol(column) + by_column * Dim.symbol(row)


def _pays(loop: For, found: Pairing) -> bool:
    """Is what need not be computed again most of the whole?"""

    def picoseconds(statements: Sequence[Statement]) -> int:
        return int(str(cost(replace(loop, accs=(), body=tuple(statements)))))

    adds = [s for s in found.inner.body if isinstance(s, Add)]
    whole = picoseconds(found.inner.body)
    share, of = WORTH
    return (whole - picoseconds((*adds, *found.mirrored))) * of >= whole * share


# -- memory ----------------------------------------------------------------------------------------


def components(inner: For) -> dict[str, int]:
    """For each sum the first of its partial results: there is one for each of its lanes."""
    return {acc.name: k * lanes_of(acc.dtype) for k, acc in enumerate(inner.accs)}


def partial_sums(kernel: Kernel) -> list[Buffer]:
    """What pairs of a kernel's loop need: partial sums of all rows over each block of columns, and
    for each thread the sums of the blocks that it works on."""
    for loop in filter(is_paired, kernel.body):
        assert isinstance(loop, For)
        found = pairing(loop)
        assert found is not None
        dtype, n = found.inner.accs[0].dtype, found.inner.size
        count = len(found.inner.accs) * lanes_of(dtype)
        some = _if_paired(n, dtype)
        shared = some * BLOCKS * count * row_stride(n, dtype)
        vectors = block_vectors(n, dtype) + COLUMNS
        own = some * (count * lanes_of(dtype) * vectors * levels(n, dtype))
        names = pairs_name(kernel), own_name(kernel)
        return [
            Buffer(name, "temp", TensorType(dtype, (size,)))
            for name, size in zip(names, (shared, own), strict=True)
        ]
    return []


def _if_paired(n: Size, dtype: DType) -> Size:
    """1 for numbers of points that are visited in pairs, 0 for all others."""
    many = size_max(1 - size_floordiv(n, MOST + 1), 0)
    few = size_max(1 - size_floordiv(n, least_points(dtype)), 0)
    return many * (1 - few)


def pairs_name(kernel: Kernel) -> str:
    return f"{kernel.name}.pairs"


def own_name(kernel: Kernel) -> str:
    return f"{kernel.name}.pairs.own"


def row_stride(n: Size, dtype: DType) -> Size:
    """Partial sums of one kind, one for each point, and some more: of whole vectors."""
    return align_up(n, 2 * lanes_of(dtype))


def block_vectors(n: Size, dtype: DType) -> Size:
    """At least the vectors of a block: the least power of two of which 4 are enough, or 2."""
    points = size_max(size_min(n, IN_TWO), size_floordiv(2 * n, BLOCKS))
    return size_floordiv(points, lanes_of(dtype)) + LEAF


def levels(n: Size, dtype: DType) -> Size:
    """Those of a counter over a block's vectors, and the leaf that is being made."""
    return size_bits(size_floordiv(block_vectors(n, dtype), LEAF) + 1) + 1


__all__ = [
    "BLOCKS", "COLUMNS", "EXAMPLE", "IN_TWO", "MOST", "REAL", "UNUSED", "Pairing",
    "block_vectors", "components", "in_pairs", "is_paired", "least_points", "levels", "own_name",
    "pairing", "pairs_name", "partial_sums", "row_stride",
]  # fmt: skip
