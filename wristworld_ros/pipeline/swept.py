"""Condition maps by plane sweep: the wrist's view of anchors whose cameras are known but whose depth is not measured."""

from __future__ import annotations

from collections import deque
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
_FIRST = 6  # sets in each of which the table is looked for at all heights
_ROUND = 100  # sets that share the heights later, so that none takes long
_ENOUGH, _SHORT_ROUND = 1.0, 20  # until there is so much evidence, so many sets share them
_REMEMBERED = 100  # views whose quality counts
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
        self._tried: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)  # heights and the qualities of their views
        self._rivals: list[float] = []  # heights that come into question beside the one that was chosen
        self._first, self._place, self._round = _FIRST, 0, _SHORT_ROUND

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
        self._ceiling = min(self._ceiling, lowest + _BELOW, float(np.linalg.inv(wrist.T_camera_world)[2, 3]))
        if self._first or self._too_high:
            self._first = max(0, self._first - 1)
            self._look(images, anchors)
            return self._best(images, anchors, wrist, self._candidates(guess))
        self._look(images, anchors, slice(self._place, None, self._round))
        self._place += 1
        if self._place == self._round:
            self._end_round(guess)
        if self._height is None:
            return self._best(images, anchors, wrist, self._rivals)
        return self._beside_a_rival(images, anchors, wrist, self._height)

    @property
    def searches(self) -> bool:
        """Whether heights are chosen in the next set, so that a guess of the table's is of use."""
        return self._given is None and (self._first > 0 or self._place == self._round - 1)

    @property
    def _too_high(self) -> bool:
        """Whether the arm has been below what was taken for the table."""
        return self._height is not None and self._height > self._ceiling

    @property
    def height(self) -> float | None:
        """Of the table in the anchors' world, metres; None where it has not been found."""
        return self._height if self._given is None else self._given

    def _look(self, images: np.ndarray, anchors: tuple[Camera, ...], part: slice = slice(None)) -> None:
        if len(anchors) > 1:
            self._search.add(images, anchors, part)

    def _candidates(self, guess: float | None) -> list[float]:
        """Heights that come into question: where anchors agree, else the guess, else what was found before."""
        heights = self._search.heights(guess, self._ceiling)
        otherwise = self._height if guess is None else guess
        return heights or ([] if otherwise is None else [min(otherwise, self._ceiling)])

    def _best(
        self, images: np.ndarray, anchors: tuple[Camera, ...], wrist: Camera, heights: list[float]
    ) -> SweptView | None:
        """The view at the likeliest of some heights: that one whose views have been the most believable so far, for another level
        than the table's shows no scene that the network knows."""
        views = [self._tried_view(images, anchors, wrist, height) for height in heights]
        if not views:
            return None
        best = int(np.argmax([self._mean_quality(height) for height in heights]))
        self._height = heights[best]
        return views[best]

    def _end_round(self, guess: float | None) -> None:
        """All heights have been compared once more: which of them are to be tried beside the chosen one."""
        heights = self._candidates(guess)
        if self._height is not None:
            same = [height for height in heights if abs(height - self._height) < _SAME]
            self._height = same[0] if same else self._height
            heights = [height for height in heights if height not in same]
        self._rivals = heights
        self._place, self._round = 0, _ROUND if self._search.evidence >= _ENOUGH else _SHORT_ROUND

    def _beside_a_rival(
        self, images: np.ndarray, anchors: tuple[Camera, ...], wrist: Camera, height: float
    ) -> SweptView:
        """The view at the chosen height; where there is a rival, the better of both, one rival in a set."""
        rivals = [rival for rival in self._rivals if rival <= self._ceiling]
        self._rivals = rivals[1:]
        if not rivals:
            return self._view(images, anchors, wrist, height)
        view = self._best(images, anchors, wrist, [height, rivals[0]])
        assert view is not None
        return view

    def _tried_view(self, images: np.ndarray, anchors: tuple[Camera, ...], wrist: Camera, height: float) -> SweptView:
        view = self._view(images, anchors, wrist, height)
        self._tried.append((height, view.quality))
        return view

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
