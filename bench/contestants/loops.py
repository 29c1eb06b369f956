"""Loops by hand: value and gradient in one sweep over the data, as the patient write them.

Each function of `LOOPS` takes the arguments and a count of parts, makes buffers for the results,
and gives a call without arguments. With several parts the rows are cut into as many, one a thread,
each with sums of its own, which are added at the end.
"""

from collections.abc import Callable
from math import cos, erf, exp, log, log1p, pi, sin, sqrt
from typing import Any

import numpy as np
from numba import njit, prange

from bench.cases.clusters import SHARPNESS
from bench.cases.paths import STRIKE
from bench.cases.physics import DISTANCE, FOCAL
from bench.cases.regression import GROUPS


def both(f: Callable[..., Any]) -> Callable[[int], Callable[..., Any]]:
    """Serial for one part: a parallel loop alone takes some 10 us to start."""
    serial, parallel = njit(cache=True)(f), njit(cache=True, parallel=True)(f)
    return lambda parts: parallel if parts > 1 else serial


@both
def wave(x, w, b, parts, dx, sums):
    n, one = len(x), x.dtype.type(1.0)
    for part in prange(parts):
        total = dw = db = 0.0  # in double precision, as sums one after the other lose digits
        for i in range(n * part // parts, n * (part + 1) // parts):
            t, e = np.tanh(x[i] * w + b), np.exp(-x[i] * x[i])
            dz = (one - t * t) * e
            dx[i] = dz * w - (x[i] + x[i]) * (t * e)
            total += t * e
            dw += dz * x[i]
            db += dz
        sums[part, 0], sums[part, 1], sums[part, 2] = total, dw, db
    for part in range(1, parts):
        sums[0] += sums[part]
    return sums[0, 0], dx, sums[0, 1], sums[0, 2]


def wave_loops(args, parts):
    x, w, b = args
    dx, sums, f = np.empty_like(x), np.empty((parts, 3)), wave(parts)
    return lambda: f(x, w, b, parts, dx, sums)


@both
def black_scholes(spot, strike, sigma, years, rate, parts, dspot, dstrike, dsigma, dyears, sums):
    n = len(spot)
    one = spot.dtype.type(1.0)
    half = spot.dtype.type(0.5)
    root_half, density = spot.dtype.type(sqrt(0.5)), spot.dtype.type(1.0 / sqrt(2.0 * pi))
    for part in prange(parts):
        total = drate = 0.0
        for i in range(n * part // parts, n * (part + 1) // parts):
            root = np.sqrt(years[i])
            spread = sigma[i] * root
            d1 = (np.log(spot[i] / strike[i]) + rate * years[i]) / spread + half * spread
            n1 = half * (one + erf(d1 * root_half))
            n2 = half * (one + erf((d1 - spread) * root_half))
            discount = np.exp(-rate * years[i])
            paid = strike[i] * discount * n2
            dense = spot[i] * np.exp(-half * d1 * d1) * density
            dspot[i] = n1
            dstrike[i] = -discount * n2
            dsigma[i] = dense * root
            dyears[i] = half * dense * sigma[i] / root + rate * paid
            total += spot[i] * n1 - paid
            drate += years[i] * paid
        sums[part, 0], sums[part, 1] = total, drate
    for part in range(1, parts):
        sums[0] += sums[part]
    return sums[0, 0], dspot, dstrike, dsigma, dyears, sums[0, 1]


def black_scholes_loops(args, parts):
    spot, strike, sigma, years, rate = args
    a, b, c, d = (np.empty_like(spot) for _ in range(4))
    sums, f = np.empty((parts, 2)), black_scholes(parts)
    return lambda: f(spot, strike, sigma, years, rate, parts, a, b, c, d, sums)


@both
def asian(noise, spot, drift, sigma, parts, sums):
    n, steps = noise.shape
    for part in prange(parts):
        price = np.empty(steps)
        total = dspot = ddrift = dsigma = 0.0
        for i in range(n * part // parts, n * (part + 1) // parts):
            at = mean = 0.0
            for t in range(steps):
                at += drift + sigma * noise[i, t]
                price[t] = exp(at)
                mean += price[t]
            mean /= steps
            if spot * mean > STRIKE:
                total += spot * mean - STRIKE
                dspot += mean
                rest = 0.0
                for t in range(steps - 1, -1, -1):
                    rest += price[t]
                    ddrift += rest
                    dsigma += rest * noise[i, t]
        sums[part, 0], sums[part, 1] = total / n, dspot / n
        sums[part, 2], sums[part, 3] = spot * ddrift / (steps * n), spot * dsigma / (steps * n)
    for part in range(1, parts):
        sums[0] += sums[part]
    return sums[0, 0], sums[0, 1], sums[0, 2], sums[0, 3]


def asian_loops(args, parts):
    sums, f = np.empty((parts, 4)), asian(parts)
    return lambda: f(*args, parts, sums)


@both
def logistic(X, y, w, b, parts, sums):
    n, d = X.shape
    for part in prange(parts):
        own = np.zeros(d + 2)
        for i in range(n * part // parts, n * (part + 1) // parts):
            z = b
            for j in range(d):
                z += X[i, j] * w[j]
            e = exp(-abs(z))
            own[d + 1] += max(z, 0.0) + log1p(e) - y[i] * z
            dz = (1.0 if z >= 0.0 else e) / (1.0 + e) - y[i]
            for j in range(d):
                own[j] += dz * X[i, j]
            own[d] += dz
        sums[part] = own / n
    for part in range(1, parts):
        sums[0] += sums[part]
    return sums[0, d + 1], sums[0, :d], sums[0, d]


def logistic_loops(args, parts):
    X, y, w, b = args
    sums, f = np.empty((parts, X.shape[1] + 2)), logistic(parts)
    return lambda: f(X, y, w, b, parts, sums)


@njit(cache=True)
def schools(effect, error, theta, mu, log_tau, dtheta):
    tau = exp(log_tau)
    total = (mu / 5.0) ** 2
    dmu, dtau = mu / 25.0, 0.0
    for i in range(8):
        apart = (effect[i] - mu - tau * theta[i]) / error[i]
        total += apart * apart + theta[i] * theta[i]
        scaled = apart / error[i]
        dtheta[i] = theta[i] - tau * scaled
        dmu -= scaled
        dtau -= scaled * theta[i]
    square = (tau / 5.0) ** 2
    dtau += 2.0 * tau / 25.0 / (1.0 + square)
    return 0.5 * total + log1p(square) - log_tau, dtheta, dmu, dtau * tau - 1.0


def schools_loops(args, parts):
    effect, error, theta, mu, log_tau = args
    dtheta = np.empty(8)
    return lambda: schools(effect, error, theta, mu, log_tau, dtheta)


@both
def hierarchical(X, y, group, alpha, beta, mu, log_sigma, parts, sums):
    n, d = X.shape
    for part in prange(parts):
        own = np.zeros(GROUPS + d + 1)
        for i in range(n * part // parts, n * (part + 1) // parts):
            z = alpha[group[i]]
            for j in range(d):
                z += X[i, j] * beta[j]
            e = exp(-abs(z))
            own[GROUPS + d] += max(z, 0.0) + log1p(e) - y[i] * z
            dz = (1.0 if z >= 0.0 else e) / (1.0 + e) - y[i]
            own[group[i]] += dz
            for j in range(d):
                own[GROUPS + j] += dz * X[i, j]
        sums[part] = own
    for part in range(1, parts):
        sums[0] += sums[part]
    scale = exp(-log_sigma)
    square = dmu = 0.0
    for j in range(GROUPS):
        apart = (alpha[j] - mu) * scale
        square += apart * apart
        sums[0, j] += apart * scale
        dmu -= apart * scale
    value = sums[0, GROUPS + d] + 0.5 * square + GROUPS * log_sigma
    return value, sums[0, :GROUPS], sums[0, GROUPS : GROUPS + d], dmu, GROUPS - square


def hierarchical_loops(args, parts):
    X, y, group, alpha, beta, mu, log_sigma = args
    sums, f = np.empty((parts, GROUPS + X.shape[1] + 1)), hierarchical(parts)
    return lambda: f(X, y, group, alpha, beta, mu, log_sigma, parts, sums)


@both
def kmeans(x, centres, parts, sums, totals):
    n, d = x.shape
    k = len(centres)
    for part in prange(parts):
        share, counts, own = np.empty(k), np.zeros(k), np.zeros((k, d))
        total = 0.0
        for i in range(n * part // parts, n * (part + 1) // parts):
            top = -np.inf
            for c in range(k):
                square = 0.0
                for j in range(d):
                    apart = x[i, j] - centres[c, j]
                    square += apart * apart
                share[c] = -SHARPNESS * square
                top = max(top, share[c])
            norm = 0.0
            for c in range(k):
                share[c] = exp(share[c] - top)
                norm += share[c]
            total -= top + log(norm)
            for c in range(k):
                weight = share[c] / norm
                counts[c] += weight
                for j in range(d):
                    own[c, j] += weight * x[i, j]
        scale = 2.0 * SHARPNESS / n
        for c in range(k):
            for j in range(d):
                sums[part, c, j] = scale * (counts[c] * centres[c, j] - own[c, j])
        totals[part] = total / n
    for part in range(1, parts):
        sums[0] += sums[part]
    return totals.sum(), sums[0]


def kmeans_loops(args, parts):
    x, centres = args
    sums, totals, f = np.empty((parts, *centres.shape)), np.empty(parts), kmeans(parts)
    return lambda: f(x, centres, parts, sums, totals)


@both
def pairwise(x, parts, dx, totals):
    """Each pair twice: so that every thread writes rows of its own alone."""
    n = len(x)
    for part in prange(parts):
        total = 0.0
        for i in range(n * part // parts, n * (part + 1) // parts):
            gx = gy = gz = 0.0
            for j in range(n):
                ax, ay, az = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
                near = 1.0 / sqrt(ax * ax + ay * ay + az * az + 0.01)
                cube = near * near * near
                total += near
                gx -= cube * ax
                gy -= cube * ay
                gz -= cube * az
            dx[i, 0], dx[i, 1], dx[i, 2] = gx, gy, gz
        totals[part] = 0.5 * total
    return totals.sum(), dx


def pairwise_loops(args, parts):
    (x,) = args
    dx, totals, f = np.empty_like(x), np.empty(parts), pairwise(parts)
    return lambda: f(x, parts, dx, totals)


@both
def rosenbrock(x, parts, dx, totals):
    n = len(x)
    for part in prange(parts):
        total = 0.0
        first, last = n * part // parts, n * (part + 1) // parts
        before = 200.0 * (x[first] - x[first - 1] ** 2) if first else 0.0
        for i in range(first, min(last, n - 1)):
            curve, slope = x[i + 1] - x[i] * x[i], 1.0 - x[i]
            dx[i] = before - 400.0 * curve * x[i] - 2.0 * slope
            before = 200.0 * curve
            total += 100.0 * curve * curve + slope * slope
        if last == n:
            dx[n - 1] = before
        totals[part] = total
    return totals.sum(), dx


def rosenbrock_loops(args, parts):
    (x,) = args
    dx, totals, f = np.empty_like(x), np.empty(parts), rosenbrock(parts)
    return lambda: f(x, parts, dx, totals)


@both
def cameras(point, turn, seen, parts, dpoint, dturn, totals):
    n = len(point)
    for part in prange(parts):
        total = 0.0
        for i in range(n * part // parts, n * (part + 1) // parts):
            px, py, pz = point[i, 0], point[i, 1], point[i, 2]
            rx, ry, rz = turn[i, 0], turn[i, 1], turn[i, 2]
            square = rx * rx + ry * ry + rz * rz
            angle = sqrt(square)
            c, s = cos(angle), sin(angle) / angle
            k = (1.0 - c) / square
            ax, ay, az = ry * pz - rz * py, rz * px - rx * pz, rx * py - ry * px
            along = rx * px + ry * py + rz * pz
            qx = c * px + s * ax + k * along * rx
            qy = c * py + s * ay + k * along * ry
            qz = c * pz + s * az + k * along * rz
            scale = FOCAL / (qz + DISTANCE)
            u, v = qx * scale, qy * scale
            du, dv = u - seen[i, 0], v - seen[i, 1]
            total += du * du + dv * dv
            gx, gy = 2.0 * scale * du, 2.0 * scale * dv
            gz = -2.0 * scale * (du * u + dv * v) / FOCAL
            along_g = rx * gx + ry * gy + rz * gz
            dpoint[i, 0] = c * gx + s * (gy * rz - gz * ry) + k * along_g * rx
            dpoint[i, 1] = c * gy + s * (gz * rx - gx * rz) + k * along_g * ry
            dpoint[i, 2] = c * gz + s * (gx * ry - gy * rx) + k * along_g * rz
            across = gx * ax + gy * ay + gz * az
            dangle = ((c - s) * across + (s - 2.0 * k) * along * along_g) / angle
            dangle = (dangle - s * angle * (gx * px + gy * py + gz * pz)) / angle
            kp, kg = k * along_g, k * along
            dturn[i, 0] = s * (py * gz - pz * gy) + kp * px + kg * gx + dangle * rx
            dturn[i, 1] = s * (pz * gx - px * gz) + kp * py + kg * gy + dangle * ry
            dturn[i, 2] = s * (px * gy - py * gx) + kp * pz + kg * gz + dangle * rz
        totals[part] = total
    return totals.sum(), dpoint, dturn


def cameras_loops(args, parts):
    point, turn, seen = args
    dpoint, dturn, totals = np.empty_like(point), np.empty_like(turn), np.empty(parts)
    f = cameras(parts)
    return lambda: f(point, turn, seen, parts, dpoint, dturn, totals)


LOOPS = {
    "wave": wave_loops,
    "black_scholes": black_scholes_loops,
    "asian": asian_loops,
    "logistic": logistic_loops,
    "schools": schools_loops,
    "hierarchical": hierarchical_loops,
    "kmeans": kmeans_loops,
    "pairwise": pairwise_loops,
    "rosenbrock": rosenbrock_loops,
    "cameras": cameras_loops,
}
