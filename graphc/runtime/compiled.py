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
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dsl.declare import Declared, Graph
from graphc.dsl.trace import Traced
from graphc.dsl.tree import LEAF, Structure, flatten_like, unflatten
from graphc.errors import DifferentiationError, SignatureError
from graphc.ir import graph as ir
from graphc.ir.types import Size, evaluate, product
from graphc.pipeline import NAMES, STAGES, Options, run_stages
from graphc.runtime.arguments import as_result, bind_sizes, prepare
from graphc.runtime.bound import Bound, Pointer
from graphc.runtime.compiling import once
from graphc.runtime.function import Function
from graphc.runtime.kernel import Kernel, compile_graph, compile_part
from graphc.runtime.threads import allowed

if TYPE_CHECKING:
    from graphc.report.cost import Prediction
    from graphc.report.plan import Plan


def compile(  # noqa: A001  the public name, as in `re.compile`
    declared: Declared | Graph | Callable[..., Any],
    wrt: str | Sequence[str] = (),
    *,
    deterministic: bool = False,
    skip: Sequence[str] = (),
    donate: str | Sequence[str] = (),
    threads: int | str | None = None,
) -> Compiled:
    """Compile a declared graph.

    `wrt` names the parameters to differentiate by: a name, or a tuple of names, whose gradients
    come back alike. `deterministic` keeps large matrix products in graphc's own kernel. `skip`
    leaves out optional passes ("rules", "fold", "fuse", "lanes", "blocks", "parallel", "sweep",
    "reuse"), for tests and for curiosity. `donate` names parameters whose memory results of the
    same type may take, as in `w = step(w, x)`: the caller goes on with the result alone. Whether
    that can be is in `explain`; at a call, an array that is read-only, has to be converted, or
    overlaps another is left alone.
    `threads`, a number or "all", is how many threads a call may use; else it is as `set_threads`
    says. Results do not depend on it, to the last bit.
    """
    if not isinstance(declared, (Declared, Graph)):
        declared = Declared(declared)
    donated = (donate,) if isinstance(donate, str) else tuple(donate)
    options = Options(
        deterministic=deterministic,
        skip=frozenset(skip),
        donate=donated,
        threads=allowed(threads),
    )
    return Compiled(declared, wrt, options)


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


class Halves:
    """What `forward` and `backward` compute, as graphs: cut from one that has both."""

    def __init__(self, graph: ir.Graph, options: Options) -> None:
        self._graph, self._options = graph, options

    @once
    def cut(self) -> tuple[ir.Graph, ir.Graph]:
        from graphc.lower.keep import keep
        from graphc.passes.partition import partition

        joint = run_stages(self._graph, self._options, last="simplify")
        outputs = tuple(name for name, _ in self._graph.outputs)
        cts = tuple(n["name"] for n in joint.inputs[len(self._graph.inputs) :])
        return partition(joint, outputs, cts, keep(joint, outputs, cts))


