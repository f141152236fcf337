"""matplotlib's SVG as an element of a page: no fixed colours, no ids that could meet those of another plot.

Colours are written as stand-ins and become the page's CSS variables, so that a plot follows the page into the dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploy_attn.html_report.blocks import printable
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.plain_text import plain

if TYPE_CHECKING:
    import xml.etree.ElementTree as ElementTree

    from deploy_attn.html_report.blocks import Figure

INK, MUTED, GRID, FP32, FP16, BASELINE, BAND, PAPER = (f"#{one:02x}{one:02x}{one:02x}" for one in range(1, 9))

_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        INK: "var(--ink)",
        MUTED: "var(--muted)",
        GRID: "var(--grid)",
        FP32: "var(--fp32)",
        FP16: "var(--fp16)",
        BASELINE: "var(--other)",
        BAND: "var(--band)",
        PAPER: "var(--paper)",
    }
)
_WIDTH = 5.0  # inches of 72 units: a phone shows a plot about as large as it is drawn
_FONT = "DejaVu Sans"  # comes with matplotlib, and is wider than what a page shows instead
_SETTINGS: Mapping[Any, Any] = MappingProxyType(
    {
        "axes.edgecolor": MUTED,
        "axes.facecolor": "none",
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.unicode_minus": False,
        "figure.facecolor": "none",
        "font.family": [_FONT],
        "font.size": 9.5,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "deploy-attn",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.color": MUTED,
        "ytick.labelcolor": INK,
    }
)
_MOST_LABEL = 46  # characters
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_DROPPED = (f"{_SVG}metadata", f"{_SVG}style", f"{_SVG}clipPath")
_REFERENCE = re.compile(r"#([\w-]+)")
_NUMBER = re.compile(r"-?\d+\.\d+")
# What the page's style says of all plots.
_DEFAULTS = ("font-family: var(--sans)", "fill: var(--ink)", "text-anchor: start")
_NUMBERS_IN = ("d", "points", "transform", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height")


def rendered(figure: Figure, name: str) -> str:
    """A plot as an <svg> element; `name` sets its ids apart from those of other plots of the page.

    Raises:
        BadRequest: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Sheet
    except (ImportError, ValueError) as error:  # ValueError: a backend in the environment that there is none of
        raise BadRequest(
            f"A page with plots needs matplotlib, which cannot be loaded: {error}. Install it with "
            "`pip install 'deploy-attn[report]'`, or ask for --markdown, which has the same figures as tables."
        ) from error
    written = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the page's fonts draw it
        matplotlib.rcdefaults()  # whatever the user's own settings are
        matplotlib.rcParams.update(_SETTINGS)
        sheet = Sheet(figsize=(_WIDTH, figure.height), layout="constrained")
        FigureCanvasSVG(sheet)
        figure.draw(sheet.add_subplot())
        sheet.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return _element(written.getvalue(), name, figure)


def label(text: str) -> str:
    """Text of a file as a plot bears it: short, and all that does not print escaped."""
    shown = plain(text[: _MOST_LABEL + 1])
    return shown if len(shown) <= _MOST_LABEL else f"{shown[: _MOST_LABEL - 3]}..."


def _element(written: str, name: str, figure: Figure) -> str:
    import xml.etree.ElementTree as ElementTree

    root = ElementTree.fromstring(written)  # noqa: S314 - matplotlib's own
    for parent in root.iter():
        parent[:] = [child for child in parent if child.tag not in _DROPPED and child.get("style") != "fill: none"]
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.text = element.text if (element.text or "").strip() else None
        element.tail = None
        element.attrib.pop("clip-path", None)  # nothing leaves the axes by more than the page cuts off
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        if "style" in element.attrib:
            element.set("style", _themed(element.get("style", "")))
        for key in _NUMBERS_IN:
            if key in element.attrib:
                element.set(key, _shortened(element.get(key, "")))
    _name_apart(root, name)
    root[:] = _ungrouped(root)
    _describe(root, name, figure)
    return ElementTree.tostring(root, encoding="unicode")


def _ungrouped(parent: ElementTree.Element) -> list[ElementTree.Element]:
    """Children without the groups that only bore an id."""
    found: list[ElementTree.Element] = []
    for child in parent:
        child[:] = _ungrouped(child)
        found.extend(child if child.tag == "g" and not child.attrib else [child])
    return [child for child in found if child.attrib or len(child)]


def _name_apart(root: ElementTree.Element, name: str) -> None:
    """Ids that something refers to get the plot's name; the others go."""
    written = [value for element in root.iter() for value in element.attrib.values()]
    used = {found for value in written for found in _REFERENCE.findall(value)}
    for element in root.iter():
        own = element.attrib.pop("id", "")
        if own in used:
            element.set("id", f"{name}-{own}")
        reference = element.attrib.pop(f"{_XLINK}href", "")
        if reference:
            element.set("href", f"#{name}-{reference[1:]}")


def _themed(style: str) -> str:
    for stand_in, variable in _VARIABLES.items():
        style = style.replace(stand_in, variable)
    style = style.replace(f"'{_FONT}'", "var(--sans)")
    return "; ".join(part for part in style.split("; ") if part not in _DEFAULTS)


def _shortened(numbers: str) -> str:
    """A path with a tenth of a unit, and no blank more than needed."""
    return " ".join(_NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), numbers).split())


def _describe(root: ElementTree.Element, name: str, figure: Figure) -> None:
    """A name and a description for who does not see the plot."""
    import xml.etree.ElementTree as ElementTree

    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib.update(
        {"role": "img", "class": "plot", "aria-labelledby": f"{name}-title", "aria-describedby": f"{name}-description"}
    )
    for place, (tag, text) in enumerate((("title", figure.title), ("desc", figure.description))):
        element = ElementTree.Element(tag, {"id": f"{name}-{'title' if tag == 'title' else 'description'}"})
        element.text = printable(text)
        root.insert(place, element)
