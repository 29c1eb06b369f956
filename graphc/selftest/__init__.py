"""The self-test: the error of every elementwise gate, value and derivatives, in ULP.

    python -m graphc.selftest --ulp            # all gates in two minutes
    python -m graphc.selftest --ulp --full     # all 2^32 patterns of f32, 10^8 points of f64

In:   the gate registry, and `exact`, which knows each gate's mathematics and nothing of its code.
Out:  the worst error of each value and each partial derivative, with the argument it happens at.
Invariant: what judges shares nothing with what is judged: `exact` and `arithmetic` import neither
bodies, nor partials, nor code generation. f32 is judged by f64, f64 by x87 long double, and the
worst points of both by mpmath.
"""
