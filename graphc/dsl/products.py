"""Products that sum: matmul, dot, outer, tensordot, einsum, by the letters of a contraction.

In:   two operands of any rank.
Out:  one contraction over one index, with transposes, reshapes and sums around it where it needs
      them.
Invariant: NumPy's rules for ranks, batches and dtypes; a batch axis of size 1 is left out, never
repeated.

>>> from graphc.dsl.trace import trace
>>> from graphc.ir.types import f64
>>> graph = trace(lambda x, w: matmul(x, w), (f64["n", 3], f64[3]), ("x", "w")).graph
>>> graph.outputs[0][1].op, graph.outputs[0][1]["spec"], graph.outputs[0][1].type
('contract', 'ik,k->i', f64[n])
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from graphc.dsl.apply import lifted, need_recorder
from graphc.dsl.pointwise import multiply
from graphc.dsl.promote import fit, mismatch, operand, result_dtype
from graphc.dsl.public import public
from graphc.dsl.recorder import Recorder, place_text, user_place
from graphc.dsl.reductions import one_axis
from graphc.dsl.tensor import Tensor
from graphc.errors import ShapeError
from graphc.gates.contraction import contract_values
from graphc.ir.graph import Value
from graphc.ir.types import Size, TensorType, bool_, i64

_BATCH = "abcdefghABCDEFGH"  # letters of batch axes, from the last one on


def _promoted(x: Any, y: Any) -> tuple[Recorder, Value, Value]:
    recorder = need_recorder((x, y))
    a, b = operand(recorder, x), operand(recorder, y)
    dtype = result_dtype((a.kind, b.kind))
    left, right = (fit(recorder, o, TensorType(dtype, o.shape)) for o in (a, b))
    return recorder, left, right


def _contracted(recorder: Recorder, what: str, a: Value, b: Value, spec: str) -> Tensor:
    """A two-operand einsum; of bools, whether any product is true."""
    letters_a, letters_b = spec.split("->")[0].split(",")
    sizes: dict[str, Size] = {}
    for letter, s in (*zip(letters_a, a.shape), *zip(letters_b, b.shape)):
        if sizes.setdefault(letter, s) != s:
            text = f"{what}: {a.type} does not fit {b.type}: sizes {sizes[letter]} and {s}"
            raise mismatch(recorder, text, {"left": a, "right": b}, sizes[letter], s)
    if a.dtype.is_bool:
        return Tensor(contract_values(a.cast(i64), b.cast(i64), spec).cast(bool_))
    return Tensor(contract_values(a, b, spec))


@public("x", "y")
def matmul(x: Any, y: Any) -> Any:
    """The matrix product: rows of x with columns of y; further axes are batches and broadcast."""
    recorder, a, b = _promoted(x, y)
    if not a.shape or not b.shape:
        recorder.fail(
            ShapeError,
            f"matmul: {a.type} with {b.type}: a number has no rows; use *",
            left=a,
            right=b,
        )
    rows, columns = "i" * (a.type.rank > 1), "j" * (b.type.rank > 1)
    outer_a, outer_b = a.shape[:-2], b.shape[:-2]
    a, batch_a = _batch(a, outer_a, outer_b)
    b, batch_b = _batch(b, outer_b, outer_a)
    order = "".join(c for c in reversed(_BATCH) if c in batch_a + batch_b)
    product = f"{batch_a}{rows}k,{batch_b}k{columns}->{order}{rows}{columns}"
    return _contracted(recorder, "matmul", a, b, product)


def _batch(x: Value, own: tuple[Size, ...], other: tuple[Size, ...]) -> tuple[Value, str]:
    """The letters of the leading axes, without axes of size 1 that the other operand stretches."""
    letters, dropped = "", []
    for i, size in enumerate(own):
        back = len(own) - i
        facing = other[-back] if back <= len(other) else 1
        if size == 1 and facing != 1:
            dropped.append(i)
        else:
            letters += _BATCH[back - 1]
    return (x.builder.apply("squeeze", x, axes=tuple(dropped)) if dropped else x), letters


@public("x", "y")
def dot(x: Any, y: Any) -> Any:
    """The sum of products over the last axis of x and the last but one of y."""
    recorder, a, b = _promoted(x, y)
    if not a.shape or not b.shape:
        return multiply(x, y)
    letters_a, letters_b = "abcdefgh"[: a.type.rank - 1], "ABCDEFGH"[: b.type.rank - 1]
    last = letters_b[-1:]
    spec = f"{letters_a}k,{letters_b[:-1]}k{last}->{letters_a}{letters_b}"
    return _contracted(recorder, "dot", a, b, spec)


@public("x", "y")
def inner(x: Any, y: Any) -> Any:
    """The sum of products over the last axis of both."""
    recorder, a, b = _promoted(x, y)
    if not a.shape or not b.shape:
        return multiply(x, y)
    letters_a, letters_b = "abcdefgh"[: a.type.rank - 1], "ABCDEFGH"[: b.type.rank - 1]
    return _contracted(
        recorder, "inner", a, b, f"{letters_a}k,{letters_b}k->{letters_a}{letters_b}"
    )


@public("x", "y")
def vdot(x: Any, y: Any) -> Any:
    """The sum of products of all elements."""
    return dot(lifted(x).reshape(-1), lifted(y).reshape(-1))


@public("x", "y")
def outer(x: Any, y: Any) -> Any:
    """Every product of an element of x and one of y."""
    return multiply(lifted(x).reshape(-1)[:, None], lifted(y).reshape(-1))


@public("x", "y")
def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """The sum of products over the last `axes` axes of x and first of y, or over paired axes."""
    recorder, a, b = _promoted(x, y)
    if isinstance(axes, int):
        pairs = list(zip(range(a.type.rank - axes, a.type.rank), range(axes)))
    else:
        first, second = ([v] if isinstance(v, int) else list(v) for v in axes)
        pairs = [
            (one_axis(i, a.type.rank), one_axis(j, b.type.rank)) for i, j in zip(first, second)
        ]
    letters_a, letters_b = list("abcdefgh"[: a.type.rank]), list("ABCDEFGH"[: b.type.rank])
    for i, j in pairs:
        letters_b[j] = letters_a[i]
    summed = [letters_a[i] for i, _ in pairs]
    out = [c for c in (*letters_a, *letters_b) if c not in summed]
    return _contracted(
        recorder, "tensordot", a, b, "{},{}->{}".format(*map("".join, (letters_a, letters_b, out)))
    )


# -- einsum ---------------------------------------------------------------------------------------


@public("x", "y")
def einsum(spec: str, x: Any, y: Any = None) -> Any:
    """Einstein's summation, "ij,jk->ik", of one or two operands, each letter once in an operand."""
    operands, out = _parse_einsum(spec)
    if len(operands) != (1 if y is None else 2):
        raise ShapeError(
            f"einsum {spec!r} at {place_text(user_place())}: takes {len(operands)} operands"
        )
    if y is None:
        summed = _sum_letters(lifted(x), operands[0], out)
        return _arranged(*summed, out)
    recorder, a, b = _promoted(x, y)
    left, letters_a = _sum_letters(Tensor(a), operands[0], operands[1] + out)
    right, letters_b = _sum_letters(Tensor(b), operands[1], operands[0] + out)
    return _contracted(
        recorder, f"einsum {spec}", left.value, right.value, f"{letters_a},{letters_b}->{out}"
    )


