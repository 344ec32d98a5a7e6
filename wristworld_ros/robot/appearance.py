"""The robot's colours as the anchors see them: a description says white where the light in the room says grey."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.robot.surface import PointSet, RobotSurface, facing

_VISIBLE_M = 0.012  # a point this near to the robot's depth in an anchor is what the anchor sees there
_NEW = 0.4  # weight of a new brightness against the remembered one
_LEAST_SEEN = 30  # points of a link, for a brightness of its own
_SHADES = (0.4, 1.6)  # of the darkest and the brightest side to the middle
_RIDGE = 0.02  # of the regression on normals of unit length
_DARKEST = 16  # grey levels: darker described colours tell nothing of the light


class RobotAppearance:
    """Remembers, for every link, how bright and of what tint the anchors see it against its description, and how the light falls.

    The wrist camera sees the robot from below, where no anchor does. Brightness is taken as linear in the normal (the first order
    of diffuse light), which the anchors' sides tell, and carried on to the others.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Forget it."""
        self._gains: dict[int, np.ndarray] = {}
        self._light = np.zeros(3)

    def observe(
        self,
        surface: RobotSurface,
        images: Tensor,
        depth: Tensor,
        measured: Tensor,
        K: Tensor,
        T_camera_base: Tensor,
        stride: int,
    ) -> None:
        """Take in what V anchors see of the robot.

        Args:
            surface: Of the robot.
            images: Uint8 [V, H, W, 3].
            depth: Float32 [V, h, w] of the robot alone, as `robot_depth` gives it, metres.
            measured: Float32 [V, h, w] of the same pixels, 0 where unknown.
            K: [V, 3, 3], pixels of the images.
            T_camera_base: [V, 4, 4].
            stride: Of the pixels of `depth`.
        """
        thin = surface.thin
        described, links = thin.colors.cpu().numpy().astype(np.float32), thin.links.cpu().numpy()
        ratios, owners, sides = [], [], []
        for view in range(len(images)):
            visible, u, v = _visible(
                thin.points, thin.normals, depth[view], measured[view], images.shape[1:3], K[view], T_camera_base[view],
                stride,
            )  # fmt: skip
            seen = images[view, v[visible], u[visible]].cpu().numpy().astype(np.float32)
            visible = visible.cpu().numpy()
            ratios.append(seen / np.maximum(described[visible], _DARKEST))
            owners.append(links[visible])
            if thin.normals is not None:
                sides.append(thin.normals.cpu().numpy()[visible].astype(np.float64))
        ratio, owner = np.concatenate(ratios), np.concatenate(owners)
        if sides and len(ratio) >= _LEAST_SEEN:
            normal = np.concatenate(sides)
            self._light = (1 - _NEW) * self._light + _NEW * _light(ratio.mean(1), owner, normal)
            ratio = ratio / _shade(normal @ self._light)[:, None]
        for link in np.unique(owner):
            own = owner == link
            if own.sum() >= _LEAST_SEEN:
                gain = np.median(ratio[own], axis=0)
                self._gains[int(link)] = (1 - _NEW) * self._gains.get(int(link), gain) + _NEW * gain

    def colors(self, surface: RobotSurface, points: PointSet, chosen: Tensor) -> Tensor:
        """Colours of chosen points [N] of a surface in the present light, uint8 [N, 3]; a link that was never seen has the light of the
        others."""
        if not self._gains:
            return points.colors[chosen]
        usual = np.median(list(self._gains.values()), axis=0)
        gains = np.stack([self._gains.get(link, usual) for link in range(len(surface.names))])
        gain = torch.from_numpy(gains).to(points.points)[points.links[chosen]]
        if points.normals is not None:
            toward = points.normals[chosen] @ torch.from_numpy(self._light).to(points.points)
            gain = gain * (1 + toward).clamp(*_SHADES)[:, None]
        return (points.colors[chosen] * gain).clamp(0, 255).to(torch.uint8)


def _light(brightness: np.ndarray, link: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The vector l with which a side of normal n is 1 + n.l times as bright as its link in the middle, by ridge regression of
    the brightness [N] of points with normals [N, 3], within each link."""
    relative, centred = np.zeros(len(link)), np.zeros_like(normal)
    for number in np.unique(link):
        own = link == number
        relative[own] = np.clip(brightness[own] / max(np.median(brightness[own]), 1e-3), 0, 2) - 1
        relative[own] -= relative[own].mean()
        centred[own] = normal[own] - normal[own].mean(0)
    return np.linalg.solve(centred.T @ centred + _RIDGE * len(link) * np.eye(3), centred.T @ relative)


def _shade(toward: np.ndarray) -> np.ndarray:
    return np.clip(1 + toward, *_SHADES)


def _visible(points, normals, depth, measured, hw, K, T, stride) -> tuple[Tensor, Tensor, Tensor]:
    """Which points an anchor sees, bool [N], and their pixels u, v, int64 [N]."""
    P = (K.double() @ T[:3].double()).float()
    uvz = points @ P[:, :3].T + P[:, 3]
    z = uvz[:, 2].clamp(min=1e-6)
    u, v = (uvz[:, 0] / z).round().long(), (uvz[:, 1] / z).round().long()
    inside = (uvz[:, 2] > 0.05) & (u >= 0) & (u < hw[1]) & (v >= 0) & (v < hw[0])
    u, v = u.clamp(0, hw[1] - 1), v.clamp(0, hw[0] - 1)
    same = (depth[v // stride, u // stride] - z).abs() < _VISIBLE_M
    found = measured[v // stride, u // stride]
    hidden = (found > 0) & ((found - z).abs() > _VISIBLE_M)  # e.g. by what the gripper holds
    return inside & facing(points, normals, T) & same & ~hidden, u, v
