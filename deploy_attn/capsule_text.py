"""What a capsule holds beside the artifact and the room jetson/: its launcher, and a note on what to do."""

from __future__ import annotations

# Any Python can parse it, so that an old one is told what is wanted. All files of the archive have one time, by which
# Python would take bytecode of another capsule that was unpacked here before for the bytecode of these sources.
LAUNCHER = '''\
"""Builds, verifies and times what is in this folder: python3 run.py --help"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def forget_other_sources():
    folder = os.path.join(HERE, "jetson")
    paths = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".py")]
    if any(os.path.getmtime(path) < 1 for path in paths):
        import shutil

        shutil.rmtree(os.path.join(folder, "__pycache__"), ignore_errors=True)
        for path in paths:
            try:
                os.utime(path, None)
            except OSError:
                pass


def start():
    try:
        import numpy
    except ImportError as error:
        sys.stderr.write("run.py: numpy cannot be imported (%s). sudo apt install python3-numpy\\n" % error)
        return 2
    forget_other_sources()
    sys.path.insert(0, HERE)
    try:
        from jetson.run import main
    except ImportError as error:
        sys.stderr.write("run.py: the capsule is damaged (%s). Unpack its archive again.\\n" % error)
        return 2
    return main(sys.argv[1:], HERE)


if __name__ == "__main__":
    if sys.version_info < (3, 6):
        sys.stderr.write("run.py: Python %d.%d is too old; start it as python3 run.py (3.6).\\n" % sys.version_info[:2])
        sys.exit(2)
    try:
        sys.exit(start())
    except KeyboardInterrupt:
        sys.stderr.write("run.py: Interrupted.\\n")
        sys.exit(130)
'''

README = """\
{name} for {target}, bundled by deploy-attn {version}.

    python3 run.py

builds the engine on this device, compares it with the reference, times it, and
ends in one verdict: PASS or FAIL on the screen, verdict.json in this folder.
Nothing is installed. It takes Python 3.6 or newer with numpy, and one of
TensorRT's Python module, trtexec, or onnxruntime. On a Jetson, JetPack has the
first two: use /usr/bin/python3.

    python3 run.py --quick       parity, and a short timing
    python3 run.py --help        every option

Exit code 0: every check holds. 1: one does not. 2: it could not be run; the
message says why and what to do.
"""
