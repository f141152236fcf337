"""Engine settings that were tuned for an artifact, as its folder keeps them, read without trusting them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy_attn.engines.json_fields import Fields, read_fields
from deploy_attn.engines.settings import LEVELS, Settings
from deploy_attn.jetson.artifact import SELF_HASH, Artifact
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.parity import PRECISIONS

SCHEMA = 1
_ENGINE = "onnxruntime"
_MOST_THREADS = 1024
_SHOWN = 12  # digits of a hash


def settings_file(folder: str | Path, engine: str = _ENGINE) -> Path:
    """Where the settings of an engine are kept."""
    return Path(folder) / f"settings-{engine}.json"


def stored_settings(artifact: Artifact) -> Mapping[str, Settings]:
    """onnxruntime's settings by precision; empty where none were tuned.

    Raises:
        BadRequest: the file is not one of settings, was not verified, or is of another artifact.
    """
    file = settings_file(artifact.path)
    if not os.path.lexists(file):
        return {}
    remedy = f"Tune again with `deploy-attn tune {artifact.path}`, or delete {file} for the defaults."
    top = read_fields(file, remedy)
    if top.count("schema_version") != SCHEMA:
        top.refuse("schema_version", f"is {{}}, and this release reads {SCHEMA}")
    if top.text("engine") != _ENGINE:
        top.refuse("engine", f"is {{}}, and not {_ENGINE}")
    tuned_for, here = top.text("artifact_sha256"), str(artifact.manifest[SELF_HASH])
    if tuned_for != here:
        raise BadRequest(
            f"{file} was tuned for another export than the one in its folder (manifest {tuned_for[:_SHOWN]}, there "
            f"{here[:_SHOWN]}). {remedy}"
        )
    precisions = top.part("precisions")
    unknown = next((name for name in precisions.values if name not in PRECISIONS), None)
    if unknown is not None:
        precisions.refuse(unknown, f"is of no precision; there are {' and '.join(PRECISIONS)}")
    return {name: _settings(precisions.part(name)) for name in precisions.values}


def settings_document(artifact: Artifact, precisions: Mapping[str, Any], conditions: Mapping[str, Any]) -> str:
    """The contents of the file. JSON values only; each precision has `settings`, `tried` and `verified`."""

    document = {
        "schema_version": SCHEMA,
        "engine": _ENGINE,
        "artifact_sha256": artifact.manifest[SELF_HASH],
        "precisions": precisions,
        "conditions": conditions,
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _settings(part: Fields) -> Settings:
    if not part.flag("verified"):
        part.refuse("verified", "is {}: these settings were never held against the parity cases")
    settings = part.part("settings")
    level, threads = settings.text("level"), settings.count("intra_op_threads")
    if level not in LEVELS:
        settings.refuse("level", f"is {{}}, and not one of {', '.join(LEVELS)}")
    if threads > _MOST_THREADS:
        settings.refuse("intra_op_threads", f"is {{}}, and more than {_MOST_THREADS}")
    return Settings(
        intra_op_threads=threads,
        level=level,
        denormals_zero=settings.flag("denormals_zero"),
        spinning=settings.flag("spinning"),
    )
