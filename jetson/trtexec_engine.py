"""An engine file in trtexec: run and timed in a process a call. Outputs come back as text of six digits."""

import io
import math
import os
import tempfile
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from .errors import BadRequest
from .timing import Options, Timing
from .trtexec import Tool, shape_flag, why_unspeakable
from .trtexec_files import read_outputs, read_times
from .trtexec_process import Ended, OnLine, check_memory_and_flags, crashed, run

_TIMES, _OUTPUTS = "times.json", "outputs.json"
_WARM_UP_MS = 200


class TrtexecEngine:
    """An engine file, run and timed by trtexec: each call is a process of its own.

    Args:
        tool: the trtexec that built it.
        engine: its file.
        profile: as it was built with, by input; inputs that are not in it have fixed shapes.
        on_line: gets each line of each log as it comes.
    """

    def __init__(
        self,
        tool: Tool,
        engine: str,
        profile: Optional[Mapping[str, Any]] = None,
        on_line: Optional[OnLine] = None,
    ) -> None:
        self._tool = tool
        self._engine = os.path.abspath(engine)
        self._profile = dict(profile or {})
        self._on_line = on_line

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """The outputs by name, in float32, each value off by up to ROUNDING of itself.

        Raises:
            BadRequest: an input cannot be given to trtexec.
            DeployAttnError: trtexec failed, or wrote no outputs that can be read.
        """
        with tempfile.TemporaryDirectory(prefix="deploy-attn-trtexec-") as folder:
            flags = self._input_flags(feeds, folder)
            flags += ["--iterations=1", "--avgRuns=1", "--duration=0", "--warmUp=0", "--exportOutput=" + _OUTPUTS]
            self._finished(flags, folder)
            return read_outputs(os.path.join(folder, _OUTPUTS))

    def time(self, feeds: Mapping[str, np.ndarray], options: Options) -> Timing:
        """Times it, with a CUDA graph where trtexec can capture one and no copy beside computing; raises as `infer`."""
        with tempfile.TemporaryDirectory(prefix="deploy-attn-trtexec-") as folder:
            flags = self._input_flags(feeds, folder) + ["--exposeDMA", "--avgRuns=1000", "--iterations=10"]
            flags += ["--{}".format(flag) for flag in ("useCudaGraph", "useSpinWait") if self._tool.has(flag)]
            flags += ["--warmUp={}".format(_WARM_UP_MS), "--duration={}".format(max(1, math.ceil(options.duration)))]
            ended = self._finished(flags + ["--exportTimes=" + _TIMES], folder)
            compute, end_to_end = read_times(os.path.join(folder, _TIMES), _WARM_UP_MS)
        no_graph = ended.no_graph()
        how = "by {}, events on its stream; end to end with copies that nothing overlaps".format(self._tool.title())
        return Timing(compute, end_to_end, not no_graph, no_graph, how)

    def _input_flags(self, feeds: Mapping[str, np.ndarray], folder: str) -> List[str]:
        unspeakable = why_unspeakable("inputs", sorted(feeds))
        if unspeakable:
            raise BadRequest(unspeakable)
        files = []
        for place, name in enumerate(sorted(feeds)):
            array, file = self._narrowed(name, feeds[name]), "input-{}.bin".format(place)
            with io.open(os.path.join(folder, file), "wb") as stream:
                stream.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
            files.append("{}:{}".format(name, file))
        flags = ["--loadEngine=" + self._engine, "--loadInputs=" + ",".join(files)]
        flags += shape_flag("shapes", {name: feeds[name].shape for name in feeds if name in self._profile})
        # Without it, from 11 on, the inputs would stay where they are and the outputs would not come.
        return flags + (["--includeDataTransfers"] if self._tool.has("includeDataTransfers") else [])

    def _narrowed(self, name: str, array: np.ndarray) -> np.ndarray:
        """int64 as int32 where TensorRT has no int64."""
        if array.dtype != np.int64 or self._tool.version >= (9,):
            return array
        narrow = array.astype(np.int32)
        if not np.array_equal(narrow, array):
            raise BadRequest(
                "Input {!r} has values beyond int32, which is what {} takes.".format(name, self._tool.title())
            )
        return narrow

    def _finished(self, flags: Sequence[str], folder: str) -> Ended:
        ended = run(self._tool, flags, folder, self._on_line)
        if ended.code != 0:
            check_memory_and_flags(self._tool, ended)
            raise crashed(self._tool, ended)
        return ended
