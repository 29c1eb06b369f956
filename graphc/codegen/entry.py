"""The call boundary: native code that stands between Python objects and kernels.

In:   nothing; one module serves a whole process.
Out:  the text of a module with `call` and `bound`, which are vectorcall functions.
Invariant: every function but a kernel runs with the GIL held. A call that a record does not describe to the letter goes to
Python with nothing changed.

A callable object has a chain of *records*. Each describes one form of call exactly: which parameters are given, the
containers around the arrays, and of each leaf its type, dtype, rank and sizes, numbers or names; and then all that such a
call needs: how many bytes, which outputs, how the result is put together. What depends on named sizes is computed from
their values at the call (codegen/formulas.py). So serving a call is comparing and copying. Python code looks at
calls that no record fits: it converts, specialises or raises, and adds a record for the next one.

Words of a callable after its header: the vectorcall function, the chain, the Python function for all else, and the count
of calls that went there. A chain is one object, so that a thread sees all of it or none: the object itself, which keeps its
records, the bytes of a frame, the count of records and their addresses.
"""

from __future__ import annotations

from graphc.codegen import arguments, arrays, bound, formulas
from graphc.codegen.arguments import ABSENT, FORMS, KINDS, LEAF, NODE, PARAMETER
from graphc.codegen.bound import BOUND, CHECK
from graphc.codegen.layout import (
    ARRAY,
    CONTIGUOUS_ALIGNED,
    HEADER,
    SCALAR_VALUE,
    WORD,
    WRITEABLE,
    words,
)
from graphc.codegen.memory import ARENA_ENTRIES, ARENA_KEPT, LARGE
from graphc.codegen.native import Surroundings, module

SELF = {n: HEADER + 8 + 8 * i for i, n in enumerate(("CHAIN", "SLOW", "SLOW_CALLS"))}
SELF_BYTES = HEADER + 32
CHAIN = ("CHAIN_OWNER", "CHAIN_FRAME", "CHAIN_COUNT", "CHAIN_RECORDS")

# A record's words. What ends in _SIZE is a word as in formulas.py; _AT is where a table is, _PLACE what is in the frame.
RECORD = (
    "ENTRY", "ARENAS", "ARENA_SIZE", "ARENA_PLACE", "THREADS", "WORK_SIZE", "LONG_FROM", "TOO_LONG_FROM",
    "PARAMETERS", "POSITIONAL", "DIRECT", "TABLE", "OBJECTS", "SLOTS", "UNSET", "UNSET_PLACE", "FORMULAS",
    "FORMULAS_AT", "EQUAL", "EQUAL_AT", "POSITIVE", "POSITIVE_AT", "FIXED", "FIXED_AT", "STRIDED", "STRIDED_AT",
    "TARGETS", "REGIONS", "REGIONS_AT", "OUTPUTS", "OUTPUTS_AT", "SHAPE_PLACE", "MADE", "PACK", "WHOLE_PLACE", "FAIL",
)  # fmt: skip
OUTPUT = ("O_SLOT", "O_SCRATCH", "O_GIVEN", "O_DTYPE", "O_ITEM", "O_RANK", "O_BYTES", "O_SIZES")

FUNCTIONS = {
    **arrays.FUNCTIONS, "Py_IncRef": "void", "Py_DecRef": "void", "PyTuple_New": "i64", "PyTuple_Size": "i64", "PyTuple_GetItem": "i64",
    "PyList_New": "i64", "PyList_Size": "i64", "PyList_GetItem": "i64", "PyList_SetItem": "i32",
    "PyDict_Copy": "i64", "PyDict_Size": "i64", "PyDict_Next": "i32", "PyDict_SetItem": "i32", "PyErr_Occurred": "i64",
    "PyErr_Clear": "void", "PyErr_NoMemory": "i64", "PyFloat_AsDouble": "double", "PyLong_AsDouble": "double",
    "PyLong_AsLongLong": "i64", "PyLong_FromLongLong": "i64", "PyObject_GetAttr": "i64", "PyObject_Vectorcall": "i64", "PyObject_VectorcallDict": "i64",
    "PyEval_SaveThread": "i64", "PyEval_RestoreThread": "void", "PyUnicode_Compare": "i32", "PyArray_Scalar": "i64",
    "PY_ndarray": "object", "PY_str": "object", "PY_True": "object", "PY_float64": "object", "PY_dtype_f64": "object", "_PyObject_New": "i64", "TUPLE_ITEMS": "number", "new_array": "i64", "arena_take": "i64", "arena_give": "i64",
}  # fmt: skip
EXPORTS = ("call", "bound")

