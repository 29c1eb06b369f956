"""Every stage's text parses back, the stages after it do not notice, and none of it depends on a
hash seed.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import graphc
from graphc.pipeline import NAMES, STAGES, run_stages
from graphc.runtime.jit import assembly
from tests.models import EVERY, SMALL

ROOT = Path(__file__).parent.parent
TEXTS = NAMES[:-1]  # stages whose output is text
GOLDEN = NAMES[:-2]  # machine code is nobody's to read line by line
MODELS = sorted(EVERY)


def compiled(case):
    graph, wrt = EVERY[case]
    return graphc.compile(graph, wrt)


def options_of(kernels):
    return kernels._gradient_options() if kernels.wrt else kernels.options


def test_the_stages_are_the_ones_of_the_design():
    assert NAMES == ("trace", "adjoint", "simplify", "fuse", "plan", "emit", "jit")
    assert [s.parse is None for s in STAGES] == [False] * 6 + [True]


@pytest.mark.parametrize("case", MODELS)
def test_every_text_parses_back(case):
    texts = compiled(case).stages
    assert tuple(texts) == TEXTS
    for stage in STAGES[:-1]:
        assert stage.show(stage.parse(texts[stage.name])) == texts[stage.name], stage.name


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("stage", TEXTS[:-1])
def test_going_on_from_a_parsed_text_changes_no_later_text(case, stage):
    kernels = compiled(case)
    position = NAMES.index(stage)
    parsed = STAGES[position].parse(kernels.stages[stage])
    later = {}
    run_stages(
        parsed, options_of(kernels), later.__setitem__, first=NAMES[position + 1], last="emit"
    )
    for name, item in later.items():
        assert STAGES[NAMES.index(name)].show(item) == kernels.stages[name], f"{stage} -> {name}"


@pytest.mark.parametrize("case", MODELS)
def test_the_emitted_text_is_all_that_machine_code_needs(case):
    text = compiled(case).stages["emit"]
    assert assembly(text) == assembly(str(text))
    assert run_stages(text, options_of(compiled(case)), first="jit").text_bytes > 0


@pytest.mark.parametrize("case", sorted(SMALL))
@pytest.mark.parametrize("stage", GOLDEN)
def test_golden(case, stage, golden):
    golden(stage, f"stages-{case}", compiled(case).stages[stage])


DIGEST = """
from tests.test_stages import digest
print(digest())
"""


def digest():
    """One hash over every text of every model, machine code included."""
    total = hashlib.sha256()
    for case in MODELS:
        texts = compiled(case).stages
        for text in (*texts.values(), assembly(texts["emit"])):
            total.update(text.encode())
    return total.hexdigest()


def test_texts_do_not_depend_on_the_hash_seed():
    found = [_digest_of_process(seed) for seed in ("0", "1")]
    assert found == [digest()] * 2


def _digest_of_process(seed):
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_an_unknown_stage_is_named():
    with pytest.raises(
        KeyError, match="'link' is not a stage with a text; there are trace, adjoint"
    ):
        compiled("neuron").stages["link"]
