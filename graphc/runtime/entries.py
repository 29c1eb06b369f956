"""Callables whose calls native code serves, and Python what is left.

In:   a class with a `__call__` in Python, which can serve any call.
Out:  with `Entry` as its base, instances that answer the calls described by their records in native
      code, see codegen/entry.py.
Invariant: a call gives the same with and without records.

An instance has a word for a vectorcall function, which is empty at first: Python then calls
`__call__` as it does for any class. The first record fills it.

>>> class Twice(Entry):
...     def __call__(self, x):
...         return 2 * x
>>> twice = Twice()
>>> twice(4), twice.slow_calls
(8, 0)
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.codegen import entry
from graphc.codegen.layout import HEADER
from graphc.runtime import threads
from graphc.runtime.living import Living
from graphc.runtime.objects import Native, layout_holds, native

if TYPE_CHECKING:
    from graphc.runtime.records import Record

MOST_RECORDS = 16  # forms of calls that an object serves in native code
_HAVE_VECTORCALL = 1 << 11  # of a type's flags
_FLAGS = 168  # bytes from the start of a type to its flags
_BASETYPE = 1 << 10
_MEMBER_SSIZE, _MEMBER_ADDRESS = 19, 18  # the kinds of a member: Py_T_PYSSIZET, Py_T_ULONGLONG
_READ_ONLY = 1
_TP_CALL, _TP_MEMBERS = 50, 72


class _Member(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("offset", ctypes.c_ssize_t),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


class _Slot(ctypes.Structure):
    _fields_ = [("slot", ctypes.c_int), ("function", ctypes.c_void_p)]


class _Spec(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(_Slot)),
    ]


def _native_base() -> type:
    """A type with the words that codegen/entry.py names; `object` where they cannot be used."""
    if not layout_holds() or not _flags_are_there(object):
        return object
    first = HEADER
    members = (_Member * 6)(
        _Member(b"__vectorcalloffset__", _MEMBER_SSIZE, first, _READ_ONLY, None),
        _Member(b"_vectorcall", _MEMBER_ADDRESS, first, 0, None),
        _Member(b"_chain", _MEMBER_ADDRESS, entry.SELF["CHAIN"], 0, None),
        _Member(b"_slow", _MEMBER_ADDRESS, entry.SELF["SLOW"], 0, None),
        _Member(b"_slow_calls", _MEMBER_ADDRESS, entry.SELF["SLOW_CALLS"], 0, None),
        _Member(None, 0, 0, 0, None),
    )
    call = ctypes.cast(ctypes.pythonapi.PyVectorcall_Call, ctypes.c_void_p)
    slots = (_Slot * 3)(
        _Slot(_TP_CALL, call),
        _Slot(_TP_MEMBERS, ctypes.cast(members, ctypes.c_void_p)),
        _Slot(0, None),
    )
    name = b"graphc.runtime.entries.NativeBase"
    spec = _Spec(name, entry.SELF_BYTES, 0, _BASETYPE | _HAVE_VECTORCALL, slots)
    make = ctypes.pythonapi.PyType_FromSpec
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p]
    made = make(ctypes.addressof(spec))
    _kept.extend((members, slots, spec))
    return made


_kept: list[object] = []  # what the type's description points to


def _flags_are_there(cls: type) -> bool:
    return ctypes.c_ulong.from_address(id(cls) + _FLAGS).value == cls.__flags__


def _allow_vectorcall(cls: type) -> None:
    """Let Python use the vectorcall function of instances that have one.

    A class with a `__call__` in Python does not inherit that, since Python cannot know that the two
    agree.
    """
    if _flags_are_there(cls):
        ctypes.c_ulong.from_address(id(cls) + _FLAGS).value |= _HAVE_VECTORCALL
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))


if TYPE_CHECKING:

    class _Base:
        _vectorcall: int
        _chain: int
        _slow: int
        _slow_calls: int

else:
    _Base = _native_base()


class Chain:
    """Records in the order in which native code tries them; it never changes.

    A call in flight keeps the chain that it began with.
    """

    def __init__(self, records: tuple[Record, ...]) -> None:
        self.records = records
        frame = max(r.frame_bytes for r in records)
        addresses = [r.address for r in records]
        words = [id(self), frame, len(records), *addresses]
        self._words = (ctypes.c_int64 * len(words))(*words)
        self.address = ctypes.addressof(self._words)


class Entry(_Base):
    """Base of callables. `__call__` in a subclass can serve every call; it may add records."""

    _chains: list[Chain] | None = None  # that `_chain` may point to: the last one, as a rule

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if _Base is not object:
            _allow_vectorcall(cls)

    @property
    def slow_calls(self) -> int:
        """How many calls Python had to serve since there are records."""
        return self._slow_calls if _Base is not object else 0

    @property
    def _records(self) -> tuple[Record, ...]:
        return self._chains[-1].records if self._chains else ()

    def _serve(self, record: Record | None) -> bool:
        """Serve calls like the one that this record describes in native code from now on.

        False where the record brings nothing new.
        """
        routines = native()
        if record is None or routines is None or _Base is object:
            return False
        with _lock:
            known = [r for r in self._records if r.generation == _generation]
            if any(r.form == record.form for r in known) or record.generation != _generation:
                return False
            newest = sorted((record, *known), key=lambda r: -r.number)[:MOST_RECORDS]
            # Code made for some sizes alone is quicker for these than code for any.
            made = sorted(newest, key=lambda r: r.has_names)
            chain = self._chain_of(tuple(made))
            self._start(routines, chain.address, "call")
        _entries.add(self)
        return True

    @property
    def is_native(self) -> bool:
        """Does native code look at calls first?"""
        return _Base is not object and self._vectorcall != 0

    def _start(self, routines: Native | None, chain: int, routine: str) -> None:
        """Let a native routine look at calls first."""
        if routines is not None and _Base is not object:
            self._chain = chain
            self._slow = id(_function(type(self)))
            self._vectorcall = routines.address(routine)

    def _chain_of(self, records: tuple[Record, ...]) -> Chain:
        """The chain takes effect by the one word `_chain`, and the one before is kept until then.

        So it is at any moment that Ctrl-C may choose.
        """
        chain = Chain(records)
        chains: list[Chain] = self.__dict__.setdefault("_chains", [])
        chains.append(chain)
        self._chain = chain.address
        del chains[:-1]
        return chain

    def _forget_records(self) -> None:
        with _lock:
            self._chain = 0
            if self._chains:
                self._chains.clear()


def _function(cls: type) -> Callable[..., Any]:
    """The class's `__call__` in Python, which the class keeps alive."""
    return next(c.__dict__["__call__"] for c in cls.__mro__ if "__call__" in c.__dict__)


_lock = threading.RLock()
_entries: Living[Entry] = Living()
_generation = 0  # records are of one: what they say of threads holds no longer in the next


def generation() -> int:
    """What new records belong to."""
    return _generation


def forget_records() -> None:
    """The next call of every form goes to Python: what records say of threads has changed."""
    global _generation
    with _lock:
        _generation += 1
        for e in _entries:
            e._forget_records()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    forget_records()


threads.on_change(forget_records)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
