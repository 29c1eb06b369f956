"""graphc, as its user calls it and with bound buffers."""

import inspect
from typing import Any

import numpy as np

import graphc
from bench import limits
from bench.cases.case import Arrays, Case, dtype_and_shape, each, leaves
from bench.contestants.contestant import Entry, Way


class Dialect:
    """graphc's public functions, and what its users write for the rest."""

    def __getattr__(self, name: str) -> Any:
        return getattr(graphc, name)

    @staticmethod
    def cross_entropy(z, labels):
        is_label = labels[:, None] == np.arange(z.shape[1])
        chosen = graphc.where(is_label, z, 0.0).sum(axis=1)
        return (graphc.logsumexp(z, axis=1) - chosen).mean()

    @staticmethod
    def layer_norm(x, gain, bias):
        apart = x - x.mean(axis=1, keepdims=True)
        scale = graphc.sqrt((apart**2).mean(axis=1, keepdims=True) + 1e-5)
        return apart / scale * gain + bias

    @staticmethod
    def square_distances(x, centres):
        squares = (x * x).sum(axis=1)[:, None] + (centres * centres).sum(axis=1)
        return squares - 2.0 * (x @ centres.T)


def start(threads: int, setting: str) -> str:
    graphc.set_threads(1 if setting == "one thread" else threads)
    return f"graphc {graphc.__version__}"


def compiled(case: Case) -> tuple[Any, Any]:
    """The value, and value and gradient, or the step, as two that can be called and bound."""
    kernels = graphc.compile(declared(case, model_of(case)), wrt=case.wrt)
    if case.rate is None:
        return kernels, kernels.value_and_grad
    return kernels, graphc.compile(declared(case, step_of(case)))


def declared(case: Case, model: Any) -> Any:
    """A function of the workload's arguments as a declared graph."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    model.__signature__ = inspect.Signature(
        [
            inspect.Parameter(name, kind, annotation=each(annotation, ty))
            for name, ty in case.types.items()
        ]
    )
    model.__name__ = case.family
    return graphc.graph(model)


def annotation(text: str) -> Any:
    dtype, shape = dtype_and_shape(text)
    return getattr(graphc, dtype)[shape] if shape else getattr(graphc, dtype)


def model_of(case: Case) -> Any:
    return lambda *args: case.model(Dialect(), *args)


def step_of(case: Case) -> Any:
    """The value, and the parameters after a step of gradient descent."""
    (at,) = case.positions

    def step(*args):
        def loss(p):
            return case.model(Dialect(), *args[:at], p, *args[at + 1 :])

        value, grads = graphc.value_and_grad(loss)(args[at])
        return value, {name: p - case.rate * grads[name] for name, p in args[at].items()}

    return step


def enter(case: Case, args: Arrays, setting: str) -> Entry:
    value, both = compiled(case)
    both(*args)
    ways = {
        "gradient": Way(lambda: both(*args), fetch),
        "value": Way(lambda: value(*args), fetch),
        "bound": Way(both.bind(*args), fetch),
    }
    return Entry(ways)


def fetch(found: Any) -> list[Any]:
    return [np.asarray(a) for a in leaves(found)]


def limit(case: Case, seconds: float) -> dict[str, Any]:
    """What limits a call that takes so long; the seconds of a copy; those that were predicted."""
    kernels, both = compiled(case)
    program = (kernels if case.rate is None else both).plan.program
    copy = limits.median(limits.copying(limits.moved(case)))
    found = limits.limited_by(case, program, both, seconds, copy)
    return {
        "limit": found.sentence, "limit_share": found.share, "copy": copy,
        "predicted": float(both.predict(*case.arguments())),
    }  # fmt: skip


def predicted(case: Case, args: Arrays) -> float:
    """The seconds that the cost model gives a call."""
    return float(compiled(case)[1].predict(*args))
