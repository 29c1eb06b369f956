"""Bound calls: native code that runs a kernel on the arrays that it was bound to.

In:   a block of words: what to run, on which slots, what to give, and what to look at before.
Out:  the text of `bound`, a vectorcall function.
Invariant: an array whose memory or shape is no longer what it was bound with is never read: Python says what is wrong.
"""

from __future__ import annotations

BOUND = (
    "B_ENTRY",
    "B_SLOTS",
    "B_RESULT",
    "B_LONG",
    "B_BUSY",
    "B_THREADS",
    "B_CHECKS",
    "B_CHECKS_AT",
    "B_FAIL",
)
CHECK = ("C_OBJECT", "C_DATA", "C_RANK", "C_SIZES")

TEXT = """
def bound(self, args, flags, names):
    "Vectorcall without arguments: run on the arrays that were bound, and give the same objects every time."
    block = load(self + CHAIN)
    if block == 0 or (flags & 0x7FFFFFFFFFFFFFFF) != 0 or names != 0:
        return slow(self, args, flags, names)
    if load(block + B_BUSY) != 0:
        return slow(self, args, flags, names)
    n = load(block + B_CHECKS)
    check = load(block + B_CHECKS_AT)
    while n > 0:
        x = load(check + C_OBJECT)
        rank = load(check + C_RANK)
        if load(x + DATA) != load(check + C_DATA) or load32(x + NDIM) != rank:
            return slow(self, args, flags, names)
        sizes = load(x + DIMS)
        check += C_SIZES
        while rank > 0:
            if load(sizes) != load(check):
                return slow(self, args, flags, names)
            sizes += 8
            check += 8
            rank = rank - 1
        n = n - 1
    return bound_run(self, block)

def bound_run(self, block):
    C_Py_IncRef(self)
    slots = load(block + B_SLOTS)
    store(slots + 24, load(block + B_THREADS))
    if load(block + B_LONG):
        store(block + B_BUSY, 1)
        thread = C_PyEval_SaveThread()
        status = invoke(load(block + B_ENTRY), slots)
        C_PyEval_RestoreThread(thread)
        store(block + B_BUSY, 0)
    else:
        status = invoke(load(block + B_ENTRY), slots)
    result = 0
    if status == 0:
        result = load(block + B_RESULT)
        C_Py_IncRef(result)
    else:
        failed(load(block + B_FAIL), slots)
    C_Py_DecRef(self)
    return result
"""
