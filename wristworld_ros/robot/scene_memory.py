"""What anchors saw before the robot moved in front of it: one more layer of depth and colour for each anchor."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.geometry.poses import has_moved

_COVER_M = 0.04  # what is measured farther from the robot's surface is not the robot
_BESIDE = 4  # pixels


class SceneMemory:
    """Remembers, for every pixel that the robot now covers, the last depth and colour measured there without it.

    Memory is bounded: one layer per anchor, of the size of its depth. A pixel that is seen again replaces what is
    remembered; a moved camera, another size or a stamp that goes back clears it.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._depth: Tensor | None = None
        self._stamp_ns = -1

    def update(
        self, stamp_ns: int, depth: Tensor, colors: Tensor, robot: Tensor, K: Tensor, T_camera_base: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take in what V anchors see now; returns what they saw where the robot is now.

        Args:
            stamp_ns: Of the set.
            depth: Float32 [V, H, W], measured, metres, 0 where unknown.
            colors: Uint8 [V, H, W, 3].
            robot: Float32 [V, H, W], depth of the robot alone, metres, 0 where it is not.
            K: [V, 3, 3].
            T_camera_base: [V, 4, 4].

        Returns:
            Depth float32 [V, H, W], metres, 0 where nothing is covered or remembered; colours uint8 [V, H, W, 3]; age float32
            [V, H, W], seconds.
        """
        poses, cameras = T_camera_base.cpu().numpy(), K.cpu().numpy()
        if self._depth is None or self._depth.shape != depth.shape or stamp_ns <= self._stamp_ns:
            self._depth, self._colors = torch.zeros_like(depth), torch.zeros_like(colors)
            self._stamps = torch.full(depth.shape, stamp_ns, dtype=torch.int64, device=depth.device)
        else:
            for view in range(len(depth)):
                if has_moved(self._poses[view], poses[view]) or not np.allclose(
                    self._cameras[view], cameras[view], rtol=1e-3
                ):
                    self._depth[view] = 0
        self._poses, self._cameras, self._stamp_ns = poses, cameras, stamp_ns
        covered = (robot > 0) & ((depth == 0) | ((depth - robot).abs() < _COVER_M))
        # Beside the robot's outline a pixel may still show it: joints and time are never exact.
        rows = F.max_pool2d((robot > 0).float()[:, None], (2 * _BESIDE + 1, 1), 1, (_BESIDE, 0))
        beside = F.max_pool2d(rows, (1, 2 * _BESIDE + 1), 1, (0, _BESIDE))[:, 0] > 0
        seen = ~beside & (depth > 0)
        self._depth = torch.where(seen, depth, self._depth)
        self._colors = torch.where(seen[..., None], colors, self._colors)
        self._stamps = torch.where(seen, stamp_ns, self._stamps)
        recalled = torch.where(covered, self._depth, 0.0)
        age = (stamp_ns - self._stamps).float() * 1e-9
        return recalled, self._colors, age
