"""Which processor code is made for: the name and the features LLVM is told, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Target:
    """A processor as LLVM names it. Bits never depend on it: every ISA with FMA gives the same ones."""

    cpu: str
    features: str


BASELINE = Target("x86-64-v3", "+prefer-256-bit")


@cache
def host() -> Target:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    # 512-bit vectors wherever the processor has them: a logical vector is one register.
    features["prefer-256-bit"] = False
    return Target(llvm.get_host_cpu_name(), features.flatten())
