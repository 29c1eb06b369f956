"""Formulas of any length, in the functions of whatever library is asked to compile them."""

import random
from collections.abc import Sequence
from typing import Any

REACH = 16  # how far back the second operand of a gate may lie


def gates(xp: Any, x: Any, y: Any, count: int, seed: int = 0) -> Any:
    """`count` gates, each on the one before it, a third of them transcendental; values stay between
    -1 and 1, so that nothing overflows and no gradient is lost.
    """
    rng = random.Random(seed)
    values = [x]
    for _ in range(count // 3):
        last, other = values[-1], values[-1 - rng.randrange(min(REACH, len(values)))]
        kind = rng.randrange(4)
        if kind == 0:
            values.append(xp.tanh(last * other + y))
        elif kind == 1:
            values.append(xp.sin(last * other - y))
        elif kind == 2:
            values.append(xp.exp(-(last * last)))
        else:
            values.append(xp.log(last * last + 1.0))
    for _ in range(count % 3):
        values.append(values[-1] * y)
    return values[-1]


TERMS = (
    lambda xp, a, z: a * xp.exp(z),
    lambda xp, a, z: a * xp.sin(z),
    lambda xp, a, z: xp.tanh(a * z),
    lambda xp, a, z: xp.log(1.0 + a * z * z),
    lambda xp, a, z: a * z * z,
    lambda xp, a, z: a / (1.0 + z * z),
)


def terms(xp: Any, x: Sequence[Any], seed: int = 0) -> Any:
    """A sum of distinct terms, each of a number of its own, as of a fitted or generated model."""
    rng = random.Random(seed)
    total: Any = 0.0
    for number in x:
        a, b = rng.uniform(0.1, 1.0), rng.uniform(0.1, 1.0)
        total = total + rng.choice(TERMS)(xp, a, b * number)
    return total
