"""The network that chooses, for every pixel of the wrist image, a plane of the sweep and the anchor that shows it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wristworld_ros.models.sweep.planes import SweepViews, sample_views

# Metres above the plane that objects stand on. Fine where objects are; the lowest stand for what lies beyond its edge.
HEIGHTS = (-0.75, -0.04, -0.02, 0.0, 0.012, 0.025, 0.038, 0.052, 0.07, 0.095, 0.13, 0.18)
MIXED = 4  # planes whose colours a pixel mixes; the others' weights are next to nothing
Channels = Annotated[int, msgspec.Meta(ge=8, multiple_of=8)]


@dataclass(frozen=True)
class SweepConfig:
    """Sizes of a `SweepNetwork`.

    heights: metres above the plane, rising. features: channels of an anchor's features. matched: of one plane.
    widths: of the network over all planes, at 1/2, 1/4, ... of the wrist image. anchor_width: pixels that anchors are resized
    to.
    """

    heights: tuple[float, ...] = HEIGHTS
    features: int = 12
    matched: int = 8
    widths: tuple[Channels, ...] = (48, 72, 96, 128)
    anchor_width: int = 224


@dataclass(frozen=True)
class SweepOutput:
    """What the sweep finds, at the wrist's size.

    image: float [B, 3, H, W], 0 to 1, the anchors' colours. depth: float [B, H, W], metres along the wrist's axis; 0 where no
    plane is met. scale: float [B, H, W], expected error of a colour, 0 to 1. views: float [B, V, 3, H, W], what each anchor shows
    there by itself, and seen: bool [B, V, H, W], where it does. logits: [B, D + 1, H, W], of the planes; the last
    is what no anchor shows, such as the robot's own hand.
    """

    image: Tensor
    depth: Tensor
    scale: Tensor
    views: Tensor
    seen: Tensor
    logits: Tensor


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


class _Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = _norm(channels), _norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class AnchorFeatures(nn.Module):
    """Features of every second pixel of an anchor image: what it shows, and how high that seems to stand."""

    def __init__(self, channels: int):
        super().__init__()
        self.stem, self.fine = nn.Conv2d(3, 16, 5, stride=2, padding=2), _Block(16)
        self.down1, self.mid = nn.Conv2d(16, 32, 3, stride=2, padding=1), _Block(32)
        self.down2, self.low = nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.Sequential(_Block(64), _Block(64))
        self.up1, self.mid2 = nn.Conv2d(64, 32, 1), _Block(32)
        self.up2, self.out = nn.Conv2d(32, 16, 1), nn.Conv2d(16, channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W], centred on 0, to [N, channels, H / 2, W / 2]."""
        fine = self.fine(self.stem(images.to(self.stem.weight)))
        mid = self.mid(self.down1(fine))
        mid = self.mid2(mid + _resized(self.up1(self.low(self.down2(mid))), mid))
        return self.out(F.silu(fine + _resized(self.up2(mid), fine)))


