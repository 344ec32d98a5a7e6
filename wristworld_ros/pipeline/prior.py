"""What a wrist camera shows on average, in the place of what the anchors do not tell.

A wrist camera always sees its own gripper in the same place. A model that was adapted to one camera keeps its mean image, and how
much what the anchors show is worth beside it, by how far each pixel is trusted; the generator starts from both. A dark scene is dark
from the wrist too, so the mean image is as bright as the anchors' images are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from wristworld_ros.types import ConditionMap

NOWHERE = 10.0  # metres: the depth of pixels that show the mean image alone
_MOST = 3.0  # times brighter or darker than the mean image


@dataclass(frozen=True)
class WristPrior:
    """image: uint8 [h, w, 3], the mean wrist image. weights: of what the anchors show, in equal steps of trust from 0 to 1, each 0 to 1;
    linear between them. light: of the anchors whose wrist image that is, see `light_of`."""

    image: torch.Tensor
    weights: tuple[float, ...]
    light: float

    def to(self, device: torch.device) -> WristPrior:
        """The same on a device."""
        return replace(self, image=self.image.to(device))

    def weight(self, trust: torch.Tensor) -> torch.Tensor:
        """How much what is seen counts, of the shape of `trust` (0 to 1)."""
        table = torch.tensor(self.weights, device=trust.device)
        place = trust.float().clamp(0, 1) * (len(table) - 1)
        low = place.floor().long().clamp(max=max(len(table) - 2, 0))
        high = (low + 1).clamp(max=len(table) - 1)
        return torch.lerp(table[low], table[high], place - low)

    def __call__(self, condition: ConditionMap, anchors: np.ndarray) -> ConditionMap:
        """The condition map of anchors uint8 [V, H, W, 3] over the mean image in their light; holes show the mean image, untrusted and
        far away."""
        seen = condition.depth > 0
        mean = (self.image.float() * brightness(light_of(anchors), self.light)).clamp(max=255)
        weight = torch.where(seen, self.weight(condition.trust), 0.0)[..., None]
        image = torch.lerp(mean, condition.image.float(), weight)
        return replace(
            condition,
            image=image.round().clamp(0, 255).to(torch.uint8),
            depth=torch.where(seen, condition.depth, NOWHERE),
            confidence=torch.where(seen, condition.trust, 0.0),
        )


def light_of(anchors: np.ndarray) -> float:
    """Mean level of anchor images uint8 [..., H, W, 3], 1 (not 0, so that it can be compared) to 255."""
    return max(1.0, float(anchors.mean()))


def brightness(light: float, of: float) -> float:
    """How many times brighter one light is than another, within bounds: beyond them exposures say little of the scene."""
    return float(np.clip(light / of, 1 / _MOST, _MOST))
