"""onnxruntime on the CPU, CUDA and TensorRT providers; one that was asked for runs, or it is an error.

onnxruntime itself would rather run elsewhere than fail: a provider whose
libraries are missing is left out with a line in the log, nodes that it lacks go
to the CPU, and a call that fails is repeated there. All three are switched off
or checked here.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from deploy_attn.engines.base import Engine, Feeds, Graph, InputSpec, Outputs, Run, Runner
from deploy_attn.engines.cache import cache_folder
from deploy_attn.engines.denormals import DenormalsAsZero, KeptEnvironment, check_denormals
from deploy_attn.engines.gpus import gpus
from deploy_attn.engines.pairs import Stopwatch, wall_clock
from deploy_attn.engines.rounding import rounded_from_typed
from deploy_attn.engines.settings import CPU as CPU
from deploy_attn.engines.settings import LEVELS
from deploy_attn.engines.settings import Settings as Settings
from deploy_attn.engines.settings_file import stored_settings
from deploy_attn.jetson.artifact import Artifact
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import onnxruntime

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_DEVICE_ID = 0
_FATAL_ONLY = 4  # its errors are raised, and reported as findings
_DTYPES = MappingProxyType(
    {
        "tensor(float)": "float32",
        "tensor(float16)": "float16",
        "tensor(double)": "float64",
        **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
        "tensor(bool)": "bool",
    }
)
# How the log tells that a provider did not start; the session is then made without it, or not at all.
_NOT_STARTED = re.compile(
    r"failed to load library|failed to create \w+ExecutionProvider|please install|CUDA (failure|error) \d+",
    re.IGNORECASE,
)
_MISSING_LIBRARY = re.compile(r"(lib[\w+-]+\.so)\.?(\d*)[\w.]*: cannot open shared object file")


class OnnxRuntimeCpu(Engine):
    """FP32 graphs as they are; typed FP16 graphs from both sides, since a CPU computes them in FP32.

    `fixed` are settings that cannot be chosen; None where they can.

    Args:
        settings: by precision; None for those that were tuned for this artifact, if any were.

    Raises:
        BadRequest: the stored settings cannot be read, or are of another artifact.
    """

    prefers: ClassVar[Sequence[str]] = ("fp32", "fp16")
    fixed: ClassVar[Settings | None] = None

    def __init__(self, artifact: Artifact, settings: Mapping[str, Settings] | None = None) -> None:
        super().__init__(artifact)
        self._settings = stored_settings(artifact) if settings is None else settings

    def conditions(self) -> dict[str, Any]:
        """The settings that are not the defaults, by precision."""
        settings = {precision: settings.as_dict() for precision, settings in self._settings.items()}
        return {"settings": settings} if settings else {}

    def runs(self, graph: Graph) -> Iterator[Run]:
        import onnx

        settings = self._settings.get(graph.precision)
        if graph.precision == "fp32":
            yield Run("exact", "fp32", OnnxRuntimeRunner(graph.content, settings=settings))
            return
        yield Run("optimistic", "fp16", OnnxRuntimeRunner(graph.content, settings=settings))
        rounded = rounded_from_typed(onnx.load_from_string(graph.content))
        yield Run("pessimistic", "fp16-rounded", OnnxRuntimeRunner(rounded.SerializeToString(), settings=settings))


class _OnnxRuntimeGpu(Engine):
    """Each graph as it is: a GPU computes FP16 nodes in FP16."""

    provider: str

    def runs(self, graph: Graph) -> Iterator[Run]:
        bracket = "exact" if graph.precision == "fp32" else "device"
        yield Run(bracket, graph.precision, OnnxRuntimeRunner(graph.content, settings=Settings(self.provider)))


class OnnxRuntimeCuda(_OnnxRuntimeGpu):
    """The CUDA provider, without TF32."""

    provider = CUDA


class OnnxRuntimeTensorRt(_OnnxRuntimeGpu):
    """The TensorRT provider, its engines and timings kept in the user's cache.

    The types are those of the graph (strongly typed). The provider has no
    option for TF32, which TensorRT uses for FP32 graphs from Ampere on:
    NVIDIA_TF32_OVERRIDE=0 in the environment switches it off.
    """

    provider = TENSORRT


class OnnxRuntimeRunner(Runner):
    """One onnxruntime session on one provider.

    With `optimise=False` the graph runs node by node as written, which keeps
    every intermediate tensor observable.

    On a GPU, inputs and outputs are bound to it, so that no copy is hidden in
    a run. On the CPU there is no copy to save, and a plain call is used, but for
    timing, where what Python does for one counts.
    """

    def __init__(self, content: bytes, optimise: bool = True, settings: Settings | None = None) -> None:
        super().__init__(content)
        self._optimise = optimise
        self._settings = settings or Settings()
        self._session: onnxruntime.InferenceSession | None = None

    def conditions(self) -> dict[str, Any]:
        ort = _onnxruntime()
        provider = self._settings.provider
        options = self._provider_options(ort)
        found: dict[str, Any] = {
            "engine": "onnxruntime",
            "version": ort.__version__,
            "provider": provider,
            # A path of this machine is no condition of the result.
            "provider_options": {name: value for name, value in options.items() if not name.endswith("_path")},
            "intra_op_threads": self._settings.intra_op_threads,
            "inter_op_threads": self._settings.inter_op_threads,
            "optimisation": self._level,
            "denormals": "zero" if self._settings.denormals_zero else "kept",
            "spinning": self._settings.spinning,
            "device": "cpu" if provider == CPU else f"cuda:{_DEVICE_ID}",
        }
        if provider != CPU:
            found["cuda"] = getattr(ort, "cuda_version", None)
            found["gpus"] = gpus("name", "compute_cap", "driver_version")
        if provider == TENSORRT:
            off = os.environ.get("NVIDIA_TF32_OVERRIDE") == "0"
            found["tf32"] = "off by NVIDIA_TF32_OVERRIDE" if off else "as TensorRT chooses"
        return found

    def _activate(self) -> Sequence[InputSpec]:
        ort = _onnxruntime()
        provider = self._settings.provider
        _check_available(ort, provider)
        if self._settings.denormals_zero:
            check_denormals()
        with KeptEnvironment():  # the first session of a process may change this thread's for good
            self._session = self._new_session(ort) if provider == CPU else self._new_gpu_session(ort)
        self._session.disable_fallback()
        return [
            InputSpec(
                node.name,
                _DTYPES.get(node.type, node.type),
                tuple(extent if isinstance(extent, int) else None for extent in node.shape),
            )
            for node in self._session.get_inputs()
        ]

    def _infer(self, feeds: Feeds) -> Outputs:
        session = self._live_session()
        names = [node.name for node in session.get_outputs()]
        if self._settings.provider == CPU:
            with self._environment():
                return dict(zip(names, session.run(names, dict(feeds))))
        binding, _ = self._bound(feeds)
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return dict(zip(names, binding.copy_outputs_to_cpu()))

    def _stopwatch(self, feeds: Feeds) -> Stopwatch:
        """By the wall clock; inputs stay where they are bound, and each run writes into the outputs of the first."""
        session = self._live_session()
        binding, values = self._bound(feeds)

        def run() -> object:
            with self._environment():
                session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return values  # what is bound lives as long as what runs it

        return wall_clock(run)

    def _bound(self, feeds: Feeds) -> tuple[Any, list[Any]]:
        """A binding of inputs and outputs to the device, and the values that it refers to."""
        session, device = self._live_session(), "cpu" if self._settings.provider == CPU else "cuda"
        binding = session.io_binding()
        from_numpy = _onnxruntime().OrtValue.ortvalue_from_numpy
        values = {name: from_numpy(array.copy(order="C"), device, _DEVICE_ID) for name, array in feeds.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for node in session.get_outputs():
            binding.bind_output(node.name, device, _DEVICE_ID)
        binding.synchronize_inputs()
        return binding, list(values.values())

    def _deactivate(self) -> None:
        self._session = None

    @property
    def _level(self) -> str:
        return self._settings.level if self._optimise else "off"

    def _environment(self) -> AbstractContextManager[None]:
        """What the calling thread's floating-point environment is to be during a call; the pool has its own."""
        return DenormalsAsZero() if self._settings.denormals_zero else contextlib.nullcontext()

    def _live_session(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise RuntimeError("the session is closed")
        return self._session

    def _new_gpu_session(self, ort: Any) -> onnxruntime.InferenceSession:
        """A session on the GPU.

        Raises:
            BadRequest: the provider did not start; the log says why.
        """
        provider = self._settings.provider
        _preload(ort, provider)
        for name, value in self._provider_options(ort).items():
            if name.endswith("_path"):
                _make_folder(Path(value))
        with _stderr_kept() as log:
            try:
                session, refused = self._new_session(ort), None
            except Exception as error:  # onnxruntime raises a class for each status, and RuntimeError
                session, refused = None, error
        text = f"{log.getvalue()}\n{refused or ''}"
        if session is not None and session.get_providers()[0] == provider:
            return session
        if refused is not None and not _NOT_STARTED.search(text):
            raise refused
        raise BadRequest(_reason_not_started(provider, text))

    def _new_session(self, ort: Any) -> onnxruntime.InferenceSession:
        providers = [(self._settings.provider, self._provider_options(ort))]
        return ort.InferenceSession(self._content, self._options(ort), providers=providers, enable_fallback=0)

    def _options(self, ort: Any) -> onnxruntime.SessionOptions:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.intra_op_num_threads = self._settings.intra_op_threads
        options.inter_op_num_threads = self._settings.inter_op_threads
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[self._level])
        if self._settings.denormals_zero:
            options.add_session_config_entry("session.set_denormal_as_zero", "1")
        if not self._settings.spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._settings.provider != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options

    def _provider_options(self, ort: Any) -> dict[str, str]:
        if self._settings.provider == CPU:
            return {}
        if self._settings.provider == CUDA:
            return {"device_id": str(_DEVICE_ID), "use_tf32": "0"}
        # The provider finds an engine again by the names in its graph, not by its weights: two checkpoints of one
        # module would share an engine. So each graph has a folder of its own.
        cache = cache_folder() / f"onnxruntime-{ort.__version__}"
        return {
            "device_id": str(_DEVICE_ID),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache / hashlib.sha256(self._content).hexdigest()[:32]),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache),
        }


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BadRequest(
            f"Engine onnxruntime was asked for and cannot be imported ({error}). "
            "Install it with `pip install 'deploy-attn[cpu]'` (or [gpu] on a machine with an NVIDIA GPU); "
            "`deploy-attn doctor` shows what is there."
        ) from error
    return onnxruntime


