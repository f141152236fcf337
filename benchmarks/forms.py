"""What an export form gains over the source's code in onnxruntime on one CPU thread, as paired ratios.

Run by hand on a quiet machine: `python benchmarks/forms.py`, or for some rows
only `--names se cbam --shapes 1x256x28x28`. Both graphs come from the same
exporter at opset 17. Two sessions at a time are compared: in each pair, in
random order, each session gets one call to bring its data into the caches and
one timed call, and the ratio is taken within the pair, because a machine's
speed drifts between pairs. onnxruntime's level ALL is slower than EXTENDED for
some graphs, so a short pilot chooses the better level for each graph; the ratio
to the source's code at ALL, which is the default, is reported too.

Exit code 1 if a form is slower than the source's code, or differs from it.

With `--choice` the forms of each module that has several are held against each
other instead, as `deploy-attn export --tune` does it, in 5 to 10 minutes; exit
code 1 if one that is not shipped for CPUs is faster than the one that is by more
than the control's error, or if the machine is too noisy to tell.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import torch
from cases import MEASURED, Case, Result, Results, cases, machine, name_argument, shape_from_text, shape_text, versions
from torch import nn

from deploy_attn.engines.latency.result import error_bar
from deploy_attn.engines.pairs import Call, Effort, Paired, paired, warm_up
from deploy_attn.engines.tolerance import TOLERANCES
from deploy_attn.export.inputs import noise_inputs
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.jetson.metrics import compare
from deploy_attn.modules.catalogue import Shape
from deploy_attn.modules.naive_forms import naive
from deploy_attn.request import ExportRequest
from deploy_attn.subject import source_of, subject_of
from deploy_attn.traced import traced_from_subject
from deploy_attn.tuning.form_choice import choose_forms
from deploy_attn.tuning.form_contest import FormPlan
from deploy_attn.tuning.tune import comparing

Array = np.ndarray[Any, Any]

SHAPES: tuple[Shape, ...] = ((1, 64, 56, 56), (1, 256, 28, 28), (1, 512, 26, 26), (8, 256, 28, 28))
CHOICE_SHAPES = SHAPES[:2]
LEVELS: Mapping[str, ort.GraphOptimizationLevel] = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}
METHOD = {
    "opset": 17,
    "threads": 1,
    "spinning": False,
    "warm_up": "until two windows of time agree within 5 %, or for a second",
    "pairs": "30 to 300 by a time budget",
    "control": "the source's graph against a second session of itself",
    "error": "how far from 1 the control's median may lie, with a probability of 95 %",
    "ratio": "median, 10th and 90th percentile of source / form within a pair: above 1 the form is faster",
}
BOUND = 0.98
FAMILY = "cpu"
STANDS, FASTER, NOT_DECIDED = "stands", "faster", "not decided"
APART = 1e-4  # RMS relative, of two FP32 graphs of one function


class Differs(Exception):
    """The two graphs do not compute the same, so their times say nothing."""


class Share(NamedTuple):
    """How long to measure: a share of a case's seconds, and the fewest pairs however long they take."""

    share: float
    least: int

    def of(self, seconds: float) -> Effort:
        return Effort(self.share * seconds, self.least, self.least)


PILOT = Share(0.1, 10)
MAIN = Share(0.5, 30)
AGAIN = Share(1.0, 60)
SIDE = Share(0.15, 30)


