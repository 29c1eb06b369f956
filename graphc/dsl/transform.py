"""Transforms: jit, grad, value_and_grad, vjp, jvp, hvp.

In:   a function over arrays.
Out:  a function. Called with arrays it compiles itself, once for each set of types; called on
      traced values, or inside of a running trace, it composes.
Invariant: a gradient has the structure, shapes and dtypes of its argument.

>>> import numpy as np
>>> float(grad(lambda x: x * x * x)(2.0))
12.0
>>> float(grad(grad(lambda x: x * x * x))(2.0))
12.0
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import numpy as np

from graphc.dsl.apply import find_recorder, lifted, need_recorder
from graphc.dsl.recorder import Recorder, place_text, recording, user_place
from graphc.dsl.signature import bind, name_of, signature_of
from graphc.dsl.specialise import Call, Family, Runner, Variant, Variants
from graphc.dsl.tensor import Tensor
from graphc.dsl.trace import Traced, flatten_arguments
from graphc.dsl.tree import flatten, flatten_like, unflatten
from graphc.errors import DifferentiationError, SignatureError
from graphc.ir.graph import Graph, Node, Value
from graphc.runtime.arguments import as_result, plain_leaf
from graphc.runtime.entries import Entry
from graphc.runtime.seen import Seen, arguments_of
from graphc.runtime.threads import allowed

if TYPE_CHECKING:
    from graphc.runtime.records import Record

P = ParamSpec("P")
R = TypeVar("R")


def compiled(traced: Traced, threads: int | None = None) -> Runner:
    """What runs a traced function on the arrays of its arguments."""
    return _Running(kernel_for(traced.graph, threads), traced.captured)


@dataclass(frozen=True)
class _Running:
    kernel: Runner
    captured: tuple[np.ndarray, ...]

    def __call__(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        return self.kernel([*arrays, *self.captured])


def kernel_for(graph: Graph, threads: int | None = None) -> Runner:
    """The seam to the compiler: arrays of the inputs -> arrays of the outputs."""
    from graphc.pipeline import Options
    from graphc.runtime.kernel import compile_graph

    return compile_graph(graph, Options(threads=threads))


class Jit(Entry, Generic[P, R]):
    """A function that compiles itself for the types of a call; name, doc and signature stay."""

    _unbound: Any = None  # for a bound method's: the Jit in the class

    def __init__(
        self,
        function: Callable[P, R],
        name: str | None = None,
        like: Callable[..., Any] | None = None,
        threads: int | None = None,
    ) -> None:
        functools.update_wrapper(self, like or function, updated=())
        self._function = function
        self._name = name or name_of(function)
        self._signature = signature_of(like or function)
        self._plain = _plain_parameters(self._signature)
        self._threads = threads
        self._variants = Variants()
        self._seen = Seen()

    def __repr__(self) -> str:
        return f"<graphc.jit of {self._name}: {len(self.variants)} variants>"

    @property
    def variants(self) -> tuple[str, ...]:
        """What it was compiled for; what Python used last comes last.

        There are at most 128 at a time: a new one takes the place of that not used for longest.
        """
        return tuple(map(str, self._variants.all()))

    def clear(self) -> None:
        """Forget all that was compiled. Calls that run meanwhile go on to their end."""
        self._variants.clear()
        self._forget_records()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method: compiled once for each instance, which its trace reads."""
        if instance is None:
            return self
        key = f"_graphc_{self._name}"
        bound = instance.__dict__.get(key)
        if bound is None or bound._unbound is not self:
            bound = instance.__dict__[key] = self._bound_to(instance, owner)
            bound._unbound = self
        return bound

    def _bound_to(self, instance: Any, owner: type | None) -> Jit:
        return Jit(self._function.__get__(instance, owner), self._name, threads=self._threads)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        names, values, keywords = self._bound(args, kwargs)
        leaves, leaf_names, tree = flatten_arguments(values, names)
        if find_recorder(leaves) is not None:
            return self._function(*args, **kwargs)
        given = [plain_leaf(x, n) for x, n in zip(leaves, leaf_names)]
        arrays = [g.array for g in given]
        call = Call(
            tree,
            tuple(g.dtype for g in given),
            tuple(a.ndim for a in arrays),
            tuple(g.weak for g in given),
            keywords,
        )
        make = functools.partial(self._family, call, names, leaf_names, keywords)
        variant = self._variants.family(call, make).variant(tuple(a.shape for a in arrays))
        results = variant.run(arrays)
        form = self._seen.often(variant, args, kwargs, leaves)
        if form is not None:
            record = self._record(variant, values, keywords, arrays)
            self._seen.tried(form, self._serve(record))
        return unflatten(variant.traced.out_tree, map(as_result, results))

    def _record(
        self,
        variant: Variant,
        values: tuple[Any, ...],
        keywords: tuple[str, ...],
        arrays: Sequence[np.ndarray],
    ) -> Record | None:
        """What native code needs for calls like this one."""
        from graphc.runtime.kernel import Kernel
        from graphc.runtime.records import record_of

        run, traced = variant.run, variant.traced
        if not isinstance(run, _Running) or not isinstance(run.kernel, Kernel):
            return None
        arguments = arguments_of(self._signature, values, keywords, traced.in_tree.children)
        leaves = [(n.type, a.shape) for n, a in zip(traced.arguments, arrays)]
        return record_of(run.kernel, arguments, leaves, run.captured, traced.out_tree)

    def _bound(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[str, ...], tuple[Any, ...], tuple[str, ...]]:
        """Names and values of the arguments: positional ones, then those given by keyword only."""
        if not kwargs and self._plain and len(args) == len(self._plain):
            return self._plain, args, ()
        bound = bind(self._signature, self._name, args, kwargs)
        parameters = list(self._signature.parameters.values())
        names = [
            p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        names = [names[i] if i < len(names) else f"argument_{i}" for i in range(len(bound.args))]
        keywords = tuple(bound.kwargs)
        return (*names, *keywords), (*bound.args, *bound.kwargs.values()), keywords

    def _family(
        self,
        call: Call,
        names: tuple[str, ...],
        leaf_names: list[str],
        keywords: tuple[str, ...],
        added: Callable[[Variant], None],
    ) -> Family:
        function: Callable[..., Any] = self._function
        if keywords:
            function = functools.partial(_with_keywords, self._function, keywords)
        runner = functools.partial(compiled, threads=self._threads)
        return Family(function, self._name, names, tuple(leaf_names), call, runner, added)


def _with_keywords(function: Callable[..., Any], keywords: tuple[str, ...], *values: Any) -> Any:
    positional = len(values) - len(keywords)
    return function(*values[:positional], **dict(zip(keywords, values[positional:])))


def _plain_parameters(signature: Any) -> tuple[str, ...]:
    """The names of the parameters where all may be given by position."""
    kinds = {p.kind for p in signature.parameters.values()}
    simple = {p.POSITIONAL_ONLY for p in signature.parameters.values()} | {
        p.POSITIONAL_OR_KEYWORD for p in signature.parameters.values()
    }
    return tuple(signature.parameters) if kinds <= simple else ()


def jit(function: Callable[P, R], *, threads: int | str | None = None) -> Jit[P, R]:
    """A function that is compiled on its first call: NumPy arrays in, NumPy arrays out.

    It is traced once for each structure, dtypes and ranks of arguments; a size that changes between
    calls becomes symbolic. What it reads from elsewhere (arrays, numbers) is read at the trace.
    `threads`, a number or "all", is how many threads a call may use; else it is as `set_threads`
    says.
    """
    if isinstance(function, Jit) and threads is None:
        return function
    return Jit(function, threads=allowed(threads))


# -- reverse mode ---------------------------------------------------------------------------------


class _Arguments:
    """Arguments of a nested transform: nominal inputs stand for them until it is done."""

    def __init__(
        self, recorder: Recorder, what: str, values: Sequence[Any], names: Sequence[str]
    ) -> None:
        leaves, self.names, self.tree = flatten_arguments(values, names)
        self.recorder = recorder
        self.operands = [lifted(x) for x in leaves]
        for name, x in zip(self.names, self.operands):
            if not x.value.dtype.is_float:
                raise DifferentiationError(
                    f"{what}: argument {name} is {x.type} at {place_text(user_place())}; a "
                    "derivative exists with "
                    "respect to floats only: pass a float, or choose other argnums"
                )
        self.nominal = [
            Tensor(recorder.nominal(n, x.type), x.weak) for n, x in zip(self.names, self.operands)
        ]

    @property
    def nominal_values(self) -> list[Value]:
        return [t.value for t in self.nominal]

    def given(self) -> list[Any]:
        """The arguments that the function gets."""
        return list(unflatten(self.tree, self.nominal))

    def substituted(self, values: Sequence[Value]) -> list[Value]:
        replaced: dict[Node, Value] = {
            n.value.node: x.value for n, x in zip(self.nominal, self.operands)
        }
        return self.recorder.substitute(values, replaced)

    def as_trees(self, values: Sequence[Value]) -> list[Any]:
        """Derivatives in the structure of the arguments."""
        return list(
            unflatten(self.tree, [Tensor(v, x.weak) for v, x in zip(values, self.operands)])
        )


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives the value of `function` and its gradient by the arguments `argnums`.

    The value must be a float of rank 0. With one number in `argnums` the gradient is a tree like
    that argument, with a tuple of numbers a tuple of trees. With `has_aux` the function returns
    (value, aux), and the result is ((value, aux), gradient).
    """
    return _cached(_ValueAndGrad, function, argnums, has_aux)


def grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives the gradient of `function`; with `has_aux`, (gradient, aux)."""
    return _cached(_Grad, function, argnums, has_aux)


def _cached(
    kind: Any, function: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool
) -> Any:
    numbers = argnums if isinstance(argnums, int) else tuple(argnums)
    try:
        return _made(kind, function, numbers, has_aux)
    except TypeError:
        if getattr(type(function), "__hash__", None) is not None:
            raise
        return kind(function, numbers, has_aux)


@functools.lru_cache(maxsize=256)
def _made(
    kind: Any, function: Callable[..., Any], argnums: int | tuple[int, ...], has_aux: bool
) -> Any:
    return kind(function, argnums, has_aux)


class _ValueAndGrad(Jit):
    """Jit of a function that differentiates another inside of the trace."""

    def __init__(
        self, function: Callable[..., Any], argnums: int | tuple[int, ...], has_aux: bool
    ) -> None:
        if not callable(function):
            raise SignatureError(f"a function is needed, got {function!r}")
        self._differentiated = function
        self._argnums, self._has_aux = argnums, has_aux
        super().__init__(self._compose, f"{self.prefix}_{name_of(function)}", like=function)

    prefix = "value_and_grad"

    def _bound_to(self, instance: Any, owner: type | None) -> Jit:
        return type(self)(
            self._differentiated.__get__(instance, owner), self._argnums, self._has_aux
        )

    def _compose(self, *args: Any, **kwargs: Any) -> Any:
        (value, aux), grads = self._both(args, kwargs)
        return ((value, aux), grads) if self._has_aux else (value, grads)

    def _both(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, Any], Any]:
        from graphc.transforms.adjoint import pull_back

        recorder = need_recorder((*args, *kwargs.values()))
        recorder.enter_line()
        what = f"{self.prefix} of {name_of(self._differentiated)}"
        numbers = self._numbers(args, what)
        arguments = _Arguments(recorder, what, [args[i] for i in numbers], self._names(numbers))
        with recording(recorder):
            result = self._differentiated(*_replaced(args, numbers, arguments.given()), **kwargs)
            value, aux = self._value(recorder, result, what)
            aux_leaves, _, aux_tree = flatten(aux)
            aux_values = [lifted(x).value for x in aux_leaves]
            grads = pull_back(
                recorder, [value.value], [value.value.constant(1)], arguments.nominal_values
            )
            values = arguments.substituted([value.value, *aux_values, *grads])
        aux = unflatten(aux_tree, map(Tensor, values[1 : 1 + len(aux_values)]))
        trees = arguments.as_trees(values[1 + len(aux_values) :])
        single = isinstance(self._argnums, int)
        return (Tensor(values[0], value.weak), aux), trees[0] if single else tuple(trees)

    def _numbers(self, args: tuple[Any, ...], what: str) -> tuple[int, ...]:
        numbers = (self._argnums,) if isinstance(self._argnums, int) else self._argnums
        for i in numbers:
            if not -len(args) <= i < len(args):
                raise SignatureError(
                    f"{what}: argnums {i}, but {len(args)} arguments were given by position"
                )
        return tuple(i % len(args) for i in numbers)

    def _names(self, numbers: tuple[int, ...]) -> list[str]:
        known = list(signature_of(self._differentiated).parameters)
        return [known[i] if i < len(known) else f"argument_{i}" for i in numbers]

    def _value(self, recorder: Recorder, result: Any, what: str) -> tuple[Tensor, Any]:
        aux = None
        if self._has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                raise SignatureError(
                    f"{what}: with has_aux the function returns (value, aux), got {result!r}"
                )
            result, aux = result
        return _scalar(recorder, result, what), aux


