"""What a wrist camera shows on average, in the place of what the anchors do not tell.

A wrist camera always sees its own gripper in the same place. A model that was adapted to one camera keeps its mean image, and how
much what the anchors show is worth beside it, by how far each pixel is trusted; the generator starts from both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from wristworld_ros.types import ConditionMap

NOWHERE = 10.0  # metres: the depth of pixels that show the mean image alone


@dataclass(frozen=True)
class WristPrior:
    """image: uint8 [h, w, 3], the mean wrist image. weights: of what the anchors show, in equal steps of trust from 0 to 1, each 0 to 1;
    linear between them."""

    image: torch.Tensor
    weights: tuple[float, ...]

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

    def __call__(self, condition: ConditionMap) -> ConditionMap:
        """The condition map over the mean image; holes show the mean image, untrusted and far away."""
        seen = condition.depth > 0
        weight = torch.where(seen, self.weight(condition.trust), 0.0)[..., None]
        image = torch.lerp(self.image.float(), condition.image.float(), weight)
        return replace(
            condition,
            image=image.round().clamp(0, 255).to(torch.uint8),
            depth=torch.where(seen, condition.depth, NOWHERE),
            confidence=torch.where(seen, condition.trust, 0.0),
        )