class Contest:
    """The source's graph and the form's, each at both levels, on one input."""

    def __init__(self, case: Case, shape: Shape, seconds: float) -> None:
        self._seconds = seconds
        reference = case.reference(shape)
        self._feed = {"input": noise_inputs(shape, seed=0, severe=False)["normal"]}
        form = case.reference(shape).double().export_form(shape, "cpu").float()
        graphs = {"naive": self._graph(naive(case.name, reference)), "form": self._graph(form)}
        self._sessions = {
            (name, level): _session(graph, level) for (name, graph), level in itertools.product(graphs.items(), LEVELS)
        }
        self._naive = graphs["naive"]

    def apart(self) -> float:
        """RMS relative difference of the two graphs.

        Raises:
            Differs: it is more than rounding explains.
        """
        source, form = (self._sessions[name, "all"].run(None, self._feed)[0] for name in ("naive", "form"))
        found = compare(form, source).rms_relative
        if not found <= APART:
            raise Differs(f"form and source are {found:.1e} apart")
        return found

    def warm_up(self) -> None:
        for session in self._sessions.values():
            warm_up(self._call(session))

    def better_level(self, graph: str) -> str:
        """The level at which a graph is faster, from a short pilot."""
        pilot = self._pairs(self._sessions[graph, "all"], self._sessions[graph, "extended"], PILOT)
        return "all" if pilot.ratio <= 1 else "extended"

    def gain(self, naive_level: str, form_level: str, effort: Share) -> Paired:
        return self._pairs(self._sessions["naive", naive_level], self._sessions["form", form_level], effort)

    def control(self, level: str) -> Paired:
        """The source's graph against a second session of itself, whose ratio must be 1."""
        other = _session(self._naive, level)
        warm_up(self._call(other))
        return self._pairs(self._sessions["naive", level], other, SIDE)

    def _graph(self, module: nn.Module) -> bytes:
        with torch.inference_mode():
            x = torch.from_numpy(self._feed["input"])
            graph: bytes = onnx_from_module(module.eval(), x, GraphRequest(17, 8)).SerializeToString()
        return graph

    def _pairs(self, first: ort.InferenceSession, second: ort.InferenceSession, share: Share) -> Paired:
        return paired(self._call(first), self._call(second), share.of(self._seconds))

    def _call(self, session: ort.InferenceSession) -> Call:
        return lambda: session.run(None, self._feed)


def main() -> int:
    """Measures, prints a line a case, and says whether every form holds."""
    wanted = _arguments()
    shapes = wanted.shapes or (CHOICE_SHAPES if wanted.choice else SHAPES)
    todo = [(case, shape) for case in cases(wanted.names) for shape in shapes]
    if wanted.choice:
        return choices(todo, wanted)
    renewed = [(case.label, shape_text(shape)) for case, shape in todo]
    head = {"machine": machine(), "versions": versions("torch", "onnx", "onnxruntime", "numpy"), "method": METHOD}
    results = Results(wanted.output or MEASURED / "forms.json", head, ("case", "shape"), renewed)
    torch.set_num_threads(1)
    failures = []
    for case, shape in todo:
        try:
            row = measure(case, shape, wanted.seconds_per_case)
        except Differs as difference:
            failures.append(f"{case.label} at {shape_text(shape)}: {difference}")
            continue
        results.add(row)
        print(_line(row), flush=True)
        if row["ratio"]["median"] < BOUND:
            failures.append(f"{case.label} at {shape_text(shape)}: {row['ratio']['median']} of the source's speed")
        gc.collect()
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


def measure(case: Case, shape: Shape, seconds: float) -> Result:
    """One row. Where the form seems to lose, all is set up anew and measured twice as long; all pairs count."""
    contest = Contest(case, shape, seconds)
    apart = contest.apart()
    contest.warm_up()
    levels = {graph: contest.better_level(graph) for graph in ("naive", "form")}
    better = contest.gain(levels["naive"], levels["form"], MAIN)
    if better.ratio < BOUND:
        contest = Contest(case, shape, seconds)
        contest.warm_up()
        again = contest.gain(levels["naive"], levels["form"], AGAIN)
        better = better.joined(again)
    at_all = better if levels["naive"] == "all" else contest.gain("all", levels["form"], SIDE)
    control = contest.control(levels["naive"])
    return {
        "case": case.label,
        "name": case.name,
        "shape": shape_text(shape),
        "options": dict(case.options(*shape[2:])),
        "ratio": better.as_dict(),
        "ratio_to_all": at_all.as_dict(),
        "control": control.as_dict(),
        "error": round(error_bar(control), 4),
        "microseconds": {"naive": _us(better.first_s), "naive_all": _us(at_all.first_s), "form": _us(better.second_s)},
        "levels": levels,
        "rms_relative_apart": float(f"{apart:.1e}"),
    }