CALL_TEXT = """
def call(self, args, flags, names):
    "Vectorcall: the first record that fits serves the call."
    chain = load(self + CHAIN)
    if chain == 0:
        return slow(self, args, flags, names)
    count = flags & 0x7FFFFFFFFFFFFFFF
    frame = stack(load(chain + CHAIN_FRAME))
    owner = load(chain + CHAIN_OWNER)
    C_Py_IncRef(owner)
    place = chain + CHAIN_RECORDS
    end = place + 8 * load(chain + CHAIN_COUNT)
    while place < end:
        record = load(place)
        if matches(record, args, count, names, frame):
            result = served(record, frame)
            C_Py_DecRef(owner)
            return result
        place += 8
    C_Py_DecRef(owner)
    return slow(self, args, flags, names)

def slow(self, args, flags, names):
    "The Python function, with the callable itself as its first argument."
    store(self + SLOW_CALLS, load(self + SLOW_CALLS) + 1)
    count = flags & 0x7FFFFFFFFFFFFFFF
    total = count
    if names != 0:
        total = count + C_PyTuple_Size(names)
    moved = stack(8 * total + 8)
    store(moved, self)
    i = 0
    while i < total:
        store(moved + 8 + 8 * i, load(args + 8 * i))
        i += 1
    return C_PyObject_Vectorcall(load(self + SLOW), moved, count + 1, names)

def served(record, frame):
    "Run the kernel on what the frame holds."
    result = 0
    bytes = load(frame + load(record + ARENA_PLACE))
    if bytes == 0:
        result = run(record, frame, 0)
    else:
        arena = arena_of(load(record + ARENAS), bytes)
        if arena == 0:
            C_PyErr_NoMemory()
        else:
            result = run(record, frame, arena)
            arena_back(load(record + ARENAS), arena)
    let_go(frame)
    return result

def arena_of(arenas, bytes):
    "The arena that was given back last, where it is large enough; else as `arena_take` finds one."
    n = load(arenas)
    if n > 0 and bytes <= ARENA_KEPT:
        arena = load(arenas + 8 * n)
        if load(arena - 16) >= bytes:
            store(arenas, n - 1)
            return arena
    return C_arena_take(arenas, bytes)

def arena_back(arenas, arena):
    n = load(arenas)
    if n == ARENA_ENTRIES or load(arena - 16) > ARENA_KEPT:
        return C_arena_give(arenas, arena)
    store(arenas + 8 + 8 * n, arena)
    store(arenas, n + 1)

def run(record, frame, arena):
    slots = frame + load(record + SLOTS)
    store(slots, 0)
    store(slots + 8, 0)
    store(slots + 16, arena)
    store(slots + 24, load(record + THREADS))
    place_fixed(record, frame)
    copy_strided(record, frame, arena)
    made = frame + load(record + MADE)
    n = load(record + OUTPUTS)
    if outputs(record, frame, made, n) == 0:
        drop(made, n)
        return 0
    if value(frame, load(record + WORK_SIZE)) >= load(record + LONG_FROM):
        thread = C_PyEval_SaveThread()
        status = invoke(load(record + ENTRY), slots)
        C_PyEval_RestoreThread(thread)
    else:
        status = invoke(load(record + ENTRY), slots)
    result = 0
    if status != 0:
        failed(load(record + FAIL), slots)
    else:
        if scalars(record, frame, made, n):
            result = finished(record, frame, made)
    drop(made, n)
    return result

def finished(record, frame, made):
    "What the caller gave for all results, if it did, or a tree of them."
    place = load(record + WHOLE_PLACE)
    if place == 0:
        return packed(load(record + PACK), made)
    C_Py_IncRef(load(frame + place))
    return load(frame + place)

def outputs(record, frame, made, n):
    "New arrays, or those that the caller gave; the place of a number is a word of the frame."
    handler = handler_now()
    done = outputs_by(handler, record, frame, made, n)
    if handler != 0:
        C_Py_DecRef(handler)
    return done

def outputs_by(handler, record, frame, made, n):
    allocator = allocator_of(handler)
    output = load(record + OUTPUTS_AT)
    i = 0
    while i < n:
        store(made + 8 * i, 0)
        i += 1
    i = 0
    while i < n:
        slot = frame + load(output + O_SLOT)
        rank = load(output + O_RANK)
        given = load(output + O_GIVEN)
        if given != 0:
            array = load(frame + given)
            C_Py_IncRef(array)
            store(made + 8 * i, array)
            store(slot, load(array + DATA))
        elif rank == 0:
            store(slot, frame + load(output + O_SCRATCH))
        else:
            shape = frame + load(record + SHAPE_PLACE)
            j = 0
            while j < 8 * rank:
                store(shape + j, value(frame, load(output + O_SIZES + j)))
                j += 8
            bytes = value(frame, load(output + O_BYTES))
            if bytes >= LARGE:
                array = C_new_array(load(output + O_DTYPE), rank, shape, bytes)
            else:
                array = small_array(load(output + O_DTYPE), load(output + O_ITEM), rank, shape, bytes, handler, allocator)
            if array == 0:
                return 0
            store(made + 8 * i, array)
            store(slot, load(array + DATA))
        output += O_SIZES + 8 * rank
        i += 1
    return 1

def scalars(record, frame, made, n):
    output = load(record + OUTPUTS_AT)
    i = 0
    while i < n:
        rank = load(output + O_RANK)
        if rank == 0 and load(output + O_GIVEN) == 0:
            number = scalar(frame + load(output + O_SCRATCH), load(output + O_DTYPE))
            if number == 0:
                return 0
            store(made + 8 * i, number)
        output += O_SIZES + 8 * rank
        i += 1
    return 1

def scalar(place, dtype):
    "A NumPy scalar. Doubles, which are the rule, are made here."
    if dtype != PY_dtype_f64:
        return C_PyArray_Scalar(place, dtype, 0)
    number = C__PyObject_New(PY_float64)
    if number != 0:
        store(number + SCALAR_VALUE, load(place))
    return number

def drop(made, n):
    "What no result has taken over."
    while n > 0:
        n = n - 1
        if load(made + 8 * n) != 0:
            C_Py_DecRef(load(made + 8 * n))

def packed(node, made):
    "The result: outputs move from `made` into their containers."
    if load(node) == LEAF:
        return moved_out(node, made)
    return packed_tree(node, made)

def moved_out(node, made):
    place = made + 8 * load(node + COUNT)
    x = load(place)
    store(place, 0)
    return x

def packed_tree(node, made):
    kind = load(node)
    if kind == TUPLE:
        return packed_tuple(node, made)
    if kind == DICT:
        return packed_dict(node, made)
    if kind == LIST:
        return packed_list(node, made)
    if kind == BUILD:
        return built(node, made)
    C_Py_IncRef(load(node + CLASS))
    return load(node + CLASS)

def packed_tuple(node, made):
    n = load(node + COUNT)
    whole = C_PyTuple_New(n)
    if whole == 0:
        return 0
    child = load(node + CHILDREN)
    item = whole + TUPLE_ITEMS
    end = child + 8 * n
    while child < end:
        node = load(child)
        if load(node) == LEAF:
            x = moved_out(node, made)
        else:
            x = packed_tree(node, made)
        if x == 0:
            C_Py_DecRef(whole)
            return 0
        store(item, x)
        item += 8
        child += 8
    return whole

def packed_list(node, made):
    n = load(node + COUNT)
    whole = C_PyList_New(n)
    if whole == 0:
        return 0
    children = load(node + CHILDREN)
    i = 0
    while i < n:
        x = packed(load(children + 8 * i), made)
        if x == 0:
            C_Py_DecRef(whole)
            return 0
        C_PyList_SetItem(whole, i, x)
        i += 1
    return whole

def built(node, made):
    "What a Python function makes of a tuple of the leaves."
    argument = stack(8)
    store(argument, packed_tuple(node, made))
    if load(argument) == 0:
        return 0
    result = C_PyObject_VectorcallDict(load(node + CLASS), argument, 1, 0)
    C_Py_DecRef(load(argument))
    return result

def packed_dict(node, made):
    "A copy of a dict with these keys, whose values are replaced: quicker than one that grows."
    whole = C_PyDict_Copy(load(node + CLASS))
    if whole == 0:
        return 0
    n = load(node + COUNT)
    keys = load(node + KEYS)
    children = load(node + CHILDREN)
    i = 0
    while i < 8 * n:
        node = load(children + i)
        if load(node) == LEAF:
            x = moved_out(node, made)
        else:
            x = packed_tree(node, made)
        if x == 0:
            C_Py_DecRef(whole)
            return 0
        status = C_PyDict_SetItem(whole, load(keys + i), x)
        C_Py_DecRef(x)
        if status < 0:
            C_Py_DecRef(whole)
            return 0
        i += 8
    return whole

def failed(raises, slots):
    "Raise the error of an index out of bounds."
    numbers = stack(16)
    store(numbers, C_PyLong_FromLongLong(load(slots)))
    if load(numbers) == 0:
        return 0
    store(numbers + 8, C_PyLong_FromLongLong(load(slots + 8)))
    if load(numbers + 8) != 0:
        result = C_PyObject_VectorcallDict(raises, numbers, 2, 0)
        if result != 0:
            C_Py_DecRef(result)
        C_Py_DecRef(load(numbers + 8))
    C_Py_DecRef(load(numbers))

def copy_strided(record, frame, arena):
    "Leaves that do not lie in one piece are copied into the arena."
    n = load(record + STRIDED)
    place = load(record + STRIDED_AT)
    while n > 0:
        node = load(place)
        slot = frame + load(node + SLOT)
        x = load(slot)
        copy = load(frame + load(node + SCRATCH))
        if copy < 0:
            store(slot, load(x + DATA))
        else:
            store(slot, arena + copy)
            copy_axis(arena + copy, load(x + DATA), load(node + RANK), load(x + DIMS), load(x + STRIDES), load(node + ITEM))
        place += 8
        n = n - 1

def copy_axis(to, data, rank, sizes, strides, item):
    "Copy in the order of C; gives the end of the copy."
    if rank == 0:
        if item == 8:
            store(to, load(data))
        if item == 4:
            store32(to, load32(data))
        if item == 1:
            store8(to, load8(data))
        return to + item
    n = load(sizes)
    step = load(strides)
    if rank == 1 and item == 8:
        while n > 0:
            store(to, load(data))
            to += 8
            data += step
            n = n - 1
        return to
    while n > 0:
        to = copy_axis(to, data, rank - 1, sizes + 8, strides + 8, item)
        data += step
        n = n - 1
    return to
"""
TEXT = "\n".join((formulas.TEXT, arguments.TEXT, arrays.TEXT, CALL_TEXT, bound.TEXT))


