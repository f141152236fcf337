"""From a catalogue name to its reference form."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.modules.catalogue import entry
from deploy_attn.modules.settings import settings, source_options

if TYPE_CHECKING:
    from deploy_attn.modules.base import ReferenceForm


def create(name: str, **options: object) -> ReferenceForm:
    """Builds the trainable reference form of a catalogue module.

    >>> import deploy_attn, torch
    >>> se = deploy_attn.create("se", channels=32, reduction=8)
    >>> tuple(se(torch.zeros(1, 32, 7, 9)).shape)
    (1, 32, 7, 9)

    Args:
        name: one of `deploy_attn.available()`.
        options: `channels`, and the module's own options under the
            catalogue's names or the source's (`ratio` for `reduction` ...).

    Raises:
        BadRequest: unknown name or option, a value of the wrong type, or
            channels that the module cannot take.
    """
    found = entry(name)
    renamed = source_options(name, options)
    if len(renamed) != len(options):
        raise BadRequest(f"create({name!r}) got one option under two names: {', '.join(options)}.")
    channels = renamed.pop("channels", None)
    if channels is None and not found.needs_channels:
        values = settings(name, None, renamed)
    elif isinstance(channels, int) and not isinstance(channels, bool):
        values = settings(name, channels, renamed)
    else:
        raise BadRequest(f"create({name!r}) needs channels, an int; got {channels!r}.")
    form: ReferenceForm = getattr(importlib.import_module(found.module), found.class_name)(**values)
    return form
