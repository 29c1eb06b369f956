"""What the processor says of itself, without LLVM, which takes 25 ms to load.

In:   nothing.
Out:  bytes that are another where LLVM would see other features: what CPUID answers, and which
      registers the system saves; None where that cannot be asked.
Invariant: what runs under an emulator, or under Valgrind, is told what it is told there. Answers
that depend on the core that gives them are left out.

>>> found = answers()
>>> found is None or found == answers()
True
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

from graphc.runtime.linker import Loaded, Unlinkable, packed

_LEAVES = ((1, 0), (7, 0), (7, 1))  # name and features; later ones follow from the machine
_CODE = {  # by the System V calling convention
    "cpuid": bytes.fromhex(  # (words, leaf, part of it)
        "53"  # push rbx
        "4989f8"  # mov r8, rdi
        "89f0"  # mov eax, esi
        "89d1"  # mov ecx, edx
        "0fa2"  # cpuid
        "418900"  # mov [r8], eax
        "41895804"  # mov [r8 + 4], ebx
        "41894808"  # mov [r8 + 8], ecx
        "4189500c"  # mov [r8 + 12], edx
        "5b"  # pop rbx
        "c3"  # ret
    ),
    "saved": bytes.fromhex(
        "31c9"  # xor ecx, ecx
        "0f01d0"  # xgetbv
        "c3"  # ret: eax
    ),
}
_WORD = ctypes.c_uint32
_WORDS = _WORD * (4 * len(_LEAVES) + 1)
_CPUID = ctypes.CFUNCTYPE(None, ctypes.c_void_p, _WORD, _WORD)
_SAVED = ctypes.CFUNCTYPE(_WORD)
_SAVES = 1 << 27  # in what leaf 1 has third: XGETBV is there
_CORE = 1  # what leaf 1 has second: the number of the core, among others


def answers() -> bytes | None:
    """What CPUID and XGETBV answer here."""
    code = _loaded()
    if code is None:
        return None
    ask, found = _CPUID(code["cpuid"]), _WORDS()
    for i, (leaf, part) in enumerate(_LEAVES):
        ask(ctypes.addressof(found) + 16 * i, leaf, part)
    if found[2] & _SAVES:
        found[4 * len(_LEAVES)] = _SAVED(code["saved"])()
    found[_CORE] = 0
    return bytes(found)


@cache
def _loaded() -> Any:
    """The code, in memory; None on other processors."""
    if sys.platform != "linux" or os.uname().machine != "x86_64" or sys.maxsize < 1 << 32:
        return None
    memory, places = b"", {}
    for name, code in _CODE.items():
        places[name] = len(memory)
        memory += code
    try:
        return Loaded(packed(memory, places, len(memory), len(memory)))
    except Unlinkable:
        return None
