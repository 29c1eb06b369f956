"""Kernels on fixed arrays, and as functions of C.

In:   a kernel, its input and output arrays.
Out:  a `Bound`, whose call runs the kernel and nothing else; a `Pointer` for other native code.
Invariant: the arrays stay alive and where they are: a bound call looks whether their memory and
sizes are still those that it was made for, and is an error where they are not.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.codegen.bound import BOUND
from graphc.codegen.layout import WORD
from graphc.codegen.slots import HEADER_SLOTS
from graphc.errors import SignatureError
from graphc.runtime.entries import Entry
from graphc.runtime.kernel import Kernel, out_of_bounds
from graphc.runtime.living import Living
from graphc.runtime.objects import native

_BUSY = BOUND.index("B_BUSY")
_WAIT = 20e-6  # seconds between two looks whether another thread's run is over


class Bound(Entry):
    """A function without arguments: one run on the arrays it was made for.

    It gives the same object every time, with new numbers in its arrays. While one thread runs it,
    others wait. It uses the threads that were allowed when it was made.
    """

    def __init__(
        self,
        name: str,
        kernel: Kernel,
        inputs: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray],
        result: Any,
    ) -> None:
        self.__name__, self.inputs, self.outputs = name, tuple(inputs), tuple(outputs)
        self.result = result
        self._kernel = kernel
        layout = kernel.layout(tuple(a.shape for a in inputs))
        self._arena = np.empty(layout.arena + 64, np.uint8)
        arena = (self._arena.ctypes.data + 63) & -64
        arrays = {id(a): a for a in (*inputs, *outputs)}.values()
        pointers = [a.ctypes.data for a in (*inputs, *outputs)]
        self._slots = layout.slots(0, 0, arena, layout.pool, *pointers, *layout.sizes)
        # An array with a weak reference refuses to be resized, even where references do not count.
        self._references = [weakref.ref(a) for a in arrays]
        self._places = [(a, a.ctypes.data, a.shape) for a in arrays]
        self._fail = _fail
        self._block = self._native_block(layout.is_long, layout.pool)
        self._turn = threading.RLock()  # of who runs it where nothing native does
        _all.add(self)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{a.dtype}{list(a.shape)}" for a in self.inputs)
        return f"<graphc: {self.__name__} bound to ({shapes})>"

    def _native_block(self, is_long: bool, pool: int) -> Any:
        routines = native()
        checks: list[int] = []
        for a, data, shape in self._places:
            checks.extend((id(a), data, len(shape), *shape))
        memory = (ctypes.c_int64 * (len(BOUND) + len(checks)))()
        address = ctypes.addressof(memory)
        values = {
            "B_ENTRY": self._kernel.address,
            "B_SLOTS": ctypes.addressof(self._slots),
            "B_RESULT": id(self.result),
            "B_LONG": int(is_long),
            "B_BUSY": 0,
            "B_THREADS": pool,
            "B_CHECKS": len(self._places),
            "B_CHECKS_AT": address + WORD * len(BOUND),
            "B_FAIL": id(self._fail),
        }
        memory[:] = [*(values[name] for name in BOUND), *checks]
        self._start(routines, address, "bound")
        return memory

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run; gives `result`."""
        if args or kwargs:
            raise SignatureError(
                f"{self.__name__} is bound: it takes no arguments; write new numbers into the "
                "arrays that it was bound to"
            )
        for a, data, shape in self._places:
            if a.ctypes.data != data or a.shape != shape:
                raise SignatureError(
                    f"{self.__name__}: an array has changed its memory or its shape since it was "
                    f"bound: it was {list(shape)}, and is {list(a.shape)}"
                )
        while self._block[_BUSY]:
            time.sleep(_WAIT)
        if self.is_native:
            return self()
        with self._turn:
            if self._kernel.entry(self._slots):
                raise out_of_bounds(self._slots[0], self._slots[1])
        return self.result

    def _begin_anew(self) -> None:
        """In a forked child: a run that another thread was in is none here."""
        self._turn = threading.RLock()
        self._block[_BUSY] = 0


_all: Living[Bound] = Living()


def _after_fork() -> None:
    for b in _all:
        b._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _fail(index: int, size: int) -> None:
    raise out_of_bounds(index, size)


class Pointer:
    """A kernel as a function of C: `int32_t run(int64_t *slots)`.

    The slots are, in the order of `slots`: a wrong index and the size it was held against, which
    the function sets where it gives 1; the address of an arena of `arena_bytes(...)`, a multiple of
    64; the pool of threads, 0 for none; the addresses of the inputs and of the outputs, in one
    piece each and aligned as their dtype is; and the named sizes. It gives 0 where all went well,
    and may run in several threads at once, each with an arena of its own. It keeps the code alive.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.address = kernel.address
        manifest = kernel.manifest
        header = ("wrong index", "its size", "arena", "pool")
        assert len(header) == HEADER_SLOTS
        inputs = [name for name, _ in manifest.inputs]
        outputs = [f"{name}.out" for name, _, _ in manifest.outputs]
        self.slots = (*header, *inputs, *outputs, *(f"size {s}" for s in manifest.sizes))

    def __int__(self) -> int:
        return self.address

    def arena_bytes(self, **sizes: int) -> int:
        """The bytes that a run with these sizes needs for its temporaries."""
        return self._kernel.arena_bytes(sizes)

    def __repr__(self) -> str:
        return (
            f"<graphc: int32_t (*)(int64_t *slots) at {self.address:#x}, {', '.join(self.slots)}>"
        )
