"""placement: an element's bits, wherever it stands and whatever processor the code is made for.

In:   the elementwise gates of floats, at points of every kind, tame and wild.
Out:  how many results were compared, how many differ, and the first of those.
Invariant: a result depends on its operands alone; not on its lane, its neighbours, stride,
alignment, length, thread, or the kernel around it, nor on the instruction set. All NaNs are alike.

A *placement* is one element computed at one place and held against a reference run, where it stood
elsewhere among others. In most vectors of a window all elements are tame; in some one is wild, so
that branches for rare arguments are taken for single lanes.

>>> tally = Tally()
>>> case = next(c for c in cases() if str(c) == "exp f64")
>>> check_placements(case, 1000, tally)
>>> sum(tally.compared.values()) >= 1000, tally.differing
(True, 0)
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

import graphc
from graphc.codegen.slots import ENTRY
from graphc.codegen.target import of
from graphc.errors import DifferentiationError
from graphc.gates.elementwise import Elementwise
from graphc.gates.gate import registry
from graphc.ir.graph import Builder, Graph
from graphc.ir.reference import run_graph
from graphc.ir.types import DType, bool_, f32, f64
from graphc.pipeline import Options, run_stages
from graphc.runtime.jit import Jit, machine, object_image
from graphc.runtime.kernel import Kernel, compile_graph
from graphc.transforms.adjoint import adjoint

Arrays = Sequence[np.ndarray]
LINE = 64  # bytes of a cache line and of the widest vector
SHORT = range(1, 68)
LONG = (100, 255, 256, 257, 1000, 2048, 4095)
THREADS = 4
ISAS = ("v3", "host")  # the baseline, and this processor
KEPT = 10  # differences that are shown


# -- gates and points ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """A gate on floats of one dtype, its points, and what they give in a reference run."""

    gate: Elementwise
    dtype: DType
    size: int = 4096  # points: half of them tame, half of them wild

    def __str__(self) -> str:
        return f"{self.gate.name} {self.dtype}"

    @property
    def attrs(self) -> dict[str, DType]:
        """A cast goes to the other float."""
        return {"dtype": f32 if self.dtype is f64 else f64} if self.gate.attrs else {}

    @property
    def dtypes(self) -> list[DType]:
        first = bool_ if self.gate.choice else self.dtype
        return [first, *[self.dtype] * (len(self.gate.params) - 1)]

    @cached_property
    def wrt(self) -> tuple[str, ...]:
        """The parameters that have a derivative; none where the result is a bool, for one."""
        floats = self.gate.params[self.gate.choice :]
        try:
            adjoint(self.graph(derivative=False), floats, "input")
        except DifferentiationError:
            return ()
        return floats

    def graph(self, *, derivative: bool, transposed: bool = False) -> Graph:
        """The gate alone; or with its gradients, weighted with a cotangent `ct_y`.

        `transposed` makes the operands matrices that are read across: their elements are strided.
        """
        builder = Builder()
        shape = ("m", "n") if transposed else ("n",)
        operands = [
            builder.input(p, ty[shape]) for p, ty in zip(self.gate.params, self.dtypes, strict=True)
        ]
        if transposed:
            operands = [x.transposed((1, 0)) for x in operands]
        graph = builder.graph("placed", {"y": self.gate(*operands, **self.attrs)})
        return adjoint(graph, self.wrt, "input") if derivative else graph

    @cached_property
    def points(self) -> list[np.ndarray]:
        """The operands, and last the cotangents: the tame ones first, then the wild ones."""
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        operands = [_points(self.gate, ty, self.size, rng) for ty in self.dtypes]
        if len(operands) > 1:  # ties, too
            tied = rng.integers(0, self.size, self.size // 16)
            operands[-1][tied] = operands[-2][tied]
        result = self.attrs.get("dtype", self.dtype).numpy
        ct = np.where(rng.random(self.size) < 0.7, 1.0, rng.normal(size=self.size))
        ct[rng.integers(0, self.size, self.size // 32)] = 0.0
        return [*operands, ct.astype(result)]

    def choose(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """Positions of points: all tame, all but one, or half of them."""
        half = self.size // 2
        chosen = rng.integers(0, half, length)
        wild = (0, 1, length // 2)[rng.integers(0, 3)]
        chosen[rng.integers(0, length, wild)] = rng.integers(half, self.size, wild)
        return chosen

    # Kernels, and the reference run.

    @cached_property
    def value(self) -> Kernel:
        return compile_graph(self.graph(derivative=False))

    @cached_property
    def gradient(self) -> Kernel:
        """The value and the derivatives."""
        return compile_graph(self.graph(derivative=True))

    @cached_property
    def across(self) -> Kernel:
        """The same on transposed operands."""
        return compile_graph(self.graph(derivative=bool(self.wrt), transposed=True))

    @cached_property
    def wanted(self) -> list[np.ndarray]:
        """The bits of the reference run: the value, then the derivatives."""
        wanted = self.value.run(self.points[:-1])
        return [*wanted, *self.gradient.run(self.points)[1:]] if self.wrt else wanted

    @property
    def kernels(self) -> list[tuple[Kernel, Arrays, Arrays]]:
        """Each kernel, its inputs, and the outputs wanted of it."""
        value = (self.value, self.points[:-1], self.wanted[:1])
        return [value, (self.gradient, self.points, self.wanted)] if self.wrt else [value]

    @cached_property
    def pulled(self) -> Callable[..., Any]:
        """(ct, *operands) -> the value and the derivatives, through the public functions."""

        def both(ct: Any, *operands: Any) -> tuple[Any, ...]:
            fixed, floats = operands[: self.gate.choice], operands[self.gate.choice :]
            y, pull = graphc.vjp(lambda *xs: self.gate(*fixed, *xs, **self.attrs), *floats)
            return (y, *pull(ct))

        return graphc.jit(both)


def cases(only: str = "") -> list[Case]:
    """Every elementwise gate that takes floats, in both float dtypes."""
    gates = [g for g in registry().values() if isinstance(g, Elementwise)]
    taken = [g for g in gates if g.accepts in ("float", "number", "any") and only in g.name]
    return [Case(g, dtype) for g in taken for dtype in (f64, f32)]


def _points(gate: Elementwise, dtype: DType, size: int, rng: np.random.Generator) -> np.ndarray:
    if dtype is bool_:
        return rng.random(size) < 0.5
    half = size // 2
    tame = rng.uniform(*gate.domain, half).astype(dtype.numpy)
    wild = np.concatenate([*_wild(gate, dtype, half, rng)])
    return np.concatenate([tame, rng.choice(wild, size - half)])


def _wild(
    gate: Elementwise, dtype: DType, size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Specials, subnormals, every exponent, huge numbers, integers, what lies around the edges."""
    real, info = dtype.numpy.type, np.finfo(dtype.numpy)
    least = info.smallest_subnormal
    specials = [0.0, 1.0, 0.5, 2.0, np.inf, np.nan, info.max, info.tiny, least, info.tiny - least]
    special = np.array(specials, dtype.numpy)
    yield np.repeat(np.concatenate([special, -special]), size // 64 + 1)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    yield rng.integers(0, 2 ** (8 * dtype.itemsize), size, unsigned).view(dtype.numpy)
    sign = rng.choice(np.array([-1, 1], dtype.numpy), size)
    yield sign * rng.integers(0, 2**info.nmant, size, unsigned).view(dtype.numpy)
    with np.errstate(over="ignore"):
        yield sign * np.ldexp(rng.uniform(1, 2, size), rng.integers(10, info.maxexp, size)).astype(
            dtype.numpy
        )
    yield rng.integers(-70, 70, size).astype(dtype.numpy) / real(2)
    edges = np.array([*gate.edges, *gate.domain], dtype.numpy)
    signed = edges.view(np.dtype(f"i{dtype.itemsize}"))[:, None]
    yield (signed + np.arange(-8, 9)).astype(signed.dtype).view(dtype.numpy).ravel()
    yield (edges[:, None] * (1 + 1e-3 * rng.normal(size=32))).astype(dtype.numpy).ravel()


# -- comparing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A result whose bits are not those of the reference run."""

    case: str
    output: int  # 0 is the value, then come the derivatives by each parameter
    place: str
    operands: tuple[str, ...]
    wanted: str
    got: str

    def __str__(self) -> str:
        what = f"derivative {self.output}" if self.output else "value"
        at = ", ".join(self.operands)
        return f"{self.case}: {what} at ({at}): {self.got}, not {self.wanted}; {self.place}"


@dataclass
class Tally:
    """Results compared, by kind of place; how many differ, and the first few."""

    compared: Counter[str] = field(default_factory=Counter)
    differing: int = 0
    first: list[Difference] = field(default_factory=list)

    def hold(
        self, case: Case, kind: str, place: str, chosen: np.ndarray, got: Arrays, wanted: Arrays
    ) -> None:
        """Compare outputs for the points `chosen`, of which `wanted` are the results in order."""
        for i, (g, w) in enumerate(zip(got, wanted, strict=True)):
            w = w[chosen]
            self.compared[kind] += g.size
            wrong = np.flatnonzero(differ(g, w))
            self.differing += wrong.size
            for j in wrong[: KEPT - len(self.first)]:
                operands = tuple(_hex(x[chosen[j]]) for x in case.points)
                where = f"{kind}, {place}, element {j}"
                self.first.append(Difference(str(case), i, where, operands, _hex(w[j]), _hex(g[j])))

    def add(self, other: Tally) -> None:
        self.compared.update(other.compared)
        self.differing += other.differing
        self.first = [*self.first, *other.first][:KEPT]


def differ(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where the bits differ; one NaN is as good as another."""
    bits = np.dtype(f"u{wanted.dtype.itemsize}")
    different = got.view(bits) != wanted.view(bits)
    if wanted.dtype.kind == "f":
        different &= ~(np.isnan(got) & np.isnan(wanted))
    return different


def _hex(x: Any) -> str:
    return float(x).hex() if x.dtype.kind == "f" else str(x)


# -- places ----------------------------------------------------------------------------------------


class Bound:
    """A kernel on fixed arrays: its native entry, without what a call from Python costs."""

    def __init__(self, kernel: Kernel, inputs: Arrays, outputs: Arrays | None = None) -> None:
        layout = kernel.layout(tuple(a.shape for a in inputs))
        if outputs is None:
            outputs = [np.empty(shape, dtype) for shape, dtype in layout.outputs]
        self.inputs, self.outputs = inputs, outputs
        self._kernel, self._arena = kernel, np.empty(layout.arena + LINE, np.uint8)
        arena, *pointers = (a.ctypes.data for a in (self._arena, *inputs, *outputs))
        self._slots = layout.slots(0, 0, (arena + 63) & -64, 0, *pointers, *layout.sizes)
        self._entry = kernel.entry

    def __call__(self) -> None:
        self._entry(self._slots)


def at_offset(x: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins `offset` bytes past a cache line."""
    memory = np.empty(x.nbytes + 2 * LINE, np.uint8)
    start = -memory.ctypes.data % LINE + offset
    copy = memory[start : start + x.nbytes].view(x.dtype)
    copy[...] = x
    return copy


def _offsets(arrays: Arrays, rng: np.random.Generator) -> list[int]:
    return [a.itemsize * int(rng.integers(0, LINE // a.itemsize)) for a in arrays]


def _windows(
    case: Case, count: int, rng: np.random.Generator, tally: Tally, kind: str = "window"
) -> None:
    """Lanes, lengths and alignments: points at random places of arrays at random offsets."""
    done = 0
    while done < count:
        for kernel, inputs, outputs in case.kernels:
            short = kind == "window" and rng.random() < 0.97
            length = int(rng.choice(SHORT if short else LONG))
            chosen = case.choose(rng, length)
            arrays = [*(x[chosen] for x in inputs), *(np.zeros(length, w.dtype) for w in outputs)]
            offsets = _offsets(arrays, rng)
            placed = [at_offset(a, o) for a, o in zip(arrays, offsets, strict=True)]
            got = placed[len(inputs) :]
            Bound(kernel, placed[: len(inputs)], got)()
            place = f"length {length}, bytes past a line {offsets}"
            tally.hold(case, kind, place, chosen, got, outputs)
            done += length * len(outputs)


def _threads(case: Case, count: int, rng: np.random.Generator, tally: Tally) -> None:
    """Several threads at once in the same kernels, each for long enough to meet the others."""
    tallies = [Tally() for _ in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        running = [
            pool.submit(_windows, case, count // THREADS, own, each, "thread")
            for own, each in zip(rng.spawn(THREADS), tallies, strict=True)
        ]
    for future, each in zip(running, tallies, strict=True):
        future.result()
        tally.add(each)


def _across(case: Case, count: int, rng: np.random.Generator, tally: Tally) -> None:
    """Strides inside of a kernel: operands and derivatives are read and written across rows."""
    done = 0
    while done < count:
        rows, columns = (int(n) for n in rng.integers(1, 20, 2))
        chosen = case.choose(rng, rows * columns)
        *operands, ct = (x[chosen].reshape(rows, columns) for x in case.points)
        inputs = [np.ascontiguousarray(x.T) for x in operands]
        y, *gradients = case.across.run([*inputs, ct] if case.wrt else inputs)
        got = [y.ravel(), *(g.T.ravel() for g in gradients)]
        tally.hold(case, "transposed", f"{columns}x{rows}", chosen, got, case.wanted)
        done += chosen.size * len(got)


def _views(case: Case, count: int, rng: np.random.Generator, tally: Tally) -> None:
    """Views of all strides, as users pass them to the gate and to its derivative."""
    done = 0
    while done < count:
        length = 2 * int(rng.integers(1, 64))
        for name, view in VIEWS.items():
            chosen = case.choose(rng, length)
            *operands, ct = (view(x[chosen]) for x in case.points)
            got = case.pulled(ct, *operands) if case.wrt else ()
            first = [case.gate(*operands, **case.attrs)]
            for results in filter(len, (first, got)):
                flat = [np.ravel(y) for y in results]
                tally.hold(case, "view", name, chosen, flat, case.wanted[: len(flat)])
                done += chosen.size * len(flat)


def _every_third(x: np.ndarray) -> np.ndarray:
    wide = np.zeros(3 * x.size, x.dtype)
    wide[::3] = x
    return wide[::3]


def _column(x: np.ndarray) -> np.ndarray:
    matrix = np.zeros((x.size, 5), x.dtype)
    matrix[:, 2] = x
    return matrix[:, 2]


def _past_a_byte(x: np.ndarray) -> np.ndarray:
    return np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1)


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "every third": _every_third,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "a column": _column,
    "in Fortran's order": lambda x: np.asfortranarray(x.reshape(2, -1)),
    "an odd address": _past_a_byte,
    "the other byte order": lambda x: x.byteswap().view(x.dtype.newbyteorder()),
}
SHARES = ((_windows, 0.7), (_across, 0.1), (_views, 0.1), (_threads, 0.1))


def check_placements(case: Case, count: int, tally: Tally) -> None:
    """At least `count` placements of a gate's value and derivatives."""
    rng = np.random.default_rng(zlib.crc32(f"{case} placed".encode()))
    for check, share in SHARES:
        check(case, math.ceil(share * count), rng, tally)


# -- instruction sets ------------------------------------------------------------------------------


def compile_for(graph: Graph, isa: str) -> Kernel:
    """A graph's kernel in the code of another processor than this one."""
    seen: dict[str, Any] = {}
    text = run_stages(graph, Options(isa=isa), seen.__setitem__, last="emit")
    target = of(isa)
    image = object_image(text, machine(target.cpu, target.features, jit=True))
    return Kernel.of(seen["simplify"], seen["plan"], Jit.link_objects((image,), (ENTRY,)))


def check_instruction_sets(case: Case, tally: Tally, alone: bool = True) -> None:
    """The interpreter, and the code for each processor, on all points of a case.

    The value is computed along with the derivatives, and `alone`, too.
    """
    every = np.arange(case.size)
    kernels = (False, True) if alone else (True,)
    for derivative in kernels if case.wrt else (False,):
        graph = case.graph(derivative=derivative)
        inputs = case.points if derivative else case.points[:-1]
        wanted = run_graph(graph, inputs)
        for isa in ISAS:
            got = compile_for(graph, isa).run(inputs)
            tally.hold(case, f"isa {isa}", "in order", every, got, wanted)


# -- all of it -------------------------------------------------------------------------------------


def main(count: int = 10_000_000, full: bool = True, only: str = "") -> int:
    """Check all gates and print what was found; 1 if a bit differs.

    count: placements in all. full: instruction sets on 20,000 points a gate, and the value alone,
    too; else on 2,000.
    """
    tally = Tally()
    chosen = cases(only)
    for case in chosen:
        check_placements(case, math.ceil(count / len(chosen)), tally)
        points = Case(case.gate, case.dtype, 20_000 if full else 2_000)
        check_instruction_sets(points, tally, alone=full)
    print(f"{len(chosen) // 2} gates in f64 and f32, values and derivatives")
    for kind, compared in tally.compared.items():
        print(f"  {kind:12} {compared:12,} results")
    for difference in tally.first:
        print(f"  {difference}")
    print(f"{tally.compared.total():,} results compared, {tally.differing:,} differ")
    return int(tally.differing > 0)