class _Grad(_ValueAndGrad):
    prefix = "grad"

    def _compose(self, *args: Any, **kwargs: Any) -> Any:
        (_, aux), grads = self._both(args, kwargs)
        return (grads, aux) if self._has_aux else grads


def _replaced(args: tuple[Any, ...], numbers: tuple[int, ...], values: Sequence[Any]) -> list[Any]:
    made = list(args)
    for i, v in zip(numbers, values):
        made[i] = v
    return made


def _scalar(recorder: Recorder, result: Any, what: str) -> Tensor:
    if isinstance(result, (tuple, list, dict, str, type(None))):
        raise DifferentiationError(
            f"{what}: the function must return one number, got a {type(result).__name__}"
        )
    value = lifted(result)
    if value.ndim or not value.value.dtype.is_float:
        recorder.fail(
            DifferentiationError,
            f"{what}: the function must return a float of rank 0, got {value.type}: take its sum "
            "or mean, or use vjp",
            value=value.value,
        )
    return value


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The value at `primals`, and a function from its cotangent to a tuple of the primals'."""
    if find_recorder(flatten(list(primals))[0]) is None:
        out = (
            jit(function)(*primals)
            if isinstance(function, Jit)
            else _jitted(_call, function)(*primals)
        )
        return out, functools.partial(_jitted(_pulled, function), primals)
    return _vjp(function, primals)


