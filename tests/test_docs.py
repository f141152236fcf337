"""The generated documentation: up to date and complete, and its formulas true."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from deploy_attn import available, create
from deploy_attn.engines.target import SCHEMA, load_target, target_names
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
RATIO = {"median": 2.5, "p10": 2.0, "p90": 3.25, "pairs": 40}
KERNELS = {"kernels": 9, "traffic": 1.5, "scratch_bytes": 4096}
PLANNED = {
    "fp16_nodes": 14,
    "fp32_nodes": 3,
    "normal": {"optimistic": 1e-4, "pessimistic": 5e-4},
    "far_mean": {"optimistic": 2e-4, "pessimistic": None},
    "large": {"optimistic": 3e-4, "pessimistic": 7e-4},
}
HEAD = {"machine": {"cpu": "a processor", "cores": 2}, "versions": {"torch": "2.0"}}
MEASURED: dict[str, dict[str, Any]] = {
    "forms": {
        "shape": "1x256x28x28",
        "options": {"reduction": 4},
        "ratio": RATIO,
        "ratio_to_all": {**RATIO, "median": 4.0},
        "control": {**RATIO, "median": 1.0},
        "error": 0.0123,
        "microseconds": {"naive": 2500, "naive_all": 4000, "form": 1000},
        "levels": {"naive": "extended", "form": "all"},
    },
    "fp16": {
        "plain_half": {
            "normal": {"error": 4e-4, "non_finite": 0.0},
            "far_mean": {"error": 0.25, "non_finite": 0.0},
            "large": {"error": None, "non_finite": 0.125},
        },
        "planned": {"jetson-nano": PLANNED},
    },
    "kernels": {"graphs": {"naive": {"refused": "no such operator"}, "gpu": {**KERNELS, "kernels": 5}, "cpu": KERNELS}},
    "ops": {"target": "jetson-nano", "opset": 13, "operators": {"Conv": 2, "Mul": 1}},
    "peers": {
        "shape": "1x256x28x28",
        "options": {"reduction": 4},
        "microseconds": 1000,
        "rivals": {
            "naive": {"ratio": RATIO, "error": 0.01, "claimed": True},
            "eager": {"ratio": {**RATIO, "median": 0.5}, "error": 0.02, "claimed": True},
            "openvino": {"reason": "it computes something else"},
            "fused": {"ratio": {**RATIO, "median": 0.4}, "error": 0.01, "claimed": True},
        },
    },
    "floor": {
        "shape": "1x256x28x28",
        "ratio": RATIO,
        "operator": {**RATIO, "median": 1.05},
        "source": {**RATIO, "median": 6.5},
        "control": {**RATIO, "median": 1.0},
        "error": 0.0061,
        "microseconds": {"kernel": 40.2, "operator": 42.0, "form": 1100.0},
    },
    "choice": {
        "shape": "1x256x28x28",
        "options": {"reduction": 4},
        "verdict": "not decided",
        "tried": [
            {"form": "cpu", "ratio": None, "error": None, "chosen": True, "decided": True, "reason": "SEExport"},
            {"form": "gpu", "ratio": RATIO, "error": 0.31, "chosen": False, "decided": False, "reason": "too noisy"},
            {"form": "npu", "ratio": RATIO, "error": 0.02, "chosen": False, "decided": True, "reason": "it is slower"},
            {"form": "tpu", "ratio": RATIO, "error": 0.02, "chosen": True, "decided": True, "reason": "faster"},
            {"form": "dla", "ratio": None, "error": None, "chosen": False, "decided": True, "reason": "not proven"},
        ],
    },
    "quiet": {"name": "forms", "seconds": 740, "others": 0.04, "stolen": 0.01},
    "networks": {
        "blocks": 3,
        "ratio": {"median": 1.25, "p10": 1.2, "p90": 1.3, "pairs": 60},
        "control": {"median": 1.0, "p10": 0.9, "p90": 1.1, "pairs": 60},
        "error": 0.0449,
        "ms": {"before": 5.0, "after": 4.0},
        "levels": {"before": "all", "after": "extended"},
        "export_s": 7.5,
        "rms_relative_apart": 1e-7,
    },
}
FORMS_ROW = (
    "| se (reduction=4) | 1x256x28x28 | **2.50** (2.00 to 3.25, n=40) | +- 0.012 | **4.00** (2.00 to 3.25, n=40) "
    "| 2,500 | 1,000 | extended, all |"
)
FP16_ROWS = """\
| se | normal | 4.0e-04 | 1.0e-04 | 5.0e-04 |
| se | far_mean | **2.5e-01** | 2.0e-04 | NaN or Inf |
| se | large | **NaN or Inf in 12.5 %** | 3.0e-04 | 7.0e-04 |
| se | nodes, FP16 + FP32 |  | 14 + 3 |  |"""
PEERS_ROW = (
    "| se (reduction=4) | 1x256x28x28 | 1,000 | 2.50 +- 0.010 | - | - | 0.50 +- 0.020 | - | not timed | 0.40 +- 0.010 "
    "| **torch eager**; `fuse` is faster |"
)
PEERS_SUMMARY_ROW = "| 1x256x28x28 | 1 | 0 | 0 | 1 | 1 | 2.50 | - | - | 0.50 | - | - |"
FLOOR_ROW = (
    "| se | 1x256x28x28 | **2.50** (2.00 to 3.25, n=40) | **1.05** (2.00 to 3.25, n=40) "
    "| **6.50** (2.00 to 3.25, n=40) | +- 0.006 | 1,100 | 42 | 40 |"
)
CHOICE_ROWS = """\
| se (reduction=4) | 1x256x28x28 | gpu | **2.50** (2.00 to 3.25, n=40) | +- 0.310 | not decided |
| se (reduction=4) | 1x256x28x28 | npu | **2.50** (2.00 to 3.25, n=40) | +- 0.020 | the shipped form stands |
| se (reduction=4) | 1x256x28x28 | tpu | **2.50** (2.00 to 3.25, n=40) | +- 0.020 | **this one is faster** |
| se (reduction=4) | 1x256x28x28 | dla | not timed | - | the shipped form stands: not proven |"""
KERNELS_ROW = "| se | refused | 5 | 9 | refused | 1.50 | 1.50 | refused | 4 | 4 |"
OPS_ROW = "| se | jetson-nano | 13 | 3 | Conv x 2, Mul |"

CASES = [case for name in available() for case in ((name, 64, 14, 14, {}), (name, 32, 8, 6, OTHERS.get(name, {})))]


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """docs/generate.py, which is a script and no package."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("generate")


