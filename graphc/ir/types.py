"""DType, Dim and TensorType: what a value is, before anything is computed.

In:   names and numbers (`f64["n", 3]`).
Out:  types that print and parse back (`f64[n,3]`).
Invariant: sizes are exact. A `Dim` is an integer polynomial in named sizes with a canonical form,
so two sizes that are equal as polynomials *are* equal (`==`, hash, text), whatever the values of
the names.

>>> n = Dim.symbol("n")
>>> (n + 1) * 2 - n
Dim('n+2')
>>> f64["n", 3]
f64[n,3]
>>> f64["n", 3].bytes_expr()
Dim('24*n')
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np

from graphc.errors import DTypeError, FormatError, ShapeError

MAX_BYTES = 2**63 - 1
REMEMBERED = 4096  # results of arithmetic with sizes


@dataclass(frozen=True, eq=False)
class DType:
    """An element type. `f64["n", 3]` makes a `TensorType`. There is one object of each."""

    name: str
    kind: str  # "f" float, "i" signed integer, "b" bool
    itemsize: int

    def __reduce__(self) -> tuple[Callable[[str], DType], tuple[str]]:
        return (_dtype, (self.name,))

    def __getitem__(self, shape: Size | str | tuple[Size | str, ...]) -> TensorType:
        sizes = shape if isinstance(shape, tuple) else (shape,)
        return TensorType(self, tuple(as_size(s) for s in sizes))

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__

    @cached_property
    def numpy(self) -> np.dtype:
        return np.dtype(
            {"bool": "?", "f64": "f8", "f32": "f4", "i64": "i8", "i32": "i4"}[self.name]
        )

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        return self.kind == "i"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"


f64 = DType("f64", "f", 8)
f32 = DType("f32", "f", 4)
i64 = DType("i64", "i", 8)
i32 = DType("i32", "i", 4)
bool_ = DType("bool", "b", 1)
DTYPES: dict[str, DType] = {d.name: d for d in (f64, f32, i64, i32, bool_)}


def _dtype(name: str) -> DType:
    return DTYPES[name]


_FROM_NUMPY = {d.numpy: d for d in DTYPES.values()}


def from_numpy(dtype: object) -> DType:
    """The graphc dtype of a NumPy dtype in native byte order; `DTypeError` for all others."""
    given = np.dtype(dtype)  # type: ignore[call-overload]
    found = _FROM_NUMPY.get(given)
    if found is None:
        raise DTypeError(
            f"dtype {given} is not supported: use float64, float32, int64, int32 or bool"
        )
    return found


SizeCall = tuple[str, "Size", "Size"]  # ("floordiv" | "max" | "min" | "bits", a, b)
Atom = str | SizeCall  # a named size, or a function of sizes
Monomial = tuple[Atom, ...]


def is_name(text: str) -> bool:
    """Is this a name in the IR: letters, digits, underscores and dots, neither digit nor dot first?

    Without a regular expression, which a new process is slow to make.
    """
    return text.isascii() and text[:1] != "." and text.replace(".", "_").isidentifier()


class Dim:
    """A size known only at the call.

    It is an integer polynomial in named sizes, which are at least 0, and in floordiv/max/min of
    such. Operators give a plain `int` whenever the result is constant.
    """

    __slots__ = ("_hash", "_text", "terms")
    __array_ufunc__ = None  # arithmetic with arrays comes to the operators below
    # The traced number of a size, set by the DSL.
    as_number: ClassVar[Callable[[Dim], Any] | None] = None

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        kept = [(m, c) for m, c in terms.items() if c]
        if len(kept) > 1:
            kept.sort(key=lambda t: _monomial_key(t[0]))
        self.terms: tuple[tuple[Monomial, int], ...] = tuple(kept)
        self._text = ""
        self._hash = hash(self.terms)

    @property
    def text(self) -> str:
        self._text = self._text or _terms_text(self.terms)
        return self._text

    @staticmethod
    @lru_cache(maxsize=REMEMBERED)
    def symbol(name: str) -> Dim:
        if not is_name(name) or name in ("floordiv", "max", "min", "bits"):
            raise ShapeError(
                f"{name!r} is not a name for a size: use letters, digits and underscores"
            )
        return Dim({(name,): 1})

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Dim) and self.terms == other.terms)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Dim({self.text!r})"

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Callable[[str], Size], tuple[str]]:
        return (parse_size, (self.text,))

    def _number(self) -> Any:
        """The size as a number of the running trace, for arithmetic that leaves the sizes."""
        if Dim.as_number is None:
            raise TypeError(f"the size {self} is a number only when the graph runs")
        return Dim.as_number(self)

    def __add__(self, other: Size) -> Size:
        if not isinstance(other, (int, np.integer, Dim)):
            return self._number() + other
        return _sum(self, other if isinstance(other, Dim) else int(other))

    def __mul__(self, other: Size) -> Size:
        if not isinstance(other, (int, np.integer, Dim)):
            return self._number() * other
        return _product(self, other if isinstance(other, Dim) else int(other))

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return (
            self + (-1 * other)
            if isinstance(other, (int, np.integer, Dim))
            else self._number() - other
        )

    def __rsub__(self, other: Size) -> Size:
        return (
            (-1 * self) + other
            if isinstance(other, (int, np.integer, Dim))
            else other - self._number()
        )

    def __floordiv__(self, other: Size) -> Size:
        return (
            size_floordiv(self, other)
            if isinstance(other, (int, np.integer, Dim))
            else self._number() // other
        )

    def __truediv__(self, other: Any) -> Any:
        return self._number() / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self._number()

    __radd__ = __add__
    __rmul__ = __mul__

    def symbols(self) -> tuple[str, ...]:
        """The named sizes in it, sorted."""
        found: set[str] = set()
        pending: list[Dim] = [self]
        while pending:
            for monomial, _ in pending.pop().terms:
                for atom in monomial:
                    if isinstance(atom, str):
                        found.add(atom)
                    else:
                        pending.extend(s for s in atom[1:] if isinstance(s, Dim))
        return tuple(sorted(found))


Size = int | Dim


# Sizes and indices are few, and computed with again and again.


@lru_cache(maxsize=REMEMBERED)
def _sum(a: Dim, b: Size) -> Size:
    total = dict(a.terms)
    for monomial, c in _terms(b):
        total[monomial] = total.get(monomial, 0) + c
    return _size(total)


@lru_cache(maxsize=REMEMBERED)
def _product(a: Dim, b: Size) -> Size:
    total: dict[Monomial, int] = {}
    for m1, c1 in a.terms:
        for m2, c2 in _terms(b):
            m = tuple(sorted(m1 + m2, key=_atom_text)) if m1 and m2 else m1 or m2
            total[m] = total.get(m, 0) + c1 * c2
    return _size(total)


def _terms(size: Size) -> Iterable[tuple[Monomial, int]]:
    return size.terms if isinstance(size, Dim) else (((), int(size)),)


def _size(terms: Mapping[Monomial, int]) -> Size:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    return Dim(kept)


def _atom_text(atom: Atom) -> str:
    return atom if isinstance(atom, str) else f"{atom[0]}({atom[1]},{atom[2]})"


def _monomial_key(monomial: Monomial) -> tuple[int, str]:
    return (-len(monomial), "*".join(map(_atom_text, monomial)))


def _terms_text(terms: tuple[tuple[Monomial, int], ...]) -> str:
    parts: list[str] = []
    for monomial, c in terms:
        factors = [_atom_text(a) for a in monomial]
        if abs(c) != 1 or not factors:
            factors.insert(0, str(abs(c)))
        parts.append(("-" if c < 0 else "+" if parts else "") + "*".join(factors))
    return "".join(parts)


def size_floordiv(a: Size, b: Size) -> Size:
    """floor(a / b), exact where it can be seen."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    if isinstance(a, Dim) and isinstance(b, int) and all(c % b == 0 for _, c in a.terms):
        return _size({m: c // b for m, c in a.terms})
    return Dim({(("floordiv", a, b),): 1})


def size_max(a: Size, b: Size) -> Size:
    if a == b:
        return a
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if at_least(a, b):
        return a
    if at_least(b, a):
        return b
    return Dim({(("max", *sorted((a, b), key=str)),): 1})  # type: ignore[dict-item]


def size_min(a: Size, b: Size) -> Size:
    if a == b:
        return a
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    if at_least(a, b):
        return b
    if at_least(b, a):
        return a
    return Dim({(("min", *sorted((a, b), key=str)),): 1})  # type: ignore[dict-item]


def size_bits(a: Size, _: Size = 0) -> Size:
    """The bits needed to write a: 1 + floor(log2 a), and 0 for 0."""
    return a.bit_length() if isinstance(a, int) else Dim({(("bits", a, 0),): 1})


_FUNCTIONS: dict[str, Callable[[Size, Size], Size]] = {
    "floordiv": size_floordiv,
    "max": size_max,
    "min": size_min,
    "bits": size_bits,
}


def at_least(a: Size, b: Size) -> bool:
    """True if a >= b is certain for all sizes >= 0."""
    difference = dict(_terms(a))
    for monomial, c in _terms(b):
        difference[monomial] = difference.get(monomial, 0) - c
    return all(c >= 0 for c in difference.values())


def align_up(size: Size, to: int) -> Size:
    return size_floordiv(size + (to - 1), to) * to


def product(sizes: Iterable[Size]) -> Size:
    total: Size = 1
    for s in sizes:
        total = total * s
    return total


def evaluate(size: Size, env: Mapping[str, int]) -> int:
    """The number that a size has under the values of its names; x // 0 is 0, as of integers."""
    if isinstance(size, int):
        return size
    total = 0
    for monomial, c in size.terms:
        for atom in monomial:
            if isinstance(atom, str):
                c *= env[atom]
            else:
                a, b = evaluate(atom[1], env), evaluate(atom[2], env)
                value = 0 if atom[0] == "floordiv" and b == 0 else _FUNCTIONS[atom[0]](a, b)
                assert isinstance(value, int)
                c *= value
        total += c
    return total


def named_sizes(
    inputs: Sequence[tuple[str, TensorType]], shapes: Sequence[tuple[int, ...]]
) -> dict[str, int]:
    """The values of the named sizes in types, from shapes; an error where these do not fit."""
    sizes: dict[str, int] = {}
    for (name, ty), shape in zip(inputs, shapes, strict=True):
        for s, n in zip(ty.shape, shape, strict=True):
            if isinstance(s, Dim) and s.text.isidentifier() and sizes.setdefault(s.text, n) != n:
                raise ShapeError(f"input {name}: size {s} is {n} here and {sizes[s.text]} before")
    for (name, ty), shape in zip(inputs, shapes, strict=True):
        if tuple(evaluate(s, sizes) for s in ty.shape) != shape:
            raise ShapeError(f"input {name} is {ty}, got the shape {shape}")
    return sizes


def as_size(value: object) -> Size:
    """An int at least 0, or the text of a size such as "n" or "2*n+1"."""
    if isinstance(value, Dim):
        return value
    if isinstance(value, str):
        if "_" in value and re.search(r"(?<![A-Za-z0-9_.])_", value):
            raise ShapeError(f"{value!r}: names of sizes do not begin with _")
        return parse_size(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise ShapeError(f"{value!r} is not a size: give a name or an integer that is at least 0")


_SIZE_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_][A-Za-z0-9_.]*)|(.))")


