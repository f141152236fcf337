"""A page in a real Chromium: nothing in its console, nothing loaded, readable on a phone, in the dark and on paper."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy_attn.html_report.page import page_report
from tests.deploy_attn.html_report.browser import Browser, running
from tests.deploy_attn.html_report.samples import hostile, measured

PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(page_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page_text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def hostile_page(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(exported, tmp_path_factory.mktemp("hostile") / "cbam")
    measured(folder)
    hostile(folder)
    file = folder.parent / "report.html"
    page_report([folder], "html", file)
    return file


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("which", ["page", "hostile_page"])
def test_a_page_loads_nothing_says_nothing_and_fits(
    which: str, width: int, browser: Browser, request: pytest.FixtureRequest
) -> None:
    file: Path = request.getfixturevalue(which)
    browser.open(file, width)
    assert browser.said() == []
    assert [address for address in browser.loaded() if address != file.as_uri()] in ([], ["data:,"])
    assert browser.value("typeof window.hacked") == "undefined"
    assert browser.value("document.scripts.length") == 0
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(
        "[...document.querySelectorAll('svg.plot')].every(one => one.getBoundingClientRect().width > 300)"
    )


def test_the_policy_bars_a_script_that_would_get_into_a_page(browser: Browser, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("</main>", "<script>window.hacked = 1</script></main>")
    spoiled = tmp_path / "spoiled.html"
    spoiled.write_text(text, encoding="utf-8")
    browser.open(spoiled, DESK)
    assert browser.value("typeof window.hacked") == "undefined"
    assert browser.said()


def test_plots_follow_the_page_into_the_dark(browser: Browser, page: Path) -> None:
    seen = []
    for scheme in ("light", "dark"):
        browser.open(page, PHONE, scheme=scheme)
        browser.value("document.querySelector('svg.plot').scrollIntoView({block: 'start', behavior: 'instant'})")
        with Image.open(io.BytesIO(browser.picture())) as picture:
            seen.append(np.asarray(picture.convert("L"), dtype=float))
    light, dark = seen
    assert np.median(light) > 240
    assert np.median(dark) < 40
    for pixels in seen:  # what is drawn stands out from the paper
        assert (abs(pixels - np.median(pixels)) > 100).mean() > 0.01


def test_touching_a_node_shows_its_reason_inside_the_window(browser: Browser, page: Path) -> None:
    browser.open(page, PHONE)
    middle = "(() => { const found = document.querySelector('.node.fp32 summary'); "
    middle += "found.scrollIntoView({block: 'center', behavior: 'instant'}); "
    middle += "const box = found.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2] })()"
    browser.click(*browser.value(middle))
    shown = "(() => { const found = document.querySelector('.node[open] ul'), box = found.getBoundingClientRect(); "
    shown += "const points = [...Array(100).keys()].map(place => document.elementFromPoint("
    shown += (
        "box.left + box.width * (0.5 + place % 10) / 10, box.top + box.height * (0.5 + Math.floor(place / 10)) / 10));"
    )
    shown += "return [found.innerText, box.left, box.right, points.every(point => found.contains(point))] })()"
    text, left, right, on_top = browser.value(shown)
    assert "FP32: " in text
    assert 0 <= left < right <= PHONE
    assert on_top


def test_a_page_can_be_printed(browser: Browser, page: Path) -> None:
    browser.open(page, DESK, scheme="dark")
    printed = browser.printed()
    assert printed.startswith(b"%PDF")
    assert 2 <= printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page/") <= 12


def test_a_graph_wider_than_paper_is_shrunk_in_print(browser: Browser, page: Path, tmp_path: Path) -> None:
    wide = re.sub(
        r"width:[\d.]+px;(height:[\d.]+px;--width:)[\d.]+", r"width:2000px;\g<1>2000", page.read_text("utf-8")
    )
    (tmp_path / "wide.html").write_text(wide, encoding="utf-8")
    browser.open(tmp_path / "wide.html", 700)
    width = "document.querySelector('.canvas').getBoundingClientRect().width"
    assert browser.value(width) == pytest.approx(2000)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.value(width) == pytest.approx(680)


def test_headings_links_and_tables_can_be_found_by_who_does_not_see(browser: Browser, page: Path) -> None:
    browser.open(page, DESK)
    tree = browser.ask("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    names = {
        node.get("name", {}).get("value")
        for node in tree
        if node["role"]["value"] in ("image", "img", "graphics-document")
    }
    assert {"heading", "navigation", "link", "table", "columnheader"} <= set(roles)
    assert {"Ratios of cbam", "Times of cbam", "FP16 headroom of cbam"} <= names
