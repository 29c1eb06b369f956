"""One element at a time: a wave in an envelope, and a book of options with all its greeks."""

import numpy as np

from bench.cases.case import Case

FLOATS = {"f32": np.float32, "f64": np.float64}
RTOL = {"f32": 5e-4, "f64": 1e-9}  # sums of 1e6 f32, in whatever order


def wave(xp, x, w, b):
    return (xp.tanh(x * w + b) * xp.exp(-x * x)).sum()


def wave_value(x, w, b):
    return (np.tanh(x * w + b) * np.exp(-x * x)).sum()


def wave_gradient(x, w, b):
    t, e = np.tanh(x * w + b), np.exp(-x * x)
    y = t * e
    dz = (1 - t * t) * e
    return y.sum(), (dz * w - 2 * x * y, (dz * x).sum(), dz.sum())


def wave_case(dtype: str, n: int, size: str) -> Case:
    float_ = FLOATS[dtype]

    def data(rng, n):
        return rng.normal(size=n).astype(float_), float_(1.3), float_(0.2)

    types = {"x": f"{dtype}[n]", "w": dtype, "b": dtype}
    return Case(
        f"tanh wave {size} {dtype}", "wave", n, wave, types, ("x", "w", "b"),
        data, wave_value, wave_gradient, compute_bound=n >= 10**6, rtol=RTOL[dtype],
    )  # fmt: skip


def black_scholes(xp, spot, strike, sigma, years, rate):
    """The value of a book of European calls."""
    spread = sigma * xp.sqrt(years)
    d1 = (xp.log(spot / strike) + rate * years) / spread + 0.5 * spread
    discounted = strike * xp.exp(-rate * years)
    return (spot * xp.ndtr(d1) - discounted * xp.ndtr(d1 - spread)).sum()


def black_scholes_data(float_):
    def data(rng, n):
        ranges = ((80, 120), (80, 120), (0.1, 0.5), (0.1, 2.0))
        columns = [rng.uniform(*r, n).astype(float_) for r in ranges]
        return (*columns, float_(0.03))

    return data


def black_scholes_value(spot, strike, sigma, years, rate):
    from scipy.special import ndtr

    spread = sigma * np.sqrt(years)
    d1 = (np.log(spot / strike) + rate * years) / spread + 0.5 * spread
    return (spot * ndtr(d1) - strike * np.exp(-rate * years) * ndtr(d1 - spread)).sum()


def black_scholes_gradient(spot, strike, sigma, years, rate):
    """The value, and the greeks: by the textbook, each a line."""
    from scipy.special import ndtr

    root = np.sqrt(years)
    spread = sigma * root
    d1 = (np.log(spot / strike) + rate * years) / spread + 0.5 * spread
    n1, n2 = ndtr(d1), ndtr(d1 - spread)
    discount = np.exp(-rate * years)
    paid = strike * discount * n2
    dense = spot * np.exp(-0.5 * d1 * d1) * spot.dtype.type(1 / np.sqrt(2 * np.pi))
    vega = dense * root
    theta = 0.5 * dense * sigma / root + rate * paid
    return (spot * n1 - paid).sum(), (n1, -discount * n2, vega, theta, (years * paid).sum())


def black_scholes_case(dtype: str, n: int, size: str) -> Case:
    names = ("spot", "strike", "sigma", "years")
    types = {**{name: f"{dtype}[n]" for name in names}, "rate": dtype}
    return Case(
        f"Black-Scholes {size} {dtype}", "black_scholes", n, black_scholes, types,
        (*names, "rate"), black_scholes_data(FLOATS[dtype]), black_scholes_value,
        black_scholes_gradient, compute_bound=n >= 10**6, rtol=RTOL[dtype],
    )  # fmt: skip


CASES = tuple(
    make(dtype, n, size)
    for make in (wave_case, black_scholes_case)
    for dtype in ("f32", "f64")
    for n, size in ((10_000, "1e4"), (1_000_000, "1e6"))
)
