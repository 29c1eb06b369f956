"""The command line: what it prints and writes, and that what goes wrong is one line and exit code
2.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import graphc
from graphc.aot.library import driver
from graphc.cli import FILES, main
from graphc.gates.gate import registry
from graphc.pipeline import NAMES
from tests.models import EVERY, example, same_bits

MODELS = Path(__file__).parent / "models.py"
LOGISTIC = f"{MODELS}:logistic"


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Commands put folders on the path and modules in the table; a test leaves neither behind."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("GRAPHC_DUMP", raising=False)
    yield
    for name in ("models", "kinds", "helper", "bad", "empty", "broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def graphc_command(capsys):
    def run(*arguments):
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as stop:  # argparse
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def fails(graphc_command):
    def run(*arguments):
        code, out, err = graphc_command(*arguments)
        assert code == 2 and out == "" and err.startswith("graphc: ") and err.count("\n") == 1, (
            code,
            out,
            err,
        )
        assert "Traceback" not in err
        return err.strip()

    return run


# -- compile ---------------------------------------------------------------------------------------


def test_compile_writes_a_library(graphc_command, tmp_path):
    code, out, err = graphc_command(
        "compile", LOGISTIC, "--wrt", "w,b", "-o", tmp_path / "made", "--emit", "ll,s"
    )
    suffixes = [".h", ".ll", ".o", ".s", *([".so"] if driver() else [])]
    assert code == 0 and sorted(p.suffix for p in (tmp_path / "made").iterdir()) == suffixes
    assert "logistic.o" in out and ("no linker driver" in err) == (driver() is None)
    if driver():
        kernels = graphc.compile(EVERY["logistic"][0], ("w", "b"), deterministic=True)
        arguments = example("logistic", 50)
        loaded = graphc.load(tmp_path / "made" / "logistic.so")
        assert same_bits(loaded.value_and_grad(*arguments), kernels.value_and_grad(*arguments))


def test_compile_under_another_name_for_this_host(graphc_command, tmp_path):
    code, out, _ = graphc_command(
        "compile", LOGISTIC, "-o", tmp_path, "--name", "loss", "--isa", "host"
    )
    assert (
        code == 0
        and (tmp_path / "loss.o").exists()
        and "int32_t loss(" in (tmp_path / "loss.h").read_text()
    )


@pytest.mark.parametrize("stage", NAMES)
def test_stop_after_prints_that_stage(graphc_command, stage):
    code, out, _ = graphc_command("compile", LOGISTIC, "--wrt", "w", "--stop-after", stage)
    assert code == 0
    if stage == "jit":
        assert "seconds" in out and all(name in out for name in NAMES)
    else:
        assert out == graphc.compile(EVERY["logistic"][0], ("w",)).stages[stage] + "\n"


def test_dump_and_resume_give_the_same_files(graphc_command, tmp_path):
    first = tmp_path / "first"
    code, out, _ = graphc_command("compile", LOGISTIC, "--wrt", "w,b", "--dump", first)
    assert code == 0 and sorted(p.name for p in first.iterdir()) == sorted(FILES.values())
    assert list(FILES.values()) == [
        "1-trace.txt", "2-adjoint.txt", "3-simplify.txt", "4-fuse.txt", "5-plan.txt", "6-emit.ll",
        "7-jit.s",
    ]  # fmt: skip
    for stage in ("simplify", "fuse", "plan", "emit"):
        later = tmp_path / stage
        assert graphc_command("compile", "--resume", first / FILES[stage], "--dump", later)[0] == 0
        after = NAMES[NAMES.index(stage) + 1 :]
        assert sorted(p.name for p in later.iterdir()) == sorted(FILES[s] for s in after)
        for name in after:
            assert (later / FILES[name]).read_bytes() == (first / FILES[name]).read_bytes(), (
                f"{stage} -> {name}"
            )


def test_dump_stops_where_it_should(graphc_command, tmp_path, monkeypatch):
    assert (
        graphc_command("compile", LOGISTIC, "--dump", tmp_path / "a", "--stop-after", "fuse")[0]
        == 0
    )
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [FILES[s] for s in NAMES[:4]]
    monkeypatch.setenv("GRAPHC_DUMP", str(tmp_path / "b"))
    assert graphc_command("compile", LOGISTIC)[0] == 0
    assert len(list((tmp_path / "b").iterdir())) == 7
    _, out, _ = graphc_command(
        "compile", "--resume", tmp_path / "a" / FILES["trace"], "--stop-after", "simplify"
    )
    assert "simplify" in out


def test_every_kind_of_graph_is_found(graphc_command, tmp_path):
    source = tmp_path / "kinds.py"
    source.write_text(
        "import graphc, helper\n"
        "@graphc.graph\ndef declared(x: graphc.f64['n']):\n    return (helper.K * x).sum()\n"
        "built = graphc.Graph('built')\nbuilt.output('y', built.input('x', graphc.f64[3]) * 2.0)\n"
        "compiled = graphc.compile(declared, wrt='x')\n"
    )
    (tmp_path / "helper.py").write_text("K = 3.0\n")
    for name in ("declared", "built", "compiled"):
        code, out, _ = graphc_command("compile", f"{source}:{name}", "--stop-after", "adjoint")
        assert code == 0 and ("grad_x" in out) == (name == "compiled")
    assert (
        "grad_x"
        in graphc_command("compile", f"{source}:declared", "--wrt", "x", "--stop-after", "adjoint")[
            1
        ]
    )


# -- the other commands ----------------------------------------------------------------------------


def test_explain(graphc_command):
    code, out, _ = graphc_command("explain", LOGISTIC, "--wrt", "w,b")
    assert code == 0 and out == graphc.compile(EVERY["logistic"][0], ("w", "b")).explain() + "\n"


def test_check(graphc_command, tmp_path):
    code, out, _ = graphc_command("check", LOGISTIC, "--wrt", "w", "--sizes", "n=3", "--seed", "8")
    assert code == 0 and "logistic agrees with 40 digits (seed 8; X float64[3, 4]" in out
    assert "gradient     4 numbers" in out
    source = tmp_path / "bad.py"
    source.write_text(
        "import graphc\nclass Half(graphc.Gate):\n"
        "    def forward(self, x):\n        return x * 0.5\n"
        "    def backward(self, dz, x):\n        return dz * 0.501\n"
        "@graphc.graph\ndef f(x: graphc.f64[3]):\n    return Half()(x).sum()\n"
    )
    code, out, _ = graphc_command("check", f"{source}:f")
    assert code == 1 and "DISAGREES" in out


def test_diff(graphc_command):
    code, out, _ = graphc_command("diff", "adjoint", "simplify", LOGISTIC, "--wrt", "w")
    assert code == 0 and "nodes gone" in out and "rule " in out


def test_gates_and_rules(graphc_command):
    code, out, _ = graphc_command("gates")
    assert (
        code == 0
        and all(f"\n{name} " in out for name in registry())
        and "diagonal" in out
        and "selection" in out
    )
    code, out, _ = graphc_command("gates", "--json")
    rows = json.loads(out)
    assert code == 0 and [r["name"] for r in rows] == list(registry())
    softplus = next(r for r in rows if r["name"] == "softplus")
    assert (
        softplus["jacobian"] == "diagonal"
        and softplus["ulp"] == 1.5
        and softplus["kind"] == "elementwise"
    )
    code, out, _ = graphc_command("rules")
    assert code == 0 and "mul-one" in out and "x * 1 -> x" in out


def test_as_a_module_and_in_a_pipe():
    environment = {**os.environ, "PYTHONPATH": str(MODELS.parent.parent)}
    command = f"{sys.executable} -W error -m graphc gates | head -2"
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("gate") and done.stderr == ""
    done = subprocess.run(
        [sys.executable, "-m", "graphc", "--version"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout == f"graphc {graphc.__version__}\n"


# -- what goes wrong -------------------------------------------------------------------------------


def test_places_that_hold_no_graph(fails, tmp_path):
    assert (
        fails("explain", MODELS)
        == f"graphc: {str(MODELS)!r} is not FILE:NAME, such as model.py:loss"
    )
    assert fails("explain", "missing.py:f") == "graphc: there is no file missing.py"
    assert "has no 'nothing'; its graphs are neuron, logistic, network" in fails(
        "explain", f"{MODELS}:nothing"
    )
    assert "is a function, not a declared graph: decorate" in fails(
        "explain", f"{MODELS}:undeclared"
    )
    (tmp_path / "empty.py").write_text("")
    assert "it has no graphs" in fails("explain", f"{tmp_path}/empty.py:f")
    (tmp_path / "notes.txt").write_text("")
    assert "is not a Python file" in fails("explain", f"{tmp_path}/notes.txt:f")


def test_errors_name_the_line_of_the_file(fails, tmp_path):
    line = MODELS.read_text().split("\n").index("    return x + y") + 1
    message = fails("explain", f"{MODELS}:wrong")
    assert message.startswith(
        f"graphc: {MODELS}:{line}: ShapeError: add: cannot broadcast f64[3] with f64[4]; "
    )
    source = tmp_path / "broken.py"
    source.write_text("import graphc\nx = (\n")
    assert f"{source}:2: SyntaxError: " in fails("explain", f"{source}:f")
    source.write_text("import graphc\n\n1 / 0\n")
    assert (
        fails("explain", f"{source}:f")
        == f"graphc: {source}:3: ZeroDivisionError: division by zero"
    )
    source.write_text("import graphc\n\ngraphc.Graph('no name')\n")
    assert fails("explain", f"{source}:f").startswith(f"graphc: {source}:3: SignatureError: ")


def test_wrong_options(fails, tmp_path):
    assert "no parameter 'q'; it has X, y, w, b" in fails("explain", LOGISTIC, "--wrt", "q")
    assert "invalid choice: 'link'" in fails("compile", LOGISTIC, "--stop-after", "link")
    assert "are two languages" in fails("diff", "simplify", "plan", LOGISTIC)
    assert "jit has no text to compare" in fails("diff", "emit", "jit", LOGISTIC)
    assert "compile needs FILE:NAME" in fails("compile")
    assert "not of the form n=5,m=3" in fails("check", LOGISTIC, "--sizes", "n")
    assert "has no size 'q'; it has n" in fails("check", LOGISTIC, "--sizes", "q=3")
    assert "emit='bc' is not known" in fails("compile", LOGISTIC, "-o", tmp_path, "--emit", "bc")
    assert "'exp' cannot be exported" in fails("compile", LOGISTIC, "-o", tmp_path, "--name", "exp")
    assert "required: COMMAND" in fails()


def test_wrong_texts_to_resume_from(fails, tmp_path):
    assert "cannot be read: No such file" in fails(
        "compile", "--resume", tmp_path / "3-simplify.txt"
    )
    other = tmp_path / "graph.txt"
    other.write_text("graph f(x: f64[])\nreturn y=%x\n")
    assert "does not say which stage it is from" in fails("compile", "--resume", other)
    text = tmp_path / "3-simplify.txt"
    text.write_text("graph f(x: f64[])\n  %1 = nonsense %x : f64[]\nreturn y=%1\n")
    assert "3-simplify.txt: line 2: 'nonsense' is not a gate" in fails("compile", "--resume", text)
    text.write_text("graph f(x: f64[])\nreturn y=%x\n")
    assert "comes before fuse" in fails("compile", "--resume", text, "--stop-after", "trace")
    assert "without FILE:NAME" in fails("compile", LOGISTIC, "--resume", text)


def test_folders_that_cannot_be_written(fails, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot make the folder" in fails("compile", LOGISTIC, "-o", tmp_path / "file" / "below")
    assert "cannot make the folder" in fails(
        "compile", LOGISTIC, "--dump", tmp_path / "file" / "below"
    )
    (tmp_path / FILES["trace"]).symlink_to(tmp_path / "file")
    assert "is a symbolic link" in fails("compile", LOGISTIC, "--dump", tmp_path)
    assert (tmp_path / "file").read_text() == ""


def test_random_inputs_are_of_the_right_types(graphc_command):
    code, out, _ = graphc_command("check", f"{MODELS}:gather", "--sizes", "k=9,m=2")
    assert code == 0 and "index int32[9]" in out
