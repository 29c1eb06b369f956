"""Every public array function, under NumPy's name where NumPy has one.

In:   traced values, arrays, numbers.
Out:  a traced value inside of a trace; outside, the function compiles itself and gives arrays.
Invariant: shapes, dtypes and errors are NumPy's.

>>> import numpy as np
>>> sorted(np.asarray(EXPORTS)[:3].tolist())
['abs', 'absolute', 'add']
"""

EXPORTS = tuple(
    sorted(name for name in globals() if not name.startswith("_") and name != "EXPORTS")
)
__all__ = list(EXPORTS)  # noqa: PLE0605
