"""The call boundary: native code that stands between Python objects and kernels.

In:   nothing; one module serves a whole process.
Out:  the text of a module with `call` and `bound`, which are vectorcall functions.
Invariant: every function but a kernel runs with the GIL held. A call that a record does not describe to the letter goes to
Python with nothing changed.

A callable object has a chain of *records*. Each describes one form of call exactly: which parameters are given, the
containers around the arrays, and of each leaf its type, dtype, rank and sizes; and then all that such a call needs: how many
bytes, which outputs, how the result is put together. So serving a call is comparing and copying. Python code looks at
calls that no record fits: it converts, specialises or raises, and adds a record for the next one.

Words of a callable after its header: the vectorcall function, the chain, the object that keeps the chain's records, the
Python function for all else, and the count of calls that went there.
"""

from __future__ import annotations

from graphc.codegen.layout import ARRAY, CONTIGUOUS_ALIGNED, HEADER, SCALAR_VALUE, WORD, words
from graphc.codegen.memory import ARENA_ENTRIES, ARENA_KEPT, LARGE
from graphc.codegen.native import Surroundings, module

SELF = {n: HEADER + 8 + 8 * i for i, n in enumerate(("CHAIN", "CHAIN_OWNER", "SLOW", "SLOW_CALLS"))}
SELF_BYTES = HEADER + 40

# A record's words, after the address of the next record.
RECORD = (
    "ENTRY", "ARENAS", "ARENA_BYTES", "THREADS", "LONG", "FRAME", "PARAMETERS", "POSITIONAL", "DIRECT",
    "TABLE", "OBJECTS", "SLOTS", "FIXED", "FIXED_AT", "STRIDED", "STRIDED_AT", "OUTPUTS", "OUTPUTS_AT", "MADE",
    "PACK", "FAIL",
)  # fmt: skip
PARAMETER = ("P_NODE", "P_NAME", "P_DEFAULT")
ABSENT = 1  # as a default: the call does not give this parameter, and its record says so

# What a node of a parameter's tree is, and its words after the kind.
KINDS = ("LEAF", "TUPLE", "LIST", "DICT", "NAMED", "DATACLASS", "STATIC", "BUILD")
NODE = ("KIND", "COUNT", "CLASS", "CHILDREN", "KEYS")
LEAF = ("KIND", "FORM", "SLOT", "CLASS_OF", "DTYPE", "RANK", "SCRATCH", "COPY_AT", "ITEM", "SIZES")
FORMS = (
    "IN_PLACE", "COPIED", "FLOAT_64", "FLOAT_32", "INT_F64", "INT_F32", "INT_64", "INT_32", "BOOLEAN",
    "WORD_64", "WORD_32", "WORD_8",
)  # fmt: skip
OUTPUT = ("O_SLOT", "O_SCRATCH", "O_DTYPE", "O_RANK", "O_BYTES", "O_SIZES")
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

FUNCTIONS = {
    "Py_IncRef": "void", "Py_DecRef": "void", "PyTuple_New": "i64", "PyTuple_Size": "i64", "PyTuple_GetItem": "i64",
    "PyTuple_SetItem": "i32", "PyList_New": "i64", "PyList_Size": "i64", "PyList_GetItem": "i64", "PyList_SetItem": "i32",
    "PyDict_Copy": "i64", "PyDict_Size": "i64", "PyDict_Next": "i32", "PyDict_SetItem": "i32", "PyErr_Occurred": "i64",
    "PyErr_Clear": "void", "PyErr_NoMemory": "i64", "PyFloat_AsDouble": "double", "PyLong_AsDouble": "double",
    "PyLong_AsLongLong": "i64", "PyLong_FromLongLong": "i64", "PyObject_GetAttr": "i64", "PyObject_Vectorcall": "i64",
    "PyEval_SaveThread": "i64", "PyEval_RestoreThread": "void", "PyUnicode_Compare": "i32", "PyArray_Scalar": "i64",
    "PyArray_NewFromDescr": "i64", "PY_ndarray": "object", "PY_str": "object", "PY_True": "object", "new_array": "i64", "arena_take": "i64", "arena_give": "i64",
}  # fmt: skip
EXPORTS = ("call", "bound")

