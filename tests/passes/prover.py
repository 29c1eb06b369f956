"""Proofs of rewrite rules: both sides are run and must give the same bits, NaNs all being equal.

Scalar rules run on floats of 16 bits, exhaustively for one variable, over a grid for more; on the
special values of f32 and f64; on integers as wide as a byte and at the ends of their range; and on
bools. All other rules run on examples, over labelled data of small shapes.
"""

from __future__ import annotations

import itertools

import numpy as np

from graphc.gates.gate import registry
from graphc.ir.graph import Builder
from graphc.ir.reference import _MEANING, run_graph
from graphc.ir.scalar import from_bits
from graphc.ir.types import TensorType, bool_, f32, f64, i32, i64
from graphc.passes.rewrite import BOOLS, DTYPE_CLASSES, Index, Rewriter

HALF = {f32: np.dtype("f2"), i32: np.dtype("i2"), bool_: np.dtype("?")}
SPECIALS = (0.0, -0.0, 1.0, -1.0, 0.5, -1.5, 2.0, 3.0, np.inf, -np.inf, np.nan)
CONSTANTS = (*SPECIALS, 4.0, -32.0, 4096.0, 2.0**-12, 0.1875)
INTS = (0, 1, -1, 2, -2, 3, 7, 46341, 2**31 - 1, -(2**31))


