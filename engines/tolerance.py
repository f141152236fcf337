"""How far a graph may be from its reference: written here and nowhere else, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from deploy_attn.jetson.parity import Tolerance as Tolerance
from deploy_attn.jetson.parity import fp32_tolerance as fp32_tolerance

# The only place where tolerances are written. One wrong element may be 50 times
# the RMS bound: rounding errors are near normal, and no map here has enough
# elements for an honest one to stray further.
TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {
        "fp32": Tolerance(1e-5, 5e-4, "FP32 arithmetic in another order than the float64 reference"),
        "fp16": Tolerance(2e-3, 1e-1, "four roundings to FP16 (2^-11 each) of the whole signal"),
        "fp16-rounded": Tolerance(
            1e-2,
            5e-1,
            "pessimistic: a rounding at every FP16 node, which no engine does; it bounds, and finds overflow",
        ),
    }
)

# A network is as deep as it is: ResNets of 50 layers were measured at 4e-3.
NETWORK_TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {
        **TOLERANCES,
        "fp16": Tolerance(
            5e-3, 2.5e-1, "a network: each layer rounds its weights and its output to FP16, and that adds up"
        ),
    }
)
