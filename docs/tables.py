"""The results in docs/measured/ and the target profiles as Markdown tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from deploy_attn.engines.target import Target
from deploy_attn.engines.tolerance import TOLERANCES
from deploy_attn.modules.catalogue import entry

SHAPES = ("1x64x56x56", "1x256x28x28", "1x512x26x26", "8x256x28x28")
INPUTS = ("normal", "far_mean", "large")
BRACKETS = ("optimistic", "pessimistic")
GRAPHS: Mapping[str, str] = {"naive": "source", "gpu": "gpu form", "cpu": "cpu form"}
SILENT = TOLERANCES["fp16-rounded"].rms_relative  # a larger error is wrong, not rounded
NOT_MEASURED = "Not measured."
RUNTIME_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "TensorRT": "runtime.tensorrt",
        "opset": "onnx.opset",
        "IR": "onnx.ir_version",
        "workspace, MiB": "runtime.workspace_mib",
        "JetPack": "runtime.jetpack",
        "L4T": "runtime.l4t",
        "CUDA": "runtime.cuda",
        "Python": "runtime.python",
    }
)
DEVICE_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "compute capability": "device.compute_capability",
        "SMs": "device.sms",
        "cores": "device.cuda_cores",
        "MHz": "device.gpu_mhz",
        "memory, GiB": "device.memory_gib",
        "GB/s": "device.bandwidth_gb_per_s",
        "FP32": "device.peak_fp32_tflops",
        "FP16": "device.peak_fp16_tflops",
        "FP16, tensor cores": "device.peak_fp16_tensor_tflops",
        "INT8": "device.int8",
        "DLAs": "device.dla_cores",
    }
)
PEERS: Mapping[str, str] = MappingProxyType(
    {
        "naive": "onnxruntime",
        "onnxsim": "+ onnxsim",
        "onnxslim": "+ onnxslim",
        "eager": "torch eager",
        "compile": "torch.compile",
        "openvino": "OpenVINO",
    }
)
FUSED = "fused"
_OURS = "the artifact"
_FUSED_WINS = "; `fuse` is faster"
KINDS: Mapping[type, str] = MappingProxyType({str: "text", int: "whole number", float: "number", bool: "true or false"})
Row = Mapping[str, Any]


class Measured(NamedTuple):
    """What the files of docs/measured/ hold; an absent one is empty."""

    forms: Row
    fp16: Row
    ops: Row
    kernels: Row
    networks: Row
    peers: Row
    floor: Row
    quiet: Row
    choice: Row

    def rows(self, kind: str, name: str | None = None) -> list[Row]:
        """Rows of one file, in its order; only those of a module if it is named."""
        found: list[Row] = getattr(self, kind).get("rows", [])
        return [row for row in found if name in (None, row["name"])]


def measured_from(folder: Path) -> Measured:
    """The results in docs/measured/, and the figures that benchmarks/ keeps because a test compares with them."""
    kept = {"kernels": folder.parents[1] / "benchmarks" / "rtx_static.json"}
    return Measured(*(_json(kept.get(kind, folder / f"{kind}.json")) for kind in Measured._fields))


def _json(file: Path) -> Row:
    content: Row = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return content


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def cpu_table(measured: Measured, name: str | None = None) -> str:
    rows = [
        [
            row["case"] + _unlike_the_default(row),
            row["shape"],
            _ratio(row["ratio"]),
            _error(row),
            _ratio(row["ratio_to_all"]),
            f"{row['microseconds']['naive']:,}",
            f"{row['microseconds']['form']:,}",
            f"{row['levels']['naive']}, {row['levels']['form']}",
        ]
        for row in _by_shape(measured.rows("forms", name))
    ]
    headings = ["module", "map", "source / form", "error", "source at ALL / form", "source, us", "form, us", "levels"]
    return table(headings, rows) if rows else NOT_MEASURED


def _by_shape(rows: list[Row]) -> list[Row]:
    """Modules in alphabetical order, each with its maps in the order of SHAPES, other maps last."""
    places = {shape: place for place, shape in enumerate(SHAPES)}
    return sorted(rows, key=lambda row: (row["case"], places.get(row["shape"], len(SHAPES)), row["shape"]))


def _ratio(summary: Row) -> str:
    return f"**{summary['median']:.2f}** ({summary['p10']:.2f} to {summary['p90']:.2f}, n={summary['pairs']})"


def _error(row: Row) -> str:
    """The control's error bar."""
    return f"+- {row['error']:.3f}"