CALL_TEXT = """
def call(self, args, flags, names):
    "Vectorcall: the first record that fits serves the call."
    record = load(self + CHAIN)
    if record == 0:
        return slow(self, args, flags, names)
    count = flags & 0x7FFFFFFFFFFFFFFF
    frame = stack(load(record + FRAME))
    owner = load(self + CHAIN_OWNER)
    C_Py_IncRef(owner)
    while record != 0:
        if matches(record, args, count, names, frame):
            result = served(record, frame)
            C_Py_DecRef(owner)
            return result
        record = load(record)
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

def matches(record, args, count, names, frame):
    "Is the call of this record's form? Then the frame has its leaves in the kernel's slots."
    store(frame, 0)
    n = load(record + PARAMETERS)
    objects = args
    if names != 0 or count != n or load(record + DIRECT) == 0:
        objects = frame + load(record + OBJECTS)
        if gathered(record, args, count, names, objects) == 0:
            return 0
    i = 0
    parameter = load(record + TABLE)
    while i < n:
        given = load(objects + 8 * i)
        if given != 0:
            if unpacked(load(parameter + P_NODE), given, frame) == 0:
                let_go(frame)
                return 0
        i += 1
        parameter += PARAMETER_BYTES
    return 1

def gathered(record, args, count, names, objects):
    "Positional and keyword arguments, in the order of the parameters; 0 in place of those that are not given."
    n = load(record + PARAMETERS)
    if count > load(record + POSITIONAL):
        return 0
    table = load(record + TABLE)
    i = 0
    while i < n:
        if i < count:
            store(objects + 8 * i, load(args + 8 * i))
        else:
            store(objects + 8 * i, 0)
        i += 1
    if names != 0:
        total = C_PyTuple_Size(names)
        j = 0
        while j < total:
            i = place_of(table, n, C_PyTuple_GetItem(names, j))
            if i < 0:
                return 0
            if load(objects + 8 * i) != 0:
                return 0
            store(objects + 8 * i, load(args + 8 * (count + j)))
            j += 1
    i = 0
    while i < n:
        default = load(table + PARAMETER_BYTES * i + P_DEFAULT)
        if load(objects + 8 * i) == 0:
            if default == 0:
                return 0
            if default != ABSENT:
                store(objects + 8 * i, default)
        else:
            if default == ABSENT:
                return 0
        i += 1
    return 1

def place_of(table, n, name):
    i = 0
    while i < n:
        if load(table + PARAMETER_BYTES * i + P_NAME) == name:
            return i
        i += 1
    i = 0
    while i < n:
        known = load(table + PARAMETER_BYTES * i + P_NAME)
        if known != 0:
            if C_PyUnicode_Compare(known, name) == 0:
                return i
        i += 1
    return -1

def hold(frame, x):
    "Keep an object of a container to the end of the call: the container may change meanwhile."
    C_Py_IncRef(x)
    held(frame, x)

def held(frame, x):
    n = load(frame) + 1
    store(frame + 8 * n, x)
    store(frame, n)

def let_go(frame):
    n = load(frame)
    store(frame, 0)
    while n > 0:
        C_Py_DecRef(load(frame + 8 * n))
        n = n - 1

def unpacked(node, x, frame):
    "Does x have the form of this node, and its leaves theirs?"
    kind = load(node)
    if kind == LEAF:
        return leaf(node, x, frame)
    if kind == STATIC:
        return x == load(node + CLASS)
    if load(x + TYPE) != load(node + CLASS):
        return 0
    n = load(node + COUNT)
    children = load(node + CHILDREN)
    i = 0
    if kind == DICT:
        return entries(node, x, frame)
    if kind == DATACLASS:
        keys = load(node + KEYS)
        while i < n:
            child = C_PyObject_GetAttr(x, load(keys + 8 * i))
            if child == 0:
                C_PyErr_Clear()
                return 0
            held(frame, child)
            if unpacked(load(children + 8 * i), child, frame) == 0:
                return 0
            i += 1
        return 1
    if kind == LIST:
        if C_PyList_Size(x) != n:
            return 0
    else:
        if C_PyTuple_Size(x) != n:
            return 0
    while i < n:
        child = 0
        if kind == LIST:
            if i < C_PyList_Size(x):
                child = C_PyList_GetItem(x, i)
        else:
            child = C_PyTuple_GetItem(x, i)
        if child == 0:
            return 0
        hold(frame, child)
        if unpacked(load(children + 8 * i), child, frame) == 0:
            return 0
        i += 1
    return 1

def entries(node, x, frame):
    "A dict with the keys of the node, in their order."
    n = load(node + COUNT)
    if C_PyDict_Size(x) != n:
        return 0
    keys = load(node + KEYS)
    children = load(node + CHILDREN)
    state = stack(24)
    store(state, 0)
    i = 0
    while i < n:
        if C_PyDict_Next(x, state, state + 8, state + 16) == 0:
            return 0
        key = load(state + 8)
        child = load(state + 16)
        hold(frame, child)
        known = load(keys + 8 * i)
        if key != known:
            if load(key + TYPE) != PY_str or load(known + TYPE) != PY_str:
                return 0
            if C_PyUnicode_Compare(key, known) != 0:
                return 0
        if unpacked(load(children + 8 * i), child, frame) == 0:
            return 0
        i += 1
    return 1

def leaf(node, x, frame):
    "Put the address of a leaf's number or data into its slot, if it is what the node says."
    if load(x + TYPE) != load(node + CLASS_OF):
        return 0
    form = load(node + FORM)
    slot = frame + load(node + SLOT)
    if form <= COPIED:
        rank = load(node + RANK)
        if load(x + DESCR) != load(node + DTYPE) or load32(x + NDIM) != rank:
            return 0
        sizes = load(x + DIMS)
        i = 0
        while i < rank:
            if load(sizes + 8 * i) != load(node + SIZES + 8 * i):
                return 0
            i += 1
        if form == COPIED:
            store(slot, x)
            return 1
        store(slot, load(x + DATA))
        return (load32(x + FLAGS) & CONTIGUOUS_ALIGNED) == CONTIGUOUS_ALIGNED
    scratch = frame + load(node + SCRATCH)
    store(slot, scratch)
    return number(form, x, scratch)

def number(form, x, scratch):
    if form == FLOAT_64:
        store(scratch, C_PyFloat_AsDouble(x))
        return 1
    if form == FLOAT_32:
        store_float(scratch, C_PyFloat_AsDouble(x))
        return 1
    if form == WORD_64:
        store(scratch, load(x + SCALAR_VALUE))
        return 1
    if form == WORD_32:
        store32(scratch, load32(x + SCALAR_VALUE))
        return 1
    if form == WORD_8:
        store8(scratch, load8(x + SCALAR_VALUE))
        return 1
    if form == BOOLEAN:
        store8(scratch, x == PY_True)
        return 1
    if form == INT_F64 or form == INT_F32:
        value = C_PyLong_AsDouble(x)
    else:
        value = C_PyLong_AsLongLong(x)
    if C_PyErr_Occurred() != 0:
        C_PyErr_Clear()
        return 0
    if form == INT_F32:
        store_float(scratch, value)
        return 1
    if form == INT_32:
        store32(scratch, value)
        return load32(scratch) == value
    store(scratch, value)
    return 1

def served(record, frame):
    "Run the kernel on what the frame holds."
    result = 0
    bytes = load(record + ARENA_BYTES)
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
    fixed = load(record + FIXED_AT)
    end = fixed + 16 * load(record + FIXED)
    while fixed < end:
        store(frame + load(fixed), load(fixed + 8))
        fixed += 16
    copy_strided(record, frame, arena)
    made = frame + load(record + MADE)
    n = load(record + OUTPUTS)
    if outputs(record, frame, made, n) == 0:
        drop(made, n)
        return 0
    if load(record + LONG):
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
            result = packed(load(record + PACK), made)
    drop(made, n)
    return result

def new(dtype, rank, sizes, bytes):
    if bytes >= LARGE:
        return C_new_array(dtype, rank, sizes, bytes)
    C_Py_IncRef(dtype)
    return C_PyArray_NewFromDescr(PY_ndarray, dtype, rank, sizes, 0, 0, 0, 0)

def outputs(record, frame, made, n):
    "New arrays; the place of a number is a word of the frame."
    output = load(record + OUTPUTS_AT)
    i = 0
    while i < n:
        store(made + 8 * i, 0)
        i += 1
    i = 0
    while i < n:
        slot = frame + load(output + O_SLOT)
        rank = load(output + O_RANK)
        if rank == 0:
            store(slot, frame + load(output + O_SCRATCH))
        else:
            array = new(load(output + O_DTYPE), rank, output + O_SIZES, load(output + O_BYTES))
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
        if rank == 0:
            number = C_PyArray_Scalar(frame + load(output + O_SCRATCH), load(output + O_DTYPE), 0)
            if number == 0:
                return 0
            store(made + 8 * i, number)
        output += O_SIZES + 8 * rank
        i += 1
    return 1

def drop(made, n):
    "What no result has taken over."
    while n > 0:
        n = n - 1
        if load(made + 8 * n) != 0:
            C_Py_DecRef(load(made + 8 * n))

def packed(node, made):
    "The result: outputs move from `made` into their containers."
    kind = load(node)
    n = load(node + COUNT)
    if kind == LEAF:
        x = load(made + 8 * n)
        store(made + 8 * n, 0)
        return x
    if kind == STATIC:
        x = load(node + CLASS)
        C_Py_IncRef(x)
        return x
    if kind == DICT:
        return packed_dict(node, made)
    if kind == LIST:
        whole = C_PyList_New(n)
    else:
        whole = C_PyTuple_New(n)
    if whole == 0:
        return 0
    children = load(node + CHILDREN)
    i = 0
    while i < n:
        x = packed(load(children + 8 * i), made)
        if x == 0:
            C_Py_DecRef(whole)
            return 0
        if kind == LIST:
            C_PyList_SetItem(whole, i, x)
        else:
            C_PyTuple_SetItem(whole, i, x)
        i += 1
    if kind != BUILD:
        return whole
    argument = stack(8)
    store(argument, whole)
    result = C_PyObject_Vectorcall(load(node + CLASS), argument, 1, 0)
    C_Py_DecRef(whole)
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
    while i < n:
        x = packed(load(children + 8 * i), made)
        if x == 0:
            C_Py_DecRef(whole)
            return 0
        status = C_PyDict_SetItem(whole, load(keys + 8 * i), x)
        C_Py_DecRef(x)
        if status < 0:
            C_Py_DecRef(whole)
            return 0
        i += 1
    return whole

def failed(raises, slots):
    "Raise the error of an index out of bounds."
    numbers = stack(16)
    store(numbers, C_PyLong_FromLongLong(load(slots)))
    if load(numbers) == 0:
        return 0
    store(numbers + 8, C_PyLong_FromLongLong(load(slots + 8)))
    if load(numbers + 8) != 0:
        result = C_PyObject_Vectorcall(raises, numbers, 2, 0)
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
        to = arena + load(node + COPY_AT)
        store(slot, to)
        copy_axis(to, load(x + DATA), load(node + RANK), load(x + DIMS), load(x + STRIDES), load(node + ITEM))
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

BOUND_TEXT = """
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


def text() -> str:
    """The module; its functions are in `EXPORTS`."""
    return module("\n".join((CALL_TEXT, BOUND_TEXT)), EXPORTS, Surroundings(constants(), FUNCTIONS))


def constants() -> dict[str, int]:
    """The names in the text that are numbers: offsets in bytes, and kinds."""
    offsets = SELF | ARRAY | words(RECORD, WORD) | words(PARAMETER) | words(NODE) | words(OUTPUT)
    offsets |= words(LEAF) | words(BOUND) | words(CHECK)
    numbers = {name: i for names in (KINDS, FORMS) for i, name in enumerate(names)}
    return offsets | numbers | {
        "TYPE": WORD, "PARAMETER_BYTES": WORD * len(PARAMETER), "SCALAR_VALUE": SCALAR_VALUE, "ABSENT": ABSENT,
        "CONTIGUOUS_ALIGNED": CONTIGUOUS_ALIGNED, "LARGE": LARGE, "ARENA_ENTRIES": ARENA_ENTRIES,
        "ARENA_KEPT": ARENA_KEPT,
    }  # fmt: skip
