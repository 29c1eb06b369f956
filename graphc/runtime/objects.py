"""Native routines over Python objects, linked once and never freed; and whether they may be used.

In:   nothing.
Out:  `native()`: the routines of codegen/memory.py and codegen/entry.py; None where they cannot be
      used, and all calls then take the slower way through Python, which gives the same.
Invariant: every place in an object that native code reads was compared with what Python says of it.
Linked code stays for as long as the process: arrays in its blocks may outlive everything else.

>>> native() is None or native().address("call") != 0
True
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphc.codegen import arrays, entry, layout, memory
from graphc.codegen.native import TABLE
from graphc.runtime.jit import Library
from graphc.runtime.routines import linked

_NUMPY_API = {
    "PyArray_NewFromDescr": 94,
    "PyArray_SetBaseObject": 282,
    "PyArray_Scalar": 60,
    "PyDataMem_GetHandler": 305,
}
# In Python 3.10 this one is a macro; what is called so is always a Python function.
_ELSE = {"PyObject_Vectorcall": "_PyFunction_Vectorcall"}
_OBJECTS: dict[str, object] = {
    "PY_ndarray": np.ndarray, "PY_str": str, "PY_True": True,
    "PY_float64": np.float64, "PY_dtype_f64": np.dtype("f8"),
}  # fmt: skip
_HANDLER_NAME = ctypes.create_string_buffer(arrays.HANDLER_NAME)
_NUMBERS: dict[str, Callable[[], int]] = {
    "TUPLE_ITEMS": lambda: tuple.__basicsize__,
    "NUMPY_LAYOUT": lambda: int(new_arrays_hold()),
    "HANDLER_NAME": lambda: ctypes.addressof(_HANDLER_NAME),
}
# NumPy's sources from the one to before the other make and free arrays as codegen/arrays.py says.
_KNOWN_NUMPY = (2, 0), (2, 6)
_TP_ALLOC, _TP_FREE = 47, 74  # slots of types, as the stable ABI numbers them
POOL_LIMIT = 256 << 20  # bytes of free blocks that are kept unless the user says otherwise
_HAVE_GC = 1 << 14  # of a type's flags
_WORD = ctypes.c_int64
_POINTER = ctypes.c_void_p


def layout_holds() -> bool:
    """Do objects have their parts where native code reads them?"""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    if ctypes.sizeof(_POINTER) != 8 or sys.byteorder != "little":
        return False
    arrays = [np.arange(4.0), np.arange(12.0).reshape(3, 4)[1:, ::2], np.asarray(1.0)]
    arrays += [np.asfortranarray(arrays[1]), np.arange(3, dtype=np.int8)[::-1]]
    return all(map(_array_holds, arrays)) and _scalars_hold() and _tuples_hold()


def _word(address: int) -> int:
    return _WORD.from_address(address).value


def _array_holds(a: np.ndarray) -> bool:
    """Addresses in the object are followed only once everything else was found in its place."""
    at = {name: id(a) + offset for name, offset in layout.ARRAY.items()}
    flags = ctypes.c_int32.from_address(at["FLAGS"]).value
    expected = a.flags.c_contiguous | a.flags.aligned << 8 | a.flags.writeable << 10
    rank = ctypes.c_int32.from_address(at["NDIM"]).value
    sizes, strides = _word(at["DIMS"]), _word(at["STRIDES"])
    in_place = (
        _word(id(a) + layout.WORD) == id(type(a))
        and _word(at["DATA"]) == a.ctypes.data
        and _word(at["DESCR"]) == id(a.dtype)
        and flags & (layout.CONTIGUOUS_ALIGNED | layout.WRITEABLE) == expected
        and rank == a.ndim
        and (rank == 0 or strides == sizes + 8 * rank != 0)
    )
    return in_place and (_words(sizes, rank), _words(strides, rank)) == (a.shape, a.strides)


def _words(address: int, count: int) -> tuple[int, ...]:
    return tuple(_word(address + 8 * i) for i in range(count))


def _scalars_hold() -> bool:
    numbers: list[np.generic] = [
        np.float64(1.5),
        np.float32(-2.5),
        np.int64(-3),
        np.int32(7),
        np.bool_(True),
    ]
    return _is_plain(np.float64) and all(
        type(x).__basicsize__ >= layout.SCALAR_VALUE + x.dtype.itemsize
        and ctypes.string_at(id(x) + layout.SCALAR_VALUE, x.dtype.itemsize) == x.tobytes()
        for x in numbers
    )


def _is_plain(cls: type) -> bool:
    """Is an object of a type its header and one word, and no business of the garbage collector?"""
    words = (cls.__basicsize__, cls.__itemsize__) == (layout.SCALAR_VALUE + layout.WORD, 0)
    return words and not cls.__flags__ & _HAVE_GC


def _tuples_hold() -> bool:
    items = object(), object(), object()
    return _words(id(items) + _NUMBERS["TUPLE_ITEMS"](), 3) == tuple(map(id, items))


def new_arrays_hold() -> bool:
    """Are NumPy's new arrays what native code would make, and does it free them the same way?

    Sizes and strides go to `PyMem_RawFree`: that cannot be seen from outside, so NumPys whose
    sources nobody has read make their arrays themselves.
    """
    version = tuple(map(int, np.__version__.split(".")[:2]))
    oldest, first_unknown = _KNOWN_NUMPY
    if not oldest <= version < first_unknown or np.ndarray.__flags__ & _HAVE_GC:
        return False
    if (np.ndarray.__basicsize__, np.ndarray.__itemsize__) != (layout.ARRAY_BYTES, 0):
        return False
    slot = ctypes.pythonapi.PyType_GetSlot
    slot.restype, slot.argtypes = _POINTER, [ctypes.py_object, ctypes.c_int]
    if slot(np.ndarray, _TP_ALLOC) != _address("PyType_GenericAlloc"):
        return False
    if slot(np.ndarray, _TP_FREE) != _address("PyObject_Free"):
        return False
    return all(_is_as_made_here(np.empty(s)) for s in ((3,), (2, 3), (3, 1), (1, 1), (2, 1, 2)))


def _is_as_made_here(a: np.ndarray) -> bool:
    """A new array of doubles."""
    places = layout.ARRAY | layout.ARRAY_REST
    flags = layout.CONTIGUOUS_ALIGNED | layout.WRITEABLE | layout.OWN_DATA
    if sum(n != 1 for n in a.shape) <= 1:
        flags |= layout.FORTRAN
    expected = {"NDIM": a.ndim, "FLAGS": flags, "BASE": 0, "WEAK_REFERENCES": 0, "EXPORTS": 0}
    handler = _numpy_function("PyDataMem_GetHandler", ctypes.py_object)()
    expected["HANDLER"] = id(handler)
    return all(_word(id(a) + places[name]) == word for name, word in expected.items())


class Native:
    """The linked routines. Those for calls are linked when the first of them is asked for."""

    def __init__(self) -> None:
        self._memory = _linked_for_good("memory", memory, quick=True)
        self._calls: Any = None
        result, words = ctypes.py_object, (_POINTER, _WORD, _POINTER, _WORD)
        self.new_array = self._function("new_array", result, *words)
        self.pool_state = self._function("pool_state", _POINTER)()
        self.pool_limit = self._function("pool_limit", None, _WORD)
        self.pool_limit(POOL_LIMIT)
        self.arena_take = self._function("arena_take", _WORD, _POINTER, _WORD)
        self.arena_give = self._function("arena_give", None, _POINTER, _POINTER)
        self.arena_clear = self._function("arena_clear", None, _POINTER)
        # (entry, slots, first, last): slots `first` to `last` hold arrays, whose data is run on.
        through = ctypes.CFUNCTYPE(_WORD, _POINTER, _POINTER, _WORD, _WORD)
        self.through = through(self._memory.address("through"))

    def _function(self, symbol: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        """A routine that needs the GIL, and may raise."""
        return ctypes.PYFUNCTYPE(result, *arguments)(self._memory.address(symbol))

    def address(self, symbol: str) -> int:
        """Of one of the routines for calls."""
        if self._calls is None:
            with _linking:
                if self._calls is None:
                    known = {name: self._memory.address(name) for name in memory.EXPORTS}
                    self._calls = _linked_for_good("calls", entry, known)
        return self._calls.address(symbol)


def _linked_for_good(
    name: str, module: Any, known: Mapping[str, int] | None = None, quick: bool = False
) -> Library:
    """The routines of a module such as `entry`; they stay to the end of the process."""
    exports = (*module.EXPORTS, TABLE)
    library = linked(name, module.text, exports, passes=True, quick=quick)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))
    table = ctypes.cast(library.address(TABLE), ctypes.POINTER(_WORD))
    for i, (needed, kind) in enumerate(module.FUNCTIONS.items()):
        if kind == "object":
            table[i] = id(_OBJECTS[needed])
        elif kind == "number":
            table[i] = _NUMBERS[needed]()
        else:
            table[i] = (known or {}).get(needed) or _address(needed)
    return library


def _address(name: str) -> int:
    if name in _NUMPY_API:
        return _numpy_api()[_NUMPY_API[name]]
    if not hasattr(ctypes.pythonapi, name):
        name = _ELSE[name]
    return ctypes.cast(getattr(ctypes.pythonapi, name), _POINTER).value or 0


def _numpy_function(name: str, result: Any) -> Any:
    return ctypes.PYFUNCTYPE(result)(_address(name))


def _numpy_api() -> Any:
    umath = importlib.import_module("numpy._core._multiarray_umath")
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = _POINTER, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.cast(get(umath._ARRAY_API, None), ctypes.POINTER(_POINTER))


def native() -> Native | None:
    """The routines; None where objects have another layout."""
    return _linked if _done else _link()


def is_linked() -> bool:
    """Does `native` answer at once? To link the routines takes longer than most calls."""
    return _done


_linked: Native | None = None
_done = False
_linking = threading.RLock()


def _after_fork() -> None:
    global _linking
    _linking = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _link() -> Native | None:
    global _linked, _done
    with _linking:
        if not _done:
            _linked = Native() if layout_holds() else None
            _done = True
    return _linked
