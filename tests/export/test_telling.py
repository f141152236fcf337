"""Holds that a statement is taken for a mere message only where nothing can follow from what it reads."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from deploy_attn.export.telling import only_tells

HEAD = "import logging, warnings\nfrom warnings import warn\nlogger = _LOG = logging.getLogger('net')\n"


def _only_tells(folder: Path, body: str, call: str = "inner()") -> bool:
    """What is said of the statement in `inner` that calls `read`, where `outer` calls `inner`."""
    file = folder / "net.py"
    functions = [
        f"def {name}():\n{textwrap.indent(code, '    ')}\n" for name, code in (("inner", body), ("outer", call))
    ]
    text = HEAD + "".join(functions)
    file.write_text(text, encoding="utf-8")
    answers: set[bool] = set()

    def read() -> bool:
        frames: list[FrameType] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename == str(file):
            frames.append(frame)
            frame = frame.f_back
        answers.add(only_tells(frames))
        return False

    names: dict[str, Any] = {"read": read}
    exec(compile(text, str(file), "exec"), names)  # noqa: S102 - a file of its own is the point
    names["outer"]()
    (answer,) = answers
    return answer


@pytest.mark.parametrize(
    "body",
    [
        "assert not read()",
        "assert not read(), 'no'",
        "assert (\n    1 and\n    not read()\n)",
        "assert not any(read() for _ in range(2))",
        "if read():\n    raise ValueError",
        "if read(): raise ValueError",
        "if (\n    read()\n    or 0\n):\n    raise ValueError",
        "if read():\n    text = 'no'\n    raise ValueError(text)",
        "if read():\n    raise ValueError\nelse:\n    x = 2",
        "if not read():\n    x = 2\nelse:\n    raise ValueError",
        "if read():\n    raise ValueError\nelif 1:\n    x = 2",
        "if read():\n    warnings.warn('no')",
        "if read():\n    warn('no')\n    pass\nelse:\n    print(1)",
        "if read():\n    if 1:\n        raise ValueError\n    print(2)",
        "for _ in range(2):\n    assert not read()",
        "print(read())",
        "print(\n    'x',\n    read(),\n)",
        "print(f'{read()}')",
        "logger.info('%s', read())",
        "_LOG.debug(read())",
        "logging.warning(str(read()))",
        "logging.getLogger('x').log(3, read())",
        "try:\n    print(read())\nfinally:\n    pass",
        "def nested():\n    assert not read()\nnested()",
        "def nested(x=0): assert not read()\nnested()",
    ],
)
@pytest.mark.filterwarnings("ignore:no:UserWarning")
def test_what_raises_warns_or_prints_only_tells(tmp_path: Path, body: str) -> None:
    assert _only_tells(tmp_path, body)


@pytest.mark.parametrize(
    "body",
    [
        "x = read()",
        "return read()",
        "read()",
        "if read():\n    x = 2",
        "if read():\n    x = 2\n    print(x)",
        "if read():\n    print(1)\nelse:\n    x = 2",
        "if read(): x = 2",
        "if 0:\n    raise ValueError\nelif read():\n    x = 2",
        "if read():\n    if 1:\n        return\n    raise ValueError",
        "for _ in range(2):\n    if read():\n        if 1: continue\n        raise ValueError",
        "if read():\n    if 1:\n        x = 2\n    print(2)",
        "while read():\n    print(1)",
        "for _ in range(read()):\n    print(1)",
        "x = 1 if read() else 2",
        "x = print(read())",
        "x = []\nx.append(read())",
        "import math\nmath.log(read() + 1)",
        "class Catalogue:\n    info = print\ncatalogue = Catalogue()\ncatalogue.info(read())",
        "print(x := read())",
        "assert not (x := read())",
        "if (x := read()):\n    raise ValueError",
        "try:\n    assert not read()\nexcept AssertionError:\n    x = 2",
        "try:\n    if 1:\n        assert not read()\nexcept AssertionError:\n    x = 2\nfinally:\n    pass",
        "with open(__file__ if read() else '/dev/null'):\n    pass",
        "check = lambda: read()\nassert not check()",
        "def nested(): return read()\nassert not nested()",
        "assert not read(); x = read()",
        "match read():\n    case False:\n        pass",
    ],
)
def test_what_anything_follows_from_does_more(tmp_path: Path, body: str) -> None:
    assert not _only_tells(tmp_path, body)


def test_what_a_caller_catches_does_more(tmp_path: Path) -> None:
    caught = "try:\n    inner()\nexcept AssertionError:\n    x = 2"
    assert not _only_tells(tmp_path, "assert not read()", caught)
    handled = "try:\n    pass\nexcept AssertionError:\n    x = 2\ninner()"
    assert _only_tells(tmp_path, "assert not read()", handled)


def test_a_statement_whose_source_is_not_there_does_more(tmp_path: Path) -> None:
    frames: list[FrameType] = []
    names: dict[str, Any] = {"read": lambda: frames.append(sys._getframe(1))}
    exec("def check():\n    assert not read()\ncheck()", names)  # noqa: S102 - no file is the point
    assert not only_tells(frames)
