"""A compiled graph, as its user holds it: value, gradient, forward and backward in native code.

In:   a declared graph and the parameters to differentiate by.
Out:  a `Compiled`: `k(x)`, `k.value_and_grad(x)`, `k.forward(x)` and `k.backward(saved, ct)`, and
      what they cost.
Invariant: results have the structure that the function gave them, gradients the structure of their
parameters.

>>> import numpy as np
>>> from graphc.dsl.declare import graph
>>> from graphc.ir.types import f64
>>> @graph
... def energy(x: f64["n"], k: f64):
...     return k * (x * x).sum()
>>> compiled = compile(energy, wrt=("x", "k"))
>>> value, (dx, dk) = compiled.value_and_grad(np.array([1.0, 2.0]), 3.0)
>>> float(value), dx.tolist(), float(dk)
(15.0, [6.0, 12.0], 5.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from graphc.dsl.declare import Declared, Graph
from graphc.dsl.trace import Traced
from graphc.dsl.tree import LEAF, flatten_like, unflatten
from graphc.errors import DifferentiationError, SignatureError
from graphc.ir import graph as ir
from graphc.ir.types import Size, TensorType, evaluate, f64, product
from graphc.lower.plan import Plan
from graphc.pipeline import NAMES, STAGES, Options, run_stages
from graphc.runtime.arguments import as_result, bind_sizes, prepare
from graphc.runtime.kernel import LAYOUTS, Kernel, compile_graph


def compile(  # noqa: A001  the public name, as in `re.compile`
    declared: Declared | Graph | Callable[..., Any],
    wrt: str | Sequence[str] = (),
    *,
    deterministic: bool = False,
    skip: Sequence[str] = (),
) -> Compiled:
    """Compile a declared graph.

    `wrt` names the parameters to differentiate by: a name, or a tuple of names, whose gradients
    come back alike. `deterministic` keeps large matrix products in graphc's own kernel. `skip`
    leaves out optional passes ("rules", "fold", "fuse", "blocks", "reuse"), for tests and for
    curiosity.
    """
    if not isinstance(declared, (Declared, Graph)):
        declared = Declared(declared)
    return Compiled(declared, wrt, Options(deterministic=deterministic, skip=frozenset(skip)))


@dataclass(frozen=True)
class Saved:
    """What a forward run keeps for the backward: arrays that only `backward` reads."""

    arrays: tuple[np.ndarray, ...]
    sizes: Mapping[str, int]
    names: tuple[str, ...]  # what each array is, for people
    dense_nbytes: int  # of the Jacobians of all gates on the way, were they stored in full

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays)

    def __str__(self) -> str:
        lines = [
            f"  {n}: {a.dtype}[{','.join(map(str, a.shape))}] {a.nbytes:,} bytes"
            for n, a in zip(self.names, self.arrays, strict=True)
        ]
        ratio = self.dense_nbytes / max(self.nbytes, 1)
        head = f"saved {self.nbytes:,} bytes; dense Jacobians would take {self.dense_nbytes:,}"
        return "\n".join([f"{head} ({ratio:,.0f} times as many)", *lines])


class Stages(Mapping[str, str]):
    """The text of every stage, made when it is first asked for."""

    def __init__(self, graph: ir.Graph, options: Options) -> None:
        self._graph, self._options = graph, options

    @cached_property
    def items_made(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        run_stages(
            self._graph, self._options, lambda name, item: made.__setitem__(name, item), last="emit"
        )
        return made

    def __getitem__(self, name: str) -> str:
        if name not in NAMES[:-1]:
            raise KeyError(
                f"{name!r} is not a stage with a text; there are {', '.join(NAMES[:-1])}"
            )
        return STAGES[NAMES.index(name)].show(self.items_made[name])

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES[:-1])

    def __len__(self) -> int:
        return len(NAMES) - 1


class Compiled:
    """A graph as native functions. Each is compiled when it is first called."""

    def __init__(
        self, declared: Declared | Graph, wrt: str | Sequence[str], options: Options
    ) -> None:
        self.declared = declared
        self.__name__ = declared.__name__
        self.__doc__ = declared.__doc__
        self.__signature__ = declared.__signature__
        self.traced: Traced = declared.traced
        self._single = isinstance(wrt, str)
        self.wrt: tuple[str, ...] = (wrt,) if isinstance(wrt, str) else tuple(wrt)
        self._leaves = [self._leaves_of(name) for name in self.wrt]
        self.options = options
        self._checked: set[tuple[tuple[int, ...], ...]] = set()

    def __repr__(self) -> str:
        return f"<graphc.compile of {self.__name__}{self.__signature__}, wrt={self.wrt}>"

    def _leaves_of(self, name: str) -> list[str]:
        """The inputs below a parameter, or the one input of that name."""
        names = [n["name"] for n in self.traced.arguments]
        found = [n for n in names if n == name or n.startswith(f"{name}.")]
        if not found:
            known = ", ".join(self.__signature__.parameters)
            raise SignatureError(f"{self.__name__} has no parameter {name!r}; it has {known}")
        return found

    @property
    def _wrt_inputs(self) -> tuple[str, ...]:
        return tuple(n for leaves in self._leaves for n in leaves)

    def _differentiable(self, what: str) -> None:
        if not self.wrt:
            raise DifferentiationError(
                f"{self.__name__}.{what} needs parameters to differentiate by: "
                "compile it with wrt=(...)"
            )

    # -- kernels -----------------------------------------------------------------------------------

    @cached_property
    def value_kernel(self) -> Kernel:
        return compile_graph(self.traced.graph, self.options)

    @cached_property
    def gradient_kernel(self) -> Kernel:
        self._differentiable("value_and_grad")
        return compile_graph(self.traced.graph, self._gradient_options())

    def _gradient_options(self) -> Options:
        return replace(self.options, wrt=self._wrt_inputs, seeds="one")

    @cached_property
    def _halves(self) -> tuple[Kernel, Kernel, ir.Graph]:
        """The forward and the backward kernel, and the joint graph that they were cut from."""
        from graphc.lower.keep import keep
        from graphc.passes.partition import partition

        self._differentiable("forward")
        options = replace(self.options, wrt=self._wrt_inputs, seeds="input")
        joint = run_stages(self.traced.graph, options, last="simplify")
        outputs = tuple(name for name, _ in self.traced.graph.outputs)
        cts = tuple(n["name"] for n in joint.inputs[len(self.traced.graph.inputs) :])
        forward, backward = partition(joint, outputs, cts, keep(joint, outputs, cts))
        return compile_graph(forward, self.options), compile_graph(backward, self.options), joint

    # -- calls -------------------------------------------------------------------------------------

    def _arrays(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[np.ndarray]:
        """The arrays that kernels read: as given where they fit, else converted, or an error."""
        if not kwargs and self._plain is not None and len(args) == len(self._plain):
            arrays = [_as_given(x, ty, name) for x, (ty, name) in zip(args, self._plain)]
            shapes = tuple([a.shape for a in arrays])
            if shapes not in self._checked:
                self._check(arrays)
            return [*arrays, *self.traced.captured]
        return self._converted(args, kwargs)

    @cached_property
    def _plain(self) -> list[tuple[TensorType, str]] | None:
        """Type and name of each parameter where all are arrays, not trees."""
        inputs = self.traced.arguments
        if any(child.kind != "leaf" for child in self.traced.in_tree.children):
            return None
        return [(n.type, n["name"]) for n in inputs]

    def _check(self, arrays: Sequence[np.ndarray]) -> None:
        inputs = self.traced.arguments
        bind_sizes([n.type for n in inputs], [a.shape for a in arrays], [n["name"] for n in inputs])
        if len(self._checked) >= LAYOUTS:
            self._checked.clear()
        self._checked.add(tuple(a.shape for a in arrays))

    def _converted(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[np.ndarray]:
        leaves = self.declared._leaves(args, kwargs)
        inputs = self.traced.arguments
        names = [n["name"] for n in inputs]
        arrays = [_as_given(x, n.type, name) for x, n, name in zip(leaves, inputs, names)]
        if tuple([a.shape for a in arrays]) not in self._checked:
            self._check(arrays)
        return [*arrays, *self.traced.captured]

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        """The value: arrays in, arrays (or a NumPy scalar) out.

        `out` takes arrays like the result, to be filled.
        """
        arrays = self._arrays(args, kwargs)
        if out is None:
            return self._tree(self.value_kernel.run(arrays))
        return self._into(arrays, out)

    def _into(self, arrays: list[np.ndarray], out: Any) -> Any:
        """Run into the caller's arrays; ones that overlap an input are filled from a copy."""
        kernel = self.value_kernel
        targets = flatten_like(self.traced.out_tree, out, "out")
        results = kernel.run(arrays)
        for name, target, result in zip(
            [n for n, _ in self.traced.graph.outputs], targets, results, strict=True
        ):
            _check_out(name, target, result)
        for target, result in zip(targets, results, strict=True):
            target[...] = result
        return out

    def _tree(self, results: Sequence[np.ndarray]) -> Any:
        if self.traced.out_tree is LEAF:
            return as_result(results[0])
        return unflatten(self.traced.out_tree, map(as_result, results))

    def _gradients(self, flat: Sequence[np.ndarray]) -> Any:
        """Gradients in the structure of their parameters."""
        rest = iter(flat)
        trees = []
        for name, leaves in zip(self.wrt, self._leaves, strict=True):
            parts = [as_result(next(rest)) for _ in leaves]
            trees.append(parts[0] if leaves == [name] else unflatten(self._structure(name), parts))
        return trees[0] if self._single else tuple(trees)

    def _structure(self, name: str) -> Any:
        return self.traced.in_tree.children[list(self.__signature__.parameters).index(name)]

    def value_and_grad(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The value, which must be one float, and its gradients, from one native function."""
        results = self.gradient_kernel.run(self._arrays(args, kwargs))
        count = len(self.traced.graph.outputs)
        return self._tree(results[:count]), self._gradients(results[count:])

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Saved]:
        """The value, and what `backward` needs of this run.

        Copies are kept, so later changes of the inputs do no harm.
        """
        arrays = self._arrays(args, kwargs)
        kernel, _, joint = self._halves
        results = kernel.run(arrays)
        sizes = bind_sizes(
            [n.type for n in self.traced.graph.inputs],
            [a.shape for a in arrays],
            [n["name"] for n in self.traced.graph.inputs],
        )
        count = len(self.traced.graph.outputs)
        names = tuple(_what(n) for _, n in kernel.graph.outputs[count:])
        dense = evaluate(dense_bytes(self.traced.graph, self._wrt_inputs), sizes)
        return self._tree(results[:count]), Saved(tuple(results[count:]), sizes, names, dense)

    def backward(self, saved: Saved, ct: Any = 1.0) -> Any:
        """The gradients, from what a forward run saved and the cotangents of its float results."""
        kernel = self._halves[1]
        wanted = [n for n in kernel.graph.inputs if not n["name"].startswith("saved_")]
        cts = self._cotangents(ct)
        arrays = []
        for n in wanted:
            ty = TensorType(n.type.dtype, tuple(evaluate(s, saved.sizes) for s in n.type.shape))
            arrays.append(
                prepare(
                    cts[n["name"].removeprefix("ct_")], ty, f"ct of {n['name'].removeprefix('ct_')}"
                )
            )
        return self._gradients(kernel.run([*saved.arrays, *arrays]))

    def _cotangents(self, ct: Any) -> dict[str, Any]:
        leaves = flatten_like(self.traced.out_tree, ct, "cotangent")
        return dict(zip([name for name, _ in self.traced.graph.outputs], leaves, strict=True))

    # -- what was made -----------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """Kernels, buffers and bytes of the value and gradient, or of the value alone."""
        return Plan((self.gradient_kernel if self.wrt else self.value_kernel).program)

    @cached_property
    def stages(self) -> Stages:
        """The text of every stage."""
        return Stages(self.traced.graph, self._gradient_options() if self.wrt else self.options)

    def explain(self) -> str:
        """What was fused, what it costs and what is saved, in prose."""
        from graphc.report.explain import explain

        return explain(self)

    def save(self, path: str) -> Any:
        """Write a shared library (or, ending in .o, an object) with a C header next to it."""
        from graphc.aot.library import save

        return save(self, path)


_SCALAR = TensorType(f64)


def _as_given(x: Any, ty: TensorType, name: str) -> np.ndarray:
    if type(x) is np.ndarray and x.dtype is ty.dtype.numpy and x.ndim == len(ty.shape):
        flags = x.flags
        if flags.c_contiguous and flags.aligned:
            return x
    elif type(x) in (float, np.float64) and ty == _SCALAR:
        return np.array(x)
    return prepare(x, ty, name)


def _check_out(name: str, target: Any, result: np.ndarray) -> None:
    if (
        not isinstance(target, np.ndarray)
        or target.shape != result.shape
        or target.dtype != result.dtype
    ):
        got = (
            f"{target.dtype}{list(target.shape)}"
            if isinstance(target, np.ndarray)
            else type(target).__name__
        )
        raise SignatureError(
            f"out for {name} must be an array {result.dtype}{list(result.shape)}, got {got}"
        )
    if not target.flags.writeable:
        raise SignatureError(f"out for {name} is read-only")
    if any(s == 0 and n > 1 for s, n in zip(target.strides, target.shape, strict=True)):
        raise SignatureError(f"out for {name} repeats its elements: a stride is 0")


def _what(node: ir.Node) -> str:
    return node["name"] if node.op == "input" else node.op


def dense_bytes(graph: ir.Graph, wrt: Sequence[str]) -> Size:
    """Bytes of the Jacobians, stored in full, of all gates from the inputs `wrt` to the outputs."""
    active = {n for n in graph.inputs if n["name"] in wrt}
    total: Size = 0
    for node in graph.nodes:
        operands = [a for a in node.args if a in active and a.type.dtype.is_float]
        if operands and node.type.dtype.is_float:
            active.add(node)
            for a in operands:
                total = (
                    total
                    + product(node.type.shape) * product(a.type.shape) * node.type.dtype.itemsize
                )
    return total