def _parse_einsum(spec: str) -> tuple[list[str], str]:
    spec = spec.replace(" ", "")
    given, arrow, out = spec.partition("->")
    operands = given.split(",")
    if any(not (o.isalpha() or not o) or len(set(o)) != len(o) for o in (*operands, out)):
        raise ShapeError(
            f"einsum {spec!r} at {place_text(user_place())}: letters only, each once in an operand"
        )
    if not arrow:
        counts = Counter("".join(operands))
        out = "".join(sorted(c for c, n in counts.items() if n == 1))
    if set(out) - set("".join(operands)):
        raise ShapeError(
            f"einsum {spec!r} at {place_text(user_place())}: a letter of the result is in no "
            "operand"
        )
    return operands, out


def _sum_letters(x: Tensor, letters: str, kept: str) -> tuple[Tensor, str]:
    """Summed over the letters that nothing else has."""
    from graphc.dsl.reductions import sum_

    if x.ndim != len(letters):
        x.recorder.fail(
            ShapeError,
            f"einsum: {x.type} has rank {x.ndim}, {letters!r} has {len(letters)}",
            of=x.value,
        )
    axes = tuple(i for i, c in enumerate(letters) if c not in kept)
    summed = sum_(x, axes, dtype=x.dtype) if axes else x
    return summed, "".join(c for c in letters if c in kept)


def _arranged(x: Tensor, letters: str, out: str) -> Tensor:
    return Tensor(x.value.transposed(tuple(letters.index(c) for c in out)))
