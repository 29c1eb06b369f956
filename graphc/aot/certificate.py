"""certificate: the compiled value and gradient, held against the same graph in extended precision.

In:   a function or graph, and arguments for it.
Out:  a `Certificate`: the worst error of the value and of each gradient, in ULP and relative, and
      where it is.
Invariant: the other side is the dual-number oracle, which shares no code with derivatives, passes
or code generation. Large gradients are sampled: some components one by one, and the rest through
random directions.

>>> import graphc
>>> @graphc.graph
... def energy(x: graphc.f64["n"]):
...     return (x * x).sum()
>>> certificate = check(energy, np.array([1.0, 2.0, 4.0]))
>>> certificate.ok, certificate.components, certificate.gradient.ulp
(True, 3, 0.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mpmath
import numpy as np

from graphc.aot.oracle import run_dual
from graphc.dsl.declare import Declared, Graph
from graphc.dsl.signature import bind, signature_of
from graphc.dsl.trace import Leaf, Traced, flatten_arguments, trace
from graphc.dsl.tree import unflatten
from graphc.errors import DifferentiationError, SignatureError
from graphc.gates.contraction import parse_spec
from graphc.ir.reference import sizes_of
from graphc.ir.types import Size, TensorType, evaluate, product
from graphc.pipeline import Options
from graphc.runtime.arguments import bind_sizes, plain_leaf, prepare

MOST_COMPONENTS = 64
DIRECTIONS = 4
FEWEST_COMPONENTS = 4
MOST_WORK = 2_000_000  # elements that all runs of the oracle compute together, some 20 seconds


@dataclass(frozen=True)
class Worst:
    """The largest error among some numbers."""

    count: int = 0
    ulp: float = 0.0  # of the exact result
    relative: float = 0.0
    scaled: float = 0.0  # relative to the largest number of the same array: what decides
    where: str = ""
    computed: float = 0.0
    exact: str = ""
    finite: bool = True  # every number that was computed

    def __str__(self) -> str:
        if not self.count:
            return "nothing to compare"
        numbers = f"{self.count} number{'' if self.count == 1 else 's'}"
        if not self.where:
            return f"{numbers}, {'all' if self.count > 1 else 'and'} exact"
        return (
            f"{numbers}; worst {self.ulp:.3g} ULP, {self.relative:.2g} relative, at {self.where}: "
            f"{self.computed!r}, exactly {self.exact}"
        )


@dataclass(frozen=True)
class Certificate:
    """What `check` found. `ok` says that no error is above the tolerance."""

    name: str
    ok: bool
    value: Worst
    gradient: Worst
    directional: Worst
    components: int  # gradient components held against the oracle one by one
    total: int  # components that there are
    digits: int
    tolerance: float
    seed: int
    inputs: Mapping[str, np.ndarray] = field(repr=False)

    def __str__(self) -> str:
        word = "agrees" if self.ok else "DISAGREES"
        shapes = ", ".join(f"{n} {x.dtype}{list(x.shape)}" for n, x in self.inputs.items())
        lines = [
            f"{self.name} {word} with {self.digits} digits (seed {self.seed}; {shapes})",
            f"  value        {self.value}",
            f"  gradient     {self.gradient}",
        ]
        if self.components < self.total:
            lines.append(
                f"{'':15}{self.components} of {self.total:,} components were drawn at random"
            )
            lines.append(f"  directions   {self.directional}")
        return "\n".join(lines)


def check(
    function: Callable[..., Any],
    *args: Any,
    wrt: str | Sequence[str] | None = None,
    digits: int = 40,
    seed: int = 0,
    tolerance: float | None = None,
    **kwargs: Any,
) -> Certificate:
    """Hold the compiled value and gradient of a function against extended precision.

    function: a plain or declared function, a `graphc.Graph`, or a `Compiled`.
    wrt: the parameters to differentiate by; by default those of a `Compiled`, or all that are
        floats.
    digits: decimal digits of the oracle.
    seed: of the sampled components, of the directions, and of the cotangents where there is not one
        float result.
    tolerance: the error that is accepted, relative to the largest number of its array; by default
        the square root of the dtype's epsilon, which no rounding reaches in a well-conditioned
        graph, and no wrong derivative meets.
    """
    subject = _subject(function, args, kwargs, wrt)
    return _Check(subject, digits, seed, tolerance).run()


def check_random(
    function: Any,
    *,
    wrt: str | Sequence[str] | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    **options: Any,
) -> Certificate:
    """`check` at random arguments of a declared graph; `sizes` of 5 where none are given.

    Floats are normal; where that gives no finite value (a logarithm, say), uniform in 1/2..3/2.
    Integers are at least 0 and below every size, so that they may be indices.
    """
    from graphc.runtime.compiled import Compiled

    traced = function.traced
    unknown = [s for s in sizes or {} if s not in traced.graph.sizes]
    if unknown:
        raise SignatureError(
            f"{traced.name} has no size {unknown[0]!r}; "
            f"it has {', '.join(traced.graph.sizes) or 'none'}"
        )
    known = {s: 5 for s in traced.graph.sizes} | dict(sizes or {})
    if wrt is None and isinstance(function, Compiled):
        wrt = function.wrt or None
    for positive in (False, True):
        arrays = _random(traced, known, np.random.default_rng(seed), positive)
        found = _Check(
            _Subject(traced, arrays, _wrt_inputs(traced, wrt)), seed=seed, **options
        ).run()
        if found.value.finite and found.gradient.finite:
            break
    return found


def _random(
    traced: Traced, sizes: Mapping[str, int], rng: np.random.Generator, positive: bool
) -> list[np.ndarray]:
    bound = max(
        1, min((evaluate(s, sizes) for n in traced.graph.nodes for s in n.type.shape), default=1)
    )
    arrays = []
    for n in traced.arguments:
        shape = [evaluate(s, sizes) for s in n.type.shape]
        drawn: Any
        if n.type.dtype.is_float:
            drawn = rng.uniform(0.5, 1.5, shape) if positive else rng.normal(size=shape)
        else:
            drawn = rng.integers(0, 2 if n.type.dtype.is_bool else bound, shape)
        arrays.append(np.asarray(drawn).astype(n.type.dtype.numpy))
    return arrays


# -- what is checked -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subject:
    traced: Traced
    arrays: list[np.ndarray]  # of the arguments
    wrt: tuple[str, ...]  # inputs

    @property
    def inputs(self) -> list[np.ndarray]:
        return [*self.arrays, *self.traced.captured]


def _subject(
    function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], wrt: str | Sequence[str] | None
) -> _Subject:
    from graphc.runtime.compiled import Compiled

    if isinstance(function, Compiled):
        wrt = function.wrt or None if wrt is None else wrt
        function = function.declared
    if isinstance(function, (Declared, Graph)):
        traced = function.traced
        names = [n["name"] for n in traced.arguments]
        leaves = zip(function._leaves(args, kwargs), traced.arguments, names, strict=True)
        arrays = [prepare(x, n.type, name) for x, n, name in leaves]
        bind_sizes([n.type for n in traced.arguments], [a.shape for a in arrays], names)
    else:
        traced, arrays = _traced(function, args, kwargs)
    return _Subject(traced, arrays, _wrt_inputs(traced, wrt))


def _traced(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Traced, list[np.ndarray]]:
    """A function without types, traced for the types of its arguments."""
    name = getattr(function, "__name__", "function")
    bound = bind(signature_of(function), name, args, kwargs)
    names = [*list(bound.signature.parameters)[: len(bound.args)], *bound.kwargs]
    names += [f"argument_{i}" for i in range(len(names), len(bound.args) + len(bound.kwargs))]
    leaves, leaf_names, tree = flatten_arguments([*bound.args, *bound.kwargs.values()], names)
    given = [plain_leaf(x, n) for x, n in zip(leaves, leaf_names, strict=True)]
    types = [Leaf(TensorType(g.dtype, g.array.shape), g.weak) for g in given]
    count = len(bound.args)

    def positional(*values: Any) -> Any:
        return function(*values[:count], **dict(zip(bound.kwargs, values[count:], strict=True)))

    return trace(positional, unflatten(tree, types), names, name), [g.array for g in given]


def _wrt_inputs(traced: Traced, wrt: str | Sequence[str] | None) -> tuple[str, ...]:
    """The inputs below the parameters `wrt`; all float ones by default."""
    names = [n["name"] for n in traced.arguments]
    if wrt is None:
        return tuple(n["name"] for n in traced.arguments if n.type.dtype.is_float)
    wanted = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for w in wanted:
        if not any(n == w or n.startswith(f"{w}.") for n in names):
            raise SignatureError(
                f"{traced.name} has no parameter {w!r}; its inputs are {', '.join(names)}"
            )
    return tuple(n for w in wanted for n in names if n == w or n.startswith(f"{w}."))


# -- the check -------------------------------------------------------------------------------------


class _Check:
    """One subject against the oracle."""

    def __init__(
        self, subject: _Subject, digits: int = 40, seed: int = 0, tolerance: float | None = None
    ) -> None:
        self.subject, self.digits, self.seed, self.tolerance = subject, digits, seed, tolerance
        self.graph = subject.traced.graph
        self.rng = np.random.default_rng(seed)
        self.context = mpmath.MPContext()
        self.context.dps = digits + 10
        self.outputs = [(name, n.type) for name, n in self.graph.outputs]
        if not any(ty.dtype.is_float for _, ty in self.outputs):
            raise DifferentiationError(f"{self.graph.name} has no float result to differentiate")

    def run(self) -> Certificate:
        values, gradients = self._compiled()
        exact = run_dual(
            self.graph, self.subject.inputs, [None] * len(self.graph.inputs), self.digits
        )
        value = _Comparison()
        for (name, _), computed, (e, _) in zip(self.outputs, values, exact, strict=True):
            value.add_array(name, computed, e)
        places = self._places(gradients)
        gradient, directional = self._gradient(gradients, places), _Comparison()
        total = sum(g.size for g in gradients.values())
        if len(places) < total:
            directional = self._directions(gradients)
        parts = (value.worst, gradient.worst, directional.worst)
        names = [n["name"] for n in self.graph.inputs]
        return Certificate(
            self.graph.name,
            all(self._fine(w) for w in parts),
            *parts,
            len(places),
            total,
            self.digits,
            self._tolerance(),
            self.seed,
            dict(zip(names, self.subject.inputs, strict=True)),
        )

    def _tolerance(self) -> float:
        if self.tolerance is not None:
            return self.tolerance
        narrow = any(n.type.dtype.is_float and n.type.dtype.itemsize == 4 for n in self.graph.nodes)
        return float(np.sqrt(np.finfo(np.float32 if narrow else np.float64).eps))

    def _fine(self, worst: Worst) -> bool:
        return worst.scaled <= self._tolerance()

    # -- the compiled side -------------------------------------------------------------------------

    def _compiled(self) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Values and gradients, weighted with cotangents where there is more than one float
        result."""
        from graphc.runtime.kernel import compile_graph

        floats = [ty for _, ty in self.outputs if ty.dtype.is_float]
        single = len(self.outputs) == 1 and floats[0].rank == 0
        if not self.subject.wrt:
            return compile_graph(self.graph).run(self.subject.inputs), {}
        options = Options(wrt=self.subject.wrt, seeds="one" if single else "input")
        kernel = compile_graph(self.graph, options)
        self.cts = [np.ones(())] if single else self._cotangents()
        given = (
            []
            if single
            else [c for c, (_, ty) in zip(self.cts, self.outputs, strict=True) if ty.dtype.is_float]
        )
        results = kernel.run([*self.subject.inputs, *given])
        count = len(self.outputs)
        return results[:count], dict(zip(self.subject.wrt, results[count:], strict=True))

    def _cotangents(self) -> list[np.ndarray]:
        sizes = sizes_of(self.graph, self.subject.inputs)
        shapes = [[evaluate(s, sizes) for s in ty.shape] for _, ty in self.outputs]
        drawn = (self.rng.normal(size=shape) for shape in shapes)
        return [
            np.asarray(x, ty.dtype.numpy) if ty.dtype.is_float else np.zeros(())
            for x, (_, ty) in zip(drawn, self.outputs, strict=True)
        ]

    # -- the exact side ----------------------------------------------------------------------------

    def _places(self, gradients: Mapping[str, np.ndarray]) -> list[tuple[str, int]]:
        """The components to hold against the oracle: all, or as many as the work allows, drawn at
        random."""
        ends = np.cumsum([g.size for g in gradients.values()]) if gradients else np.zeros(1, int)
        most = max(FEWEST_COMPONENTS, min(MOST_COMPONENTS, MOST_WORK // max(self._work(), 1)))
        total = int(ends[-1])
        chosen = (
            range(total)
            if total <= most
            else sorted(self.rng.choice(total, most, replace=False).tolist())
        )
        names = list(gradients)
        found = []
        for i in chosen:
            leaf = int(np.searchsorted(ends, i, side="right"))
            found.append((names[leaf], int(i - (ends[leaf - 1] if leaf else 0))))
        return found

    def _work(self) -> int:
        """Elements that one run of the oracle computes."""
        sizes = sizes_of(self.graph, self.subject.inputs)
        return sum(evaluate(_elements(n), sizes) for n in self.graph.nodes)

    def _gradient(
        self, gradients: Mapping[str, np.ndarray], places: Sequence[tuple[str, int]]
    ) -> _Comparison:
        """Component by component: the derivative in the direction of one axis."""
        comparison = _Comparison()
        exact: dict[str, list[tuple[int, Any]]] = {}
        for name, i in places:
            direction = np.zeros(gradients[name].shape)
            direction.reshape(-1)[i] = 1.0
            exact.setdefault(name, []).append((i, self._slope({name: direction})))
        for name, found in exact.items():
            g = gradients[name].reshape(-1)
            scale = _largest([*(e for _, e in found), *g.tolist()])
            for i, e in found:
                index = ",".join(map(str, np.unravel_index(i, gradients[name].shape)))
                comparison.add(f"{name}[{index}]" if index else name, g[i], e, scale)
        return comparison

    def _directions(self, gradients: Mapping[str, np.ndarray]) -> _Comparison:
        """Along random directions: the sum of all components, each weighted."""
        comparison = _Comparison()
        for k in range(DIRECTIONS):
            directions = {
                name: self.rng.normal(size=g.shape).astype(g.dtype) for name, g in gradients.items()
            }
            terms = [
                t for name, g in gradients.items() for t in self._products(g, directions[name].flat)
            ]
            total = float(sum(terms, self.context.mpf(0)))
            comparison.add(f"direction {k}", total, self._slope(directions), _largest(terms))
        return comparison

    def _slope(self, directions: Mapping[str, np.ndarray]) -> Any:
        tangents = [directions.get(n["name"]) for n in self.graph.inputs]
        results = run_dual(self.graph, self.subject.inputs, tangents, self.digits)
        pairs = zip(self.cts, results, self.outputs, strict=True)
        terms = (
            t
            for ct, (_, slope), (_, ty) in pairs
            if ty.dtype.is_float
            for t in self._products(ct, slope.flat)
        )
        return sum(terms, self.context.mpf(0))

    def _products(self, floats: np.ndarray, others: Iterable[Any]) -> Iterator[Any]:
        """Products with all digits."""
        return (
            self.context.mpf(float(a)) * self.context.mpf(b)
            for a, b in zip(floats.flat, others, strict=True)
        )


def _elements(node: Any) -> Size:
    """What a node costs: the products of a contraction, else its elements."""
    if node.op != "contract":
        return node.type.size
    letters = (c for part in parse_spec(node["spec"])[:2] for c in part)
    sizes = dict(zip(letters, (s for a in node.args for s in a.type.shape), strict=True))
    return product(sizes.values())


def _largest(values: Sequence[Any]) -> float:
    """The largest finite magnitude."""
    return max((abs(float(v)) for v in values if mpmath.isfinite(v)), default=0.0)


class _Comparison:
    """Keeps the worst of many comparisons."""

    def __init__(self) -> None:
        self.worst = Worst()
        self.count = 0

    def add_array(self, name: str, computed: np.ndarray, exact: np.ndarray) -> None:
        if computed.dtype.kind != "f":
            self._add_exactly(name, computed, exact)
            return
        scale = _largest(list(exact.flat))
        for index, c in np.ndenumerate(computed):
            text = ",".join(map(str, index))
            self.add(f"{name}[{text}]" if text else name, c, exact[index], scale)

    def _add_exactly(self, name: str, computed: np.ndarray, exact: np.ndarray) -> None:
        wrong = np.argwhere(computed != exact)
        self.count += computed.size
        worst = self.worst
        if len(wrong):
            first = tuple(wrong[0])
            where = f"{name}[{','.join(map(str, first))}]"
            worst = Worst(
                0, np.inf, np.inf, np.inf, where, float(computed[first]), str(exact[first])
            )
        self._keep(worst)

    def add(self, where: str, computed: Any, exact: Any, scale: float) -> None:
        self.count += 1
        dtype = computed.dtype.type if isinstance(computed, np.generic) else np.float64
        ulp, relative, scaled = _errors(dtype(computed), exact, scale)
        worst = self.worst
        if scaled > worst.scaled:
            worst = Worst(0, ulp, relative, scaled, where, float(computed), mpmath.nstr(exact, 20))
        self._keep(worst, bool(np.isfinite(computed)))

    def _keep(self, worst: Worst, finite: bool = True) -> None:
        self.worst = replace(worst, count=self.count, finite=self.worst.finite and finite)


def _errors(computed: Any, exact: Any, scale: float) -> tuple[float, float, float]:
    """ULP, relative and scaled error. Infinities and NaNs agree with their like, and with what no
    float can hold."""
    dtype = type(computed)
    if np.isnan(computed) or mpmath.isnan(exact):
        same = bool(np.isnan(computed)) and mpmath.isnan(exact)
        return (0.0, 0.0, 0.0) if same else (np.inf, np.inf, np.inf)
    limit = mpmath.mpf(float(np.finfo(dtype).max)) * (
        1 + mpmath.mpf(float(np.finfo(dtype).eps)) / 4
    )
    if np.isinf(computed) or abs(exact) > limit:
        same = bool(np.isinf(computed)) and abs(exact) > limit and (computed > 0) == (exact > 0)
        return (0.0, 0.0, 0.0) if same else (np.inf, np.inf, np.inf)
    error = abs(mpmath.mpf(float(computed)) - exact)
    if error == 0:
        return 0.0, 0.0, 0.0
    spacing = mpmath.mpf(float(np.spacing(dtype(abs(float(exact))))))
    relative = float(error / abs(exact)) if exact != 0 else np.inf
    smallest = float(np.finfo(dtype).tiny)
    return float(error / spacing), relative, float(error / max(scale, smallest))


__all__ = ["Certificate", "Worst", "check", "check_random"]
