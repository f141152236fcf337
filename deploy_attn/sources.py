"""What NAME on the command line means: a catalogue module, or `file.py:factory`."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from deploy_attn.jetson.artifact import file_sha256
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names
from deploy_attn.modules.catalogue import Shape, is_shape
from deploy_attn.modules.settings import check_map, check_open_map, settings

if TYPE_CHECKING:
    from torch import nn

DEFAULT_CHANNELS = 64
DEFAULT_SIZE = (56, 56)

_SHAPE_WANTED = "It takes four numbers of at least 1, BxCxHxW, as in 1x64x56x56."
_MOST_VALUES = 2**31 // 4  # of 4 bytes each: what one ONNX or npz entry can surely hold


@dataclass(frozen=True)
class Source:
    """Where a network comes from, how to build it, and what its manifest says of it.

    `file` is the user's own Python file, None for the catalogue.
    """

    name: str
    shape: Shape
    build: Callable[[], nn.Module]
    description: Mapping[str, Any]
    file: Path | None = None


@dataclass(frozen=True)
class ShapeRequest:
    """What the user said about the input; None where nothing was said."""

    shape: Shape | None = None
    channels: int | None = None
    input_shape: Shape | None = None
    dynamic_size: bool = False


def parse_shape(text: str) -> Shape:
    """`1x64x56x56` as four positive integers.

    Raises:
        BadRequest: anything else.
    """
    parts = text.lower().split("x")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise BadRequest(f"--shape {text[:60]!r} is not a shape. {_SHAPE_WANTED}")
    batch, channels, height, width = map(int, parts)
    return checked_shape((batch, channels, height, width))


def checked_shape(shape: object) -> Shape:
    """The same shape, if it is one that a map can have.

    Raises:
        BadRequest: not four integers of at least 1, or more values than fit.
    """
    if not isinstance(shape, tuple) or not is_shape(shape):
        raise BadRequest(f"{shape!r} is not a shape. {_SHAPE_WANTED}")
    batch, channels, height, width = shape
    values = batch * channels * height * width
    if values > _MOST_VALUES:
        raise BadRequest(f"A map of shape {shape} has {values} values; at most {_MOST_VALUES} are possible.")
    return batch, channels, height, width


def find_source(name: str, shapes: ShapeRequest, options: Mapping[str, object]) -> Source:
    """Resolves NAME; nothing is built or executed yet.

    Raises:
        BadRequest: unknown name, options or shape that the module cannot take,
            or a factory without a shape.
    """
    if ".py:" in name or name.endswith(".py"):
        return _from_factory(name, shapes, options)
    return _from_catalogue(name, shapes, options)


def _from_catalogue(name: str, shapes: ShapeRequest, options: Mapping[str, object]) -> Source:
    if "channels" in options:
        raise BadRequest("Channels are set with --channels or --shape, not with --set.")
    shape = _resolved_shape(shapes) or (1, shapes.channels or DEFAULT_CHANNELS, *DEFAULT_SIZE)
    values = settings(name, shape[1], options)
    check_map(name, values, shape[2], shape[3])
    if shapes.dynamic_size:
        check_open_map(name, values)

    def build() -> nn.Module:
        from deploy_attn.modules.create import create

        return create(name, **values)

    return Source(name, shape, build, {"kind": "catalogue", "name": name, "options": values})


def _from_factory(name: str, shapes: ShapeRequest, options: Mapping[str, object]) -> Source:
    path, _, factory = name.rpartition(":") if ".py:" in name else (name, "", "")
    file = Path(path)
    if not factory:
        raise BadRequest(f"{name} names no factory. A network is named as file.py:factory, as in {name}:build.")
    if not file.is_file():
        raise BadRequest(f"{file}: no such file. A network is named as file.py:factory.")
    if options:
        raise BadRequest(f"--set is for catalogue modules; give {name} its options in the factory.")
    shape = _resolved_shape(shapes)
    if shape is None:
        raise BadRequest(f"{name} needs the shape of its input: --shape BxCxHxW, as in --shape 1x3x224x224.")

    def build() -> nn.Module:
        return network_from_factory(file, factory)

    description = {"kind": "factory", "file": file.name, "sha256": file_sha256(str(file)), "factory": factory}
    return Source(f"{file.stem}-{factory}", shape, build, description, file)


def _resolved_shape(shapes: ShapeRequest) -> Shape | None:
    shape = shapes.shape or shapes.input_shape
    if shape is not None and shapes.channels is not None and shape[1] != shapes.channels:
        raise BadRequest(
            f"--channels {shapes.channels} contradicts {shape[1]} channels in the shape. Give one of them."
        )
    return shape


def network_from_factory(file: Path, factory: str) -> nn.Module:
    """Executes the file and calls its factory without arguments.

    The file's own folder is importable meanwhile, as for `python file.py`.

    Raises:
        BadRequest: the file or the factory raises (its own traceback is in the
            message), there is no such factory, or it returns no nn.Module.
    """
    from torch import nn

    with _importable(file.resolve().parent):
        module = _executed(file)
        build = getattr(module, factory, None)
        if isinstance(build, nn.Module):
            raise BadRequest(f"{file}:{factory} is a module, not a factory. Name a function that returns it.")
        if not callable(build):
            own = [key for key, value in vars(module).items() if _is_own_callable(module, key, value)]
            listed = known_names(factory, own) if own else "It defines no function or class."
            raise BadRequest(f"{file} has no factory {factory!r}. {listed}")
        try:
            network = build()
        except (Exception, SystemExit) as error:
            raise BadRequest(f"{file}:{factory} raised:\n{own_traceback(error, file)}") from error
    if not isinstance(network, nn.Module):
        raise BadRequest(f"{file}:{factory} returned {type(network).__name__}; it must return a torch.nn.Module.")
    return network


def own_traceback(error: BaseException, file: Path | None) -> str:
    """The traceback from the user's file on, without our frames above it.

    Only the error's own lines where none of its frames is in that file.
    """
    start = error.__traceback__
    while start is not None and not _is_in(start, file):
        start = start.tb_next
    return "".join(traceback.format_exception(type(error), error, start)).rstrip()


def _is_in(frame: TracebackType, file: Path | None) -> bool:
    return file is not None and Path(frame.tb_frame.f_code.co_filename).resolve() == file.resolve()


def _executed(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"deploy_attn_user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise BadRequest(f"{file} cannot be loaded as a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise BadRequest(f"{file} raised while it was loaded:\n{own_traceback(error, file)}") from error
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _is_own_callable(module: ModuleType, key: str, value: object) -> bool:
    return (
        not key.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and getattr(value, "__module__", None) == module.__name__
    )
