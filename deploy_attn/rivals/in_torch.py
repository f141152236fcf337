"""A network in PyTorch itself, with a number of threads, on the arrays that are timed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from deploy_attn.engines.base import Feeds, Outputs
from deploy_attn.engines.latency.result import Candidate
from deploy_attn.rivals.rival import Entrant, Ground

_WAIT_POLICY = "OMP_WAIT_POLICY"


def calm_openmp() -> None:
    """Has OpenMP's threads sleep while they wait, unless PyTorch, which reads that once, is loaded already."""
    if "torch" not in sys.modules:
        os.environ.setdefault(_WAIT_POLICY, "PASSIVE")


def torch_entrant(
    label: str, network: Callable[..., Any], ground: Ground, held: ExitStack, conditions: Mapping[str, Any]
) -> Entrant:
    """A network, or what torch.compile made of it, as an entrant."""
    import torch

    held.enter_context(_threads(ground.threads))
    held.enter_context(_silent())
    arguments = ground.call.arguments(ground.feeds)

    def run() -> Any:
        with torch.inference_mode():
            return network(*arguments.positional, **arguments.named)

    def infer(feeds: Feeds) -> Outputs:
        from deploy_attn.export.results import named_outputs

        with torch.inference_mode():
            fresh = ground.call.arguments(feeds)
            result = network(*fresh.positional, **fresh.named)
            return {name: value.numpy() for name, value in named_outputs(result, ground.call.names).items()}

    found = {
        "engine": "torch",
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get(_WAIT_POLICY, "as OpenMP chooses"),
        "mode": "inference_mode",
        **conditions,
    }
    return Entrant(Candidate(label, run, found), infer)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """A network may print, and is called thousands of times."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
