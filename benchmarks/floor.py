"""How far graphs are from what one CPU core can do: hand-fused kernels against onnxruntime, as paired ratios.

Run by hand on a quiet machine: `python benchmarks/floor.py`, two minutes; it needs a C compiler (`cc`, or what `CC`
names). The candidates compute one module with its real gates, in one process, turn by turn: the kernel of
`engines/fused` called by itself, which is the floor; the same kernel as an operator of onnxruntime; and the export
form in onnxruntime at its better level, on one thread. The operator is held against the source's graph at its better
level too. All but the kernel have their input and output bound. All are checked against the catalogue's module before
they are timed, read the same map and write into memory that is there already.

Exit code 1 if one of them differs from the module, or the operator takes more than twice its kernel's time.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import torch
from cases import MEASURED, Case, Result, Results, cases, machine, shape_from_text, shape_text, versions

from deploy_attn.engines.fused.library import FLAGS, SYSTEMS, fused_library
from deploy_attn.engines.latency.result import error_bar
from deploy_attn.engines.pairs import Call, Effort, paired, warm_up
from deploy_attn.export.inputs import noise_inputs
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.fusing.graph import fused_graph, fused_parameters
from deploy_attn.jetson.metrics import compare
from deploy_attn.modules.base import ReferenceForm
from deploy_attn.modules.catalogue import Shape
from deploy_attn.modules.naive_forms import naive

Array = np.ndarray[Any, Any]

SHAPES: tuple[Shape, ...] = ((1, 64, 56, 56), (1, 256, 28, 28), (1, 512, 26, 26), (8, 256, 28, 28))
LEVELS: Mapping[str, ort.GraphOptimizationLevel] = MappingProxyType(
    {
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    }
)
METHOD = {
    "opset": 17,
    "threads": 1,
    "spinning": False,
    "binding": "input and output of onnxruntime are bound",
    "compiler_flags": " ".join(FLAGS),
    "ratio": "median, 10th and 90th percentile of form / kernel and operator / kernel within a pair: 1 is the floor",
    "source": "source / operator within a pair: above 1 the operator is faster",
}
BOUND = 2.0
APART = 1e-5  # RMS relative to the module in float64


class Differs(Exception):
    """What is timed does not compute the module."""


class Candidate(NamedTuple):
    """A call that is warm, and where it writes its output."""

    call: Call
    output: Array


def main() -> int:
    """Measures, prints a line a case, and says whether every operator is within the bound."""
    wanted = _arguments()
    todo = [(case, shape) for case in cases(wanted.names) for shape in wanted.shapes]
    renewed = [(case.label, shape_text(shape)) for case, shape in todo]
    head = {"machine": machine(), "versions": versions("torch", "onnx", "onnxruntime", "numpy"), "method": METHOD}
    results = Results(wanted.output, head, ("case", "shape"), renewed)
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
        if row["operator"]["median"] > BOUND:
            failures.append(f"{case.label} at {shape_text(shape)}: {row['operator']['median']} times its floor")
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


def measure(case: Case, shape: Shape, seconds: float) -> Result:
    """One row."""
    module = case.reference(shape)
    x = noise_inputs(shape, seed=0, severe=False)["normal"]
    graphs = {
        "source": _graph(naive(case.name, case.reference(shape)), x),
        "form": _graph(case.reference(shape).double().export_form(shape, "cpu").float(), x),
    }
    (source, source_level), (form, level) = (_better(graph, x, seconds) for graph in graphs.values())
    kernel, again = _kernel(module, x), _kernel(module, x)
    operator = _session(fused_graph(module, shape[1]).SerializeToString(), "all", x)
    apart = {
        name: _apart(module, x, candidate)
        for name, candidate in {"kernel": kernel, "operator": operator, "form": form, "source": source}.items()
    }
    of_form = paired(form.call, kernel.call, Effort(0.4 * seconds, most=1000))
    of_operator = paired(operator.call, kernel.call, Effort(0.3 * seconds, most=1000))
    of_source = paired(source.call, operator.call, Effort(0.2 * seconds))
    control = paired(kernel.call, again.call, Effort(0.2 * seconds, most=1000))
    return {
        "case": case.label,
        "name": case.name,
        "shape": shape_text(shape),
        "ratio": of_form.as_dict(),
        "operator": of_operator.as_dict(),
        "source": of_source.as_dict(),
        "control": control.as_dict(),
        "error": round(error_bar(control), 4),
        "microseconds": {
            "kernel": _us(of_form.second_s),
            "operator": _us(of_operator.first_s),
            "form": _us(of_form.first_s),
        },
        "levels": {"source": source_level, "form": level},
        "rms_relative_apart": apart,
    }


def _kernel(module: ReferenceForm, x: Array) -> Candidate:
    run = ctypes.CDLL(str(fused_library())).fused_by_name
    output, parameters = np.zeros_like(x), fused_parameters(module)
    extents = (ctypes.c_long * 4)(*x.shape)
    addresses = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, output, parameters)]
    arguments = (module.catalogue_name.encode(), addresses[0], addresses[1], extents, addresses[2])
    count = ctypes.c_long(parameters.size)

    def call(_kept: tuple[Array, ...] = (x, output, parameters)) -> None:
        run(*arguments, count)

    return _warm(call, output)


def _session(graph: bytes, level: str, x: Array) -> Candidate:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = LEVELS[level]
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.register_custom_ops_library(str(fused_library()))
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    output = np.zeros_like(x)
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_ortvalue_output(session.get_outputs()[0].name, ort.OrtValue.ortvalue_from_numpy(output))
    return _warm(lambda: session.run_with_iobinding(binding), output)


def _better(graph: bytes, x: Array, seconds: float) -> tuple[Candidate, str]:
    """A graph at its better level, from a short pilot, and that level."""
    levels = {level: _session(graph, level, x) for level in LEVELS}
    pilot = paired(levels["all"].call, levels["extended"].call, Effort(0.1 * seconds, 10))
    level = "all" if pilot.ratio <= 1 else "extended"
    return levels[level], level


def _warm(call: Call, output: Array) -> Candidate:
    warm_up(call)
    return Candidate(call, output)


def _graph(form: torch.nn.Module, x: Array) -> bytes:
    with torch.inference_mode():
        graph: bytes = onnx_from_module(form.eval(), torch.from_numpy(x), GraphRequest(17, 8)).SerializeToString()
    return graph


def _apart(module: ReferenceForm, x: Array, candidate: Candidate) -> float:
    """RMS relative distance of what a call writes from the module in float64.

    Raises:
        Differs: it is more than rounding explains.
    """
    candidate.output.fill(np.nan)
    candidate.call()
    with torch.inference_mode():
        expected = module.double()(torch.from_numpy(x).double()).numpy()
    module.float()
    found = compare(candidate.output, expected).rms_relative
    if not found <= APART:
        raise Differs(f"{found:.1e} from the module")
    return float(f"{found:.1e}")


def _us(times: Sequence[float]) -> float:
    return round(float(np.median(times)) * 1e6, 1)


def _line(row: Result) -> str:
    form, operator, us = row["ratio"], row["operator"], row["microseconds"]
    return (
        f"{row['case']:<10} {row['shape']:<12} form {form['median']:6.2f} ({form['p10']:.2f}..{form['p90']:.2f}, "
        f"n={form['pairs']})  operator {operator['median']:.2f} ({operator['p10']:.2f}..{operator['p90']:.2f})  "
        f"+- {row['error']:.3f}  {us['form']} / {us['operator']} / {us['kernel']} us  "
        f"source {row['source']['median']:.2f}  {row['levels']['source']}/{row['levels']['form']}"
    )


def _name(text: str) -> str:
    if text not in SYSTEMS:
        raise argparse.ArgumentTypeError(f"{text!r} has no kernel; those that have: {', '.join(SYSTEMS)}")
    return text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Graphs and fused operators against hand-fused kernels on one thread.")
    parser.add_argument("--names", nargs="+", type=_name, default=SYSTEMS, help="only these modules")
    parser.add_argument("--shapes", nargs="+", type=shape_from_text, default=SHAPES, help="only these, as 1x256x28x28")
    parser.add_argument("--seconds-per-case", type=float, default=4.0, help="about so long for each")
    parser.add_argument("--output", type=Path, default=MEASURED / "floor.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
