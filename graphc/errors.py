"""Every error graphc raises on purpose.

    GraphcError
    ├── TraceError            a traced value read as a bool, int or float, or outside its trace
    ├── ShapeError            sizes that do not fit           (also a ValueError)
    ├── DTypeError            dtypes that do not fit          (also a TypeError)
    ├── SignatureError        wrong count, name or structure of arguments (also a TypeError)
    ├── DifferentiationError  a gradient that does not exist  (also a TypeError)
    ├── GateError             a gate's record is incomplete or contradicts itself
    ├── FormatError           text that is no graph, program or type  (also a ValueError)
    ├── VerifyError           a stage broke an invariant; a defect of graphc, never of the user
    ├── RewriteError          the simplifier's rules do not settle
    ├── CompileError          a graph cannot be compiled (a size over a limit, no linker, ...)
    └── IndexOutOfBounds      an index array points outside its axis (also an IndexError)

A message says what failed, what was got, where in the user's file, and what to do.
"""

from __future__ import annotations


class GraphcError(Exception):
    """Base of all errors that graphc raises on purpose."""


class TraceError(GraphcError, TypeError):
    """A traced value was used where Python needs a number, or outside of its trace."""


class ShapeError(GraphcError, ValueError):
    """Sizes that do not fit together."""


class DTypeError(GraphcError, TypeError):
    """Dtypes that do not fit together, or that graphc does not support."""


class SignatureError(GraphcError, TypeError):
    """A call with the wrong arguments: their count, names, structure, rank or dtype."""


class DifferentiationError(GraphcError, TypeError):
    """A gradient that does not exist, such as one with respect to an integer input."""


class GateError(GraphcError, TypeError):
    """A gate's record is incomplete or contradicts itself."""


class FormatError(GraphcError, ValueError):
    """Text that does not parse back into a graph or a program."""


class VerifyError(GraphcError, AssertionError):
    """A stage broke an invariant. This is a defect of graphc: please report it."""


class RewriteError(GraphcError, RuntimeError):
    """Rewrite rules that do not settle; the message names the cycle."""


class CompileError(GraphcError, RuntimeError):
    """A graph that cannot be compiled here."""


class IndexOutOfBounds(GraphcError, IndexError):
    """An index array points outside of its axis."""
