"""LPIPS with AlexNet (Zhang et al., arXiv 1801.03924): how different two images look, by the features of a network.

Written from the paper, with the names that published weights go by, which load as they are: AlexNet's features of
torchvision (Krizhevsky, arXiv 1404.5997) and the paper's linear weights, `lin0.model.1.weight` to `lin4.model.1.weight`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wristworld_ros.models.state_dict import load_strict, named_tensors

# Mean and deviation of ImageNet's colours, 0 to 1, which AlexNet was trained with.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What other state dicts call AlexNet's layers: an LPIPS module that cuts the network into slices.
_SLICES = {f'net.slice{i + 1}.{layer}.': f'features.{layer}.' for i, layer in enumerate((0, 3, 6, 8, 10))}
# Tensors of those state dicts that are no weights of LPIPS: AlexNet's classifier, constants, linear weights told twice.
_IGNORED = ('classifier.', 'scaling_layer.', 'lins.')


class Lpips(nn.Module):
    """The distance of pairs of images.

    After each of AlexNet's five ReLUs the features of a pixel are scaled to unit length; their squared differences are
    weighted per channel, averaged over the image and summed over the layers.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.linear = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in (64, 192, 384, 256, 256))
        self.register_buffer('mean', torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('deviation', torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Distances [N] of images float [N, 3, H, W] and others of the same shape, both 0 to 1; sides of 31 or more."""
        layers = zip(self.linear, self._layers(images), self._layers(others), strict=True)
        return torch.stack([((one - two).square() * w).sum(1).mean((1, 2)) for w, one, two in layers]).sum(0)

    def _layers(self, images: Tensor) -> list[Tensor]:
        x, layers = (images - self.mean) / self.deviation, []
        for module in self.features:
            x = module(x)
            if isinstance(module, nn.ReLU):
                layers.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return layers

    def load(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Take published weights, of both parts together.

        Args:
            weights: Name -> tensor.
            source: Where they come from, for the message.

        Raises:
            UserError: A tensor is missing, unknown or of another shape.
        """
        known = {_own_name(name): tensor for name, tensor in weights.items() if not name.startswith(_IGNORED)}
        load_strict(named_tensors(self, _published_name), known, source)


def _published_name(name: str) -> str:
    layer = name.removeprefix('linear.')
    return name if layer == name else f'lin{layer}.model.1.weight'


def _own_name(name: str) -> str:
    for theirs, ours in _SLICES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
