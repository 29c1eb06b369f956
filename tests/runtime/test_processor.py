"""What the processor is asked without LLVM is what LLVM goes by."""

import os
import platform
import struct
import sys

import pytest

from graphc.codegen.target import host
from graphc.runtime import processor

HERE = sys.platform == "linux" and platform.machine() == "x86_64"
BITS = {  # word of the answers, bit in it
    "fma": (2, 12), "avx": (2, 28), "f16c": (2, 29), "avx2": (5, 5), "bmi2": (5, 8),
    "avx512f": (5, 16), "avx512vl": (5, 31), "avx512vbmi": (6, 1), "avxvnni": (8, 4),
}  # fmt: skip


@pytest.mark.skipif(not HERE, reason="it asks x86-64 alone")
def test_features_are_those_that_llvm_finds():
    words = struct.unpack("<13I", processor.answers())
    isa = host().isa.split(",")
    saved = words[-1]
    assert words[2] >> 27 & 1 and saved & 0b110 == 0b110  # or there would be no AVX
    for name, (word, bit) in BITS.items():
        usable = not name.startswith("avx512") or saved & 0xE0 == 0xE0
        assert (name in isa) == bool(words[word] >> bit & 1 and usable), name


@pytest.mark.skipif(not HERE, reason="it asks x86-64 alone")
def test_every_core_answers_alike():
    mine = os.sched_getaffinity(0)
    try:
        found = set()
        for core in mine:
            os.sched_setaffinity(0, {core})
            found.add(processor.answers())
    finally:
        os.sched_setaffinity(0, mine)
    assert len(found) == 1 and None not in found


def test_other_systems(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    processor._loaded.cache_clear()
    try:
        assert processor.answers() is None
    finally:
        processor._loaded.cache_clear()