@lru_cache(maxsize=REMEMBERED)
def parse_size(text: str) -> Size:
    """The inverse of `str` on a size."""
    tokens: list[tuple[str, str, str]] = _SIZE_TOKEN.findall(text)  # one of three is not empty
    position = 0

    def peek() -> str:
        return tokens[position][2] if position < len(tokens) else ""

    def take(expected: str = "") -> tuple[str, str, str]:
        nonlocal position
        if position >= len(tokens) or (expected and tokens[position][2] != expected):
            raise FormatError(f"{text!r} is not a size")
        position += 1
        return tokens[position - 1]

    def atom() -> Size:
        number, name, _ = take()
        if number:
            return int(number)
        if name in _FUNCTIONS:
            take("(")
            a = total()
            take(",")
            b = total()
            take(")")
            return _FUNCTIONS[name](a, b)
        if not name:
            raise FormatError(f"{text!r} is not a size")
        return Dim.symbol(name)

    def term() -> Size:
        value = atom()
        while peek() == "*":
            take()
            value = value * atom()
        return value

    def total() -> Size:
        negative = peek() == "-"
        if negative:
            take()
        value = term()
        value = -1 * value if negative else value
        while peek() in ("+", "-"):
            sign = 1 if take()[2] == "+" else -1
            value = value + sign * term()
        return value

    try:
        result = total()
    except ZeroDivisionError as error:
        raise FormatError(f"{text!r} divides by 0") from error
    if position != len(tokens):
        raise FormatError(f"{text!r} is not a size")
    return result


