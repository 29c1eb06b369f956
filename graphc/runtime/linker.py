"""Objects of machine code -> one image that can lie anywhere in memory; an image -> code that runs.

In:   relocatable ELF objects for x86-64, as LLVM makes them; names to export. Or an image.
Out:  an image, as bytes to load or to keep; `Loaded`: an image in memory, while this object lives.
Invariant: an image needs nothing but its own address, which is added to some of its words when it
is loaded. No memory is writable and executable at once. `Unlinkable` where an object has something
that is not known here, or bytes are no image: LLVM's linker knows more, and takes longer.

An image in memory is code, then variables, then constants, each from the start of a page. As bytes:

    8 bytes       the form's name and version
    4, 4, 4       where variables start, where constants do, and where they end
    4, 4          bytes of the names that follow, and how many words get the address added
    ...           the exports: a line for each, with its name and where it is
    4 each        where these words are
    ...           the memory

>>> from graphc.runtime.jit import object_image
>>> text = "define double @half(double %x) { %y = fmul double %x, 5.0e-1\\n ret double %y }"
>>> loaded = Loaded(link([object_image(text)], ["half"]))
>>> ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(loaded["half"])(3.0)
1.5
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

FORM = b"graphc\x00\x11"
_HEAD = struct.Struct("<8s5I")
_WORD = struct.Struct("<Q")
_PAGE = 4096
_LARGEST = 1 << 26  # bytes of memory: any two places are within reach of each other

# Objects: see the System V ABI, and its supplement for AMD64.
_FILE = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")
_SYMBOLS, _RELOCATIONS, _ZEROS, _UNWINDING = 2, 4, 8, 0x70000001  # types of sections
_KEPT = {1, _ZEROS}  # types of those that lie in memory
_WRITE, _ALLOC, _EXEC = 1, 2, 4
_KNOWN = _WRITE | _ALLOC | _EXEC | 0x30  # flags; the last two let a linker merge constants
_LOCAL, _GLOBAL = 0, 1
_RESERVED = 0xFF00  # from here on, numbers are no section's
_RELATIVE = {2, 4}  # PC32, PLT32: the distance to a symbol
_INDIRECT = {9, 41, 42}  # GOTPCREL, GOTPCRELX, REX_GOTPCRELX: to a word with its address
_MOV, _LEA = 0x8B, 0x8D


class Unlinkable(RuntimeError):
    """The message says what is not known here."""


# -- objects ---------------------------------------------------------------------------------------


def link(objects: Sequence[bytes], exports: Sequence[str]) -> bytes:
    """The image of objects, which define each name once."""
    try:
        return _image([_Object(raw) for raw in objects], exports)
    except (struct.error, LookupError, ValueError, TypeError) as error:
        raise Unlinkable(f"an object is damaged: {error!r}") from error


class _Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    item: int


_SECTION = struct.Struct("<IIQQQQIIQQ")


class _Object:
    """What one object has. Once it is placed, `at` says where its sections are."""

    def __init__(self, raw: bytes) -> None:
        magic, bits, order, kind, machine, _, _, _, start, *_, count, _ = _FILE.unpack_from(raw)
        if (magic, bits, order, kind, machine) != (b"\x7fELF", 2, 1, 1, 62):
            raise Unlinkable("an object is of another form, or for another processor")
        self.raw = raw
        table = raw[start : start + count * _SECTION.size]
        self.sections = list(map(_Section._make, _SECTION.iter_unpack(table)))
        self.at: dict[int, int] = {}

    def content(self, section: _Section) -> bytes:
        found = self.raw[section.offset : section.offset + section.size]
        if len(found) != section.size:
            raise Unlinkable("an object is not all there")
        return found

    def kept(self, flags: int) -> Iterator[tuple[int, _Section]]:
        """The sections that lie in memory of one kind, by number."""
        for number, s in enumerate(self.sections):
            if s.flags & _ALLOC and s.type != _UNWINDING:  # nothing is thrown through this code
                if s.type not in _KEPT or s.flags & ~_KNOWN:
                    raise Unlinkable(f"a section of type {s.type} with flags {s.flags:#x}")
                if s.flags & (_WRITE | _EXEC) == flags:
                    yield number, s

    def symbols(self) -> Iterator[tuple[str, bool, int | None]]:
        """Names, whether other objects see them, and where they are; None: in another object."""
        (table,) = (s for s in self.sections if s.type == _SYMBOLS)
        names = self.content(self.sections[table.link])
        for name, info, _, section, value, _ in _SYMBOL.iter_unpack(self.content(table)):
            text = str(names[name : names.index(b"\0", name)], "utf-8")
            if info >> 4 not in (_LOCAL, _GLOBAL):
                raise Unlinkable(f"{text} may be defined twice")
            inside = 0 < section < _RESERVED and section in self.at
            yield text, info >> 4 == _GLOBAL, self.at[section] + value if inside else None


def _image(objects: Sequence[_Object], exports: Sequence[str]) -> bytes:
    memory = bytearray()
    starts = []
    for flags in (_EXEC, _WRITE, 0):
        memory.extend(bytes(-len(memory) % _PAGE))
        starts.append(len(memory))
        for o in objects:
            _place(o, flags, memory)
    symbols = [list(o.symbols()) for o in objects]
    shared: dict[str, int] = {}
    for name, is_global, place in (s for of_one in symbols for s in of_one):
        if is_global and place is not None and shared.setdefault(name, place) != place:
            raise Unlinkable(f"{name} is defined twice")
    words: dict[int, int] = {}  # with addresses: of what -> where
    for o, own in zip(objects, symbols):
        places = [shared.get(name) if place is None else place for name, _, place in own]
        _relocate(o, places, memory, words)
    exported = {name: shared[name] for name in exports}
    return packed(memory, exported, starts[1], starts[2], tuple(words.values()))


def packed(
    memory: bytes | bytearray,
    exports: Mapping[str, int],
    variables: int,
    constants: int,
    words: Sequence[int] = (),
) -> bytes:
    """An image of this memory, with variables and constants from there on."""
    lines = "".join([f"{name} {place}\n" for name, place in exports.items()]).encode()
    head = _HEAD.pack(FORM, variables, constants, len(memory), len(lines), len(words))
    return b"".join((head, lines, struct.pack(f"<{len(words)}I", *words), memory))


def _place(o: _Object, flags: int, memory: bytearray) -> None:
    """Put an object's sections of one kind behind what is there."""
    for number, s in o.kept(flags):
        if s.align > _PAGE or len(memory) + s.size > _LARGEST:
            raise Unlinkable(f"a section of {s.size} bytes, aligned to {s.align}")
        memory.extend(bytes(-len(memory) % (s.align or 1)))
        o.at[number] = len(memory)
        memory.extend(bytes(s.size) if s.type == _ZEROS else o.content(s))


