"""What this processor takes for the parts that kernels are made of: measured, and kept.

In:   the name of a part: an operation, a call of a gate, the end of a sum, a byte from some cache.
Out:  seconds, of one thread unless it says otherwise.
Invariant: nothing is known of any processor beforehand. Each number comes from a small program in
the loop IR, compiled like any other; it is measured when it is first asked for, in some
milliseconds, and then kept for the process. Of several runs the shortest counts: what others do on
the machine only adds.

>>> 0 < operation() < 1e-6
True
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import exp, log
from typing import Any

import numpy as np

from graphc.gates.reduction import LEAF
from graphc.ir.types import DType, evaluate
from graphc.lower.counting import UNIT

NEAR = 512  # elements that stay in the first cache
RUN = 5e-5  # seconds that one run should take
RUNS, ENOUGH = 200, 1.5e-2  # of which there are so many, if they take no longer together
SETS = tuple(1 << k for k in (14, 17, 19, 21, 23, 25, 27))  # bytes at which memory is measured
OWN = 1 << 17  # bytes that each thread has in caches of its own


# -- running ---------------------------------------------------------------------------------------


class _Program:
    """A program in the loop IR, ready to run on arrays."""

    def __init__(self, text: str) -> None:
        from graphc.codegen.slots import ENTRY
        from graphc.lower.loop_text import parse_program
        from graphc.lower.plan import plan
        from graphc.pipeline import Options, run_stages

        self.program = plan(parse_program(text))
        self.library = run_stages(self.program, Options(), first="emit")
        kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
        self.entry = kind(self.library.address(ENTRY))

    def seconds(
        self,
        sizes: Mapping[str, int],
        data: Mapping[str, np.ndarray],
        enough: float = ENOUGH,
        pool: int = 0,
    ) -> float:
        """The shortest of some runs, without the time of the call itself."""
        from graphc.codegen.slots import HEADER_SLOTS
        from graphc.lower.plan import arena_for

        buffers = (*self.program.of_role("input"), *self.program.of_role("output"))
        arrays = [_array(b.type, sizes, data.get(b.name)) for b in buffers]
        arena = np.zeros(evaluate(arena_for(self.program, 1 if not pool else 64), sizes) + 64, "u1")
        values = [sizes[s] for s in self.program.sizes]
        header = [0, 0, (arena.ctypes.data + 63) & -64, pool]
        assert len(header) == HEADER_SLOTS
        slots = (ctypes.c_int64 * (HEADER_SLOTS + len(arrays) + len(values)))(
            *header, *(a.ctypes.data for a in arrays), *values
        )
        return _shortest(lambda: self.entry(slots), enough, alone=not pool)


def _array(ty: Any, sizes: Mapping[str, int], given: np.ndarray | None) -> np.ndarray:
    """An array of a type, aligned as large arrays are; ones where no values are given."""
    shape = tuple(evaluate(s, sizes) for s in ty.shape)
    dtype = ty.dtype.numpy
    count = int(np.prod(shape, dtype=np.int64))
    memory = np.empty(count * dtype.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    made = memory[start : start + count * dtype.itemsize].view(dtype)
    made[...] = 1 if given is None else given.reshape(-1)
    return made.reshape(shape)


def _shortest(run: Callable[[], Any], enough: float = ENOUGH, alone: bool = True) -> float:
    """The shortest of some runs; of one thread `alone`, without the time that others had it."""
    clock = time.thread_time if alone else time.perf_counter
    run()
    best = float("inf")
    began = clock()
    for _ in range(RUNS):
        before = clock()
        run()
        after = clock()
        best = min(best, after - before)
        if after - began > max(enough, 3 * best):
            break
    return best


def _repeated(body: str, heads: Sequence[str], buffers: str = "") -> str:
    """A program that runs some statements r times."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    return (
        f"program measured({', '.join(heads)})\nsizes n r\n{buffers}kernel k0\n"
        f"  for _r in r rows\n{lines}\n"
    )


