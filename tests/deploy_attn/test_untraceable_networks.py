"""A user's network that does what no graph keeps is refused by its line, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy_attn.command_line import Cli, write_network

ARGUMENTS = ("net.py:build", "--shape", "1x16x4x5", "-o", "made")


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        ("return self.gate(x) if x.mean() > 0 else x", ["net.py:7 in the network itself (Net)", "takes bool()"]),
        ("return self.gate(x) * x.max().item()", ["`return self.gate(x) * x.max().item()`", "without .item()"]),
        ("return self.gate(x)[x > 0]", ["net.py:7", "makes an extent of a tensor of 1x16x4x5", "a mask"]),
        (
            "with torch.autocast('cpu'): return self.gate(x).float()",
            ["net.py:7", "runs under torch.autocast(torch.bfloat16)", "Take torch.autocast out", "--fp16 decides"],
        ),
    ],
)
@pytest.mark.parametrize("command", ["export", "tax"])
def test_it_is_refused_by_its_line_and_nothing_is_written(
    cli: Cli, in_folder: Path, command: str, forward: str, words: list[str]
) -> None:
    write_network(in_folder, forward)
    arguments = ARGUMENTS if command == "export" else ARGUMENTS[:3]
    done = cli(command, *arguments)
    assert done.exit_code == 2, done.stdout + done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert sorted(file.name for file in in_folder.iterdir() if file.name != "__pycache__") == ["net.py"]


def test_a_check_that_only_raises_is_a_note_of_the_report_and_of_the_manifest(cli: Cli, in_folder: Path) -> None:
    write_network(in_folder, "assert x.isfinite().all(); return self.gate(x)")
    done = cli("export", *ARGUMENTS)
    assert done.exit_code == 2, "a line that also returns does more than tell"
    write_network(in_folder, "assert x.isfinite().all()\n        return self.gate(x)")
    done = cli("export", *ARGUMENTS)
    assert done.exit_code == 0, done.stderr
    assert "note  net.py:7 in the network itself (Net): `assert x.isfinite().all()` takes bool()" in done.stdout
    assert "It can only raise, warn or print" in (in_folder / "made" / "manifest.json").read_text(encoding="utf-8")
