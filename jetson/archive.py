"""Unpacking a capsule's archive without trusting it."""

import errno
import io
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from typing import List, Set, Union

from .capsule import is_inside
from .errors import BadRequest

_MOST_MEMBERS = 10000
_MOST_BYTES = 8 << 30  # of all files; a graph has 2 GiB at most
_MOST_EXTENSION = 1 << 16  # bytes of a header that names the next member; tarfile reads it whole
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# What tarfile, gzip and zlib raise over an archive that is none, or one that was cut off.
_UNREADABLE = (OSError, tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)


def unpack(archive: str, folder: str) -> str:
    """Unpacks a capsule's archive into a folder of its own below `folder`; the path of that one.

    Only plain files and folders below one top folder are taken, and nothing is
    written before every member was looked at.

    Raises:
        BadRequest: not an archive, one that is damaged or reaches outside, or
            the folder is there already or cannot be written. Nothing stays of it.
    """
    try:
        if not stat.S_ISREG(os.stat(archive).st_mode):
            raise BadRequest("{} is not a plain file. Name an archive of `deploy-attn bundle`.".format(archive))
        with tarfile.open(archive, "r:gz", tarinfo=_Member) as tar:
            return _unpacked(tar, _members(tar, archive), archive, folder)
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".") or type(error).__name__
        raise BadRequest(
            "{} cannot be unpacked: {}. Copy it again, or write it again with `deploy-attn bundle`.".format(
                archive, reason
            )
        ) from error


class _Member(tarfile.TarInfo):
    """A member whose header is refused before tarfile follows it into memory."""

    @classmethod
    def frombuf(cls, buf: Union[bytes, bytearray], encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        most = _MOST_EXTENSION if member.type in _EXTENSIONS else _MOST_BYTES
        if member.type == tarfile.GNUTYPE_SPARSE or not 0 <= member.size <= most:
            raise tarfile.ReadError("it has a header that no capsule has")
        return member


def _members(tar: tarfile.TarFile, archive: str) -> List[tarfile.TarInfo]:
    """Every member of an archive in which nothing is wrong."""
    members: List[tarfile.TarInfo] = []
    folders: Set[str] = set()
    files: Set[str] = set()
    size = 0
    for member in tar:
        members.append(member)
        parts = member.name.split("/")
        parents = {"/".join(parts[:count]) for count in range(1, len(parts))}
        size += max(member.size, 0)
        problem = _member_problem(member)
        if member.name in files or parents & files or member.isfile() and member.name in folders:
            problem = problem or "{!r} more than once".format(member.name)
        if len(members) > _MOST_MEMBERS or size > _MOST_BYTES:
            problem = "more than {} files or {} GiB, which no capsule has".format(_MOST_MEMBERS, _MOST_BYTES >> 30)
        if problem:
            raise BadRequest("{} is not unpacked: it holds {}. It is not a capsule.".format(archive, problem))
        folders |= parents
        (files if member.isfile() else folders).add(member.name)
    tops = sorted(name for name in folders if "/" not in name)
    if not tops:
        raise BadRequest("{} is empty. Write it again with `deploy-attn bundle`.".format(archive))
    if len(tops) > 1:
        raise BadRequest(
            "{} is not unpacked: it holds {} side by side, and a capsule is one folder.".format(
                archive, " and ".join(tops[:2])
            )
        )
    return members


def _member_problem(member: tarfile.TarInfo) -> str:
    if not is_inside(member.name):
        return "{!r}, which reaches outside its folder".format(member.name)
    if not member.name.isprintable():
        return "{!r}, which is no name of a file".format(member.name)
    if member.issym() or member.islnk():
        return "{!r}, a link to {!r}".format(member.name, member.linkname)
    if not (member.isfile() or member.isdir()) or member.issparse() or member.size < 0:
        return "{!r}, which is neither a plain file nor a folder".format(member.name)
    if member.isfile() and "/" not in member.name:
        return "{!r} outside any folder".format(member.name)
    return ""


def _unpacked(tar: tarfile.TarFile, members: List[tarfile.TarInfo], archive: str, folder: str) -> str:
    """Writes the members beside their place, and moves their top folder there only when it is whole."""
    top = members[0].name.split("/")[0]
    place = os.path.join(folder, top)
    if os.path.lexists(place):
        raise BadRequest("{} is there already. Remove it, or unpack somewhere else.".format(place))
    draft = ""
    try:
        os.makedirs(folder, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=".capsule-", suffix=".partial", dir=folder)
        for member in members:
            _write_member(tar, member, os.path.join(draft, *member.name.split("/")))
        os.rename(os.path.join(draft, top), place)
    except OSError as error:
        hint = "Make room there." if error.errno == errno.ENOSPC else "Choose a folder that can be written."
        raise BadRequest(
            "{} cannot be unpacked into {}: {}. {}".format(archive, folder, error.strerror or error, hint)
        ) from error
    finally:
        if draft:
            shutil.rmtree(draft, ignore_errors=True)
    return place


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    if member.isdir():
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.ReadError("{} has no content".format(member.name))
    with io.open(path, "xb") as stream:  # where names are one whatever their case, an error and not a replacement
        shutil.copyfileobj(content, stream)
    if os.stat(path).st_size != member.size:
        raise tarfile.ReadError("{} is cut off".format(member.name))
