"""Where native code finds the parts of Python objects; runtime/objects.py checks that they are there."""

from __future__ import annotations

from collections.abc import Sequence

WORD = 8
HEADER = 16  # bytes of an object before its own fields: reference count and type

# Bytes from the start of an array object.
ARRAY = {"DATA": 16, "NDIM": 24, "DIMS": 32, "STRIDES": 40, "DESCR": 56, "FLAGS": 64}
SCALAR_VALUE = 16  # bytes from the start of a NumPy scalar to its value
CONTIGUOUS_ALIGNED = 0x101  # flags of an array
WRITEABLE = 0x400


def words(names: Sequence[str], first: int = 0) -> dict[str, int]:
    """The offsets of words that have these names."""
    return {name: first + WORD * i for i, name in enumerate(names)}
