"""Attention-UNet: the keypoint network of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def build_attention_unet(in_channels: int = 1, out_channels: int = 3,
                         channels: tuple[int, ...] = (16, 32, 64, 128, 256), res_units: int = 1,
                         features: int = 8) -> torch.nn.Module:
    """A UNet whose last features pass an attention gate before the output layer.

    From the paper (step 2): an attention mechanism placed before the UNet's output layer; output the positions
    of T12, L1 and L2. Our choice: the positions are heatmaps, one channel a level; the gate is the additive
    attention of Oktay et al. 2018 (arXiv 1804.03999), which weighs shallow features of the image by what the
    decoder, which has seen the whole field of view, makes of each place (instance instead of batch
    normalisation, because batches are small); the trunk is MONAI's residual UNet.

    Input (N, in_channels, K, J, I) normalised HU; every side a multiple of 2 ** (len(channels) - 1).
    Output (N, out_channels, K, J, I) heatmap logits.
    """
    import torch
    from monai.networks.blocks import Convolution
    from monai.networks.nets import UNet

    class AttentionUNet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = UNet(spatial_dims=3, in_channels=in_channels, out_channels=features, channels=channels,
                              strides=(2,) * (len(channels) - 1), num_res_units=res_units, norm="INSTANCE")
            self.shallow = Convolution(3, in_channels, features, kernel_size=3, norm="INSTANCE")
            self.query = torch.nn.Conv3d(features, features // 2, kernel_size=1)
            self.key = torch.nn.Conv3d(features, features // 2, kernel_size=1)
            self.weight = torch.nn.Conv3d(features // 2, 1, kernel_size=1)
            self.output = torch.nn.Conv3d(2 * features, out_channels, kernel_size=1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            deep, shallow = self.trunk(image), self.shallow(image)
            attention = torch.sigmoid(self.weight(torch.relu(self.query(deep) + self.key(shallow))))
            return self.output(torch.cat([deep, attention * shallow], dim=1))

    return AttentionUNet()
