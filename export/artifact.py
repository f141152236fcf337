"""Writing an artifact: whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy_attn.engines.engine_file import is_engine_file
from deploy_attn.engines.fused.graph_file import FUSED_GRAPH
from deploy_attn.jetson.artifact import MANIFEST, SCHEMA_VERSION, SELF_HASH, file_sha256, manifest_sha256, read_manifest
from deploy_attn.jetson.errors import BadRequest, DeployAttnError

_STAGING = "deploy-attn-partial"
_KEPT = ("verdict", "bench", "settings")  # what verify, bench and tune leave, by engine


def check_destination(folder: Path, force: bool) -> None:
    """Raises BadRequest unless an artifact may be written at `folder`; touches nothing.

    With `force` an existing artifact may be replaced, but nothing else: a
    folder that holds anything of the user's own is refused.
    """
    if not os.path.lexists(folder):
        _check_writable(_nearest_existing(folder.parent), folder)
        return
    if not force:
        raise BadRequest(f"{folder} exists already. Choose another folder with -o, or replace it with --force.")
    if folder.is_symlink() or not folder.is_dir():
        raise BadRequest(f"{folder} is not a folder, so --force does not replace it. Choose another folder with -o.")
    foreign = sorted({entry.name for entry in folder.iterdir()} - _own_files(folder))
    if foreign:
        raise BadRequest(
            f"{folder} holds what no export wrote ({', '.join(foreign[:5])}), so --force does not replace it. "
            "Choose another folder with -o."
        )
    _check_writable(folder.parent, folder)


@contextlib.contextmanager
def staged_folder(folder: Path, force: bool) -> Iterator[Path]:
    """Yields a temporary sibling that becomes `folder` if the block succeeds.

    On an exception the sibling is removed and `folder` is as before. A process
    that is killed leaves at most a hidden sibling, which the next export to the
    same place removes.

    Raises:
        BadRequest: as `check_destination`, or the file system refuses.
    """
    folder = Path(os.path.abspath(folder))  # so that its parent is not inside it
    _restore_retired(folder)
    check_destination(folder, force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.{_STAGING}-{os.getpid()}-", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield staging
        _grant_usual_mode(staging)
        check_destination(folder, force)
        _put_in_place(staging, folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_artifact(staging: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the files, then the manifest that vouches for them, and returns that.

    Args:
        staging: an empty folder.
        files: contents by file name.
        manifest: everything but the schema version, the hashes and its own hash.
    """
    for name, content in files.items():
        (staging / name).write_bytes(content)
    whole: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **manifest,
        "files": {name: file_sha256(str(staging / name)) for name in sorted(files)},
    }
    whole[SELF_HASH] = manifest_sha256(whole)
    (staging / MANIFEST).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return whole


def _own_files(folder: Path) -> set[str]:
    """Names in a folder that one of our commands wrote; empty where no manifest of ours says so."""
    try:
        manifest = read_manifest(str(folder))
    except DeployAttnError:
        return set()
    files = manifest.get("files")
    if SELF_HASH not in manifest or not isinstance(files, dict):
        return set()
    kept = {file.name for kind in _KEPT for file in folder.glob(f"{kind}-*.json")}
    plain = {file.name for file in folder.iterdir() if file.is_file() and not file.is_symlink()}
    engines = {name for name in plain if is_engine_file(name)}
    return {MANIFEST, *files, *kept, *engines, FUSED_GRAPH} & plain


def _nearest_existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())


def _check_writable(parent: Path, folder: Path) -> None:
    if not parent.is_dir():
        raise BadRequest(f"{folder} cannot be written: {parent} is not a folder. Choose another folder with -o.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BadRequest(f"{folder} cannot be written: no permission in {parent}. Choose another folder with -o.")


def _unwritable(folder: Path, error: OSError) -> BadRequest:
    return BadRequest(f"{folder} cannot be written: {error.strerror or error}. Choose another folder with -o.")


def _remove_abandoned(folder: Path) -> None:
    """Removes what killed exports of the same place left; those of live processes are not touched."""
    prefix = f".{folder.name}.{_STAGING}-"
    for entry in folder.parent.iterdir():
        if entry.name.startswith(prefix):
            pid = entry.name[len(prefix) :].partition("-")[0]
            if pid.isdigit() and not _is_alive(int(pid)):
                shutil.rmtree(entry, ignore_errors=True)


def _restore_retired(folder: Path) -> None:
    """Puts back the artifact that an export was replacing in two steps when it was killed between them."""
    if not os.path.lexists(folder):
        for entry in folder.parent.glob(f".{folder.name}.{_STAGING}-*-old"):
            pid = entry.name.partition(f"{_STAGING}-")[2].partition("-")[0]
            if pid.isdigit() and not _is_alive(int(pid)):
                entry.rename(folder)
                return


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _grant_usual_mode(staging: Path) -> None:
    """mkdtemp makes folders private; an artifact gets the mode that mkdir would have given."""
    mask = os.umask(0)
    os.umask(mask)
    staging.chmod(0o777 & ~mask)


def _put_in_place(staging: Path, folder: Path) -> None:
    """Makes staging the folder. An existing one is exchanged in one step where the system can."""
    if not os.path.lexists(folder):
        staging.rename(folder)
        return
    if _exchanged(staging, folder):
        return
    retired = staging.with_name(f"{staging.name}-old")
    folder.rename(retired)
    try:
        staging.rename(folder)
    except OSError:
        retired.rename(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _exchanged(first: Path, second: Path) -> bool:
    """Swaps two paths atomically (Linux renameat2, RENAME_EXCHANGE); False where that is not to be had."""
    import ctypes

    at_cwd, rename_exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    status: int = renameat2(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), rename_exchange)
    return status == 0
