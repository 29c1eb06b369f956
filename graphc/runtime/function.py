"""A graph as a function of Python objects: arguments in, one kernel's run, results out.

In:   positional and keyword arguments, trees of arrays and numbers; perhaps `out=`.
Out:  a tree of arrays and NumPy scalars.
Invariant: arguments are never changed, donated ones apart; what this file does for a call is what
native code does for the calls that it serves.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dsl.declare import Declared, Graph
from graphc.dsl.signature import bind
from graphc.dsl.trace import Traced
from graphc.dsl.tree import Structure, flatten_like, unflatten
from graphc.errors import SignatureError
from graphc.ir.types import TensorType
from graphc.runtime.arguments import as_result, bind_sizes, prepare
from graphc.runtime.bound import Bound, Pointer
from graphc.runtime.entries import Entry
from graphc.runtime.kernel import LAYOUTS, Kernel, Shapes
from graphc.runtime.outputs import check_targets, place
from graphc.runtime.records import record_of
from graphc.runtime.seen import Argument, Seen

if TYPE_CHECKING:
    from graphc.report.cost import Prediction

_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Function(Entry, ABC):
    """Calls of one kernel. It has the name, documentation and signature of the user's function."""

    def __init__(self, like: Declared | Graph, traced: Traced, result: Structure) -> None:
        self.__name__ = like.__name__
        self.__doc__ = like.__doc__
        self.__signature__ = like.__signature__
        self.traced, self.result = traced, result
        self._parameters = list(like.__signature__.parameters.values())
        self._checked: set[Shapes] = set()
        self._seen = Seen()

    @property
    @abstractmethod
    def kernel(self) -> Kernel:
        """What runs; made when it is first asked for."""

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        """Arrays in, arrays and NumPy scalars out.

        `out` is like the result, with arrays to be filled, or None where a new one is wanted;
        numbers are written into arrays of rank 0. Arrays that the kernel cannot write to directly,
        as their elements do not lie in one piece or overlap others, are filled from a copy.
        """
        values = self._values(args, kwargs)
        leaves = self._flat(values)
        arrays = self._arrays(leaves)
        if out is None:
            result = self._result(self._run(arrays, None))
        else:
            result = self._into(arrays, out)
            kwargs["out"] = out
            leaves += flatten_like(self.result, out, "out")
        form = self._seen.often(None, args, kwargs, leaves)
        if form is not None:
            self._seen.tried(form, self._serve(self._record(values, arrays, out)))
        return result

    # -- arguments ---------------------------------------------------------------------------------

    def _values(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """A value for each parameter."""
        if not kwargs and len(args) == len(self._parameters):
            return args
        bound = bind(self.__signature__, self.__name__, args, kwargs)
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def _flat(self, values: Sequence[Any]) -> list[Any]:
        leaves: list[Any] = []
        for child, p, value in zip(self.traced.in_tree.children, self._parameters, values):
            leaves.extend(flatten_like(child, value, p.name))
        return leaves

    def _arrays(self, leaves: Sequence[Any]) -> list[np.ndarray]:
        """The arrays that kernels read: as given where they fit, else converted, or an error."""
        inputs = self.traced.arguments
        arrays = [_as_given(x, n.type, n["name"]) for x, n in zip(leaves, inputs)]
        if tuple([a.shape for a in arrays]) not in self._checked:
            self._check(arrays)
        return [*arrays, *self.traced.captured]

    def _check(self, arrays: Sequence[np.ndarray]) -> None:
        inputs = self.traced.arguments
        bind_sizes([n.type for n in inputs], [a.shape for a in arrays], [n["name"] for n in inputs])
        if len(self._checked) >= LAYOUTS:
            self._checked.clear()
        self._checked.add(tuple(a.shape for a in arrays))

    # -- results -----------------------------------------------------------------------------------

    def _run(
        self, arrays: list[np.ndarray], targets: Sequence[np.ndarray | None] | None
    ) -> list[np.ndarray]:
        kernel = self.kernel
        if targets is None and not kernel.donors:
            return kernel.run(arrays)
        specs = kernel.layout(tuple([a.shape for a in arrays])).outputs
        placed = place(specs, arrays, kernel.donors, targets)
        kernel.run(arrays, placed.arrays)
        for target, source in placed.copies:
            target[...] = source
        return placed.arrays

    def _result(self, results: Sequence[np.ndarray]) -> Any:
        return unflatten(self.result, map(as_result, results))

    def _into(self, arrays: list[np.ndarray], out: Any) -> Any:
        """Run into the caller's arrays."""
        targets = self._targets(arrays, out)
        results = self._run(arrays, targets)
        if all(t is not None for t in targets):
            return out
        leaves = [as_result(r) if t is None else t for r, t in zip(results, targets)]
        return unflatten(self.result, leaves)

    def _targets(self, arrays: Sequence[np.ndarray], out: Any) -> list[np.ndarray | None]:
        specs = self.kernel.layout(tuple([a.shape for a in arrays])).outputs
        targets = flatten_like(self.result, out, "out")
        return check_targets(self._output_names(), targets, specs)

    def _output_names(self) -> list[str]:
        return [name for name, _, _ in self.kernel.manifest.outputs]

    # -- native code -------------------------------------------------------------------------------

    def _record(self, values: Sequence[Any], arrays: Sequence[np.ndarray], out: Any) -> Any:
        if any(p.kind not in _PLAIN for p in self._parameters):
            return None
        children = self.traced.in_tree.children
        arguments = [
            Argument(p.name, x, child, p.default, p.kind is not p.POSITIONAL_ONLY)
            for p, x, child in zip(self._parameters, values, children)
        ]
        leaves = [(n.type, a.shape) for n, a in zip(self.traced.arguments, arrays)]
        captured = self.traced.captured
        return record_of(self.kernel, arguments, leaves, captured, self.result, out)

    def bind(self, *args: Any, out: Any = None, **kwargs: Any) -> Bound:
        """A function without arguments that runs on these arrays, again and again.

        Arrays are read where they are, so that the caller may write new numbers into them, and have
        to be such that a kernel can read them: of the dtype that the graph declares, in one piece.
        Numbers are fixed. Every run writes to the same arrays: those of `out`, or new ones; results
        of rank 0 are arrays, too.
        """
        leaves = self._flat(self._values(args, kwargs))
        arrays = self._arrays(leaves)
        names = [n["name"] for n in self.traced.arguments]
        for name, x, a in zip(names, leaves, arrays):
            _check_bound(name, x, a)
        targets = None if out is None else self._targets(arrays, out)
        specs = self.kernel.layout(tuple([a.shape for a in arrays])).outputs
        placed = place(specs, arrays, self.kernel.donors, targets)
        if placed.copies:
            raise SignatureError(
                f"{self.__name__}: an array of out= is not in one piece, or overlaps an argument "
                "or another: a bound call cannot write to it"
            )
        result = unflatten(self.result, placed.arrays)
        return Bound(self.__name__, self.kernel, arrays, placed.arrays, result)

    def predict(self, *args: Any, **sizes: int) -> Prediction:
        """What a call should take: bytes, operations and seconds of each kernel, and its limit.

        For arguments, as of a call, or for values of the named sizes: `k.predict(n=1000)`. Nothing
        of them is run; what this machine takes for the parts of a kernel is measured when it is
        first asked for, and kept.
        """
        from graphc.report.cost import predicted

        arrays = self._arrays(self._flat(self._values(args, {}))) if args else []
        return predicted(self.kernel, arrays, sizes)

    def pointer(self) -> Pointer:
        """The kernel as a function of C, for other native code."""
        return Pointer(self.kernel)


def _check_bound(name: str, given: Any, array: np.ndarray) -> None:
    if isinstance(given, (bool, int, float, np.generic)):
        return
    if not isinstance(given, np.ndarray) or given.ctypes.data != array.ctypes.data:
        got = (
            f"a {given.dtype} array with strides {given.strides}"
            if isinstance(given, np.ndarray)
            else f"a {type(given).__name__}"
        )
        raise SignatureError(
            f"argument {name} is bound as it lies in memory: it has to be an array of "
            f"{array.dtype}, aligned and in one piece in the order of C; got {got}: pass "
            f"numpy.require({name}, numpy.{array.dtype}, 'CA')"
        )


def _as_given(x: Any, ty: TensorType, name: str) -> np.ndarray:
    if type(x) is np.ndarray and x.dtype is ty.dtype.numpy and x.ndim == len(ty.shape):
        flags = x.flags
        if flags.c_contiguous and flags.aligned:
            return x
    elif type(x) in (float, np.float64) and ty.rank == 0 and ty.dtype.name == "f64":
        return np.array(x)
    return prepare(x, ty, name)
