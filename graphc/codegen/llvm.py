"""LLVM text: the vocabulary that kernels are written in.

A `Module` collects functions, constants and declarations; a `Function` collects lines. Registers are of any width:
width 1 is a scalar, width 8 a vector of eight.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from graphc.codegen.target import Target
from graphc.ir.scalar import from_bits
from graphc.ir.types import Atom, DType, Size, SizeCall, bool_

REGISTER = {"f64": "double", "f32": "float", "i64": "i64", "i32": "i32", "bool": "i1"}
MEMORY = {**REGISTER, "bool": "i8"}
SUFFIX = {"f64": "f64", "f32": "f32", "i64": "i64", "i32": "i32", "bool": "i1"}


def vector(ty: str, width: int) -> str:
    return ty if width == 1 else f"<{width} x {ty}>"


def register(dtype: DType, width: int) -> str:
    return vector(REGISTER[dtype.name], width)


def overload(dtype: DType, width: int) -> str:
    """The suffix of an intrinsic's name."""
    return SUFFIX[dtype.name] if width == 1 else f"v{width}{SUFFIX[dtype.name]}"


@lru_cache(maxsize=4096)
def literal(bits: int, dtype: DType) -> str:
    """A number, floats by their bits."""
    if dtype.is_float:
        wide = struct.pack(">d", from_bits(bits, dtype)).hex().upper()
        return f"0x{wide}"
    value = from_bits(bits, dtype)
    return str(value).lower() if dtype is bool_ else str(int(value))


def splat(text: str, ty: str, width: int) -> str:
    """A number in every lane."""
    return text if width == 1 else f"splat ({ty} {text})"


INLINED = 1000  # instructions of long bodies that a module has written in place

# Marks in a module's text: before each routine, and before what all of its functions refer to.
ROUTINE, TAIL = "; routine", "; declarations"
PIECE = ".piece"  # in the names of functions that are pieces of long bodies

# How much work LLVM puts into a function: `brief` for what runs once a call and is short, where choosing the best
# instructions takes longer than they ever save.
EFFORTS = ("usual", "brief")