def _check_available(ort: Any, provider: str) -> None:
    there = ort.get_available_providers()
    if provider in there:
        return
    raise BadRequest(
        f"{provider} was asked for, and the onnxruntime {ort.__version__} that is installed has {', '.join(there)}. "
        "A build with it: `pip uninstall -y onnxruntime` and then `pip install 'deploy-attn[gpu]'`; "
        "the two cannot be installed side by side."
    )


def _preload(ort: Any, provider: str) -> None:
    """Loads the libraries that pip installed where no loader looks; what is missing shows when the session is made."""
    with contextlib.redirect_stdout(io.StringIO()):
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
        if provider == TENSORRT:
            with contextlib.suppress(ImportError, OSError):
                importlib.import_module("tensorrt")


def _reason_not_started(provider: str, log: str) -> str:
    missing = _MISSING_LIBRARY.search(log)
    if missing is None:
        told = [line.strip() for line in log.splitlines() if _NOT_STARTED.search(line)]
        reason = f"onnxruntime says: {told[0].rstrip('.')}" if told else "onnxruntime does not say why"
        remedy = "`deploy-attn doctor` shows what is here"
    else:
        library, major = missing.groups()
        reason = f"{library}{'.' if major else ''}{major} cannot be loaded here"
        remedy = f"It comes with {_brought_by(library, major)}"
    return f"{provider} was asked for and did not start: {reason}. {remedy}. Nothing was run on the CPU instead."


def _brought_by(library: str, major: str) -> str:
    if library == "libcuda.so":
        return "the driver of an NVIDIA GPU"
    if library.startswith("libnvinfer"):
        return f"TensorRT {major}: `pip install 'tensorrt=={major or '10'}.*'`, or JetPack on a Jetson"
    return "CUDA and cuDNN: `pip install 'onnxruntime-gpu[cuda,cudnn]'`, or NVIDIA's own packages"


@contextlib.contextmanager
def _stderr_kept() -> Iterator[io.StringIO]:
    """What native code writes to stderr inside, as text afterwards: onnxruntime's own log goes nowhere else."""
    kept = io.StringIO()
    try:
        there = os.dup(2)
    except OSError:  # stderr is closed, so nothing can be kept
        yield kept
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield kept
        finally:
            sys.stderr.flush()
            os.dup2(there, 2)
            os.close(there)
            file.seek(0)
            kept.write(file.read().decode("utf-8", "replace"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRequest(
            f"Engines cannot be cached in {folder}: {error.strerror or error}. "
            "Set XDG_CACHE_HOME to a folder that can be written."
        ) from error
