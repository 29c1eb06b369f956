"""Paths, step after step: the value of an option on the mean of prices, with its greeks."""

import numpy as np

from bench.cases.case import Case

STEPS, STRIKE = 100, 1.02


def asian(xp, noise, spot, drift, sigma):
    """An Asian call: what the mean price of a path exceeds the strike by, on average over paths."""
    price = xp.exp(xp.cumsum(drift + sigma * noise, 1))
    return xp.relu(spot * price.mean(1) - STRIKE).mean()


def asian_data(rng, n):
    return rng.normal(size=(n, STEPS)), *map(np.float64, (1.0, 2e-4, 0.02))


def asian_value(noise, spot, drift, sigma):
    price = np.exp(np.cumsum(drift + sigma * noise, axis=1))
    return np.maximum(spot * price.mean(axis=1) - STRIKE, 0.0).mean()


def asian_gradient(noise, spot, drift, sigma):
    price = np.exp(np.cumsum(drift + sigma * noise, axis=1))
    mean = price.mean(axis=1)
    paid = spot * mean > STRIKE
    rest = np.cumsum(price[:, ::-1], axis=1)[:, ::-1]  # of a path, from each step on
    rest *= (paid * (spot / (STEPS * len(noise))))[:, None]
    value = np.maximum(spot * mean - STRIKE, 0.0).mean()
    return value, (mean[paid].sum() / len(noise), rest.sum(), np.einsum("ij,ij->", rest, noise))


def asian_case(n: int) -> Case:
    types = {"noise": f"f64[n,{STEPS}]", "spot": "f64", "drift": "f64", "sigma": "f64"}
    return Case(
        f"Asian option {n:,} x {STEPS}", "asian", n, asian, types, ("spot", "drift", "sigma"),
        asian_data, asian_value, asian_gradient, compute_bound=True,
    )  # fmt: skip


CASES = (asian_case(10_000),)
