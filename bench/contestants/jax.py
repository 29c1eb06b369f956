"""JAX, compiled for the CPU, with 64 bits, on arrays of its own.

With asynchronous dispatch there are two figures: of a call that is awaited, and of one of ten that
are dispatched, then awaited. Where dispatch is synchronous, that is another process.
"""

import os
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from bench.cases.case import Arrays, Case, leaves
from bench.contestants.contestant import Entry, Way

AHEAD = 10


class Dialect:
    softplus = staticmethod(jax.nn.softplus)
    relu = staticmethod(jax.nn.relu)
    log_softmax = staticmethod(jax.nn.log_softmax)
    logsumexp = staticmethod(jax.nn.logsumexp)
    ndtr = staticmethod(jax.scipy.special.ndtr)

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def cross_entropy(z, labels):
        chosen = jnp.take_along_axis(z, labels[:, None], axis=1)[:, 0]
        return (jax.nn.logsumexp(z, axis=1) - chosen).mean()

    @staticmethod
    def layer_norm(x, gain, bias):
        return jax.nn.standardize(x, axis=1, epsilon=1e-5) * gain + bias

    @staticmethod
    def square_distances(x, centres):
        products = x @ centres.T
        return (x * x).sum(axis=1)[:, None] - 2.0 * products + (centres * centres).sum(axis=1)


def start(threads: int, setting: str) -> str:
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_enable_async_dispatch", setting == "async")
    return f"JAX {jax.__version__}"


def enter(case: Case, args: Arrays, setting: str) -> Entry:
    held = jax.block_until_ready(jax.tree.map(jnp.asarray, args))
    both = jax.value_and_grad(lambda *a: case.model(Dialect(), *a), argnums=case.positions)

    @jax.jit
    def run(*a):
        value, grads = both(*a)
        return case.results(value, case.wanted(a), leaves(grads))

    jax.block_until_ready(run(*held))

    def awaited():
        return jax.block_until_ready(run(*held))

    def ahead():
        return jax.block_until_ready([run(*held) for _ in range(AHEAD)])[-1]

    ways = {"gradient": Way(awaited, fetch)}
    if setting == "async":
        ways["ahead"] = Way(ahead, fetch, AHEAD)
    return Entry(ways)


def fetch(found: Any) -> list[Any]:
    return [np.asarray(a) for a in leaves(found)]
