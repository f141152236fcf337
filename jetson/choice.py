"""Which engine a run takes: the one that was asked for, and never another; else the best that is here."""

import importlib.util
import sys
from typing import List, Tuple

from .arguments import ENGINES, ONNXRUNTIME, TENSORRT, TRTEXEC
from .backend import Backend, Job
from .errors import BadRequest


def choose(job: Job) -> Tuple[Backend, List[str]]:
    """The backend of this run, and notes on what was passed over for it.

    Raises:
        BadRequest: the engine that was asked for is not here or does not fit
            this capsule, or none is here.
    """
    asked = job.options.engine
    if asked is None and job.capsule.engine == ONNXRUNTIME:
        asked = ONNXRUNTIME  # the target runs nothing else
    if asked is not None:
        return _backend(asked, job), []
    if _is_importable(TENSORRT):
        return _backend(TENSORRT, job), []
    return _without_module(job)


def _without_module(job: Job) -> Tuple[Backend, List[str]]:
    from .tensorrt_module import how_to_install
    from .trtexec import find

    try:
        tool = find(job.root)
    except BadRequest as error:
        raise BadRequest(
            "None of the engines {} can be used. tensorrt: {} has no module of that name. trtexec: {} onnxruntime: it "
            "runs only when --engine onnxruntime asks for it, since it says nothing about TensorRT. {}".format(
                ", ".join(ENGINES), sys.executable, error, how_to_install(TENSORRT)
            )
        ) from error
    note = "TensorRT's Python module is not here, so {} builds and runs the engine. {}"
    return _backend(TRTEXEC, job), [note.format(tool.path, how_to_install(TENSORRT))]


def precisions_of(backend: Backend) -> Tuple[List[str], List[str]]:
    """The precisions to run, and a sentence for each that is left out.

    Raises:
        BadRequest: the one that was asked for cannot be run, or none can.
    """
    job = backend.job
    asked = job.options.precision
    wanted = [asked] if asked else ["fp32"] + (["fp16"] if job.has_half() else [])
    reasons = {precision: backend.cannot(precision) for precision in wanted}
    able = [precision for precision in wanted if not reasons[precision]]
    if not able:
        raise BadRequest(
            "{} cannot be run in {} with {}: {}.".format(
                job.capsule.name, " or ".join(wanted), backend.name, "; ".join(reasons[one] for one in wanted)
            )
        )
    return able, ["{} was not run: {}.".format(one, reasons[one]) for one in wanted if reasons[one]]


def _backend(name: str, job: Job) -> Backend:
    if name == TENSORRT:
        from .run_tensorrt import TensorRtBackend

        return TensorRtBackend(job)
    if name == TRTEXEC:
        from .run_trtexec import TrtexecBackend

        return TrtexecBackend(job)
    from .run_onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(job)


def _is_importable(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None
