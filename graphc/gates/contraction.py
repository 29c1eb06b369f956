"""Contraction: bilinear, declared once by its index letters; its transposes are contractions again.

`contract` sums over exactly one letter that both operands have. Its order is set once by the
letters: `lanes` with fma where a vector is multiplied along the last axis of both operands, else
`chain`: fma in sequence in blocks of 256, the blocks merged by a binary counter. `contract_values`
brings every two-operand einsum to that form.

>>> from graphc.ir.types import f64
>>> contract_order("ij,jk->ik", f64["n", "m"]), contract_order("ij,j->i", f64["n", "m"])
('chain', 'lanes')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.gates.gate import Attrs, Gate, caller, register
from graphc.gates.reduction import LEAF, VECTOR_BYTES, _counter
from graphc.ir.types import Size, TensorType, product

if TYPE_CHECKING:
    from graphc.ir.graph import Node, Value

BLOCK = 256  # products added in sequence before the tree begins


def parse_spec(spec: str) -> tuple[str, str, str]:
    """The letters of the two operands and of the result."""
    operands, out = spec.split("->")
    a, b = operands.split(",")
    return a, b, out


def contracted_letters(spec: str) -> str:
    """The letters that are summed over: one, once `contract_values` has merged them."""
    a, b, out = parse_spec(spec)
    return "".join(c for c in a if c in b and c not in out)


@dataclass(frozen=True, eq=False)
class Contraction(Gate):
    """sum over one letter of the product of two operands."""

    kind: ClassVar[str] = "contraction"
    structure: ClassVar[str] = "bilinear: the other operand"

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        letters_a, letters_b, out = parse_spec(attrs["spec"])
        x, y = types
        if x.dtype is not y.dtype or x.dtype.is_bool:
            raise DTypeError(f"contract: operands have the dtypes {x.dtype} and {y.dtype}")
        sizes: dict[str, Size] = {}
        for letters, t in ((letters_a, x), (letters_b, y)):
            if len(letters) != t.rank:
                raise ShapeError(
                    f"contract {attrs['spec']}: {t} has rank {t.rank}, not {len(letters)}"
                )
            for letter, s in zip(letters, t.shape, strict=True):
                if sizes.setdefault(letter, s) != s:
                    differ = f"sizes {sizes[letter]} and {s} differ"
                    raise ShapeError(f"contract {attrs['spec']}: {x} with {y}: {differ}")
        return x.with_shape(sizes[letter] for letter in out)

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        letters_a, letters_b, out = parse_spec(node["spec"])
        k = contracted_letters(node["spec"])
        extent = {
            c: n
            for letters, x in zip((letters_a, letters_b), args, strict=True)
            for c, n in zip(letters, x.shape, strict=True)
        }
        order = k + out
        a, b = (
            _aligned(x, letters, order, extent)
            for x, letters in zip(args, (letters_a, letters_b), strict=True)
        )
        return contract_reference(a, b, node["order"])

    def tangent(
        self, node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
    ) -> Value | None:
        total: Value | None = None
        for i, t in enumerate(tangents):
            if t is not None:
                operands = [t if i == j else v for j, v in enumerate(values)]
                term = out.builder.apply("contract", *operands, **dict(node.attrs))
                total = term if total is None else total + term
        return total

    def transpose(
        self, node: Node, values: Sequence[Value], ct: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        a, b, out = parse_spec(node["spec"])
        return [
            contract_values(ct, values[1], f"{out},{b}->{a}") if linear[0] else None,
            contract_values(values[0], ct, f"{a},{out}->{b}") if linear[1] else None,
        ]


def _aligned(x: np.ndarray, letters: str, order: str, extent: Mapping[str, int]) -> np.ndarray:
    """Axes in the given order of letters, those that are missing repeated."""
    x = np.transpose(x, [letters.index(c) for c in order if c in letters])
    x = x.reshape([extent[c] if c in letters else 1 for c in order])
    return np.broadcast_to(x, [extent[c] for c in order])


@np.errstate(all="ignore")
def contract_reference(a: np.ndarray, b: np.ndarray, order: str) -> np.ndarray:
    """Sum over axis 0 of a * b, in the order of a contraction."""
    if a.dtype.kind != "f":
        return (a * b).sum(0, dtype=a.dtype)
    if a.shape[0] == 0:
        return np.zeros(a.shape[1:], a.dtype)
    if order == "chain":
        blocks = [_chain(a[i : i + BLOCK], b[i : i + BLOCK]) for i in range(0, a.shape[0], BLOCK)]
        return _counter(np.stack(blocks), np.add)
    lanes = VECTOR_BYTES // a.dtype.itemsize
    missing = -a.shape[0] % (LEAF * lanes)
    a, b = (
        _filled(a, missing, -0.0),
        _filled(b, missing, 0.0),
    )  # their product, -0.0, changes no sum
    a, b = (x.reshape(x.shape[0] // (LEAF * lanes), LEAF, lanes, *x.shape[1:]) for x in (a, b))
    total = _counter(_chain(np.moveaxis(a, 1, 0), np.moveaxis(b, 1, 0)), np.add)
    while total.shape[0] > 1:
        half = total.shape[0] // 2
        total = total[:half] + total[half:]
    return total[0]


def _filled(x: np.ndarray, missing: int, number: float) -> np.ndarray:
    return np.concatenate([x, np.full((missing, *x.shape[1:]), number, x.dtype)])


def _chain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from graphc.ir.reference import fma_array

    total = np.full(a.shape[1:], -0.0, a.dtype)
    for x, y in zip(a, b, strict=True):
        total = fma_array(x, y, total)
    return total


contract = register(
    Contraction(
        name="contract", params=("x", "y"), attrs=("order", "spec"), source=caller(1),
        doc="The sum over one index that both operands have: matrix products of every kind.",
    )
)  # fmt: skip


def contract_order(spec: str, ty: TensorType) -> str:
    if not ty.dtype.is_float:
        return "any"
    a, b, out = parse_spec(spec)
    k = contracted_letters(spec)
    vector = all(c in a for c in out) or all(c in b for c in out)
    return "lanes" if vector and a[-1] == k and b[-1] == k else "chain"


def contract_values(a: Value, b: Value, spec: str) -> Value:
    """Any einsum of two operands in which each letter of one is in the other or in the result."""
    letters_a, letters_b, out = parse_spec(spec)
    a, letters_a = _through_transposes(a, letters_a)
    b, letters_b = _through_transposes(b, letters_b)
    spec = f"{letters_a},{letters_b}->{out}"
    summed = contracted_letters(spec)
    if not summed:
        return _placed(a, letters_a, out, b, letters_b) * _placed(b, letters_b, out, a, letters_a)
    if len(summed) > 1:
        a, letters_a = _merged(a, letters_a, summed)
        b, letters_b = _merged(b, letters_b, summed)
        spec = f"{letters_a},{letters_b}->{out}"
    return a.builder.apply("contract", a, b, spec=spec, order=contract_order(spec, a.type))


def _through_transposes(x: Value, letters: str) -> tuple[Value, str]:
    """An operand that is a transpose is read as it lies in memory, its letters permuted."""
    from graphc.ir.graph import Value as Handle

    while x.node.op == "transpose":
        perm = x.node["perm"]
        letters = "".join(letters[perm.index(i)] for i in range(len(perm)))
        x = Handle(x.builder, x.node.args[0])
    return x, letters


def _placed(x: Value, letters: str, out: str, other: Value, other_letters: str) -> Value:
    """x with its axes in the order of the result, repeated along those that it lacks."""
    sizes = dict(zip(other_letters, other.shape, strict=True)) | dict(
        zip(letters, x.shape, strict=True)
    )
    x = x.transposed(tuple(letters.index(c) for c in out if c in letters))
    missing = tuple(i for i, c in enumerate(out) if c not in letters)
    if missing:
        x = x.builder.apply("expand_dims", x, axes=missing)
    return x.broadcast(tuple(sizes[c] for c in out))


def _merged(x: Value, letters: str, summed: str) -> tuple[Value, str]:
    """Several summed letters become one, in front."""
    kept = "".join(c for c in letters if c not in summed)
    sizes = dict(zip(letters, x.shape, strict=True))
    x = x.transposed(tuple(letters.index(c) for c in summed + kept))
    one = product(sizes[c] for c in summed)
    return x.reshape((one, *(sizes[c] for c in kept))), summed[0] + kept
