"""What was chosen for an artifact by measurement: export forms and engine settings, with all that was tried."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_attn.benching.file import ratio_of
from deploy_attn.engines.json_fields import Fields, read_fields
from deploy_attn.engines.settings_file import settings_file, stored_settings
from deploy_attn.html_report.blocks import NONE, Block, Table, Text, columns
from deploy_attn.html_report.subjects import Subject

_FORMS = "forms.json"
_REMEDY = "Export again with --tune, or tune again with `deploy-attn tune`."
_MOST_ROWS = 120


def tuned_blocks(subject: Subject) -> Iterator[Block]:
    """Tables of what was tried; none where nothing was tuned."""
    if _FORMS in subject.artifact.manifest["files"]:
        parts = read_fields(subject.folder / _FORMS, _REMEDY).parts("tried")
        rows = [(part.text("module"), part.text("form"), *_outcome(part, "chosen")) for part in parts]
        heads = columns("Module", "Form", "Chosen", "Why", numbers=("Ratio", "Pairs"))
        yield Table("Export forms that were tried", heads, tuple(rows[:_MOST_ROWS]), folded=True)
    settings = stored_settings(subject.artifact)
    if not settings:
        return
    precisions = read_fields(settings_file(subject.folder), _REMEDY).part("precisions")
    for precision, chosen in settings.items():
        stands = precisions.part(precision).values.get("start") == chosen.as_dict()
        told = ": nothing was faster beyond doubt, so the default stands" if stands else ""
        yield Text(f"Tuned settings of onnxruntime for {precision}: {chosen}{told}.")
    tried = [(name, part) for name in settings for part in precisions.part(name).parts("tried")]
    rows = [(name, _settings(part.part("settings")), *_outcome(part, "kept")) for name, part in tried]
    heads = columns("Precision", "Settings", "Kept", "Why", numbers=("Ratio", "Pairs"))
    yield Table("Settings that were tried", heads, tuple(rows[:_MOST_ROWS]), folded=True)


def _outcome(part: Fields, key: str) -> tuple[str, str, str, str]:
    """Whether it was taken, why, and the ratio where it was timed."""
    taken = "yes" if part.flag(key) else "no"
    if not part.has("ratio"):
        return taken, part.text("reason"), NONE, NONE
    ratio = ratio_of(part.part("ratio"))
    return taken, part.text("reason"), f"{ratio.median:.3f}", str(ratio.pairs)


def _settings(part: Fields) -> str:
    threads = part.count("intra_op_threads")
    subnormals = "zero" if part.flag("denormals_zero") else "kept"
    spinning = "spinning" if part.flag("spinning") else "no spinning"
    return f"level {part.text('level')}, threads {threads or 'as it chooses'}, subnormals {subnormals}, {spinning}"
