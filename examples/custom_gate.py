"""A gate of your own, with a backward that keeps its digits: log(1 - e^-x), for x > 0.

Written down naively, both the value and the gradient lose every digit for small x. The gate
computes the value by the branch that is accurate, and its derivative e^-x / (1 - e^-x) as
1 / (e^x - 1). It is then a gate like any other: it fuses with its neighbours, and is differentiated
again where a second derivative is asked for.
"""

import mpmath
import numpy as np

import graphc


class Log1mExp(graphc.Gate):
    """Source of the branches: M. Maechler, Accurately computing log(1 - exp(-|a|)), 2012."""

    def forward(self, x):
        near = graphc.log(-graphc.expm1(-x))
        far = graphc.log1p(-graphc.exp(-x))
        return graphc.where(x < np.log(2.0), near, far)

    def backward(self, ct, x):
        return ct / graphc.expm1(x)


def naive(x):
    return np.log(1 - np.exp(-x))


def exact(x):
    """The derivative to 50 digits, rounded."""
    with mpmath.workdps(50):
        return float(1 / mpmath.expm1(mpmath.mpf(x)))


def main():
    print("      x   derivative              naive                   their errors")
    for x in (1e-16, 1e-9, 1e-3, 1.0, 30.0, 700.0):
        stable, plain, truth = graphc.grad(Log1mExp())(x), graphc.grad(naive)(x), exact(x)
        errors = [abs(d - truth) / truth for d in (stable, plain)]
        print(f"{x:7.0e}   {stable:<22.16g}  {plain:<22.16g}  {errors[0]:.0e}, {errors[1]:.0e}")
        assert errors[0] < 4 * np.finfo(float).eps

    assert graphc.grad(naive)(1e-17) == np.inf  # 1 - e^-x is 0 there
    curvature = graphc.grad(graphc.grad(Log1mExp()))(1.0)
    print("second derivative at 1:", curvature)
    assert np.isclose(curvature, -np.e / np.expm1(1.0) ** 2, rtol=1e-14)


if __name__ == "__main__":
    main()