def _unlike_the_default(row: Row) -> str:
    """Options that follow the map and are not in the case's name."""
    default = {option.name: option.default for option in entry(row["name"]).options}
    told = [f"{name}={value}" for name, value in row["options"].items() if value != default[name]]
    left = ", ".join(text for text in told if text not in row["case"])
    return f" ({left})" if left else ""


def network_table(measured: Measured) -> str:
    """Whole networks against their plain export."""
    rows = [
        [
            row["name"],
            str(row["blocks"]),
            _ratio(row["ratio"]),
            _error(row),
            f"{row['ms']['before']}",
            f"{row['ms']['after']}",
            f"{row['export_s']}",
        ]
        for row in measured.rows("networks")
    ]
    headings = ["network", "attention blocks", "plain / exported", "error", "plain, ms", "exported, ms", "export, s"]
    return table(headings, rows) if rows else NOT_MEASURED


def peers_table(measured: Measured) -> str:
    """A row a module and map: how much longer each rival takes, and which is the fastest of all."""
    rows = [
        [
            row["case"] + _unlike_the_default(row),
            row["shape"],
            f"{row['microseconds']:,}" if row["microseconds"] is not None else "-",
            *(_against(row["rivals"].get(peer)) for peer in (*PEERS, FUSED)),
            fastest(row),
        ]
        for row in _by_shape(measured.rows("peers"))
    ]
    return (
        table(["module", "map", "artifact, us", *PEERS.values(), "`fuse`", "fastest"], rows) if rows else NOT_MEASURED
    )


def _against(found: Row | None) -> str:
    if found is None:
        return "-"
    return "not timed" if "reason" in found else f"{found['ratio']['median']:.2f} {_error(found)}"


def fastest(row: Row) -> str:
    """Who wins, as far as the pairs bear a claim of it; where they tell no winner, the two that it is between.

    The artifact as one operator takes no part, but where it is faster than a rival that wins, that is said.
    """
    compared = {peer: found for peer, found in row["rivals"].items() if "reason" not in found}
    fused = compared.pop(FUSED, None)
    if not compared:
        return "-"
    ratios = {peer: found["ratio"]["median"] for peer, found in compared.items()}
    faster = [peer for peer, ratio in ratios.items() if ratio < 1 and compared[peer]["claimed"]]
    best = min(faster or ratios, key=ratios.__getitem__)
    if faster:
        beaten = fused is not None and fused["claimed"] and fused["ratio"]["median"] < ratios[best]
        return f"**{PEERS[best]}**{_FUSED_WINS if beaten else ''}"
    return _OURS if compared[best]["claimed"] else f"{_OURS} or {PEERS[best]}"


def peers_summary(measured: Measured) -> str:
    """A line a map: in how many rows the artifact is the fastest, and its median against each rival."""
    rows = []
    for shape in SHAPES:
        here = [row for row in measured.rows("peers") if row["shape"] == shape]
        if not here:
            continue
        winners = [fastest(row) for row in here]
        medians = []
        for peer in PEERS:
            found = [row["rivals"].get(peer, {}).get("ratio") for row in here]
            ratios = [ratio["median"] for ratio in found if ratio is not None]
            medians.append(f"{statistics.median(ratios):.2f}" if ratios else "-")
        open_rows = sum(" or " in winner for winner in winners)
        ahead, behind = winners.count(_OURS), sum("**" in winner for winner in winners)
        beaten = sum(winner.endswith(_FUSED_WINS) for winner in winners)
        counts = [str(count) for count in (len(here), ahead, open_rows, behind, beaten)]
        rows.append([shape, *counts, *medians])
    headings = [
        "map",
        "rows",
        "artifact fastest",
        "no claim",
        "a rival faster",
        "of which `fuse` beats",
        *PEERS.values(),
    ]
    return table(headings, rows) if rows else NOT_MEASURED


