"""The commands: parse, call one public function, print, exit."""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Protocol

import typer

from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.overview import COMMANDS

app = typer.Typer(name="deploy-attn", add_completion=False, pretty_exceptions_enable=False)

_STDERR = 2

# The parser's own error class, which has moved between releases; its subclasses are public.
_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ModuleOptions = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the module; repeatable.")
]
InputFile = Annotated[Path | None, typer.Option("--input", metavar="FILE", help="Parity input: .png, .jpg, .npy.")]


class Report(Protocol):
    """What a command's public function returns."""

    @property
    def passed(self) -> bool: ...

    def as_dict(self) -> dict[str, Any]: ...


def run(arguments: Sequence[str]) -> int:
    """Runs one command; the exit code it returns."""
    previous = signal.signal(signal.SIGTERM, _leave)
    try:
        code = app(list(arguments), standalone_mode=False)
        return code if isinstance(code, int) else 0
    except _USAGE_ERROR as error:
        words = ["deploy-attn", *(argument for argument in arguments[:1] if argument in COMMANDS), "--help"]
        hint = f"`{' '.join(words)}` shows what is possible."
        return _refuse(f"{error.format_message().rstrip('.')}. {hint}", 2, "--json" in arguments)
    except typer.Abort:
        return _refuse("Interrupted.", 128 + signal.SIGINT, "--json" in arguments)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    finally:
        signal.signal(signal.SIGTERM, previous)


@app.command("list", help=COMMANDS["list"])
def list_catalogue(as_json: AsJson = False) -> None:
    from deploy_attn.listing import catalogue_json, catalogue_table

    print(catalogue_json() if as_json else catalogue_table())


@app.command("export", help=COMMANDS["export"])
def export(  # noqa: PLR0913 - the parser turns each parameter into an option
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `list`, or file.py:factory.")],
    channels: Annotated[int | None, typer.Option(min=1, help="Channels of a map of the default size.")] = None,
    shape: Annotated[str | None, typer.Option(metavar="BxCxHxW", help="Shape of the input.")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Write the typed FP16 graph and its plan as well.")] = False,
    target: Annotated[
        str, typer.Option(help="Where it goes, as jetson-nano; a wrong name lists all.")
    ] = "onnxruntime-cpu",
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Leave the batch axis open.")] = False,
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Leave height and width open.")] = False,
    options: ModuleOptions = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: .pt, .pth or .safetensors.")] = None,
    input_file: InputFile = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="For weights and inputs that no file gives.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The artifact's folder; out/NAME.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an artifact that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.exporting import export_artifact
        from deploy_attn.request import ExportRequest
        from deploy_attn.sources import parse_shape

        request = ExportRequest(
            name=name,
            shape=None if shape is None else parse_shape(shape),
            channels=channels,
            fp16=fp16,
            target=target,
            dynamic_batch=dynamic_batch,
            dynamic_size=dynamic_size,
            options=_parsed_options(options or []),
            checkpoint=checkpoint,
            input_file=input_file,
            seed=seed,
            output=output,
            force=force,
        )
        return export_artifact(request)

    _finish(job, "show_export", as_json)


@app.command("verify", help=COMMANDS["verify"])
def verify_artifact(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `export` wrote.")],
    engine: Annotated[str, typer.Option(help="The engine to run it in.")] = "onnxruntime",
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.engines.parity import verify

        return verify(folder, engine)

    _finish(job, "show_verdict", as_json)


@app.command("doctor", help=COMMANDS["doctor"])
def doctor(as_json: AsJson = False) -> None:
    from deploy_attn.doctor import examine

    _finish(examine, "show_doctor", as_json)


def _finish(job: Callable[[], Report], show: str, as_json: bool) -> None:
    """Runs a job, prints its report as a document or for a person, and exits with its verdict.

    `show` names the function of `presentation` for a person; rich is not loaded for --json.
    """
    try:
        with _stdout_kept_clean(as_json):
            report = job()
    except DeployAttnError as error:
        raise typer.Exit(_refuse(str(error), error.exit_code, as_json)) from None
    except MemoryError as error:
        raise typer.Exit(_refuse(f"Not enough memory: {error}. Choose a smaller --shape.", 2, as_json)) from None
    if as_json:
        print(json.dumps(report.as_dict(), indent=2, allow_nan=False))
    else:
        getattr(importlib.import_module("deploy_attn.presentation"), show)(report)
    raise typer.Exit(0 if report.passed else 1)


def _refuse(message: str, exit_code: int, as_json: bool) -> int:
    """Says why on stderr, and on stdout as the document that --json promises."""
    print(f"deploy-attn: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"passed": False, "error": message, "exit_code": exit_code}, indent=2))
    return exit_code


@contextlib.contextmanager
def _stdout_kept_clean(as_json: bool) -> Iterator[None]:
    """With --json, what a user's own network prints, from C or a child process too, goes to stderr."""
    if not as_json:
        yield
        return
    from deploy_attn.export.stdout import stdout_to

    with contextlib.redirect_stdout(sys.stderr), stdout_to(_STDERR):
        yield


def _parsed_options(pairs: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise BadRequest(f"--set {pair!r} is not NAME=VALUE, as in --set reduction=8.")
        if name in options:
            raise BadRequest(f"--set {name} is given twice: {options[name]} and {value}.")
        options[name] = value
    return options


def _leave(signum: int, frame: FrameType | None) -> None:
    """A polite kill unwinds the stack, so that nothing half-written stays."""
    sys.exit(128 + signum)