def _once(
    body: str, heads: Sequence[str], outputs: Sequence[str], n: int, **data: np.ndarray
) -> float:
    """Seconds of one run of some statements, of which many make one call."""
    buffers = "".join(f"buffer output {b}\n" for b in outputs)
    program = _Program(_repeated(body, heads, buffers))
    rounds, least = 1, program.seconds({"n": n, "r": 1}, data)
    seconds = least
    while seconds < RUN / 2:
        rounds *= 8
        seconds = program.seconds({"n": n, "r": rounds}, data, ENOUGH / 10)
    return (program.seconds({"n": n, "r": 2 * rounds}, data) - least) / (2 * rounds - 1)


# -- operations ------------------------------------------------------------------------------------

_MIX = """%{a} = mul %{x}, %{k} : f64
%{b} = eq %{a}, %0 : bool
%{c} = mul %{a}, %{x} : f64
%{d} = select %{b}, %0, %{c} : f64
%{e} = sub %{d}, %{a} : f64
%{f} = add %{e}, %{y} : f64"""
_LONG, _SHORT = 8, 2


def _mixed(blocks: int, mode: str) -> float:
    """A loop whose body is blocks of plain operations, as derivatives have them."""
    lines = ["%0 = const 0.0 : f64"]
    lines += ["%2 = load x[_i] : f64", "%3 = load x[_i+n] : f64"]
    chain = [2, 3]
    for block in range(blocks):
        names = {k: 4 + 7 * block + i for i, k in enumerate("kabcdef")}
        lines.append(f"%{names['k']} = const {0.5 + block / 16} : f64")
        lines += _MIX.format(x=2 + block % 2, y=chain[block % 2], **names).split("\n")
        chain[block % 2] = names["f"]
    lines += [f"%y = add %{chain[0]}, %{chain[1]} : f64", "store y[_i] %y"]
    body = f"for _i in n {mode}\n" + "\n".join(f"  {line}" for line in lines)
    return _once(body, ["x: f64[2*n]"], ["y: f64[n]"], NEAR)


@cache
def operation(kind: str = "vector") -> float:
    """One plain operation: on a whole vector ("vector"), or on one element ("scalar")."""
    mode = "vector" if kind == "vector" else "rows"
    elements = UNIT // 8 if kind == "vector" else 1
    apart = _mixed(_LONG, mode) - _mixed(_SHORT, mode)
    return max(apart, 1e-12) / (6 * (_LONG - _SHORT)) / NEAR * elements


