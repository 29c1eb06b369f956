"""Memory: native code for blocks of large results, arenas of temporaries, and new arrays.

In:   nothing; one module serves a whole process, and is never freed: arrays that it made outlive every kernel.
Out:  the text of a module with `new_array`, `arena_take` and `arena_give`, and what runtime/pool.py asks of the pool.
Invariant: all of it runs with the GIL held, `through` apart. A block is in use or free, and a free one is counted.

The pool is a list of free blocks, the oldest first: at most `POOL_ENTRIES`, of at most `LIMIT` bytes together; the oldest
ones make room for new ones. A kernel's arenas are a count, and as many addresses.

On Linux, blocks from `HUGE` on begin at a multiple of it, and the system is asked for pages of that size: on a virtual
machine, to look up the address of a small page takes longer than to read it.
"""

from __future__ import annotations

import sys

from graphc.codegen.layout import ARRAY, CONTIGUOUS_ALIGNED, WRITEABLE, words
from graphc.codegen.native import Surroundings, module

POOL_ENTRIES = 64
POOL = ("LIMIT", "HELD", "FREE", "REUSED", "MADE_NEW")
LARGE = 1 << 16  # bytes from which on outputs come from the pool
ARENA_ENTRIES = 4
ARENA_KEPT = 1 << 20  # bytes up to which a kernel keeps an arena itself; larger ones go to the pool
NO_ARENA = 64  # where there is nothing to keep
HUGE = 1 << 21  # bytes of a large page, on most machines
HEAD = 1 << 12  # bytes before a block of such pages
_READ_WRITE, _PRIVATE_ANONYMOUS, _MADV_HUGEPAGE = 3, 0x22, 14  # as Linux has them

FUNCTIONS = {
    "Py_IncRef": "void", "Py_DecRef": "void", "PyErr_NoMemory": "i64", "PyCapsule_New": "i64",
    "PyCapsule_GetPointer": "i64", "PyMem_RawMalloc": "i64", "PyMem_RawFree": "void", "PyArray_NewFromDescr": "i64",
    "PyArray_SetBaseObject": "i32", "PY_ndarray": "object",
    **({"mmap": "i64", "munmap": "i32", "madvise": "i32"} if sys.platform == "linux" else {}),
}  # fmt: skip
EXPORTS = (
    "pool_state",
    "pool_limit",
    "new_array",
    "arena_take",
    "arena_give",
    "arena_clear",
    "through",
)

ALLOCATED = """
def block_new(bytes):
    "A block, aligned to 64 bytes; its size and its memory's start stand before it."
    memory = C_PyMem_RawMalloc(bytes + 128)
    if memory == 0:
        return 0
    data = (memory + 127) & -64
    store(data - 8, memory)
    store(data - 16, bytes)
    return data

def block_free(data):
    C_PyMem_RawFree(load(data - 8))
"""

MAPPED = """
def block_new(bytes):
    "A block, aligned to 64 bytes or to a large page; its size and its memory's start stand before it."
    if bytes < HUGE:
        memory = C_PyMem_RawMalloc(bytes + 128)
        if memory == 0:
            return 0
        data = (memory + 127) & -64
    else:
        memory = C_mmap(0, bytes + HUGE + HEAD, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0)
        if memory == -1:
            return 0
        data = (memory + HEAD + HUGE - 1) & (0 - HUGE)
        C_madvise(data, bytes, MADV_HUGEPAGE)
    store(data - 8, memory)
    store(data - 16, bytes)
    return data

def block_free(data):
    bytes = load(data - 16)
    if bytes < HUGE:
        C_PyMem_RawFree(load(data - 8))
    else:
        C_munmap(load(data - 8), bytes + HUGE + HEAD)
"""

