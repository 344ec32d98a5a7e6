"""Dense prediction heads for depth, world points and the tracker's features: DPT (arXiv 2103.13413) as VGGT uses it."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wristworld_ros.models.vggt.aggregator import SPECIAL

UV_SCALE = 0.1
UV_BASE = 100.0
HIDDEN = 32


class ResidualUnit(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, plus ReLU(x).

    The first ReLU works in place, as in the published model, whose skip connection therefore adds ReLU(x); the input is
    overwritten.
    """

    def __init__(self, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x, inplace=True)
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


class FusionBlock(nn.Module):
    """The coarser map plus one layer's map, refined and resized to the next finer size."""

    def __init__(self, features: int, with_layer: bool):
        super().__init__()
        self.resConfUnit1 = ResidualUnit(features) if with_layer else nn.Identity()
        self.resConfUnit2 = ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, layer: Tensor | None, size: tuple[int, int]) -> Tensor:
        if layer is not None:
            x = x + self.resConfUnit1(layer)
        # The 1x1 convolution and the resize commute (bilinear weights sum to one); this order convolves fewer pixels.
        return F.interpolate(self.out_conv(self.resConfUnit2(x)), size, mode='bilinear', align_corners=True)


class Scratch(nn.Module):
    """The convolutions behind the four layers' maps, under the public checkpoints' names."""

    def __init__(self, features: int, channels: tuple[int, ...], out_channels: int | None):
        super().__init__()
        one, two, three, four = channels
        self.layer1_rn = nn.Conv2d(one, features, 3, padding=1, bias=False)
        self.layer2_rn = nn.Conv2d(two, features, 3, padding=1, bias=False)
        self.layer3_rn = nn.Conv2d(three, features, 3, padding=1, bias=False)
        self.layer4_rn = nn.Conv2d(four, features, 3, padding=1, bias=False)
        self.refinenet1 = FusionBlock(features, with_layer=True)
        self.refinenet2 = FusionBlock(features, with_layer=True)
        self.refinenet3 = FusionBlock(features, with_layer=True)
        self.refinenet4 = FusionBlock(features, with_layer=False)
        width = features if out_channels is None else features // 2
        self.output_conv1 = nn.Conv2d(features, width, 3, padding=1)
        self.output_conv2 = nn.Sequential()
        if out_channels is not None:
            self.output_conv2.extend(
                [nn.Conv2d(width, HIDDEN, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(HIDDEN, out_channels, 1)]
            )


class DenseHead(nn.Module):
    """Four layers of tokens to one map per view.

    Args:
        dim: Channels of the tokens.
        features: Channels inside the head.
        channels: Channels of the four layers' maps before they are fused.
        patch_size: Pixels a side.
        out_channels: Channels of the map, the last one the confidence; None keeps the features: without output_conv2
            and UV embedding, the map has ``features`` channels and half the image's size.
    """

    def __init__(self, dim: int, features: int, channels: tuple[int, ...], patch_size: int, out_channels: int | None):
        super().__init__()
        self.patch_size, self.keep_features = patch_size, out_channels is None
        self.norm = nn.LayerNorm(dim)
        self.projects = nn.ModuleList(nn.Conv2d(dim, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, 4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, 2, 1),
            ]
        )
        self.scratch = Scratch(features, channels, out_channels)

    def forward(self, layers: list[Tensor], image_hw: tuple[int, int]) -> Tensor:
        """The map before any activation.

        Args:
            layers: Tokens of the four layers, each [N, P, dim] for N views.
            image_hw: Pixels.

        Returns:
            Float [N, out_channels, H, W], or the features [N, features, H/2, W/2].
        """
        height, width = image_hw
        grid_hw = (height // self.patch_size, width // self.patch_size)
        aspect = width / height
        # Low precision is only faster on the large maps; a CPU has no fast low-precision gradients for the small ones.
        with torch.autocast(layers[0].device.type, enabled=False):
            one, x = self._fuse([tokens.to(self.norm.weight.dtype) for tokens in layers], grid_hw, aspect)
        s = self.scratch
        x = s.refinenet1(x, one, (2 * one.shape[-2], 2 * one.shape[-1]))
        size = (height // 2, width // 2) if self.keep_features else (height, width)
        x = F.interpolate(s.output_conv1(x), size, mode='bilinear', align_corners=True)
        if self.keep_features:
            return x
        hidden = s.output_conv2[:2](self._with_uv(x, aspect))
        last = s.output_conv2[2]
        with torch.autocast(x.device.type, enabled=False):  # points are metres: bfloat16 would be off by millimetres
            return last(hidden.to(last.weight.dtype))

    def _fuse(self, layers: list[Tensor], grid_hw: tuple[int, int], aspect: float) -> tuple[Tensor, Tensor]:
        """The finest layer's map and the fused coarser three, both at its size."""
        maps = []
        for k, tokens in enumerate(layers):
            x = self.norm(tokens[:, SPECIAL:]).transpose(1, 2).unflatten(2, grid_hw)
            x = self._with_uv(self.projects[k](x), aspect)
            maps.append(self.scratch.get_submodule(f'layer{k + 1}_rn')(self.resize_layers[k](x)))
        one, two, three, four = maps
        s = self.scratch
        x = s.refinenet4(four, None, three.shape[-2:])
        x = s.refinenet3(x, three, two.shape[-2:])
        return one, s.refinenet2(x, two, one.shape[-2:])

    def _with_uv(self, x: Tensor, aspect: float) -> Tensor:
        if self.keep_features:
            return x
        return x + uv_embedding(x.shape[1], *x.shape[-2:], aspect, x.device, x.dtype)


@lru_cache(maxsize=64)
def uv_embedding(
    channels: int, height: int, width: int, aspect: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """0.1 times the sin-cos embedding of a map's pixel positions; the last 64 are kept, outside the state dict.

    Args:
        channels: Of the map, a multiple of 4.
        height: Of the map, pixels.
        width: Of the map, pixels.
        aspect: Width of the image divided by its height.
        device: Where the embedding is needed.
        dtype: What it is needed in; it is computed in float64.

    Returns:
        [channels, height, width].
    """
    with torch.inference_mode(False), torch.no_grad():
        diagonal = (aspect**2 + 1) ** 0.5
        parts = []
        for size, span in ((width, aspect / diagonal), (height, 1 / diagonal)):
            limit = span * (size - 1) / size
            positions = torch.linspace(-limit, limit, size, dtype=torch.float64, device=device)
            k = torch.arange(channels // 4, dtype=torch.float64, device=device)
            angles = positions[:, None] * UV_BASE ** (-k / (channels / 4))
            parts.append(torch.cat([angles.sin(), angles.cos()], 1).T)
        x_part = parts[0][:, None, :].expand(-1, height, -1)
        y_part = parts[1][:, :, None].expand(-1, -1, width)
        return (UV_SCALE * torch.cat([x_part, y_part])).to(dtype)


def depth_and_confidence(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Activations of the depth head.

    raw: [..., 2, H, W]. Returns depth = exp [..., H, W, 1] and confidence = 1 + exp [..., H, W].
    """
    return raw[..., :1, :, :].exp().movedim(-3, -1), 1 + raw[..., 1, :, :].exp()


def points_and_confidence(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Activations of the point head.

    raw: [..., 4, H, W]. Returns points = sign(y) (exp|y| - 1) [..., H, W, 3] and confidence = 1 + exp [..., H, W].
    """
    y = raw[..., :3, :, :].movedim(-3, -1)
    return y.sign() * y.abs().expm1(), 1 + raw[..., 3, :, :].exp()
