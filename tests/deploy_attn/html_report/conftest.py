"""An artifact, and the page of it where something was measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.html_report.page import page_report
from tests.deploy_attn.html_report.samples import measured


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "cbam"
    request = ExportRequest("cbam", shape=(1, 16, 6, 5), fp16=True, target="jetson-nano", output=folder)
    return export_artifact(request).folder


@pytest.fixture
def folder(exported: Path, in_folder: Path) -> Path:
    return shutil.copytree(exported, in_folder / "cbam").relative_to(in_folder)


@pytest.fixture(scope="session")
def page_text(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the artifact after two comparisons."""
    folder = shutil.copytree(exported, tmp_path_factory.mktemp("measured") / "cbam")
    measured(folder)
    return page_report([folder], "html").text
