"""Which processor code is made for: the name and the features LLVM is told, nothing else."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache

TUNING = ("prefer-", "fast-", "slow-")  # how names of features begin that say what is quick


@dataclass(frozen=True)
class Target:
    """A processor as LLVM names it. Bits never depend on it: every ISA with FMA gives the same ones."""

    cpu: str
    features: str
    x86: bool

    @property
    def isa(self) -> str:
        """The features that code needs, sorted. What only tunes code is none of them."""
        features = (f[1:] for f in self.features.split(",") if f.startswith("+"))
        return ",".join(sorted(f for f in features if not f.startswith(TUNING)))

    @property
    def avx512(self) -> bool:
        """Are there vectors of 64 bytes, masks of a bit for each lane, and what comes with them?"""
        return {"+avx512f", "+avx512dq", "+avx512vl"} <= set(self.features.split(","))

    @property
    def avx2(self) -> bool:
        return self.x86 and (self.cpu == "x86-64-v3" or "+avx2" in self.features.split(","))


BASELINE = Target("x86-64-v3", "+prefer-256-bit", True)


@cache
def host() -> Target:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    # 512-bit vectors wherever the processor has them: a logical vector is one register.
    features["prefer-256-bit"] = False
    return Target(llvm.get_host_cpu_name(), features.flatten(), _x86())


def of(isa: str) -> Target:
    """The processor that an ISA's name stands for: "v3" is x86-64 with AVX2 and FMA, "host" this one."""
    return BASELINE if isa == "v3" and _x86() else host()


def _x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")
