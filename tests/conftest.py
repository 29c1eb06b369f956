"""`--update-golden` and the fixture that compares a stage's text with the file kept for it."""

import os
from pathlib import Path

import pytest

# Code that an earlier test made must not hide that this one makes other code; nor is the user's
# cache a place for tests.
os.environ["GRAPHC_CACHE_DIR"] = "off"

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden/<stage>/<case>.txt anew"
    )


def pytest_collection_modifyitems(items):
    """Tests of native calls are for where there are some; see tests/portable.py."""
    from graphc.runtime.objects import layout_holds

    if not layout_holds():
        for item in items:
            if item.get_closest_marker("native"):
                item.add_marker(pytest.mark.skip(reason="no native calls here"))


@pytest.fixture
def golden(request):
    """golden(stage, case, text): the text equals the file's; a missing file fails."""

    def compare(stage: str, case: str, text: str) -> None:
        path = GOLDEN / stage / f"{case}.txt"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
        assert path.exists(), (
            f"{path} is missing: look at the text, then run pytest --update-golden"
        )
        assert text + "\n" == path.read_text(encoding="utf-8")

    return compare
