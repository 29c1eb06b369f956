"""A model as a C library: one object and one header serve every batch size, without Python and
without libm."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import graphc
from graphc.aot.library import build, driver

MAIN = Path(__file__).with_suffix("") / "main.c"
WARNINGS = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"]


@graphc.graph
def logistic(X: graphc.f64["n", 4], y: graphc.f64["n"], w: graphc.f64[4], b: graphc.f64):
    z = X @ w + b
    return (graphc.softplus(z) - y * z).mean()


def sample(n, rng):
    X = rng.normal(size=(n, 4))
    return X, (rng.random(n) < 0.5).astype(float), rng.normal(size=4), np.float64(rng.normal())


def run_c(program, folder, batches):
    """What the C program writes for these batches."""
    data, results = folder / "batches.bin", folder / "results.bin"
    data.write_bytes(
        b"".join(np.int64(len(b[0])).tobytes() + b"".join(x.tobytes() for x in b) for b in batches)
    )
    subprocess.run([program, data, results], check=True)
    return results.read_bytes()


def undefined_symbols(path):
    """What a file needs of others, as nm says; None where there is no nm."""
    if shutil.which("nm") is None:
        return None
    return subprocess.run(
        ["nm", "-u", path], capture_output=True, text=True, check=True
    ).stdout.split()


def main():
    compiler = driver()
    if compiler is None:
        print("skipped: no C compiler (cc, gcc or clang) is on the PATH")
        return
    kernels = graphc.compile(logistic, wrt=("w", "b"), deterministic=True)
    rng = np.random.default_rng(3)
    batches = [sample(7, rng), sample(1000, rng)]

    expected = b""
    for batch in batches:
        value, (dw, db) = kernels.value_and_grad(*batch)
        expected += np.float64(value).tobytes() + dw.tobytes() + np.float64(db).tobytes()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        built = build(kernels, folder)
        for path in built.paths:
            print(f"{path.name}: {path.stat().st_size:,} bytes")
        for library in (built.object, built.shared):
            assert library is not None, built.note
            program = folder / f"with_{library.suffix[1:]}"
            command = [
                compiler,
                *WARNINGS,
                f"-I{folder}",
                str(MAIN),
                str(library),
                f"-Wl,-rpath,{folder}",
            ]
            subprocess.run([*command, "-o", str(program)], check=True)
            assert run_c(program, folder, batches) == expected, (
                f"{library.name} gives other bits than the JIT"
            )
            assert not undefined_symbols(library), f"{library.name} needs other libraries"
            print(
                f"{library.name}: the bits of the JIT for {len(batches)} batch sizes, "
                "no undefined symbols"
            )


if __name__ == "__main__":
    main()
