"""Sizes as tables of instructions, which native code evaluates at a call.

In:   sizes, polynomials in named ones; where in a call's frame the named ones stand.
Out:  words and a table of instructions; the routine that runs it.
Invariant: native code finds the numbers that `evaluate` finds, or says that it cannot be sure of them.

A word that is not negative is a number; a negative one, -p, says that the number stands p bytes after the start of the
frame. An instruction is five words: what it does, two operands, a number that is added to the result, and where in the frame
that goes. An expression that occurs twice is computed once. A number of 2^61 or a factor of 2^31 ends the evaluation: Python's
integers go on from there.

>>> n, m = Dim.symbol("n"), Dim.symbol("m")
>>> table = Formulas({"n": 80, "m": 88}, 96)
>>> table.word(8), table.word(n), table.word(8 * n * m - 1)
(8, -80, -104)
>>> table.text()
['96 = MUL [88] [80]', '104 = MUL [96] 8 - 1']
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.codegen.layout import WORD
from graphc.ir.types import Atom, Dim, Monomial, Size

OPERATIONS = ("ADD", "SUB", "MUL", "FLOORDIV", "MAX", "MIN", "BITS")
INSTRUCTION = ("F_OPERATION", "F_A", "F_B", "F_PLUS", "F_TO")
MOST_ADDED = 1 << 60

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
        if (((a + limit - 1) | (b + limit - 1)) & (0 - 2 * limit)) != 0:
            return 0
        if operation == MUL:
            result = a * b
        else:
            result = computed(operation, a, b)
        store(frame + load(instruction + F_TO), result + load(instruction + F_PLUS))
        instruction += INSTRUCTION_BYTES
        count = count - 1
    return 1

def computed(operation, a, b):
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
        self._known: dict[tuple[str, int, int, int], int] = {}

    @property
    def end(self) -> int:
        """The first place of the frame after the results."""
        return self._first + WORD * len(self._known)

    def word(self, size: Size) -> int:
        """The word of a size; instructions are added for what is not yet there."""
        if isinstance(size, int):
            return size if size >= 0 else self._do("SUB", 0, -size)
        terms = sorted(size.terms, key=lambda term: (not term[0], term[1] < 0))
        plus = 0 if terms[-1][0] or abs(terms[-1][1]) > MOST_ADDED else terms.pop()[1]
        total = self._product(*terms[0], plus if len(terms) == 1 else 0)
        for i, (monomial, c) in enumerate(terms[1:], 2):
            word = self._product(monomial, abs(c))
            operation = "ADD" if c > 0 else "SUB"
            total = self._do(operation, total, word, plus if i == len(terms) else 0)
        return total

    def _product(self, monomial: Monomial, c: int, plus: int = 0) -> int:
        """The word of c times some atoms, plus a number."""
        if c < 0:
            return self._do("SUB", 0, self._product(monomial, -c), plus)
        words = [self._atom(a) for a in monomial]
        if c != 1 or not words:
            words.append(c)
        first, *others = words
        for word in others[:-1]:
            first = self._do("MUL", first, word)
        if others:
            return self._do("MUL", first, others[-1], plus)
        return self._do("ADD", first, 0, plus) if plus else first

    def _atom(self, atom: Atom) -> int:
        if isinstance(atom, str):
            return -self._places[atom]
        return self._do(atom[0].upper(), self.word(atom[1]), self.word(atom[2]))

    def _do(self, operation: str, a: int, b: int, plus: int = 0) -> int:
        place = self._known.get((operation, a, b, plus))
        if place is None:
            place = self._known[operation, a, b, plus] = self.end
        return -place

    def words(self) -> list[int]:
        """The table."""
        found: list[int] = []
        for (operation, a, b, plus), to in self._known.items():
            found.extend((OPERATIONS.index(operation), a, b, plus, to))
        return found

    def __len__(self) -> int:
        return len(self._known)

    def text(self) -> list[str]:
        """The instructions, for people."""
        return [
            f"{to} = {operation} {_shown(a)} {_shown(b)}{_added(plus)}"
            for (operation, a, b, plus), to in self._known.items()
        ]


def _added(plus: int) -> str:
    return f" {'+' if plus > 0 else '-'} {abs(plus)}" if plus else ""


def _shown(word: int) -> str:
    return str(word) if word >= 0 else f"[{-word}]"


__all__ = ["INSTRUCTION", "OPERATIONS", "TEXT", "Dim", "Formulas"]
