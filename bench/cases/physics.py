"""Charges that repel, a curved valley, a matrix and its transpose, many small problems at once."""

import numpy as np

from bench.cases.case import TINY, Case

# -- pairwise energy ------------------------------------------------------------------------------


def pairwise(xp, x):
    """The energy of n charges that repel each other, softened at short distance."""
    apart = x[:, None, :] - x[None, :, :]
    return 0.5 * (1.0 / xp.sqrt((apart * apart).sum(axis=2) + 0.01)).sum()


def pairwise_data(rng, n):
    return (rng.normal(size=(n, 3)),)


def pairwise_value(x):
    apart = x[:, None, :] - x[None, :, :]
    return 0.5 * (1.0 / np.sqrt(np.einsum("ijk,ijk->ij", apart, apart) + 0.01)).sum()


def pairwise_gradient(x):
    apart = x[:, None, :] - x[None, :, :]
    near = 1.0 / np.sqrt(np.einsum("ijk,ijk->ij", apart, apart) + 0.01)
    return 0.5 * near.sum(), (-np.einsum("ij,ijk->ik", near * near * near, apart),)


def pairwise_case(n: int) -> Case:
    return Case(
        f"pairwise energy n={n}", "pairwise", n, pairwise, {"x": "f64[n,3]"}, ("x",),
        pairwise_data, pairwise_value, pairwise_gradient, compute_bound=n >= 1000,
    )  # fmt: skip


# -- a matrix and its transpose -------------------------------------------------------------------


def asymmetry(xp, a):
    """How far a matrix is from a symmetric one, with outliers counted less."""
    apart = a - a.T
    return xp.sqrt(apart * apart + 1.0).sum()


def asymmetry_data(rng, n):
    return (rng.normal(size=(n, n)),)


def asymmetry_value(a):
    return np.sqrt(np.square(a - a.T) + 1.0).sum()


def asymmetry_gradient(a):
    apart = a - a.T
    root = np.sqrt(apart * apart + 1.0)
    return root.sum(), (2.0 * apart / root,)


ASYMMETRY = Case(
    "asymmetry 2048 x 2048", "asymmetry", 2048, asymmetry, {"a": "f64[n,n]"}, ("a",),
    asymmetry_data, asymmetry_value, asymmetry_gradient,
)  # fmt: skip


# -- Rosenbrock -----------------------------------------------------------------------------------


def rosenbrock(xp, x):
    a, b = x[:-1], x[1:]
    return (100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2).sum()


def rosenbrock_data(rng, n):
    return (rng.normal(size=n),)


def rosenbrock_value(x):
    a, b = x[:-1], x[1:]
    return (100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2).sum()


def rosenbrock_gradient(x):
    a, b = x[:-1], x[1:]
    curve, slope = b - a * a, 1.0 - a
    dx = np.zeros_like(x)
    dx[1:] = 200.0 * curve
    dx[:-1] -= 400.0 * curve * a + 2.0 * slope
    return (100.0 * curve**2 + slope**2).sum(), (dx,)


def rosenbrock_case(n: int, size: str) -> Case:
    return Case(
        f"Rosenbrock n={size}", "rosenbrock", n, rosenbrock, {"x": "f64[n]"}, ("x",),
        rosenbrock_data, rosenbrock_value, rosenbrock_gradient,
    )  # fmt: skip


# -- cameras: many points rotated, projected, compared with where they were seen ------------------

FOCAL, DISTANCE = 1.5, 6.0


def cameras(xp, point, turn, seen):
    """The sum of squared residuals; each point has its rotation, an axis times an angle."""
    px, py, pz = point[:, 0], point[:, 1], point[:, 2]
    rx, ry, rz = turn[:, 0], turn[:, 1], turn[:, 2]
    square = rx * rx + ry * ry + rz * rz
    angle = xp.sqrt(square)
    c, s = xp.cos(angle), xp.sin(angle) / angle
    k = (1.0 - c) / square * (rx * px + ry * py + rz * pz)
    qx = px * c + (ry * pz - rz * py) * s + rx * k
    qy = py * c + (rz * px - rx * pz) * s + ry * k
    qz = pz * c + (rx * py - ry * px) * s + rz * k
    scale = FOCAL / (qz + DISTANCE)
    u, v = qx * scale - seen[:, 0], qy * scale - seen[:, 1]
    return (u * u + v * v).sum()


def cameras_data(rng, n):
    return rng.uniform(-1, 1, (n, 3)), rng.normal(size=(n, 3)), rng.uniform(-0.5, 0.5, (n, 2))


def cameras_rotation(p, r):
    """Sines and cosines and the rotated points, all as columns of components."""
    square = np.einsum("in,in->n", r, r)
    angle = np.sqrt(square)
    c = np.cos(angle)
    s, k = np.sin(angle) / angle, (1.0 - c) / square
    across, along = cross(r, p), np.einsum("in,in->n", r, p)
    return angle, c, s, k, across, along, c * p + s * across + (k * along) * r


def cross(a, b):
    return np.stack(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )


def cameras_residuals(q, seen):
    scale = FOCAL / (q[2] + DISTANCE)
    u, v = q[0] * scale, q[1] * scale
    return scale, u, v, u - seen[:, 0], v - seen[:, 1]


def cameras_value(point, turn, seen):
    q = cameras_rotation(point.T.copy(), turn.T.copy())[-1]
    *_, du, dv = cameras_residuals(q, seen)
    return (du * du + dv * dv).sum()


def cameras_gradient(point, turn, seen):
    p, r = point.T.copy(), turn.T.copy()
    angle, c, s, k, across, along, q = cameras_rotation(p, r)
    scale, u, v, du, dv = cameras_residuals(q, seen)
    away = -(du * u + dv * v) / FOCAL
    g = 2.0 * scale * np.stack([du, dv, away])
    along_g = np.einsum("in,in->n", g, r)
    dp = c * g + s * cross(g, r) + (k * along_g) * r
    # by the angle: c' = -sin, s' = (c - s) / angle, k' = (s - 2 k) / angle
    dangle = (
        (c - s) * np.einsum("in,in->n", g, across) + (s - 2.0 * k) * along * along_g
    ) / angle - s * angle * np.einsum("in,in->n", g, p)
    dr = s * cross(p, g) + (k * along_g) * p + (k * along) * g + (dangle / angle) * r
    value = (du * du + dv * dv).sum()
    return value, (np.ascontiguousarray(dp.T), np.ascontiguousarray(dr.T))


CAMERAS = Case(
    "100,000 cameras", "cameras", 100_000, cameras,
    {"point": "f64[n,3]", "turn": "f64[n,3]", "seen": "f64[n,2]"}, ("point", "turn"),
    cameras_data, cameras_value, cameras_gradient, group=TINY, compute_bound=True,
)  # fmt: skip


MANY_CHARGES = pairwise_case(20_000)  # too many for an n x n array; for its memory alone

CASES = (
    pairwise_case(100),
    pairwise_case(2000),
    rosenbrock_case(2, "2"),
    rosenbrock_case(1000, "1000"),
    rosenbrock_case(1_000_000, "1e6"),
    ASYMMETRY,
    CAMERAS,
)
