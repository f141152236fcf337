"""A session of onnxruntime that knows the fused operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy_attn.engines.fused.library import fused_library
from deploy_attn.jetson.errors import BadRequest, first_line

if TYPE_CHECKING:
    import onnxruntime

_FATAL_ONLY = 4


def fused_session(graph: bytes) -> onnxruntime.InferenceSession:
    """A session on the CPU, one thread, for a graph with operators of the domain `deploy_attn`.

    Raises:
        BadRequest: onnxruntime is not installed, or one of before 1.16; or `fused_library` cannot be served.
        DeployAttnError: the library does not compile.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BadRequest(
            f"Fused operators run in onnxruntime, which cannot be imported ({error}). "
            "Install it with `pip install 'deploy-attn[cpu]'`."
        ) from error
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    library = fused_library()
    try:
        options.register_custom_ops_library(str(library))
    except Exception as error:  # onnxruntime raises a class for each status
        raise BadRequest(
            f"onnxruntime {ort.__version__} does not take {library}: {first_line(error).rstrip('.')}. It takes 1.16 or "
            "newer; if it is, delete that file, and it is compiled again."
        ) from error
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