TEXT = """
def size_class(bytes):
    "What a block for so many bytes has: at most an eighth more, so that blocks serve similar requests."
    if bytes < LARGE:
        return (bytes + 63) & -64
    step = LARGE >> 3
    while step * 16 <= bytes:
        step = step * 2
    return (bytes + step - 1) & (0 - step)

def pool_state():
    return POOL

def pool_remove(i):
    "Take entry i out of the free blocks, the oldest of which is the first."
    data = load(POOL_FREE + 8 * i)
    n = load(POOL + FREE) - 1
    while i < n:
        store(POOL_FREE + 8 * i, load(POOL_FREE + 8 * i + 8))
        i += 1
    store(POOL + FREE, n)
    store(POOL + HELD, load(POOL + HELD) - load(data - 16))
    return data

def pool_take(bytes):
    "A block of at least so many bytes, the one that was given back last if it fits; 0 where there is no memory."
    bytes = size_class(bytes)
    i = load(POOL + FREE) - 1
    while i >= 0:
        if load(load(POOL_FREE + 8 * i) - 16) == bytes:
            store(POOL + REUSED, load(POOL + REUSED) + 1)
            return pool_remove(i)
        i = i - 1
    store(POOL + MADE_NEW, load(POOL + MADE_NEW) + 1)
    return block_new(bytes)

def pool_shrink(limit, entries):
    while load(POOL + HELD) > limit or load(POOL + FREE) > entries:
        block_free(pool_remove(0))

def pool_give(data):
    bytes = load(data - 16)
    limit = load(POOL + LIMIT)
    if bytes > limit:
        block_free(data)
        return 0
    pool_shrink(limit - bytes, POOL_ENTRIES - 1)
    n = load(POOL + FREE)
    store(POOL_FREE + 8 * n, data)
    store(POOL + FREE, n + 1)
    store(POOL + HELD, load(POOL + HELD) + bytes)

def pool_limit(limit):
    store(POOL + LIMIT, limit)
    pool_shrink(limit, POOL_ENTRIES)

def pool_release(capsule):
    "The last view of an array is gone."
    pool_give(C_PyCapsule_GetPointer(capsule, 0))

def new_array(dtype, rank, sizes, bytes):
    "A new array; a large one lies in a block of the pool. 0 with an exception set where there is no memory."
    C_Py_IncRef(dtype)
    if bytes < LARGE:
        return C_PyArray_NewFromDescr(PY_ndarray, dtype, rank, sizes, 0, 0, 0, 0)
    data = pool_take(bytes)
    if data == 0:
        C_Py_DecRef(dtype)
        return C_PyErr_NoMemory()
    array = C_PyArray_NewFromDescr(PY_ndarray, dtype, rank, sizes, 0, data, CONTIGUOUS_ALIGNED | WRITEABLE, 0)
    if array == 0:
        pool_give(data)
        return 0
    capsule = C_PyCapsule_New(data, 0, pool_release)
    if capsule == 0:
        C_Py_DecRef(array)
        pool_give(data)
        return 0
    if C_PyArray_SetBaseObject(array, capsule) < 0:
        C_Py_DecRef(array)
        return 0
    return array

def arena_take(arenas, bytes):
    "Memory for one call of a kernel: one that it kept, else a new one; 0 where there is none."
    if bytes == 0:
        return NO_ARENA
    if bytes > ARENA_KEPT:
        return pool_take(bytes)
    i = load(arenas) - 1
    while i >= 0:
        data = load(arenas + 8 + 8 * i)
        if load(data - 16) >= bytes:
            arena_remove(arenas, i)
            return data
        i = i - 1
    return block_new(size_class(bytes))

def arena_remove(arenas, i):
    n = load(arenas) - 1
    while i < n:
        store(arenas + 8 + 8 * i, load(arenas + 16 + 8 * i))
        i += 1
    store(arenas, n)

def arena_give(arenas, data):
    if data == NO_ARENA:
        return 0
    if load(data - 16) > ARENA_KEPT:
        return pool_give(data)
    n = load(arenas)
    if n == ARENA_ENTRIES:
        block_free(load(arenas + 8))
        arena_remove(arenas, 0)
        n = n - 1
    store(arenas + 8 + 8 * n, data)
    store(arenas, n + 1)

def arena_clear(arenas):
    while load(arenas) > 0:
        n = load(arenas) - 1
        block_free(load(arenas + 8 + 8 * n))
        store(arenas, n)

def through(entry, slots, first, last):
    "Run a kernel on array objects, in slots `first` to `last`."
    while first <= last:
        store(slots + 8 * first, load(load(slots + 8 * first) + DATA))
        first += 1
    return invoke(entry, slots)
"""


def text() -> str:
    """The module; its functions are in `EXPORTS`."""
    numbers = {
        **ARRAY, **words(POOL), "CONTIGUOUS_ALIGNED": CONTIGUOUS_ALIGNED, "WRITEABLE": WRITEABLE, "LARGE": LARGE,
        "POOL_ENTRIES": POOL_ENTRIES, "ARENA_ENTRIES": ARENA_ENTRIES, "ARENA_KEPT": ARENA_KEPT, "NO_ARENA": NO_ARENA,
        "HUGE": HUGE, "HEAD": HEAD, "READ_WRITE": _READ_WRITE, "PRIVATE_ANONYMOUS": _PRIVATE_ANONYMOUS,
        "MADV_HUGEPAGE": _MADV_HUGEPAGE,
    }  # fmt: skip
    globals_ = {"POOL": len(POOL), "POOL_FREE": POOL_ENTRIES + 1}
    blocks = MAPPED if sys.platform == "linux" else ALLOCATED
    return module(blocks + TEXT, EXPORTS, Surroundings(numbers, FUNCTIONS, globals_))
