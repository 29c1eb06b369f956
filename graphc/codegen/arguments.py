"""The first half of a native call: is it of a record's form, and where do its leaves lie?

In:   a record, the arguments of a call, its frame.
Out:  1, with the addresses of all leaves in the kernel's slots, the values of named sizes, what depends on them, and a
      place in the arena for each leaf that has to be copied; or 0 for a call that is not of this form.
Invariant: nothing is changed. What the frame holds on to is in its first words: a count, and as many objects.

A parameter is a tree of nodes. The kinds of its inner nodes are containers, whose exact type is compared; a leaf is an array
or a number, in one of some forms. A size is a word as in formulas.py: one that has a name is unset (-1) until it is first met.
"""

from __future__ import annotations

PARAMETER = ("P_NODE", "P_NAME", "P_DEFAULT")
ABSENT = 1  # as a default: the call does not give this parameter, and its record says so

# What a node of a parameter's tree is, and its words after the kind.
KINDS = ("LEAF", "TUPLE", "LIST", "DICT", "NAMED", "DATACLASS", "STATIC", "BUILD")
NODE = ("KIND", "COUNT", "CLASS", "CHILDREN", "KEYS")
LEAF = ("KIND", "FORM", "SLOT", "CLASS_OF", "DTYPE", "RANK", "SCRATCH", "ITEM", "SIZES")
FORMS = (
    "TARGET", "IN_PLACE", "COPIED", "FLOAT_64", "FLOAT_32", "INT_F64", "INT_F32", "INT_64", "INT_32", "BOOLEAN",
    "WORD_64", "WORD_32", "WORD_8",
)  # fmt: skip

TEXT = """
def matches(record, args, count, names, frame):
    "Is the call of this record's form? Then the frame has its leaves in the kernel's slots."
    store(frame, 0)
    n = load(record + UNSET)
    place = frame + load(record + UNSET_PLACE)
    while n > 0:
        store(place, -1)
        place += 8
        n = n - 1
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
    if sized(record, frame) == 0:
        let_go(frame)
        return 0
    return 1

def sized(record, frame):
    "Compute what depends on named sizes. 0 for a call that Python has to look at."
    if evaluated(frame, load(record + FORMULAS_AT), load(record + FORMULAS)) == 0:
        return 0
    if value(frame, load(record + WORK_SIZE)) >= load(record + TOO_LONG_FROM):
        return 0
    n = load(record + EQUAL)
    place = load(record + EQUAL_AT)
    while n > 0:
        if value(frame, load(place)) != value(frame, load(place + 8)):
            return 0
        place += 16
        n = n - 1
    n = load(record + POSITIVE)
    place = load(record + POSITIVE_AT)
    while n > 0:
        if value(frame, load(place)) <= 0:
            return 0
        place += 8
        n = n - 1
    if load(record + TARGETS) != 0:
        if apart(record, frame) == 0:
            return 0
    return roomy(record, frame)

def apart(record, frame):
    "Does each array that the caller gives for a result lie beside all others? They come first among the regions."
    place_fixed(record, frame)
    n = load(record + TARGETS)
    target = load(record + REGIONS_AT)
    end = target + 16 * load(record + REGIONS)
    while n > 0:
        low = load(frame + load(target))
        high = low + value(frame, load(target + 8))
        target += 16
        other = target
        while other < end:
            start = load(frame + load(other))
            if start < high and low < start + value(frame, load(other + 8)):
                return 0
            other += 16
        n = n - 1
    return 1

def place_fixed(record, frame):
    "The addresses of arrays that belong to the function."
    fixed = load(record + FIXED_AT)
    end = fixed + 16 * load(record + FIXED)
    while fixed < end:
        store(frame + load(fixed), load(fixed + 8))
        fixed += 16

def roomy(record, frame):
    "Give each leaf that has to be copied a place in the arena, behind what the kernel needs of it."
    total = value(frame, load(record + ARENA_SIZE))
    n = load(record + STRIDED)
    place = load(record + STRIDED_AT)
    while n > 0:
        node = load(place)
        x = load(frame + load(node + SLOT))
        copy = frame + load(node + SCRATCH)
        store(copy, -1)
        if (load32(x + FLAGS) & CONTIGUOUS_ALIGNED) != CONTIGUOUS_ALIGNED:
            bytes = bytes_of(x, load(node + RANK), load(node + ITEM))
            if bytes >= LARGE:
                return 0
            total = (total + 63) & -64
            store(copy, total)
            total += bytes
        place += 8
        n = n - 1
    store(frame + load(record + ARENA_PLACE), total)
    return 1

def bytes_of(x, rank, bytes):
    "Of an array's elements; they are in memory, perhaps several times in the same place, or there are none."
    sizes = load(x + DIMS)
    while rank > 0:
        if load(sizes) >= LARGE and bytes > 0:
            return LARGE
        bytes = bytes * load(sizes)
        if bytes > LARGE:
            bytes = LARGE
        sizes += 8
        rank = rank - 1
    return bytes

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
        part = load(children + 8 * i)
        if load(part) == LEAF:
            fitting = leaf(part, child, frame)
        else:
            fitting = unpacked(part, child, frame)
        if fitting == 0:
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
        if fits(node + SIZES, load(x + DIMS), rank, frame) == 0:
            return 0
        if form == COPIED:
            store(slot, x)
            return 1
        store(slot, load(x + DATA))
        wanted = CONTIGUOUS_ALIGNED
        if form == TARGET:
            store(frame + load(node + SCRATCH), x)
            wanted = CONTIGUOUS_ALIGNED + WRITEABLE
        return (load32(x + FLAGS) & wanted) == wanted
    scratch = frame + load(node + SCRATCH)
    store(slot, scratch)
    return number(form, x, scratch)

def fits(word, sizes, rank, frame):
    "Sizes that are numbers are these numbers; one that has a name is as large wherever it occurs."
    while rank > 0:
        size = load(sizes)
        known = load(word)
        if known < 0:
            place = frame - known
            known = load(place)
            if known < 0:
                store(place, size)
                known = size
        if size != known:
            return 0
        word += 8
        sizes += 8
        rank = rank - 1
    return 1

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
"""
