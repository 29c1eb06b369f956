"""Random graphs: every stage means what the reference means, bit for bit, with any optional pass
left out.

A chunk holds every possible pair of its gates, one reading the other, at least once; there are
twenty chunks, and in each a quarter of the smooth functions takes part. The first eight run always,
the others with `pytest -m long`. On failure the seed and a minimised graph are printed:
`directed(chunk, index)` or `grown(seed)` make the whole graph again.
"""

from collections import Counter

import pytest

from graphc.pipeline import Options
from tests.random_checks import CHECKS, index_problem, minimised, outcome, report
from tests.random_graphs import (
    TURNS,
    directed,
    gates,
    grown,
    holding,
    is_function,
    pairs_in,
    pairs_of,
    per_chunk,
    possible_pairs,
)

CHUNKS = 20
QUICK = 4  # chunks that every run takes; the others are long
GROWN = 8  # in a chunk
SKIPPED = ((), ("rules",), (), ("fold",), ("fuse",), (), ("reuse",))
RESTARTS = ("trace", "simplify", "fuse", "plan")


def run_of(number):
    """How graph number `number` is compiled: what is left out, where it begins anew from text,
    whether in haste and for how many threads; and what is held. Compiled code and the simplified
    graph always are, the loops after fuse or after plan, and text.
    """
    turns = {"fuse": number % 3 == 0, "plan": number % 3 != 0, "text": number % 2 == 0}
    return {
        "options": Options(
            skip=frozenset(SKIPPED[number % len(SKIPPED)]), threads=(None, 3)[number % 2]
        ),
        "checks": tuple(c for c in CHECKS if turns.get(c, True)),
        "restart": RESTARTS[number // 2 % len(RESTARTS)],
        "quick": number % 8 != 0,
    }


def test_there_are_enough_graphs_and_pairs():
    """At least 2,000 graphs; nearly all pairs are possible, and every gate gives and takes."""
    assert sum(per_chunk(chunk) for chunk in range(CHUNKS)) >= 2000
    pairs = possible_pairs()
    producers, consumers = gates()
    assert len(pairs) > 0.75 * len(producers) * len(consumers)
    assert {p for p, _ in pairs} == set(producers)
    assert {c for _, c in pairs} == set(consumers)


def test_chunks_hold_every_pair():
    """Of two smooth functions once, of one and another gate five times, of others in each chunk."""
    least = {0: CHUNKS, 1: CHUNKS // TURNS, 2: 1}
    held = Counter(pair for chunk in range(CHUNKS) for pair in pairs_of(chunk))
    for pair in possible_pairs():
        assert held[pair] >= least[is_function(pair[0]) + is_function(pair[1])], pair
    functions = [name for name in gates()[0] if is_function(name)]
    assert {"exp", "sin", "tanh"} <= set(functions) and "add" not in functions


def test_impossible_pairs_have_a_reason_in_types():
    """What is left out is bools and integers where floats are needed, and the like."""
    pairs = possible_pairs()
    assert ("lt", "exp") not in pairs  # a bool
    assert ("exp", "logical_and") not in pairs
    assert ("size", "sum") not in pairs  # of rank 0
    assert ("argmax", "take") in pairs


@pytest.mark.parametrize(
    "chunk",
    [pytest.param(c, marks=pytest.mark.long if c >= QUICK else ()) for c in range(CHUNKS)],
)
def test_every_stage_means_the_same(chunk):
    """Compiled code, the loops after fuse and after plan, and the simplified graph give the
    reference's bits; text parses back, and what follows from it is the same to the byte; each
    possible pair of the chunk's gates stands in some graph.
    """
    missing, count = pairs_of(chunk), per_chunk(chunk)
    failed = []
    for i in range(count + GROWN):
        case = directed(chunk, i) if i < count else grown(chunk * GROWN + i)
        missing.difference_update(pairs_in(case.graph))
        how = run_of(chunk * 17 + i)
        found = outcome(case, **how)
        if found:
            failed.append((case, how, found))
    assert not failed, explain(failed)
    assert not missing, f"chunk {chunk} lacks {sorted(missing)[:9]}"


@pytest.mark.parametrize("chunk", range(4))
def test_indices_out_of_bounds(chunk):
    """One wrong index among many is an IndexError, compiled as by the reference."""
    for into in ("take", "scatter_add"):
        for i in range(3):
            case = holding("input", into, chunk * 3 + i)
            assert not index_problem(case), case.graph


def explain(failed):
    """The first failure made small, and the others by name."""
    case, how, found = failed[0]
    small = minimised(case, lambda smaller: outcome(smaller, **how))
    names = "\n".join(f"{c.name}: {f[:120]}" for c, _, f in failed)
    return f"{names}\n\n{how}\n{report(small, outcome(small, **how) or found)}"


def test_a_case_is_a_function_of_its_seed():
    """The same seed gives the same graph and the same data."""
    a, b = directed(3, 4), directed(3, 4)
    assert str(a.graph) == str(b.graph)
    for x, y in zip(a.runs[0].args, b.runs[0].args, strict=True):
        assert x.tobytes() == y.tobytes()  # NaN among them
