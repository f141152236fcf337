"""The command line of run.py."""

import argparse
import math
import os
import sys
from typing import Any, NamedTuple, NoReturn, Optional, Sequence

from .errors import BadRequest
from .parity import PRECISIONS
from .progress import write_line

TENSORRT, TRTEXEC, ONNXRUNTIME = "tensorrt", "trtexec", "onnxruntime"
ENGINES = (TENSORRT, TRTEXEC, ONNXRUNTIME)

_DURATION, _QUICK_DURATION = 10.0, 1.0
_LONGEST = 3600.0
_MOST_WORKSPACE = 1 << 20  # MiB

_EPILOG = """\
Without --engine it is TensorRT where its Python module is, else trtexec where that is found. Without --precision every
precision that the capsule has for that engine is run. Clocks and power mode stay as they are unless --pin-clocks.

exit code 0: every check holds; 1: one does not, or an engine could not be built; 2: it could not be run as asked;
130: Ctrl-C. verdict.json and run.log are in the folder of run.py, or in --output.
"""


class Options(NamedTuple):
    """What was asked; None where it was left to the runner."""

    engine: Optional[str]
    precision: Optional[str]
    duration: float
    quick: bool
    as_json: bool
    pin_clocks: bool
    workspace_mib: Optional[int]
    rebuild: bool
    output: str


def parse(arguments: Sequence[str], folder: str) -> Options:
    """The options of a command line.

    Raises:
        BadRequest: what argparse does not understand.
        SystemExit: after --help.
    """
    given = _parser().parse_args(list(arguments))
    duration = given.duration if given.duration is not None else (_QUICK_DURATION if given.quick else _DURATION)
    return Options(
        engine=given.engine,
        precision=given.precision,
        duration=duration,
        quick=given.quick,
        as_json=given.as_json,
        pin_clocks=given.pin_clocks,
        workspace_mib=given.workspace,
        rebuild=given.rebuild,
        output=os.path.abspath(given.output or folder),
    )


class _Parser(argparse.ArgumentParser):
    """Raises instead of leaving, so that a mistake is answered like any other."""

    def error(self, message: str) -> NoReturn:
        raise BadRequest("{}. `python3 run.py --help` shows what is possible.".format(message.rstrip(".")))

    def print_help(self, file: Any = None) -> None:
        write_line(file or sys.stdout, self.format_help().rstrip("\n"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="run.py",
        description="Builds, verifies and times the artifact of this capsule on this device.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--engine", choices=ENGINES, help="what to run it in; one that is asked for is never replaced")
    parser.add_argument("--precision", choices=PRECISIONS, help="one precision instead of all")
    parser.add_argument(
        "--duration", type=_seconds, metavar="S", help="seconds of timing, and of power, for each precision; 10"
    )
    parser.add_argument("--quick", action="store_true", help="a second of timing, no power")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print the verdict as one JSON document")
    parser.add_argument("--pin-clocks", action="store_true", help="run jetson_clocks first (as root), and undo it")
    parser.add_argument(
        "--workspace", type=_mebibytes, metavar="MIB", help="what TensorRT's builder may use; the target's own value"
    )
    parser.add_argument("--rebuild", action="store_true", help="build though the same engine is there")
    parser.add_argument("--output", metavar="DIR", help="where engines, verdict.json and run.log go")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError("{!r} is not a number of seconds up to {:g}".format(text, _LONGEST))
    return seconds


def _mebibytes(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text[:9]) <= _MOST_WORKSPACE and len(text) < 9):
        raise argparse.ArgumentTypeError("{!r} is not a number of MiB, as 64".format(text))
    return int(text)
