"""Efficient Channel Attention, with a given kernel and a bias.

ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks,
arXiv 1910.03151, section 3.2.

The source fixes the kernel (3 by default) whatever the channels, and its
convolution has a bias, which the authors' has not. It knows no channel count:
`channels` is there for the catalogue's uniform call, and one instance takes
maps of any. Keys: `conv.weight`, `conv.bias`.

The export form is ECA's (see eca.py for why it is equal).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from deploy_attn.modules.base import ReferenceForm, both
from deploy_attn.modules.eca import eca_form, gated_by_neighbours


class ECAFixed(ReferenceForm):
    """x * sigmoid(conv1d over the channels of mean(x)), `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "eca_fixed"

    def __init__(self, channels: int | None = None, kernel_size: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        return gated_by_neighbours(x, self.conv)


ECAFixed.forms = both(eca_form)
