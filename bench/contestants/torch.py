"""PyTorch: eager, with `torch.func`, and compiled by Inductor."""

from typing import Any

import numpy as np
import torch

from bench.cases.case import Arrays, Case, each, leaves
from bench.contestants.contestant import Entry, Way


class Dialect:
    softplus = staticmethod(torch.nn.functional.softplus)
    cross_entropy = staticmethod(torch.nn.functional.cross_entropy)
    ndtr = staticmethod(torch.special.ndtr)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def eye(n):
        return torch.eye(n, dtype=torch.float64)

    @staticmethod
    def log_softmax(x):
        return torch.log_softmax(x, -1)

    @staticmethod
    def layer_norm(x, gain, bias):
        return torch.nn.functional.layer_norm(x, gain.shape, gain, bias, 1e-5)

    @staticmethod
    def square_distances(x, centres):
        squares = (x * x).sum(1)[:, None] + (centres * centres).sum(1)
        return torch.addmm(squares, x, centres.T, alpha=-2.0)


def start(threads: int, setting: str) -> str:
    torch.set_num_threads(threads)
    return f"PyTorch {torch.__version__}"


def enter(case: Case, args: Arrays, setting: str) -> Entry:
    held = each(torch.as_tensor, args)
    if setting == "eager":
        return Entry({"gradient": Way(eager(case, held), fetch)})

    def model(*a):
        return case.model(Dialect(), *a)

    derived = torch.func.grad_and_value(model, argnums=case.positions)

    def both(*a):
        grads, value = derived(*a)
        return case.results(value, case.wanted(a), leaves(grads))

    if setting == "compile":
        torch._dynamo.reset()  # there is a limit to how many graphs one function may have
        both = torch.compile(both, fullgraph=True, dynamic=False)
    both(*held)
    return Entry({"gradient": Way(lambda: both(*held), fetch)})


def eager(case: Case, held: Any) -> Any:
    wanted = [x.requires_grad_() for x in case.wanted(held)]

    def run():
        value = case.model(Dialect(), *held)
        grads = torch.autograd.grad(value, wanted)
        with torch.no_grad():
            return case.results(value, wanted, grads)

    return run


def fetch(found: Any) -> list[Any]:
    return [np.asarray(a.detach()) for a in leaves(found)]
