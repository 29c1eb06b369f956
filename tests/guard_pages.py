"""Memory between pages that may not be touched: access out of bounds ends the process.

`guarded("last")` lets NumPy take the memory of new arrays from here. Their last byte, or their
first one, is next to a page without access; freed memory may not be touched either. `in_a_child`
runs something in a forked process, and says what it was doing when it died.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import mmap
import os
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from graphc.codegen.native import TABLE, Surroundings, module
from graphc.runtime.jit import Jit, Library

PAGE = mmap.PAGESIZE
SLOTS = 4096  # pages for arrays of at most a page; others get a mapping of their own
NONE, READ_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE
SET_HANDLER = 304  # of NumPy's C interface

# NumPy calls these while exceptions are on their way, which callbacks in Python would disturb.
# `end` is 1 for memory at the end of its pages. The size of a block of more than a page stands in
# a page two before it.
TEXT = """
def take(end, size):
    if size == 0:
        size = 1
    store(TAKEN, load(TAKEN) + 1)
    room = (size + PAGE - 1) & (0 - PAGE)
    if room == PAGE:
        at = load(HEAD)
        if at == load(TAIL):
            return 0
        first = load(FREE + 8 * (at & (SLOTS - 1)))
        store(HEAD, at + 1)
        store(SIZES + 8 * slot(first), size)
    else:
        first = C_mmap(0, room + 3 * PAGE, 0, FLAGS, -1, 0) + 2 * PAGE
        C_mprotect(first - 2 * PAGE, PAGE, READ_WRITE)
        store(first - 2 * PAGE, size)
    C_mprotect(first, room, READ_WRITE)
    i = 0
    while i < room:
        store(first + i, 0xA5A5A5A5A5A5)
        i += 8
    return first + end * (room - size)

def slot(first):
    return (first - load(START)) // (2 * PAGE)

def size_of(first):
    i = slot(first)
    if i >= 0 and i < SLOTS:
        return load(SIZES + 8 * i)
    return load(first - 2 * PAGE)

def cleared(end, count, item):
    size = count * item
    data = take(end, size)
    i = 0
    while i < size:
        store8(data + i, 0)
        i += 1
    return data

def again(end, data, size):
    new = take(end, size)
    if data == 0:
        return new
    old = size_of(data & (0 - PAGE))
    i = 0
    while i < size and i < old:
        store8(new + i, load8(data + i))
        i += 1
    give(end, data, old)
    return new

def give(end, data, size):
    if data == 0:
        return 0
    first = data & (0 - PAGE)
    room = (size_of(first) + PAGE - 1) & (0 - PAGE)
    if room == PAGE:
        C_mprotect(first, PAGE, 0)
        at = load(TAIL)
        store(FREE + 8 * (at & (SLOTS - 1)), first)
        store(TAIL, at + 1)
    else:
        C_munmap(first - 2 * PAGE, room + 3 * PAGE)

def begin(start):
    store(START, start)
    i = 0
    while i < SLOTS - 1:
        store(FREE + 8 * i, start + PAGE + 2 * PAGE * i)
        i += 1
    store(HEAD, 0)
    store(TAIL, i)

def taken():
    return load(TAKEN)
"""
EXPORTS = ("take", "cleared", "again", "give", "begin", "taken")
FUNCTIONS = {"mmap": "i64", "munmap": "i32", "mprotect": "i32"}
NUMBERS = {
    "PAGE": PAGE, "SLOTS": SLOTS, "READ_WRITE": READ_WRITE,
    "FLAGS": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
}  # fmt: skip
GLOBALS = {"FREE": SLOTS, "SIZES": SLOTS, "START": 1, "HEAD": 1, "TAIL": 1, "TAKEN": 1}

_libc = ctypes.CDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler."""

    _fields_ = [
        ("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("context", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("malloc", "calloc", "realloc", "free")),
    ]  # fmt: skip


@cache
def _allocators() -> Library:
    """Linked once; it stays, as arrays may be freed after all else."""
    around = Surroundings(NUMBERS, FUNCTIONS, GLOBALS)
    library = Jit.link(module(TEXT, EXPORTS, around), (*EXPORTS, TABLE))
    table = ctypes.cast(library.address(TABLE), ctypes.POINTER(ctypes.c_int64))
    for i, name in enumerate(FUNCTIONS):
        table[i] = ctypes.cast(getattr(_libc, name), ctypes.c_void_p).value
    start = _libc.mmap(None, (2 * SLOTS + 1) * PAGE, NONE, NUMBERS["FLAGS"], -1, 0)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(library.address("begin"))(start)
    return library


_kept: list[object] = []  # arrays may be freed after all else


@contextmanager
def guarded(touching: str) -> Iterator[Callable[[], int]]:
    """NumPy's new arrays have their "first" or "last" byte next to a page without access.

    Gives how many there were.
    """
    library = _allocators()
    functions = map(library.address, ("take", "cleared", "again", "give"))
    with allocating({"last": 1, "first": 0}[touching], *functions):
        yield ctypes.CFUNCTYPE(ctypes.c_int64)(library.address("taken"))


@contextmanager
def allocating(context: int, *functions: int) -> Iterator[None]:
    """NumPy's new arrays have their data from a handler with these addresses: of malloc, calloc,
    realloc and free."""
    handler = _Handler(b"of a test", 1, context, *functions)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = (
        ctypes.py_object,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
    )
    name = ctypes.c_char_p(b"mem_handler")
    capsule = new(ctypes.addressof(handler), name, None)
    _kept.extend((handler, name, capsule))
    use = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(_numpy_function(SET_HANDLER))
    before = use(capsule)
    try:
        yield
    finally:
        use(before)


def _numpy_function(index: int) -> int:
    umath = importlib.import_module("numpy._core._multiarray_umath")
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    return ctypes.cast(get(umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))[index]


def in_a_child(work: Callable[[Callable[[str], None]], None], seconds: int = 120) -> None:
    """Run `work(say)` in a forked process; where it does not come through, fail with what it said.

    A fault of memory ends the child alone, and its traceback is part of the failure.
    """
    said = mmap.mmap(-1, PAGE)

    def say(text: str) -> None:
        said[:256] = text.encode()[:256].ljust(256)

    with tempfile.TemporaryFile() as log:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # JAX's, which another test has loaded
            child = os.fork()
        if not child:
            code = 1
            try:
                faulthandler.enable(log)
                faulthandler.dump_traceback_later(seconds, file=log, exit=True)
                work(say)
                code = 0
            except BaseException:
                log.write(traceback.format_exc().encode())
                log.flush()
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        log.seek(0)
        found = log.read().decode(errors="replace")
    if status:
        signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        how = signal.Signals(signal_number).name if signal_number else "an exception"
        raise AssertionError(f"{how} at {said[:256].decode().strip()}:\n{found}")
