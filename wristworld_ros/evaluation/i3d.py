"""I3D (Carreira and Zisserman, arXiv 1705.07750), the network whose 400 logits of Kinetics FVD compares
(Unterthiner et al., arXiv 1812.01717).

Written from the paper: Inception-v1 (arXiv 1409.4842) with every filter and pooling window inflated in time, batch
normalization in place of biases, and padding as in TensorFlow ('SAME': output sizes are input sizes by strides, rounded
up). Weights load under the names of the published RGB checkpoint's PyTorch conversion (`Mixed_3b.b1a.conv3d.weight`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wristworld_ros.models.state_dict import load_strict, named_tensors

CLASSES = 400
SIDE = 224  # pixels that videos are resized to
# Channels of the branches: 1x1; 1x1 then 3x3; 1x1 then 3x3; pooled then 1x1.
_BLOCKS = {
    'Mixed_3b': (64, 96, 128, 16, 32, 32),
    'Mixed_3c': (128, 128, 192, 32, 96, 64),
    'Mixed_4b': (192, 96, 208, 16, 48, 64),
    'Mixed_4c': (160, 112, 224, 24, 64, 64),
    'Mixed_4d': (128, 128, 256, 24, 64, 64),
    'Mixed_4e': (112, 144, 288, 32, 64, 64),
    'Mixed_4f': (256, 160, 320, 32, 128, 128),
    'Mixed_5b': (256, 160, 320, 32, 128, 128),
    'Mixed_5c': (384, 192, 384, 48, 128, 128),
}
# Windows and strides of the pooling before a layer.
_POOLED = {
    'Conv3d_2b_1x1': ((1, 3, 3), (1, 2, 2)),
    'Mixed_3b': ((1, 3, 3), (1, 2, 2)),
    'Mixed_4b': ((3, 3, 3), (2, 2, 2)),
    'Mixed_5b': ((2, 2, 2), (2, 2, 2)),
}
_EPS = 1e-3  # of the batch normalization, as trained


def _pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Zeros around [B, C, T, H, W], the odd one behind, so that a window gives ceil(size / stride) values."""
    pads = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def _pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    # Features come from a ReLU, so zeros never win where a window holds anything else.
    return F.max_pool3d(_pad_same(x, kernel, stride), tuple(kernel), tuple(stride))


class _Unit(nn.Module):
    """Convolution, batch normalization, ReLU."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(channels, out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(_pad_same(x, self.kernel, self.stride))))


class _Block(nn.Module):
    """Four branches side by side."""

    def __init__(self, channels: int, widths: tuple[int, ...]):
        super().__init__()
        self.b0 = _Unit(channels, widths[0], 1)
        self.b1a, self.b1b = _Unit(channels, widths[1], 1), _Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = _Unit(channels, widths[3], 1), _Unit(widths[3], widths[4], 3)
        self.b3b = _Unit(channels, widths[5], 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = _pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


class _Logits(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv3d = nn.Conv3d(channels, CLASSES, 1)


class I3d(nn.Module):
    """RGB videos to the logits of Kinetics-400."""

    def __init__(self):
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = _Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        channels = 192
        for name, widths in _BLOCKS.items():
            self.add_module(name, _Block(channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = _Logits(channels)
        self.eval()

    def maps(self, video: Tensor) -> dict[str, Tensor]:
        """The output of every layer before the logits, by name; video float [B, 3, T, H, W], -1 to 1."""
        x, found = video, {}
        for name, layer in self.named_children():
            if name == 'logits':
                break
            if name in _POOLED:
                x = _pool(x, *_POOLED[name])
            x = found[name] = layer(x)
        return found

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, 400], averaged over time.

        Args:
            video: Float [B, 3, T, H, W], RGB, -1 to 1, T at least 9; H and W are resized to 224.
        """
        if video.shape[-2:] != (SIDE, SIDE):
            frames = video.transpose(1, 2).flatten(0, 1)
            frames = F.interpolate(frames, (SIDE, SIDE), mode='bilinear', align_corners=False)
            video = frames.unflatten(0, (len(video), -1)).transpose(1, 2)
        features = self.maps(video)['Mixed_5c']
        pooled = F.avg_pool3d(features, (2, *features.shape[-2:]), stride=1)
        return self.logits.conv3d(pooled).mean((2, 3, 4))

    def load(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Take published weights.

        Args:
            weights: Name -> tensor; counters of the batch normalization are ignored.
            source: Where they come from, for the message.

        Raises:
            UserError: A tensor is missing, unknown or of another shape.
        """
        targets, known = (
            {name: tensor for name, tensor in tensors.items() if not name.endswith('num_batches_tracked')}
            for tensors in (named_tensors(self), weights)
        )
        load_strict(targets, known, source)
