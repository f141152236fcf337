import sys
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.tensorrt_module import (
    flags,
    has_strong_typing,
    has_weak_typing,
    init_plugins,
    load,
    make_logger,
)
from tests.jetson.fake_tensorrt import builder, versions

# What each row of the presence matrix says, by the versions that have it.
ALL = versions.VERSIONS
MATRIX = [
    ("IBuilderConfig.max_workspace_size", ALL[:5]),
    ("IBuilderConfig.set_memory_pool_limit", ALL[2:]),
    ("Builder.build_engine", ALL[:5]),
    ("Builder.build_serialized_network", ALL),
    ("NetworkDefinitionCreationFlag.EXPLICIT_BATCH", ALL[:6]),
    ("NetworkDefinitionCreationFlag.STRONGLY_TYPED", ALL[5:]),
    ("BuilderFlag.FP16", ALL[:6]),
    ("BuilderFlag.INT8", ALL[:6]),
    ("Builder.platform_has_fast_fp16", ALL[:6]),
    ("BuilderFlag.STRICT_TYPES", ALL[:5]),
    ("BuilderFlag.OBEY_PRECISION_CONSTRAINTS", ALL[1:6]),
    ("BuilderFlag.PREFER_PRECISION_CONSTRAINTS", ALL[1:6]),
    ("ILayer.precision", ALL[:6]),
    ("ILayer.set_output_type", ALL[:6]),
    ("ICudaEngine.create_engine_inspector", ALL[1:]),
    ("IBuilderConfig.builder_optimization_level", ALL[4:]),
    ("IBuilderConfig.hardware_compatibility_level", ALL[4:]),
    ("IBuilderConfig.create_timing_cache", ALL),
    ("IBuilderConfig.set_timing_cache", ALL),
    ("IBuilderConfig.int8_calibrator", ALL[:6]),
    ("IExecutionContext.execute_async_v2", ALL[:5]),
    ("IExecutionContext.execute_async_v3", ALL[3:]),
    ("IExecutionContext.execute_v2", ALL),
]


@pytest.mark.parametrize(("path", "having"), MATRIX, ids=[path for path, _ in MATRIX])
def test_a_fake_has_what_the_presence_matrix_gives_its_version(path: str, having: Tuple[str, ...]) -> None:
    kind, name = path.split(".")
    assert tuple(version for version in ALL if hasattr(getattr(versions.module(version), kind), name)) == having


@pytest.mark.parametrize("version", ALL)
def test_a_fake_takes_no_attribute_that_its_version_lacks(version: str) -> None:
    trt = versions.module(version)
    made = trt.Builder(make_logger(trt, []))
    config, network = made.create_builder_config(), made.create_network(0)
    for thing in (made, config, network, made.create_optimization_profile()):
        with pytest.raises(AttributeError):
            thing.no_such_setting = 1
    absent = "max_workspace_size" if hasattr(trt, "MemoryPoolType") and version in ("10", "11") else "progress"
    with pytest.raises(AttributeError):
        setattr(config, absent, 1)
    with pytest.raises(AttributeError):
        _ = trt.no_such_name


@pytest.mark.parametrize("version", ALL)
def test_weak_typing_is_what_11_lacks_and_strong_typing_what_comes_with_10(version: str) -> None:
    trt = versions.module(version)
    assert has_weak_typing(trt) == (version != "11")
    assert has_strong_typing(trt) == (version in ("10", "11"))


def test_a_module_that_is_not_installed_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(
        BadRequest, match=r"no module of that name.*deploy-attn\[gpu\].*python3-libnvinfer.*--system-site"
    ):
        load()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BadRequest, match=r"^TensorRT-RTX .*pip install 'deploy-attn\[rtx\]'") as raised:
        load("tensorrt_rtx")
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import ctypes; ctypes.CDLL('libnvinfer.so.77')", r"OSError: libnvinfer\.so\.77: cannot open"),
        ("raise ImportError('libnvinfer.so.8: cannot open shared object file')", r"libnvinfer\.so\.8: cannot open"),
        ("import tensorrt_that_is_missing", "No module named 'tensorrt_that_is_missing'"),
        ("raise RuntimeError('only x86_64 wheels')", "RuntimeError: only x86_64 wheels"),
        ("import numpy; numpy.no_such_type", "AttributeError: .*no_such_type"),
        ("x = ", "SyntaxError: "),
        ("", r"tensorrt\.py has that name, and no Builder"),
    ],
)
def test_a_module_that_does_not_load_gives_the_loaders_own_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, reason: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    try:
        with pytest.raises(BadRequest, match=rf"TensorRT was asked for and cannot be imported \(.*{reason}"):
            load()
    finally:
        sys.modules.pop("tensorrt", None)


def test_a_folder_of_that_name_is_not_taken_for_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    try:
        with pytest.raises(BadRequest, match="has that name, and no Builder"):
            load()
    finally:
        sys.modules.pop("tensorrt", None)


def test_a_logger_collects_what_it_is_to_keep() -> None:
    trt = versions.module("8.2")
    messages: List[Tuple[str, str]] = []
    everything, errors = make_logger(trt, messages), make_logger(trt, messages, lambda name, text: name == "ERROR")
    for logger in (everything, errors):
        builder.say(logger, "VERBOSE", "a")
        builder.say(logger, "ERROR", "b")
    assert messages == [("VERBOSE", "a"), ("ERROR", "b"), ("ERROR", "b")]


def test_plugins_are_registered_under_the_empty_name_and_a_failure_is_an_error() -> None:
    trt, asked = versions.module("8.2"), []

    def registered(logger: Any, namespace: str) -> bool:
        asked.append(namespace)
        return len(asked) == 1

    trt.init_libnvinfer_plugins = registered
    init_plugins(trt, None)
    with pytest.raises(BadRequest, match=r"8\.2\.1\.8 cannot register its own plugins"):
        init_plugins(trt, None)
    assert asked == ["", ""]
    del trt.init_libnvinfer_plugins
    init_plugins(trt, None)


def test_a_mask_holds_the_flags_that_are_wanted_and_exist() -> None:
    wanted = {"EXPLICIT_BATCH": True, "STRONGLY_TYPED": True}
    masks = {version: flags(wanted, versions.module(version).NetworkDefinitionCreationFlag) for version in ALL}
    assert masks == {"8.0": 1, "8.2": 1, "8.4": 1, "8.5": 1, "8.6": 1, "10": 3, "11": 1}
    assert flags({"EXPLICIT_BATCH": False}, versions.module("8.2").NetworkDefinitionCreationFlag) == 0
