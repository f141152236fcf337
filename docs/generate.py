"""Writes docs/modules/, docs/targets.md and the tables of docs/performance.md; torch is not needed.

`python docs/generate.py` writes. With `--check` nothing is written: stale files
are named, and the exit code is 1 if there are any. The pages come from the
catalogue's entries, the docstrings of the modules, the target profiles, and the
results in docs/measured/, which the scripts in benchmarks/ write.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import tables
from tables import Measured, Row

from deploy_attn.engines.target import MARKS, SCHEMA, TENSORRT_NEEDS, load_target, target_names
from deploy_attn.modules.catalogue import Constraint, Entry, Option, entries
from deploy_attn.modules.formulas import evaluate
from deploy_attn.modules.settings import option_text, settings

DOCS = Path(__file__).resolve().parent
SOURCES = DOCS.parent / "deploy_attn" / "modules"
CHOOSING_MAP = (256, 28, 28)
CHOOSING_SHAPE = "1x256x28x28"
OTHER_MAP = (64, 56, 56)
HEADER = "<!-- Written by docs/generate.py from the catalogue and docs/measured/; edit those. -->"
TARGETS_HEADER = "<!-- Written by docs/generate.py from engines/targets/ and engines/target.py; edit those. -->"
OWN_TARGET = """\
title = "My board"
family = "gpu"
engine = "tensorrt"

[onnx]
opset = { value = 17, mark = "verified" }
ir_version = { value = 8, mark = "verified" }

[runtime]
tensorrt = { value = "10.3", mark = "verified", note = "dpkg -l says so" }
workspace_mib = { value = 1024, mark = "derived", note = "an eighth of the memory" }

[device]
compute_capability = { value = "8.7", mark = "verified" }
memory_gib = { value = 8, mark = "verified" }
"""
LEGEND = f"""- **us**: median time of the export form in onnxruntime on one CPU thread at {CHOOSING_SHAPE}. It depends
  on the machine, so compare rows only. **source / form**: how many times faster that is than the source's code, each
  at its better optimisation level; [performance.md](../performance.md) says how it is measured.
- **plain half**: what becomes of the source's code when every operator runs in FP16. `safe`: an error below
  {tables.SILENT:g} on each of the synthetic inputs. `overflows`: NaN or Inf. `silent error`: finite and wrong. The
  inputs with which it happens follow: `normal`, `far_mean` (20 sigma from zero) or `large` (100 sigma).