@cache
def division(op: str, dtype: DType, kind: str = "vector") -> float:
    """One division, root or such of a whole vector, or of one element."""
    operands = "%1, %1" if op in ("div", "quot") else "%1"
    mode = "vector" if kind == "vector" else "rows"
    body = f"""for _i in n {mode}
  %1 = load x[_i] : {dtype}
  %2 = {op} {operands} : {dtype}
  store y[_i] %2"""
    seconds = _once(body, [f"x: {dtype}[n]"], [f"y: {dtype}[n]"], NEAR)
    return seconds / NEAR * (UNIT // dtype.itemsize if kind == "vector" else 1)


@cache
def gate(name: str, dtypes: tuple[DType, ...], result: DType, kind: str = "vector") -> float:
    """One element of a call of a gate's own function, in vectors or alone, on its test domain."""
    from graphc.gates.gate import registry

    low, high = getattr(registry()[name], "domain", (-4.0, 4.0))
    random = np.random.default_rng(0)
    mode = "vector" if kind == "vector" else "rows"
    loads = [f"  %{i} = load x{i}[_i] : {d}" for i, d in enumerate(dtypes)]
    operands = ", ".join(f"%{i}" for i in range(len(dtypes)))
    call = f"  %r = call {name} {operands} : {result}"
    body = "\n".join([f"for _i in n {mode}", *loads, call, "  store y[_i] %r"])
    heads = [f"x{i}: {d}[n]" for i, d in enumerate(dtypes)]
    data = {f"x{i}": random.uniform(low, high, NEAR).astype(d.numpy) for i, d in enumerate(dtypes)}
    return _once(body, heads, [f"y: {result}[n]"], NEAR, **data) / NEAR


@cache
def start(what: str) -> float:
    """What an inner loop takes beside its iterations.

    "loop": to begin and end it; "tail": what is left where vectors are not whole; "masked": a store
    of a part of a vector; "tree": the end of each of its sums; "fold": the end of a sum in a
    loop that is so short that it is written out; "leaf": of each leaf of its sums; "turned": of
    one of neighbouring lanes.
    """
    load = "  %2 = load x[_j] : f64\n"
    acc, add = "  acc %1: f64 sum lanes\n", "  add %1 %2\n"
    heads, outputs = ["x: f64[n]"], ["y: f64[n]"]
    if what == "fold":
        return _once(f"for _j in 8 vector\n{acc}{load}{add}store y[0] %1", heads, outputs, 8)
    plain = f"for _j in n vector\n{load}  store y[_j] %2"
    if what == "loop":
        return _once(plain, heads, outputs, 8)
    if what == "masked":
        part, whole = (plain.replace("in n", f"in {n}") for n in (10, 16))
        return max(_once(part, heads, outputs, 16) - _once(whole, heads, outputs, 16), 0.0)
    if what == "tail":
        apart = _once(plain, heads, outputs, 12) - _once(plain, heads, outputs, 16)
        return max(apart - start("masked"), 0.0)
    summed = f"for _j in n vector\n{acc}{load}{add}store y[0] %1"
    if what == "tree":
        return max(_once(summed, heads, outputs, 8) - start("loop"), 0.0)
    assert what in ("leaf", "turned"), what
    summed = summed.replace("lanes", "rows") if what == "turned" else summed
    few, many = 256, 3072
    apart = _once(summed, heads, outputs, many) - _once(summed, heads, outputs, few)
    return max(apart, 0.0) / ((many - few) / (LEAF * UNIT // 8))


@cache
def apart(what: str) -> float:
    """One element that does not lie beside its neighbours, or waits for the one before.

    "strided": a column of short rows, loaded or stored; "gather": where an index says; "scatter": a
    sum where an index says; "step": one of a running sum.
    """
    if what == "strided":
        lines = [f"  %{c} = load x[3*_i+{c}] : f64\n  store y[3*_i+{c}] %{c}" for c in range(3)]
        body = "\n".join(["for _i in n vector", *lines])
        return _once(body, ["x: f64[n,3]"], ["y: f64[n,3]"], NEAR // 4) / (6 * (NEAR // 4))
    if what == "step":
        acc, step = "  acc %1: f64 cumsum running\n", "  %3 = step %1 %2 : f64\n"
        body = f"for _i in n vector\n{acc}  %2 = load x[_i] : f64\n{step}  store y[_i] %3"
        return _once(body, ["x: f64[n]"], ["y: f64[n]"], NEAR) / NEAR
    index = {"i": np.random.default_rng(0).integers(0, NEAR, NEAR)}
    heads = ["x: f64[n]", "i: i64[n]"]
    if what == "gather":
        body = "for _i in n vector\n  %1 = load i[_i] : i64\n  %2 = load x[0; %1*1] : f64\n"
        return _once(f"{body}  store y[_i] %2", heads, ["y: f64[n]"], NEAR, **index) / NEAR
    assert what == "scatter", what
    body = "for _i in n rows\n  %1 = load i[_i] : i64\n  %2 = load x[_i] : f64\n"
    return _once(f"{body}  scatter y[0; %1*1] %2", heads, ["y: f64[n]"], NEAR, **index) / NEAR


# -- products of matrices --------------------------------------------------------------------------


def _product(dtype: DType, m: int, n: int, k: int, count: int = 1) -> float:
    """Seconds of `count` products, each on operands in cache."""
    text = f"""program measured(a: {dtype}[{m},{k}], b: {dtype}[{k},{n}])
sizes p
buffer output c: {dtype}[p,{m},{n}]
kernel k0
  contract chain {dtype} k c[0; p:{m * n} i:{n} j:1] a[0; p:0 i:{k} k:1] b[0; k:{n} j:1] sizes \
p:p i:{m} k:{k} j:{n}
"""
    return _Program(text).seconds({"p": count}, {}) / count


@cache
def multiply_add(dtype: DType) -> float:
    """One step of a sum of products of whole vectors, in the best of loops."""
    n = 256
    steps = n * n * n * dtype.itemsize / UNIT
    text = f"""program measured(a: {dtype}[{n},{n}], b: {dtype}[{n},{n}])
buffer output c: {dtype}[{n},{n}]
kernel k0
  contract chain {dtype} k c[0; i:{n} j:1] a[0; i:{n} k:1] b[0; k:{n} j:1] sizes i:{n} k:{n} j:{n}
"""
    return _Program(text).seconds({}, {}) / steps


@cache
def product(what: str, dtype: DType) -> float:
    """What a matrix product takes beside its sums: "call", for each; "tile", for each tile.

    A tile is `lower.work.TILE_ROWS` rows by two vectors.
    """
    from graphc.lower.counting import Product

    small, wide = (8, UNIT // dtype.itemsize, 4), (96, 4 * UNIT // dtype.itemsize, 4)
    one, many = (Product(1, *shape, dtype) for shape in (small, wide))
    seconds = [_product(dtype, *shape, count=64) for shape in (small, wide)]
    rest = [s - p.steps * multiply_add(dtype) for s, p in zip(seconds, (one, many), strict=True)]
    tile = max(rest[1] - rest[0], 0.0) / (many.tiles - one.tiles)
    return tile if what == "tile" else max(rest[0] - one.tiles * tile, 0.0)


# -- memory ----------------------------------------------------------------------------------------


def memory(what: str, working_set: float, threads: int = 1) -> float:
    """One byte that is read, or written, of so many that are used again and again."""
    logs = [log(s) for s in SETS]
    at = min(max(log(max(working_set, 1.0)), logs[0]), logs[-1])
    above = next(i for i, x in enumerate(logs) if x >= at)
    high = log(_byte(what, SETS[above], threads))
    if logs[above] == at:
        return exp(high)
    low = log(_byte(what, SETS[above - 1], threads))
    share = (at - logs[above - 1]) / (logs[above] - logs[above - 1])
    return exp(low + share * (high - low))


@cache
def _byte(what: str, size: int, threads: int) -> float:
    """A byte of a working set of this size, with so many threads. Small ones are each thread's."""
    if threads > 1 and size <= OWN:
        return _byte(what, size, 1) / threads
    heads = "x: i64[n]" if what == "read" else "x: f64[1]"
    output = "y: i64[1]" if what == "read" else "y: f64[n]"
    n = size // 8
    if threads == 1:
        return _once(_STREAMS[what].format(mode="vector"), [heads], [output], n) / size
    from graphc.runtime.threads import pool

    loop = _STREAMS[what].format(mode="vector parallel").replace("\n", "\n  ")
    text = f"program measured({heads})\nsizes n\nbuffer output {output}\nkernel k0\n  {loop}\n"
    return _Program(text).seconds({"n": n}, {}, pool=pool(threads)[0]) / size


_STREAMS = {
    "read": """for _i in n {mode}
  acc %1: i64 sum any
  %2 = load x[_i] : i64
  add %1 %2
store y[0] %1""",
    "write": """for _i in n {mode}
  %1 = load x[0] : f64
  store y[_i] %1""",
}


# -- the call --------------------------------------------------------------------------------------


def call(inputs: int, arrays: int, numbers: int) -> float:
    """A call from Python that computes nothing: its arguments, and arrays and numbers it gives."""
    base = _call(1, 1, 0)
    argument = (_call(7, 1, 0) - base) / 6
    array = (_call(1, 5, 0) - base) / 4
    number = (_call(1, 1, 4) - base) / 4
    found = base + (inputs - 1) * argument + (arrays - 1) * array + numbers * number
    return max(found, base / 2)


@cache
def _call(inputs: int, arrays: int, numbers: int) -> float:
    import graphc

    g = graphc.Graph("empty")
    given = [g.input(f"x{i}", graphc.f64["n"]) for i in range(inputs)]
    for i in range(arrays):
        g.output(f"y{i}", given[0] * (i + 2.0))
    for i in range(numbers):
        g.output(f"z{i}", given[0].sum() * (i + 2.0))
    compiled = graphc.compile(g)
    data = [np.ones(1) for _ in given]

    def calls() -> None:
        for _ in range(100):
            compiled(*data)

    return _shortest(calls) / 100
