"""Gradients of gradients, on plain NumPy code: the motion of a pendulum from its Lagrangian.

With L(q, v) the energy of motion minus the energy of height, the acceleration a follows from
Lagrange's equation d/dt (dL/dv) = dL/dq, that is  L_vv a + L_vq v = L_q.  All three derivatives are
taken here by graphc, two of them through a gradient; the function around them is one graph.
"""

import numpy as np

import graphc

GRAVITY = 9.81


def lagrangian(q, v):
    """A pendulum of mass 1 and length 1, at the angle q from straight down."""
    return 0.5 * v**2 + GRAVITY * np.cos(q)


def momentum(q, v):
    return graphc.grad(lagrangian, argnums=1)(q, v)


@graphc.jit
def acceleration(q, v):
    force = graphc.grad(lagrangian)(q, v)
    by_q, by_v = graphc.grad(momentum, argnums=(0, 1))(q, v)
    return (force - by_q * v) / by_v


@graphc.jit
def step(q, v, dt):
    """One step of velocity Verlet."""
    half = v + 0.5 * dt * acceleration(q, v)
    q = q + dt * half
    return q, half + 0.5 * dt * acceleration(q, half)


def main():
    third = graphc.grad(graphc.grad(graphc.grad(lambda x: np.sin(x) * np.exp(x))))
    print("third derivative of sin(x) e^x at 1:", third(1.0))
    assert np.isclose(third(1.0), 2 * np.e * (np.cos(1.0) - np.sin(1.0)), rtol=1e-14)

    print("acceleration at 0.5:", acceleration(0.5, 1.0), " by hand:", -GRAVITY * np.sin(0.5))
    assert np.isclose(acceleration(0.5, 1.0), -GRAVITY * np.sin(0.5), rtol=1e-15)

    q, v, dt = 1.0, 0.0, 1e-3
    energy = 0.5 * v**2 - GRAVITY * np.cos(q)
    for _ in range(2000):
        q, v = step(q, v, dt)
    drift = 0.5 * v**2 - GRAVITY * np.cos(q) - energy
    print(f"after 2 s: angle {q:.6f}, speed {v:.6f}, energy off by {drift:.1e}")
    assert abs(drift) < 1e-5


if __name__ == "__main__":
    main()