def _vjp(function: Callable[..., Any], primals: Sequence[Any]) -> tuple[Any, Callable[[Any], Any]]:
    from graphc.transforms.adjoint import pull_back

    recorder = need_recorder(flatten(list(primals))[0])
    recorder.enter_line()
    arguments = _Arguments(
        recorder, f"vjp of {name_of(function)}", primals, _names(function, len(primals))
    )
    with recording(recorder):
        leaves, _, tree = flatten(function(*arguments.given()))
        outputs = [lifted(x).value for x in leaves]

    def pull(ct: Any) -> tuple[Any, ...]:
        cts = [lifted(c) for c in flatten_like(tree, ct, "cotangent")]
        for c, out in zip(cts, outputs):
            _check_like(recorder, "cotangent", c, out)
        values = pull_back(
            recorder,
            outputs,
            [c.value.cast(o.dtype) for c, o in zip(cts, outputs)],
            arguments.nominal_values,
        )
        return tuple(arguments.as_trees(arguments.substituted(values)))

    return unflatten(tree, map(Tensor, arguments.substituted(outputs))), pull


def _check_like(recorder: Recorder, what: str, given: Tensor, expected: Value) -> None:
    if given.shape != expected.shape or given.value.dtype.is_float != expected.dtype.is_float:
        recorder.fail(
            DifferentiationError,
            f"the {what} of {expected.type} has the type {given.type}",
            given=given.value,
            of=expected,
        )


