"""The rewrite engine: rules as data, applied until none fits.

In:   values of one builder and an index of rules.
Out:  the same values in normal form: no rule fits at any node of them.
Invariant: every node is settled once, operands first, on an explicit stack. A rule that leads back
to its own root, or rules that fire without end, are a `RewriteError` that names them.

A rule is written in operator syntax. Its parameters are pattern variables: `p`, `q`, `r` stand for
bools, names with `c` for a constant that is one number everywhere, variables in the place of an
attribute for that attribute, all others for any value. A number matches a constant of the same
bits. In `where` and in the right side, `out` is the root itself.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64[3])
>>> rules = Index([Rule("mul-one", lambda x: x * 1.0, lambda x: x)])
>>> settled, = Rewriter(b, rules).settle([x * 1.0 * 1.0])
>>> settled.node is x.node
True
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from graphc.errors import RewriteError
from graphc.gates.gate import Gate, registry
from graphc.ir.graph import Builder, Node, Value, is_splat, reachable
from graphc.ir.scalar import to_bits
from graphc.ir.types import DType

BOOLS = ("p", "q", "r")
DTYPE_CLASSES: Mapping[str, Callable[[DType], bool]] = {
    "any": lambda d: True,
    "float": lambda d: d.is_float,
    "int": lambda d: d.is_int,
    "bool": lambda d: d.is_bool,
    "number": lambda d: not d.is_bool,
    "exact": lambda d: not d.is_float,
}


@dataclass(frozen=True, eq=False)
class Pattern:
    """A variable (`name`), or a gate applied to patterns and numbers."""

    op: str = ""
    args: tuple[PatternOperand, ...] = ()
    attrs: tuple[tuple[str, Any], ...] = ()
    name: str = ""

    def apply_gate(
        self, gate: Gate, args: Sequence[PatternOperand], attrs: Mapping[str, Any]
    ) -> Pattern:
        return Pattern(gate.name, tuple(args), tuple(attrs.items()))

    def __add__(self, other: PatternOperand) -> Pattern:
        return Pattern("add", (self, other))

    def __radd__(self, other: PatternOperand) -> Pattern:
        return Pattern("add", (other, self))

    def __sub__(self, other: PatternOperand) -> Pattern:
        return Pattern("sub", (self, other))

    def __rsub__(self, other: PatternOperand) -> Pattern:
        return Pattern("sub", (other, self))

    def __mul__(self, other: PatternOperand) -> Pattern:
        return Pattern("mul", (self, other))

    def __rmul__(self, other: PatternOperand) -> Pattern:
        return Pattern("mul", (other, self))

    def __truediv__(self, other: PatternOperand) -> Pattern:
        return Pattern("div", (self, other))

    def __rtruediv__(self, other: PatternOperand) -> Pattern:
        return Pattern("div", (other, self))

    def __neg__(self) -> Pattern:
        return Pattern("neg", (self,))


PatternOperand = Pattern | int | float | bool
Rewrite = Callable[[Value, Sequence[Value]], Value | None]  # (root, operands) -> replacement


def _parameters(function: Callable[..., Any] | None) -> tuple[str, ...]:
    """The names of a function's parameters, those with a default left out."""
    if function is None:
        return ()
    return tuple(
        n for n, p in inspect.signature(function).parameters.items() if p.default is p.empty
    )


