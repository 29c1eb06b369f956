"""Points and clusters: Gaussian mixtures, with diagonal and full precision, and soft k-means."""

import numpy as np

from bench.cases.case import Case

# -- mixtures of Gaussians with diagonal covariance ------------------------------------------------


def mixture(xp, x, weight, mean, log_scale):
    """Minus the mean log-likelihood of points; the constant is left out."""
    apart = (x[:, None, :] - mean) * xp.exp(-log_scale)
    each = xp.log_softmax(weight) - log_scale.sum(axis=1) - 0.5 * (apart * apart).sum(axis=2)
    return -xp.logsumexp(each, axis=1).mean()


def mixture_data(d, k):
    def data(rng, n):
        mean, log_scale = rng.normal(size=(k, d)), 0.2 * rng.normal(size=(k, d))
        return 2 * rng.normal(size=(n, d)), rng.normal(size=k), mean, log_scale

    return data


def mixture_forward(x, weight, mean, log_scale):
    apart = (x[:, None, :] - mean) * np.exp(-log_scale)
    share = np.exp(weight - weight.max())
    share /= share.sum()
    offset = np.log(share) - log_scale.sum(axis=1)
    each = offset - 0.5 * np.einsum("nkd,nkd->nk", apart, apart)
    top = each.max(axis=1, keepdims=True)
    e = np.exp(each - top)
    total = e.sum(axis=1, keepdims=True)
    return -(np.log(total) + top).mean(), apart, share, e / total


def mixture_value(*args):
    return mixture_forward(*args)[0]


def mixture_gradient(x, weight, mean, log_scale):
    value, apart, share, each = mixture_forward(x, weight, mean, log_scale)
    each /= -len(x)
    counts = each.sum(axis=0)
    dmean = np.einsum("nk,nkd->kd", each, apart) * np.exp(-log_scale)
    dlog_scale = np.einsum("nk,nkd,nkd->kd", each, apart, apart) - counts[:, None]
    return value, (counts + share, dmean, dlog_scale)


def mixture_case(d: int, k: int) -> Case:
    types = {
        "x": f"f64[n,{d}]", "weight": f"f64[{k}]", "mean": f"f64[{k},{d}]",
        "log_scale": f"f64[{k},{d}]",
    }  # fmt: skip
    return Case(
        f"Gaussian mixture d={d} K={k}", "mixture", 1000, mixture, types,
        ("weight", "mean", "log_scale"), mixture_data(d, k), mixture_value, mixture_gradient,
    )  # fmt: skip


# -- the same with full precision matrices, by their triangular roots (as in ADBench) --------------


def full_mixture(xp, x, weight, mean, log_diagonal, lower, below):
    """`below` is 1 below the diagonal, 0 elsewhere; the roots' diagonals are exponentials."""
    root = lower * below + xp.exp(log_diagonal)[:, :, None] * xp.eye(below.shape[0])
    apart = xp.einsum("kij,nkj->nki", root, x[:, None, :] - mean)
    each = xp.log_softmax(weight) + log_diagonal.sum(axis=1) - 0.5 * (apart * apart).sum(axis=2)
    return -xp.logsumexp(each, axis=1).mean()


def full_mixture_data(d, k):
    def data(rng, n):
        mean, log_diagonal = rng.normal(size=(k, d)), 0.2 * rng.normal(size=(k, d))
        lower = 0.2 * rng.normal(size=(k, d, d))
        below = np.tril(np.ones((d, d)), -1)
        return 2 * rng.normal(size=(n, d)), rng.normal(size=k), mean, log_diagonal, lower, below

    return data


def full_mixture_forward(x, weight, mean, log_diagonal, lower, below):
    d = len(below)
    root = lower * below
    root[:, np.arange(d), np.arange(d)] = np.exp(log_diagonal)
    centred = x[None, :, :] - mean[:, None, :]  # [K, n, d], so that BLAS multiplies
    apart = centred @ root.transpose(0, 2, 1)
    share = np.exp(weight - weight.max())
    share /= share.sum()
    offset = np.log(share) + log_diagonal.sum(axis=1)
    each = offset[:, None] - 0.5 * np.einsum("knd,knd->kn", apart, apart)
    top = each.max(axis=0)
    e = np.exp(each - top)
    total = e.sum(axis=0)
    return -(np.log(total) + top).mean(), centred, root, apart, share, e / total


def full_mixture_value(*args):
    return full_mixture_forward(*args)[0]


def full_mixture_gradient(x, weight, mean, log_diagonal, lower, below):
    args = x, weight, mean, log_diagonal, lower, below
    value, centred, root, apart, share, each = full_mixture_forward(*args)
    each /= -len(x)
    counts = each.sum(axis=1)
    dapart = apart * -each[:, :, None]
    droot = dapart.transpose(0, 2, 1) @ centred
    d = np.arange(len(below))
    dmean = -np.einsum("kid,ki->kd", root, dapart.sum(axis=1))
    dlog_diagonal = droot[:, d, d] * root[:, d, d] + counts[:, None]
    return value, (counts + share, dmean, dlog_diagonal, droot * below)


def full_mixture_case(d: int, k: int) -> Case:
    types = {
        "x": f"f64[n,{d}]", "weight": f"f64[{k}]", "mean": f"f64[{k},{d}]",
        "log_diagonal": f"f64[{k},{d}]", "lower": f"f64[{k},{d},{d}]", "below": f"f64[{d},{d}]",
    }  # fmt: skip
    return Case(
        f"full Gaussian mixture d={d} K={k}", "full_mixture", 1000, full_mixture, types,
        ("weight", "mean", "log_diagonal", "lower"), full_mixture_data(d, k), full_mixture_value,
        full_mixture_gradient,
    )  # fmt: skip


# -- soft k-means ---------------------------------------------------------------------------------

SHARPNESS = 0.1


def kmeans(xp, x, centres):
    return -xp.logsumexp(-SHARPNESS * xp.square_distances(x, centres), axis=1).mean()


def kmeans_data(d, k):
    def data(rng, n):
        return rng.normal(size=(n, d)), rng.normal(size=(k, d))

    return data


def kmeans_forward(x, centres):
    squares = np.einsum("nd,nd->n", x, x)[:, None] + np.einsum("kd,kd->k", centres, centres)
    each = -SHARPNESS * (squares - 2.0 * (x @ centres.T))
    top = each.max(axis=1, keepdims=True)
    e = np.exp(each - top)
    total = e.sum(axis=1, keepdims=True)
    return -(np.log(total) + top).mean(), e / total


def kmeans_value(x, centres):
    return kmeans_forward(x, centres)[0]


def kmeans_gradient(x, centres):
    value, share = kmeans_forward(x, centres)
    counts = share.sum(axis=0)[:, None]
    return value, ((2.0 * SHARPNESS / len(x)) * (counts * centres - share.T @ x),)


def kmeans_case(n: int, d: int, k: int) -> Case:
    types = {"x": f"f64[n,{d}]", "centres": f"f64[{k},{d}]"}
    return Case(
        f"soft k-means {n}x{d}x{k}", "kmeans", n, kmeans, types, ("centres",),
        kmeans_data(d, k), kmeans_value, kmeans_gradient, compute_bound=True,
    )  # fmt: skip


CASES = (
    mixture_case(10, 25),
    mixture_case(32, 50),
    full_mixture_case(10, 25),
    full_mixture_case(32, 50),
    kmeans_case(10_000, 64, 16),
)