def test_the_pages_are_what_the_catalogue_and_the_measurements_say(generate: Any, tmp_path: Path) -> None:
    generate.write(tmp_path, generate.pages(DOCS))
    fresh = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*.md")}
    generated = (*DOCS.glob("modules/*"), DOCS / "performance.md", DOCS / "targets.md")
    stored = {file.relative_to(DOCS): file.read_bytes() for file in generated}
    stale = sorted(str(path) for path in fresh.keys() | stored.keys() if fresh.get(path) != stored.get(path))
    assert not stale, "run: python docs/generate.py"


@pytest.fixture
def measured_pages(generate: Any, tmp_path: Path) -> dict[str, str]:
    """The pages where `se` alone was measured."""
    docs = tmp_path / "docs"
    for folder in (docs / "measured", tmp_path / "benchmarks"):
        folder.mkdir(parents=True)
    for kind, row in MEASURED.items():
        content = {**HEAD, "rows": [{"case": "se", "name": "se", **row}]}
        file = tmp_path / "benchmarks" / "rtx_static.json" if kind == "kernels" else docs / "measured" / f"{kind}.json"
        file.write_text(json.dumps(content), encoding="utf-8")
    (docs / "performance.md").write_bytes((DOCS / "performance.md").read_bytes())
    generate.write(docs, generate.pages(docs))
    return {file.relative_to(docs).as_posix(): file.read_text(encoding="utf-8") for file in docs.rglob("*.md")}


@pytest.mark.parametrize("row", [FORMS_ROW, FP16_ROWS, KERNELS_ROW])
def test_figures_stand_on_their_module_s_page_and_with_the_others(measured_pages: dict[str, str], row: str) -> None:
    assert f"\n{row}\n" in measured_pages["performance.md"]
    assert f"\n{row}\n" in measured_pages["modules/se.md"]
    assert row not in measured_pages["modules/cbam.md"]


