"""The generated documentation: up to date and complete, and its formulas true."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from deploy_attn import available, create
from deploy_attn.modules.catalogue import entry
from deploy_attn.modules.formulas import evaluate
from deploy_attn.modules.settings import settings

DOCS = Path(__file__).resolve().parents[1] / "docs"

# Beside the defaults: values that show up in every term of a formula.
OTHERS: dict[str, dict[str, Any]] = {
    "se": {"reduction": 4},
    "cbam": {"reduction": 8, "kernel_size": 3},
    "cbam_residual": {"reduction": 8, "kernel_size": 5},
    "eca": {"gamma": 1.0, "beta": 3.0},
    "eca_fixed": {"kernel_size": 5},
    "cot": {"kernel_size": 5},
    "mobilevit": {"dim": 48, "kernel_size": 5, "patch_size": 2},
    "sk": {"kernel_sizes": (1, 3), "reduction": 2, "groups": 2, "min_hidden": 8},
    "shuffle": {"groups": 4},
    "triplet": {"no_spatial": True},
    "mhsa": {"heads": 2, "pos_emb": True, "width": 8, "height": 6},
    "gsop": {"att_dim": 24},
    "fca": {"reduction": 4, "frequencies": "top4"},
    "encnet": {"codes": 8, "se_loss": True, "classes": 5},
    "self_attention": {"scale": True},
    "non_local": {"inter_channels": 12, "mode": "concatenation", "sub_sample": False, "bn_layer": False},
}
CASES = [case for name in available() for case in ((name, 64, 14, 14, {}), (name, 32, 8, 6, OTHERS.get(name, {})))]


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """docs/generate.py, which is a script and no package."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("generate")


def test_the_pages_are_what_the_catalogue_and_the_measurements_say(generate: Any, tmp_path: Path) -> None:
    generate.write(tmp_path, generate.pages(DOCS))
    fresh = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*.md")}
    stored = {file.relative_to(DOCS): file.read_bytes() for file in (*DOCS.glob("modules/*"), DOCS / "performance.md")}
    stale = sorted(str(path) for path in fresh.keys() | stored.keys() if fresh.get(path) != stored.get(path))
    assert not stale, "run: python docs/generate.py"


@pytest.mark.parametrize("name", available())
def test_a_module_has_a_page_and_the_index_leads_to_it(name: str) -> None:
    assert (DOCS / "modules" / f"{name}.md").is_file()
    assert f"[{name}]({name}.md)" in (DOCS / "modules" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "channels", "height", "width", "options"), CASES)
def test_the_formulas_count_what_the_module_holds_and_does(
    name: str, channels: int, height: int, width: int, options: dict[str, Any]
) -> None:
    values = settings(name, channels, options)
    form = create(name, channels=channels, **options).eval()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        form(torch.randn(1, channels, height, width))
    found = entry(name)
    assert evaluate(found.parameters, channels, height, width, values) == sum(p.numel() for p in form.parameters())
    assert evaluate(found.macs, channels, height, width, values) == counter.get_total_flops() / 2


@pytest.mark.parametrize("formula", ["", "c / 7", "open('/etc/hostname')"])
def test_what_is_no_formula_is_refused(formula: str) -> None:
    with pytest.raises((ValueError, NameError)):
        evaluate(formula, 64, 7, 7, {})
