"""A saved library, called from Python with NumPy arrays.

In:   the path of a shared library that graphc made.
Out:  a `Loaded`: `k(x)` and `k.value_and_grad(x)`, with the bits of the graph that was saved.
Invariant: nothing but the file is needed. Its description is read before any of its code is, and
must be the one that the code carries.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from graphc.aot.interface import INDEX, OK, Field, Interface, from_json
from graphc.dsl.signature import bind
from graphc.dsl.tree import Structure, flatten_like, unflatten
from graphc.errors import DifferentiationError, FormatError, IndexOutOfBounds
from graphc.ir.types import TensorType, evaluate
from graphc.runtime.arguments import as_result, bind_sizes, prepare

MARK = b'{"graphc_abi":'


class Loaded:
    """A graph in a shared library. It keeps the library loaded."""

    def __init__(self, path: Path, interface: Interface, library: ctypes.CDLL) -> None:
        self.path, self.interface, self._library = path, interface, library
        self.__name__ = interface.name
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(p, kind) for p in interface.parameters]
        )

    def __repr__(self) -> str:
        return f"<graphc.load({str(self.path)!r}): {self.__name__}{self.__signature__}>"

    @property
    def wrt(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.interface.wrt)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The value."""
        results = self._run("", self.interface.of_role("output"), args, kwargs)
        return unflatten(self.interface.out_tree, map(as_result, results))

    def value_and_grad(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The value and its gradients by the parameters that the graph was compiled with."""
        if not self.interface.differentiates:
            raise DifferentiationError(
                f"{self.__name__} was saved without gradients: compile it with wrt=(...)"
            )
        outputs = self.interface.of_role("output", "gradient")
        results = self._run("_value_and_grad", outputs, args, kwargs)
        count = len(self.interface.of_role("output"))
        value = unflatten(self.interface.out_tree, map(as_result, results[:count]))
        return value, self._gradients(results[count:])

    def _gradients(self, flat: Sequence[np.ndarray]) -> Any:
        """Gradients in the structure of their parameters."""
        rest = iter(flat)
        trees = []
        for name, leaves in self.interface.wrt:
            parts = [as_result(next(rest)) for _ in leaves]
            trees.append(parts[0] if leaves == (name,) else unflatten(self._structure(name), parts))
        return trees[0] if self.interface.single else tuple(trees)

    def _structure(self, name: str) -> Structure:
        return self.interface.in_tree.children[self.interface.parameters.index(name)]

    # -- one call ----------------------------------------------------------------------------------

    def _run(
        self,
        suffix: str,
        outputs: Sequence[Field],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> list[np.ndarray]:
        arrays = self._arrays(args, kwargs)
        inputs = self.interface.of_role("input")
        sizes = bind_sizes(
            [_type(f) for f in inputs], [a.shape for a in arrays], [f.of for f in inputs]
        )
        results = [_empty(_type(f), sizes) for f in outputs]
        given: dict[Field, int] = dict(zip(inputs, (a.ctypes.data for a in arrays), strict=True))
        given |= dict(zip(outputs, (a.ctypes.data for a in results), strict=True))
        given |= {f: sizes[f.of] for f in self.interface.of_role("size")}
        slots = (ctypes.c_int64 * len(self.interface.fields))(
            *(given.get(f, 0) for f in self.interface.fields)
        )
        workspace = np.empty(self._entries["_workspace"](slots), np.uint8)
        slots[-1] = workspace.ctypes.data
        self._check(self._entries[suffix](slots))
        return results

    def _arrays(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[np.ndarray]:
        bound = bind(self.__signature__, self.__name__, args, kwargs)
        trees = zip(self.interface.in_tree.children, bound.arguments.items(), strict=True)
        leaves = [leaf for tree, (name, value) in trees for leaf in flatten_like(tree, value, name)]
        return [
            prepare(x, _type(f), f.of)
            for x, f in zip(leaves, self.interface.of_role("input"), strict=True)
        ]

    @cached_property
    def _entries(self) -> dict[str, Any]:
        found = {
            "_workspace": self._library[f"{self.__name__}_workspace"],
            "": self._library[self.__name__],
        }
        found["_workspace"].restype = ctypes.c_size_t
        found[""].restype = ctypes.c_int32
        if self.interface.differentiates:
            found["_value_and_grad"] = self._library[f"{self.__name__}_value_and_grad"]
            found["_value_and_grad"].restype = ctypes.c_int32
        return found

    def _check(self, status: int) -> None:
        if status == INDEX:
            raise IndexOutOfBounds(f"{self.__name__}: an index is out of bounds")
        if status != OK:
            raise FormatError(f"{self.path}: the library refused its arguments (status {status})")


def _type(field: Field) -> TensorType:
    assert field.type is not None
    return field.type


def _empty(ty: TensorType, sizes: Mapping[str, int]) -> np.ndarray:
    return np.empty([evaluate(s, sizes) for s in ty.shape], ty.dtype.numpy)


def load(path: str | os.PathLike[str]) -> Loaded:
    """A graph from a shared library that `save` or `graphc compile` wrote.

    Loading runs code of the file: load only what you trust.
    """
    where = Path(path)
    description = _description(where)
    interface = from_json(description.decode("utf-8", "replace"))
    try:
        library = _opened(where, interface.name, description)
    except (OSError, ValueError, AttributeError) as error:
        raise FormatError(f"{where} cannot be loaded: {error}") from error
    return Loaded(where, interface, library)


def _description(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    start = data.find(MARK)
    end = data.find(b"\0", start)
    if start < 0 or end < 0:
        raise FormatError(f"{path} is not a library that graphc made")
    return data[start:end]


def _opened(path: Path, name: str, description: bytes) -> ctypes.CDLL:
    """The library; a fresh copy of it where the loader still holds an older file of the same
    path."""
    library = ctypes.CDLL(str(path.absolute()))
    if _carried(library, name) == description:
        return library
    with tempfile.TemporaryDirectory(prefix="graphc-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        library = ctypes.CDLL(str(copy))
    if _carried(library, name) != description:
        raise ValueError("its code is not what its description says")
    return library


def _carried(library: ctypes.CDLL, name: str) -> bytes:
    try:
        return ctypes.string_at(
            ctypes.addressof(ctypes.c_char.in_dll(library, f"{name}_graphc_info"))
        )
    except ValueError:  # an older file of another graph
        return b""
