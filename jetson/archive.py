"""Unpacking a capsule's archive without trusting it."""

import errno
import io
import os
import shutil
import tarfile
import zlib

from .capsule import is_inside
from .errors import BadRequest

_MOST_MEMBERS = 10000
# What tarfile, gzip and zlib raise over an archive that is none, or one that was cut off.
_UNREADABLE = (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError)


def unpack(archive: str, folder: str) -> str:
    """Unpacks a capsule's archive into a folder of its own below `folder`; the path of that one.

    Only plain files and folders below one top folder are taken.

    Raises:
        BadRequest: not an archive, one that is damaged or reaches outside, or
            the folder is there already or cannot be written. Nothing stays of it.
    """
    draft = os.path.join(folder, ".capsule-{}.partial".format(os.getpid()))
    try:
        os.makedirs(draft)
        with tarfile.open(archive, "r:gz") as tar:
            top = _unpacked(tar, archive, draft)
        place = os.path.join(folder, top)
        if os.path.lexists(place):
            raise BadRequest("{} is there already. Remove it, or unpack somewhere else.".format(place))
        os.rename(os.path.join(draft, top), place)
        return place
    except _UNREADABLE as error:
        raise BadRequest(
            "{} cannot be unpacked: {}. Copy it again, or write it again with `deploy-attn bundle`.".format(
                archive, str(error).rstrip(".") or type(error).__name__
            )
        ) from error
    except OSError as error:
        hint = "Make room there." if error.errno == errno.ENOSPC else "Choose a folder that can be written."
        raise BadRequest(
            "{} cannot be unpacked into {}: {}. {}".format(archive, folder, error.strerror or error, hint)
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _unpacked(tar: tarfile.TarFile, archive: str, draft: str) -> str:
    """Writes the members below `draft`; the name of their top folder."""
    tops = set()
    for count, member in enumerate(tar, 1):
        problem = _member_problem(member)
        if count > _MOST_MEMBERS:
            problem = "more than {} files, which no capsule has".format(_MOST_MEMBERS)
        if problem:
            raise BadRequest("{} is not unpacked: it holds {}. It is not a capsule.".format(archive, problem))
        tops.add(member.name.split("/")[0])
        if len(tops) > 1:
            raise BadRequest(
                "{} is not unpacked: it holds {} side by side, and a capsule is one folder.".format(
                    archive, " and ".join(sorted(tops))
                )
            )
        _write_member(tar, member, os.path.join(draft, *member.name.split("/")))
    if not tops:
        raise BadRequest("{} is empty. Write it again with `deploy-attn bundle`.".format(archive))
    return tops.pop()


def _member_problem(member: tarfile.TarInfo) -> str:
    if not is_inside(member.name):
        return "{!r}, which reaches outside its folder".format(member.name)
    if member.issym() or member.islnk():
        return "{!r}, a link to {!r}".format(member.name, member.linkname)
    if not (member.isfile() or member.isdir()):
        return "{!r}, which is neither a file nor a folder".format(member.name)
    if member.isfile() and "/" not in member.name:
        return "{!r} outside any folder".format(member.name)
    return ""


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    if member.isdir():
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.ReadError("{} has no content".format(member.name))
    with io.open(path, "xb") as stream:  # a second member of one name is an error, not a replacement
        shutil.copyfileobj(content, stream)
    if os.stat(path).st_size != member.size:
        raise tarfile.ReadError("{} is cut off".format(member.name))
