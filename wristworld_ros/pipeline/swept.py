"""Condition maps by plane sweep: the wrist's view of anchors whose cameras are known but whose depth is not measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.geometry.agreement import view_agreement
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.geometry.support import SupportSearch
from wristworld_ros.models.sweep import SweepNetwork, sweep_views
from wristworld_ros.robot.known_cameras import resized_camera
from wristworld_ros.types import Camera, ConditionMap, PixelOrigin

TRUSTED = 0.3  # confidence, 0 to 1, from which on a pixel counts as covered
_CERTAIN = 0.12  # expected error of a colour, 0 to 1, at which confidence has fallen to 1 / e
_SETS, _EVERY = 6, 50  # the plane is looked for in so many sets at first, and in every so many later


@dataclass(frozen=True)
class SweepInput:
    """What a sweep needs of a set. images: uint8 [V, H, W, 3]. anchors: V cameras of that size, wrist: of the wrist's size, all in
    one world. plane: float64 [4], the plane n x = d that objects stand on, there: unit normal n, d in metres."""

    images: np.ndarray
    anchors: tuple[Camera, ...]
    wrist: Camera
    plane: np.ndarray


@dataclass(frozen=True)
class SweptView:
    """What a sweep finds. condition: the wrist's view. agreements: float64 [V], see `view_agreement`."""

    condition: ConditionMap
    agreements: np.ndarray


class PlaneSweep:
    """Condition maps of one stream.

    Args:
        network: The plane sweep.
        device: Where it runs.
        table_height: Of the plane that objects stand on in the robot's base frame, metres; None to find it.
    """

    def __init__(self, network: SweepNetwork, device: torch.device, table_height: float | None = None):
        self._network, self._device, self._given = network, device, table_height
        self.reset()

    def reset(self) -> None:
        """Forget the scene."""
        self._search = SupportSearch()
        self._height: float | None = None
        self._guesses: list[float] = []
        self._sets = 0

    def support(self, images: np.ndarray, anchors: tuple[Camera, ...], guess: float | None) -> float | None:
        """Height of the plane that objects stand on in the anchors' world, whose z axis points up, metres.

        Two anchors agree there more than at any other height; what a stream has seen of that so far counts too.

        Args:
            images: uint8 [V, H, W, 3].
            anchors: V cameras of these images.
            guess: From elsewhere, to within a few centimetres; None for none.

        Returns:
            None where there is one anchor and no guess.
        """
        if self._given is not None:
            return self._given
        if self._sets < _SETS or self._sets % _EVERY == 0:
            if len(anchors) > 1:
                self._height = self._search.update(*self._resized(images, anchors), guess)
            else:
                self._guesses += [] if guess is None else [guess]
                self._height = float(np.median(self._guesses[-_SETS:])) if self._guesses else None
        self._sets += 1
        return self._height

    def __call__(self, given: SweepInput) -> SweptView:
        """The wrist's view; empty where the wrist looks at no plane that an anchor sees."""
        images, anchors = self._resized(given.images, given.anchors)
        wrist_hw = (given.wrist.height, given.wrist.width)
        T_wrist = np.linalg.inv(given.wrist.T_camera_world)
        cameras = [
            self._tensor(given.wrist.K),
            self._tensor(given.wrist.T_camera_world),
            self._tensor(np.stack([c.K for c in anchors])),
            self._tensor(np.stack([c.T_camera_world @ T_wrist for c in anchors])),
            self._tensor(given.plane),
        ]
        half, full = (
            sweep_views(*cameras, self._network.heights, hw, wrist_hw, images.shape[1:3])
            for hw in ((wrist_hw[0] // 2, wrist_hw[1] // 2), wrist_hw)
        )
        views = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)[None].float() / 255
        out = self._network(views, half, full)
        agreements = view_agreement(out.views[0].permute(0, 2, 3, 1), out.seen[0])
        return SweptView(_condition(out.image[0], out.depth[0], out.scale[0]), agreements.cpu().numpy())

    def resized(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 [V, H, W, 3] at the size that the sweep runs at."""
        width = min(self._network.config.anchor_width, images.shape[2])
        hw = (round(images.shape[1] * width / images.shape[2] / 2) * 2, width // 2 * 2)
        return images if hw == images.shape[1:3] else resize_images(images, hw)

    def _resized(self, images: np.ndarray, anchors: tuple[Camera, ...]) -> tuple[np.ndarray, tuple[Camera, ...]]:
        small = self.resized(images)
        hw = (small.shape[1], small.shape[2])
        return small, tuple(c if (c.height, c.width) == hw else resized_camera(c, hw) for c in anchors)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self._device)[None]


def trusted_coverage(condition: ConditionMap) -> float:
    """Share of the wrist's pixels that are seen with some confidence, 0 to 1."""
    return float((condition.trust >= TRUSTED).float().mean())


def mean_confidence(condition: ConditionMap) -> float:
    """Mean confidence of the pixels that are hit, 0 to 1; 0 where none is."""
    hit = condition.depth > 0
    return float(condition.trust[hit].mean()) if bool(hit.any()) else 0.0


def _condition(image: Tensor, depth: Tensor, scale: Tensor) -> ConditionMap:
    hit = depth > 0
    origin = torch.where(hit, PixelOrigin.PREDICTED, PixelOrigin.EMPTY).to(torch.uint8)
    colours = (255 * image).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    confidence = torch.where(hit, torch.exp(-scale / _CERTAIN), 0.0)
    return ConditionMap(torch.where(hit[..., None], colours, 0), torch.where(hit, depth, 0.0), origin, confidence)
