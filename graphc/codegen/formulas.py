"""Sizes as tables of instructions, which native code evaluates at a call.

In:   sizes, polynomials in named ones; where in a call's frame the named ones stand.
Out:  words and a table of instructions; the routine that runs it.
Invariant: native code finds the numbers that `evaluate` finds, or says that it cannot be sure of them.

A word that is not negative is a number; a negative one, -p, says that the number stands p bytes after the start of the
frame. An instruction is four words: what it does, two operands, and where in the frame the result goes. An expression that
occurs twice is computed once. A number of 2^61 or a factor of 2^31 ends the evaluation: Python's integers go on from there.

>>> n, m = Dim.symbol("n"), Dim.symbol("m")
>>> table = Formulas({"n": 80, "m": 88}, 96)
>>> table.word(8), table.word(n), table.word(8 * n * m - 1)
(8, -80, -112)
>>> table.text()
['96 = MUL [88] [80]', '104 = MUL [96] 8', '112 = SUB [104] 1']
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.codegen.layout import WORD
from graphc.ir.types import Atom, Dim, Size

OPERATIONS = ("ADD", "SUB", "MUL", "FLOORDIV", "MAX", "MIN", "BITS")
INSTRUCTION = ("F_OPERATION", "F_A", "F_B", "F_TO")

TEXT = """
def value(frame, word):
    if word < 0:
        return load(frame - word)
    return word

def evaluated(frame, instruction, count):
    "Run a table; 0 where a number may be too large."
    while count > 0:
        operation = load(instruction)
        a = value(frame, load(instruction + F_A))
        b = value(frame, load(instruction + F_B))
        limit = 0x2000000000000000
        if operation == MUL:
            limit = 0x80000000
        if a > limit or b > limit or a < 0 - limit or b < 0 - limit:
            return 0
        store(frame + load(instruction + F_TO), computed(operation, a, b))
        instruction += INSTRUCTION_BYTES
        count = count - 1
    return 1

def computed(operation, a, b):
    if operation == MUL:
        return a * b
    if operation == ADD:
        return a + b
    if operation == SUB:
        return a - b
    if operation == FLOORDIV:
        return floor_divided(a, b)
    if operation == BITS:
        return bits_of(a)
    if (operation == MAX) == (a > b):
        return a
    return b

def floor_divided(a, b):
    if b == 0:
        return 0
    quotient = a // b
    rest = a - quotient * b
    if rest != 0 and (rest ^ b) < 0:
        return quotient - 1
    return quotient

def bits_of(a):
    bits = 0
    if a < 0:
        a = 0 - a
    while a > 0:
        a = a >> 1
        bits += 1
    return bits
"""


class Formulas:
    """Writes a table; results go to the words of the frame from `first` on."""

    def __init__(self, places: Mapping[str, int], first: int) -> None:
        self._places, self._first = places, first
        self._known: dict[tuple[str, int, int], int] = {}

    @property
    def end(self) -> int:
        """The first place of the frame after the results."""
        return self._first + WORD * len(self._known)

    def word(self, size: Size) -> int:
        """The word of a size; instructions are added for what is not yet there."""
        if isinstance(size, int):
            return size if size >= 0 else self._do("SUB", 0, -size)
        total: int | None = None
        for monomial, c in sorted(size.terms, key=lambda term: term[1] < 0):
            if monomial:
                word = self._product([self._atom(a) for a in monomial], abs(c))
            else:
                word = abs(c)
            if total is None:
                total = word if c > 0 else self._do("SUB", 0, word)
            else:
                total = self._do("ADD" if c > 0 else "SUB", total, word)
        return total or 0

    def _product(self, words: list[int], c: int) -> int:
        first, *others = words
        for word in (*others, *((c,) if c != 1 else ())):
            first = self._do("MUL", first, word)
        return first

    def _atom(self, atom: Atom) -> int:
        if isinstance(atom, str):
            return -self._places[atom]
        return self._do(atom[0].upper(), self.word(atom[1]), self.word(atom[2]))

    def _do(self, operation: str, a: int, b: int) -> int:
        place = self._known.get((operation, a, b))
        if place is None:
            place = self._known[operation, a, b] = self.end
        return -place

    def words(self) -> list[int]:
        """The table."""
        found: list[int] = []
        for (operation, a, b), to in self._known.items():
            found.extend((OPERATIONS.index(operation), a, b, to))
        return found

    def __len__(self) -> int:
        return len(self._known)

    def text(self) -> list[str]:
        """The instructions, for people."""
        return [
            f"{to} = {operation} {_shown(a)} {_shown(b)}"
            for (operation, a, b), to in self._known.items()
        ]


def _shown(word: int) -> str:
    return str(word) if word >= 0 else f"[{-word}]"


__all__ = ["INSTRUCTION", "OPERATIONS", "TEXT", "Dim", "Formulas"]