def choices(todo: Sequence[tuple[Case, Shape]], wanted: argparse.Namespace) -> int:
    """The forms of each case that has several against each other; a row a case, and whether the shipped one stands."""
    todo = [(case, shape) for case, shape in todo if len(set(case.reference(shape).forms.values())) > 1]
    head = {"machine": machine(), "versions": versions("torch", "onnx", "onnxruntime", "numpy"), "family": FAMILY}
    renewed = [(case.label, shape_text(shape)) for case, shape in todo]
    results = Results(wanted.output or MEASURED / "choice.json", head, ("case", "shape"), renewed)
    failures = []
    for case, shape in todo:
        tried = tried_forms(case, shape, wanted.seconds_per_case)
        verdict = verdict_on(tried)
        told = {"case": case.label, "name": case.name, "shape": shape_text(shape)}
        results.add({**told, "options": dict(case.options(*shape[2:])), "verdict": verdict, "tried": tried})
        print(f"{case.label:<18} {shape_text(shape):<12}", *map(_told, tried), verdict, sep="  ", flush=True)
        failures += [
            f"{case.label} at {shape_text(shape)}: {one['form']}, {one['reason']}"
            for one in tried
            if not one["decided"] or (one["chosen"] and one["form"] != FAMILY)
        ]
        gc.collect()
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


def tried_forms(case: Case, shape: Shape, seconds: float) -> list[Result]:
    """What `export --tune` makes of a case, as its forms.json has it."""
    request = ExportRequest(case.name, shape=shape, options=case.options(*shape[2:]))
    plan = FormPlan(FAMILY, GraphRequest(17, 8), TOLERANCES["fp32"])
    subject = subject_of(request, source_of(request))
    findings = traced_from_subject(subject, plan.family, plan.request).findings
    return [one.as_dict() for one in choose_forms(subject, findings, plan, comparing(seconds)).tried]


def verdict_on(tried: Sequence[Result]) -> str:
    """`faster` where another form than the shipped one was chosen, `not decided` where one may be, else `stands`."""
    if any(one["chosen"] and one["form"] != FAMILY for one in tried):
        return FASTER
    return STANDS if all(one["decided"] for one in tried) else NOT_DECIDED


def _told(one: Result) -> str:
    ratio = "-" if one["ratio"] is None else f"{one['ratio']['median']:.2f} +- {one['error']:.3f}"
    return f"{one['form']} {ratio}{' chosen' if one['chosen'] else ''}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Export forms against the source's code in onnxruntime on a CPU.")
    parser.add_argument("--names", nargs="+", type=name_argument, default=(), help="only these modules")
    parser.add_argument("--shapes", nargs="+", type=shape_from_text, default=(), help="only these, as 1x256x28x28")
    parser.add_argument("--seconds-per-case", type=float, default=5.0, help="about so long for each; slow ones longer")
    parser.add_argument("--choice", action="store_true", help="forms against each other: is the shipped one right?")
    parser.add_argument("--output", type=Path, help="where results go; a file of docs/measured by default")
    return parser.parse_args()


def _session(graph: bytes, level: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = LEVELS[level]
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _us(times: Sequence[float]) -> int:
    return round(statistics.median(times) * 1e6)


def _line(row: Result) -> str:
    better, at_all, us = (row[name] for name in ("ratio", "ratio_to_all", "microseconds"))
    return (
        f"{row['case']:<18} {row['shape']:<12} {better['median']:6.2f} ({better['p10']:.2f}..{better['p90']:.2f}, "
        f"n={better['pairs']}) +- {row['error']:.3f}  to ALL {at_all['median']:6.2f}  "
        f"{us['naive']} -> {us['form']} us  {row['levels']['naive']}/{row['levels']['form']}"
    )


if __name__ == "__main__":
    sys.exit(main())