def cpu_summary(measured: Measured) -> str:
    """Over all modules, a line a map."""
    rows = []
    for shape in SHAPES:
        here = [row for row in measured.rows("forms") if row["shape"] == shape and row["case"] == row["name"]]
        if not here:
            continue
        better, at_all = ([row[kind]["median"] for row in here] for kind in ("ratio", "ratio_to_all"))
        extent = [statistics.median(better), statistics.median(at_all), min(better), max(better)]
        counts = [sum(ratio < 1.05 for ratio in better), sum(ratio >= 2 for ratio in better)]
        rows.append([shape, str(len(here)), *(f"{ratio:.2f}" for ratio in extent), *map(str, counts)])
    if not rows:
        return NOT_MEASURED
    headings = ["map", "modules", "median", "median to ALL", "least", "most", "below 1.05", "2 and more"]
    largest = {row["case"]: 0.0 for row in measured.rows("forms")}
    for row in measured.rows("forms"):
        largest[row["case"]] = max(largest[row["case"]], row["ratio"]["median"])
    equal = ", ".join(f"`{case}`" for case, ratio in largest.items() if ratio < 1.05) or "none"
    return f"{table(headings, rows)}\n\nBelow 1.05 on every map: {equal}."


def choice_table(measured: Measured) -> str:
    """A row for each form that is not the shipped one, against it."""
    rows = [
        [
            row["case"] + _unlike_the_default(row),
            row["shape"],
            one["form"],
            _ratio(one["ratio"]) if one["ratio"] else "not timed",
            _error(one) if one["ratio"] else "-",
            _verdict(one),
        ]
        for row in _by_shape(measured.rows("choice"))
        for one in row["tried"][1:]
    ]
    headings = ["module", "map", "form", "shipped form / this form", "error", "verdict"]
    return table(headings, rows) if rows else NOT_MEASURED


def _verdict(one: Row) -> str:
    """On a form that is not the shipped one."""
    if one["chosen"]:
        return "**this one is faster**"
    if not one["ratio"]:
        return f"the shipped form stands: {one['reason']}"
    return "the shipped form stands" if one["decided"] else "not decided"


def floor_table(measured: Measured) -> str:
    """How many times its hand-fused kernel's time a form takes, and the kernel as an operator of onnxruntime."""
    rows = [
        [
            row["case"],
            row["shape"],
            _ratio(row["ratio"]),
            _ratio(row["operator"]),
            _ratio(row["source"]),
            _error(row),
            *(f"{row['microseconds'][one]:,.0f}" for one in ("form", "operator", "kernel")),
        ]
        for row in _by_shape(measured.rows("floor"))
    ]
    headings = ["module", "map", "form / kernel", "operator / kernel", "source / operator", "error"]
    return table([*headings, "form, us", "operator, us", "kernel, us"], rows) if rows else NOT_MEASURED


def cpu_control(measured: Measured) -> str:
    medians = [row["control"]["median"] for row in measured.rows("forms") if row["control"]]
    if not medians:
        return NOT_MEASURED
    near = sum(0.98 <= median <= 1.02 for median in medians)
    return (
        f"The control over {len(medians)} rows: median {statistics.median(medians):.3f}, "
        f"from {min(medians):.2f} to {max(medians):.2f}, {near} of them within 2 % of 1."
    )


def fp16_table(measured: Measured, name: str | None = None) -> str:
    found = measured.rows("fp16", name)
    if not found:
        return NOT_MEASURED
    rows = []
    for row in found:
        for kind in INPUTS:
            errors = [planned[kind][bracket] for planned in row["planned"].values() for bracket in BRACKETS]
            rows.append([row["case"], kind, _plain(row["plain_half"][kind]), *map(error_text, errors)])
        nodes = [f"{planned['fp16_nodes']} + {planned['fp32_nodes']}" for planned in row["planned"].values()]
        rows.append([row["case"], "nodes, FP16 + FP32", "", *(cell for text in nodes for cell in (text, ""))])
    columns = [f"planned {target}, {bracket}" for target in found[0]["planned"] for bracket in BRACKETS]
    return table(["module", "input", "plain half", *columns], rows)


def _plain(figures: Row) -> str:
    if figures["non_finite"]:
        return f"**NaN or Inf in {100 * figures['non_finite']:.3g} %**"
    text = error_text(figures["error"])
    return f"**{text}**" if figures["error"] > SILENT else text


def error_text(error: float | None) -> str:
    return "NaN or Inf" if error is None else f"{error:.1e}"