def test_figures_that_stand_on_one_page_only(measured_pages: dict[str, str]) -> None:
    performance = measured_pages["performance.md"]
    assert "Not measured." not in performance + measured_pages["modules/se.md"]
    assert f"\n{OPS_ROW}\n" in measured_pages["modules/se.md"]
    assert f"\n{PEERS_ROW}\n" in performance
    assert f"\n{FLOOR_ROW}\n" in performance
    assert f"\n{CHOICE_ROWS}\n" in performance
    assert f"\n{PEERS_SUMMARY_ROW}\n" in performance
    where = "a processor, 2 cores | torch 2.0"
    assert f"\n| [ops.json](measured/ops.json) | {where} | not watched |\n" in performance
    assert f"\n| [forms.json](measured/forms.json) | {where} | 0.05 of a core in 12 min |\n" in performance
    assert "quiet.json" not in performance
    assert "\n| 1x256x28x28 | 1 | 2.50 | 4.00 | 2.50 | 2.50 | 0 | 1 |\n" in performance
    assert "over 1 rows: median 1.000" in performance
    assert "\n| se | 3 | **1.25** (1.20 to 1.30, n=60) | +- 0.045 | 5.0 | 4.0 | 7.5 |\n" in performance
    chosen = "1,000 | 2.50 | overflows (large); silent error (far_mean) | NaN or Inf | 3 | yes |\n"
    assert chosen in measured_pages["modules/README.md"]


@pytest.mark.parametrize(
    ("medians", "winner"),
    [
        ({"naive": 1.5, "eager": 1.2}, "the artifact"),
        ({"naive": 1.5, "eager": 0.9}, "**torch eager**"),
        ({"naive": 0.8, "eager": 0.9}, "**onnxruntime**"),
        ({"naive": 1.5, "eager": 1.04}, "the artifact or torch eager"),
        ({"naive": 1.5, "eager": 0.96}, "the artifact or torch eager"),
        ({"naive": 0.9, "eager": 0.8, "compile": 0.5}, "**torch eager**"),
        ({"naive": 1.5, "eager": 0.8, "fused": 0.9}, "**torch eager**"),
        ({"naive": 1.5, "eager": 0.8, "fused": 0.5}, "**torch eager**; `fuse` is faster"),
        ({"naive": 1.5, "eager": 1.2, "fused": 0.5}, "the artifact"),
        ({}, "-"),
    ],
)
def test_a_rival_wins_where_the_pairs_bear_a_claim_of_it(generate: Any, medians: dict[str, float], winner: str) -> None:
    rivals = {
        name: {"ratio": {"median": median}, "claimed": abs(median - 1) > 0.05 and name != "compile"}
        for name, median in medians.items()
    }
    assert generate.tables.fastest({"rivals": {**rivals, "openvino": {"reason": "differs"}}}) == winner


def test_a_formula_s_lambda_is_told_by_its_names(generate: Any) -> None:
    formula = "(lambda d, n: (c + d) * n)(k or c // 2, (h // 2) * w)"
    assert generate.readable(formula) == "with `d = k or c // 2`, `n = (h // 2) * w`: `(c + d) * n`"


def test_every_target_and_every_key_of_a_profile_stands_on_the_page_of_targets() -> None:
    page = (DOCS / "targets.md").read_text(encoding="utf-8")
    for name in target_names():
        assert f"\n| `{name}` | {load_target(name).title} | " in page
    for table, keys in SCHEMA.items():
        for key in keys:
            assert f"\n| `{table}.{key}` | " in page
    assert "| `jetson-nano` | Jetson Nano 4 GB, JetPack 4.6.1 to 4.6.6 | 8.2.1 t | 13 v | 7 v | 256 t | " in page


def test_the_example_of_a_target_of_one_s_own_loads_as_it_stands(tmp_path: Path) -> None:
    page = (DOCS / "targets.md").read_text(encoding="utf-8")
    file = tmp_path / "board.toml"
    file.write_text(page.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    target = load_target(str(file))
    assert (target.name, target.opset, target.tensorrt) == ("board", 17, (10, 3))


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