def text() -> str:
    """The module; its functions are in `EXPORTS`."""
    return module(TEXT, EXPORTS, Surroundings(constants(), FUNCTIONS))


def constants() -> dict[str, int]:
    """The names in the text that are numbers: offsets in bytes, and kinds."""
    kinds = {
        name: i for names in (KINDS, FORMS, formulas.OPERATIONS) for i, name in enumerate(names)
    }
    words_of = (CHAIN, RECORD, PARAMETER, NODE, OUTPUT, LEAF, BOUND, CHECK, formulas.INSTRUCTION)
    offsets = [item for names in words_of for item in words(names).items()]
    numbers = {
        "TYPE": WORD, "PARAMETER_BYTES": WORD * len(PARAMETER), "INSTRUCTION_BYTES": WORD * len(formulas.INSTRUCTION),
        "SCALAR_VALUE": SCALAR_VALUE, "ABSENT": ABSENT, "CONTIGUOUS_ALIGNED": CONTIGUOUS_ALIGNED,
        "WRITEABLE": WRITEABLE, "LARGE": LARGE,
        "ARENA_ENTRIES": ARENA_ENTRIES, "ARENA_KEPT": ARENA_KEPT,
    }  # fmt: skip
    found: dict[str, int] = {}
    for name, number in (*(SELF | ARRAY | arrays.CONSTANTS | kinds | numbers).items(), *offsets):
        if found.setdefault(name, number) != number:
            raise ValueError(f"{name} means two things")
    return found
