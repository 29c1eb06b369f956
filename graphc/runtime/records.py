"""Records: one form of call, described for native code.

In:   a kernel; the arguments of a call that Python has just served, with the structures that its
      graph expects of them; the structure of the result.
Out:  a `Record`, or None for a call that native code does not serve: other containers than tuples,
      lists, dicts, named tuples and dataclasses, other leaves than arrays of the expected dtype and
      numbers, large arrays that have to be copied.
Invariant: a record says everything: two calls that it describes differ in numbers, and in the
values of the sizes that have names in its kernel.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from graphc.codegen import entry
from graphc.codegen.arguments import ABSENT, FORMS, KINDS
from graphc.codegen.formulas import Formulas
from graphc.codegen.layout import WORD
from graphc.codegen.slots import HEADER_SLOTS
from graphc.dsl.tree import LEAF, Structure, flatten_like, unflatten
from graphc.ir.types import Dim, DType, Size, TensorType
from graphc.runtime.entries import generation
from graphc.runtime.kernel import LONG, VERY_LONG, Kernel, out_of_bounds
from graphc.runtime.manifest import Manifest
from graphc.runtime.seen import MISSING, Argument

REQUIRED = 0
_numbers = itertools.count()  # of records: later ones have larger numbers
MOST_SLOTS = 4096  # so that a call's frame stays small
_KIND = {name: i for i, name in enumerate(KINDS)}
_FORM = {name: i for i, name in enumerate(FORMS)}
_NUMBERS = {
    (float, "f64"): "FLOAT_64",
    (float, "f32"): "FLOAT_32",
    (int, "f64"): "INT_F64",
    (int, "f32"): "INT_F32",
    (int, "i64"): "INT_64",
    (int, "i32"): "INT_32",
    (bool, "bool"): "BOOLEAN",
}


class Record:
    """The description of a call, as words that native code reads."""

    def __init__(
        self,
        form: object,
        words: Sequence[int | _Place],
        alive: Sequence[object],
        frame: int,
        has_names: bool,
    ) -> None:
        self.form, self.generation, self.frame_bytes = form, generation(), frame
        self._alive = alive
        self._words = (ctypes.c_int64 * len(words))()
        self.address = ctypes.addressof(self._words)
        for i, w in enumerate(words):
            self._words[i] = w if isinstance(w, int) else self.address + WORD * w.index
        self.has_names, self.number = has_names, next(_numbers)


@dataclass(frozen=True)
class _Place:
    """A place in the same words."""

    index: int


class _Unserved(Exception):
    """Native code does not serve this form."""


def record_of(
    kernel: Kernel,
    arguments: Sequence[Argument],
    leaves: Sequence[tuple[TensorType, tuple[int, ...]]],
    captured: Sequence[np.ndarray],
    result: Structure,
    out: Any = None,
) -> Record | None:
    """The record of a call; `leaves` are the types of the graph's arguments and their shapes, and
    `out` is what the call gave for the result."""
    try:
        return _Writer(kernel, arguments, leaves, captured, result, out).record()
    except _Unserved:
        return None


class _Writer:
    def __init__(
        self,
        kernel: Kernel,
        arguments: Sequence[Argument],
        leaves: Sequence[tuple[TensorType, tuple[int, ...]]],
        captured: Sequence[np.ndarray],
        result: Structure,
        out: Any,
    ) -> None:
        self.kernel, self.arguments, self.leaves = kernel, list(arguments), leaves
        self.captured, self.result, self.out = captured, result, out
        self.positional = sum(a.positional for a in arguments)
        self.manifest = kernel.manifest
        self.words: list[int | _Place] = [0] * len(entry.RECORD)
        self.alive: list[object] = [kernel, captured]
        self.form: list[object] = []
        self.strided: list[int] = []  # nodes of leaves that may have to be copied
        outputs = self.outputs = [ty for _, ty, _ in self.manifest.outputs]
        wanted = [None] * len(outputs) if out is None else flatten_like(result, out, "out")
        self.is_whole = out is not None and all(x is not None for x in wanted)
        self.donors = {  # an input's memory takes an output; a number has no memory to give
            at: i
            for i, at in kernel.donors.items()
            if wanted[i] is None and outputs[i].rank > 0 and at < len(leaves)
        }
        self.into: dict[int, int] = {}  # outputs, and where the frame has the array to be filled
        self.filled: list[tuple[int, TensorType]] = []  # where it has the addresses of these
        self.read: list[tuple[int, TensorType]] = []  # and of other arrays
        if out is not None:
            self.arguments.append(Argument("out", out, result, positional=False))
        count = HEADER_SLOTS + len(leaves) + len(captured) + len(outputs)
        self.sized = [s for ty, _ in leaves for s in ty.shape if isinstance(s, Dim)]
        given = [*self.sized, *(s for ty in outputs if out is not None for s in ty.shape)]
        computed = [s for s in given if isinstance(s, Dim) and not _is_name(s)]
        names = [*self.manifest.sizes, *(s.text for s in self.sized if _is_name(s))]
        self.names = list(dict.fromkeys(names))
        if set(self.names) != {s.text for s in self.sized if _is_name(s)}:
            raise _Unserved
        # The frame: what is held, objects, slots, named sizes, given ones, scratch, results.
        self.held = 1 + sum(_held(a.structure) for a in self.arguments if a.structure)
        self.objects = WORD * self.held
        self.slots = self.objects + WORD * len(self.arguments)
        self.named = self.slots + WORD * count
        self.given = iter([self.named + WORD * (len(self.names) + i) for i in range(len(computed))])
        self.scratch = self.named + WORD * (len(self.names) + len(computed))
        self.made = self.scratch + WORD * count
        self.shape = self.made + WORD * max(len(outputs), 1)
        self.total = self.shape + WORD * max((ty.rank for ty in outputs), default=0)
        places = {name: self.named + WORD * i for i, name in enumerate(self.names)}
        self.formulas = Formulas(places, self.total + WORD)
        self.equal: list[int] = []
        if count + len(self.sized) > MOST_SLOTS:
            raise _Unserved

    def record(self) -> Record:
        pool, threads = self.kernel.pool()
        parameters = self._parameters()
        fixed = self._fixed()
        outputs = self._outputs()
        strided = self._add(*map(_Place, self.strided))
        regions = self._regions()
        pack = self._pack(self.result, iter(range(len(self.outputs))))
        given = [a for a in self.arguments if a.value is not MISSING]
        direct = len(given) == len(self.arguments) == self.positional
        positive = [self.formulas.word(s) for s, _ in self.manifest.choices]
        values: dict[str, int | _Place] = {
            "ENTRY": self.kernel.address,
            "ARENAS": self.kernel.arenas.address,
            "ARENA_SIZE": self.formulas.word(_arena_for(self.manifest, threads)),
            "ARENA_PLACE": self.total,
            "THREADS": pool,
            "WORK_SIZE": self.formulas.word(self.manifest.work),
            "LONG_FROM": LONG,
            "TOO_LONG_FROM": VERY_LONG,
            "PARAMETERS": len(self.arguments),
            "POSITIONAL": self.positional,
            "DIRECT": int(direct),
            "TABLE": _Place(parameters),
            "OBJECTS": self.objects,
            "SLOTS": self.slots,
            "UNSET": (self.scratch - self.named) // WORD,
            "UNSET_PLACE": self.named,
            "EQUAL": len(self.equal) // 2,
            "EQUAL_AT": _Place(self._add(*self.equal)),
            "POSITIVE": len(positive),
            "POSITIVE_AT": _Place(self._add(*positive)),
            "FIXED": len(self.captured),
            "FIXED_AT": _Place(fixed),
            "STRIDED": len(self.strided),
            "STRIDED_AT": _Place(strided),
            "TARGETS": len(self.filled),
            "REGIONS": len(regions) // 2,
            "REGIONS_AT": _Place(self._add(*regions)),
            "OUTPUTS": len(self.outputs),
            "OUTPUTS_AT": _Place(outputs),
            "SHAPE_PLACE": self.shape,
            "MADE": self.made,
            "PACK": _Place(pack),
            "WHOLE_PLACE": self.objects + WORD * (len(self.arguments) - 1) if self.is_whole else 0,
            "FAIL": self._object(_raise_out_of_bounds),
        }
        values["FORMULAS"] = len(self.formulas)
        values["FORMULAS_AT"] = _Place(self._add(*self.formulas.words()))
        self.words[: len(entry.RECORD)] = [values[name] for name in entry.RECORD]
        named = bool(self.sized)
        return Record(tuple(self.form), self.words, self.alive, self.formulas.end, named)

    # -- words -------------------------------------------------------------------------------------

    def _add(self, *words: int | _Place) -> int:
        self.words.extend(words)
        return len(self.words) - len(words)

    def _object(self, x: object) -> int:
        self.alive.append(x)
        return id(x)

    def _node(
        self, kind: str, cls: object, children: Iterable[int], keys: Iterable[object] = ()
    ) -> int:
        nodes: list[int | _Place] = [_Place(c) for c in children]
        at = self._add(*nodes)
        names = self._add(*[self._object(k) for k in keys])
        places = (_Place(at), _Place(names))
        return self._add(_KIND[kind], len(nodes), self._object(cls), *places)

    # -- arguments ---------------------------------------------------------------------------------

    def _parameters(self) -> int:
        words: list[int | _Place] = []
        numbers, outputs = itertools.count(), itertools.count()
        for i, a in enumerate(self.arguments):
            is_out = self.out is not None and i + 1 == len(self.arguments)
            leaf: Callable[[Any], int] = (
                (lambda x: self._target(next(outputs), x))
                if is_out
                else (lambda x: self._leaf(next(numbers), x))
            )
            self.form.append((a.name, a.keyword, id(a.default)))
            node: int | _Place = 0
            if a.structure is not None:
                node = _Place(self._tree(a.structure, a.value, leaf))
            default = REQUIRED
            if a.value is MISSING:
                default = ABSENT
            elif a.default is not MISSING:
                default = self._object(a.default)
            words.extend((node, self._object(a.name) if a.keyword else 0, default))
        return self._add(*words)

    def _tree(self, structure: Structure, x: Any, leaf: Callable[[Any], int]) -> int:
        """The node of an argument, in the order that the structure gives the leaves."""
        if structure.kind == "leaf":
            return leaf(x)
        if structure.kind == "static":
            self.form.append(id(x))
            if x is not structure.meta and x != structure.meta:
                raise _Unserved
            return self._node("STATIC", x, ())
        self.form.append((type(x), len(structure.children)))
        if structure.kind == "dict":
            return self._dict(structure, x, leaf)
        if structure.kind == "dataclass":
            keys = [f for f in structure.meta.__dataclass_fields__]
            parts = [getattr(x, k) for k in keys]
            kind = "DATACLASS"
        else:
            kind, keys, parts = _sequence_kind(structure, x), [], list(x)
        nodes = [self._tree(c, part, leaf) for c, part in zip(structure.children, parts)]
        return self._node(kind, type(x), nodes, keys)

    def _dict(self, structure: Structure, x: Any, leaf: Callable[[Any], int]) -> int:
        if type(x) is not dict:
            raise _Unserved
        children = dict(zip(structure.meta[1], structure.children))
        made = {k: self._tree(children[k], x[k], leaf) for k in structure.meta[1]}
        self.form.append(tuple(x))
        return self._node("DICT", dict, [made[k] for k in x], x)

    def _leaf(self, number: int, x: Any) -> int:
        ty, shape = self.leaves[number]
        form, places = self._form(ty.dtype, shape, x), self._places(number)
        if number in self.donors:
            form = self._fillable(x, ty)
            self.into[self.donors[number]] = places[1]
            self.filled.append((places[0], ty))
        else:
            self.read.append((places[0], ty))
        node = self._leaf_node(form, type(x), ty, places)
        if form == "COPIED":
            self.strided.append(node)
        return node

    def _leaf_node(self, form: str, cls: type, ty: TensorType, places: tuple[int, int]) -> int:
        self.form.append((form, cls, ty))
        slot, scratch = places
        what = (slot, self._object(cls), self._object(ty.dtype.numpy), ty.rank, scratch)
        sizes = [self._axis(s) for s in ty.shape]
        return self._add(_KIND["LEAF"], _FORM[form], *what, ty.dtype.itemsize, *sizes)

    def _places(self, number: int) -> tuple[int, int]:
        """Where the frame has an array's address, and what there is of it beside."""
        at = WORD * (HEADER_SLOTS + number)
        return self.slots + at, self.scratch + at

    def _fillable(self, x: Any, ty: TensorType) -> str:
        """The form of an array that native code may fill."""
        if type(x) is not np.ndarray or x.dtype is not ty.dtype.numpy:
            raise _Unserved
        if not (x.flags.c_contiguous and x.flags.aligned and x.flags.writeable):
            raise _Unserved
        return "TARGET"

    def _target(self, number: int, x: Any) -> int:
        """The node of an array for a result; None stands for a new one."""
        if x is None:
            self.form.append(None)
            return self._node("STATIC", None, ())
        ty, places = self.outputs[number], self._output(number)
        form = self._fillable(x, ty)
        self.into[number] = places[1]
        self.filled.append((places[0], ty))
        return self._leaf_node(form, np.ndarray, ty, places)

    def _output(self, number: int) -> tuple[int, int]:
        return self._places(len(self.leaves) + len(self.captured) + number)

    def _regions(self) -> list[int]:
        """What is to be filled, and what is read: where the address is, and bytes, of each."""
        if not self.filled:
            return []
        if self.strided:
            raise _Unserved
        arrays = (*self.filled, *self.read)
        found = [w for at, ty in arrays for w in (at, self.formulas.word(ty.bytes_expr()))]
        for i, a in enumerate(self.captured):
            found += [self._places(len(self.leaves) + i)[0], a.nbytes]
        return found

    def _axis(self, size: Size) -> int:
        """The word of an argument's size: one that has to be computed is compared later."""
        if isinstance(size, int) or _is_name(size):
            return self.formulas.word(size)
        given = -next(self.given)
        self.equal.extend((given, self.formulas.word(size)))
        return given

    def _form(self, dtype: DType, shape: tuple[int, ...], x: Any) -> str:
        """How a leaf is read."""
        if type(x) is np.ndarray:
            if x.dtype is not dtype.numpy or x.shape != shape:
                raise _Unserved
            return "IN_PLACE" if x.flags.c_contiguous and x.flags.aligned else "COPIED"
        if type(x) is dtype.numpy.type:
            return f"WORD_{8 * dtype.itemsize}"
        if (type(x), dtype.name) in _NUMBERS:
            return _NUMBERS[type(x), dtype.name]
        raise _Unserved

    # -- the kernel's other slots, and results -----------------------------------------------------

    def _fixed(self) -> int:
        first = self.slots + WORD * (HEADER_SLOTS + len(self.leaves))
        words: list[int] = []
        for i, a in enumerate(self.captured):
            words.extend((first + WORD * i, a.ctypes.data))
        return self._add(*words)

    def _outputs(self) -> int:
        words: list[int] = []
        for i, ty in enumerate(self.outputs):
            places = (*self._output(i), self.into.get(i, 0))
            dtype, bytes_ = self._object(ty.dtype.numpy), self.formulas.word(ty.bytes_expr())
            sizes = [self.formulas.word(s) for s in ty.shape]
            words.extend((*places, dtype, ty.dtype.itemsize, ty.rank, bytes_, *sizes))
        return self._add(*words)

    def _pack(self, structure: Structure, numbers: Iterator[int]) -> int:
        """The node of a result."""
        if structure.kind == "leaf":
            return self._add(_KIND["LEAF"], next(numbers))
        if structure.kind == "static":
            return self._node("STATIC", structure.meta, ())
        if structure.kind in ("tuple", "list"):
            nodes = [self._pack(c, numbers) for c in structure.children]
            return self._node(structure.kind.upper(), None, nodes)
        if structure.kind == "dict" and structure.meta[0] is dict:
            nodes = [self._pack(c, numbers) for c in structure.children]
            keys = structure.meta[1]
            return self._node("DICT", dict.fromkeys(keys), nodes, keys)
        nodes = [self._pack(LEAF, numbers) for _ in range(structure.leaf_count)]
        return self._node("BUILD", partial(unflatten, structure), nodes)


def _arena_for(manifest: Manifest, threads: int) -> Size:
    """The bytes of temporaries, depending on the named sizes."""
    if threads == 1:
        return manifest.arena
    from graphc.lower.plan import arena_for

    return arena_for(manifest, threads)


def _is_name(size: Dim) -> bool:
    return size.text.isidentifier()


def _held(structure: Structure) -> int:
    """How many objects of containers a call holds on to: all below the argument itself."""
    return sum(1 + _held(c) for c in structure.children)


def _sequence_kind(structure: Structure, x: Any) -> str:
    if type(x) is list:
        return "LIST"
    if type(x) is tuple or (structure.kind == "named" and type(x) is structure.meta):
        return "NAMED" if structure.kind == "named" else "TUPLE"
    raise _Unserved


def _raise_out_of_bounds(index: int, size: int) -> None:
    raise out_of_bounds(index, size)