class Module:
    """One module: functions are added under names of their own and found again by key."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.avx512 = target.avx512
        self.register_bytes = 64 if target.avx512 else 32 if target.avx2 else 16
        # Intel's keeps half of the vector registers as they are.
        self.rare_convention = "intel_ocl_bicc " if target.x86 else ""
        self.x86 = target.x86
        self.functions: list[str] = []
        self.routines: dict[str, str] = {}
        self.globals: dict[str, str] = {}
        self.declared: dict[str, str] = {}
        self.inline_left = INLINED

    def intrinsic(self, name: str, result: str, params: Sequence[str]) -> str:
        self.declared.setdefault(name, f"declare {result} @{name}({', '.join(params)})")
        return name

    def once(self, name: str, make: Callable[[], None]) -> str:
        """A routine that is added the first time it is asked for: code that its name says all of."""
        if name not in self.routines:
            outside, self.functions = self.functions, []
            make()
            self.routines[name] = "\n".join((ROUTINE, *self.functions))
            self.functions = outside
        return name

    def take(self, other: Module) -> None:
        """The routines that another module has made, and what they need."""
        self.routines = {**self.routines, **other.routines}
        self.globals |= other.globals
        self.declared |= other.declared

    def text(self) -> str:
        always = 'nounwind "no-builtins"'
        attributes = (always, f"{always} noinline optnone")
        groups = [f"attributes #{i} = {{ {text} }}" for i, text in enumerate(attributes)]
        tables = (f"@{name} = {value}" for name, value in self.globals.items())
        code = [*tables, *self.functions, *self.routines.values()]
        return "\n".join([*code, TAIL, *self.declared.values(), *groups, ""])


class Function:
    """The lines of one function. Registers and labels have fresh names."""

    def __init__(
        self,
        module: Module,
        name: str,
        result: str,
        params: Sequence[tuple[str, str]],
        linkage: str = "internal ",
        effort: str = "usual",
    ) -> None:
        self.module = module
        self.name = name
        self.head = f"define {linkage}{result} @{name}({', '.join(f'{t} %{p}' for t, p in params)})"
        self.effort = effort
        self.entry: list[str] = []  # allocas and sizes that every block may use
        self.lines: list[str] = []
        self.count = 0
        self.block = "start"
        # Machine operations since the last label, by what they compute: none is emitted twice.
        self.computed: dict[tuple | str, str] = {}

    def close(self) -> None:
        head = f"{self.head} #{EFFORTS.index(self.effort)} {{"
        body = [head, "entry:", *self.entry, "  br label %start", "start:", *self.lines, "}"]
        self.module.functions.append("\n".join(body))

    def fresh(self, prefix: str = "v") -> str:
        self.count += 1
        return f"%{prefix}{self.count}"

    def do(self, text: str) -> str:
        """An instruction with a result."""
        self.count += 1
        name = f"%v{self.count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def do_once(self, text: str) -> str:
        """An instruction that depends on its operands alone: the register of an equal one since the last label."""
        found = self.computed.get(text)
        if found is None:
            found = self.computed[text] = self.do(text)
        return found

    def say(self, text: str) -> None:
        """An instruction without one."""
        self.lines.append(f"  {text}")

    def prefetch(self, address: str, nearest: bool = True) -> None:
        """Ask for a line, to be in the nearest cache or in the one behind it; of no memory, nothing happens."""
        types = ("ptr", "i32", "i32", "i32")
        name = self.module.intrinsic("llvm.prefetch.p0", "void", types)
        self.say(f"call void @{name}(ptr {address}, i32 0, i32 {3 if nearest else 2}, i32 1)")

    def alloca(self, ty: str, count: int, align: int = 64) -> str:
        name = self.fresh("a")
        self.entry.append(f"  {name} = alloca {ty}, i64 {count}, align {align}")
        return name

    # -- control flow -------------------------------------------------------------------------------------------

    def label(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def open_block(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label
        self.computed = {}

    def jump(self, label: str) -> None:
        self.say(f"br label %{label}")

    def branch(self, condition: str, yes: str, no: str) -> None:
        self.say(f"br i1 {condition}, label %{yes}, label %{no}")

    def phi(self, ty: str, *incoming: tuple[str, str]) -> tuple[str, Callable[[str, str], None]]:
        """A phi, and a function that adds the value of a later edge."""
        name = self.fresh("p")
        position = len(self.lines)
        edges = list(incoming)
        self.lines.append("")

        def write() -> None:
            pairs = ", ".join(f"[ {v}, %{b} ]" for v, b in edges)
            self.lines[position] = f"  {name} = phi {ty} {pairs}"

        def more(value: str, block: str) -> None:
            edges.append((value, block))
            write()

        write()
        return name, more

    @contextmanager
    def when(self, condition: str, returns: bool = False) -> Iterator[None]:
        """Lines that run if the condition holds, and perhaps end the function."""
        yes, after = self.label("then"), self.label("after")
        self.branch(condition, yes, after)
        self.open_block(yes)
        yield
        if not returns:
            self.jump(after)
        self.open_block(after)

    def loop(
        self,
        start: str,
        limit: str,
        step: int | str,
        carried: Sequence[tuple[str, str]],
        body: Callable,
    ) -> list[str]:
        """for (i = start; i < limit; i += step): body(i, values) gives the next values; the last values are returned.

        `carried` is (type, first value) of each.
        """
        before, head, inside, after = (
            self.block,
            self.label("head"),
            self.label("body"),
            self.label("done"),
        )
        self.jump(head)
        self.open_block(head)
        i, next_i = self.phi("i64", (start, before))
        phis = [self.phi(ty, (first, before)) for ty, first in carried]
        self.branch(self.do(f"icmp slt i64 {i}, {limit}"), inside, after)
        self.open_block(inside)
        values = body(i, [name for name, _ in phis])
        advanced = self.do(f"add i64 {i}, {step}")
        next_i(advanced, self.block)
        for (_, more), value in zip(phis, values, strict=True):
            more(value, self.block)
        self.jump(head)
        self.open_block(after)
        return [name for name, _ in phis]

    @contextmanager
    def in_entry(self) -> Iterator[None]:
        """Straight-line code that every block may use."""
        before, self.lines = self.lines, self.entry
        computed, self.computed = self.computed, {}
        yield
        self.lines, self.computed = before, computed

    # -- sizes --------------------------------------------------------------------------------------------------

    def size(self, size: Size, names: dict[str, str], memo: dict[object, str] | None = None) -> str:
        """The number of a size as an i64; `names` gives the registers of its symbols.

        `memo` remembers the parts that are no names, for sizes that are all computed in one block.
        """
        if isinstance(size, int):
            return str(size)
        total = ""
        for monomial, c in size.terms:
            factors = [self._atom(a, names, memo) for a in monomial]
            if c != 1 or not factors:
                factors.append(str(c))
            term = factors[0]
            for f in factors[1:]:
                term = self.do(f"mul i64 {term}, {f}")
            total = term if not total else self.do(f"add i64 {total}, {term}")
        return total

    def _atom(self, atom: Atom, names: dict[str, str], memo: dict[object, str] | None) -> str:
        if isinstance(atom, str):
            return names[atom]
        if memo is None:
            return self._function(atom, names, None)
        if atom not in memo:
            memo[atom] = self._function(atom, names, memo)
        return memo[atom]

    def _function(
        self, atom: SizeCall, names: dict[str, str], memo: dict[object, str] | None
    ) -> str:
        op, left, right = atom
        a, b = self.size(left, names, memo), self.size(right, names, memo)
        if op == "bits":
            name = self.module.intrinsic("llvm.ctlz.i64", "i64", ("i64", "i1"))
            zeros = self.do(f"call i64 @{name}(i64 {a}, i1 false)")
            return self.do(f"sub i64 64, {zeros}")
        if op == "floordiv":
            if b.isdigit() and int(b).bit_count() == 1:
                return self.do(f"ashr i64 {a}, {int(b).bit_length() - 1}")
            if b.startswith("%"):
                nothing = self.do(f"icmp eq i64 {b}, 0")  # x // 0 is 0, and nothing traps
                divisor = self.do(f"select i1 {nothing}, i64 1, i64 {b}")
                floor = self._floor_quotient(a, divisor)
                return self.do(f"select i1 {nothing}, i64 0, i64 {floor}")
            return self._floor_quotient(a, b)
        larger = self.do(f"icmp sgt i64 {a}, {b}")
        first, second = (a, b) if op == "max" else (b, a)
        return self.do(f"select i1 {larger}, i64 {first}, i64 {second}")

    def _floor_quotient(self, a: str, b: str) -> str:
        """floor(a / b), where b is not 0."""
        quotient = self.do(f"sdiv i64 {a}, {b}")
        inexact = self.do(f"icmp ne i64 {self.do(f'mul i64 {quotient}, {b}')}, {a}")
        negative = self.do(f"icmp slt i64 {self.do(f'xor i64 {a}, {b}')}, 0")
        down = self.do(f"and i1 {inexact}, {negative}")
        return self.do(f"sub i64 {quotient}, {self.do(f'zext i1 {down} to i64')}")

    # -- vectors ------------------------------------------------------------------------------------------------

    def spread(self, value: str, dtype: DType, width: int) -> str:
        """A scalar in every lane."""
        return self.spread_type(value, REGISTER[dtype.name], width)

    def spread_type(self, value: str, ty: str, width: int) -> str:
        if width == 1:
            return value
        if not value.startswith("%"):
            return splat(value, ty, width)
        wide = vector(ty, width)
        one = self.do(f"insertelement {wide} poison, {ty} {value}, i64 0")
        return self.do(
            f"shufflevector {wide} {one}, {wide} poison, <{width} x i32> zeroinitializer"
        )

    def iota(self, width: int) -> str:
        return "<" + ", ".join(f"i64 {i}" for i in range(width)) + ">"

    def half(self, value: str, ty: str, width: int, upper: bool) -> str:
        """The lower or upper half of a vector; a scalar where one lane is left."""
        half = width // 2
        wide = vector(ty, width)
        if half == 1:
            return self.do(f"extractelement {wide} {value}, i64 {int(upper)}")
        lanes = ", ".join(f"i32 {i + half * upper}" for i in range(half))
        return self.do(f"shufflevector {wide} {value}, {wide} poison, <{half} x i32> <{lanes}>")

    def alternate(self, a: str, b: str, ty: str, width: int) -> tuple[str, str]:
        """The even and the odd elements of two vectors, one after the other."""
        wide = vector(ty, width)
        made = []
        for first in (0, 1):
            lanes = ", ".join(f"i32 {i}" for i in range(first, 2 * width, 2))
            made.append(self.do(f"shufflevector {wide} {a}, {wide} {b}, <{width} x i32> <{lanes}>"))
        return made[0], made[1]

    def alternate_lanes(self, value: str, ty: str, width: int) -> tuple[str, str]:
        """The even and the odd lanes of a vector, each in half a vector; scalars where one is left."""
        wide, half = vector(ty, width), width // 2
        made = []
        for first in (0, 1):
            if half == 1:
                made.append(self.do(f"extractelement {wide} {value}, i64 {first}"))
                continue
            lanes = ", ".join(f"i32 {i}" for i in range(first, width, 2))
            made.append(
                self.do(f"shufflevector {wide} {value}, {wide} poison, <{half} x i32> <{lanes}>")
            )
        return made[0], made[1]

    def any_lane(self, mask: str, width: int, bits: int) -> str:
        """Is any lane true? A mask is made from numbers of so many bits, which fill several registers:
        these are put together first, as masks where the processor has such, else as numbers."""
        if width == 1:
            return mask
        ty = "i1" if self.module.avx512 else f"i{bits}"
        if ty != "i1":
            mask = self.do(f"sext <{width} x i1> {mask} to <{width} x {ty}>")
        while width * bits > 8 * self.module.register_bytes:
            low, high = (self.half(mask, ty, width, upper) for upper in (False, True))
            width //= 2
            mask = self.do(f"or <{width} x {ty}> {low}, {high}")
        if ty != "i1":
            mask = self.do(f"icmp slt <{width} x {ty}> {mask}, zeroinitializer")
        together = self.do(f"bitcast <{width} x i1> {mask} to i{width}")
        return self.do(f"icmp ne i{width} {together}, 0")


__all__ = [
    "MEMORY",
    "REGISTER",
    "Function",
    "Module",
    "register",
    "splat",
    "vector",
]
