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
_SETS, _EVERY = 6, 100  # the table is looked for in so many sets at first, and in every so many later
_ENOUGH, _OFTEN = 1.0, 20  # until there is so much evidence, it is looked for in every so many sets
_BELOW = 0.01  # metres: a robot that is known as exactly as this stays above the table
_SAME = 0.02  # metres within which heights are the same


@dataclass(frozen=True)
class SweptView:
    """What a sweep finds. condition: the wrist's view. agreements: float64 [V], see `view_agreement`."""

    condition: ConditionMap
    agreements: np.ndarray

    @property
    def quality(self) -> float:
        """How far it can be believed, 0 to 1."""
        return agreed_confidence(self.condition, self.agreements)


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
        self._ceiling = np.inf  # metres: the robot has been as low as this
        self._tried: list[tuple[float, float]] = []  # heights and the qualities of their views
        self._sets = 0

    def __call__(
        self,
        images: np.ndarray,
        anchors: tuple[Camera, ...],
        wrist: Camera,
        guess: float | None = None,
        lowest: float = np.inf,
    ) -> SweptView | None:
        """The wrist's view, empty where the wrist looks at no plane that an anchor sees; None where the table cannot be found.

        Args:
            images: uint8 [V, H, W, 3].
            anchors: V cameras of these images in a world whose z axis points up, metres.
            wrist: Of the wrist's size, in the same world.
            guess: Height of the table there from elsewhere, metres; None for none.
            lowest: Height there of the arm's lowest point over the table, metres, where it is known.
        """
        images, anchors = self._resized(images, anchors)
        if self._given is not None:
            return self._view(images, anchors, wrist, self._given)
        searches = self.searches
        self._sets += 1
        self._ceiling = min(self._ceiling, lowest + _BELOW, float(np.linalg.inv(wrist.T_camera_world)[2, 3]))
        if searches or self._too_high:
            return self._searched(images, anchors, wrist, guess)
        return None if self._height is None else self._view(images, anchors, wrist, self._height)

    @property
    def searches(self) -> bool:
        """Whether the table is looked for in the next set, so that a guess of its height is of use."""
        every = _EVERY if self._search.evidence >= _ENOUGH else _OFTEN
        return self._given is None and (self._sets < _SETS or self._sets % every == 0)

    @property
    def _too_high(self) -> bool:
        """Whether the arm has been below what was taken for the table."""
        return self._height is not None and self._height > self._ceiling

    @property
    def height(self) -> float | None:
        """Of the table in the anchors' world, metres; None where it has not been found."""
        return self._height if self._given is None else self._given

    def _searched(
        self, images: np.ndarray, anchors: tuple[Camera, ...], wrist: Camera, guess: float | None
    ) -> SweptView | None:
        """The view at the likeliest height. Where several come into question, the one is taken whose views have been the most
        believable so far: another level than the table's shows no scene that the network knows."""
        heights = self._search.update(images, anchors, guess, self._ceiling) if len(anchors) > 1 else []
        if not heights and guess is not None:
            heights = [min(guess, self._ceiling)]
        if not heights and self._height is not None:
            heights = [min(self._height, self._ceiling)]
        views = [self._view(images, anchors, wrist, height) for height in heights]
        self._tried += [(height, view.quality) for height, view in zip(heights, views, strict=True)]
        if not views:
            return None
        best = int(np.argmax([self._mean_quality(height) for height in heights]))
        self._height = heights[best]
        return views[best]

    def _mean_quality(self, height: float) -> float:
        return float(np.mean([quality for other, quality in self._tried if abs(other - height) < _SAME]))

    def _view(self, images: np.ndarray, anchors: tuple[Camera, ...], wrist: Camera, height: float) -> SweptView:
        wrist_hw = (wrist.height, wrist.width)
        T_wrist = np.linalg.inv(wrist.T_camera_world)
        cameras = [
            self._tensor(wrist.K),
            self._tensor(wrist.T_camera_world),
            self._tensor(np.stack([c.K for c in anchors])),
            self._tensor(np.stack([c.T_camera_world @ T_wrist for c in anchors])),
            self._tensor(np.array([0.0, 0.0, 1.0, height])),
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


def agreed_confidence(condition: ConditionMap, agreements: np.ndarray) -> float:
    """Mean confidence times the least agreement of anchors that share pixels, 0 to 1: the sweep cannot know that an anchor is wrong."""
    known = agreements[np.isfinite(agreements)]
    return mean_confidence(condition) * (float(known.min()) if len(known) else 1.0)


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