- **planned**: the largest RMS relative error of the graph that `--fp16` writes, with a rounding at every FP16 node.
- **nodes**: nodes of the exported graph at {CHOOSING_SHAPE}, for each target.
- **open size**: whether one graph may take every height and width (`--dynamic-size`)."""


class Story(NamedTuple):
    """The parts of a module's docstring, and its export forms by family."""

    paper: str
    source: str
    form: str
    families: Mapping[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the generated documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is stale")
    check: bool = parser.parse_args().check
    wanted = pages(DOCS)
    present = {file.relative_to(DOCS).as_posix() for file in (DOCS / "modules").glob("*.md")}
    orphans = present - set(wanted)
    stale = {path for path, text in wanted.items() if _text(DOCS / path) != text}
    if check:
        sys.stdout.writelines(f"stale: docs/{path}\n" for path in sorted(stale | orphans))
        return 1 if stale or orphans else 0
    write(DOCS, wanted)
    for path in orphans:
        (DOCS / path).unlink()
    return 0


def pages(docs: Path) -> dict[str, str]:
    """Every generated file's text, by its path below `docs`."""
    measured = tables.measured_from(docs / "measured")
    texts = {f"modules/{entry.name}.md": module_page(entry, measured) for entry in entries()}
    texts["modules/README.md"] = index_page(measured)
    texts["targets.md"] = targets_page()
    texts["performance.md"] = performance_page(_text(docs / "performance.md"), measured)
    return texts


def write(folder: Path, texts: Mapping[str, str]) -> None:
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


def module_page(entry: Entry, measured: Measured) -> str:
    story = story_of(entry.name)
    sections = {
        "The source": story.source,
        "The export form": f"{story.form}\n\n{_families(story.families)}",
        "Options": _options(entry),
        "What it takes": _takes(entry),
        "Size": _size(entry),
        "Hazards": "\n".join(f"- {hazard}" for hazard in entry.hazards) or "None known.",
        f"Operators of the exported graph at {CHOOSING_SHAPE}": tables.operator_table(measured, entry.name),
        "Speed in onnxruntime on one CPU thread": tables.cpu_table(measured, entry.name),
        "TensorRT-RTX engine": tables.kernel_table(measured, entry.name),
        "Errors in FP16": tables.fp16_table(measured, entry.name),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    closing = "How all this was measured, and what it does not show: [performance.md](../performance.md)."
    return f"{HEADER}\n\n{_opening(entry, story)}\n\n{body}\n\n{closing}\n"


def _opening(entry: Entry, story: Story) -> str:
    # Where there is none, the docstring says so.
    arxiv = f", [arXiv {entry.arxiv}](https://arxiv.org/abs/{entry.arxiv})" if entry.arxiv else ""
    arguments = f'"{entry.name}", channels=256' if entry.needs_channels else f'"{entry.name}"'
    file = f"deploy_attn/modules/{entry.name}.py"
    return (
        f"# {entry.title}\n\n"
        f"`{entry.name}`, {entry.year}{arxiv}. `deploy_attn.create({arguments})` makes the trainable "
        f"`{entry.class_name}` of [{file}](../../{file}).\n\n{story.paper}"
    )


def story_of(name: str) -> Story:
    """Reads a module's file without importing it.

    Raises:
        ValueError: its docstring or its forms are not as CONTRIBUTING.md wants them.
    """
    tree = ast.parse((SOURCES / f"{name}.py").read_text(encoding="utf-8"))
    _, _, text = (ast.get_docstring(tree) or "").partition("\n\n")
    parts = re.fullmatch(r"(.+?)\n\n(The source.+?)\n\n(The export form.+)", text, re.DOTALL)
    if parts is None:
        raise ValueError(f"{name}.py: its docstring needs a paragraph 'The source ...', then 'The export form ...'")
    return Story(parts[1], parts[2], parts[3], _forms_in(tree))


def _forms_in(tree: ast.Module) -> dict[str, str]:
    """The class of each family, from what is assigned to `X.forms`."""
    values = [node.value for node in tree.body if isinstance(node, ast.Assign) and _is_forms(node.targets[0])]
    if len(values) == 1 and isinstance(values[0], ast.Call):
        return dict.fromkeys(("cpu", "gpu"), ast.unparse(values[0].args[0]))
    if len(values) == 1 and isinstance(values[0], ast.Dict):
        keys = [ast.literal_eval(key) for key in values[0].keys if key is not None]
        return {key: ast.unparse(form) for key, form in zip(keys, values[0].values)}
    raise ValueError("the file must end with X.forms = both(XExport) or X.forms = {family: class}")


def _is_forms(target: ast.expr) -> bool:
    return isinstance(target, ast.Attribute) and target.attr == "forms"


def _families(families: Mapping[str, str]) -> str:
    cpu, gpu = families["cpu"], families["gpu"]
    if cpu == gpu:
        return f"One form, `{cpu}`, serves both engine families."
    return f"Two forms: `{cpu}` for engines of the family `cpu`, `{gpu}` for the family `gpu`."


def _options(entry: Entry) -> str:
    in_source: dict[str, list[str]] = {}
    for source, ours in entry.source_arguments.items():
        in_source.setdefault(ours, []).append(f"`{source}`")
    channels = ["`channels`", "required" if entry.needs_channels else "unused", "int", "channels of the map"]
    rows = [channels, *([f"`{o.name}`", f"`{option_text(o.default)}`", _taken(o), o.meaning] for o in entry.options)]
    names = ["channels", *(option.name for option in entry.options)]
    cells = [[*row, ", ".join(in_source.get(name, ["the same"]))] for name, row in zip(names, rows)]
    return tables.table(["option", "default", "takes", "meaning", "in the source"], cells)


def _taken(option: Option) -> str:
    if option.choices:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    kind = "ints" if isinstance(option.default, tuple) else type(option.default).__name__
    least = "" if option.minimum is None else f" from {option.minimum:g}"
    most = "" if option.maximum is None else f" to {option.maximum:g}"
    return kind + least + most


def _takes(entry: Entry) -> str:
    return (
        f"- When it is created: {_texts(entry.constraints) or 'no further constraint'}.\n"
        f"- Map: {_texts(entry.map_constraints) or 'any height and width'}.\n"
        f"- Height and width left open (`--dynamic-size`): {_open_size(entry)}.\n"
        "- Batch: any; it may be left open (`--dynamic-batch`)."
    )


def _texts(constraints: Iterable[Constraint]) -> str:
    return "; ".join(constraint.text for constraint in constraints)


def _open_size(entry: Entry) -> str:
    """Whether one graph may serve every height and width; what is refused by default may be so with an option."""
    if not entry.open_map_constraints:
        return "yes"
    default = settings(entry.name, CHOOSING_MAP[0], {})
    held = all(constraint.holds(default) for constraint in entry.open_map_constraints)
    return f"{'only with' if held else 'no, it needs'} {_texts(entry.open_map_constraints)}"


def _size(entry: Entry) -> str:
    maps = [f"{channels} channels, {height}x{width}" for channels, height, width in (OTHER_MAP, CHOOSING_MAP)]
    formulas = {"parameters": entry.parameters, "multiply-accumulates": entry.macs}
    rows = [
        [title, readable(formula), _count(entry, formula, OTHER_MAP), _count(entry, formula, CHOOSING_MAP)]
        for title, formula in formulas.items()
    ]
    note = (
        "With the default options. `c`, `h` and `w` are the map's, other names are options. Multiply-accumulates are "
        "those of the convolutions and matrix products of one map in the source's form; sums, norms and gates are not "
        "counted."
    )
    return f"{tables.table(['', 'formula', *maps], rows)}\n\n{note}"


def readable(formula: str) -> str:
    """A formula in Markdown; `(lambda d: 2 * d)(c // 2)` becomes "with `d = c // 2`: `2 * d`"."""
    call = ast.parse(formula, mode="eval").body
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Lambda)):
        return f"`{formula}`"
    named = zip(call.func.args.args, call.args)
    names = ", ".join(f"`{name.arg} = {ast.get_source_segment(formula, value)}`" for name, value in named)
    return f"with {names}: `{ast.get_source_segment(formula, call.func.body)}`"


