"""The max gate routes its gradient: the Jacobian is a selection, one 1 a row, and zeros.

Where operands tie, the function has a kink; the gradient is then shared evenly, so that it always
adds up.
"""

import numpy as np

import graphc


@graphc.graph
def larger(x: graphc.f64["n"], y: graphc.f64["n"]):
    return graphc.maximum(x, y)


@graphc.graph
def largest(x: graphc.f64["n", 4]):
    return x.max(axis=1)


def jacobian(kernels, *args):
    """The rows of the Jacobian: pull back each unit cotangent."""
    value, saved = kernels.forward(*args)
    return np.array([kernels.backward(saved, unit) for unit in np.eye(len(value))])


def main():
    x, y = np.array([1.0, 5.0, 2.0]), np.array([4.0, 3.0, 2.0])
    by_x = jacobian(graphc.compile(larger, wrt="x"), x, y)
    by_y = jacobian(graphc.compile(larger, wrt="y"), x, y)
    print("maximum([1 5 2], [4 3 2]) by x:\n", by_x)
    assert np.array_equal(by_x, np.diag([0.0, 1.0, 0.5]))  # y is larger, x is larger, a tie
    assert np.array_equal(by_x + by_y, np.eye(3))

    rows = np.array([[3.0, 9.0, 1.0, 2.0], [7.0, 0.0, 7.0, 7.0]])
    selected = jacobian(graphc.compile(largest, wrt="x"), rows)
    print("max over each row, by the row:\n", selected[0, 0], "\n", selected[1, 1])
    assert selected[0, 0].tolist() == [0, 1, 0, 0]  # the gradient goes to the largest alone
    assert np.allclose(selected[1, 1], [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-15)  # three share it
    assert not selected[0, 1].any() and not selected[1, 0].any()

    _, dx = graphc.value_and_grad(lambda x: graphc.relu(x).sum())(np.array([-1.0, 0.0, 2.0]))
    print("relu' at -1, 0, 2:", dx)  # relu is a gate of its own: 0 at its kink
    assert dx.tolist() == [0.0, 0.0, 1.0]


if __name__ == "__main__":
    main()
