"""Numba: the loops and their gradients by hand, without fastmath, on buffers fixed beforehand.

Not a peer, which would find the gradient by itself, but a limit.
"""

from typing import Any

import numba
import numpy as np

from bench.cases.case import Arrays, Case, nbytes
from bench.contestants import loops
from bench.contestants.contestant import Absent, Entry, Way

LARGE = 1e5  # bytes of arguments from which on a second thread may pay


def start(threads: int, setting: str) -> str:
    numba.set_num_threads(threads)
    return f"Numba {numba.__version__}"


def enter(case: Case, args: Arrays, setting: str) -> Entry:
    made = loops.LOOPS.get(case.family)
    if made is None:
        raise Absent("no loops by hand")

    def fetch(found: Any) -> list[Any]:
        return [np.asarray(a) for a in found]

    ways = {"bound": Way(made(args, 1), fetch)}
    if case.compute_bound or nbytes(args) > LARGE:
        ways["parallel"] = Way(made(args, numba.get_num_threads()), fetch)
    for way in ways.values():
        way.run()
    return Entry(ways)
