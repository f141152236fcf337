"""run.py as a process: over a capsule, a fake of a TensorRT, a stub of CUDA and a recorded tree. Python 3.6."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from tests.jetson import boards, capsules, fake_jetson_clocks, stub
from tests.jetson.builds import FAKES
from tests.jetson.fake_tensorrt import builder


class Ended:
    """A run that ended."""

    def __init__(self, code: int, stdout: str, stderr: str, place: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr
        self._verdict = os.path.join(place, "verdict.json")

    @property
    def verdict(self) -> Optional[Dict[str, Any]]:
        if not os.path.exists(self._verdict):
            return None
        with open(self._verdict) as stream:
            content: Dict[str, Any] = json.load(stream)
            return content


class Bench:
    """Runs capsules with the fake of a TensorRT, a stub of CUDA and an empty PATH, as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": str(folder / "bin"), stub.COMPUTE_CAPABILITY: "5.3", "LC_ALL": "C"}
        self.environment["DEPLOY_ATTN_CUDART"] = stub.compiled(str(folder))
        self.environment["TMPDIR"] = str(folder / "temporary")
        for name in ("bin", "temporary"):
            (folder / name).mkdir()
        self.place = self.root = ""
        self._started: List["subprocess.Popen[bytes]"] = []

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Ends what a test that failed left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def capsule(self, **changed: Any) -> str:
        self.place = capsules.write(str(self.folder / "unpacked"), **changed)
        return self.place

    def tensorrt(self, version: str, *faults: str) -> None:
        self.environment["PYTHONPATH"] = str(FAKES / "as_{}".format(version.replace(".", "_")))
        self.environment[builder.FAULTS] = ",".join(faults)

    def board(self, kind: str, **files: Optional[str]) -> str:
        """Runs over the recorded tree of a board, as root."""
        self.root = boards.write(str(self.folder / "root"), kind, **files)
        self.environment.update({capsules.ROOT: self.root, capsules.USER: "0"})
        return self.root

    def jetson_clocks(self, **steps: str) -> None:
        fake_jetson_clocks.install(str(self.folder / "bin"), self.root, **steps)

    def temporary(self) -> List[str]:
        """What a run has in the folder of temporary files."""
        return [name for name in os.listdir(self.environment["TMPDIR"]) if name.startswith("deploy-attn")]

    def start(self, *arguments: str, **how: Any) -> "subprocess.Popen[bytes]":
        """Starts it; `how` is Popen's."""
        command = [sys.executable, os.path.join(self.place, "run.py")] + list(arguments)
        # A folder of its own, so that nothing depends on where it was started.
        given = dict({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}, **how)
        process = subprocess.Popen(command, env=self.environment, cwd=str(self.folder), **given)
        self._started.append(process)
        return process

    def run(self, *arguments: str, **how: Any) -> Ended:
        return self.ended(self.start(*arguments, **how))

    def ended(self, process: "subprocess.Popen[bytes]") -> Ended:
        """Waits for it."""
        stdout, stderr = process.communicate(timeout=120)
        return Ended(process.returncode, (stdout or b"").decode("utf-8"), (stderr or b"").decode("utf-8"), self.place)


def wait_for(process: "subprocess.Popen[bytes]", words: str) -> str:
    """What a run says on stderr up to the line with these words."""
    said = ""
    for raw in process.stderr or ():
        said += raw.decode("utf-8")
        if words in said:
            return said
    raise AssertionError("it never said {!r}, but: {}".format(words, said))


def content_of(root: str) -> Dict[str, bytes]:
    """Every file of a tree, by its path."""
    found = {}
    for parent, _, names in os.walk(root):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as stream:
                found[path] = stream.read()
    return found


def left_over(place: str) -> List[str]:
    """What a run leaves that it should not."""
    return [name for name in os.listdir(place) if name.startswith(".") or "partial" in name]


def has_ended(pid: str) -> bool:
    """Within a while: a child that began while the signal came ends by itself, since nobody waits for it."""
    for _ in range(500):
        try:
            with open("/proc/{}/stat".format(pid)) as stream:
                if stream.read().rpartition(")")[2].split()[0] == "Z":  # in a container nobody may fetch it
                    return True
        except (OSError, IndexError):
            return True
        time.sleep(0.02)
    return False


def children_that_build(pid: int) -> List[str]:
    """Waits until a child of this process builds; the children."""
    for _ in range(600):
        with open("/proc/{0}/task/{0}/children".format(pid)) as stream:
            children = stream.read().split()
        for child in children:
            try:
                with open("/proc/{}/cmdline".format(child), "rb") as stream:
                    if b"\0build\0" in stream.read():
                        return children
            except OSError:
                pass
        time.sleep(0.02)
    raise AssertionError("nothing was built")
