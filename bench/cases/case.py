"""What a workload is: one function, written once, and its value and gradient by hand in NumPy.

`model(xp, *args)` is the function over a dialect `xp`: the names that every library of the field
has (`tanh`, `sum` as a method, ...), and some for which each has a form of its own that its users
would write (`softplus`, `logsumexp`, `cross_entropy`, `square_distances`). So all contestants
compute the same function, each in its own words. Nothing here needs graphc: contestants run in
processes of their own, some in another Python.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = tuple[Any, ...]
Types = Mapping[str, Any]  # parameter -> "f64[n,3]", or a dict of such

ELSEWHERE = (0.37, 2.7)  # times the size of a row
ROWS, TINY, PRODUCTS = "rows", "tiny", "products"  # the groups that are judged apart


@dataclass(frozen=True)
class Case:
    """A workload. `data(rng, n)` makes the arguments; `value` and `gradient` are the NumPy side."""

    name: str
    family: str  # of which contestants have loops or symbols of their own
    n: int
    model: Callable[..., Any]
    types: Types
    wrt: tuple[str, ...]
    data: Callable[[np.random.Generator, int], Arrays]
    value: Callable[..., Any]
    gradient: Callable[..., tuple[Any, Arrays]]
    group: str = ROWS
    small: int = 5  # a size for tests
    rate: float | None = None  # of a step of gradient descent, which is then what is measured
    compute_bound: bool = False  # two threads should take half the time of one
    rtol: float = 1e-9  # how far two sides may be apart, relative to the largest element

    @property
    def positions(self) -> tuple[int, ...]:
        """The places of the parameters to differentiate by."""
        return tuple(list(self.types).index(name) for name in self.wrt)

    @property
    def other_sizes(self) -> tuple[int, ...]:
        """Sizes that no row has, smaller and larger, and no multiples of vectors."""
        return tuple(max(round(factor * self.n), 3) | 1 for factor in ELSEWHERE)

    def results(self, value: Any, wanted: Sequence[Any], grads: Sequence[Any]) -> list[Any]:
        """The value, and the gradients, or the parameters after a step; flat, of any library."""
        if self.rate is None:
            return [value, *grads]
        return [value, *(w - self.rate * g for w, g in zip(wanted, grads))]

    def wanted(self, args: Sequence[Any]) -> list[Any]:
        """The arrays to differentiate by, flat."""
        return leaves([args[i] for i in self.positions])

    def expected(self, args: Sequence[Any]) -> list[Any]:
        """What NumPy gives."""
        value, grads = self.gradient(*args)
        return self.results(value, self.wanted(args), leaves(grads))

    def arguments(self, n: int | None = None) -> Arrays:
        return self.data(np.random.default_rng(0), self.n if n is None else n)


def leaves(tree: Any) -> list[Any]:
    """The arrays of a nest of dicts, lists and tuples; of a dict by the names of its keys."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def each(f: Callable[[Any], Any], tree: Any) -> Any:
    """The nest with `f` of each of its arrays."""
    if isinstance(tree, dict):
        return {key: each(f, part) for key, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(each(f, part) for part in tree)
    return f(tree)


def dtype_and_shape(text: str) -> tuple[str, tuple[int | str, ...]]:
    """("f64", ("n", 3)) for "f64[n,3]"; sizes are numbers or names."""
    dtype, _, sizes = text.rstrip("]").partition("[")
    parts = [s.strip() for s in sizes.split(",") if s.strip()]
    return dtype, tuple(int(s) if s.isdigit() else s for s in parts)


def nbytes(*trees: Any) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in leaves(trees))


def sigmoid(z: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-z))
