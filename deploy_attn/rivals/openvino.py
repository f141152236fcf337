"""The plain export in OpenVINO on the CPU, in FP32 and one stream."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from deploy_attn.engines.base import Feeds, Outputs
from deploy_attn.engines.latency.result import Candidate
from deploy_attn.rivals.rival import Entrant, Ground


def entrant(ground: Ground, held: ExitStack) -> Entrant:
    import numpy as np
    import openvino

    # Without the hint a processor with BF16 computes in that, which is another function.
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": ground.threads,
        "NUM_STREAMS": 1,
    }
    content = ground.graph.SerializeToString()
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content), "CPU", properties)
    names = [value.name for value in ground.graph.graph.output]
    arrays = {name: np.ascontiguousarray(array) for name, array in ground.feeds.items()}
    request = _request(compiled, arrays)

    def infer(feeds: Feeds) -> Outputs:
        found = compiled.create_infer_request().infer(dict(feeds))
        return {name: np.array(found[place]) for place, name in enumerate(names)}

    def run() -> object:
        # Without the option it copies the outputs, which for a small module takes longer than the module.
        return request.infer(share_outputs=True), arrays  # the arrays live as long as what reads them

    conditions = {
        "engine": "openvino",
        "version": openvino.get_version(),
        "graph": "plain export",
        "properties": properties,
    }
    return Entrant(Candidate("openvino", run, conditions), infer)


def _request(compiled: Any, arrays: Feeds) -> Any:
    """A request whose inputs are these arrays themselves, so that no copy is timed."""
    import openvino

    request = compiled.create_infer_request()
    for name, array in arrays.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    return request