class Compiled(Function):
    """A graph as native functions. Each is compiled when it is first called."""

    # A slot is found faster than an attribute in a dict.
    __slots__ = {
        "value_and_grad": "The value, which must be one float, and its gradients, from one run."
    }
    value_and_grad: Gradient

    def __init__(
        self, declared: Declared | Graph, wrt: str | Sequence[str], options: Options
    ) -> None:
        traced = declared.traced
        super().__init__(declared, traced, traced.out_tree)
        self.declared = declared
        self._single = isinstance(wrt, str)
        self.wrt: tuple[str, ...] = (wrt,) if isinstance(wrt, str) else tuple(wrt)
        self._leaves = [self._leaves_of(name) for name in self.wrt]
        donated = tuple(n for name in options.donate for n in self._leaves_of(name))
        self.options = replace(options, donate=donated)
        self.value_and_grad = self._gradient()

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

    # -- kernels -----------------------------------------------------------------------------------

    @once
    def value_kernel(self) -> Kernel:
        return compile_graph(self.traced.graph, self.options)

    @property
    def kernel(self) -> Kernel:
        return self.value_kernel

    @property
    def gradient_kernel(self) -> Kernel:
        return self.value_and_grad.kernel

    def _gradient(self) -> Gradient:
        grads = [self._structure(name) for name in self.wrt]
        both = (self.traced.out_tree, _tuple(*grads) if not self._single else grads[0])
        return Gradient(self.declared, self.traced, _tuple(*both), self._gradient_options())

    def _structure(self, name: str) -> Structure:
        """The structure of a parameter, or of one array below it."""
        parameters = list(self.__signature__.parameters)
        if name not in parameters:
            return LEAF
        return self.traced.in_tree.children[parameters.index(name)]

    def _gradient_options(self) -> Options:
        return replace(self.options, wrt=self._wrt_inputs, seeds="one")

    @once
    def _halves(self) -> tuple[Kernel, Kernel]:
        """The forward and the backward kernel."""
        if not self.wrt:
            raise _no_gradient(self.__name__, "forward")
        graph, plain = self.traced.graph, replace(self.options, donate=())
        options = replace(plain, wrt=self._wrt_inputs, seeds="input")
        halves = Halves(graph, options)
        return (
            compile_part(graph, options, "forward", lambda: halves.cut[0], plain),
            compile_part(graph, options, "backward", lambda: halves.cut[1], plain),
        )

    # -- calls -------------------------------------------------------------------------------------

    def bind(self, *args: Any, out: Any = None, what: str = "", **kwargs: Any) -> Bound:
        """A function without arguments that runs on these arrays, again and again.

        `what` is "value" or "value_and_grad", which is meant where nothing is said and there is a
        gradient. Arrays are read where they are, so that the caller may write new numbers into
        them, and have to be such that a kernel can read them: of the dtype that the graph declares,
        in one piece. Numbers are fixed. Every run writes to the same arrays: those of `out`, or new
        ones; results of rank 0 are arrays, too.
        """
        function = self._function(what)
        if function is self:
            return super().bind(*args, out=out, **kwargs)
        return function.bind(*args, out=out, **kwargs)

    def pointer(self, what: str = "") -> Pointer:
        """The kernel as a function of C, for other native code; `what` as in `bind`."""
        return Pointer(self._function(what).kernel)

    def _function(self, what: str) -> Function:
        if what not in ("", "value", "value_and_grad"):
            raise SignatureError(f'what is "value" or "value_and_grad", got {what!r}')
        if what == "value_and_grad" or (self.wrt and not what):
            return self.value_and_grad
        return self

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Saved]:
        """The value, and what `backward` needs of this run.

        Copies are kept, so later changes of the inputs do no harm.
        """
        arrays = self._arrays(self._flat(self._values(args, kwargs)))
        kernel = self._halves[0]
        results = kernel.run(arrays)
        sizes = bind_sizes(
            [n.type for n in self.traced.graph.inputs],
            [a.shape for a in arrays],
            [n["name"] for n in self.traced.graph.inputs],
        )
        count = len(self.traced.graph.outputs)
        names = tuple(what for _, _, what in kernel.manifest.outputs[count:])
        dense = evaluate(dense_bytes(self.traced.graph, self._wrt_inputs), sizes)
        saved = Saved(tuple(results[count:]), sizes, names, dense)
        return self._result(results[:count]), saved

    def backward(self, saved: Saved, ct: Any = 1.0) -> Any:
        """The gradients, from what a forward run saved and the cotangents of its float results."""
        kernel = self._halves[1]
        cts = self._cotangents(ct)
        arrays = []
        for name, ty in kernel.manifest.inputs:
            if not name.startswith("saved_"):
                sized = ty.with_shape(evaluate(s, saved.sizes) for s in ty.shape)
                of = name.removeprefix("ct_")
                arrays.append(prepare(cts[of], sized, f"ct of {of}"))
        gradients = self.value_and_grad.result.children[1]
        return unflatten(gradients, map(as_result, kernel.run([*saved.arrays, *arrays])))

    def _cotangents(self, ct: Any) -> dict[str, Any]:
        leaves = flatten_like(self.traced.out_tree, ct, "cotangent")
        return dict(zip([name for name, _ in self.traced.graph.outputs], leaves, strict=True))

    # -- what was made -----------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """Kernels, buffers and bytes of the value and gradient, or of the value alone."""
        from graphc.report.plan import Plan

        return Plan((self.gradient_kernel if self.wrt else self.value_kernel).program)

    @cached_property
    def stages(self) -> Stages:
        """The text of every stage."""
        return Stages(self.traced.graph, self._gradient_options() if self.wrt else self.options)

    def predict(self, *args: Any, **sizes: int) -> Prediction:
        """What a call of the value and gradient, or of the value alone, should take."""
        function = self._function("")
        predict = super().predict if function is self else function.predict
        return predict(*args, **sizes)

    def explain(self, *, measure: bool = False) -> str:
        """What was fused, what it costs and what is saved, in prose.

        With `measure`, the seconds of each kernel are predicted, too: what this machine takes for
        their parts is measured for that, which can take seconds.
        """
        from graphc.report.explain import explain

        return explain(self, measure=measure)

    def save(self, path: str) -> Any:
        """Write a shared library (or, ending in .o, an object) with a C header next to it."""
        from graphc.aot.library import save

        return save(self, path)


class Gradient(Function):
    """The value and gradients of a compiled graph, as a function of its parameters."""

    def __init__(
        self, like: Declared | Graph, traced: Traced, result: Structure, options: Options
    ) -> None:
        super().__init__(like, traced, result)
        self.options = options

    @once
    def kernel(self) -> Kernel:
        if not self.options.wrt:
            raise _no_gradient(self.__name__, "value_and_grad")
        return compile_graph(self.traced.graph, self.options)

    def __repr__(self) -> str:
        return f"<graphc.compile of {self.__name__}{self.__signature__}: value and gradient>"


def _no_gradient(name: str, what: str) -> DifferentiationError:
    return DifferentiationError(
        f"{name}.{what} needs parameters to differentiate by: compile it with wrt=(...)"
    )


def _tuple(*children: Structure) -> Structure:
    return Structure("tuple", None, children)


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
