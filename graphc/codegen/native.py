"""A small language for native routines that serve Python calls: Python's syntax, 64-bit integers.

In:   functions in Python's syntax; constants; the C functions that they call; globals and their sizes.
Out:  the text of an LLVM module, whose global `TABLE` holds the addresses of those C functions.
Invariant: every value is one i64, addresses included; nothing is checked but names and forms. Code depends on no address,
so it can run in any process that fills the table.

    load(p) load32(p) load8(p)                 what stands at an address, 32 bits with their sign, 8 bits without
    store(p, v) store32(p, v) store8(p, v)     put a number there
    a // b                                     rounded towards 0, unlike in Python; b is not 0
    store_float(p, v)                          the double whose bits are v, as a float
    stack(n)                                   n bytes of this call's frame; not inside of loops
    WORDS                                      the address of a global of that name, zeros at first
    invoke(f, x)                               call the address f: an i32 function of one pointer
    ask(f, a, b)                               call the address f: an i64 function of two
    C_name(...)                                a C function of the table
    PY_name                                    an object of the table
    name(...)                                  another function of the text

>>> text = module('''
... def largest(p, n):
...     best = load(p)
...     i = 1
...     while i < n:
...         if load(p + 8 * i) > best:
...             best = load(p + 8 * i)
...         i += 1
...     return best
... ''', ("largest",))
>>> from graphc.runtime.jit import Jit
>>> import ctypes
>>> library = Jit.link(text, ("largest",))
>>> function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(library.address("largest"))
>>> function((ctypes.c_int64 * 3)(4, 9, 2), 3)
9
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TABLE = "gc_table"
SHORT = 3  # statements of a function that is always part of its callers
_BINARY = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
}
_BINARY |= {ast.LShift: "shl", ast.RShift: "lshr", ast.FloorDiv: "sdiv"}
_COMPARE = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "slt",
    ast.LtE: "sle",
    ast.Gt: "sgt",
    ast.GtE: "sge",
}
_LOADS = {"load": ("i64", ""), "load32": ("i32", "sext"), "load8": ("i8", "zext")}
_STORES = {"store": "i64", "store32": "i32", "store8": "i8"}


@dataclass(frozen=True)
class Surroundings:
    """What the text may name besides its own functions."""

    constants: Mapping[str, int] = field(default_factory=dict)
    # What the table holds: C functions by their result, "i64", "i32", "double" or "void", "object"s, and "number"s that
    # only the process knows.
    functions: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, int] = field(default_factory=dict)  # globals, and how many words each has


def module(text: str, exports: Sequence[str], around: Surroundings | None = None) -> str:
    """The module of some functions."""
    around = around or Surroundings()
    tree = ast.parse(text)
    definitions = [f for f in tree.body if isinstance(f, ast.FunctionDef)]
    known = {f.name: len(f.args.args) for f in definitions}
    parts = [f"@{TABLE} = global [{max(len(around.functions), 1)} x i64] zeroinitializer"]
    parts += [
        f"@{name} = internal global [{n} x i64] zeroinitializer" for name, n in around.words.items()
    ]
    inside = _inlined(definitions, exports)
    for f in definitions:
        parts.append(_Function(f, around, known, f.name in exports, f.name in inside).text())
    parts.append('attributes #0 = { nounwind "no-builtins" }')
    parts.append('attributes #1 = { nounwind alwaysinline "no-builtins" }\n')
    return "\n".join(parts)


def _inlined(definitions: Sequence[ast.FunctionDef], exports: Sequence[str]) -> set[str]:
    """Functions that become part of their callers: short ones, and those with one caller.

    Not those that can call themselves, or take from the frame of the call that they are part of.
    """
    names = {f.name for f in definitions}
    calls = {
        f.name: [n.id for n in ast.walk(f) if isinstance(n, ast.Name) and n.id in names | {"stack"}]
        for f in definitions
    }
    uses = [name for found in calls.values() for name in found]
    return {
        f.name
        for f in definitions
        if f.name not in exports
        and (len(f.body) <= SHORT or uses.count(f.name) == 1)
        and "stack" not in calls[f.name]
        and not _reaches(f.name, f.name, calls)
    }


def _reaches(start: str, goal: str, calls: Mapping[str, Sequence[str]]) -> bool:
    seen: set[str] = set()
    pending = list(calls[start])
    while pending:
        name = pending.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            pending.extend(calls.get(name, ()))
    return False


class _Function:
    """Writes one function. Variables live in memory; a pass of LLVM's puts them into registers."""

    def __init__(
        self,
        definition: ast.FunctionDef,
        around: Surroundings,
        known: Mapping[str, int],
        exported: bool,
        inlined: bool = False,
    ) -> None:
        self.definition, self.around, self.known = definition, around, known
        self.exported, self.inlined = exported, inlined
        self.slots = {name: i for i, name in enumerate(around.functions)}
        self.lines: list[str] = []
        self.count = 0
        self.loops: list[tuple[str, str]] = []  # where `continue` and `break` go
        self.ended = False  # the current block has its last instruction
        arguments = [a.arg for a in definition.args.args]
        assigned = (
            n.id
            for n in ast.walk(definition)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        )
        self.variables = dict.fromkeys([*arguments, *assigned])

    def text(self) -> str:
        name, arguments = self.definition.name, [a.arg for a in self.definition.args.args]
        parameters = ", ".join(f"i64 %arg.{a}" for a in arguments)
        head = [
            f"define {'' if self.exported else 'internal '}i64 @{name}({parameters}) #{int(self.inlined)} {{",
            "entry:",
        ]
        head += [f"  %v.{v} = alloca i64" for v in self.variables]
        head += [f"  store i64 %arg.{a}, ptr %v.{a}" for a in arguments]
        self.body(self.definition.body)
        if not self.ended:
            self.say("ret i64 0")
        return "\n".join([*head, *self.lines, "}"])

    # -- statements -----------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def do(self, text: str) -> str:
        self.count += 1
        self.say(f"%.{self.count} = {text}")
        return f"%.{self.count}"

    def label(self) -> str:
        self.count += 1
        return f"L{self.count}"

    def end(self, text: str) -> None:
        if not self.ended:
            self.say(text)
        self.ended = True

    def open_block(self, label: str) -> None:
        self.end(f"br label %{label}")
        self.lines.append(f"{label}:")
        self.ended = False

    def body(self, statements: Sequence[ast.stmt]) -> None:
        for s in statements:
            if self.ended:
                raise SyntaxError(f"{self.definition.name}, line {s.lineno}: this is never reached")
            self.statement(s)

    def statement(self, s: ast.stmt) -> None:
        match s:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.assign(name, self.value(value))
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                self.assign(name, self.binary(op, self.variable(name), self.value(value)))
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Expr(value=value):
                self.value(value)
            case ast.If():
                self.choice(s)
            case ast.While():
                self.loop(s)
            case ast.Return(value=None):
                self.end("ret i64 0")
            case ast.Return(value=ast.expr() as value):
                self.end(f"ret i64 {self.value(value)}")
            case ast.Break():
                self.end(f"br label %{self.loops[-1][1]}")
            case ast.Continue():
                self.end(f"br label %{self.loops[-1][0]}")
            case _:
                raise SyntaxError(f"{self.definition.name}, line {s.lineno}: {ast.unparse(s)}")

    def assign(self, name: str, value: str) -> None:
        self.say(f"store i64 {value}, ptr %v.{name}")

    def choice(self, s: ast.If) -> None:
        yes, no, after = self.label(), self.label(), self.label()
        self.condition(s.test, yes, no)
        ended = True
        for label, statements in ((yes, s.body), (no, s.orelse)):
            self.open_block(label)
            self.body(statements)
            ended = ended and self.ended
            self.end(f"br label %{after}")
        if not ended:
            self.open_block(after)

    def loop(self, s: ast.While) -> None:
        head, inside, after = self.label(), self.label(), self.label()
        self.open_block(head)
        self.condition(s.test, inside, after)
        self.open_block(inside)
        self.loops.append((head, after))
        self.body(s.body)
        self.loops.pop()
        self.end(f"br label %{head}")
        self.open_block(after)

    def condition(self, test: ast.expr, yes: str, no: str) -> None:
        """Go to one label or the other; `and`, `or` and `not` look no further than they have to."""
        match test:
            case ast.BoolOp(op=op, values=values):
                for v in values[:-1]:
                    following = self.label()
                    self.condition(
                        v,
                        following if isinstance(op, ast.And) else yes,
                        no if isinstance(op, ast.And) else following,
                    )
                    self.open_block(following)
                self.condition(values[-1], yes, no)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.condition(operand, no, yes)
            case ast.Compare():
                self.end(f"br i1 {self.comparison(test)}, label %{yes}, label %{no}")
            case _:
                bit = self.do(f"icmp ne i64 {self.value(test)}, 0")
                self.end(f"br i1 {bit}, label %{yes}, label %{no}")

    def comparison(self, e: ast.Compare) -> str:
        if len(e.ops) > 1:
            raise SyntaxError(f"{self.definition.name}, line {e.lineno}: {ast.unparse(e)}")
        left, right = self.value(e.left), self.value(e.comparators[0])
        return self.do(f"icmp {_COMPARE[type(e.ops[0])]} i64 {left}, {right}")

    # -- values ---------------------------------------------------------------------------------------------------

    def variable(self, name: str) -> str:
        if name in self.variables:
            return self.do(f"load i64, ptr %v.{name}")
        if name in self.around.constants:
            return str(self.around.constants[name])
        if name in self.known or name in self.around.words:
            return self.do(f"ptrtoint ptr @{name} to i64")
        if self.around.functions.get(name) in ("object", "number"):
            return self.do(f"load i64, ptr {self.place(name)}")
        raise NameError(f"{self.definition.name}: {name}")

    def place(self, name: str) -> str:
        """Where an address stands in the table."""
        return self.do(f"getelementptr i64, ptr @{TABLE}, i64 {self.slots[name]}")

    def value(self, e: ast.expr) -> str:
        match e:
            case ast.Constant(value=int() as number):
                return str(int(number))
            case ast.Name(id=name):
                return self.variable(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.do(f"sub i64 0, {self.value(operand)}")
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(op, self.value(left), self.value(right))
            case ast.Compare():
                return self.do(f"zext i1 {self.comparison(e)} to i64")
            case ast.Call(func=ast.Name(id=name), args=args):
                return self.call(name, args)
            case _:
                raise SyntaxError(f"{self.definition.name}, line {e.lineno}: {ast.unparse(e)}")

    def binary(self, op: ast.operator, a: str, b: str) -> str:
        return self.do(f"{_BINARY[type(op)]} i64 {a}, {b}")

    def pointer(self, address: str) -> str:
        return self.do(f"inttoptr i64 {address} to ptr")

    def call(self, name: str, args: Sequence[ast.expr]) -> str:
        values = [self.value(a) for a in args]
        if name in _LOADS:
            ty, widen = _LOADS[name]
            read = self.do(f"load {ty}, ptr {self.pointer(values[0])}, align 1")
            return self.do(f"{widen} {ty} {read} to i64") if widen else read
        if name in _STORES:
            ty = _STORES[name]
            narrow = values[1] if ty == "i64" else self.do(f"trunc i64 {values[1]} to {ty}")
            self.say(f"store {ty} {narrow}, ptr {self.pointer(values[0])}, align 1")
            return "0"
        if name == "store_float":
            double = self.do(f"bitcast i64 {values[1]} to double")
            self.say(
                f"store float {self.do(f'fptrunc double {double} to float')}, ptr {self.pointer(values[0])}, align 4"
            )
            return "0"
        if name == "stack":
            return self.do(
                f"ptrtoint ptr {self.do(f'alloca i8, i64 {values[0]}, align 64')} to i64"
            )
        if name == "invoke":
            status = self.do(f"call i32 {self.pointer(values[0])}(ptr {self.pointer(values[1])})")
            return self.do(f"sext i32 {status} to i64")
        if name == "ask":
            return self.do(f"call i64 {self.pointer(values[0])}({_typed(values[1:])})")
        if name in self.known:
            if len(values) != self.known[name]:
                raise SyntaxError(f"{self.definition.name}: {name} takes {self.known[name]} values")
            return self.do(f"call i64 @{name}({_typed(values)})")
        return self.c_call(name.removeprefix("C_"), values)

    def c_call(self, name: str, values: Sequence[str]) -> str:
        result = self.around.functions[name]
        callee = f"{self.do(f'load ptr, ptr {self.place(name)}')}({_typed(values)})"
        if result == "void":
            self.say(f"call void {callee}")
            return "0"
        found = self.do(f"call {result} {callee}")
        if result == "i64":
            return found
        return self.do(f"{'sext' if result == 'i32' else 'bitcast'} {result} {found} to i64")


def _typed(values: Sequence[str]) -> str:
    return ", ".join(f"i64 {v}" for v in values)
