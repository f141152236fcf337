"""PyTorch module -> artifact: trace, simplify under guard, precision plan, typed graph.

Stages, in the order data meets them; each is one file with one verb and a
frozen result.
"""

if __name__ == "export":
    raise ImportError("import deploy_attn.export, not export: this folder is the source of that subpackage")

from deploy_attn.export.artifact import staged_folder, write_artifact
from deploy_attn.export.certificate import Certificate, Trial, certify
from deploy_attn.export.checkpoint import load_checkpoint
from deploy_attn.export.inputs import noise_inputs, parity_input
from deploy_attn.export.onnx_from_module import onnx_from_module
from deploy_attn.export.precision import NodePlan, PrecisionPlan, plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.export.reference import check_network, fp32_errors, npz_from_cases, reference_cases
from deploy_attn.export.simplify import Simplified, simplify
from deploy_attn.export.typed import typed_from_plan

__all__ = [
    "Certificate",
    "NodePlan",
    "PrecisionPlan",
    "Simplified",
    "Trial",
    "certify",
    "check_network",
    "fp32_errors",
    "load_checkpoint",
    "noise_inputs",
    "npz_from_cases",
    "onnx_from_module",
    "parity_input",
    "plan_from_graph",
    "reference_cases",
    "simplify",
    "staged_folder",
    "tensor_ranges",
    "typed_from_plan",
    "write_artifact",
]
