"""A page as one HTML file that loads nothing: text escaped by the template engine, no script, a policy that bars both.

jinja2 escapes whatever is text; torch needs it too. Only plots go in as they are, which `svg` makes.
"""

from __future__ import annotations

import itertools
from importlib.resources import files
from typing import TYPE_CHECKING

from deploy_attn.html_report.blocks import printable
from deploy_attn.html_report.svg import rendered
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    from markupsafe import Markup

    from deploy_attn.html_report.blocks import Figure, Page


def html_of(page: Page) -> str:
    """The page as a document.

    Raises:
        BadRequest: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise BadRequest(
            "An HTML page needs jinja2, which is not installed. Install it with `pip install 'deploy-attn[report]'`, "
            "or ask for --markdown."
        ) from error
    numbers = itertools.count(1)

    def plot(figure: Figure) -> Markup:
        return Markup(rendered(figure, f"plot{next(numbers)}"))  # noqa: S704 - of our own making

    def shown(value: object) -> object:
        return printable(value) if type(value) is str else value

    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=shown, trim_blocks=True)
    template = environment.from_string(_text("page.html"))
    style = Markup(_text("page.css"))  # noqa: S704 - a file of this package
    return template.render(page=page, plot=plot, style=style)


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
