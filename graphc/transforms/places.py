"""Cotangents of slices of one array, side by side: joined where they lie, instead of added.

In:   the cotangents of a value, some of them `place`s: a slice's elements in zeros.
Out:  fewer of them with the same sum, up to the sign of zeros.
Invariant: only places whose bounds are numbers, and which do not overlap, are joined.

The gradient by x of a function of x[:, 0], x[:, 1] and x[:, 2] is made of three columns. Added as
three arrays of mostly zeros it takes nine times the memory traffic.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> parts = [b.input(name, f64["n", 1]) for name in "xyz"]
>>> placed = [
...     b.apply("place", p, starts=(0, k), steps=(1, 1), shape=(p.shape[0], 3), fill=0)
...     for k, p in enumerate(parts)
... ]
>>> print(b.graph("columns", {"out": joined(placed)[0]}))
graph columns(x: f64[n,1], y: f64[n,1], z: f64[n,1])
  %3 = concat %x, %y, %z axis=1 : f64[n,3]
return out=%3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir.graph import Value
from graphc.ir.types import Size


@dataclass(frozen=True)
class _Tile:
    """A value at `starts` of an array of zeros; `partial` are the axes that it does not fill."""

    value: Value
    starts: tuple[Size, ...]
    shape: tuple[Size, ...]  # of the array

    @property
    def partial(self) -> tuple[int, ...]:
        pairs = enumerate(zip(self.value.shape, self.shape, strict=True))
        return tuple(i for i, (part, whole) in pairs if part != whole)

    def elsewhere(self, axis: int) -> tuple:
        """Where it lies along the other axes."""
        where = list(zip(self.starts, self.value.shape, strict=True))
        return tuple(where[:axis] + where[axis + 1 :])


def joined(cotangents: Sequence[Value]) -> list[Value]:
    """The cotangents, with places that lie side by side in one."""
    tiles = [t for t in map(_tile, cotangents) if t is not None]
    if len(tiles) < 2:
        return list(cotangents)
    axes = sorted({axis for t in tiles for axis in t.partial}, reverse=True)
    fewer = tiles
    for axis in axes:
        fewer = _joined_along(axis, fewer)
    if len(fewer) == len(tiles):
        return list(cotangents)
    rest = [c for c in cotangents if _tile(c) is None]
    return [*map(_placed, fewer), *rest]


def _tile(ct: Value) -> _Tile | None:
    node = ct.node
    if node.op != "place" or node["fill"] != 0 or any(step != 1 for step in node["steps"]):
        return None
    tile = _Tile(Value(ct.builder, node.args[0]), tuple(node["starts"]), ct.shape)
    for axis, (start, part, whole) in enumerate(
        zip(tile.starts, tile.value.shape, tile.shape, strict=True)
    ):
        numbers = isinstance(start, int) and isinstance(part, int) and isinstance(whole, int)
        if axis in tile.partial and not numbers:
            return None
    return tile


def _joined_along(axis: int, tiles: Sequence[_Tile]) -> list[_Tile]:
    groups: dict[tuple, list[_Tile]] = {}
    for tile in tiles:
        key = tile.elsewhere(axis) if axis in tile.partial else (id(tile),)
        groups.setdefault(key, []).append(tile)
    made: list[_Tile] = []
    for group in groups.values():
        ordered = sorted(group, key=lambda t: int(str(t.starts[axis])))
        ends = [int(str(t.starts[axis])) + int(str(t.value.shape[axis])) for t in ordered]
        apart = all(end <= int(str(t.starts[axis])) for end, t in zip(ends, ordered[1:]))
        made.extend([_row(axis, ordered)] if len(group) > 1 and apart else group)
    return made


def _row(axis: int, tiles: Sequence[_Tile]) -> _Tile:
    """Tiles along an axis, with zeros in the gaps between them, as one that fills the axis."""
    first = tiles[0]
    parts: list[Value] = []
    at = 0

    def gap(size: int) -> None:
        if size:
            like = first.value
            shape = tuple(size if i == axis else s for i, s in enumerate(like.shape))
            parts.append(like.builder.constant(0, like.type.with_shape(shape)))

    for tile in tiles:
        start = int(str(tile.starts[axis]))
        gap(start - at)
        parts.append(tile.value)
        at = start + int(str(tile.value.shape[axis]))
    gap(int(str(first.shape[axis])) - at)
    value = first.value.builder.apply("concat", *parts, axis=axis)
    starts = tuple(0 if i == axis else s for i, s in enumerate(first.starts))
    return replace(first, value=value, starts=starts)


def _placed(tile: _Tile) -> Value:
    if not tile.partial:
        return tile.value
    ones = (1,) * len(tile.shape)
    return tile.value.builder.apply(
        "place", tile.value, starts=tile.starts, steps=ones, shape=tile.shape, fill=0
    )


__all__ = ["joined"]