def _count(entry: Entry, formula: str, one: tuple[int, int, int]) -> str:
    return f"{evaluate(formula, *one, settings(entry.name, one[0], {})):,}"


def index_page(measured: Measured) -> str:
    targets = list(dict.fromkeys(row["target"] for row in measured.rows("ops")))
    headings = ["module", "what", "parameters", "multiply-accumulates", "us", "source / form", "plain half", "planned"]
    headings += [*(f"nodes, {target}" for target in targets), "open size"]
    by_name = sorted(entries(), key=lambda entry: entry.name)
    choosing = tables.table(headings, (_choice(entry, measured, targets) for entry in by_name))
    introduction = (
        "One page a module. Parameters and multiply-accumulates are of 256 channels on 28x28 with the default options."
    )
    return f"{HEADER}\n\n# The catalogue\n\n{introduction}\n\n{choosing}\n\n{LEGEND}\n"


def _choice(entry: Entry, measured: Measured, targets: Sequence[str]) -> list[str]:
    """A row of the table that helps to choose."""

    def default_rows(kind: str) -> list[Row]:
        return [row for row in measured.rows(kind, entry.name) if row["case"] == entry.name]

    speed = next((row for row in default_rows("forms") if row["shape"] == CHOOSING_SHAPE), None)
    half = next(iter(default_rows("fp16")), None)
    nodes = {row["target"]: str(sum(row["operators"].values())) for row in default_rows("ops")}
    return [
        f"[{entry.name}]({entry.name}.md)",
        entry.title,
        *(_count(entry, formula, CHOOSING_MAP) for formula in (entry.parameters, entry.macs)),
        f"{speed['microseconds']['form']:,}" if speed else "-",
        f"{speed['ratio']['median']:.2f}" if speed else "-",
        tables.plain_half_verdict(half) if half else "-",
        tables.worst_planned(half) if half else "-",
        *(nodes.get(target, "-") for target in targets),
        _open_size(entry).partition(":")[0],
    ]


