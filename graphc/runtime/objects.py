"""The data of arrays, read from the array objects in native code.

Asking NumPy for an array's address costs a microsecond in Python. `PyArrayObject` begins with the
object's header and then the data pointer, a layout that NumPy keeps; it is checked once, and where
it does not hold (another Python build), addresses are asked for one by one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np

DATA = 16  # bytes from the start of an array object to its data pointer

_TEXT = f"""
define i32 @gc_call(ptr %entry, ptr %slots, i64 %last) {{
start:
  br label %head
head:
  %i = phi i64 [ 2, %start ], [ %next, %body ]
  %more = icmp sle i64 %i, %last
  br i1 %more, label %body, label %run
body:
  %slot = getelementptr i64, ptr %slots, i64 %i
  %object = load ptr, ptr %slot
  %field = getelementptr i8, ptr %object, i64 {DATA}
  %data = load i64, ptr %field
  %arena = icmp eq i64 %i, 2
  %bump = add i64 %data, 63
  %aligned = and i64 %bump, -64
  %value = select i1 %arena, i64 %aligned, i64 %data
  store i64 %value, ptr %slot
  %next = add i64 %i, 1
  br label %head
run:
  %status = call i32 %entry(ptr %slots)
  ret i32 %status
}}
"""


def layout_holds() -> bool:
    """Does an array object have its data pointer where native code would read it?"""
    arrays = [np.arange(4.0), np.arange(12.0).reshape(3, 4)[1:, ::2], np.asarray(1.0)]
    return all(ctypes.c_void_p.from_address(id(a) + DATA).value == a.ctypes.data for a in arrays)


@cache
def call_through() -> Callable[[int, ctypes.Array, int], int] | None:
    """(entry, slots, last): slots 2 to `last` hold array objects; the entry gets their data.

    Slot 2 is the arena, rounded up to 64 bytes. None where the layout of arrays is another.
    """
    from graphc.runtime.jit import Jit

    if not layout_holds():
        return None
    library = Jit.link(_TEXT, ("gc_call",))
    pointer = ctypes.c_void_p
    prototype = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, ctypes.c_int64)
    function = prototype(library.address("gc_call"))
    function.library = library  # type: ignore[attr-defined]
    return function