@dataclass(frozen=True, eq=False)
class Rule:
    """One rewrite: `lhs` becomes `rhs` where `where` holds and the variables fit the dtype class.

    A rule for a whole family of gates has `roots` and `rewrite` in place of `lhs` and `rhs`; it is
    tried where some operand is a node of the operation `among`.
    """

    name: str
    lhs: Callable[..., Any] | None = None
    rhs: Callable[..., Value] | None = None
    where: Callable[..., bool] | None = None
    dtype: str = "any"
    exact: bool = True
    doc: str = ""
    roots: tuple[str, ...] = ()
    among: str = ""
    rewrite: Rewrite | None = None

    @cached_property
    def variables(self) -> tuple[str, ...]:
        return _parameters(self.lhs)

    @cached_property
    def pattern(self) -> Pattern:
        assert self.lhs is not None
        return self.lhs(**{name: Pattern(name=name) for name in self.variables})

    @cached_property
    def ops(self) -> tuple[str, ...]:
        return self.roots or (self.pattern.op,)

    @property
    def is_scalar(self) -> bool:
        """Whether both sides are elementwise, so that scalars prove it."""
        gates = registry()
        return self.lhs is not None and all(
            gates[part.op].kind == "elementwise" and not part.attrs
            for part in _parts(self.pattern)
            if part.op
        )

    @cached_property
    def _quick(self) -> tuple[tuple[int, str, _Number | None], ...]:
        """Operands that alone can tell that the rule does not fit: their operations and numbers."""
        tests: list[tuple[int, str, _Number | None]] = []
        for i, a in enumerate(self.pattern.args):
            if not isinstance(a, Pattern):
                tests.append((i, "constant", _Number(a)))
            elif a.name.startswith("c"):
                tests.append((i, "constant", None))
            elif a.op:
                tests.append((i, a.op, None))
        return tuple(tests)

    @cached_property
    def _twice(self) -> tuple[tuple[int, int], ...]:
        """Operands that are one variable."""
        first: dict[str, int] = {}
        names = [(i, a.name) for i, a in enumerate(self.pattern.args) if isinstance(a, Pattern)]
        pairs = [(first.setdefault(name, i), i) for i, name in names if name]
        return tuple(pair for pair in pairs if pair[0] != pair[1])

    def may_fit_among(self, ops: Sequence[str]) -> bool:
        """What the operations of a node's operands tell; few rules are left."""
        if self.rewrite is not None:
            return self.among in ops
        return all(ops[i] == op for i, op, _ in self._quick)

    def may_fit(self, args: tuple[Node, ...]) -> bool:
        """What operands of such operations tell at once."""
        if self.rewrite is not None:
            return True
        for i, _, number in self._quick:
            a = args[i]
            if number is not None and a["data"] != number.data(a.type.dtype):
                return False
        for i, j in self._twice:
            if args[i] is not args[j]:
                return False
        return True

    @cached_property
    def _calls(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return _parameters(self.where), _parameters(self.rhs)

    def apply(self, builder: Builder, node: Node) -> Value | None:
        """What a rule that may fit among the operands puts in the node's place; None where it
        does not fit.
        """
        if not self.may_fit(node.args):
            return None
        if self.rewrite is not None:
            return self._family(self.rewrite, builder, node)
        env = self._bound(builder, node)
        if env is None:
            return None
        assert self.rhs is not None
        with builder.made_by(f"rule {self.name}", builder.origins.get(node)):
            return self.rhs(**{k: env[k] for k in self._calls[1]})

    def _family(self, rewrite: Rewrite, builder: Builder, node: Node) -> Value | None:
        with builder.made_by(f"rule {self.name}", builder.origins.get(node)):
            return rewrite(Value(builder, node), [Value(builder, a) for a in node.args])

    def _bound(self, builder: Builder, node: Node) -> dict[str, Any] | None:
        """The variables as values, where the rule fits."""
        found = _match(self.pattern, node)
        if found is None:
            return None
        fits = DTYPE_CLASSES[self.dtype]
        env: dict[str, Any] = {}
        for name, v in found.items():
            if isinstance(v, Node):
                if name not in BOOLS and not fits(v.type.dtype):
                    return None
                v = Value(builder, v)
            env[name] = v
        env["out"] = Value(builder, node)
        holds = self.where is None or self.where(**{k: env[k] for k in self._calls[0]})
        return env if holds else None


def _parts(pattern: Pattern) -> list[Pattern]:
    parts = [pattern]
    for part in parts:  # grows while it runs
        parts.extend(a for a in part.args if isinstance(a, Pattern))
    return parts


def _match(pattern: Pattern, node: Node) -> dict[str, Any] | None:
    """Variables and what they stand for; None where the pattern does not fit."""
    env: dict[str, Any] = {}
    pending: list[tuple[PatternOperand, Node]] = [(pattern, node)]
    while pending:
        p, n = pending.pop()
        if not isinstance(p, Pattern):
            if not _is_number(n, p):
                return None
        elif p.name:
            if env.setdefault(p.name, n) is not n or (p.name[0] == "c" and not is_splat(n)):
                return None
        elif p.op != n.op or len(p.args) != len(n.args) or not _match_attrs(p, n, env):
            return None
        else:
            pending.extend(zip(p.args, n.args, strict=True))
    return env


def _match_attrs(pattern: Pattern, node: Node, env: dict[str, Any]) -> bool:
    for name, p in pattern.attrs:
        value = node[name]
        expected = env.setdefault(p.name, value) if isinstance(p, Pattern) else p
        if expected != value:
            return False
    return True


class _Number:
    """A number of a pattern, as the bytes of a constant of each dtype."""

    def __init__(self, number: int | float | bool) -> None:
        self.number = number
        self._data: dict[DType, bytes | None] = {}

    def data(self, dtype: DType) -> bytes | None:
        """None where no constant of the dtype matches."""
        if dtype not in self._data:
            fits = dtype.is_float or not isinstance(self.number, float)
            self._data[dtype] = _bytes(self.number, dtype) if fits else None
        return self._data[dtype]


def _bytes(number: int | float | bool, dtype: DType) -> bytes:
    return to_bits(number, dtype).to_bytes(dtype.itemsize, "little")


def _is_number(node: Node, number: int | float | bool) -> bool:
    dtype = node.type.dtype
    if not is_splat(node) or (isinstance(number, float) and not dtype.is_float):
        return False
    return bool(node["data"] == _bytes(number, dtype))


class Index:
    """Rules by the operation of their root, in order, and by those of its operands."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._by_root: dict[str, list[Rule]] = {}
        for rule in rules:
            for op in rule.ops:
                self._by_root.setdefault(op, []).append(rule)
        self._found: dict[tuple[str, ...], tuple[Rule, ...]] = {}

    def of(self, node: Node) -> tuple[Rule, ...]:
        """The rules that may fit."""
        key = (node.op, *[a.op for a in node.args])
        found = self._found.get(key)
        if found is None:
            rules = self._by_root.get(node.op, ())
            found = self._found[key] = tuple([r for r in rules if r.may_fit_among(key[1:])])
        return found


@dataclass
class Rewriter:
    """Settles the nodes of one builder. `fired` counts the rules that fired, `becomes` is their
    trace.
    """

    builder: Builder
    rules: Index
    fold: bool = True
    fired: dict[str, int] = field(default_factory=dict)
    budget: int = 0

    def __post_init__(self) -> None:
        self.normal: dict[Node, Node] = {}
        self.becomes: dict[Node, tuple[str, Node]] = {}
        self._gates = registry()
        self._recent: list[str] = []

    def settle(self, values: Sequence[Value]) -> list[Value]:
        nodes = reachable(v.node for v in values)
        self.budget = 1000 + 50 * len(nodes)
        for node in nodes:  # operands first, which keeps the stack below shallow
            if node not in self.normal:
                pending = [node]
                self._advance(node, pending)
                if node not in self.normal:
                    self._settle(pending)
        return [Value(self.builder, self.normal[v.node]) for v in values]

    def _settle(self, pending: list[Node]) -> None:
        normal, becomes = self.normal, self.becomes
        while pending:
            top = pending[-1]
            if top in normal:
                pending.pop()
            elif top in becomes:
                end = normal.get(becomes[top][1])
                if end is None:
                    self._raise_cycle(pending)
                normal[top] = end  # type: ignore[assignment]
            elif missing := [a for a in top.args if a not in normal]:
                if any(a in becomes for a in missing):
                    self._raise_cycle(pending)
                pending.extend(reversed(missing))
            else:
                self._advance(top, pending)

    def _advance(self, node: Node, pending: list[Node]) -> None:
        """One step: operands in normal form, then a fold or the first rule that fits."""
        args = tuple([self.normal[a] for a in node.args])
        origins = self.builder.origins.get(node)
        name, after = "", node
        if args != node.args:
            after = self.builder.copy(node, args, origins)
        else:
            name, after = self._rewritten(node)
        if after is node:
            self.normal[node] = node
            return
        self.becomes[node] = (name, after)
        if after in self.becomes and after not in self.normal:
            self._raise_cycle([*pending, after])
        if name:
            self._count(name)
        if after not in self.normal:
            pending.append(after)

    def _rewritten(self, node: Node) -> tuple[str, Node]:
        if (
            self.fold
            and node.args
            and all(map(is_splat, node.args))
            and self._gates[node.op].kind == "elementwise"
        ):
            with self.builder.made_by("fold", self.builder.origins.get(node)):
                return "fold", folded(self.builder, node).node
        for rule in self.rules.of(node):
            after = rule.apply(self.builder, node)
            if after is not None and after.node is not node:
                if after.type != node.type:
                    raise RewriteError(f"rule {rule.name} makes {after.type} of {node.type}")
                return rule.name, after.node
        return "", node

    def _count(self, name: str) -> None:
        self.fired[name] = self.fired.get(name, 0) + 1
        self._recent.append(name)
        self.budget -= 1
        if self.budget < 0:
            cycle = list(dict.fromkeys(self._recent[-20:]))
            raise RewriteError(
                f"the rules do not settle; the last ones that fired: {', '.join(cycle)}"
            )

    def _raise_cycle(self, pending: Sequence[Node]) -> None:
        chain = [n for n in pending if n in self.becomes and n not in self.normal]
        names = dict.fromkeys(self.becomes[n][0] for n in chain)
        cycle = ", ".join(name for name in names if name)
        raise RewriteError(f"the rules lead back to where they began: {cycle}")


def folded(builder: Builder, node: Node) -> Value:
    """An elementwise node of constants, computed by running its body: not a bit differs from the
    compiled code.
    """
    operands = [np.frombuffer(a["data"], a.type.dtype.numpy) for a in node.args]
    result = np.asarray(registry()[node.op].reference(node, operands, {}))
    return builder.constant(result.reshape(()).item(), node.type)