def same(a, b):
    """Where two arrays hold the same bits, or NaN both."""
    assert a.dtype == b.dtype and a.shape == b.shape, (a.dtype, a.shape, b.dtype, b.shape)
    bits = np.dtype(f"u{a.dtype.itemsize}")
    equal = np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)
    return equal | (np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else equal


def all_halves():
    return np.arange(2**16, dtype=np.uint16).view("f2")


def some_halves(count):
    """Halves of all exponents, and the special ones."""
    step = 2**16 // count
    spread = np.arange(step // 3, 2**16, step, dtype=np.uint16).view("f2")
    return np.unique(np.concatenate([spread, np.array(SPECIALS, "f2")]).view("u2")).view("f2")


def special_floats(dtype):
    info = np.finfo(dtype.numpy)
    ends = [
        info.tiny,
        info.smallest_subnormal,
        info.max,
        1 + info.eps,
        1 - info.epsneg,
        1 / info.tiny,
    ]
    values = [*SPECIALS, *ends, *(-v for v in ends)]
    return np.array(values, dtype.numpy)


def domain(dtype, variables, half):
    """Values for each of several variables."""
    if dtype.is_bool:
        return np.array([False, True])
    if dtype.is_int:
        ends = np.array(
            INTS if dtype is i32 else (*INTS, 3037000500, 2**63 - 1, -(2**63)), dtype.numpy
        )
        narrow = (
            np.arange(-128, 128, dtype=dtype.numpy)
            if variables < 3
            else np.arange(-8, 8, dtype=dtype.numpy)
        )
        return np.concatenate([narrow, ends])
    if half:
        return all_halves() if variables == 1 else some_halves(256 if variables == 2 else 32)
    return special_floats(dtype)


def sides(rule, dtype, constants=()):
    """The graph of both sides over vectors, or None where the rule's condition does not hold."""
    builder, rest = Builder(), iter(constants)
    ty = TensorType(dtype, dtype["n"].shape)
    env = {}
    for name in rule.variables:
        if name.startswith("c"):
            env[name] = builder.constant(next(rest), ty)
        else:
            env[name] = builder.input(name, ty.with_dtype(bool_) if name in BOOLS else ty)
    out = left(rule, builder, env, ty)
    env["out"] = out
    _, wanted_right = rule._calls
    if rule.where is not None and not rule.where(**{k: env[k] for k in rule._calls[0]}):
        return None
    return builder.graph(
        rule.name, {"left": out, "right": rule.rhs(**{k: env[k] for k in wanted_right})}
    )


def left(rule, builder, env, ty):
    """The left side as values; a number that stands without a handle beside it takes the type of
    the variables.
    """
    made = {}
    pending = [rule.pattern]
    while pending:
        p = pending[-1]
        todo = [a for a in p.args if hasattr(a, "name") and id(a) not in made]
        if p.name:
            made[id(p)] = env[p.name]
        elif todo:
            pending.extend(todo)
            continue
        else:
            args = [
                made[id(a)] if hasattr(a, "name") else _number(a, builder, p, ty) for a in p.args
            ]
            made[id(p)] = builder.apply(p.op, *args)
        pending.pop()
    return made[id(rule.pattern)]


def _number(value, builder, parent, ty):
    boolean = isinstance(value, bool)
    return builder.constant(value, ty.with_dtype(bool_) if boolean else ty)


def dtypes_of(rule):
    return [d for d in (f64, f32, i64, i32, bool_) if DTYPE_CLASSES[rule.dtype](d)]


def prove_scalar(rule):
    """None, or the counterexample as text."""
    counted = sum(name.startswith("c") for name in rule.variables)
    proven = False
    only_bools = all(v in BOOLS for v in rule.variables)
    for dtype in [bool_] if only_bools else dtypes_of(rule):
        values = CONSTANTS if dtype.is_float else INTS if dtype.is_int else (False, True)
        for constants in itertools.product(values, repeat=counted):
            graph = sides(rule, dtype, constants)
            if graph is None:
                continue
            proven = True
            wrong = _compare(graph, dtype, half=False)
            if wrong is None and dtype is f32:
                wrong = _compare(graph, dtype, half=True)
            if wrong is not None:
                return f"{rule.name} on {dtype}, constants {constants}: {wrong}"
    return None if proven else f"{rule.name}: the condition never holds"


def _compare(graph, dtype, half):
    numbers = sum(not n.type.dtype.is_bool for n in graph.inputs)
    domains = [domain(n.type.dtype, numbers, half) for n in graph.inputs]
    grid = [g.reshape(-1) for g in np.meshgrid(*domains, indexing="ij")]
    a, b = run_half(graph, grid) if half else run_graph(graph, grid)
    agree = same(a, b)
    if agree.all():
        return None
    first = int(np.argmin(agree))
    at = ", ".join(f"{n['name']}={g[first]}" for n, g in zip(graph.inputs, grid, strict=True))
    return f"{at}: {a[first]} became {b[first]}" + (" (half)" if half else "")


def run_half(graph, args):
    """The graph's f32 meaning, carried out in floats of 16 bits."""
    values = dict(zip(graph.inputs, args, strict=True))
    shape = args[0].shape
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if node.op == "constant":
                number = from_bits(int.from_bytes(node["data"], "little"), node.type.dtype)
                values[node] = np.full(shape, number, HALF[node.type.dtype])
            elif node not in values:
                values[node] = _half_scalar(
                    node.gate.node_body(node), [values[a] for a in node.args]
                )
    return [values[n] for n in graph.output_nodes]


def _half_scalar(scalar, args):
    values = list(args)
    for ins in scalar.code:
        operands = [values[a] for a in ins.args]
        if ins.op == "const":
            number = from_bits(ins.attr, ins.dtype)
            if ins.dtype is i32:
                number = max(number, -(2**15))  # the mask of the sign bit
            values.append(np.full(args[0].shape, number, HALF[ins.dtype]))
        elif ins.op == "call":
            body = registry()[ins.attr].body_graph((f32,) * len(operands))
            values.append(_half_scalar(body, operands))
        elif ins.op == "bitcast":
            values.append(np.ascontiguousarray(operands[0]).view(HALF[ins.dtype]))
        elif ins.op == "convert" and ins.dtype is bool_:
            values.append(operands[0] != 0)
        else:
            values.append(np.asarray(_MEANING[ins.op](*operands), HALF[ins.dtype]))
    return values[scalar.result]


def labelled(ty):
    """Distinct numbers, special ones among them."""
    count = int(np.prod(ty.shape, dtype=int))
    if ty.dtype.is_bool:
        return (np.arange(count) % 3 == 0).reshape(ty.shape)
    data = np.arange(3, 3 + count).astype(ty.dtype.numpy)
    if ty.dtype.is_float:
        data[3::5], data[4::7], data[2::11] = -0.0, np.nan, -np.inf
    return data.reshape(ty.shape)


def prove_examples(rule, graphs):
    """None, or the example that the rule breaks; a rule that fires on none is broken, too."""
    fired = 0
    for graph in graphs:
        after, counts = rewritten(rule, graph)
        fired += counts.get(rule.name, 0)
        args = [labelled(n.type) for n in graph.inputs]
        for a, b in zip(run_graph(graph, args), run_graph(after, args), strict=True):
            if not (a.shape == b.shape and same(a, b).all()):
                return f"{rule.name} turned\n{graph}\ninto\n{after}"
    return None if fired else f"{rule.name} fired on no example"


def rewritten(rule, graph):
    builder = Builder()
    inputs = [builder.input(n["name"], n.type) for n in graph.inputs]
    here = builder.inline(graph, inputs)
    rewriter = Rewriter(builder, Index([rule]), fold=False)
    outputs = rewriter.settle([here[n] for n in graph.output_nodes])
    named = dict(zip([name for name, _ in graph.outputs], outputs, strict=True))
    return builder.graph(graph.name, named), rewriter.fired
