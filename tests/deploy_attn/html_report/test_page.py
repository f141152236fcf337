"""`deploy-attn report DIR... -o report.html`: what is known of artifacts on a page that does nothing."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy_attn import BadRequest, DamagedArtifact, ExportRequest, export_artifact
from deploy_attn.engines import roofline
from deploy_attn.html_report.markdown import escaped
from deploy_attn.html_report.page import Form, page_report
from tests.deploy_attn.command_line import Cli
from tests.deploy_attn.html_report.samples import HOST, changed, comparison, hostile, measured, rewritten, write_bench


class Document(html.parser.HTMLParser):
    """Elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag]


def test_a_page_says_what_the_files_of_an_artifact_say(cli: Cli, folder: Path) -> None:
    measured(folder)
    done = cli("report", folder, "-o", "report.html")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "PASS  page of 1 artifact: report.html\n"
    page = Document(Path("report.html").read_text(encoding="utf-8"))
    for told in (
        "1.500 \u00b1 0.030",
        "0.750 \u00b1 0.015",
        "naive",
        "jetson-nano",
        "A Processor @ 2.00GHz",
    ):
        assert told in page.text
    assert "1 of 1 verdicts hold." in page.text
    plan = json.loads((folder / "precision_plan.json").read_text(encoding="utf-8"))
    for node in plan["nodes"]:
        assert node["reason"] in page.text
    headings = [found["id"] for found in page.named("section")]
    parts = ["verdicts", "latency", "precision", "conditions"]
    assert headings == ["overview", "roofline", "artifact1", *(f"artifact1-{part}" for part in parts)]
    assert {found["href"] for found in page.named("a")} == {f"#{anchor}" for anchor in headings}


def test_a_page_has_the_plots_each_with_a_name_and_a_table(page_text: str) -> None:
    titles = re.findall(r"<title id=[^>]*>([^<]*)</title>", page_text)
    setting = "onnxruntime, 1 thread, hot caches, A Processor @ 2.00GHz"
    assert titles == [
        f"Accuracy against latency: {setting}",
        "Roofline of Jetson Nano 4 GB, JetPack 4.6.1 to 4.6.6",
        f"Operations a second measured: {setting}",
        "Ratios of cbam",
        "Times of cbam",
        "FP16 headroom of cbam",
    ]
    assert page_text.count("<desc ") == len(titles)
    assert page_text.count("<caption>") > len(titles)


