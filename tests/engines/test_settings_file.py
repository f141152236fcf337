"""Stored settings: used where they are this artifact's and verified, and an error with a way out where they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.engines.settings import Settings
from deploy_attn.engines.settings_file import settings_document, settings_file, stored_settings
from deploy_attn.jetson.artifact import SELF_HASH, Artifact
from deploy_attn.jetson.errors import BadRequest

TUNED = Settings(intra_op_threads=2, level="extended", denormals_zero=True, spinning=False)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(str(tmp_path), {SELF_HASH: "a" * 64})


def stored(artifact: Artifact, change: Callable[[dict[str, Any]], object] = lambda document: None) -> Path:
    """Writes tuned settings of FP32 with something changed."""
    precisions = {"fp32": {"settings": TUNED.as_dict(), "tried": [], "verified": True}}
    document = json.loads(settings_document(artifact, precisions, {}))
    change(document)
    file = settings_file(artifact.path)
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def test_what_was_written_is_read(artifact: Artifact) -> None:
    assert stored_settings(artifact) == {}
    stored(artifact)
    assert stored_settings(artifact) == {"fp32": TUNED}


def fp32(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["precisions"]["fp32"]
    return found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda document: document.update(artifact_sha256="b" * 64),
            "another export .* bbbbbbbbbbbb, there aaa",
        ),
        (lambda document: document.update(schema_version=2), "schema_version' is 2"),
        (lambda document: document.update(engine="tensorrt"), 'engine\' is "tensorrt"'),
        (lambda document: document.pop("precisions"), "precisions' is missing"),
        (lambda document: document["precisions"].update(int8={}), "precisions.int8' is of no precision"),
        (lambda document: fp32(document).update(verified=False), "verified' is false: these settings were never held"),
        (lambda document: fp32(document)["settings"].update(level="fastest"), 'level\' is "fastest", and not one of'),
        (lambda document: fp32(document)["settings"].update(intra_op_threads=-1), "intra_op_threads' is -1"),
        (lambda document: fp32(document)["settings"].update(intra_op_threads=10**6), "more than 1024"),
        (lambda document: fp32(document)["settings"].update(denormals_zero="yes"), 'denormals_zero\' is "yes"'),
        (lambda document: fp32(document)["settings"].pop("spinning"), "spinning' is missing"),
    ],
)
def test_what_cannot_be_trusted_is_refused_and_says_to_tune_again_or_to_delete_it(
    change: Callable[[dict[str, Any]], object], words: str, artifact: Artifact
) -> None:
    file = stored(artifact, change)
    with pytest.raises(BadRequest, match=words) as refused:
        stored_settings(artifact)
    assert f"`deploy-attn tune {artifact.path}`, or delete {file}" in str(refused.value)


@pytest.mark.parametrize("content", ["", "[]", '{"schema_version": 1', '{"engine": NaN}'])
def test_what_is_no_document_is_refused(content: str, artifact: Artifact) -> None:
    settings_file(artifact.path).write_text(content, encoding="utf-8")
    with pytest.raises(BadRequest, match="is not read"):
        stored_settings(artifact)


def test_a_link_to_nowhere_is_no_absence(artifact: Artifact) -> None:
    settings_file(artifact.path).symlink_to(Path(artifact.path) / "gone.json")
    with pytest.raises(BadRequest, match="is not read"):
        stored_settings(artifact)
