"""The multiply gate, as lecture notes draw it: z = x * y; each local gradient is the other operand.

Its Jacobians dz/dx = diag(y) and dz/dy = diag(x) are never formed: the backward multiplies by their
diagonals.
"""

import numpy as np

import graphc


class Multiply(graphc.Gate):
    def forward(self, x, y):
        return x * y

    def backward(self, dz, x, y):
        return dz * y, dz * x


@graphc.graph
def product(x: graphc.f64["n"], y: graphc.f64["n"]):
    return Multiply(x, y)


def main():
    x, y, dz = np.array([3.0, -1.0, 0.5]), np.array([4.0, 2.0, -2.0]), np.array([1.0, 10.0, 100.0])

    kernels = graphc.compile(product, wrt=("x", "y"))
    z, saved = kernels.forward(x, y)
    dx, dy = kernels.backward(saved, dz)
    print("forward   z =", z)
    print("backward dx =", dx, " dy =", dy)
    print(saved)
    assert z.tolist() == [12.0, -2.0, -1.0]
    assert dx.tolist() == [4.0, 20.0, -200.0] and dy.tolist() == [3.0, -10.0, 50.0]

    x, y = np.ones(1000), np.full(1000, 2.0)  # the same machine code, whatever n is
    z, saved = kernels.forward(x, y)
    print(f"n = 1000: {saved.nbytes:,} bytes saved, where the Jacobians are {saved.dense_nbytes:,}")
    assert saved.nbytes == 2 * 8000 and saved.dense_nbytes == 2 * 8_000_000

    gradient = graphc.grad(lambda x, y: Multiply(Multiply(x, y), x), argnums=(0, 1))  # x * y * x
    print("d(xyx) at (3, 4) =", *gradient(3.0, 4.0))
    assert gradient(3.0, 4.0) == (24.0, 9.0)


if __name__ == "__main__":
    main()
