"""What the writers of loops know while they write: values in registers, accumulators, and who uses what."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.ir.types import DType
from graphc.lower.loops import Acc

FIRST = "_first"  # the symbol of a part's first iteration
# Symbols of a sweep's panel: the thread whose memory its buffers are in, and its first row.
OWNER, BEGIN = "_owner", "_begin"


@dataclass
class Known:
    """A value: its register, dtype, and width (1 for a scalar)."""

    register: str
    dtype: DType
    width: int


@dataclass
class Sum:
    """The state of an accumulator while its loop is written."""

    acc: Acc
    kind: str  # "register", "leaf", "stage", "array"
    value: str = ""  # the register; or the address of the array
    lanes: str = ""  # of an array of order `lanes`: where the array of each lane lies
    levels: str = ""
    stages: list[str] = field(default_factory=list)
    iteration: str = ""


@dataclass
class Kept:
    """Where an accumulator stays while a loop is cut into blocks: a counter, or one vector."""

    levels: str = ""
    slot: str = ""
    width: int = 0  # of the vectors that a sum in rows is made from