def plain_half_verdict(row: Row) -> str:
    """`safe`, or what goes wrong and on which inputs."""
    figures = row["plain_half"]
    overflow = [kind for kind in INPUTS if figures[kind]["non_finite"]]
    silent = [kind for kind in INPUTS if kind not in overflow and figures[kind]["error"] > SILENT]
    found = (("overflows", overflow), ("silent error", silent))
    return "; ".join(f"{what} ({', '.join(kinds)})" for what, kinds in found if kinds) or "safe"


def worst_planned(row: Row) -> str:
    """The largest error of a planned graph, over targets and inputs, in the pessimistic bracket."""
    errors = [planned[kind]["pessimistic"] for planned in row["planned"].values() for kind in INPUTS]
    return error_text(None if None in errors else max(errors))


def operator_table(measured: Measured, name: str) -> str:
    rows = [
        [
            row["case"],
            row["target"],
            str(row["opset"]),
            str(sum(row["operators"].values())),
            ", ".join(kind if count == 1 else f"{kind} x {count}" for kind, count in row["operators"].items()),
        ]
        for row in measured.rows("ops", name)
    ]
    return table(["module", "target", "opset", "nodes", "operators"], rows) if rows else NOT_MEASURED


def kernel_table(measured: Measured, name: str | None = None) -> str:
    rows = []
    for row in measured.rows("kernels", name):
        by_figure = zip(*(_kernel_figures(row["graphs"][graph]) for graph in GRAPHS))
        rows.append([row["case"], *(cell for cells in by_figure for cell in cells)])
    figures = ("kernels", "traffic", "scratch KiB")
    headings = ["module", *(f"{figure}, {title}" for figure in figures for title in GRAPHS.values())]
    return table(headings, rows) if rows else NOT_MEASURED


def _kernel_figures(found: Row) -> tuple[str, str, str]:
    if "refused" in found:
        return "refused", "refused", "refused"
    return str(found["kernels"]), f"{found['traffic']:.2f}", f"{found['scratch_bytes'] / 1024:,.0f}"


def conditions_table(measured: Measured) -> str:
    """Where and with what each file was made, and what else the machine did meanwhile."""
    rows = []
    meanwhile = {row["name"]: row for row in measured.rows("quiet")}
    for kind in Measured._fields:
        head: Row = getattr(measured, kind)
        if head and kind != "quiet":
            machine = head.get("machine")
            where = f"{machine['cpu']}, {machine['cores']} cores" if machine else "any: nothing is timed"
            versions = ", ".join(f"{name} {number}" for name, number in head["versions"].items())
            kept = "[rtx_static.json](../benchmarks/rtx_static.json)" if kind == "kernels" else None
            file = kept or f"[{kind}.json](measured/{kind}.json)"
            rows.append([file, where, versions, _meanwhile(meanwhile.get(kind)) if machine else "-"])
    return table(["results", "machine", "versions", "others meanwhile"], rows) if rows else NOT_MEASURED


def _meanwhile(row: Row | None) -> str:
    """In cores; what another virtual machine took counts too."""
    if row is None:
        return "not watched"
    return f"{row['others'] + row['stolen']:.2f} of a core in {row['seconds'] / 60:.0f} min"


def target_table(targets: Iterable[Target], columns: Mapping[str, str]) -> str:
    """A row a target that has any of these facts, a mark beside each value."""
    rows = [
        [f"`{target.name}`", target.title, *(_marked(target, key) for key in columns.values())]
        for target in targets
        if any(key in target.facts for key in columns.values())
    ]
    return table(["target", "what", *columns], rows)


def _marked(target: Target, key: str) -> str:
    fact = target.facts.get(key)
    if fact is None:
        return "-"
    shown = ("yes" if fact.value else "no") if isinstance(fact.value, bool) else str(fact.value)
    return f"{shown} {fact.mark[0]}"


def target_notes(targets: Iterable[Target]) -> str:
    """What is noted beside a value, with the targets that share the note."""
    shared: dict[tuple[str, str], list[str]] = {}
    for target in targets:
        for key, fact in target.facts.items():
            if fact.note:
                shared.setdefault((key, fact.note), []).append(f"`{target.name}`")
    rows = ([f"`{key}`", note, ", ".join(names)] for (key, note), names in sorted(shared.items()))
    return table(["value", "note", "targets"], rows)
