"""Native evaluation of sizes, against Python's."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from graphc.codegen import formulas
from graphc.codegen.formulas import INSTRUCTION, OPERATIONS, Formulas
from graphc.codegen.layout import WORD, words
from graphc.codegen.native import Surroundings, module
from graphc.ir.types import (
    Dim,
    align_up,
    evaluate,
    size_bits,
    size_floordiv,
    size_max,
    size_min,
)
from graphc.runtime.jit import Jit

NAMES = ("n", "m", "k")
START = 64  # bytes of the frame before the named sizes
SIZES = (0, 1, 2, 3, 7, 63, 64, 65, 1000, 2**31 - 1, 2**31, 2**40, 2**61, 2**62, 2**63 - 1)


def evaluator():
    """(sizes, a size) -> what native code finds; None where it is not sure."""
    numbers = {name: i for i, name in enumerate(OPERATIONS)} | words(INSTRUCTION)
    numbers["INSTRUCTION_BYTES"] = WORD * len(INSTRUCTION)
    exports = ("value", "evaluated")
    library = Jit.link(module(formulas.TEXT, exports, Surroundings(numbers)), exports)
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    value = ctypes.CFUNCTYPE(word, pointer, word)(library.address("value"))
    evaluated = ctypes.CFUNCTYPE(word, pointer, pointer, word)(library.address("evaluated"))

    def find(env, sizes):
        table = Formulas({n: START + WORD * i for i, n in enumerate(env)}, START + WORD * len(env))
        given = [table.word(s) for s in sizes]
        frame = (word * (table.end // WORD))()
        for i, n in enumerate(env.values()):
            frame[START // WORD + i] = n
        instructions = (word * max(len(INSTRUCTION) * len(table), 1))(*table.words())
        if not evaluated(frame, instructions, len(table)):
            return None
        return [value(frame, w) for w in given]

    find.library = library
    return find


@pytest.fixture(scope="module")
def run():
    return evaluator()


def random_size(rng, depth=0):
    kind = rng.integers(9 if depth < 3 else 2)
    if kind == 0:
        return int(rng.integers(-5, 70))
    if kind == 1:
        return Dim.symbol(str(rng.choice(NAMES)))
    a, b = random_size(rng, depth + 1), random_size(rng, depth + 1)
    combine = (
        lambda: a + b, lambda: a - b, lambda: a * b, lambda: size_max(a, b), lambda: size_min(a, b),
        lambda: size_floordiv(a, b) if b != 0 else a, lambda: size_bits(a),
    )  # fmt: skip
    return combine[kind - 2]()


def test_random_sizes(run):
    rng, found = np.random.default_rng(5), 0
    for _ in range(1500):
        sizes = [random_size(rng) for _ in range(3)]
        env = {name: int(rng.choice(SIZES)) for name in NAMES}
        if rng.random() < 0.7:
            env = {name: int(rng.integers(0, 50)) for name in NAMES}
        got = run(env, sizes)
        if got is not None:
            found += 1
            assert got == [evaluate(s, env) for s in sizes], (sizes, env)
    assert found > 1000


def test_numbers_that_are_too_large_are_left_to_python(run):
    n, m = Dim.symbol("n"), Dim.symbol("m")
    assert run({"n": 2**31, "m": 3}, [n * m]) == [3 * 2**31]
    for size in (8 * n, n * m, n * n, n + m, n - m, align_up(n, 64)):
        for large in (2**62, 2**63 - 1):
            assert run({"n": large, "m": large}, [size]) is None


def test_what_occurs_twice_is_computed_once():
    n, m = Dim.symbol("n"), Dim.symbol("m")
    table = Formulas({"n": 8, "m": 16}, 24)
    words_ = [table.word(s) for s in (n * m, 8 * n * m, 8 * n * m + 64, n * m - 1)]
    assert len(table) == 4 and len(set(words_)) == 4 and table.word(n * m) == words_[0]


FAULTS = [
    ("        return quotient - 1\n", "        return quotient\n"),
    ("    if b == 0:\n        return 0\n", "    if b == 0:\n        return a\n"),
    ("        limit = 0x80000000\n", "        limit = limit + 0\n"),
    ("(operation == MAX) == (a > b)", "a > b"),
    ("    if a < 0:\n        a = 0 - a\n", ""),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_faults_are_found(monkeypatch, fault):
    assert formulas.TEXT.count(fault[0]) == 1
    monkeypatch.setattr(formulas, "TEXT", formulas.TEXT.replace(*fault))
    with pytest.raises(AssertionError):
        test_random_sizes(evaluator())
