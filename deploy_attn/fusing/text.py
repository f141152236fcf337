"""What `fuse` wrote, for a person: each parity case, and how a session takes the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy_attn.engines.fused.graph_file import ENGINE
from deploy_attn.verdict_text import cell

if TYPE_CHECKING:
    from deploy_attn.fusing.fuse import Fused


def show_fused(fused: Fused) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for check in fused.checks:
        if check.comparison is not None:
            found = check.comparison.rms_relative
            console.print(f"  {cell(check.case)}: RMS relative {found:.1e}, allowed {check.tolerance.rms_relative:.0e}")
    console.print(f"[green]fused[/green]  {cell(fused.name)} as one operator: {cell(str(fused.file))}", soft_wrap=True)
    console.print(f"library: {cell(str(fused.library))}, for this processor", soft_wrap=True)
    if fused.kept:
        folder = cell(str(fused.folder))
        console.print(f"next: deploy-attn verify {folder} --engine {ENGINE}", soft_wrap=True)
        console.print(f"      deploy-attn bench {folder} --against fused", soft_wrap=True)
    console.print(
        "A session of your own takes the library before it is made: "
        "SessionOptions.register_custom_ops_library(LIBRARY). FP32, one thread, any batch, height and width. "
        "An image, or its channel, with NaN or Inf in it comes out as NaN.",
        soft_wrap=True,
    )
