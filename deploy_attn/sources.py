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

from deploy_attn.export.input_spec import InputSpec
from deploy_attn.jetson.artifact import file_sha256
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names
from deploy_attn.modules.catalogue import Shape, available, is_shape
from deploy_attn.modules.settings import check_map, check_open_map, settings

if TYPE_CHECKING:
    from torch import nn

DEFAULT_CHANNELS = 64
DEFAULT_SIZE = (56, 56)

_RELATIVE_ADVICE = (
    "\nA file by itself is in no package. Its own folder can be imported from: write `from blocks import ...` for "
    "`from .blocks import ...`; or name a small file beside the package that does `from package.net import build`."
)


@dataclass(frozen=True)
class Source:
    """Where a network comes from, how to build it, and what its manifest says of it.

    `file` is the user's own Python file, None for the catalogue.
    """

    name: str
    inputs: tuple[InputSpec, ...]
    build: Callable[[], nn.Module]
    description: Mapping[str, Any]
    file: Path | None = None


@dataclass(frozen=True)
class ShapeRequest:
    """What the user said about the inputs; empty or None where nothing was said."""

    inputs: tuple[InputSpec, ...] = ()
    channels: int | None = None
    dynamic_size: bool = False


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
    if ":" in name or (name not in available() and Path(name).exists()):  # `-o se` leaves a folder of that name
        what = "a folder" if Path(name).is_dir() else "no attention module"
        raise BadRequest(f"{name} is {what}. A network is named as file.py:factory, as in net.py:build.")
    if "channels" in options:
        raise BadRequest("Channels are set with --channels or --shape, not with --set.")
    shape = _catalogue_shape(name, shapes)
    values = settings(name, shape[1], options)
    check_map(name, values, shape[2], shape[3])
    if shapes.dynamic_size:
        check_open_map(name, values)

    def build() -> nn.Module:
        from deploy_attn.modules.create import create

        return create(name, **values)

    return Source(name, (InputSpec(shape),), build, {"kind": "catalogue", "name": name, "options": values})


def _catalogue_shape(name: str, shapes: ShapeRequest) -> Shape:
    """The only input of a catalogue module: a map."""
    if not shapes.inputs:
        return (1, shapes.channels or DEFAULT_CHANNELS, *DEFAULT_SIZE)
    spec = shapes.inputs[0]
    if len(shapes.inputs) > 1 or spec.dtype != "float32" or not is_shape(spec.shape):
        found = ", ".join(repr(given.text) for given in shapes.inputs)
        raise BadRequest(f"--shape {found} is not a shape of {name}, which takes one map, BxCxHxW, as in 1x64x56x56.")
    _check_channels(shapes)
    batch, channels, height, width = spec.shape
    return batch, channels, height, width


def _check_channels(shapes: ShapeRequest) -> None:
    """Raises BadRequest where `channels` and the first shape disagree."""
    found = shapes.inputs[0].shape[1:2]
    if shapes.channels is not None and found != (shapes.channels,):
        said = f"{found[0]} channels" if found else "no channels"
        raise BadRequest(f"--channels {shapes.channels} contradicts {said} in the shape. Give one of them.")


def _from_factory(name: str, shapes: ShapeRequest, options: Mapping[str, object]) -> Source:
    path, _, factory = name.rpartition(":") if ".py:" in name else (name, "", "")
    file = Path(path)
    if file.is_dir():
        raise BadRequest(f"{file} is a folder. A network is named as file.py:factory, as in {file / 'net.py'}:build.")
    if not factory:
        raise BadRequest(f"{name} names no factory. A network is named as file.py:factory, as in {file}:build.")
    if not file.is_file():
        raise BadRequest(f"{file}: no such file. A network is named as file.py:factory.")
    if options:
        raise BadRequest(f"--set is for catalogue modules; give {name} its options in the factory.")
    if not shapes.inputs:
        raise BadRequest(f"{name} needs the shape of its input: --shape BxCxHxW, as in --shape 1x3x224x224.")
    _check_channels(shapes)

    def build() -> nn.Module:
        return network_from_factory(file, factory)

    description = {"kind": "factory", "file": file.name, "sha256": file_sha256(str(file)), "factory": factory}
    return Source(f"{file.stem}-{factory}", shapes.inputs, build, description, file)


def network_from_factory(file: Path, factory: str) -> nn.Module:
    """Executes the file and calls its factory without arguments.

    The file's own folder is importable meanwhile, as for `python file.py`.

    Raises:
        BadRequest: the file or the factory raises (its own traceback is in the
            message), there is no such factory, or it returns no nn.Module.
    """
    import torch
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
        _check_no_arguments(f"{file}:{factory}", build)
        try:
            network = build()
        except (Exception, SystemExit) as error:
            raise BadRequest(f"{file}:{factory} raised:\n{own_traceback(error, file)}") from error
    if isinstance(network, nn.Module) and not isinstance(network, torch.jit.ScriptModule):
        return network
    raise BadRequest(f"{file}:{factory} returned {_unfit(network)}")


def _check_no_arguments(name: str, build: Callable[..., object]) -> None:
    """Raises BadRequest for a factory that cannot be called without arguments; they are named."""
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # compiled code has no signature; the call will tell
        return
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [one.name for one in parameters if one.default is one.empty and one.kind not in open_ended]
    if needed:
        raise BadRequest(
            f"{name} needs arguments ({', '.join(needed)}); a factory is called without any. Give them defaults, or "
            f"add a function without parameters that returns {name.rpartition(':')[2]}({needed[0]}=...)."
        )


def _unfit(network: object) -> str:
    """What a factory returned that is no network, and what to do."""
    from torch import nn

    if isinstance(network, nn.Module):
        return (
            "a module compiled by torch.jit; its attention cannot be read from that. "
            "Return the module that was given to torch.jit.script or torch.jit.trace."
        )
    if isinstance(network, type) and issubclass(network, nn.Module):
        return f"the class {network.__name__}; it must return a torch.nn.Module. Return {network.__name__}()."
    if network is None:
        return "None; it must return a torch.nn.Module. Is there a return missing?"
    if isinstance(network, (tuple, list)) and any(isinstance(part, nn.Module) for part in network):
        parts = ", ".join(type(part).__name__ for part in network)
        return f"a {type(network).__name__} of {parts}; it must return a torch.nn.Module. Return that one alone."
    return f"{type(network).__name__}; it must return a torch.nn.Module."


def own_traceback(error: BaseException, file: Path | None) -> str:
    """The traceback from the user's file on, without our frames.

    Only the error's own lines where none of its frames is in that file.
    """
    start = error.__traceback__
    while start is not None and not _is_in(start, file):
        start = start.tb_next
    told = traceback.TracebackException(type(error), error, start)
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if not _is_ours(frame.filename)])
    return "".join(told.format()).rstrip()


def _is_ours(file: str) -> bool:
    """Our catalogue is a network's own code, like any other layer."""
    package = Path(__file__).resolve().parent
    rooms = (package / "rewriting", *((package / room).resolve() for room in ("engines", "export", "jetson")))
    return any(room in Path(file).resolve().parents for room in rooms)


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
        advice = _RELATIVE_ADVICE if "attempted relative import" in str(error) else ""
        raise BadRequest(f"{file} raised while it was loaded:\n{own_traceback(error, file)}{advice}") from error
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
