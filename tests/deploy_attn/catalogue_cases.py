"""Small instances of every catalogue module, with statistics that a BatchNorm could have."""

from __future__ import annotations

from collections.abc import Mapping

from deploy_attn import create
from deploy_attn.modules.base import ReferenceForm
from deploy_attn.modules.disturb import disturb_constants

# Options with which a module is small and takes few channels; a module that is not named has none to give.
SMALL: Mapping[str, Mapping[str, object]] = {
    "se": {"reduction": 4},
    "cbam": {"reduction": 4},
    "cbam_residual": {"reduction": 4},
    "mobilevit": {"dim": 16, "patch_size": 2},
    "sk": {"min_hidden": 4},
    "mhsa": {"heads": 2},
    "gsop": {"att_dim": 8},
    "fca": {"reduction": 4, "frequencies": "top4", "dct_height": 3, "dct_width": 2},
    "encnet": {"codes": 4},
}

# Channels are a multiple of this for a module to take them.
CHANNEL_STEP: Mapping[str, int] = {"cot": 4, "shuffle": 16, "mhsa": 2, "fca": 4, "bilinear": 16, "non_local": 2}


def small(name: str, channels: int = 32, **options: object) -> ReferenceForm:
    """A small reference form in float64 and eval mode, none of its weights or statistics at its initial constant."""
    form = create(name, **{"channels": channels, **SMALL.get(name, {}), **options})
    disturb_constants(form)
    return form.double().eval()
