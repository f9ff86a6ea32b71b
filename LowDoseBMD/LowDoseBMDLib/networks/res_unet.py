"""3D-ResUNet: the bone network of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def build_res_unet(in_channels: int = 1, out_channels: int = 5,
                   channels: tuple[int, ...] = (16, 32, 64, 128, 256), res_units: int = 2) -> torch.nn.Module:
    """A 3D UNet with residual units before each change of resolution.

    From the paper (step 1): UNet skeleton, a residual structure before each convolution, input the CT, output
    background, vertebrae, clavicles, scapulae and ribs. Our choice, as the paper gives no numbers: MONAI's UNet
    with ``res_units`` residual sub-units a level, five levels halved by strided convolutions, instance
    normalisation (batches are small) and PReLU.

    Input (N, in_channels, K, J, I) normalised HU; every side a multiple of 2 ** (len(channels) - 1).
    Output (N, out_channels, K, J, I) logits.
    """
    from monai.networks.nets import UNet

    return UNet(spatial_dims=3, in_channels=in_channels, out_channels=out_channels, channels=channels,
                strides=(2,) * (len(channels) - 1), num_res_units=res_units, norm="INSTANCE")
