"""Log densities and losses of rows of data: what samplers and fitters evaluate."""

import numpy as np

from bench.cases.case import Case, sigmoid

# -- logistic regression --------------------------------------------------------------------------


def logistic(xp, X, y, w, b):
    z = X @ w + b
    return (xp.softplus(z) - y * z).mean()


def logistic_data(d):
    def data(rng, n):
        y = (rng.random(n) < 0.5).astype(float)
        return rng.normal(size=(n, d)), y, 0.1 * rng.normal(size=d), np.float64(0.1)

    return data


def logistic_value(X, y, w, b):
    z = X @ w + b
    return (np.logaddexp(0.0, z) - y * z).mean()


def logistic_gradient(X, y, w, b):
    z = X @ w + b
    dz = (sigmoid(z) - y) / len(y)
    return (np.logaddexp(0.0, z) - y * z).mean(), (dz @ X, dz.sum())


def logistic_case(n: int, d: int) -> Case:
    types = {"X": f"f64[n,{d}]", "y": "f64[n]", "w": f"f64[{d}]", "b": "f64"}
    return Case(
        f"logistic {n}x{d}", "logistic", n, logistic, types, ("w", "b"),
        logistic_data(d), logistic_value, logistic_gradient,
    )  # fmt: skip


# -- eight schools --------------------------------------------------------------------------------

EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


def schools(xp, effect, error, theta, mu, log_tau):
    """Minus the log posterior of the eight schools, not centred; tau is half-Cauchy(0, 5)."""
    tau = xp.exp(log_tau)
    apart = (effect - mu - tau * theta) / error
    prior = (theta * theta).sum() + (mu / 5.0) ** 2
    return 0.5 * ((apart * apart).sum() + prior) + xp.log1p((tau / 5.0) ** 2) - log_tau


def schools_data(rng, n):
    return (
        np.array(EFFECTS), np.array(ERRORS), rng.normal(size=8), np.float64(4.0), np.float64(1.2),
    )  # fmt: skip


def schools_value(effect, error, theta, mu, log_tau):
    tau = np.exp(log_tau)
    apart = (effect - mu - tau * theta) / error
    prior = theta @ theta + (mu / 5.0) ** 2
    return 0.5 * (apart @ apart + prior) + np.log1p((tau / 5.0) ** 2) - log_tau


def schools_gradient(effect, error, theta, mu, log_tau):
    tau = np.exp(log_tau)
    apart = (effect - mu - tau * theta) / error
    prior = theta @ theta + (mu / 5.0) ** 2
    square = (tau / 5.0) ** 2
    value = 0.5 * (apart @ apart + prior) + np.log1p(square) - log_tau
    scaled = apart / error
    dtau = -(scaled @ theta) + 2.0 * tau / 25.0 / (1.0 + square)
    return value, (theta - tau * scaled, mu / 25.0 - scaled.sum(), dtau * tau - 1.0)


SCHOOLS = Case(
    "eight schools", "schools", 8, schools,
    {"effect": "f64[8]", "error": "f64[8]", "theta": "f64[8]", "mu": "f64", "log_tau": "f64"},
    ("theta", "mu", "log_tau"), schools_data, schools_value, schools_gradient, small=8,
)  # fmt: skip


# -- a hierarchical model with a gather -----------------------------------------------------------

GROUPS, COVARIATES = 85, 5  # the counties of the radon data


def hierarchical(xp, X, y, group, alpha, beta, mu, log_sigma):
    """Minus the log posterior of a logistic regression with an intercept for each group."""
    z = alpha[group] + X @ beta
    apart = (alpha - mu) * xp.exp(-log_sigma)
    return (xp.softplus(z) - y * z).sum() + 0.5 * (apart**2).sum() + float(GROUPS) * log_sigma


def hierarchical_data(rng, n):
    y = (rng.random(n) < 0.5).astype(float)
    X, group = rng.normal(size=(n, COVARIATES)), rng.integers(0, GROUPS, n)
    alpha, beta = rng.normal(size=GROUPS), rng.normal(size=COVARIATES)
    return X, y, group, alpha, beta, np.float64(0.1), np.float64(-0.3)


def hierarchical_value(X, y, group, alpha, beta, mu, log_sigma):
    z = alpha[group] + X @ beta
    apart = (alpha - mu) * np.exp(-log_sigma)
    return (np.logaddexp(0.0, z) - y * z).sum() + 0.5 * (apart @ apart) + GROUPS * log_sigma


def hierarchical_gradient(X, y, group, alpha, beta, mu, log_sigma):
    z = alpha[group] + X @ beta
    scale = np.exp(-log_sigma)
    apart = (alpha - mu) * scale
    square = apart @ apart
    dz = sigmoid(z) - y
    dapart = apart * scale
    dalpha = np.bincount(group, weights=dz, minlength=GROUPS) + dapart
    value = (np.logaddexp(0.0, z) - y * z).sum() + 0.5 * square + GROUPS * log_sigma
    return value, (dalpha, dz @ X, -dapart.sum(), GROUPS - square)


def hierarchical_case(n: int) -> Case:
    types = {
        "X": f"f64[n,{COVARIATES}]", "y": "f64[n]", "group": "i64[n]", "alpha": f"f64[{GROUPS}]",
        "beta": f"f64[{COVARIATES}]", "mu": "f64", "log_sigma": "f64",
    }  # fmt: skip
    return Case(
        f"hierarchical logistic {n}", "hierarchical", n, hierarchical, types,
        ("alpha", "beta", "mu", "log_sigma"), hierarchical_data, hierarchical_value,
        hierarchical_gradient,
    )  # fmt: skip


CASES = (
    logistic_case(1000, 10),
    logistic_case(100_000, 50),
    SCHOOLS,
    hierarchical_case(919),
    hierarchical_case(100_000),
)
