"""What is installed on this machine, and what each job lacks."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any

from deploy_attn.engines.fused.library import has_compiler
from deploy_attn.engines.gpus import gpus

_ONNXRUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-training",
    "onnxruntime-trt-rtx",
)
_TENSORRTS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx")
_LIBRARIES = ("torch", "onnx", "onnxsim", "numpy", "safetensors", "pillow", "typer", "rich")
# What an extra of the package adds, and its distributions.
_EXTRAS = MappingProxyType(
    {
        "report": ("a page of artifacts as HTML (report -o)", ("jinja2", "matplotlib")),
        "remote": ("boards over SSH (remote)", ("asyncssh",)),
        "sweep": ("a sweep on several machines (sweep --scheduler)", ("distributed",)),
        "peers": ("bench against onnxslim and OpenVINO (bench --against)", ("onnxslim", "openvino")),
    }
)
_TENSORRT_MODULES = ("tensorrt", "tensorrt_rtx")
_IMPORT_SECONDS = 60
# The path of imports is set once Python is up: in PYTHONPATH a `types.py` of the user would keep it from starting.
_VERSION_OF = """
import importlib, sys
sys.path[:] = sys.argv[2:]
print("version", importlib.import_module(sys.argv[1]).__version__)
"""


@dataclass(frozen=True)
class Job:
    """Something a user may want to do here; `missing` is empty where they can."""

    name: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class DoctorReport:
    """What was found, which jobs it serves, and what is broken."""

    found: Mapping[str, str]
    jobs: tuple[Job, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """The main job, export and verify on the CPU, can run and nothing is broken."""
        return not self.problems and not self.jobs[0].missing and not self.jobs[1].missing

    def as_dict(self) -> dict[str, Any]:
        return {"healthy": self.passed, **asdict(self)}


def examine() -> DoctorReport:
    """Looks at packages, providers and GPUs; changes nothing."""
    added = (name for _, names in _EXTRAS.values() for name in names)
    versions = {name: _version(name) for name in (*_LIBRARIES, *added, *_ONNXRUNTIMES, *_TENSORRTS)}
    providers, broken = _providers(versions)
    tensorrts, unloadable = _tensorrts()
    gpu = "; ".join(gpus("name", "memory.total", "driver_version"))
    found = {"Python": f"{platform.python_version()} ({platform.system()} {platform.machine()})"}
    found.update({name: versions[name] or "not installed" for name in (*_LIBRARIES, "onnxruntime")})
    found.update({name: version for name, version in versions.items() if version and name not in found})
    found["onnxruntime providers"] = ", ".join(providers) or "none"
    found["GPU"] = gpu or "none found"
    found["TensorRT"] = ", ".join(f"{name} {version}" for name, version in tensorrts.items()) or "none that loads"
    problems = tuple(problem for problem in (_conflict(versions), broken, *unloadable) if problem)
    return DoctorReport(found, _jobs(versions, providers, tensorrts, gpu), problems)


def _jobs(
    versions: Mapping[str, str | None], providers: list[str], tensorrts: Mapping[str, str], gpu: str
) -> tuple[Job, ...]:
    def lacking(*names: str) -> list[str]:
        return [f"pip install {name}" for name in names if not versions[name]]

    runtime = [] if "CPUExecutionProvider" in providers else ["pip install 'deploy-attn[cpu]' (onnxruntime)"]
    compiler = [] if has_compiler() else ["a C compiler (`apt install gcc`, or name one with CC)"]
    no_gpu = [] if gpu else ["an NVIDIA GPU with its driver"]
    other_build = ["pip install 'deploy-attn[gpu]' instead of [cpu]"]
    cuda = [] if "CUDAExecutionProvider" in providers else other_build
    in_onnxruntime = [] if "TensorrtExecutionProvider" in providers else other_build
    trt = [] if "tensorrt" in tensorrts else ["pip install 'deploy-attn[gpu]' (tensorrt)"]
    rtx = [] if "tensorrt_rtx" in tensorrts else ["pip install 'deploy-attn[rtx]' (tensorrt-rtx)"]
    return (
        Job("export to ONNX, verified on the CPU", tuple(lacking("torch", "onnx", "onnxsim") + runtime)),
        Job("verify an artifact on the CPU", tuple(lacking("onnx", "numpy") + runtime)),
        Job("lint a model for a target", tuple(lacking("onnx", "numpy"))),
        Job("fused operators for onnxruntime on the CPU", tuple(lacking("torch", "onnx") + runtime + compiler)),
        Job("onnxruntime's CUDA provider", tuple(no_gpu + cuda)),
        Job("onnxruntime's TensorRT provider", tuple(no_gpu + in_onnxruntime + trt)),
        Job("build and run TensorRT engines for the GPU of this machine", tuple(no_gpu + trt)),
        Job("build TensorRT-RTX engines, which takes no GPU", tuple(rtx)),
        Job("run TensorRT-RTX engines", tuple(no_gpu + rtx)),
        *_added(versions),
    )


def _added(versions: Mapping[str, str | None]) -> Iterator[Job]:
    """What each extra adds."""
    for extra, (what, names) in _EXTRAS.items():
        absent = ", ".join(name for name in names if not versions[name])
        yield Job(what, (f"pip install 'deploy-attn[{extra}]' ({absent})",) if absent else ())


def _conflict(versions: Mapping[str, str | None]) -> str | None:
    """Two distributions that own the same import package overwrite each other's files."""
    present = [name for name in _ONNXRUNTIMES if versions[name]]
    if len(present) < 2:
        return None
    keep = "onnxruntime-gpu" if "onnxruntime-gpu" in present else present[-1]
    return (
        f"{' and '.join(present)} are installed together and overwrite each other's files: which one runs is chance. "
        f"Do: pip uninstall -y {' '.join(present)}, then: pip install {keep} "
        "(or onnxruntime where there is no GPU)."
    )


def _providers(versions: Mapping[str, str | None]) -> tuple[list[str], str | None]:
    if not any(versions[name] for name in _ONNXRUNTIMES):
        return [], None
    try:
        runtime = importlib.import_module("onnxruntime")
        return list(runtime.get_available_providers()), None
    except (ImportError, AttributeError, OSError) as error:
        return [], f"onnxruntime is installed but does not load ({error}). Uninstall it and install it again."


def _tensorrts() -> tuple[dict[str, str], list[str]]:
    """Version of each TensorRT that loads, and a problem for each that is installed and does not."""
    loaded, problems = {}, []
    for name in _TENSORRT_MODULES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # without an origin it is a folder that happens to have the name
            continue
        version, reason = _loaded_elsewhere(name)
        if version is None:
            problems.append(
                f"{name} is installed but does not load ({reason}). Install it again, in a version for this machine's "
                "CUDA; on a Jetson it comes with JetPack."
            )
        else:
            loaded[name] = version
    return loaded, problems


def _loaded_elsewhere(name: str) -> tuple[str | None, str]:
    """Version of a module, imported in a process of its own because native libraries may end it; else the reason."""
    command = [sys.executable, "-I", "-c", _VERSION_OF, name, *sys.path]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_IMPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"importing it takes more than {_IMPORT_SECONDS} s"
    told = [line for line in done.stdout.splitlines() if line.startswith("version ")]
    if done.returncode == 0 and told:
        return told[-1].partition(" ")[2], ""
    if done.returncode < 0:
        return None, f"importing it ends Python: {signal.strsignal(-done.returncode) or -done.returncode}"
    return None, (done.stderr.strip().splitlines() or [f"importing it ends Python with code {done.returncode}"])[-1]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
