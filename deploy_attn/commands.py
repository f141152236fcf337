"""The commands: parse, call one public function, print, exit."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from deploy_attn.answering import Report, answer, forget_stdout, refuse, say
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.overview import COMMANDS

app = typer.Typer(name="deploy-attn", add_completion=False, pretty_exceptions_enable=False)

_INTERRUPTED = 128 + signal.SIGINT

# The parser's own error class, which has moved between releases; its subclasses are public.
_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Semantics = Annotated[str | None, typer.Option(metavar="[shift|smear]", help="What overlapping writes mean.")]
ModuleOptions = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the module; repeatable.")
]
InputFile = Annotated[
    Path | None, typer.Option("--input", metavar="FILE", help="Parity input: .png, .jpg, .npy, .npz.")
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="[NAME=]BxCxHxW[:TYPE]", help="Shape of an input; one for each, in their order."),
]

TargetName = Annotated[
    str, typer.Option(metavar="TARGET", help="A name from `list --targets`, as jetson-nano, or a .toml file.")
]


def run(arguments: Sequence[str]) -> int:
    """Runs one command; the exit code it returns."""
    previous = {number: signal.signal(number, _leave) for number in _polite_kills()}
    try:
        code = app(list(arguments), standalone_mode=False)
        if code == _INTERRUPTED:  # the parser's answer to Ctrl-C, which says nothing
            return refuse("Interrupted.", _INTERRUPTED, "--json" in arguments)
        return code if isinstance(code, int) else 0
    except _USAGE_ERROR as error:
        words = ["deploy-attn", *(argument for argument in arguments[:1] if argument in COMMANDS), "--help"]
        hint = f"`{' '.join(words)}` shows what is possible."
        return refuse(f"{error.format_message().rstrip('.')}. {hint}", 2, "--json" in arguments)
    except typer.Abort:
        return refuse("Interrupted.", _INTERRUPTED, "--json" in arguments)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # rich's answer to a reader of --help that has left
            forget_stdout()
            return 0
        return leaving.code if isinstance(leaving.code, int) else 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@app.command("list", help=COMMANDS["list"])
def list_catalogue(
    targets: Annotated[bool, typer.Option("--targets", help="The targets instead of the modules.")] = False,
    as_json: AsJson = False,
) -> None:
    from deploy_attn.listing import listing

    say(listing(targets, as_json))


@app.command("export", help=COMMANDS["export"])
def export(  # noqa: PLR0913 - the parser turns each parameter into an option
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `list`, or file.py:factory.")],
    channels: Annotated[int | None, typer.Option(min=1, help="Channels of a map of the default size.")] = None,
    shape: Shapes = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Write the typed FP16 graph and its plan as well.")] = False,
    target: TargetName = "onnxruntime-cpu",
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Leave the batch axis open.")] = False,
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Leave height and width open.")] = False,
    options: ModuleOptions = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: .pt, .pth or .safetensors.")] = None,
    semantics: Semantics = None,
    input_file: InputFile = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="For weights and inputs that no file gives.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The artifact's folder; out/NAME.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an artifact that is there.")] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose forms and settings by measurement in onnxruntime, here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.build_text import progress_on_stderr
        from deploy_attn.exporting import export_artifact
        from deploy_attn.request import ExportRequest

        request = ExportRequest(
            name=name,
            shape=shape or None,
            channels=channels,
            fp16=fp16,
            target=target,
            dynamic_batch=dynamic_batch,
            dynamic_size=dynamic_size,
            options=_parsed_options(options or []),
            checkpoint=checkpoint,
            semantics=semantics,
            input_file=input_file,
            seed=seed,
            output=output,
            force=force,
            tune=tune,
        )
        with progress_on_stderr(still=True) as on_progress:
            return export_artifact(request, on_progress)

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


@app.command("lint", help=COMMANDS["lint"])
def lint_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file, or a folder that `export` wrote.")],
    target: TargetName,
    fix: Annotated[bool, typer.Option("--fix", help="Write a copy with what has an exact rewrite, proven.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The fixed copy; MODEL.fixed.onnx.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a fixed copy that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    from deploy_attn.lint_text import answer_lint

    def job() -> Report:
        from deploy_attn.export.linting.fix import fix_model

        return fix_model(model, target, output, force)

    if fix:
        _finish(job, "show_fix", as_json)
    if output is not None or force:
        message = "--output and --force are about the copy that --fix writes; add --fix."
        raise typer.Exit(refuse(message, BadRequest.exit_code, as_json))
    raise typer.Exit(answer_lint(model, target, as_json))


@app.command("build", help=COMMANDS["build"])
def build_artifact(  # noqa: PLR0913 - the parser turns each parameter into an option
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `export` wrote.")],
    engine: Annotated[str, typer.Option(help="tensorrt (on the device itself) or tensorrt-rtx (without a GPU).")],
    target: TargetName,
    precision: Annotated[str | None, typer.Option(help="fp32 or fp16; FP16 where the artifact has it.")] = None,
    minimum: Annotated[str | None, typer.Option("--min", metavar="SHAPE", help="Least shape; 1 on open axes.")] = None,
    optimum: Annotated[
        str | None, typer.Option("--opt", metavar="SHAPE", help="Shape to tune for; the first case.")
    ] = None,
    maximum: Annotated[
        str | None, typer.Option("--max", metavar="SHAPE", help="Largest shape; that of the cases.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For newer TensorRT as well.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="For any GPU from 8.0 on.")
    ] = False,
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Measured kernels, read and written.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build though the same engine is there.")] = False,
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.build_text import progress_on_stderr
        from deploy_attn.building import build_engine
        from deploy_attn.engines.builder import BuildOptions
        from deploy_attn.engines.profile import shape_from_text

        def shape(text: str | None, flag: str) -> tuple[int, ...] | None:
            return None if text is None else shape_from_text(text, flag)

        options = BuildOptions(
            precision=precision,
            minimum=shape(minimum, "--min"),
            optimum=shape(optimum, "--opt"),
            maximum=shape(maximum, "--max"),
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            timing_cache=timing_cache,
            force=force,
        )
        with progress_on_stderr() as on_progress:
            return build_engine(folder, engine, target, options, on_progress)

    _finish(job, "show_build", as_json)


@app.command("bench", help=COMMANDS["bench"])
def bench_artifact(  # noqa: PLR0913 - the parser turns each parameter into an option
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `export` wrote.")],
    other: Annotated[Path | None, typer.Argument(metavar="[DIR2]", help="Another, to compare with.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="RIVAL,...", help="naive, onnxsim, onnxslim, eager, compile, openvino, fused."),
    ] = None,
    engine: Annotated[str, typer.Option(help="The engine to time it in.")] = "onnxruntime",
    precision: Annotated[str | None, typer.Option(help="fp32 or fp16; every one that the artifact has.")] = None,
    cold: Annotated[bool, typer.Option("--cold", help="Empty the CPU's caches before each timed call.")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", help="On the CPU; as tuned, else 1.")] = None,
    pairs: Annotated[int | None, typer.Option(metavar="N", help="Pairs of timed calls; as many as fit.")] = None,
    seconds: Annotated[float | None, typer.Option(metavar="S", help="About so long for a comparison; 10.")] = None,
    source: Annotated[Path | None, typer.Option(metavar="FILE", help="The network's own file, for rivals.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE", help="Its weights, for rivals.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="The floor on --target instead, untimed.")] = False,
    target: Annotated[str | None, typer.Option(metavar="TARGET", help="Of --estimate.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Time it without a verdict that holds; no claim.")] = False,
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.benching.bench import BenchOptions, bench
        from deploy_attn.benching.text import effort_from_options, rivals_from_texts
        from deploy_attn.build_text import progress_on_stderr
        from deploy_attn.rivals.ground import OwnFiles

        if target is not None:
            raise BadRequest("--target is where --estimate tells the floor; what runs here runs in --engine.")
        options = BenchOptions(
            engine=engine,
            against=rivals_from_texts(against),
            other=other,
            precision=precision,
            threads=threads,
            effort=effort_from_options(pairs, seconds, cold),
            force=force,
            files=OwnFiles(source, checkpoint),
        )
        with progress_on_stderr(still=True) as on_progress:
            return bench(folder, options, on_progress)

    def estimated() -> Report:
        from deploy_attn.benching.estimate import estimate_artifact

        if target is None:
            raise BadRequest("--estimate needs a --target; `deploy-attn list --targets` names them.")
        if other is not None or against:
            raise BadRequest("--estimate is of one artifact, without timing it; leave DIR2 and --against out.")
        if (pairs, seconds, source, checkpoint) != (None,) * 4 or force:
            raise BadRequest(
                "--estimate times nothing; leave --pairs, --seconds, --source, --checkpoint and --force out."
            )
        return estimate_artifact(folder, target, precision, threads, cold)

    _finish(estimated if estimate else job, "show_estimates" if estimate else "show_bench", as_json)


@app.command("bundle", help=COMMANDS["bundle"])
def bundle_artifact(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `export` wrote.")],
    target: TargetName,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The archive; NAME-TARGET.tar.gz beside DIR.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an archive that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.bundling import bundle

        return bundle(folder, target, output, force)

    _finish(job, "show_bundle", as_json)


@app.command("remote", help=COMMANDS["remote"])
def run_on_boards(  # noqa: PLR0913 - the parser turns each parameter into an option
    words: Annotated[
        list[str], typer.Argument(metavar="HOST... DIR", help="USER@HOST:PORT or a name of ~/.ssh/config; last, DIR.")
    ],
    target: Annotated[str | None, typer.Option(help="What to bundle DIR for; what it was exported for.")] = None,
    engine: Annotated[str | None, typer.Option(help="tensorrt, trtexec or onnxruntime, on the board.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or fp16; every one that the capsule has.")] = None,
    duration: Annotated[float | None, typer.Option(metavar="S", help="Seconds of timing; 10.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A second of timing, no power.")] = False,
    pin_clocks: Annotated[bool, typer.Option("--pin-clocks", help="jetson_clocks while it runs; as root.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where verdicts and logs go; DIR.")] = None,
    remote_folder: Annotated[str | None, typer.Option(help="On the board; ~/.cache/deploy-attn.")] = None,
    python: Annotated[str, typer.Option(help="The interpreter on the board.")] = "python3",
    timeout: Annotated[float, typer.Option(metavar="S", min=1, help="Seconds for copy and run on a board.")] = 3600,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what was unpacked and built on the board.")] = False,
    as_json: AsJson = False,
) -> None:
    from deploy_attn.remote.options import REMOTE_FOLDER, RemoteOptions
    from deploy_attn.remote.text import answer_remote

    options = RemoteOptions(
        target=target,
        engine=engine,
        precision=precision,
        duration=duration,
        quick=quick,
        pin_clocks=pin_clocks,
        output=output,
        remote_folder=remote_folder or REMOTE_FOLDER,
        python=python,
        timeout=timeout,
        keep=keep,
    )
    raise typer.Exit(answer_remote(words, options, as_json))


@app.command("report", help=COMMANDS["report"])
def report_verdicts(
    paths: Annotated[list[Path], typer.Argument(metavar="VERDICT|DIR...", help="Verdicts, or folders that hold them.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="A page of all that is known: FILE.html.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page as Markdown; on stdout without -o.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a page that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.reporting import report

        if force and output is None:
            raise BadRequest("--force is about the file that --output names; add -o report.html.")
        if output is None and not markdown:
            return report(paths)
        from deploy_attn.html_report.page import page_report

        return page_report(paths, "markdown" if markdown else "html", output, force)

    _finish(job, "show_page" if markdown or output is not None else "show_report", as_json)


@app.command("sweep", help=COMMANDS["sweep"])
def sweep_cells(  # noqa: PLR0913 - the parser turns each parameter into an option
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where cells are kept; a sweep goes on there.")
    ],
    modules: Annotated[
        list[str], typer.Option(metavar="NAME,...", help="Of `list`, with options as in cbam:reduction=8; or all.")
    ],
    shapes: Annotated[list[str] | None, typer.Option(metavar="BxCxHxW,...", help="Of the map; 1x64x56x56.")] = None,
    precisions: Annotated[list[str] | None, typer.Option(metavar="P,...", help="Both.")] = None,
    engines: Annotated[
        list[str] | None, typer.Option(metavar="E,...", help="onnxruntime; others that `verify` takes.")
    ] = None,
    target: Annotated[str, typer.Option(metavar="TARGET", help="A name from `list --targets`.")] = "onnxruntime-cpu",
    against: Annotated[str | None, typer.Option(metavar="RIVAL", help="The baseline, as `bench` has it.")] = None,
    seconds: Annotated[float | None, typer.Option(metavar="S", help="About so long for each cell's bench.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of dask.distributed, tcp://host:8786; without it, here.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run cells again that failed.")] = False,
    cell_limit: Annotated[float, typer.Option(metavar="S", help="A cell that takes longer has failed.")] = 1800.0,
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.sweeping.plan import Effort, plan_from_texts
        from deploy_attn.sweeping.sweep import SweepOptions, sweep
        from deploy_attn.sweeping.text import progress_on_stderr

        axes = {"modules": modules, "shapes": shapes, "precisions": precisions, "engines": engines}
        given = {axis: texts for axis, texts in axes.items() if texts is not None}
        plan = plan_from_texts(given, target, Effort(against, seconds))
        with progress_on_stderr() as on_cell:
            return sweep(plan, output, SweepOptions(scheduler, retry_failed, cell_limit), on_cell)

    _finish(job, "show_sweep", as_json)


@app.command("tune", help=COMMANDS["tune"])
def tune_artifact(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `export` wrote.")],
    engine: Annotated[str, typer.Option(help="onnxruntime.")] = "onnxruntime",
    threads: Annotated[
        str | None, typer.Option(metavar="N,...", help="Keep to these; the default, 1, 2, 4 ... and all cores.")
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="About so long a comparison, 30 pairs at least.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.build_text import progress_on_stderr
        from deploy_attn.tuning.tune import TuneOptions, thread_counts, tune

        options = TuneOptions(engine, None if threads is None else thread_counts(threads), seconds)
        with progress_on_stderr(still=True) as on_progress:
            return tune(folder, options, on_progress)

    _finish(job, "show_tuning", as_json)


@app.command("fuse", help=COMMANDS["fuse"])
def fuse_artifact(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `export` wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.onnx", help="Elsewhere than in DIR.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE", help="What DIR was exported with.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a FILE that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.fusing.fuse import fuse

        return fuse(folder, output, checkpoint, force)

    _finish(job, "show_fused", as_json)


@app.command("tax", help=COMMANDS["tax"])
def tax(  # noqa: PLR0913 - the parser turns each parameter into an option
    name: Annotated[str, typer.Argument(metavar="NAME", help="file.py:factory, or a name from `list`.")],
    shape: Shapes = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: .pt, .pth or .safetensors.")] = None,
    options: ModuleOptions = None,
    semantics: Semantics = None,
    engine: Annotated[str, typer.Option(help="onnxruntime or onnxruntime-cuda.")] = "onnxruntime",
    threads: Annotated[int, typer.Option(help="Of the engine, within one operator.")] = 1,
    seconds: Annotated[float, typer.Option(metavar="S", help="About so long for each of the comparisons.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="For weights and inputs that no file gives.")] = 0,
    as_json: AsJson = False,
) -> None:
    def job() -> Report:
        from deploy_attn.exporting import tax_of
        from deploy_attn.request import ExportRequest
        from deploy_attn.tax import TaxOptions

        request = ExportRequest(
            name=name,
            shape=shape or None,
            options=_parsed_options(options or []),
            checkpoint=checkpoint,
            semantics=semantics,
            seed=seed,
        )
        return tax_of(request, TaxOptions(engine, threads, seconds))

    _finish(job, "show_tax", as_json)


@app.command("doctor", help=COMMANDS["doctor"])
def doctor(as_json: AsJson = False) -> None:
    from deploy_attn.doctor import examine

    _finish(examine, "show_doctor", as_json)


def _finish(job: Callable[[], Report], show: str, as_json: bool) -> NoReturn:
    """Runs a job, prints its report as a document or for a person, and exits with its verdict.

    `show` names the function of `presentation` for a person; rich is not loaded for --json.
    """

    def shown(report: Report) -> None:
        getattr(importlib.import_module("deploy_attn.presentation"), show)(report)

    raise typer.Exit(answer(job, shown, as_json))


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


def _polite_kills() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP of a session that ended, unless `nohup` ignores it."""
    named = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in named if signal.getsignal(number) == signal.SIG_DFL]


def _leave(signum: int, frame: FrameType | None) -> None:
    """A polite kill unwinds the stack, so that nothing half-written stays."""
    sys.exit(128 + signum)