def _relocate(
    o: _Object, places: Sequence[int | None], memory: bytearray, words: dict[int, int]
) -> None:
    """Write into one object's sections where other things are."""
    for s in o.sections:
        if s.type != _RELOCATIONS or s.info not in o.at:
            continue
        start, end = o.at[s.info], o.at[s.info] + o.sections[s.info].size
        for offset, kind, symbol, addend in _RELOCATION.iter_unpack(o.content(s)):
            to, at = places[symbol], start + offset
            if to is None or at + 4 > end:
                raise Unlinkable("an object needs something from elsewhere")
            if kind in _INDIRECT:
                if memory[at - 2] == _MOV and kind != 9 and addend == -4:
                    memory[at - 2] = _LEA  # the address itself, instead of a word that has it
                else:
                    to = _word(to, memory, words)
            elif kind not in _RELATIVE:
                raise Unlinkable(f"a relocation of type {kind}")
            struct.pack_into("<i", memory, at, to + addend - at)


def _word(of: int, memory: bytearray, words: dict[int, int]) -> int:
    """The word that will have the address of a place: one more constant."""
    if of not in words:
        memory.extend(bytes(-len(memory) % _WORD.size))
        words[of] = len(memory)
        memory.extend(_WORD.pack(of))
    return words[of]


# -- images ----------------------------------------------------------------------------------------


class Loaded:
    """An image in memory: the addresses of its exports."""

    def __init__(self, image: bytes) -> None:
        try:
            self._load(image)
        except (struct.error, LookupError, ValueError, OSError) as error:
            raise Unlinkable(f"no image: {error}") from error

    def _load(self, image: bytes) -> None:
        form, variables, constants, end, names, words = _HEAD.unpack_from(image)
        at = _HEAD.size + names
        start = at + 4 * words
        if form != FORM or len(image) != start + end or not variables <= constants <= end:
            raise ValueError("it is of another form")
        if not end or mmap.PAGESIZE != _PAGE:
            raise ValueError("its pages are of another size")
        memory = mmap.mmap(-1, end, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory[:] = image[start:]
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for place in struct.unpack_from(f"<{words}I", image, at):
            _WORD.pack_into(memory, place, base + _WORD.unpack_from(memory, place)[0])
        _protect(base, variables, mmap.PROT_READ | mmap.PROT_EXEC)
        _protect(base + constants, end - constants, mmap.PROT_READ)
        self._memory = memory
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # until `__del__`
        lines = str(image[_HEAD.size : at], "utf-8").splitlines()
        self._places = {n: base + int(where) for n, where in (line.split(" ") for line in lines)}

    def __getitem__(self, name: str) -> int:
        return self._places[name]

    def __del__(self, is_ending: Any = sys.is_finalizing) -> None:
        """Memory is given back, but not at the end of the process: other threads may run there, and
        objects that die later may need it.
        """
        if "_memory" in self.__dict__ and not is_ending():
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(self._memory))


def is_image(raw: bytes) -> bool:
    return raw.startswith(FORM)


@cache
def _mprotect() -> Callable[[int, int, int], int]:
    function = ctypes.pythonapi["mprotect"]  # one of our own, unlike `.mprotect`
    function.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return function


def _protect(address: int, size: int, protection: int) -> None:
    if size and _mprotect()(address, size, protection):
        raise OSError("memory cannot be protected")
