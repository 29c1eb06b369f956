"""Memory that is used again: blocks for large results, and arenas for temporaries.

In:   shapes and dtypes of results; bytes of temporaries.
Out:  arrays and addresses.
Invariant: a block goes back when the last view of its array dies, never earlier; free blocks take
at most `limit()` bytes, 256 MB unless `set_limit` says otherwise.

Fresh pages from the operating system cost many times what a kernel takes to fill them. So results
of 64 kB and more lie in blocks that are kept for the next call; their arrays do not own their
memory, and hence refuse to be resized. Smaller ones come from NumPy. A kernel keeps the arenas of
its calls, one for each call in flight, four at most; ones above 1 MB go back to the pool.

>>> a = empty((100, 100), np.dtype(np.float64))
>>> a.shape, a.flags.c_contiguous, a.flags.writeable
((100, 100), True, True)
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphc.codegen import memory
from graphc.runtime.objects import Native, native

MOST_BYTES = 1 << 47  # what an address can reach


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array without values: large ones in a block of the pool."""
    size = math.prod(shape) * dtype.itemsize
    routines = native() if size >= memory.LARGE else None
    if routines is None:
        return np.empty(shape, dtype)
    if size > MOST_BYTES:
        raise MemoryError(f"{size:,} bytes are more than this processor can address")
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    return routines.new_array(id(dtype), len(shape), sizes, size)


@dataclass(frozen=True)
class Usage:
    """What the pool did and holds."""

    limit: int  # bytes of free blocks that it keeps at most
    held: int  # bytes of free blocks that it keeps now
    blocks: int  # how many blocks these are
    reused: int  # requests that a free block served
    made: int  # requests that needed new memory


def usage() -> Usage:
    """What the pool holds now."""
    routines = native()
    if routines is None:
        return Usage(0, 0, 0, 0, 0)
    return Usage(*(ctypes.c_int64 * len(memory.POOL)).from_address(routines.pool_state))


def limit() -> int:
    """The bytes of free blocks that the pool keeps at most."""
    return usage().limit


def set_limit(limit: int) -> None:
    """Keep at most so many bytes of free blocks from now on; 0 keeps none."""
    if limit < 0:
        raise ValueError(f"the pool's limit is a number of bytes, got {limit}")
    routines = native()
    if routines is not None:
        routines.pool_limit(min(limit, MOST_BYTES))


def clear() -> None:
    """Give all free blocks back to the operating system; blocks in use are not touched."""
    kept = limit()
    set_limit(0)
    set_limit(kept)


class Arenas:
    """The arenas of one kernel: a call takes one and gives it back."""

    _routines: Native | None = None  # that give back what the words hold; there, if none is made

    def __init__(self) -> None:
        self._words = (ctypes.c_int64 * (1 + memory.ARENA_ENTRIES))()

    @cached_property
    def address(self) -> int:
        """Where native code finds them."""
        self._routines = native()
        return ctypes.addressof(self._words)

    def take(self, size: int) -> int:
        """The address of at least so many bytes, a multiple of 64."""
        address = self.address
        assert self._routines is not None
        found = self._routines.arena_take(address, size) if size <= MOST_BYTES else 0
        if not found:
            raise MemoryError(f"no memory for temporaries of {size:,} bytes")
        return found

    def give(self, address: int) -> None:
        assert self._routines is not None
        self._routines.arena_give(self.address, address)

    @property
    def kept(self) -> int:
        """How many arenas wait for calls."""
        return self._words[0]

    def __del__(self) -> None:
        if self._routines is not None:
            self._routines.arena_clear(self._words)
