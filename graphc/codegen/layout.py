"""Where native code finds the parts of Python objects; runtime/objects.py checks that they are there.

What is read, and what is not, is chosen so that it holds in all versions of Python from 3.10 on:

- References are counted by Py_IncRef and Py_DecRef alone, which know of immortal objects (3.12) and of counts in two
  halves; nothing reads a count. Numbers are read by PyLong_As... and PyFloat_As..., whatever their digits look like (3.12).
- An object begins with 16 bytes, count and type. It does not in a Python without the GIL, where nothing is native.
- Arguments may be borrowed from the caller's frame (3.14), which keeps them to the end of the call. What lies in containers
  may go at any time that Python code runs, and is held.
- The fields of arrays are those of NumPy 1 and 2; types are compared, so a subclass is never read. Flags of types are
  compared with `__flags__` before they are written, once for each class.
- `PyObject_Vectorcall` is a macro in Python 3.10; there, `_PyFunction_Vectorcall` stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

WORD = 8
HEADER = 16  # bytes of an object before its own fields: reference count and type

# Bytes from the start of an array object.
ARRAY = {"DATA": 16, "NDIM": 24, "DIMS": 32, "STRIDES": 40, "DESCR": 56, "FLAGS": 64}
# What else an array object has: written where native code makes one (codegen/arrays.py), never read.
ARRAY_REST = {"BASE": 48, "WEAK_REFERENCES": 72, "EXPORTS": 80, "HANDLER": 88}
ARRAY_BYTES = 96
SCALAR_VALUE = 16  # bytes from the start of a NumPy scalar to its value
CONTIGUOUS_ALIGNED = 0x101  # flags of an array
WRITEABLE = 0x400
FORTRAN, OWN_DATA = 0x2, 0x4


def words(names: Sequence[str], first: int = 0) -> dict[str, int]:
    """The offsets of words that have these names."""
    return {name: first + WORD * i for i, name in enumerate(names)}
