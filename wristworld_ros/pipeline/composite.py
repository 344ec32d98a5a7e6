"""Pixels that were measured, laid over generated ones: a generator that was not trained on true geometry washes objects out.

Small gaps between trusted pixels are filled from around them; the generator's part are the large ones.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.models.wan.condition_planes import fill_holes
from wristworld_ros.types import ConditionMap, PixelOrigin

SMALL = 15  # pixels: window whose gaps are filled from their rims, where most of it is trusted
FEATHER = 5  # pixels: window within which a seam fades
_NEARLY_ALL = 0.9  # share of trusted pixels in that window where a gap is filled altogether
_ALONE, _AMONG = 0.2, 0.7  # share of trusted pixels in the window where one is dropped, and where it counts fully


def trusted_share(condition: ConditionMap) -> float:
    """Share of the pixels that were measured, are remembered or are the robot, 0 to 1."""
    return 0.0 if condition.origin is None else float((condition.origin >= PixelOrigin.MEASURED).float().mean())


def filled(condition: ConditionMap) -> np.ndarray:
    """The condition map with its holes filled from around them, uint8 [h, w, 3]; not from the robot, whose outline is known."""
    hit = condition.depth > 0
    around = _filled_from(condition, _without_robot(condition, hit))
    image = torch.where(hit, condition.image.float().permute(2, 0, 1), around)
    return image.permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def composite(image: np.ndarray, condition: ConditionMap) -> np.ndarray:
    """The generated image, with the condition map over it where that was measured, remembered or is the robot.

    Args:
        image: uint8 [h, w, 3], generated.
        condition: Of the same size; one without origins is all predicted, and changes nothing.

    Returns:
        uint8 [h, w, 3].
    """
    if condition.origin is None or condition.confidence is None:
        return image
    trusted = (condition.origin >= PixelOrigin.MEASURED).float()
    around = F.avg_pool2d(trusted[None, None], FEATHER, 1, FEATHER // 2, count_include_pad=False)[0, 0]
    sure = trusted * condition.confidence * ((around - _ALONE) / (_AMONG - _ALONE)).clamp(0, 1)
    generated = torch.from_numpy(image).to(condition.image.device).float().permute(2, 0, 1)
    shown = condition.image.float().permute(2, 0, 1)
    filled = _filled_from(condition, _without_robot(condition, trusted > 0))
    share = F.avg_pool2d(trusted[None, None], SMALL, 1, SMALL // 2, count_include_pad=False)[0, 0]
    small = ((share - _AMONG) / (_NEARLY_ALL - _AMONG)).clamp(0, 1)
    background = generated + small * (filled - generated)
    mixed = (background + sure * (shown - background)).permute(1, 2, 0)
    return mixed.round().to(torch.uint8).cpu().numpy()


def _without_robot(condition: ConditionMap, pixels: Tensor) -> Tensor:
    """Those of the pixels, bool [h, w], that do not show the robot; all where there are no others."""
    if condition.origin is None:
        return pixels
    others = pixels & (condition.origin != PixelOrigin.ROBOT)
    return others if bool(others.any()) else pixels


def _filled_from(condition: ConditionMap, pixels: Tensor) -> Tensor:
    """A condition map of these pixels alone, bool [h, w], all others filled from around them; float32 [3, h, w]."""
    shown = condition.image.float().permute(2, 0, 1)
    return fill_holes(shown[None], pixels.float()[None, None])[0]