def test_a_page_loads_nothing_and_runs_nothing(page_text: str) -> None:
    page = Document(page_text)
    (policy,) = [one["content"] for one in page.named("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not page.named("script")
    for tag, found in page.elements:
        assert not [name for name in found if name.startswith("on") or name in ("src", "srcset", "action", "data")], tag
        assert (found.get("href") or "#").startswith(("#", "data:,"))
    assert "@import" not in page_text
    assert not re.findall(r"url\((?!#plot)", page_text)


def test_ids_are_unique_and_what_is_referred_to_is_there(folder: Path) -> None:
    measured(folder)
    text = page_report([folder, shutil.copytree(folder, "again")], "html").text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    references += [
        one for group in re.findall(r'aria-(?:labelledby|describedby)="([^"]+)"', text) for one in group.split()
    ]
    assert set(references) <= set(ids)


def test_plots_have_no_colours_of_their_own(page_text: str) -> None:
    plots = re.findall(r"<svg .*?</svg>", page_text, re.S)
    assert len(plots) == 7  # and the lines of the graph
    assert not [found for plot in plots for found in re.findall(r"#[0-9a-f]{6}\b", plot)]


def test_texts_of_a_hostile_artifact_stay_text(folder: Path, page_text: str) -> None:
    clean = Document(page_text)
    hostile(folder)
    found = page_report([folder], "html")
    page = Document(found.text)
    assert not found.passed
    assert not page.named("script")
    assert not page.named("img")
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in clean.elements} | {"code"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "{{7*7}}" in page.text
    assert not [character for character in found.text if character in "\u202e\x1b" or "\ud800" <= character <= "\udfff"]


def test_a_name_of_a_million_characters_does_not_swell_the_page(folder: Path, page_text: str) -> None:
    rewritten(folder, lambda manifest: manifest.update(name="x" * 1_000_000))
    forms: tuple[Form, ...] = ("html", "markdown")
    for form in forms:
        assert len(page_report([folder], form).text) < len(page_text)


def test_texts_of_a_hostile_artifact_stay_text_in_markdown(folder: Path) -> None:
    hostile(folder)
    text = page_report([folder], "markdown").text
    assert not re.findall(r"(?<!\\)<", text)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    starts = [place for place, line in enumerate(tables) if set(line) <= set("|-: ")]
    for place in starts:
        rows = cells[place - 1 : next((start - 1 for start in starts if start > place), None)]
        assert len(set(rows)) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<b>", r"\<b>"),
        ("`x`", r"\`x\`"),
        ("*x* _y_ ~~z~~", r"\*x\* \_y\_ \~\~z\~\~"),
        ("[a](b)", r"\[a\](b)"),
        ("$x$ &lt;", r"\$x\$ \&lt;"),
        ("# x", r"\# x"),
        ("- x", r"\- x"),
        ("1x64x28x28, -1 - 2", "1x64x28x28, -1 - 2"),
        ("http://x www.x.y", r"http\://x www\.x.y"),
        ("\\|", r"\\\|"),
        ("a\nb\u202e", r"a\\nb\\u202e"),
    ],
)
def test_markdown_escapes_what_it_would_read(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_markdown_goes_to_stdout_and_holds_the_same_tables(cli: Cli, folder: Path) -> None:
    measured(folder)
    done = cli("report", folder, "--markdown")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("# Report on cbam\n\n**PASS** 1 of 1 verdicts hold.\n")
    page = Document(page_report([folder], "html").text)
    assert done.stdout.count("\n| --") == len(page.named("table"))
    assert "1.500 \u00b1 0.030" in done.stdout
    assert cli("report", folder, "--markdown", "-o", "report.md").exit_code == 0
    assert Path("report.md").read_text(encoding="utf-8") == done.stdout


def test_what_is_not_there_is_said_with_the_command_that_makes_it(in_folder: Path) -> None:
    name = "a b"
    export_artifact(ExportRequest("se", shape=(1, 16, 5, 6), output=in_folder / name))
    (in_folder / name / HOST).unlink()
    found = page_report([name], "html")
    assert not found.passed
    text = Document(found.text).text
    for command in ("verify 'a b'", "bench 'a b' --against naive", "export NAME --fp16"):
        assert f"deploy-attn {command}" in text
    assert "no roof is drawn yet" in text


def test_verdicts_of_boards_are_drawn_under_the_roof_of_their_target(folder: Path) -> None:
    verdict = json.loads((folder / HOST).read_text(encoding="utf-8"))
    times = {"median_ms": 4.0, "p90_ms": 5.0, "p99_ms": 6.0, "n": 50, "loop": 1}
    verdict.update(target="jetson-nano", timing={"fp32": {"compute": times, "notes": []}}, engine="tensorrt")
    board = Path("nano")
    board.mkdir()
    (board / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    text = page_report([folder, board], "markdown").text
    (row,) = [line for line in text.splitlines() if re.match(r"\| cbam \| fp32 \| (memory|compute) \|", line)]
    cells = [cell.strip() for cell in row.split("|")]
    operations, floor, run, ratio = (float(cells[place].replace(",", "")) for place in (4, 7, 8, 9))
    assert run == 4
    assert ratio == pytest.approx(run / floor, rel=0.01)
    assert "2 of 2 verdicts hold" in text
    assert re.search(r"^\| cbam \| fp32 \| 4\.00 \| \\- \| 5\.00 \|", text, re.M)  # a board tells no p10
    measured(folder)
    text = page_report([folder], "markdown").text
    (row,) = re.findall(r"^\| cbam \| fp32 \| ([\d,.]+) \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    counted, milliseconds, rate = (float(cell.replace(",", "")) for cell in row)
    assert counted == operations
    assert rate == pytest.approx(counted / milliseconds / 1e6, rel=0.01)


def test_a_graph_without_a_floor_on_its_target_is_not_drawn_under_its_roof(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_fp32(place: Path, target: object, precision: str) -> roofline.Estimate:
        if target == "jetson-nano" and precision == "fp16":
            raise BadRequest("its profile does not say so")
        return estimate(place, target, precision)  # type: ignore[arg-type]

    estimate = roofline.estimate
    monkeypatch.setattr(roofline, "estimate", only_fp32)
    text = page_report([folder], "markdown").text
    assert re.findall(r"^\| cbam \| (fp\d+) \| (?:memory|compute) \|", text, re.M) == ["fp32"]


def test_a_target_of_the_users_own_has_no_roof_here(folder: Path) -> None:
    rewritten(folder, lambda manifest: manifest.update(target="my-board"))
    assert "The profile of my-board is not one of \\`list --targets\\`" in page_report([folder], "markdown").text


def test_a_verdict_of_any_name_in_an_artifacts_folder_is_shown_when_it_is_named(folder: Path) -> None:
    shutil.copy(folder / HOST, folder / "nano.json")
    assert "1 of 1 verdicts hold" in page_report([folder], "markdown").text
    assert "2 of 2 verdicts hold" in page_report([folder / "nano.json", folder], "markdown").text


def test_times_against_errors_are_those_of_the_newest_comparison(folder: Path) -> None:
    write_bench(folder, comparison("fp32", "naive", 1.5, 0.2), comparison("fp32", "eager", 2.0, 700.0))
    text = page_report([folder], "markdown").text
    (row,) = re.findall(r"^\| cbam \| fp32 \| ([\d.]+) \| [\d.]+ \| [\d.]+ \| [\de.-]+ \|$", text, re.M)
    assert 600 < float(row) < 900


def test_a_verdict_that_fails_as_a_whole_holds_in_no_row(folder: Path) -> None:
    changed(folder / HOST, lambda verdict: verdict.update(passed=False))
    text = page_report([folder], "markdown").text
    rows = [line for line in text.splitlines() if re.search(r"\| (\d+) of \1 \|", line)]
    assert len(rows) == 2
    assert all(row.endswith("| FAIL |") for row in rows)


def test_blocks_in_which_something_else_ran_are_told(folder: Path) -> None:
    blocks = {"kept": 12, "repeated": 4, "spoiled": 3, "reasons": ["other processes used 1.5 cores"]}
    write_bench(folder, comparison("fp32", "naive", 1.5, 1.0, blocks=blocks))
    told = "4 blocks repeated, because something else ran (other processes used 1.5 cores). 3 of the 12 that count are"
    assert told in page_report([folder], "markdown").text


def test_what_was_tuned_is_told_with_all_that_was_tried(folder: Path) -> None:
    ratio = {"median": 1.234, "p10": 1.1, "p90": 1.4, "pairs": 300}
    form = {"module": "cbam", "form": "gpu", "ratio": ratio, "chosen": True, "reason": "faster"}
    (folder / "forms.json").write_text(json.dumps({"tried": [form, {**form, "ratio": None}]}), encoding="utf-8")
    rewritten(folder, lambda manifest: manifest["files"].update({"forms.json": ""}))
    settings = {"level": "basic", "intra_op_threads": 2, "denormals_zero": True, "spinning": False}
    tried = [{"settings": settings, "ratio": ratio, "kept": True, "reason": "faster by far"}]
    tuned = {
        "schema_version": 1,
        "engine": "onnxruntime",
        "artifact_sha256": json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["manifest_sha256"],
        "precisions": {"fp32": {"settings": settings, "tried": tried, "verified": True}},
    }
    (folder / "settings-onnxruntime.json").write_text(json.dumps(tuned), encoding="utf-8")
    text = page_report([folder], "markdown").text
    assert "| cbam | gpu | yes | faster | 1.234 | 300 |" in text
    assert "Tuned settings of onnxruntime for fp32: level basic, 2 threads, subnormals as zero." in text
    assert "| fp32 | level basic, threads 2, subnormals zero, no spinning | yes | faster by far | 1.234 | 300 |" in text


def test_several_artifacts_stand_in_one_page(cli: Cli, folder: Path) -> None:
    measured(folder)
    export_artifact(ExportRequest("se", shape=(1, 16, 5, 6), output=Path("se")))
    done = cli("report", ".", "-o", "pages/all.html", "--json")
    answer = json.loads(done.stdout)
    assert done.exit_code == 0
    assert answer["artifacts"] == ["cbam", "se"]
    text = Path("pages/all.html").read_text(encoding="utf-8")
    assert answer["size_bytes"] == len(text.encode("utf-8"))
    assert [found["id"] for found in Document(text).named("section") if (found["id"] or "").isalnum()] == [
        "overview",
        "roofline",
        "artifact1",
        "artifact2",
    ]


def test_one_artifact_without_a_verdict_fails_the_page_of_several(cli: Cli, folder: Path) -> None:
    shutil.copytree(folder, "again")
    (Path("again") / HOST).unlink()
    done = cli("report", folder, "again", "-o", "report.html")
    assert (done.exit_code, done.stdout) == (1, "FAIL  page of 2 artifacts: report.html\n")


def test_plots_show_the_newest_of_many_comparisons(folder: Path) -> None:
    write_bench(folder, *(comparison("fp32", f"rival{place}", 1.5, 1.0) for place in range(30)))
    text = page_report([folder], "html").text
    (plot,) = re.findall(r"<title id=[^>]*>Ratios of cbam</title>.*?</svg>", text, re.S)
    assert sorted(map(int, re.findall(r"against rival(\d+)", plot))) == list(range(6, 30))
    assert "The plots show the last 24 of 30 comparisons, the tables all." in text


def test_artifacts_of_one_name_are_told_apart_by_their_folders(folder: Path) -> None:
    shutil.copytree(folder, "again")
    assert page_report([folder, "again", folder], "markdown").artifacts == ("cbam (cbam)", "cbam (again)")
    shutil.copytree(folder, Path("sweep") / "far" / "cbam")
    shutil.copytree(folder, Path("sweep") / "far" / "other")
    found = page_report([folder, "sweep/far/cbam", "sweep/far/other"], "markdown")
    assert found.artifacts == ("cbam (cbam)", "cbam (sweep/far/cbam)", "cbam (other)")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("cbam -o report.md", "add --markdown"),
        ("cbam -o report.html --markdown", "name it .md"),
        ("cbam -o report", "name it .html"),
        ("cbam/model.onnx -o report.html", "is not read"),
        ("cbam --force", "--force is about the file"),
        ("cbam -o there.html", "exists already"),
        ("cbam -o link.html --force", "not a plain file"),
        ("cbam -o cbam", "is a folder"),
        (f"cbam -o {'x' * 300}.html", "File name too long"),
        ("cbam -o cbam/manifest.json/x.html", "cannot be written"),
        ("nothing -o report.html", "cannot be read"),
        ("empty -o report.html", "neither an artifact nor a verdict"),
        ("stray -o report.html", "no folder of one was named"),
        ("cbam stray -o report.html", "is of none of the artifacts that were named"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_written(
    arguments: str, told: str, cli: Cli, folder: Path
) -> None:
    Path("there.html").write_text("mine", encoding="utf-8")
    Path("link.html").symlink_to("there.html")
    Path("empty").mkdir()
    Path("stray").mkdir()
    shutil.copy(folder / HOST, "stray")
    changed(Path("stray") / HOST, lambda found: found["conditions"].update(artifact_sha256="0" * 64))
    before = sorted(Path().rglob("*"))
    done = cli("report", *arguments.split())
    assert done.exit_code == 2
    assert told in done.stderr
    assert sorted(Path().rglob("*")) == before
    assert Path("there.html").read_text(encoding="utf-8") == "mine"


def test_force_replaces_a_page(cli: Cli, folder: Path) -> None:
    Path("there.html").write_text("mine", encoding="utf-8")
    assert cli("report", folder, "-o", "there.html", "--force").exit_code == 0
    assert Path("there.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_measurements_of_another_artifact_are_refused(folder: Path) -> None:
    write_bench(folder, comparison("fp32", "naive", 1.5, 1.0), artifact_sha256="0" * 64)
    with pytest.raises(BadRequest, match="is of another artifact"):
        page_report([folder], "html")


def test_a_changed_file_of_an_artifact_is_refused(folder: Path) -> None:
    changed(folder / "precision_plan.json", lambda plan: plan["nodes"].pop())
    with pytest.raises(DamagedArtifact, match=r"precision_plan.json: changed since the export"):
        page_report([folder], "html")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda plan: plan["nodes"][0].update(precision="int8"), "nodes[0].precision"),
        (lambda plan: plan["nodes"][0].pop("reason"), "nodes[0].reason"),
        (lambda plan: plan["tensors"].update(x=3), "tensors.x"),
        (lambda plan: plan["tensors"].update(x={"largest": -1}), "tensors.x.largest"),
        (lambda plan: plan.update(nodes={}), "nodes"),
    ],
)
def test_a_plan_that_is_none_is_refused_by_file_and_key(
    change: Callable[[Any], object], key: str, folder: Path
) -> None:
    changed(folder / "precision_plan.json", change)
    rewritten(folder, lambda manifest: None)
    with pytest.raises(BadRequest) as refused:
        page_report([folder], "html")
    assert f"'{key}'" in str(refused.value)


@pytest.mark.parametrize("cases", [None, 3, [["normal"]], {"normal": 1}])
def test_cases_that_are_no_names_leave_out_what_needs_them(cases: object, folder: Path) -> None:
    rewritten(folder, lambda manifest: manifest.update(cases=cases))
    assert "no operations are counted" in page_report([folder], "markdown").text


def test_headroom_is_told_of_what_is_finite_and_the_rest_is_named(folder: Path) -> None:
    extremes = {"tight": {"largest": 6550.4}, "lost": {"largest": None}}
    changed(folder / "precision_plan.json", lambda plan: plan["tensors"].update(extremes))
    rewritten(folder, lambda manifest: None)
    text = page_report([folder], "markdown").text
    assert "| tight | 6,550 | 10.0 |" in text
    assert "1 tensors took values that are not finite, and stand in no plot or table: lost." in text


@pytest.mark.parametrize("largest", [0.0, 5e-324, 65504.0, 1.7e308, None])
def test_any_magnitude_can_be_drawn(largest: float | None, folder: Path) -> None:
    changed(folder / "precision_plan.json", lambda plan: plan["tensors"].update(x={"largest": largest}))
    rewritten(folder, lambda manifest: None)
    assert page_report([folder], "html").passed


@pytest.mark.parametrize(("median", "ratio", "error"), [(0.0, 1.0, 0.0), (1e8, 1e-3, 5.0), (1e-9, 900.0, 1e9)])
def test_any_time_and_ratio_can_be_drawn(median: float, ratio: float, error: float, folder: Path) -> None:
    write_bench(folder, comparison("fp32", "naive", ratio, median, error=error))
    assert page_report([folder], "html").passed


def test_markdown_needs_no_plots(folder: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = cli("report", folder, "-o", "report.html")
    assert done.exit_code == 2
    assert "pip install 'deploy-attn[report]'" in done.stderr
    assert cli("report", folder, "--markdown").exit_code == 0
