"""jetson/README.md: every warning that a run can give stands there in its own words, and every option."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_attn.jetson import arguments
from deploy_attn.jetson.tensorrt_child import _REMEDIES

ROOM = Path(__file__).resolve().parents[1] / "jetson"
README = (ROOM / "README.md").read_text(encoding="utf-8")
WARNINGS = re.findall(r'^\| "([^"]+)" \|', README, re.MULTILINE)


def sentences(file: str) -> Iterator[str]:
    """What a file can say: the texts in it that are no docstrings and more than a word."""
    tree = ast.parse((ROOM / file).read_text(encoding="utf-8"))
    described = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, described)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docstrings:
            yield node.value


ALL = [text for file in sorted(ROOM.glob("*.py")) for text in sentences(file.name)]


def test_the_table_of_warnings_is_found() -> None:
    assert len(WARNINGS) > 15


@pytest.mark.parametrize("warning", WARNINGS)
def test_a_warning_of_the_page_is_said_in_these_words(warning: str) -> None:
    assert any(warning in text for text in ALL)


@pytest.mark.parametrize("said", [text for text in sentences("conditions.py") if len(text.split()) > 5])
def test_what_spoils_a_run_stands_on_the_page(said: str) -> None:
    remedies = ("Give it more cooling",)  # the end of sentences that stand there
    assert said.startswith(remedies) or any(warning in said for warning in WARNINGS)


def test_every_option_of_the_runner_stands_on_the_page_and_no_other() -> None:
    options = {flag for action in arguments._parser()._actions for flag in action.option_strings if len(flag) > 2}
    listed = set(re.findall(r"^\| `(--[a-z-]+)`", README, re.MULTILINE))
    assert listed == options - {"--help"}
    assert set(re.findall(r"run\.py (--[a-z-]+)", README)) <= options


def test_the_remedies_for_lack_of_memory_stand_in_the_runner_s_order() -> None:
    listed = README.partition("In this order:\n")[2]
    keys = ("multi-user.target", "nvzramconfig", "workspace")
    assert [next(key for key in keys if key in remedy) for remedy in _REMEDIES[: len(keys)]] == list(keys)
    found = [listed.index(key) for key in keys]
    assert found == sorted(found)
