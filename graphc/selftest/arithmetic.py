"""The arithmetics that exact functions are written in: f64 and long double in bulk, and mpmath.

In:   a function of `(m, x, ...)`, with m one of these arithmetics.
Out:  the same function over arrays (`Bulk`), or of one number in extended precision (`Extended`).
Invariant: nothing of graphc takes part: NumPy, the C library and mpmath compute.

How right they are, in units of the last place of their own format: NumPy's f64 functions 4, which
is 2^-27 units of f32; the C library's long double ones 2 (`powl`, `lgammal`, `erfcl` 5), which is
0.003 units of f64; mpmath works with 200 bits. Where an argument would have to be rounded before a
function that magnifies its error (exp(-x^2), erfc(x / sqrt 2)), what rounding lost is put back.

>>> single = Bulk(np.float64)
>>> single.erf(np.array([0.5])), single.polygamma(0, np.array([1.0])).round(12)
(array([0.52049988]), array([-0.57721566]))
>>> print(Extended().sinpi(Extended().number(0.5)))
1.0
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray
LONG = np.longdouble
HAS_LONG = np.finfo(np.longdouble).nmant == 63  # x87; elsewhere mpmath alone judges f64
PI = "3.14159265358979323846264338327950288419716939937510582"
LN2 = "0.693147180559945309417232121458176568075500134360255254"
SQRT2 = "1.41421356237309504880168872420969807856967187537694807"
BERNOULLI = [  # B2, B4, ...
    Fraction(n, d)
    for n, d in (
        (1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510),
        (43867, 798), (-174611, 330), (854513, 138), (-236364091, 2730), (8553103, 6),
    )
]  # fmt: skip

_UFUNCS = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh",
    "atanh": "arctanh", "atan2": "arctan2", "ceil": "ceil", "pow": "power",
    **{n: n for n in ("exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "sin", "cos", "tan",
                      "sinh", "cosh", "tanh", "cbrt", "sqrt", "hypot", "floor", "trunc", "rint",
                      "fmod", "sign", "where", "maximum", "minimum", "isnan", "copysign")},
}  # fmt: skip


class Bulk:
    """NumPy arrays of one dtype, f64 or long double, with what the C library has beyond NumPy."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.pi, self.ln2, self.sqrt2 = map(self.number, (PI, LN2, SQRT2))
        self.wide = self.dtype != np.float64
        for name, ufunc in _UFUNCS.items():
            setattr(self, name, getattr(np, ufunc))
        for name in ("erf", "erfc", "lgamma"):
            setattr(self, name, self._library(name))

    def __getattr__(self, name: str) -> Any:  # for the type checker: __init__ sets them
        raise AttributeError(name)

    def number(self, x: Any) -> Any:
        """A decimal text or a fraction, rounded to this format."""
        kind = self.dtype.type
        return kind(x.numerator) / kind(x.denominator) if isinstance(x, Fraction) else kind(x)

    def _library(self, name: str) -> Callable[[Array], Array]:
        return lambda x: library_loop(name, self.wide)(np.asarray(x, self.dtype))

    def sinpi(self, x: Array) -> Array:
        """sin(pi x), reduced without error."""
        r = x - 2 * np.rint(x / 2)
        r = np.where(abs(r) > 0.5, np.copysign(1, r) - r, r)
        return np.sin(self.pi * r)

    def cospi(self, x: Array) -> Array:
        r = abs(x - 2 * np.rint(x / 2))
        return np.sin(self.pi * (self.number(0.5) - r))

    def bell(self, x: Array, over: int = 1) -> Array:
        """exp(-x^2 / over), `over` 1 or 2: the square is split into parts that are exact."""
        high = x.astype(np.float32).astype(self.dtype)
        high = np.where(np.isfinite(high), high, x)
        low = x - high
        tail = np.where(abs(x) < 256, low * (x + high), 0)  # beyond, all is 0
        return np.exp(-high * high / over) * np.exp(-tail / over)

    def ndtr(self, x: Array) -> Array:
        """erfc(-x / sqrt 2) / 2; what rounding the quotient lost, a derivative puts back."""
        z = -x / self.sqrt2
        rest = self._quotient_rest(-x, z)
        slope = -2 / np.sqrt(self.pi) * np.exp(-z * z)
        return (self.erfc(z) + np.where(np.isfinite(rest), rest, 0) * slope) / 2

    def _quotient_rest(self, x: Array, z: Array) -> Array:
        """x / sqrt 2 - z, to a few digits: (x - z s - z d) / s, where sqrt 2 = s + d."""
        d = self.number(Fraction(SQRT2) - _fraction(self.sqrt2))
        return -(self._product_beyond(z, self.sqrt2, x) + z * d) / self.sqrt2

    def _product_beyond(self, a: Array, b: Any, c: Array) -> Array:
        """a b - c, where a b is nearly c: Dekker's exact product."""
        factor = self.number(2 ** (32 if self.wide else 27) + 1)
        a1, b1 = a * factor - (a * factor - a), b * factor - (b * factor - b)
        a2, b2 = a - a1, b - b1
        p = a * b
        return (p - c) + (((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2)

    def mills(self, x: Array) -> Array:
        """bell(x, 2) / sqrt(2 pi) / ndtr(x), the slope of log_ndtr."""
        small = self.bell(x, 2) / np.sqrt(2 * self.pi) / self.ndtr(x)
        return np.where(x < -20, -x / self._mills_series(x), small)

    def _mills_series(self, x: Array) -> Array:
        """1 - 1/x^2 + 3/x^4 - 15/x^6 + ..., for |x| >= 20."""
        z, total = 1 / (x * x), self.number(1)
        for k in range(29, 0, -2):
            total = 1 - k * z * total
        return total

    def log_ndtr(self, x: Array) -> Array:
        middle = np.log(self.ndtr(np.minimum(x, 0)))
        right = np.log1p(-self.ndtr(-np.maximum(x, 0)))
        log_root = np.log(2 * self.pi) / 2
        left = -x * x / 2 - np.log(-x) - log_root + np.log(self._mills_series(x))
        return np.where(x < -20, left, np.where(x < 0, middle, right))

    def erfinv(self, x: Array) -> Array:
        """Winitzki's approximation, then Halley's steps on erf, or on erfc beyond 1/2."""
        a = abs(x)
        rest = 1 - a  # exact where it is used
        log_rest = np.log(rest) + np.log1p(a)
        b = 2 / (self.pi * self.number("0.147")) + log_rest / 2
        y = np.sqrt(np.sqrt(b * b - log_rest / self.number("0.147")) - b)
        slope = np.sqrt(self.pi) / 2
        for _ in range(4):
            off = np.where(a < 0.5, self.erf(y) - a, rest - self.erfc(y))
            step = off * slope * np.exp(y * y)
            y = y - step / (1 + y * step)
        small = a < self.number(2.0) ** -200
        y = np.where(small, a * slope, y)
        return np.copysign(np.where(a == 1, np.inf, y), x)

    def polygamma(self, order: int, x: Array) -> Array:
        """For x > 0: the recurrence up to 20, then the asymptotic series."""
        shift, sign = 20, (-1) ** (order + 1)
        total = np.zeros_like(x)
        up = np.array(x)
        for _ in range(shift):
            low = up < shift
            if not low.any():
                break
            with np.errstate(all="ignore"):
                term = (1 / up) ** (order + 1)
            total = total + np.where(low, term, 0)
            up = np.where(low, up + 1, up)
        z = 1 / (up * up)
        series: Any = self.number(0)
        for k in range(len(BERNOULLI), 0, -1):
            c = BERNOULLI[k - 1] * math.factorial(2 * k + order - 1) / math.factorial(2 * k)
            series = (series + self.number(c)) * z
        if order == 0:
            return np.log(up) - 1 / (2 * up) - series - total
        head = math.factorial(order - 1) + math.factorial(order) / (2 * up) + series
        return sign * (head / up**order + math.factorial(order) * total)

    def digamma(self, x: Array) -> Array:
        right = self.polygamma(0, self._right(x))
        left = right - self.pi * self.cospi(x) / self.sinpi(x)
        return np.where(x > 0, right, self._off_poles(x, left))

    def trigamma(self, x: Array) -> Array:
        right = self.polygamma(1, self._right(x))
        return np.where(x > 0, right, (self.pi / self.sinpi(x)) ** 2 - right)

    def tetragamma(self, x: Array) -> Array:
        right = self.polygamma(2, self._right(x))
        s = self.sinpi(x)
        left = right - 2 * (self.pi / s) ** 3 * self.cospi(x)
        return np.where(x > 0, right, self._off_poles(x, left))

    def pentagamma(self, x: Array) -> Array:
        right = self.polygamma(3, self._right(x))
        left = (self.pi / self.sinpi(x)) ** 4 * (2 + 4 * self.cospi(x) ** 2) - right
        return np.where(x > 0, right, left)

    def _right(self, x: Array) -> Array:
        """The argument of the reflection formula, in the right half."""
        return np.where(x > 0, x, 1 - x)

    def _off_poles(self, x: Array, left: Array) -> Array:
        pole = (x == np.rint(x)) & (x < 0)
        return np.where(pole, np.nan, np.where(x == 0, np.copysign(np.inf, -x), left))

    def sinc_slope(self, x: Array) -> Array:
        """(cos(pi x) - sinc x) / x; its series below 1/2."""
        with np.errstate(all="ignore"):
            far = (self.cospi(x) - self.sinpi(x) / (self.pi * x)) / x
        z, total = -((self.pi * x) ** 2), np.zeros_like(x)
        for k in range(18, 0, -1):
            total = (total + self.number(Fraction(2 * k, math.factorial(2 * k + 1)))) * z
        near = np.where(abs(x) < 2.0**-40, -x * self.pi * self.pi / 3, total / x)
        return np.where(abs(x) < 0.5, near, far)


class Extended:
    """mpmath numbers, one at a time; exact in every digit that any judge looks at."""

    def __init__(self, bits: int = 200) -> None:
        import mpmath

        self.context = c = mpmath.MPContext()
        c.prec = bits
        self.pi, self.ln2, self.sqrt2 = +c.pi, +c.ln2, c.sqrt(2)
        for name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tan", "asin", "acos", "atan",
                     "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "atan2", "erf", "erfc",
                     "erfinv", "floor", "sqrt", "hypot", "digamma", "cospi", "sinpi",
                     "isnan"):  # fmt: skip
            setattr(self, name, getattr(c, name))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def number(self, x: Any) -> Any:
        if isinstance(x, np.longdouble) and np.isfinite(x):
            numerator, denominator = x.as_integer_ratio()
            return self.context.mpf(numerator) / denominator
        return self.context.mpf(x if isinstance(x, str) else float(x))

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self.number(0) + a if condition else self.number(0) + b

    def exp2(self, x: Any) -> Any:
        return self.context.mpf(2) ** x

    def log2(self, x: Any) -> Any:
        return self.log(x) / self.ln2

    def log10(self, x: Any) -> Any:
        return self.log(x) / self.log(self.number(10))

    def cbrt(self, x: Any) -> Any:
        root = self.context.cbrt(abs(x))
        return -root if x < 0 else root

    def pow(self, x: Any, y: Any) -> Any:
        return self.context.mpf(1) if y == 0 else x**y if x else (0 * x if y > 0 else 1 / x)

    def sign(self, x: Any) -> Any:
        return self.number((x > 0) - (x < 0))

    def maximum(self, x: Any, y: Any) -> Any:
        return x if x > y else y

    def minimum(self, x: Any, y: Any) -> Any:
        return x if x < y else y

    def rint(self, x: Any) -> Any:
        return self.context.nint(x)

    def ceil(self, x: Any) -> Any:
        return self.context.ceil(x)

    def trunc(self, x: Any) -> Any:
        return self.sign(x) * self.context.floor(abs(x))

    def fmod(self, x: Any, y: Any) -> Any:
        a, b = _exact(x), _exact(y)
        r = abs(a) % abs(b)
        return self.context.mpf(r.numerator) / r.denominator * (-1 if a < 0 else 1)

    def copysign(self, x: Any, y: Any) -> Any:
        return abs(x) if y > 0 else -abs(x) if y < 0 else self.context.nan  # no -0 here

    def bell(self, x: Any, over: int = 1) -> Any:
        return self.exp(-x * x / over)

    def ndtr(self, x: Any) -> Any:
        return self.erfc(-x / self.sqrt2) / 2

    def mills(self, x: Any) -> Any:
        if x > -1000:
            return self.bell(x, 2) / self.sqrt(2 * self.pi) / self.ndtr(x)
        z, total = 1 / (x * x), self.number(1)
        for k in range(29, 0, -2):
            total = 1 - k * z * total
        return -x / total

    def log_ndtr(self, x: Any) -> Any:
        if x < -1000:
            return -x * x / 2 - self.log(self.mills(x)) - self.log(2 * self.pi) / 2
        return self.log(self.ndtr(x)) if x < 0 else self.log1p(-self.ndtr(-x))

    def lgamma(self, x: Any) -> Any:
        return self.context.re(self.context.loggamma(x))

    def polygamma(self, order: int, x: Any) -> Any:
        """For x > 0, order >= 1: the recurrence up to 60, then the asymptotic series. mpmath's
        own takes seconds left of 0 and far from it."""
        c, total = self.context, self.context.mpf(0)
        while x < 60:
            total += x ** (-order - 1)
            x = x + 1
        series = sum(
            c.bernoulli(2 * k) * c.factorial(2 * k + order - 1) / c.factorial(2 * k) / x ** (2 * k)
            for k in range(1, 45)
        )
        head = c.factorial(order - 1) + c.factorial(order) / (2 * x) + series
        return (-1) ** (order + 1) * (head / x**order + c.factorial(order) * total)

    def trigamma(self, x: Any) -> Any:
        if x > 0:
            return self.polygamma(1, x)
        return (self.pi / self.sinpi(x)) ** 2 - self.polygamma(1, 1 - x)

    def tetragamma(self, x: Any) -> Any:
        if x > 0:
            return self.polygamma(2, x)
        bend = 2 * (self.pi / self.sinpi(x)) ** 3 * self.cospi(x)
        return self.polygamma(2, 1 - x) - bend

    def pentagamma(self, x: Any) -> Any:
        if x > 0:
            return self.polygamma(3, x)
        bend = (self.pi / self.sinpi(x)) ** 4 * (2 + 4 * self.cospi(x) ** 2)
        return bend - self.polygamma(3, 1 - x)

    def sinc_slope(self, x: Any) -> Any:
        with self.context.workprec(2 * self.context.prec):
            if x == 0:
                return 0 * x
            if abs(x) < self.number(1e-20):
                return -x * self.pi**2 / 3
            return (self.cospi(x) - self.sinpi(x) / (+self.context.pi * x)) / x


def _exact(x: Any) -> Fraction:
    """An mpmath number as a rational."""
    sign, man, exponent, _ = x._mpf_
    whole = Fraction(int(man)) * (Fraction(2) ** exponent)
    return -whole if sign else whole


def _fraction(x: Any) -> Fraction:
    """A float of any format as a rational."""
    return Fraction(*x.as_integer_ratio())


# -- functions of the C library that NumPy lacks ---------------------------------------------------


@cache
def library_loop(name: str, wide: bool) -> Callable[[Array], Array]:
    """A C library function over arrays: a loop in machine code, since Python has no long double."""
    import llvmlite.binding as llvm

    ty, symbol, stride = ("x86_fp80", f"{name}l", 16) if wide else ("double", name, 8)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        opt=2, jit=True
    )
    module = llvm.parse_assembly(_LOOP.format(ty=ty, symbol=symbol, stride=stride))
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    loop = prototype(engine.get_function_address("loop"))

    def apply(x: Array) -> Array:
        x = np.ascontiguousarray(x)
        out = np.zeros_like(x)
        loop(x.ctypes.data, out.ctypes.data, x.size)
        return out

    apply.engine = engine  # type: ignore[attr-defined]  # keeps the machine code
    return apply


_LOOP = """
declare {ty} @{symbol}({ty})
define void @loop(ptr %x, ptr %out, i64 %n) {{
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%next, %body]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %at = mul i64 %i, {stride}
  %from = getelementptr i8, ptr %x, i64 %at
  %to = getelementptr i8, ptr %out, i64 %at
  %v = load {ty}, ptr %from, align 8
  %r = call {ty} @{symbol}({ty} %v)
  store {ty} %r, ptr %to, align 8
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}}
"""


def evaluated(m: Extended, f: Callable[..., Any], args: Sequence[Any]) -> Any:
    """f at one point in mpmath; None where mpmath has no number for it."""
    try:
        y = f(m, *[m.number(a) for a in args])
    except (ZeroDivisionError, ValueError, OverflowError, m.context.NoConvergence):
        return None
    y = m.context.mpmathify(y)
    return None if isinstance(y, m.context.mpc) or not m.context.isfinite(y) else y