def targets_page() -> str:
    targets = [load_target(name) for name in target_names()]
    legend = ", ".join(f"{mark[0]} {mark}" for mark in MARKS)
    sections = {
        "What runs there": f"{tables.target_table(targets, tables.RUNTIME_COLUMNS)}\n\n{_ABOUT_RUNTIMES}",
        "The device": f"{tables.target_table(targets, tables.DEVICE_COLUMNS)}\n\n{_ABOUT_DEVICES}",
        "Notes": tables.target_notes(targets),
        "A target of your own": _own_target(),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    introduction = (
        "`--target NAME` says where a graph goes: at which opset and IR version it is written, which parser it is "
        "linted for, and what a build may use. `deploy-attn list --targets` prints these tables.\n\n"
        f"The letter after a value says how far it is to be trusted: {legend}. No Jetson was at hand: `verified` means "
        "read in source code, in NVIDIA's documentation, or run without the board."
    )
    return f"{TARGETS_HEADER}\n\n# Targets\n\n{introduction}\n\n{body}\n"


_ABOUT_RUNTIMES = (
    "On desktop GPUs TensorRT is the oldest version that is expected there, so that what `lint` lets pass for it holds "
    "for newer ones. TensorRT 8.5 would take opset 17, but has no LayerNormalization, which exporters write from there "
    "on; so its targets have opset 13."
)
_ABOUT_DEVICES = (
    "Peaks are in TFLOPS without sparsity. A module that is sold with several memories is listed with the one in its "
    "title."
)


def _own_target() -> str:
    needed = {f"{table}.{key}" for table, key in TENSORRT_NEEDS}
    marks = ", ".join(f"`{mark}`" for mark in MARKS)
    rows = []
    for table, keys in SCHEMA.items():
        for key, (kind, meaning) in keys.items():
            needs = "every target" if table == "onnx" else "TensorRT" if f"{table}.{key}" in needed else ""
            rows.append([f"`{table}.{key}`", tables.KINDS[kind], needs, meaning])
    return (
        "Write a TOML file and give its path wherever a target is asked for: `--target ./board.toml`. The name of the "
        "target is the file's name without `.toml`.\n\n"
        f"```toml\n{OWN_TARGET}```\n\n"
        "`title` is what a person calls it. `family` chooses the export forms, `cpu` or `gpu`. `engine` is "
        f"`onnxruntime` or `tensorrt`. Every other value has a mark, one of {marks}, and may have a note. A key "
        "that is not in this table is an error, so that a slip of the pen is found.\n\n"
        f"{tables.table(['key', 'takes', 'needed by', 'says'], rows)}"
    )


def performance_page(template: str, measured: Measured) -> str:
    """The hand-written page with its generated parts renewed.

    A part stands between `<!-- generated: NAME -->` and `<!-- end -->`.

    Raises:
        ValueError: the page lacks a part, or names one that does not exist.
    """
    parts = {
        "conditions": tables.conditions_table(measured),
        "summary": tables.cpu_summary(measured),
        "control": tables.cpu_control(measured),
        "forms": tables.cpu_table(measured),
        "choice": tables.choice_table(measured),
        "fp16": tables.fp16_table(measured),
        "kernels": tables.kernel_table(measured),
        "networks": tables.network_table(measured),
        "floor": tables.floor_table(measured),
        "peers": tables.peers_table(measured),
        "peers_summary": tables.peers_summary(measured),
    }
    marked = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    if sorted(match[2] for match in marked.finditer(template)) != sorted(parts):
        raise ValueError(f"performance.md must hold each of these generated parts once: {', '.join(parts)}")
    return marked.sub(lambda match: f"{match[1]}{parts[match[2]]}\n{match[3]}", template)


if __name__ == "__main__":
    sys.exit(main())