def _names(function: Callable[..., Any], count: int) -> list[str]:
    known = list(signature_of(function).parameters)
    return [known[i] if i < len(known) else f"argument_{i}" for i in range(count)]


# -- forward mode ---------------------------------------------------------------------------------


def jvp(
    function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[Any, Any]:
    """The value at the tuple `primals`, and its derivative in the direction `tangents`."""
    primals, tangents = tuple(primals), tuple(tangents)
    if find_recorder(flatten([primals, tangents])[0]) is None:
        return _jitted(_pushed, function)(primals, tangents)
    return _pushed(function, primals, tangents)


def hvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """The Hessian of a scalar function times a direction; like `primals`, or their one element."""
    primals, tangents = tuple(primals), tuple(tangents)
    gradient = grad(function, tuple(range(len(primals))))
    found = jvp(gradient, primals, tangents)[1]
    return found[0] if len(primals) == 1 else found


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _pulled(function: Callable[..., Any], primals: tuple[Any, ...], ct: Any) -> tuple[Any, ...]:
    return _vjp(function, primals)[1](ct)


def _pushed(
    function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Any, Any]:
    from graphc.transforms.tangent import push_forward

    recorder = need_recorder(flatten([primals, tangents])[0])
    recorder.enter_line()
    arguments = _Arguments(
        recorder, f"jvp of {name_of(function)}", primals, _names(function, len(primals))
    )
    directions = [lifted(t) for t in flatten_like(arguments.tree, tangents, "tangents")]
    for t, x in zip(directions, arguments.operands):
        _check_like(recorder, "tangent", t, x.value)
    with recording(recorder):
        leaves, _, tree = flatten(function(*arguments.given()))
        outputs = [lifted(x).value for x in leaves]
        moved = [t.value.cast(x.value.dtype) for t, x in zip(directions, arguments.operands)]
        pushed = push_forward(recorder, outputs, arguments.nominal_values, moved)
        dense = [o.zeros_like() if t is None else t for o, t in zip(outputs, pushed)]
        values = arguments.substituted([*outputs, *dense])
    n = len(outputs)
    return unflatten(tree, map(Tensor, values[:n])), unflatten(tree, map(Tensor, values[n:]))


@functools.lru_cache(maxsize=256)
def _jitted(form: Callable[..., Any], function: Callable[..., Any]) -> Jit:
    return Jit(functools.partial(form, function), f"{form.__name__.strip('_')}_{name_of(function)}")
