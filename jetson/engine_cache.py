"""Engines that a run built, kept beside its verdict and found again by what they were built from."""

import contextlib
import hashlib
import io
import json
import os
from typing import Any, Dict, Mapping, NamedTuple, Optional

from .capsule import OWN_HASH, own_sha256

SCHEMA = 1
_SHOWN = 12  # characters of a key in a file's name


class StoredEngine(NamedTuple):
    """An engine, the file that holds it, and what its builder said of it."""

    path: str
    content: bytes
    facts: Mapping[str, Any]
    from_cache: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def key_of(made_from: Mapping[str, Any]) -> str:
    """The key of an engine: over all that it is made from, as JSON values."""
    text = json.dumps(made_from, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def engine_path(folder: str, engine: str, precision: str, key: str) -> str:
    return os.path.join(folder, "engine-{}-{}-{}.engine".format(engine, precision, key[:_SHOWN]))


def find(path: str, key: str) -> Optional[StoredEngine]:
    """The engine of this key, if it is there and as it was written; else None, and it is built again."""
    try:
        with io.open(_beside(path), encoding="utf-8") as stream:
            listed = json.load(stream)
        with io.open(path, "rb") as stream:
            content = stream.read()
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(listed, dict) or listed.get(OWN_HASH) != own_sha256(listed):
        return None
    if (listed.get("schema_version"), listed.get("key")) != (SCHEMA, key):
        return None
    if listed.get("sha256") != hashlib.sha256(content).hexdigest():
        return None
    return StoredEngine(path, content, dict(listed.get("facts") or {}), from_cache=True)


def store(path: str, key: str, content: bytes, facts: Mapping[str, Any]) -> StoredEngine:
    """Writes an engine and then what vouches for it, each whole or not at all."""
    listed: Dict[str, Any] = {
        "schema_version": SCHEMA,
        "key": key,
        "sha256": hashlib.sha256(content).hexdigest(),
        "facts": dict(facts),
    }
    listed[OWN_HASH] = own_sha256(listed)
    _replace(path, content)
    _replace(_beside(path), (json.dumps(listed, indent=2) + "\n").encode("ascii"))
    return StoredEngine(path, content, dict(facts), from_cache=False)


def _beside(path: str) -> str:
    return os.path.splitext(path)[0] + ".json"


def _replace(path: str, content: bytes) -> None:
    draft = "{}.{}.partial".format(path, os.getpid())
    try:
        with io.open(draft, "wb") as stream:
            stream.write(content)
        os.replace(draft, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
