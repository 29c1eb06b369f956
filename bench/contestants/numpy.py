"""NumPy, interpreted, its gradients by hand."""

from typing import Any

import numpy as np

from bench.cases.case import Arrays, Case, leaves
from bench.contestants.contestant import Entry, Way


def start(threads: int, setting: str) -> str:
    return f"NumPy {np.__version__}"


def enter(case: Case, args: Arrays, setting: str) -> Entry:
    def fetch(found: Any) -> list[Any]:
        return [np.asarray(a) for a in leaves(found)]

    return Entry(
        {
            "gradient": Way(lambda: case.expected(args), fetch),
            "value": Way(lambda: case.value(*args), fetch),
        }
    )
