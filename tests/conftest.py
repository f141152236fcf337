"""Fixtures that several rooms use: golden vectors, the command line in this process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from deploy_attn import create
from deploy_attn.cli import main
from deploy_attn.modules.base import ReferenceForm

# A slow machine is no failure, and CI repeats itself: new examples are looked for by hand.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True)
class Golden:
    """What a source document's own class computes, in float64."""

    name: str
    options: dict[str, Any]
    state: dict[str, np.ndarray[Any, Any]]
    input: np.ndarray[Any, Any]
    outputs: dict[str, np.ndarray[Any, Any]]

    def reference(self, **more: object) -> ReferenceForm:
        """The reference form with these weights, loaded strictly, in float32."""
        import torch

        form = create(self.name, **{"channels": self.input.shape[1], **self.options, **more})
        form.load_state_dict({key: torch.from_numpy(value) for key, value in self.state.items()}, strict=True)
        return form.eval()


def load_golden(file: str) -> Golden:
    from deploy_attn.modules.settings import source_options

    with np.load(DATA / f"{file}.npz") as arrays:
        meta = json.loads(str(arrays["meta"]))
        return Golden(
            name=meta["name"],
            options=source_options(meta["name"], meta["kwargs"]),
            state={key[len("state/") :]: arrays[key] for key in arrays.files if key.startswith("state/")},
            input=arrays["input"],
            outputs={key: arrays[key] for key in arrays.files if key.startswith("output")},
        )


@pytest.fixture(scope="session", autouse=True)
def one_thread_each() -> Iterator[None]:
    """A session of onnxruntime that leaves it the number of its threads has one, see tests/__init__.py."""
    import onnxruntime

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, model: object, sess_options: Any = None, *more: object, **named: object) -> None:
            sess_options = onnxruntime.SessionOptions() if sess_options is None else sess_options
            sess_options.intra_op_num_threads = sess_options.intra_op_num_threads or 1
            super().__init__(model, sess_options, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", Session)
        yield


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Runs `deploy-attn ARGUMENTS` in this process."""

    def run(*arguments: object) -> Finished:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = ended.value.code
        return Finished(code if isinstance(code, int) else 1, captured.out, captured.err)

    return run


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, away from the checkout."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job; children would not feel Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