class SweepNetwork(nn.Module):
    """Image-based rendering by a plane sweep, in the manner of DeepStereo (arXiv 1506.06825).

    Planes are matched at half the wrist's size from the anchors' features; their weights, at full size, mix the anchors' own
    colours. Any number of anchors; their order does not matter.
    """

    def __init__(self, config: SweepConfig):
        super().__init__()
        self.config = config
        planes, features, widths = len(config.heights), config.features, config.widths
        self.register_buffer('heights', torch.tensor(config.heights), persistent=False)
        self.features = AnchorFeatures(features)
        self.colour = nn.Conv2d(3, features, 1)
        self.height = nn.Parameter(torch.zeros(planes, features))
        self.plane = nn.Conv2d(2 * features + 6, config.matched, 1)
        self.join = nn.Conv2d(config.matched * planes + 2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_Block(w) for w in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.middle = _Block(widths[-1])
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(_Block(w) for w in widths[:-1])
        self.choose = nn.Conv2d(widths[0], 4 * (planes + 1), 3, padding=1)
        self.prefer = nn.Conv2d(widths[0], features, 3, padding=1)
        self.error = nn.Conv2d(widths[0], 4, 3, padding=1)

    def convolve_in(self, dtype: torch.dtype) -> None:
        """Run the larger convolutions in `dtype`, with channels last; weights of planes and anchors, and colours, stay float32."""
        for part in (self.features, self.join, self.down, self.shrink, self.middle, self.grow, self.up):
            part.to(dtype=dtype, memory_format=torch.channels_last)

    def forward(self, images: Tensor, half: SweepViews, full: SweepViews) -> SweepOutput:
        """images: float [B, V, 3, H, W], 0 to 1. half, full: the sweep at half the wrist's size and at its size."""
        matches = self._matches(images - 0.5, half)  # [B, V, D, features, h, w]
        x = self._over_planes(matches, sample_views(images - 0.5, half), half)
        logits = F.pixel_shuffle(self.choose(x), 2).float()
        met = F.pad(full.valid.any(1), (0, 0, 0, 0, 0, 1), value=True)
        logits = logits.masked_fill(~met, -1e4)
        depth = (logits[:, : half.valid.shape[2]].softmax(1) * full.depth).sum(1)
        planes, likeliest = self._likeliest(logits)
        full = full.of_planes(likeliest)
        view = self._preferred(x, matches, half, logits.shape[-2:])
        view = view.gather(2, likeliest[:, None].expand(-1, view.shape[1], -1, -1, -1)).masked_fill(~full.valid, -1e4)
        chosen = planes.softmax(1)[:, None]
        seen = chosen * full.valid
        colours = sample_views(images.to(chosen), full)
        image = ((seen * view.softmax(1))[:, :, :, None] * colours).sum((1, 2))
        share = seen.sum(2)
        views = (seen[:, :, :, None] * colours).sum(2) / share.clamp(min=1e-3)[:, :, None]
        scale = F.softplus(F.pixel_shuffle(self.error(x), 2).float()[:, 0] - 2.0) + 0.01
        return SweepOutput(image, depth, scale, views, share > 0.5, logits)

    def _likeliest(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and numbers of the planes that are mixed, [B, k, H, W]: all in training, the likeliest few otherwise."""
        planes = logits[:, : len(self.config.heights)]
        if self.training:
            numbers = torch.arange(planes.shape[1], device=planes.device)
            return planes, numbers[None, :, None, None].expand(planes.shape)
        found = planes.topk(min(MIXED, planes.shape[1]), 1, sorted=False)
        return found.values, found.indices

    def _preferred(self, x: Tensor, matches: Tensor, views: SweepViews, hw: torch.Size) -> Tensor:
        """Logits of the anchors for each plane at full size, [B, V, D, H, W]."""
        preferred = self.prefer(x)
        nothing = torch.einsum('bfhw,df->bdhw', preferred, F.silu(self.height))
        view = (preferred[:, None, None] * matches).sum(3)
        view = torch.where(views.valid, view, nothing[:, None]) / matches.shape[3] ** 0.5
        full = F.interpolate(view.flatten(1, 2), hw, mode='bilinear', align_corners=False)
        return full.float().unflatten(1, view.shape[1:3])

    def _matches(self, centred: Tensor, views: SweepViews) -> Tensor:
        """What each anchor shows at each plane, anything where it does not. Convolutions by one pixel commute with sampling: they
        come before it."""
        B, V = views.valid.shape[:2]
        features = self.features(centred.flatten(0, 1))
        small = F.interpolate(centred.flatten(0, 1), features.shape[-2:], mode='area')
        features = (features + self.colour(small)).unflatten(0, (B, V))
        # Features lie on every second pixel: pixel 2 j of the image is centre j of the features.
        sampled = sample_views(features.to(centred), SweepViews(views.depth, views.uv / 2, views.valid))
        return F.silu(sampled + self.height[:, :, None, None])

    def _over_planes(self, matches: Tensor, colours: Tensor, views: SweepViews) -> Tensor:
        """Features [B, widths[0], h, w] of every pixel from what anchors show at all planes, and whether they agree."""
        B, _, D = matches.shape[:3]
        valid = views.valid[:, :, :, None].to(matches.dtype)
        count = valid.sum(1).clamp(min=1)
        mean, spread = _moments(matches, valid, count)
        colour, scatter = _moments(colours, valid, count)
        scatter = scatter.sum(2, keepdim=True).add(1e-6).sqrt()
        several = (valid.sum(1) > 1).to(matches.dtype)
        planes = torch.cat([mean, spread, colour, scatter, valid.mean(1), several], 2)
        planes = F.silu(self.plane(planes.flatten(0, 1)))
        h, w = planes.shape[-2:]
        rows, columns = (torch.linspace(-1, 1, n, device=planes.device, dtype=planes.dtype) for n in (h, w))
        place = torch.stack(torch.meshgrid(rows, columns, indexing='ij'))[None].expand(B, -1, -1, -1)
        x = self.join(torch.cat([planes.unflatten(0, (B, D)).flatten(1, 2), place], 1).to(self.join.weight))
        skips = []
        for i, block in enumerate(self.down):
            x = block(self.shrink[i - 1](x) if i else x)
            skips.append(x)
        x = self.middle(x)
        for i in reversed(range(len(self.up))):
            x = self.up[i](F.interpolate(self.grow[i](x), scale_factor=2.0, mode='nearest') + skips[i])
        return x.to(planes)


def _moments(x: Tensor, valid: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the anchors that are valid, of [B, V, ...]."""
    seen = x * valid
    mean = seen.sum(1) / count
    return mean, ((seen * x).sum(1) / count - mean.square()).clamp(min=0)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode='bilinear', align_corners=False)
