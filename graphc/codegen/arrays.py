"""New small arrays, put together here as NumPy does it: most of a small call is making its results.

In:   a dtype, sizes; the handler that NumPy allocates data by at the moment (NEP 49).
Out:  text for a module: `handler_now`, `allocator_of` and `small_array`.
Invariant: what is made cannot be told from what `PyArray_NewFromDescr` makes, and all its parts go back where NumPy's
`array_dealloc` puts them: the object to Python, sizes and strides by PyMem_RawFree (the headers' `PyDimMem_FREE`), the data
to the handler. Where runtime/objects.py has not seen that this holds, `NUMPY_LAYOUT` is 0, and NumPy makes the arrays.
"""

from __future__ import annotations

from graphc.codegen.layout import ARRAY_REST, CONTIGUOUS_ALIGNED, FORTRAN, OWN_DATA, WRITEABLE

# Bytes from the start of what the handler's capsule points to: 127 characters of a name, a version, an allocator.
HANDLER = {"HANDLER_CONTEXT": 128, "HANDLER_MALLOC": 136}
HANDLER_NAME = b"mem_handler"
TRACE_DOMAIN = 389047  # NumPy's data as tracemalloc knows it

FUNCTIONS = {
    "PyArray_NewFromDescr": "i64", "PyDataMem_GetHandler": "i64", "PyCapsule_GetPointer": "i64", "_PyObject_New": "i64",
    "PyMem_RawMalloc": "i64", "PyTraceMalloc_Track": "i32", "PyErr_NoMemory": "i64", "Py_IncRef": "void",
    "Py_DecRef": "void", "PY_ndarray": "object", "NUMPY_LAYOUT": "number", "HANDLER_NAME": "number",
}  # fmt: skip
CONSTANTS = {
    **ARRAY_REST, **HANDLER, "TRACE_DOMAIN": TRACE_DOMAIN, "FORTRAN": FORTRAN,
    "NEW_FLAGS": CONTIGUOUS_ALIGNED | FORTRAN | WRITEABLE | OWN_DATA,
}  # fmt: skip

TEXT = """
def handler_now():
    "A reference to the handler that new data comes from; 0 where NumPy has to make arrays itself."
    if NUMPY_LAYOUT == 0:
        return 0
    return C_PyDataMem_GetHandler()

def allocator_of(handler):
    "What allocates by a handler; 0 where there is none."
    if handler == 0:
        return 0
    return C_PyCapsule_GetPointer(handler, HANDLER_NAME)

def small_array(dtype, item, rank, sizes, bytes, handler, allocator):
    "A new array of rank 1 or more, whose elements take so many bytes; 0 with an exception set where there is no memory."
    C_Py_IncRef(dtype)
    if allocator == 0 or bytes == 0:
        return C_PyArray_NewFromDescr(PY_ndarray, dtype, rank, sizes, 0, 0, 0, 0)
    array = C__PyObject_New(PY_ndarray)
    if array == 0:
        C_Py_DecRef(dtype)
        return 0
    axes = C_PyMem_RawMalloc(16 * rank)
    store(array + DATA, 0)
    store(array + NDIM, rank)
    store(array + DIMS, axes)
    store(array + STRIDES, axes + 8 * rank)
    store(array + BASE, 0)
    store(array + DESCR, dtype)
    store(array + WEAK_REFERENCES, 0)
    store(array + EXPORTS, 0)
    store(array + HANDLER, 0)
    flags = NEW_FLAGS
    if rank > 1:
        flags = flags - FORTRAN * (extended(sizes, rank) > 1)
    store(array + FLAGS, flags)
    if axes == 0:
        store(array + NDIM, 0)
        return no_memory(array)
    step = item
    j = 8 * rank - 8
    while j >= 0:
        size = load(sizes + j)
        store(axes + j, size)
        store(axes + 8 * rank + j, step)
        step = step * size
        j = j - 8
    data = ask(load(allocator + HANDLER_MALLOC), load(allocator + HANDLER_CONTEXT), bytes)
    if data == 0:
        return no_memory(array)
    C_Py_IncRef(handler)
    store(array + DATA, data)
    store(array + HANDLER, handler)
    if C_PyTraceMalloc_Track(TRACE_DOMAIN, data, bytes) == -1:
        return no_memory(array)
    return array

def extended(sizes, rank):
    "How many axes have not one element?"
    n = 0
    while rank > 0:
        n += load(sizes) != 1
        sizes += 8
        rank = rank - 1
    return n

def no_memory(array):
    C_Py_DecRef(array)
    return C_PyErr_NoMemory()
"""