@dataclass(frozen=True)
class TensorType:
    """dtype and shape; prints as `f64[n,3]`."""

    dtype: DType
    shape: tuple[Size, ...] = ()

    def __post_init__(self) -> None:
        total = self.dtype.itemsize
        for s in self.shape:
            if isinstance(s, int):
                if s < 0:
                    raise ShapeError(f"a negative size in {self}")
                total *= max(s, 1)
        if total > MAX_BYTES:
            raise ShapeError(f"{self} is too big: more than 2^63 - 1 bytes")

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    __repr__ = __str__

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        return product(self.shape)

    def bytes_expr(self) -> Size:
        return self.size * self.dtype.itemsize

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def with_shape(self, shape: Iterable[Size]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))


def parse_type(text: str) -> TensorType:
    """The inverse of `str` on a type."""
    match = re.fullmatch(r"\s*([a-z0-9]+)\[(.*)\]\s*", text)
    if not match or match.group(1) not in DTYPES:
        raise FormatError(f"{text!r} is not a type")
    return TensorType(
        DTYPES[match.group(1)], tuple(parse_size(s) for s in split_top(match.group(2)))
    )


def split_top(text: str, separator: str = ",") -> list[str]:
    """Split at separators outside of brackets; an empty text gives no parts."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c == separator and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return [p.strip() for p in parts] if text.strip() else []
