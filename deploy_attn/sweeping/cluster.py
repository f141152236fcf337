"""Cells on machines of a dask.distributed scheduler that is there already.

A worker says what it is by a resource, the name of the target:

    dask worker tcp://HOST:8786 --nworkers 1 --nthreads 1 --resources "jetson-nano=1"

Each cell asks for 1 of its target, so that a worker has one at a time. A cell
whose worker dies goes to another one, as often as the scheduler allows
(`distributed.scheduler.allowed-failures`, 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.json_fields import Fields
from deploy_attn.jetson.errors import BadRequest, DeployAttnError, first_line
from deploy_attn.sweeping.cell_file import outcome_from
from deploy_attn.sweeping.plan import Cell
from deploy_attn.sweeping.process import CellProcess, Finished, failed

if TYPE_CHECKING:
    from distributed import Client, Future

    Pending = dict[Future[Any], Cell]

_CONNECT_S = 10
_POLL_S = 1.0
_FETCH_S = 600
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
# A text, since a function is imported when a worker receives it, and a worker that cannot import it ends.
_TASK = "__import__('deploy_attn.sweeping.worker', fromlist=['answer']).answer(job, program)"


class Stopped(DeployAttnError):
    """No machine is left for the cells that have not been run."""


@dataclass(frozen=True)
class Cluster:
    """A scheduler with at least one worker for a target.

    Attributes:
        patience: seconds for which no worker may be there, as while one starts again.
    """

    client: Client
    target: str
    patience: float

    def run(self, process: CellProcess, jobs: Mapping[Cell, Mapping[str, Any]]) -> Iterator[tuple[Cell, Finished]]:
        """Runs cells, and yields each when it is finished.

        Raises:
            Stopped: the scheduler is gone, or every worker for this target.
        """
        pending: Pending = {
            self.client.submit(
                eval,
                _TASK,
                {"job": job, "program": process.program},
                key=f"deploy-attn-{uuid.uuid4().hex}",
                resources={self.target: 1},
                priority=-place,
                pure=False,
            ): cell
            for place, (cell, job) in enumerate(jobs.items())
        }
        with _while_there(pending):
            last_seen = time.monotonic()
            while pending:
                self._wait(pending)
                for future in [future for future in pending if future.done()]:
                    finished = _received(future)
                    if finished is not None:
                        yield pending.pop(future), finished
                if _workers_for(self.client, self.target):
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > self.patience:
                    raise Stopped(
                        f"The scheduler has shown no worker for {self.target} for {self.patience:g} s, and "
                        f"{len(pending)} cells have not been run. {_how_to_start(self.client, self.target)}"
                    )

    def _wait(self, pending: Pending) -> None:
        """Until one is finished, or a while."""
        import distributed

        with self.client.as_current(), contextlib.suppress(distributed.TimeoutError):
            distributed.wait(list(pending), timeout=_POLL_S, return_when="FIRST_COMPLETED")


@contextlib.contextmanager
def _while_there(pending: Pending) -> Iterator[None]:
    """Raises Stopped where the scheduler goes away."""
    import distributed

    try:
        yield
    except (distributed.CancelledError, OSError) as error:
        raise Stopped(
            f"The scheduler is gone, and {len(pending)} cells have not been run. Start it, and sweep again."
        ) from error


@contextlib.contextmanager
def cluster(address: str, target: str, patience: float) -> Iterator[Cluster]:
    """Connects to a scheduler.

    Raises:
        BadRequest: `distributed` is not installed, nobody answers, or no worker there is for this target.
    """
    with _connected(address) as client:
        until = time.monotonic() + min(patience, _CONNECT_S)
        while not _workers_for(client, target):
            if time.monotonic() > until:
                found = sorted({name for resources in _workers(client).values() for name in resources})
                there = f"The workers there are for: {', '.join(found)}." if found else "No worker there is for any."
                raise BadRequest(
                    f"The scheduler {address} has no worker for {target}. {there} {_how_to_start(client, target)}"
                )
            time.sleep(_POLL_S / 4)
        yield Cluster(client, target, patience)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        import distributed
    except ImportError as error:
        raise BadRequest(
            f"--scheduler needs dask.distributed, which cannot be imported ({first_line(error)}): "
            "pip install 'deploy-attn[sweep]'. Without --scheduler a sweep runs on this machine."
        ) from error
    try:
        asyncio.run(_reach(address))  # first, since a client that fails holds up the end of the process
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except Exception as error:  # its transports raise many types
        raise BadRequest(
            f"The scheduler {address!r} was not reached ({first_line(error)}). `dask scheduler` starts one and says "
            "its address, as tcp://host:8786. Without --scheduler a sweep runs on this machine."
        ) from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # that the scheduler went is said here
    with client:
        yield client


async def _reach(address: str) -> None:
    import distributed

    security = distributed.Security().get_connection_args("client")
    try:  # its own limit ends before the other side has said anything
        found = distributed.connect(address, timeout=_CONNECT_S, **security)
        connection = await asyncio.wait_for(found, 2 * _CONNECT_S)
    except asyncio.TimeoutError as error:
        raise DeployAttnError("what listens there does not answer as a scheduler does") from error
    await connection.close()


def _received(future: Future[Any]) -> Finished | None:
    """What a worker sent, read without trusting it, or why it sent nothing; None where its answer went with it."""
    import distributed

    if future.status == "error":
        return _no_outcome(_why(future.exception()))
    try:
        answer = future.result(timeout=_FETCH_S)
    except distributed.TimeoutError:
        return None
    try:
        files = answer["files"]
        outcome = outcome_from(Fields(Path("the worker's answer"), answer["outcome"], "Start that worker again."))
        names = all(_FILE.fullmatch(name) for name in files)
        if names and all(isinstance(content, bytes) for content in files.values()):
            return Finished(outcome, files)
        return _no_outcome("the worker sent files that are none of an artifact. Start it again.")
    except (TypeError, KeyError, AttributeError, BadRequest) as error:
        return _no_outcome(f"the worker's answer is none ({first_line(error)}). Start it again.")


def _no_outcome(reason: str) -> Finished:
    return Finished(replace(failed(reason, 0), where="a worker"))


def _why(error: BaseException | None) -> str:
    said = f"{type(error).__name__}: {first_line(error)}" if error is not None else "it does not say why"
    if isinstance(error, (ImportError, AttributeError)):
        return f"the worker has no deploy-attn, or another one ({said}). Install there what the sweep was started with."
    return f"the worker came to no outcome ({said})"


def _workers(client: Client) -> dict[str, dict[str, float]]:
    """The resources of each worker, by its address; of none where the scheduler does not say."""
    import distributed

    if client.scheduler is None:
        return {}
    try:  # `scheduler_info` waits for ever for one that is stopped
        said = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=_CONNECT_S)
    except (distributed.TimeoutError, OSError):
        return {}
    return {address: found.get("resources") or {} for address, found in said["workers"].items()}


def _workers_for(client: Client, target: str) -> list[str]:
    return [address for address, resources in _workers(client).items() if resources.get(target, 0) >= 1]


def _how_to_start(client: Client, target: str) -> str:
    address = client.scheduler.address if client.scheduler is not None else "tcp://HOST:8786"
    return f"On a machine that is one: dask worker {address} --nworkers 1 --nthreads 1 --resources '{target}=1'"
