"""Where what is built on this machine is kept, to be found again."""

from __future__ import annotations

import os
from pathlib import Path

from deploy_attn.jetson.errors import BadRequest, first_line


def cache_folder() -> Path:
    """deploy-attn's folder in the user's cache; a relative XDG_CACHE_HOME is ignored, as its specification wants.

    Raises:
        BadRequest: the user has no home.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "deploy-attn"
    except RuntimeError as error:
        raise BadRequest(f"No folder for what is built here: {first_line(error)}. Set XDG_CACHE_HOME.") from error
